import type { Context, Endpoint, Target } from '#contract/context.ts';
import type { Fd } from '#io/io.ts';
import type { EgressInfo, EgressVerdict } from '#proxy/hooks/hooks.ts';
import type {
  Announcement,
  Dialer,
  DialPlan,
  DialRefusal,
  DialRequest,
  NetworkId,
  Worker,
} from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import { announce } from './announce.ts';
import type { ConnectionUse, StreamOffRamp } from './offramp.ts';

/** Finds the off-ramp for a destination by the config's routes; null when none matches. */
export type RouteFunction = (network: NetworkId, context: Context, destination: Endpoint) => string | null;

/** Calls the application's `egress` hook with its budget; null when there is none. */
export type EgressFunction = (
  info: EgressInfo,
) => EgressVerdict | undefined | Promise<EgressVerdict | undefined>;

/** Picks an off-ramp for streams and opens connections by it. */
export class OffRampDialer implements Dialer {
  readonly #worker: Worker;
  readonly #offRamps: ReadonlyMap<string, StreamOffRamp>;
  readonly #route: RouteFunction;
  readonly #egress: EgressFunction | null;
  /** Connections that an off-ramp follows. */
  readonly #uses = new Map<Fd, ConnectionUse>();

  constructor(
    worker: Worker,
    options: {
      offRamps: ReadonlyMap<string, StreamOffRamp>;
      route: RouteFunction;
      egress: EgressFunction | null;
    },
  ) {
    this.#worker = worker;
    this.#offRamps = options.offRamps;
    this.#route = options.route;
    this.#egress = options.egress;
  }

  plan(request: DialRequest): DialPlan | DialRefusal | Promise<DialPlan | DialRefusal> {
    const via = request.via ?? this.#route(request.network, request.context, request.destination);
    if (via === null) return refusal('no route to the destination');
    const offRamp = this.#offRamps.get(via);
    if (offRamp === undefined) return refusal(`off-ramp ${via} carries no streams`);
    const own = request.target === null ? (offRamp.originFor?.(request) ?? null) : null;
    const target = request.target ?? own ?? offRamp.origin ?? asTarget(request.destination);
    if (this.#egress === null) {
      const plan = this.#finish(request, { offRamp, target, source: null }, true);
      return own !== null ? this.#spread(request, offRamp, plan) : plan;
    }
    const verdict = this.#egress({ context: request.context, layer: request.layer, target, via });
    if (verdict instanceof Promise) return verdict.then((v) => this.#apply(request, { offRamp, target }, v));
    return this.#apply(request, { offRamp, target }, verdict);
  }

  async connect(plan: DialPlan): Promise<Fd> {
    const offRamp = this.#offRamps.get(plan.via) as StreamOffRamp;
    const { counters } = this.#worker.stats;
    counters[Counter.UpstreamConnects] = (counters[Counter.UpstreamConnects] as number) + 1;
    let use: ConnectionUse | null = null;
    try {
      const ready = plan.secure?.take?.(plan) ?? null;
      if (ready !== null) return ready;
      let fd = await offRamp.connect(plan);
      use = offRamp.follow?.(fd) ?? null;
      if (plan.announce !== undefined && offRamp.proxyHeader) {
        announce(this.#worker, fd, offRamp.proxyHeader, plan.announce);
      }
      if (plan.secure !== undefined) fd = await plan.secure.secure(fd, plan.target);
      if (use !== null) this.#follow(fd, use);
      const tracer = this.#worker.tracer;
      if (tracer.enabled) {
        tracer.emit({
          at: this.#worker.io.refreshNow(),
          flow: plan.flow,
          stage: 'off-ramp',
          account: plan.context.account,
          vnet: plan.context.vnet,
          tuple: '',
          text: `connected to ${plan.target.host}:${plan.target.port} by ${plan.via}`,
        });
      }
      return fd;
    } catch (error) {
      use?.onFailure();
      use?.onClose();
      counters[Counter.UpstreamConnectErrors] = (counters[Counter.UpstreamConnectErrors] as number) + 1;
      throw error;
    }
  }

  /** Equal requests are spread over the origins of an off-ramp: one plan for each, made when it is needed. */
  #spread(request: DialRequest, offRamp: StreamOffRamp, first: DialPlan): DialPlan {
    const plans = new Map<Target, DialPlan>();
    const planTo = (target: Target): DialPlan => {
      let plan = plans.get(target);
      if (plan === undefined) {
        plan = { ...this.#finish(request, { offRamp, target, source: null }, true), spread };
        plans.set(target, plan);
      }
      return plan;
    };
    const spread = (): DialPlan => planTo(offRamp.originFor?.(request) ?? first.target);
    return planTo(first.target);
  }

  answered(fd: Fd, status: number): void {
    this.#uses.get(fd)?.onAnswer(status);
  }

  closed(fd: Fd): void {
    const use = this.#uses.get(fd);
    if (use === undefined) return;
    this.#uses.delete(fd);
    use.onClose();
  }

  /** A descriptor that comes again was closed without a word in between. */
  #follow(fd: Fd, use: ConnectionUse): void {
    this.closed(fd);
    this.#uses.set(fd, use);
  }

  #apply(
    request: DialRequest,
    chosen: { offRamp: StreamOffRamp; target: Target },
    verdict: EgressVerdict | undefined,
  ): DialPlan | DialRefusal {
    if (verdict === undefined) return this.#finish(request, { ...chosen, source: null }, false);
    if (verdict.action === 'block') return refusal(verdict.reason);
    let offRamp = chosen.offRamp;
    if (verdict.via !== undefined) {
      const named = this.#offRamps.get(verdict.via);
      if (named === undefined) return refusal(`off-ramp ${verdict.via} carries no streams`);
      offRamp = named;
    }
    const source = verdict.source === undefined ? null : { address: verdict.source, port: 0 };
    return this.#finish(request, { offRamp, target: verdict.to ?? chosen.target, source }, false);
  }

