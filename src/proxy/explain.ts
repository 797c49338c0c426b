/**
 * What would become of a flow, and why: the same routes, hooks and contexts as the data plane's, asked in the
 * same order, without a packet. Serves `rampart explain`, with a running process and without one.
 *
 * The application's hooks are called for real. Where only a real flow can show (first bytes, a request), it
 * says so.
 */
import { RampartError } from '#base/error.ts';
import { formatPrefix, formatSocketAddress, parseIp, parsePrefix, prefixContains } from '#base/ip.ts';
import type { Config } from '#config/config.ts';
import type { OffRampConfig } from '#config/off-ramps.ts';
import type { OnRampConfig } from '#config/on-ramps.ts';
import { type RouteQuery, RouteTable } from '#config/route-table.ts';
import type { RouteConfig } from '#config/routes.ts';
import type { ExplainQuery, ExplainStep, Explanation } from '#contract/agent.ts';
import type { Context, Endpoint, Target } from '#contract/context.ts';

import { isContextRefusal, makeContext } from './hooks/context.ts';
import type { FlowVerdict, SessionVerdict, StreamVerdict } from './hooks/hooks.ts';
import type { HookRunner } from './hooks/runner.ts';

const PROTOCOL_NUMBERS = Object.freeze({ tcp: 6, udp: 17, icmp: 1 } as const);

/**
 * Explains one flow by the config and, where there are some, its hooks.
 *
 * @throws RampartError RAMP_USAGE when the query fits no on-ramp or more than one.
 */
export async function explainFlow(
  config: Config,
  hooks: HookRunner | null,
  query: ExplainQuery,
): Promise<Explanation> {
  return await new Explainer(config, hooks, query).run();
}

/** How a step ended: on to the next one, or over. */
type Onward = 'on' | 'over';

/** What the steps have found out so far. */
interface State {
  context: Context;
  route: RouteConfig | null;
  /** Off-ramp so far; null while nothing names one. */
  via: string | null;
  /** What the flow becomes. */
  layer: 'ip' | 'stream' | 'sniff' | 'http';
  target: Target;
}

class Explainer {
  readonly #config: Config;
  readonly #hooks: HookRunner | null;
  readonly #query: ExplainQuery;
  readonly #steps: ExplainStep[] = [];
  readonly #source: Endpoint;
  readonly #destination: Endpoint;

  constructor(config: Config, hooks: HookRunner | null, query: ExplainQuery) {
    this.#config = config;
    this.#hooks = hooks;
    this.#query = query;
    this.#source = { address: query.source, port: 0 };
    this.#destination = { address: query.destination, port: query.port };
  }

