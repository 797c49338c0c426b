import type { AgentStatus } from './agent.ts';

/** Totals of one network since the start, of flows, streams and sessions that ended. */
export interface NetworkFigures {
  readonly account: string;
  readonly vnet: string;
  readonly packets: number;
  readonly bytes: number;
}

/** What there is at this moment. */
export interface LiveFigures {
  readonly flows: number;
  readonly tunnels: number;
  readonly streams: number;
  readonly sessions: number;
  readonly httpConnections: number;
  readonly requests: number;
}

/** One pool of buffers. */
export interface BufferFigures {
  readonly pool: string;
  readonly inUse: number;
  readonly count: number;
}

/** Everything that metrics are made from. The arrays are the live ones: read them, then forget them. */
export interface MetricsSnapshot {
  /** Indexed by `Counter` of `proxy/stats.ts`. */
  readonly counters: Float64Array;
  /** Indexed by DropReason. */
  readonly drops: Float64Array;
  /** In the order in which they were first seen, which never changes. */
  readonly networks: Iterable<NetworkFigures>;
  readonly live: LiveFigures;
  readonly buffers: readonly BufferFigures[];
  readonly status: AgentStatus;
}

/** A running process, asked for its figures. The answer costs no look at single flows. */
export interface MetricsSource {
  metrics(): MetricsSnapshot;
}
