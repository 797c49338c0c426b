/**
 * One end of a connection for tests: keeps what it hears, sends what it is told, can be joined to another.
 */
import { newRequestForward } from '#protocol/http/forward.ts';
import { parseRequestHead } from '#protocol/http/head.ts';
import { MessageHead } from '#protocol/http/message-head.ts';
import { latin1Bytes, latin1Text } from '#protocol/http/octets.ts';

import { type HeadPlace, Http2Connection, type Http2Options, type Http2Owner } from './connection.ts';
import { http2FaultFact } from './fault.ts';
import { frameLength, frameStreamId, frameType, writeFrameHeader } from './frame.ts';
import { HeadKind } from './head-reader.ts';
import { writeOwnResponseBlock, writeRequestBlock, writeTrailersBlock } from './head-writer.ts';
import { FrameFlag, type FrameType } from './http2.ts';
import type { Http2Stream } from './stream.ts';
import { canSend, StreamState } from './stream-state.ts';

const NO_BYTES = new Uint8Array(0);
const OUTPUT_BYTES = 1024 * 1024;
const HEAD_BYTES = 32 * 1024;

/** One message as it came. */
export class Message {
  readonly head = new MessageHead();
  readonly trailers = new MessageHead();
  hasTrailers = false;
  /** Statuses of interim responses. */
  readonly interims: number[] = [];
  text = '';
  complete = false;
  fault = 0;
  /** Error code of the reset, −1 for none. */
  reset = -1;
  resetFault = 0;
  unprocessed = false;

  /** All pseudo-fields and fields of the head, for comparing. */
  get line(): string {
    const { head } = this;
    return head.isRequest ? `${head.methodText} ${head.authority}${head.path}` : `${head.status}`;
  }
}

/** What a peer does on what it hears, beside keeping it. */
export interface PeerHandler {
  onRequest?(stream: Http2Stream, message: Message): void;
}

/** One end of a connection, client or server. */
export class Peer implements Http2Owner {
  readonly connection: Http2Connection;
  readonly messages = new Map<number, Message>();
  /** Content is consumed as it comes; else it stays and fills windows. */
  consumes = true;
  /** Streams are released when they are closed, as a proxy does. */
  releases = true;
  refuses = false;
  peerChanges = 0;
  windows: (number | null)[] = [];
  now = 0;
  readonly #handler: PeerHandler;
  readonly #out = new Uint8Array(OUTPUT_BYTES);
  #outEnd = 0;
  #greeted = false;
  #place: Uint8Array = NO_BYTES;

  constructor(options: Http2Options, handler: PeerHandler = {}) {
    this.connection = new Http2Connection(options, this);
    this.#handler = handler;
  }

  openHead(stream: Http2Stream, kind: HeadKind, place: HeadPlace): boolean {
    if (this.refuses && kind === HeadKind.Request) return false;
    let message = stream.user as Message | null;
    if (message === null) {
      message = new Message();
      stream.user = message;
      this.messages.set(stream.id, message);
    }
    this.#place = new Uint8Array(HEAD_BYTES);
    place.head = kind === HeadKind.Trailers ? message.trailers : message.head;
    place.bytes = this.#place;
    place.at = 0;
    place.limit = HEAD_BYTES;
    return true;
  }

  closeHead(): void {}

  onHead(stream: Http2Stream, kind: HeadKind, fault: number, ends: boolean): void {
    const message = stream.user as Message;
    message.fault = fault;
    if (kind === HeadKind.Trailers) message.hasTrailers = true;
    if (kind === HeadKind.Response && message.head.status < 200) message.interims.push(message.head.status);
    message.complete = ends;
    if (kind === HeadKind.Request) this.#handler.onRequest?.(stream, message);
    this.#settle(stream);
  }

  onData(stream: Http2Stream, bytes: Uint8Array, start: number, length: number): void {
    (stream.user as Message).text += latin1Text(bytes, start, start + length);
    if (this.consumes) this.connection.consumed(stream, length);
  }

  onEnd(stream: Http2Stream): void {
    (stream.user as Message).complete = true;
    this.#settle(stream);
  }

