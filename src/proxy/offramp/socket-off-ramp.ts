import { lookup } from 'node:dns/promises';

import { RampartError } from '#base/error.ts';
import { parseIp, type SocketAddress } from '#base/ip.ts';
import type { SendProxyHeader } from '#config/off-ramps.ts';
import type { Target } from '#contract/context.ts';
import { type Completion, Errno, type Fd, type Io, type OperationId } from '#io/io.ts';
import type { DialPlan, SecureUpgrade, Worker } from '#proxy/proxy-contract.ts';

import type { StreamOffRamp } from './offramp.ts';
import { DnsCache, type ResolvedAddress, recordTtlMs } from './upstream/dns-cache.ts';
import { interleave, race } from './upstream/happy-eyeballs.ts';

/** Resolves a name to addresses in the order in which they shall be tried. */
export type Resolver = (
  host: string,
) => Promise<readonly { readonly address: string; readonly family: 4 | 6 }[]>;

const hostNames = new DnsCache({
  async lookup(host) {
    const found = await lookup(host, { all: true, verbatim: true });
    return found.map(({ address, family }) => ({ address, family: family === 4 ? 4 : 6 }));
  },
  ttlMs: recordTtlMs,
  now: () => performance.now(),
});

/** The host's own resolver, as every program of this host uses it; answers are kept as long as they hold. */
export const systemResolver: Resolver = hostNames.resolve;

/** Streams leave by plain TCP sockets of this host. */
export class SocketOffRamp implements StreamOffRamp {
  readonly name: string;
  readonly origin: Target | null;
  readonly keepsSource = false;
  readonly proxyHeader: SendProxyHeader | null;
  readonly secure: SecureUpgrade | null;
  readonly #worker: Worker;
  readonly #source: string | null;
  readonly #resolver: Resolver;

  /** @param options.source local address to leave from, in place of the kernel's choice. */
  constructor(
    worker: Worker,
    options: {
      name: string;
      origin?: Target | null;
      source?: string | null;
      resolver?: Resolver;
      proxyHeader?: SendProxyHeader | null;
      secure?: SecureUpgrade | null;
    },
  ) {
    this.name = options.name;
    this.proxyHeader = options.proxyHeader ?? null;
    this.secure = options.secure ?? null;
    this.origin = options.origin ?? null;
    this.#worker = worker;
    this.#source = options.source ?? null;
    this.#resolver = options.resolver ?? systemResolver;
  }

  async connect(plan: Pick<DialPlan, 'target' | 'source' | 'guard'>): Promise<Fd> {
    const { io, limits } = this.#worker;
    const { target, guard } = plan;
    const deadline = io.refreshNow() + limits.connectMs;
    const source = plan.source?.address ?? this.#source;
    let last: unknown = null;
    const allowed = (await this.#resolve(target.host)).filter(({ address }) => {
      const refused = guard?.refuse(parseIp(address) as Uint8Array, target.port) ?? null;
      if (refused !== null) last = guardError(target, refused);
      return refused === null;
    });
    if (allowed.length === 0) throw last ?? connectError(target, Errno.EHOSTUNREACH);
    const attempt = async ({ address, family }: ResolvedAddress): Promise<Fd> => {
      const timeoutMs = deadline - io.refreshNow();
      if (timeoutMs <= 0) throw connectError(target, Errno.ETIMEDOUT);
      return await connectTcp(io, { to: { family, address, port: target.port }, source, timeoutMs });
    };
    if (allowed.length === 1) return await attempt(allowed[0] as ResolvedAddress);
    return await race(interleave(allowed), {
      attempt,
      discard: (fd) => io.close(fd),
      after: (ms, callback) => {
        const timer = io.timer(ms, { onCompletion: callback }, 0);
        return () => io.cancelTimer(timer);
      },
    });
  }

  async #resolve(host: string): Promise<readonly { address: string; family: 4 | 6 }[]> {
    const literal = parseIp(host);
    if (literal !== null) return [{ address: host, family: literal.length === 4 ? 4 : 6 }];
    try {
      return await this.#resolver(host);
    } catch (cause) {
      throw new RampartError('RAMP_CONNECT', `the name ${host} could not be resolved`, {
        side: 'upstream',
        retry: 'yes',
        errno: Errno.EHOSTUNREACH,
        cause,
      });
    }
  }
}

