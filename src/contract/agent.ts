import type { Endpoint, FlowProtocol } from './context.ts';
import type { TraceEvent, TraceStage } from './trace.ts';

/** Version of the control protocol: raised when an older client could misread an answer. */
export const AGENT_PROTOCOL = 1;

/** What a running process says of itself. */
export interface AgentStatus {
  readonly protocol: number;
  readonly version: string;
  readonly pid: number;
  /** Absolute path of the config. */
  readonly config: string;
  /** Engine that moves the bytes. */
  readonly io: string;
  readonly workers: number;
  /** Unix milliseconds. */
  readonly startedAt: number;
  /** True from the moment that no new flow is taken. */
  readonly draining: boolean;
  readonly onRamps: readonly RampStatus[];
  readonly offRamps: readonly RampStatus[];
}

/** One on-ramp or off-ramp. */
export interface RampStatus {
  readonly name: string;
  readonly type: string;
  /** Where it listens, or goes to, in words: the address bound, the device, the origins. */
  readonly where: string;
  /** Empty when it works; else what is wrong. Never "up" when it is not. */
  readonly trouble: string;
}

/** Counters of all workers together, since the start. */
export interface AgentStats {
  /** Monotonic milliseconds of this snapshot, for rates. */
  readonly at: number;
  /** By the metric's name, `packets_in`. Zeros included. */
  readonly counters: Readonly<Record<string, number>>;
  /** By the reason's name, `spoofed_source`. Only reasons that happened. */
  readonly drops: Readonly<Record<string, number>>;
  readonly networks: readonly NetworkStats[];
}

/** Live flows and totals of one network. */
export interface NetworkStats {
  readonly account: string;
  readonly vnet: string;
  /** Live now. */
  readonly flows: number;
  /** Since the start. Of flows at layer 3 and streams above it. */
  readonly packets: number;
  readonly bytes: number;
}

/** Which flows are wanted. Absent members match all. */
export interface FlowFilter {
  readonly account?: string;
  readonly vnet?: string;
  /** Address of either end. */
  readonly host?: string;
  /** Port of either end. */
  readonly port?: number;
  /** At most this many; default 1000. */
  readonly limit?: number;
}

/** One live flow, stream or session. */
export interface FlowSummary {
  readonly flow: number;
  readonly account: string;
  readonly vnet: string;
  readonly onRamp: string;
  readonly offRamp: string | null;
  readonly layer: 'ip' | 'tcp' | 'udp' | 'http';
  readonly protocol: FlowProtocol;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly state: string;
  readonly rule: string;
  readonly packets: number;
  readonly bytes: number;
  readonly ageMs: number;
  readonly idleMs: number;
}

/** A flow that does not exist, asked about. */
export interface ExplainQuery {
  readonly source: string;
  readonly destination: string;
  /** 0 where the protocol has none. */
  readonly port: number;
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  /** Absent: of the on-ramp whose sources hold `source`. */
  readonly account?: string;
  readonly vnet?: string;
  readonly onRamp?: string;
}

/** One step of an explanation, in the order in which a flow meets them. */
export interface ExplainStep {
  readonly step:
    | 'on-ramp'
    | 'source'
    | 'route'
    | 'flow'
    | 'stream'
    | 'session'
    | 'request'
    | 'egress'
    | 'off-ramp';
  /**
   * `next`: it goes on; `stop`: it ends here refused; `out`: it leaves here; `unknown`: only a real flow
   * would show.
   */
  readonly outcome: 'next' | 'stop' | 'out' | 'unknown';
  /** What was decided and by what, a line for a person. */
  readonly text: string;
}

/** What would happen to a flow, and why. */
export interface Explanation {
  readonly query: ExplainQuery;
  /** What would become of it. */
  readonly result: 'leaves' | 'refused' | 'unknown';
  readonly steps: readonly ExplainStep[];
}

/** Which trace events are wanted. Absent members match all; all present ones must match. */
export interface TraceFilter {
  readonly account?: string;
  readonly vnet?: string;
  /** Address of either end. */
  readonly host?: string;
  /** Port of either end. */
  readonly port?: number;
  readonly stages?: readonly TraceStage[];
  readonly flow?: number;
}

/** A packet as a watcher gets it. */
export interface CapturedPacket {
  /** Unix microseconds. */
  readonly at: number;
  readonly direction: 'in' | 'out';
  /** Name of the tunnel. */
  readonly tunnel: string;
  readonly account: string;
  readonly vnet: string;
  /** From the IP header on, cut at the capture length. Shared by all watchers: not to be changed. */
  readonly bytes: Uint8Array;
  /** Length before it was cut. */
  readonly length: number;
}

/** Receives what happened, in batches, after the packets of the batch were moved. */
export interface TraceWatcher {
  /** Wants events. */
  readonly events: boolean;
  /** Wants packets. */
  readonly packets: boolean;
  /**
   * Takes a batch; `lost` is how many things were lost since the last one because the watcher was slow.
   * Returns false when it can take no more: then it is called again only after `TraceWatch.resume`.
   */
  take(events: readonly TraceEvent[], packets: readonly CapturedPacket[], lost: number): boolean;
}

/** A watcher at work. */
export interface TraceWatch {
  /** The watcher can take more. */
  resume(): void;
  stop(): void;
}

/**
 * What the control socket asks of a running process. Implemented by the proxy; the agent serves it to
 * `rampart status`, `top`, `trace` and `explain`. All of it is cold path.
 */
export interface AgentSource {
  status(): AgentStatus;
  stats(): AgentStats;
  flows(filter: FlowFilter): readonly FlowSummary[];
  explain(query: ExplainQuery): Promise<Explanation>;
  watch(watcher: TraceWatcher): TraceWatch;
}