  onReset(stream: Http2Stream, errorCode: number, fault: number, isUnprocessed: boolean): void {
    const message = stream.user as Message;
    message.reset = errorCode;
    message.resetFault = fault;
    message.unprocessed = isUnprocessed;
    this.#settle(stream);
  }

  onWindow(stream: Http2Stream | null): void {
    this.windows.push(stream?.id ?? null);
  }

  onPeerChange(): void {
    this.peerChanges++;
  }

  #settle(stream: Http2Stream): void {
    if (this.releases && stream.state === StreamState.Closed && !stream.released)
      this.connection.release(stream);
  }

  message(id: number): Message {
    const message = this.messages.get(id);
    if (message === undefined) throw new Error(`no message on stream ${id}`);
    return message;
  }

  /** Sends a request; the fields are as HTTP/1.1 has them. */
  request(
    fields: Readonly<Record<string, string>> = {},
    options: { ends?: boolean; method?: string; path?: string; protocol?: string } = {},
  ): Http2Stream {
    const stream = this.connection.open();
    stream.user = new Message();
    this.messages.set(stream.id, stream.user as Message);
    const head = requestHead(options.method ?? 'GET', options.path ?? '/', fields);
    const forward = newRequestForward();
    forward.contentLength = head.contentLength;
    stream.expectsNoContent = options.method === 'HEAD';
    const at = this.#outEnd;
    const protocol = latin1Bytes(options.protocol ?? '');
    const block = this.connection.headStart(at);
    const end = writeRequestBlock(this.connection.encoder, this.#out, block, head, forward, protocol);
    this.#outEnd = this.connection.finishHead(this.#out, at, end, stream, options.ends ?? true);
    return stream;
  }

  /** Sends a response head. */
  respond(stream: Http2Stream, status: number, ends = false, contentLength = -1): void {
    const { encoder } = this.connection;
    const at = this.#outEnd;
    const own = { status, date: NO_BYTES, fields: null, contentLength };
    const end = writeOwnResponseBlock(encoder, this.#out, this.connection.headStart(at), own);
    this.#outEnd = this.connection.finishHead(this.#out, at, end, stream, ends);
    this.#settle(stream);
  }

  /** Sends as much content as windows allow; how much that was. */
  send(stream: Http2Stream, text: string, ends = false): number {
    const bytes = latin1Bytes(text);
    let sent = 0;
    while (canSend(stream.state)) {
      const taken = this.connection.writeData(
        stream,
        this.#out,
        this.#outEnd,
        this.#out.length,
        bytes,
        sent,
        bytes.length - sent,
        ends,
      );
      if (taken < 0) break;
      this.#outEnd = this.connection.outAt;
      sent += taken;
      if (sent === bytes.length) break;
    }
    this.#settle(stream);
    return sent;
  }

  /** Sends trailers, which end the stream. */
  trailers(stream: Http2Stream, fields: Readonly<Record<string, string>>): void {
    const head = requestHead('GET', '/', fields);
    const at = this.#outEnd;
    const end = writeTrailersBlock(this.connection.encoder, this.#out, this.connection.headStart(at), head);
    this.#outEnd = this.connection.finishHead(this.#out, at, end, stream, true);
    this.#settle(stream);
  }

  /** Everything that waits to be sent. */
  take(): Uint8Array {
    const { connection } = this;
    const first = connection.pollTransmit(new Uint8Array(64), 0, 0, this.now);
    if (first !== 0) throw new Error('wrote where there was no room');
    // The greeting has to be first, and a reset behind what was sent on its stream.
    const control = new Uint8Array(64 * 1024);
    const length = connection.pollTransmit(control, 0, control.length, this.now);
    const written = this.#out.subarray(0, this.#outEnd);
    const waiting = control.subarray(0, length);
    const bytes = this.#greeted ? join(written, waiting) : join(waiting, written);
    this.#greeted = true;
    this.#outEnd = 0;
    return bytes;
  }

  /** Feeds bytes, `step` at a time. The outcome of the connection. */
  feed(bytes: Uint8Array, step: number = bytes.length): number {
    for (let at = 0; at < bytes.length; at += step) {
      const outcome = this.connection.handleBytes(bytes, at, Math.min(at + step, bytes.length), this.now);
      if (outcome !== 0) return outcome;
    }
    return 0;
  }
}

/** A parsed head with these fields, as HTTP/1.1 fills it. */
export function requestHead(
  method: string,
  path: string,
  fields: Readonly<Record<string, string>>,
): MessageHead {
  const head = new MessageHead({ ...new MessageHead().options, headBytesMax: 256 * 1024, fieldsMax: 1000 });
  let text = `${method} ${path} HTTP/1.1\r\n`;
  const all = { Host: 'example.org', ...fields };
  for (const [name, value] of Object.entries(all)) text += `${name}: ${value}\r\n`;
  const bytes = latin1Bytes(`${text}\r\n`);
  const length = parseRequestHead(bytes, 0, bytes.length, head);
  if (length <= 0) throw new Error(`the head does not parse: ${length}`);
  return head;
}

/** Two peers that are joined. */
export class Pair {
  readonly client: Peer;
  readonly server: Peer;
  /** Octets given over at once; small steps cut frames everywhere. */
  step = Number.MAX_SAFE_INTEGER;

  constructor(
    handler: PeerHandler = {},
    server: Partial<Http2Options> = {},
    client: Partial<Http2Options> = {},
  ) {
    this.client = new Peer({ ...client, isServer: false });
    this.server = new Peer({ ...server, isServer: true }, handler);
  }

  /** Carries bytes until neither has any. @throws Error when either side calls the other faulty */
  run(): this {
    for (let round = 0; round < 1000; round++) {
      const up = this.client.take();
      const down = this.server.take();
      if (up.length === 0 && down.length === 0) return this;
      const outcome = this.server.feed(up, this.step) || this.client.feed(down, this.step);
      if (outcome !== 0) throw new Error(`ended: ${http2FaultFact(outcome).text}`);
    }
    throw new Error('the two talk for ever');
  }
}

/** One frame. */
export function frame(
  type: FrameType | number,
  flags: number,
  streamId: number,
  payload: Uint8Array | string = '',
): Uint8Array {
  const bytes = typeof payload === 'string' ? latin1Bytes(payload) : payload;
  const whole = new Uint8Array(9 + bytes.length);
  writeFrameHeader(whole, 0, bytes.length, type as FrameType, flags, streamId);
  whole.set(bytes, 9);
  return whole;
}

/** Several byte strings as one. */
export function join(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** A field block of literals without tables, so that anything can be said. */
export function literalBlock(fields: readonly (readonly [name: string, value: string])[]): Uint8Array {
  const bytes: number[] = [];
  for (const [name, value] of fields) bytes.push(0, ...literal(name), ...literal(value));
  return Uint8Array.from(bytes);
}

function literal(text: string): number[] {
  if (text.length < 127) return [text.length, ...latin1Bytes(text)];
  const rest = text.length - 127;
  return [127, (rest & 0x7f) | 0x80, ((rest >> 7) & 0x7f) | 0x80, rest >> 14, ...latin1Bytes(text)];
}

/** A good request's fields, with others behind or in place of them. */
export function requestFields(
  ...more: readonly (readonly [string, string])[]
): (readonly [string, string])[] {
  return [[':method', 'GET'], [':scheme', 'http'], [':path', '/'], [':authority', 'example.org'], ...more];
}

/** HEADERS that are a whole request, unless flags say otherwise. */
export function headers(
  streamId: number,
  fields: readonly (readonly [string, string])[],
  flags: number = FrameFlag.EndHeaders | FrameFlag.EndStream,
): Uint8Array {
  return frame(1, flags, streamId, literalBlock(fields));
}

/** The frames in `bytes`: type, stream, first 32 bits of the payload, or the last of two for GOAWAY. */
export function frames(
  bytes: Uint8Array,
): { type: number; streamId: number; flags: number; payload: Uint8Array }[] {
  const list = [];
  for (let at = 0; at < bytes.length; ) {
    const length = frameLength(bytes, at);
    const payload = bytes.slice(at + 9, at + 9 + length);
    list.push({
      type: frameType(bytes, at),
      streamId: frameStreamId(bytes, at),
      flags: bytes[at + 4] as number,
      payload,
    });
    at += 9 + length;
  }
  return list;
}