  async run(): Promise<Explanation> {
    const onRamp = chooseOnRamp(this.#config, this.#query);
    const state = this.#arrive(onRamp);
    if (state === null) return this.#result('refused');
    this.#findRoute(state, onRamp);
    if (isListener(onRamp)) state.layer = listenerLayer(onRamp, state.route);
    else if (this.#flow(state) === 'over') return this.#result('refused');
    if (state.layer !== 'ip' && (await this.#upgraded(state)) === 'over') return this.#result('refused');
    if ((await this.#egress(state)) === 'over') return this.#result('refused');
    return this.#result(this.#leave(state) === 'over' ? 'refused' : 'leaves');
  }

  #result(result: Explanation['result']): Explanation {
    const open = result === 'leaves' && this.#steps.some(({ outcome }) => outcome === 'unknown');
    return { query: this.#query, result: open ? 'unknown' : result, steps: this.#steps };
  }

  #step(step: ExplainStep['step'], outcome: ExplainStep['outcome'], text: string): void {
    this.#steps.push({ step, outcome, text });
  }

  /** The context that the flow gets on its way in; null when its source is refused. */
  #arrive(onRamp: OnRampConfig): State | null {
    const spec = 'context' in onRamp ? onRamp.context : this.#assumedContext();
    const context = makeContext(spec, onRamp.name);
    if (isContextRefusal(context)) throw new RampartError('RAMP_USAGE', context.reason);
    const who = context.identity?.user === undefined ? '' : `, user ${context.identity.user}`;
    this.#step(
      'on-ramp',
      'next',
      `${onRamp.name} (${onRamp.type}): ${context.account}/${context.vnet}${who}`,
    );
    if (!isListener(onRamp)) {
      const address = parseIp(this.#query.source) as Uint8Array;
      const holder = context.sources.find((source) => prefixContains(source, address));
      if (!('context' in onRamp)) {
        this.#step('source', 'unknown', "the tunnel's own context says which sources it may send from");
      } else if (holder === undefined) {
        const allowed = context.sources.map(formatPrefix).join(', ') || 'none';
        this.#step(
          'source',
          'stop',
          `${this.#query.source} is not among its sources: ${allowed} (spoofed_source)`,
        );
        return null;
      } else {
        this.#step('source', 'next', `${this.#query.source} is within its source ${formatPrefix(holder)}`);
      }
    }
    const target = { host: this.#query.destination, port: this.#query.port };
    return { context, route: null, via: null, layer: 'ip', target };
  }

  /** For an on-ramp whose tunnels bring their own context. */
  #assumedContext(): object {
    const { account, vnet } = this.#query;
    return { account, vnet, sources: [] };
  }

  #findRoute(state: State, onRamp: OnRampConfig): void {
    const table = new RouteTable(this.#config.routes);
    const { account, vnet } = state.context;
    const query: RouteQuery = {
      account,
      vnet,
      onRamp: onRamp.name,
      protocol: PROTOCOL_NUMBERS[this.#query.protocol],
      address: parseIp(this.#query.destination) as Uint8Array,
      port: this.#query.port,
    };
    const route = table.find(query);
    state.route = route;
    if (route === null) {
      const others = table.routesOf(account, vnet).length;
      const among = others === 0 ? `${account}/${vnet} has no routes` : `none of ${others} routes matches`;
      this.#step('route', 'next', `no route: ${among}`);
      return;
    }
    state.via = route.via;
    // ICMP never becomes a stream.
    const upgrade = this.#query.protocol === 'icmp' ? 'none' : route.upgrade;
    state.layer = upgrade === 'none' ? 'ip' : upgrade;
    const becomes = upgrade === 'none' ? '' : `, becoming ${this.#layerWord(upgrade)}`;
    this.#step('route', 'next', `${route.rule} (route ${route.index + 1}) leads to ${route.via}${becomes}`);
  }

  #flow(state: State): Onward {
    if (this.#hooks?.flow) {
      let verdict: FlowVerdict | undefined;
      try {
        verdict = this.#hooks.flow({
          context: state.context,
          protocol: this.#query.protocol,
          source: this.#source,
          destination: this.#destination,
          route: state.via,
        });
      } catch (error) {
        return this.#failed('flow', error);
      }
      if (this.#applyFlow(state, verdict) === 'over') return 'over';
    }
    if (state.layer === 'ip' && state.via === null) {
      this.#step('off-ramp', 'stop', 'nothing says where it leaves (no_route)');
      return 'over';
    }
    return 'on';
  }

  #applyFlow(state: State, verdict: FlowVerdict | undefined): Onward {
    if (verdict === undefined) {
      this.#step('flow', 'next', 'hook flow leaves it to the route');
      return 'on';
    }
    switch (verdict.action) {
      case 'drop':
        this.#step('flow', 'stop', `hook flow drops it without an answer${because(verdict.reason)}`);
        return 'over';
      case 'reject':
        this.#step(
          'flow',
          'stop',
          `hook flow rejects it with ${verdict.with ?? 'prohibited'}${because(verdict.reason)}`,
        );
        return 'over';
      case 'forward':
        state.layer = 'ip';
        state.via = verdict.via ?? state.via;
        this.#step('flow', 'next', `hook flow forwards packets${verdict.via ? ` by ${verdict.via}` : ''}`);
        return 'on';
      case 'upgrade': {
        const to = verdict.to ?? (state.layer === 'ip' ? 'sniff' : state.layer);
        state.layer = to;
        this.#step('flow', 'next', `hook flow upgrades it to ${this.#layerWord(to)}`);
        return 'on';
      }
      default:
        return verdict satisfies never;
    }
  }

  /** Layer 4 and above. */
  async #upgraded(state: State): Promise<Onward> {
    if (this.#query.protocol === 'udp') return this.#session(state);
    if ((await this.#stream(state)) === 'over') return 'over';
    if (state.layer === 'sniff') {
      this.#step('stream', 'unknown', 'the first bytes decide between requests and plain bytes');
    }
    if ((state.layer === 'http' || state.layer === 'sniff') && this.#hooks?.request) {
      this.#step('request', 'unknown', 'hook request decides about every request by itself');
    }
    return 'on';
  }

  async #stream(state: State): Promise<Onward> {
    if (!this.#hooks?.stream) return 'on';
    let peeked = false;
    let verdict: StreamVerdict | undefined;
    try {
      verdict = await this.#hooks.stream({
        context: state.context,
        source: this.#source,
        destination: this.#destination,
        route: state.via,
        peek: async () => {
          peeked = true;
          return new Uint8Array(0);
        },
      });
    } catch (error) {
      return this.#failed('stream', error);
    }
    if (peeked) {
      this.#step('stream', 'unknown', 'hook stream looks at the first bytes; here it saw none');
    }
    if (verdict === undefined) this.#step('stream', 'next', 'hook stream leaves it to the route');
    else if (verdict.action === 'reject') {
      this.#step('stream', 'stop', `hook stream rejects it${because(verdict.reason)}`);
      return 'over';
    } else if (verdict.action === 'http') {
      state.layer = 'http';
      this.#step('stream', 'next', 'hook stream takes it for HTTP requests');
    } else {
      state.layer = verdict.action === 'sniff' ? 'sniff' : 'stream';
      this.#redirected(state, verdict);
      this.#step('stream', 'next', `hook stream says ${verdict.action}${whereto(verdict)}`);
    }
    return 'on';
  }

  #session(state: State): Onward {
    if (!this.#hooks?.session) return 'on';
    let verdict: SessionVerdict | undefined;
    try {
      verdict = this.#hooks.session({
        context: state.context,
        source: this.#source,
        destination: this.#destination,
        route: state.via,
      });
    } catch (error) {
      return this.#failed('session', error);
    }
    if (verdict === undefined) this.#step('session', 'next', 'hook session leaves it to the route');
    else if (verdict.action === 'reject') {
      this.#step('session', 'stop', `hook session rejects it${because(verdict.reason)}`);
      return 'over';
    } else {
      this.#redirected(state, verdict);
      this.#step('session', 'next', `hook session relays it${whereto(verdict)}`);
    }
    return 'on';
  }

  async #egress(state: State): Promise<Onward> {
    if (state.via === null) {
      this.#step('off-ramp', 'stop', 'nothing says where it leaves (no_route)');
      return 'over';
    }
    const offRamp = this.#offRamp(state.via);
    if (offRamp?.type === 'reject' || !this.#hooks?.egress) return 'on';
    const fixed = fixedTarget(offRamp);
    if (fixed !== null && state.layer !== 'ip') state.target = fixed;
    const layer = this.#layerName(state);
    const info = { context: state.context, layer, target: state.target, via: state.via };
    try {
      const { egress, egressNow } = this.#hooks;
      const verdict = layer === 'ip' ? egressNow?.(info) : await egress(info);
      if (verdict === undefined) this.#step('egress', 'next', 'hook egress agrees');
      else if (verdict.action === 'block') {
        this.#step('egress', 'stop', `hook egress blocks it${because(verdict.reason)}`);
        return 'over';
      } else {
        this.#redirected(state, verdict);
        this.#step('egress', 'next', `hook egress sends it on${whereto(verdict)}`);
      }
    } catch (error) {
      return this.#failed('egress', error);
    }
    return 'on';
  }

  #leave(state: State): Onward {
    const via = state.via as string;
    const offRamp = this.#offRamp(via);
    if (offRamp === undefined) {
      this.#step('off-ramp', 'stop', `there is no off-ramp ${via} (no_route)`);
      return 'over';
    }
    if (offRamp.type === 'reject') {
      this.#step('off-ramp', 'stop', `${via} refuses with ${offRamp.with}`);
      return 'over';
    }
    const carriesPackets = offRamp.type !== 'sockets' && offRamp.type !== 'http';
    if (state.layer === 'ip' && !carriesPackets) {
      this.#step(
        'off-ramp',
        'stop',
        `${via} (${offRamp.type}) carries no ${this.#query.protocol} packets (no_route)`,
      );
      return 'over';
    }
    const down = state.layer !== 'ip' && carriesPackets ? ', as packets again' : '';
    this.#step(
      'off-ramp',
      'out',
      `${via} (${offRamp.type}): ${describeOffRamp(offRamp, state.target)}${down}`,
    );
    return 'on';
  }

  #redirected(state: State, verdict: { readonly to?: Target; readonly via?: string }): void {
    state.via = verdict.via ?? state.via;
    state.target = verdict.to ?? state.target;
  }

  #failed(step: ExplainStep['step'], error: unknown): Onward {
    this.#step(step, 'stop', `${(error as Error).message} (hook_failed)`);
    return 'over';
  }

  #offRamp(name: string): OffRampConfig | undefined {
    return this.#config.offRamps.find((offRamp) => offRamp.name === name);
  }

  #layerWord(layer: 'stream' | 'sniff' | 'http'): string {
    return this.#query.protocol === 'udp' ? 'a UDP session' : LAYER_WORDS[layer];
  }

  #layerName(state: State): 'ip' | 'tcp' | 'udp' | 'http' {
    if (state.layer === 'ip' || this.#query.protocol === 'icmp') return 'ip';
    if (this.#query.protocol === 'udp') return 'udp';
    return state.layer === 'http' ? 'http' : 'tcp';
  }
}

