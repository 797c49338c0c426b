import { RampartError } from '#base/error.ts';
import type { SendProxyHeader } from '#config/off-ramps.ts';
import { DEFAULT_UPSTREAM, type HealthCheckConfig, type UpstreamConfig } from '#config/upstream.ts';
import type { Target } from '#contract/context.ts';
import type { Fd } from '#io/io.ts';
import type { DialPlan, DialRequest, SecureUpgrade, Worker } from '#proxy/proxy-contract.ts';

import type { ConnectionUse, StreamOffRamp } from './offramp.ts';
import { type Resolver, SocketOffRamp } from './socket-off-ramp.ts';
import { Balancer, type Origin, textHash } from './upstream/balancer.ts';
import { HealthChecks, probeHttp } from './upstream/health-check.ts';
import { RetryBudget } from './upstream/retry-budget.ts';

const NONE: ReadonlySet<Origin> = new Set();

/** Streams leave to the origins of one service; `upstream/balancer.ts` says to which. */
export class OriginOffRamp implements StreamOffRamp {
  readonly name: string;
  readonly origin: Target;
  readonly keepsSource = false;
  readonly proxyHeader: SendProxyHeader | null;
  readonly secure: SecureUpgrade | null;
  readonly balancer: Balancer;
  readonly #worker: Worker;
  readonly #sockets: SocketOffRamp;
  readonly #config: UpstreamConfig;
  readonly #budget = new RetryBudget();
  /** Connections that nobody has asked to follow yet. */
  readonly #fresh = new Map<Fd, Origin>();
  readonly #checks: HealthChecks | null;
  #pending = 0;

  constructor(
    worker: Worker,
    options: {
      name: string;
      /** At least one. */
      origins: readonly Target[];
      upstream?: UpstreamConfig;
      resolver?: Resolver;
      proxyHeader?: SendProxyHeader | null;
      secure?: SecureUpgrade | null;
      /** From 0 to below 1; default Math.random. */
      random?: () => number;
    },
  ) {
    this.name = options.name;
    this.proxyHeader = options.proxyHeader ?? null;
    this.secure = options.secure ?? null;
    this.#worker = worker;
    this.#config = options.upstream ?? DEFAULT_UPSTREAM;
    const { balance: policy, failuresMax, ejectMs, slowStartMs, connectionsMax } = this.#config;
    const random = options.random ?? Math.random;
    this.balancer = new Balancer(options.origins, {
      ...{ policy, failuresMax, ejectMs, slowStartMs, connectionsMax, random },
    });
    this.origin = options.origins[0] as Target;
    this.#sockets = new SocketOffRamp(worker, options);
    this.#checks = this.#config.check === null ? null : this.#check(this.#config.check, random);
  }

  /**
   * The choice is part of the plan, so that every request has its turn, also where connections are kept: each
   * origin has a pool of its own.
   */
  originFor(request: DialRequest): Target | null {
    if (this.balancer.origins.length === 1) return null;
    const isHashed = this.#config.balance === 'source-hash';
    const hash = isHashed ? textHash(`${request.network} ${request.source.address}`) : 0;
    return this.balancer.choose(this.#now(), hash, NONE)?.target ?? null;
  }

  async connect(plan: DialPlan): Promise<Fd> {
    const planned = this.balancer.origins.find(({ target }) => target === plan.target);
    // A hook that names a target of its own means that one.
    if (planned === undefined) return await this.#sockets.connect(plan);
    if (this.#pending >= this.#config.pendingMax) throw this.#full('connections being opened');
    this.#pending++;
    try {
      return await this.#connectToOne(plan, planned);
    } finally {
      this.#pending--;
    }
  }

  close(): void {
    this.#checks?.close();
  }

  follow(fd: Fd): ConnectionUse | null {
    const origin = this.#fresh.get(fd);
    if (origin === undefined) return null;
    this.#fresh.delete(fd);
    return new OriginConnection(this.balancer, origin, () => this.#now());
  }

  /** Tries origins until one takes the connection, each at most once, as far as the retry budget goes. */
  async #connectToOne(plan: DialPlan, first: Origin): Promise<Fd> {
    const { balancer } = this;
    const tried = new Set<Origin>();
    const hash = textHash(plan.key);
    this.#budget.onTry();
    let last: unknown = null;
    for (;;) {
      const now = this.#now();
      const usesFirst = tried.size === 0 && balancer.isInUse(first, now) && balancer.isFree(first);
      const origin = usesFirst ? first : balancer.choose(now, hash, tried);
      if (origin === null) throw last ?? this.#full('connections');
      if (tried.size > 0 && !this.#budget.take()) throw last;
      tried.add(origin);
      origin.connections++;
      try {
        const fd = await this.#sockets.connect({ ...plan, target: origin.target });
        if (!origin.answers) balancer.onSuccess(origin, this.#now());
        this.#fresh.set(fd, origin);
        return fd;
      } catch (error) {
        origin.connections--;
        balancer.onFailure(origin, this.#now());
        last = error;
      }
    }
  }

  /** Asks by a GET where there is a path and no TLS, else by opening what a stream would open. */
  #check(config: HealthCheckConfig, random: () => number): HealthChecks {
    const { balancer } = this;
    return new HealthChecks({
      config,
      random,
      targets: balancer.origins.map(({ target }) => target),
      probe: (target) =>
        config.path !== null && this.secure === null
          ? probeHttp(target, config)
          : this.#probeOpen(target, config),
      onAnswer: (index, up) => balancer.onCheck(balancer.origins[index] as Origin, up, this.#now()),
      after(ms, callback) {
        const timer = setTimeout(callback, ms).unref();
        return () => clearTimeout(timer);
      },
    });
  }

  async #probeOpen(target: Target, { timeoutMs }: HealthCheckConfig): Promise<void> {
    const { io } = this.#worker;
    const startedAt = io.refreshNow();
    let fd = await this.#sockets.connect({ target, source: null });
    if (this.secure !== null) fd = await this.secure.secure(fd, target);
    io.close(fd);
    if (io.refreshNow() - startedAt > timeoutMs) throw new Error('the check took too long');
  }

  #full(what: string): RampartError {
    return new RampartError('RAMP_LIMIT', `all origins of ${this.name} have as many ${what} as they may`, {
      side: 'upstream',
      retry: 'yes',
    });
  }

  #now(): number {
    return this.#worker.io.now();
  }
}

/** One connection to an origin, until it is closed. */
class OriginConnection implements ConnectionUse {
  readonly #balancer: Balancer;
  readonly #origin: Origin;
  readonly #now: () => number;

  constructor(balancer: Balancer, origin: Origin, now: () => number) {
    this.#balancer = balancer;
    this.#origin = origin;
    this.#now = now;
  }

  onAnswer(status: number): void {
    this.#origin.answers = true;
    if (status >= 500) this.#balancer.onFailure(this.#origin, this.#now());
    else this.#balancer.onSuccess(this.#origin, this.#now());
  }

  onFailure(): void {
    this.#balancer.onFailure(this.#origin, this.#now());
  }

  onClose(): void {
    this.#origin.connections--;
  }
}
