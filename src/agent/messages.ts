import type {
  AgentStats,
  AgentStatus,
  CapturedPacket,
  ExplainQuery,
  Explanation,
  FlowFilter,
  FlowSummary,
  TraceFilter,
} from '#contract/agent.ts';
import type { TraceEvent } from '#contract/trace.ts';

/** Longest line that a client may send, bytes. Requests have a few hundred. */
export const REQUEST_BYTES_MAX = 65_536;

/** Longest line that a server sends, characters: flows in plenty, a batch of packets. */
export const ANSWER_LENGTH_MAX = 64 * 1024 * 1024;

/** What can be asked, with what is given and what comes back. */
export interface AgentCalls {
  readonly status: { readonly give: undefined; readonly get: AgentStatus };
  readonly stats: { readonly give: undefined; readonly get: AgentStats };
  readonly flows: { readonly give: FlowFilter; readonly get: readonly FlowSummary[] };
  readonly explain: { readonly give: ExplainQuery; readonly get: Explanation };
}

/** What a watcher asks for. */
export interface WatchRequest {
  readonly filter: TraceFilter;
  readonly events: boolean;
  readonly packets: boolean;
}

/** A line from the client. */
export interface RequestLine {
  readonly id: number;
  readonly ask: keyof AgentCalls | 'watch';
  readonly give?: unknown;
}

/** A line from the server: an answer, a failure, or a part of what is watched. */
export type AnswerLine =
  | { readonly id: number; readonly answer: unknown }
  | { readonly id: number; readonly error: { readonly code: string; readonly text: string } }
  | ({ readonly id: number } & WatchBatch<PacketLine>);

/** What a watcher got since the last batch. */
export interface WatchBatch<Packet = CapturedPacket> {
  readonly events: readonly TraceEvent[];
  readonly packets: readonly Packet[];
  /** Events and packets that were lost because the watcher was slow. */
  readonly lost: number;
}

/** A captured packet on a line: its bytes in base64. */
export type PacketLine = Omit<CapturedPacket, 'bytes'> & { readonly bytes: string };

/** Collects the bytes of a stream into lines. */
export class LineReader {
  readonly #lengthMax: number;
  readonly #onLine: (line: string) => void;
  #rest = '';

  /** @param lengthMax longest line, characters. */
  constructor(lengthMax: number, onLine: (line: string) => void) {
    this.#lengthMax = lengthMax;
    this.#onLine = onLine;
  }

  /**
   * Takes the next piece of text; false when a line is longer than allowed: then the stream is of no more
   * use.
   */
  push(text: string): boolean {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() as string;
    for (const line of lines) {
      if (line.length > this.#lengthMax) return false;
      if (line.length > 0) this.#onLine(line);
    }
    return this.#rest.length <= this.#lengthMax;
  }
}