const LAYER_WORDS = Object.freeze({
  stream: 'a stream',
  sniff: 'a stream that is looked at',
  http: 'HTTP requests',
} as const);

/** The on-ramp that a flow like this comes in by. */
function chooseOnRamp(config: Config, query: ExplainQuery): OnRampConfig {
  const named = query.onRamp;
  const fits = config.onRamps.filter((onRamp) => {
    if (named !== undefined) return onRamp.name === named;
    if (isListener(onRamp)) return false;
    if (!('context' in onRamp)) return query.account !== undefined && query.vnet !== undefined;
    if (query.account !== undefined && onRamp.context.account !== query.account) return false;
    return query.vnet === undefined || onRamp.context.vnet === query.vnet;
  });
  if (fits.length === 0) {
    const names = config.onRamps.map(({ name }) => name).join(', ');
    const what =
      named === undefined ? 'no on-ramp brings packets of such a flow' : `there is no on-ramp ${named}`;
    throw new RampartError(
      'RAMP_USAGE',
      `${what}; name one of ${names} by --on-ramp, or its --account and --vnet`,
    );
  }
  const address = parseIp(query.source) as Uint8Array;
  const holders = fits.filter((onRamp) => 'context' in onRamp && holds(onRamp.context.sources, address));
  if (holders.length > 1) {
    const networks = holders.map(
      (onRamp) => 'context' in onRamp && `${onRamp.name} (${onRamp.context.account}/${onRamp.context.vnet})`,
    );
    const text =
      `${query.source} may come in by ${networks.join(' and by ')}; say which by ` +
      '--vnet, --account or --on-ramp';
    throw new RampartError('RAMP_USAGE', text);
  }
  const chosen = holders[0] ?? fits.find((onRamp) => !('context' in onRamp)) ?? fits[0];
  if (
    chosen !== undefined &&
    !('context' in chosen) &&
    (query.account === undefined || query.vnet === undefined)
  ) {
    const text = `tunnels of ${chosen.name} bring their own context; say which by --account and --vnet`;
    throw new RampartError('RAMP_USAGE', text);
  }
  return chosen as OnRampConfig;
}

