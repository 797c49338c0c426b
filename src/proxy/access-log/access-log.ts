/**
 * `access-log` writes one line for each HTTP request, and for each stream, session and flow that ended.
 *
 * ```
 *  exchange ─► AccessEntry ─┐
 *                           ├─► LineFormat ─► LogFile (chunks) ─► thread pool ─► file, file.1, file.2, …
 *  record   ─► AccessEntry ─┘
 * ```
 * A line is bytes from the beginning: what names a client is turned into bytes once for a connection, the
 * request's head is copied while it is here, numbers are written as digits. Traffic never waits for the disk:
 * when all chunks are full, lines are dropped and counted (`access_log_dropped`).
 *
 * Files: `access-log.ts`, `access-entry.ts` (what a line is made from), `line-format.ts` (JSON and
 * templates), `log-file.ts` (chunks, writing, rotation), `trace-context.ts` (W3C traceparent).
 */
import { randomFillSync } from 'node:crypto';

import type { FlowRecord } from '#contract/record.ts';
import type { InboundStream, Stats } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import { AccessEntry, type ClientText, clientText, LineKind } from './access-entry.ts';
import { LINE_BYTES_MAX, type LineFormat } from './line-format.ts';
import type { LogFile } from './log-file.ts';
import { TraceIds } from './trace-context.ts';

/** What a log is made of. */
export interface AccessLogOptions {
  /** Null: no line is written, and entries serve trace contexts alone. */
  readonly file: LogFile | null;
  readonly format: LineFormat;
  /** Requests without a traceparent get one. */
  readonly createTrace: boolean;
  readonly stats: Stats;
}

/** The access log of one worker. */
export class AccessLog {
  readonly #file: LogFile | null;
  readonly #format: LineFormat;
  readonly #stats: Stats;
  readonly #traces: TraceIds | null;
  /** For records, which come one at a time. */
  readonly #entry: AccessEntry;

  constructor(options: AccessLogOptions) {
    this.#file = options.file;
    this.#format = options.format;
    this.#stats = options.stats;
    const seed = randomFillSync(new Uint32Array(4));
    this.#traces = options.createTrace ? new TraceIds(seed) : null;
    this.#entry = new AccessEntry(null);
  }

  /** An entry for the requests of one exchange, one after the other. */
  newEntry(): AccessEntry {
    return new AccessEntry(this.#traces);
  }

  /** The bytes that name the client of a stream, for `AccessEntry.begin`: made once for a connection. */
  client(stream: InboundStream): ClientText {
    return clientText(stream, stream.context);
  }

  /** Writes the line of an entry, or drops and counts it. Never throws, never waits. */
  write(entry: AccessEntry): void {
    const file = this.#file;
    if (file === null) return;
    const { counters } = this.#stats;
    if (!file.reserve(LINE_BYTES_MAX)) {
      counters[Counter.AccessLogDropped] = (counters[Counter.AccessLogDropped] as number) + 1;
      return;
    }
    file.commit(this.#format.write(file.chunk, file.at, entry));
    counters[Counter.AccessLogLines] = (counters[Counter.AccessLogLines] as number) + 1;
  }

  /** Writes the line of what ended and is no HTTP request. */
  ended(record: FlowRecord): void {
    if (this.#file === null) return;
    const entry = this.#entry;
    entry.begin(clientText(record, record), record.startedAt, 0);
    entry.kind = KINDS[record.layer];
    entry.offRamp = record.offRamp ?? '';
    entry.bytesUp = record.bytesUp;
    entry.bytesDown = record.bytesDown;
    entry.totalMs = record.endedAt - record.startedAt;
    entry.end = record.reason;
    this.write(entry);
  }

  /** Writes what waits, for a bounded time, and closes the file. */
  async close(): Promise<void> {
    await this.#file?.close();
  }
}

const KINDS: Readonly<Record<FlowRecord['layer'], LineKind>> = Object.freeze({
  ip: LineKind.Flow,
  tcp: LineKind.Stream,
  udp: LineKind.Session,
  http: LineKind.Stream,
});
