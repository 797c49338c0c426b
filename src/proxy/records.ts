import type { FlowRecord } from '#contract/record.ts';

import type { FlowWatcher, RecordSink, Tracer } from './proxy-contract.ts';

/** Totals of one network since the start. */
export interface NetworkTotals {
  readonly account: string;
  readonly vnet: string;
  packets: number;
  bytes: number;
}

/** Where records go. */
export interface RecordsOptions {
  readonly tracer: Tracer;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** The application's `end` hook with its guard; null when there is none. */
  readonly end: ((record: FlowRecord) => void) | null;
  /** The log's writer; null when records are not logged. */
  readonly log: ((record: FlowRecord) => void) | null;
  /** The access log's writer of streams, sessions and flows; null or absent when there is none. */
  readonly access?: ((record: FlowRecord) => void) | null;
  /** First number to give: a new process goes on where the old one stopped. */
  readonly nextFlow?: number;
}

/** Takes what ended: to the `end` hook, the log, the trace and the totals. */
export class Records implements RecordSink {
  readonly #options: RecordsOptions;
  readonly #totals = new Map<string, NetworkTotals>();
  readonly #watchers = new Map<number, FlowWatcher>();
  #next: number;

  constructor(options: RecordsOptions) {
    this.#options = options;
    this.#next = options.nextFlow ?? 1;
  }

  nextFlowNumber(): number {
    return this.#next++;
  }

  /** The number that the next flow gets, for a new process. */
  get nextFlow(): number {
    return this.#next;
  }

  /** Totals of every network that something ended in. */
  get totals(): Iterable<NetworkTotals> {
    return this.#totals.values();
  }

  watch(flow: number, watcher: FlowWatcher): void {
    this.#watchers.set(flow, watcher);
  }

  record(record: FlowRecord): void {
    const { tracer, end, log, access } = this.#options;
    const watcher = this.#watchers.get(record.flow);
    if (watcher !== undefined) {
      this.#watchers.delete(record.flow);
      watcher.flowOver(record.flow);
    }
    this.#add(record);
    if (tracer.enabled) this.#trace(record);
    log?.(record);
    // HTTP has a line for each request, written by its exchange.
    if (record.layer !== 'http') access?.(record);
    end?.(record);
  }

  #add(record: FlowRecord): void {
    const key = `${record.account}/${record.vnet}`;
    let totals = this.#totals.get(key);
    if (totals === undefined) {
      totals = { account: record.account, vnet: record.vnet, packets: 0, bytes: 0 };
      this.#totals.set(key, totals);
    }
    totals.packets += record.packetsUp + record.packetsDown;
    totals.bytes += record.bytesUp + record.bytesDown;
  }

  #trace(record: FlowRecord): void {
    const { source, destination, protocol } = record;
    const ms = record.endedAt - record.startedAt;
    const how = `${record.bytesUp} bytes up, ${record.bytesDown} down in ${ms} ms`;
    this.#options.tracer.emit({
      at: this.#options.now(),
      flow: record.flow,
      stage: 'end',
      account: record.account,
      vnet: record.vnet,
      tuple: `${source.address}:${source.port} > ${destination.address}:${destination.port} ${protocol}`,
      text: `${record.reason}, layer ${record.layer}, ${how}`,
    });
  }
}
