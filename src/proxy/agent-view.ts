import { dropReasonName } from '#base/drop-reason.ts';
import type { OffRampConfig } from '#config/off-ramps.ts';
import {
  AGENT_PROTOCOL,
  type AgentSource,
  type AgentStats,
  type AgentStatus,
  type ExplainQuery,
  type Explanation,
  type FlowFilter,
  type FlowSummary,
  type NetworkStats,
  type RampStatus,
  type TraceWatch,
  type TraceWatcher,
} from '#contract/agent.ts';
import type { MetricsSnapshot, MetricsSource } from '#contract/metrics.ts';
import { formatPrefix, formatSocketAddress } from '#base/ip.ts';
import { packageVersion } from '#base/version.ts';

import { explainFlow } from './explain.ts';
import type { IpPlane } from './ip-plane.ts';
import type { Assembly } from './assembly.ts';
import type { Records } from './records.ts';
import { Counter } from './stats.ts';
import type { StreamPlane } from './stream-plane.ts';
import type { TraceHub } from './trace.ts';

/** Counters by their metric names, `packets_in`. */
const COUNTER_NAMES: readonly (readonly [name: string, index: number])[] = Object.entries(Counter).map(
  ([name, index]) => [
    name.replace(/[A-Z]/g, (letter, at: number) => (at ? '_' : '') + letter.toLowerCase()),
    index,
  ],
);

/** What the control socket asks, answered from the running parts. All of it is cold path. */
export class AgentView implements AgentSource, MetricsSource {
  draining = false;
  readonly #of: Assembly;
  readonly #startedAt = Date.now();
  #ip: IpPlane | null = null;
  #streams: StreamPlane | null = null;

  constructor(of: Assembly) {
    this.#of = of;
  }

  /** The parts are open and can be shown. */
  protected show(ip: IpPlane | null, streams: StreamPlane): void {
    this.#ip = ip;
    this.#streams = streams;
  }

  status(): AgentStatus {
    const { config, worker } = this.#of;
    return {
      protocol: AGENT_PROTOCOL,
      version: packageVersion(),
      pid: process.pid,
      config: config.file,
      io: worker.io.kind,
      workers: 1,
      startedAt: this.#startedAt,
      draining: this.draining,
      onRamps: [...(this.#ip?.status() ?? []), ...(this.#streams?.status() ?? [])],
      offRamps: config.offRamps.map((offRamp) => this.#offRampStatus(offRamp)),
    };
  }

  stats(): AgentStats {
    const { worker } = this.#of;
    const { counters, drops } = worker.stats;
    const dropped: Record<string, number> = {};
    for (const [reason, count] of drops.entries()) if (count > 0) dropped[dropReasonName(reason)] = count;
    return {
      at: worker.io.refreshNow(),
      counters: Object.fromEntries(COUNTER_NAMES.map(([name, index]) => [name, counters[index] as number])),
      drops: dropped,
      networks: this.#networks(),
    };
  }

  metrics(): MetricsSnapshot {
    const { worker } = this.#of;
    const { counters, drops } = worker.stats;
    const { packets, streams } = worker;
    return {
      counters,
      drops,
      networks: (worker.records as Records).totals,
      live: {
        flows: (counters[Counter.FlowsOpened] as number) - (counters[Counter.FlowsClosed] as number),
        tunnels: (counters[Counter.TunnelsOpened] as number) - (counters[Counter.TunnelsClosed] as number),
        streams: this.#streams?.dispatcher.count ?? 0,
        sessions: this.#streams?.sessions.count ?? 0,
        httpConnections: this.#streams?.http.count ?? 0,
        requests: this.#streams?.http.requestCount ?? 0,
      },
      buffers: [
        { pool: 'packets', inUse: packets.inUse, count: packets.count },
        { pool: 'streams', inUse: streams.inUse, count: streams.count },
      ],
      status: this.status(),
    };
  }

  flows(filter: FlowFilter): readonly FlowSummary[] {
    return this.#ip?.flows(filter) ?? [];
  }

  explain(query: ExplainQuery): Promise<Explanation> {
    return explainFlow(this.#of.config, this.#of.hooks, query);
  }

  watch(watcher: TraceWatcher): TraceWatch {
    return (this.#of.worker.tracer as TraceHub).watch(watcher);
  }

  /** Totals of what ended, and what of live flows has moved so far. */
  #networks(): NetworkStats[] {
    const found = new Map<string, { -readonly [Key in keyof NetworkStats]: NetworkStats[Key] }>();
    const of = (account: string, vnet: string) => {
      const key = `${account}/${vnet}`;
      const known = found.get(key) ?? { account, vnet, flows: 0, packets: 0, bytes: 0 };
      found.set(key, known);
      return known;
    };
    for (const { account, vnet, packets, bytes } of (this.#of.worker.records as Records).totals) {
      const stats = of(account, vnet);
      stats.packets += packets;
      stats.bytes += bytes;
    }
    for (const flow of this.#ip?.flows({ limit: Number.POSITIVE_INFINITY }) ?? []) {
      const stats = of(flow.account, flow.vnet);
      stats.flows++;
      stats.packets += flow.packets;
      stats.bytes += flow.bytes;
    }
    return [...found.values()];
  }

  #offRampStatus(offRamp: OffRampConfig): RampStatus {
    const { name, type } = offRamp;
    return { name, type, where: whereTo(offRamp), trouble: this.#ip?.trouble(name) ?? '' };
  }
}

/** Where an off-ramp leads, in words. */
function whereTo(offRamp: OffRampConfig): string {
  switch (offRamp.type) {
    case 'tun': {
      const within = offRamp.namespace === null ? '' : ` in ${offRamp.namespace}`;
      return `${offRamp.device}${within} ${offRamp.deviceRoutes.map(formatPrefix).join(' ')}`.trim();
    }
    case 'ip-tunnel':
      return formatSocketAddress(offRamp.connect);
    case 'gue':
      return formatSocketAddress(offRamp.remote);
    case 'on-ramp':
      return `back into ${offRamp.onRamp}`;
    case 'sockets': {
      const { target } = offRamp;
      return target === null ? 'sockets of this host' : `${target.host}:${target.port}`;
    }
    case 'http':
      return offRamp.origins.map(({ host, port }) => `${host}:${port}`).join(' ');
    case 'reject':
      return String(offRamp.with);
    default:
      return offRamp satisfies never;
  }
}