function holds(sources: readonly string[], address: Uint8Array): boolean {
  return sources.some((source) => {
    const prefix = parsePrefix(source);
    return prefix !== null && prefixContains(prefix, address);
  });
}

function isListener(onRamp: OnRampConfig): boolean {
  return onRamp.type === 'tcp' || onRamp.type === 'udp';
}

/** What a plain listener's traffic becomes: as the on-ramp says, else its route. */
function listenerLayer(onRamp: OnRampConfig, route: RouteConfig | null): State['layer'] {
  const own = onRamp.type === 'tcp' ? onRamp.upgrade : null;
  if (own !== null) return own;
  return route === null || route.upgrade === 'none' ? 'stream' : route.upgrade;
}

function fixedTarget(offRamp: OffRampConfig | undefined): Target | null {
  if (offRamp?.type === 'sockets') return offRamp.target;
  return offRamp?.type === 'http' ? (offRamp.origins[0] as Target) : null;
}

function describeOffRamp(offRamp: OffRampConfig, target: Target): string {
  switch (offRamp.type) {
    case 'tun':
      return (
        'device ' +
        `${offRamp.device}${offRamp.namespace === null ? '' : ` in namespace ${offRamp.namespace}`}`
      );
    case 'ip-tunnel':
      return `tunnel at ${formatSocketAddress(offRamp.connect)}`;
    case 'gue':
      return `datagrams to ${formatSocketAddress(offRamp.remote)}`;
    case 'on-ramp':
      return `back into the tunnels of ${offRamp.onRamp}`;
    case 'sockets':
      return `a socket to ${hostAndPort(offRamp.target ?? target)}`;
    case 'http':
      return `requests to ${offRamp.origins.map(hostAndPort).join(', ')}`;
    case 'reject':
      return `refuses with ${offRamp.with}`;
    default:
      return offRamp satisfies never;
  }
}

function hostAndPort({ host, port }: Target): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function because(reason: string | undefined): string {
  return reason === undefined ? '' : `: ${reason}`;
}

function whereto(verdict: { readonly to?: Target; readonly via?: string }): string {
  const to = verdict.to === undefined ? '' : ` to ${hostAndPort(verdict.to)}`;
  return verdict.via === undefined ? to : `${to} by ${verdict.via}`;
}
