/**
 * What would become of a flow, and why: the same routes, hooks and contexts as the data plane's, asked in the
 * same order, without a packet. Serves `rampart explain`, with a running process and without one.
 *
 * The application's hooks are called for real. Where only a real flow can show (first bytes, a request), it
 * says so.
 */
import { DropReason, dropReasonName } from '#base/drop-reason.ts';
import { RampartError } from '#base/error.ts';
import { formatPrefix, formatSocketAddress, parseIp, parsePrefix, prefixContains } from '#base/ip.ts';
import type { Config } from '#config/config.ts';
import { isIpOffRamp, type OffRampConfig, type RejectOffRamp } from '#config/off-ramps.ts';
import { isListenerOnRamp, type OnRampConfig } from '#config/on-ramps.ts';
import { type RouteQuery, RouteTable } from '#config/route-table.ts';
import type { ExplainQuery, ExplainStep, Explanation } from '#contract/agent.ts';
import type { Context, Endpoint, Target } from '#contract/context.ts';
import { checkDestination, checkSource } from '#packet/address.ts';
import { ParsedPacket } from '#packet/parse.ts';

import { isContextRefusal, makeContext } from './hooks/context.ts';
import type { EgressVerdict, FlowVerdict, SessionVerdict, StreamVerdict } from './hooks/hooks.ts';
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
  /** Off-ramp so far; null while nothing names one. */
  via: string | null;
  /** What it becomes once it is upgraded. */
  wish: 'stream' | 'sniff' | 'http';
  /** As `proxy/flow/decide.ts` has it: a route upgrades what can be, a hook's verdict says it for certain. */
  wanted: 'packets' | 'upgrade if it can' | 'upgrade';
  layer: 'ip' | 'echo' | 'stream' | 'sniff' | 'http';
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
    if (isListenerOnRamp(onRamp)) state.layer = listenerWish(onRamp, state);
    else if (this.#flow(state) === 'over') return this.#result('refused');
    if ((await this.#upgraded(state)) === 'over') return this.#result('refused');
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
    if (!isListenerOnRamp(onRamp)) {
      const address = parseIp(this.#query.source) as Uint8Array;
      const martian = addressMistake(address, parseIp(this.#query.destination) as Uint8Array);
      if (martian !== null) {
        this.#step('source', 'stop', martian);
        return null;
      }
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
    return { context, via: null, wish: 'sniff', wanted: 'packets', layer: 'ip', target };
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
    if (route === null) {
      const others = table.routesOf(account, vnet).length;
      const among = others === 0 ? `${account}/${vnet} has no routes` : `none of ${others} routes matches`;
      this.#step('route', 'next', `no route: ${among}`);
      return;
    }
    state.via = route.via;
    if (route.upgrade !== 'none') {
      state.wish = route.upgrade;
      state.wanted = 'upgrade if it can';
    }
    const becomes = this.#isUpgraded(state) ? `, becoming ${this.#word(state.wish)}` : '';
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
    return this.#settle(state);
  }

  /** Whether the flow stays packets, as far as hooks above layer 3 do not matter. */
  #settle(state: State): Onward {
    const offRamp = this.#offRamp(state.via);
    if (offRamp?.type === 'reject') return this.#refuses(offRamp);
    if (this.#isUpgraded(state)) {
      state.layer = this.#query.protocol === 'icmp' ? 'echo' : state.wish;
      return 'on';
    }
    if (offRamp !== undefined) return 'on';
    this.#noRoute(state.via);
    return 'over';
  }

  #isUpgraded(state: State): boolean {
    const offRamp = this.#offRamp(state.via);
    const isTunnel = offRamp !== undefined && isIpOffRamp(offRamp.type);
    if (state.wanted === 'upgrade') return true;
    if (state.wanted === 'upgrade if it can') return this.#query.protocol === 'tcp' || !isTunnel;
    return offRamp?.type === 'sockets' || offRamp?.type === 'http';
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
        state.wanted = 'packets';
        state.via = verdict.via ?? state.via;
        this.#step('flow', 'next', `hook flow forwards packets${verdict.via ? ` by ${verdict.via}` : ''}`);
        return 'on';
      case 'upgrade':
        state.wanted = 'upgrade';
        state.wish = verdict.to ?? state.wish;
        this.#step('flow', 'next', `hook flow upgrades it to ${this.#word(state.wish)}`);
        return 'on';
      default:
        return verdict satisfies never;
    }
  }

  /** Layer 4 and above. */
  async #upgraded(state: State): Promise<Onward> {
    if (state.layer === 'ip' || state.layer === 'echo') return 'on';
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
        facts: null,
        detect: async () => {
          peeked = true;
          return { protocol: 'server-first', serverName: null, alpn: [], hello: null };
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
      this.#noRoute(null);
      return 'over';
    }
    const offRamp = this.#offRamp(state.via);
    if (offRamp?.type === 'reject') return this.#refuses(offRamp);
    // Echo requests leave by a socket of the host, whatever the off-ramp.
    if (!this.#hooks?.egress || state.layer === 'echo') return 'on';
    const fixed = fixedTarget(offRamp);
    if (fixed !== null && state.layer !== 'ip') state.target = fixed;
    const layer = this.#layerName(state);
    const info = { context: state.context, layer, target: state.target, via: state.via };
    let verdict: EgressVerdict | undefined;
    try {
      const { egress, egressNow } = this.#hooks;
      verdict = layer === 'ip' ? egressNow?.(info) : await egress(info);
    } catch (error) {
      return this.#failed('egress', error);
    }
    if (verdict === undefined) this.#step('egress', 'next', 'hook egress agrees');
    else if (verdict.action === 'block') {
      this.#step('egress', 'stop', `hook egress blocks it${because(verdict.reason)}`);
      return 'over';
    } else {
      this.#redirected(state, verdict);
      this.#step('egress', 'next', `hook egress sends it on${whereto(verdict)}`);
    }
    return 'on';
  }

  #leave(state: State): Onward {
    const offRamp = this.#offRamp(state.via);
    if (offRamp === undefined) {
      this.#noRoute(state.via);
      return 'over';
    }
    if (offRamp.type === 'reject') return this.#refuses(offRamp);
    const { name, type } = offRamp;
    const carriesPackets = isIpOffRamp(type);
    if (state.layer === 'ip' && !carriesPackets) {
      this.#step('off-ramp', 'stop', `${name} (${type}) carries no packets (no_route)`);
      return 'over';
    }
    const { account, vnet } = state.context;
    if ('context' in offRamp && (offRamp.context.account !== account || offRamp.context.vnet !== vnet)) {
      const other = `${offRamp.context.account}/${offRamp.context.vnet}`;
      this.#step('off-ramp', 'stop', `${name} (${type}) carries ${other} only (no_route)`);
      return 'over';
    }
    if (state.layer === 'echo') {
      this.#step('off-ramp', 'out', `${name} (${type}): echo requests by a socket of this host`);
      return 'on';
    }
    const down = state.layer !== 'ip' && carriesPackets ? ', as packets again' : '';
    this.#step('off-ramp', 'out', `${name} (${type}): ${describeOffRamp(offRamp, state.target)}${down}`);
    return 'on';
  }

  #refuses(offRamp: RejectOffRamp): Onward {
    this.#step('off-ramp', 'stop', `${offRamp.name} refuses with ${offRamp.with}`);
    return 'over';
  }

  #noRoute(via: string | null): void {
    const why = via === null ? 'nothing says where it leaves' : `there is no off-ramp ${via}`;
    this.#step('off-ramp', 'stop', `${why} (no_route)`);
  }

  #redirected(state: State, verdict: { readonly to?: Target; readonly via?: string }): void {
    state.via = verdict.via ?? state.via;
    state.target = verdict.to ?? state.target;
  }

  #failed(step: ExplainStep['step'], error: unknown): Onward {
    this.#step(step, 'stop', `${(error as Error).message} (hook_failed)`);
    return 'over';
  }

  #offRamp(name: string | null): OffRampConfig | undefined {
    return this.#config.offRamps.find((offRamp) => offRamp.name === name);
  }

  #word(wish: State['wish']): string {
    if (this.#query.protocol === 'icmp') return 'an echo by a socket';
    return this.#query.protocol === 'udp' ? 'a UDP session' : LAYER_WORDS[wish];
  }

  #layerName(state: State): 'ip' | 'tcp' | 'udp' | 'http' {
    if (state.layer === 'ip') return 'ip';
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
    if (isListenerOnRamp(onRamp)) return false;
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

/** What a plain listener's traffic becomes: as the on-ramp says, else its route; bytes where nobody says. */
function listenerWish(onRamp: OnRampConfig, state: State): State['wish'] {
  const own = 'upgrade' in onRamp ? onRamp.upgrade : null;
  return own ?? (state.wanted === 'packets' ? 'stream' : state.wish);
}

/** Why packets between these addresses open no flow at all; null when they may. */
function addressMistake(source: Uint8Array, destination: Uint8Array): string | null {
  if (source.length !== destination.length) return 'source and destination are of different families';
  const addresses = new Uint8Array([...source, ...destination]);
  const view = new DataView(addresses.buffer);
  const packet = new ParsedPacket();
  packet.version = source.length === 4 ? 4 : 6;
  const reason = checkSource(view, packet) || checkDestination(view, packet);
  return reason === DropReason.None ? null : `no flow has such addresses (${dropReasonName(reason)})`;
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