/**
 * Opens one TCP connection within `timeoutMs`; the caller owns the descriptor. Rejects as
 * `StreamOffRamp.connect` does.
 */
export function connectTcp(
  io: Io,
  options: { to: SocketAddress & { family: 4 | 6 }; source: string | null; timeoutMs: number },
): Promise<Fd> {
  return new Promise((resolve, reject) => {
    let fd: Fd;
    try {
      fd = io.socket(options.to.family === 4 ? 'tcp4' : 'tcp6');
    } catch (error) {
      reject(error);
      return;
    }
    try {
      io.setOption(fd, 'no-delay', 1);
      const source = options.source === null ? null : parseIp(options.source);
      if (options.source !== null && source?.length === (options.to.family === 4 ? 4 : 16)) {
        io.bind(fd, { family: options.to.family, address: options.source, port: 0 });
      }
    } catch (error) {
      io.close(fd);
      reject(error);
      return;
    }
    new Attempt(io, fd, options, resolve, reject).start();
  });
}

const TAG_CONNECT = 0;
const TAG_TIMEOUT = 1;

/** One connect under way with its time limit. */
class Attempt implements Completion {
  readonly #io: Io;
  readonly #fd: Fd;
  readonly #to: SocketAddress & { family: 4 | 6 };
  readonly #timeoutMs: number;
  readonly #resolve: (fd: Fd) => void;
  readonly #reject: (error: unknown) => void;
  #operation: OperationId = 0;
  #timer = 0;
  #timedOut = false;

  constructor(
    io: Io,
    fd: Fd,
    options: { to: SocketAddress & { family: 4 | 6 }; timeoutMs: number },
    resolve: (fd: Fd) => void,
    reject: (error: unknown) => void,
  ) {
    this.#io = io;
    this.#fd = fd;
    this.#to = options.to;
    this.#timeoutMs = options.timeoutMs;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  start(): void {
    this.#timer = this.#io.timer(this.#timeoutMs, this, TAG_TIMEOUT);
    this.#operation = this.#io.connect(this.#fd, this.#to, this, TAG_CONNECT);
  }

  onCompletion(tag: number, result: number): void {
    if (tag === TAG_TIMEOUT) {
      this.#timedOut = true;
      this.#io.cancel(this.#operation);
      return;
    }
    this.#io.cancelTimer(this.#timer);
    if (result >= 0) {
      this.#resolve(this.#fd);
      return;
    }
    this.#io.close(this.#fd);
    const target = { host: this.#to.address, port: this.#to.port };
    this.#reject(connectError(target, this.#timedOut ? Errno.ETIMEDOUT : -result));
  }
}

/** The error of a target whose address the client may not reach. */
function guardError(target: Target, why: string): RampartError {
  const text = `connecting to ${target.host} port ${target.port} is not allowed: ${why}`;
  return new RampartError('RAMP_CONNECT', text, { side: 'downstream', errno: Errno.EACCES });
}

/** The error of a connect that failed with a positive errno. */
export function connectError(target: Target, errno: number): RampartError {
  const why = CONNECT_TEXT[errno] ?? `failed with errno ${errno}`;
  const timedOut = errno === Errno.ETIMEDOUT;
  return new RampartError(
    timedOut ? 'RAMP_TIMEOUT' : 'RAMP_CONNECT',
    `connecting to ${target.host} port ${target.port} ${why}`,
    { side: 'upstream', retry: 'yes', errno },
  );
}

const CONNECT_TEXT: Readonly<Record<number, string>> = Object.freeze({
  [Errno.ECONNREFUSED]: 'was refused',
  [Errno.ETIMEDOUT]: 'timed out',
  [Errno.EHOSTUNREACH]: 'found no host',
  [Errno.ENETUNREACH]: 'found no network',
  [Errno.ECANCELED]: 'was cancelled',
});
