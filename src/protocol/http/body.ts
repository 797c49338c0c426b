import { assert } from '#base/assert.ts';

import { CHUNKED_OPTIONS, ChunkedDecoder, type ChunkedOptions } from './chunked.ts';
import { HttpFault } from './fault.ts';
import { Method } from './http.ts';
import { HeadFlag, type MessageHead } from './message-head.ts';

/** How the end of a body is known, RFC 9112 section 6.3. */
export const BodyFraming = Object.freeze({
  /** No body, whatever the fields say. */
  None: 0,
  /** Content-Length bytes. */
  Length: 1,
  Chunked: 2,
  /** All bytes until the connection ends (responses only). */
  UntilClose: 3,
  /** No message any more: raw bytes both ways. */
  Tunnel: 4,
} as const);
export type BodyFraming = (typeof BodyFraming)[keyof typeof BodyFraming];

/** Framing of a parsed request. A request without framing fields has no body. */
export function requestFraming(head: MessageHead): BodyFraming {
  assert(head.isRequest && head.length > 0);
  if ((head.flags & HeadFlag.Chunked) !== 0) return BodyFraming.Chunked;
  return head.contentLength > 0 ? BodyFraming.Length : BodyFraming.None;
}

/**
 * Framing of a parsed response to a request with `method`. For HEAD, 1xx, 204 and 304 there is no body
 * whatever Content-Length says; a 2xx to CONNECT, or a 101, turns the connection into a tunnel.
 */
export function responseFraming(head: MessageHead, method: Method): BodyFraming {
  assert(!head.isRequest && head.length > 0);
  const status = head.status;
  if (status === 101) return BodyFraming.Tunnel;
  if (method === Method.Head || status < 200 || status === 204 || status === 304) return BodyFraming.None;
  if (method === Method.Connect && status < 300) return BodyFraming.Tunnel;
  if ((head.flags & HeadFlag.Chunked) !== 0) return BodyFraming.Chunked;
  if (head.contentLength < 0) return BodyFraming.UntilClose;
  return head.contentLength > 0 ? BodyFraming.Length : BodyFraming.None;
}

/**
 * Reads one body of any framing as spans of data. Reused from message to message. `next` yields at most one
 * span a call; `done` says that the message is over, and everything behind the returned offset belongs to the
 * next one.
 */
export class BodyReader {
  framing: BodyFraming = BodyFraming.None;
  /** Bytes of content still to come when the framing is `Length`. */
  remaining = 0;
  /** Offset and length of the span that the last `next` found. */
  dataStart = 0;
  dataLength = 0;
  done = true;
  readonly chunked: ChunkedDecoder;

  constructor(options: ChunkedOptions = CHUNKED_OPTIONS) {
    this.chunked = new ChunkedDecoder(options);
  }

  /** Begins a body; `length` counts only with the framing `Length`. */
  begin(framing: BodyFraming, length: number): void {
    this.framing = framing;
    this.remaining = framing === BodyFraming.Length ? length : 0;
    this.dataStart = 0;
    this.dataLength = 0;
    this.done = framing === BodyFraming.None || (framing === BodyFraming.Length && length === 0);
    if (framing === BodyFraming.Chunked) this.chunked.reset();
  }

  /** Reads on from `at`: the offset behind what was consumed, or a negated fault. Only while not `done`. */
  next(bytes: Uint8Array, at: number, end: number): number {
    assert(!this.done && at <= end);
    switch (this.framing) {
      case BodyFraming.Length: {
        const length = Math.min(this.remaining, end - at);
        this.dataStart = at;
        this.dataLength = length;
        this.remaining -= length;
        if (this.remaining === 0) this.done = true;
        return at + length;
      }
      case BodyFraming.Chunked: {
        const chunked = this.chunked;
        const position = chunked.next(bytes, at, end);
        this.dataStart = chunked.dataStart;
        this.dataLength = chunked.dataLength;
        this.done = chunked.done;
        return position;
      }
      default:
        this.dataStart = at;
        this.dataLength = end - at;
        return end;
    }
  }

  /** The connection ended: 0 when that is how the body ends, else the negated fault of a truncated one. */
  endOfStream(): number {
    if (this.done) return 0;
    if (this.framing !== BodyFraming.UntilClose) return -HttpFault.BodyTruncated;
    this.done = true;
    this.dataLength = 0;
    return 0;
  }
}
