import type { Endpoint, Identity } from '#contract/context.ts';
import { type FieldSection, lowerCaseBytes } from '#protocol/http/fields.ts';
import type { MessageHead } from '#protocol/http/message-head.ts';

import { TRACE_ID_LENGTH, type TraceIds, TRACE_LINE_LENGTH, traceIdOffset } from './trace-context.ts';

/** What a line is about. */
export const LineKind = Object.freeze({ Request: 0, Stream: 1, Session: 2, Flow: 3 } as const);
export type LineKind = (typeof LineKind)[keyof typeof LineKind];

/** Longest part of each that stands in a line, bytes; what is longer is cut. */
export const METHOD_BYTES_MAX = 32;
export const AUTHORITY_BYTES_MAX = 256;
export const PATH_BYTES_MAX = 512;

/** Longest text of other origin, characters. */
const QUOTED_LENGTH_MAX = 160;
/** Bytes of such a text with each character escaped as six. */
export const QUOTED_BYTES_MAX = 6 * QUOTED_LENGTH_MAX;

/** What names a client, as bytes that may stand between quotes in JSON. */
export interface ClientText {
  readonly flow: number;
  readonly account: Uint8Array;
  readonly vnet: Uint8Array;
  readonly user: Uint8Array;
  readonly onRamp: Uint8Array;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  /** Lines of the format `runsOf` have these bytes for their runs of the fields above. */
  runs: readonly Uint8Array[];
  runsOf: unknown;
}

/** The parts of a stream or record that name its client. */
interface ClientFacts {
  readonly flow: number;
  readonly source: Endpoint;
  readonly destination: Endpoint;
}

/** The network and person of a stream or record. */
interface OwnerFacts {
  readonly account: string;
  readonly vnet: string;
  readonly onRamp: string;
  readonly identity: Identity | null;
}

/** Turns what names a client into bytes. */
export function clientText({ flow, source, destination }: ClientFacts, owner: OwnerFacts): ClientText {
  return {
    flow,
    account: quotable(owner.account),
    vnet: quotable(owner.vnet),
    user: quotable(owner.identity?.user ?? ''),
    onRamp: quotable(owner.onRamp),
    source: quotable(endpointText(source)),
    destination: quotable(endpointText(destination)),
    runs: [],
    runsOf: null,
  };
}

/** The bytes of a text as they may stand between the quotes of a JSON string: pure ASCII, cut when long. */
export function quotable(text: string): Uint8Array {
  const escaped = JSON.stringify(text.slice(0, QUOTED_LENGTH_MAX))
    .slice(1, -1)
    .replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return new TextEncoder().encode(escaped);
}

/**
 * What one line is made from, filled as a request goes on. Times are monotonic milliseconds; a length of time
 * that did not come to pass is −1. Reused: `begin` forgets what was.
 */
export class AccessEntry {
  kind: LineKind = LineKind.Request;
  client: ClientText = NO_CLIENT;
  /** Unix milliseconds. */
  startedAt = 0;
  method = new Uint8Array(METHOD_BYTES_MAX);
  methodLength = 0;
  authority = new Uint8Array(AUTHORITY_BYTES_MAX);
  authorityLength = 0;
  path = new Uint8Array(PATH_BYTES_MAX);
  pathLength = 0;
  /** Minor version of HTTP/1, or 2; −1 while no head was understood. */
  version = -1;
  /** 0 while there is no final response. */
  status = 0;
  offRamp = '';
  bytesUp = 0;
  bytesDown = 0;
  /** From the first byte of the request to the end of its head. */
  requestMs = -1;
  /** From there to the beginning of a connect or, on a kept connection, of the forwarding: hooks, waiting. */
  queueMs = -1;
  /** Opening the connection; 0 on a kept one. */
  connectMs = -1;
  /** From the forwarded head to the head of the response. */
  responseMs = -1;
  totalMs = 0;
  /** How it ended: `ok`, `answered` by this node, or a CloseReason. */
  end = '';
  /** 32 hex digits of the W3C trace, when `hasTrace`. */
  readonly traceId = new Uint8Array(TRACE_ID_LENGTH);
  hasTrace = false;
  /** Whole field line to add to the forwarded request, or null. Valid until the next `begin`. */
  added: Uint8Array | null = null;
  /** True from `begin` to `finish`. */
  open = false;
  #beganAt = 0;
  #headAt = 0;
  #dialAt = 0;
  #forwardAt = 0;
  readonly #traces: TraceIds | null;
  readonly #traceLine: Uint8Array;