  #finish(
    request: DialRequest,
    chosen: { offRamp: StreamOffRamp; target: Target; source: Endpoint | null },
    reusable: boolean,
  ): DialPlan {
    const { offRamp, target } = chosen;
    const source =
      chosen.source ?? (offRamp.keepsSource ? { address: request.source.address, port: 0 } : null);
    const { guard } = request;
    const announced = offRamp.proxyHeader ? announcementOf(request, offRamp.proxyHeader.context) : null;
    const client = announced === null ? '' : clientKey(request);
    const secure = request.secure ?? offRamp.secure ?? null;
    const secured = secure === null ? '' : ` ${secure.key}`;
    const guarded = guard === undefined ? '' : ` ${guard.key}`;
    return {
      via: offRamp.name,
      target,
      key:
        `${request.network} ${offRamp.name} ${target.host} ${target.port} ` +
        `${source?.address ?? ''}${client}${guarded}${secured}`,
      ...(announced === null ? {} : { announce: announced }),
      ...(guard === undefined ? {} : { guard }),
      ...(secure === null ? {} : { secure }),
      source,
      context: request.context,
      network: request.network,
      flow: request.flow,
      reusable,
    };
  }
}

/** What a PROXY header says of the request's client. */
function announcementOf(request: DialRequest, withContext: boolean): Announcement {
  const { source, destination, facts, context } = request;
  const told = { source, destination, ...facts };
  if (!withContext) return told;
  const { account, vnet, identity, labels } = context;
  const groups = identity?.groups ?? [];
  return {
    ...told,
    context: {
      account,
      vnet,
      ...(identity?.user === undefined ? {} : { user: identity.user }),
      ...(identity?.device === undefined ? {} : { device: identity.device }),
      ...(groups.length === 0 ? {} : { groups }),
      ...(Object.keys(labels).length === 0 ? {} : { labels }),
    },
  };
}

/** What was announced on a connection holds for all of it, so only the same stream may use it again. */
function clientKey({ source, destination, flow }: DialRequest): string {
  return ` ${flow} ${source.address}:${source.port} ${destination.address}:${destination.port}`;
}

function refusal(reason: string): DialRefusal {
  return { refused: true, reason };
}

function asTarget(endpoint: Endpoint): Target {
  return { host: endpoint.address, port: endpoint.port };
}