  /** @param traces makes a traceparent for requests that have none; null: they get none. */
  constructor(traces: TraceIds | null) {
    this.#traces = traces;
    this.#traceLine = new Uint8Array(traces === null ? 0 : TRACE_LINE_LENGTH);
  }

  /** The first bytes of a request are here: `startedAt` in Unix milliseconds, `now` monotonic. */
  begin(client: ClientText, startedAt: number, now: number): void {
    this.kind = LineKind.Request;
    this.client = client;
    this.startedAt = startedAt;
    this.methodLength = 0;
    this.authorityLength = 0;
    this.pathLength = 0;
    this.version = -1;
    this.status = 0;
    this.offRamp = '';
    this.bytesUp = 0;
    this.bytesDown = 0;
    this.requestMs = -1;
    this.queueMs = -1;
    this.connectMs = -1;
    this.responseMs = -1;
    this.end = '';
    this.hasTrace = false;
    this.added = null;
    this.open = true;
    this.#beganAt = now;
    this.#headAt = 0;
    this.#dialAt = 0;
    this.#forwardAt = 0;
  }

  /** The request's head is here; what is needed of it is copied. */
  onHead(head: MessageHead, now: number): void {
    this.#headAt = now;
    this.requestMs = now - this.#beganAt;
    this.version = head.minorVersion;
    const { bytes, base } = head.fields;
    this.methodLength = copy(this.method, bytes, base + head.startLine, base + head.methodEnd);
    this.authorityLength = copy(this.authority, bytes, base + head.authorityStart, base + head.authorityEnd);
    this.pathLength = copy(this.path, bytes, base + head.pathStart, base + head.pathEnd);
    this.#takeTrace(head.fields);
  }

  /** Connecting begins. */
  onDial(now: number): void {
    if (this.#dialAt > 0) return;
    this.#dialAt = now;
    this.queueMs = now - this.#headAt;
  }

  /** The request's head is written to the upstream. */
  onForward(now: number): void {
    this.#forwardAt = now;
    if (this.#dialAt > 0) this.connectMs = now - this.#dialAt;
    else {
      this.connectMs = 0;
      this.queueMs = now - this.#headAt;
    }
  }

  /** A final response's head is here. */
  onResponse(status: number, now: number): void {
    this.status = status;
    this.responseMs = now - this.#forwardAt;
  }

  /** It is over; true when there was anything to tell. */
  finish(now: number): boolean {
    this.open = false;
    this.totalMs = now - this.#beganAt;
    return this.status > 0 || this.version >= 0;
  }

  #takeTrace(fields: FieldSection): void {
    const index = fields.indexOfBytes(TRACEPARENT);
    if (index >= 0) {
      const start = fields.base + (fields.offsets[4 * index + 2] as number);
      const end = fields.base + (fields.offsets[4 * index + 3] as number);
      const at = traceIdOffset(fields.bytes, start, end);
      if (at < 0) return;
      for (let i = 0; i < TRACE_ID_LENGTH; i++) this.traceId[i] = fields.bytes[at + i] as number;
      this.hasTrace = true;
    } else if (this.#traces !== null) {
      this.#traces.next(this.#traceLine, this.traceId);
      this.hasTrace = true;
      this.added = this.#traceLine;
    }
  }
}

const NOTHING = new Uint8Array(0);
const TRACEPARENT = lowerCaseBytes('traceparent');

const NO_CLIENT: ClientText = {
  flow: 0,
  account: NOTHING,
  vnet: NOTHING,
  user: NOTHING,
  onRamp: NOTHING,
  source: NOTHING,
  destination: NOTHING,
  runs: [],
  runsOf: null,
};

/** Copies what fits and gives its length. */
function copy(to: Uint8Array, from: Uint8Array, start: number, end: number): number {
  const length = Math.min(end - start, to.length);
  for (let i = 0; i < length; i++) to[i] = from[start + i] as number;
  return length;
}

function endpointText({ address, port }: Endpoint): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
