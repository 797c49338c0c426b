import { assert } from '#base/assert.ts';
import type { BodyTransform } from '#proxy/hooks/hooks.ts';
import { BodyFraming, BodyReader } from '#protocol/http/body.ts';
import { lastChunkBytesMax, writeLastChunk } from '#protocol/http/chunked.ts';
import type { MessageHead } from '#protocol/http/message-head.ts';

import type { HttpSocket } from './http-socket.ts';

/** Size line of a chunk written here: four digits, CRLF. A slot has less than 64 KiB. */
const CHUNK_HEADER_BYTES = 6;
/** That, the CRLF behind the data, and a last chunk without trailers. */
const CHUNK_OVERHEAD_BYTES = CHUNK_HEADER_BYTES + 2 + 5;
const CARRIAGE_RETURN = 0x0d;
const LINE_FEED = 0x0a;

/** Hears when an asynchronous transform has gone on, or failed (`error` set). */
export interface PumpOwner {
  onTransformed(pump: BodyPump, error: unknown): void;
}

/**
 * Moves one message from a source socket to a sink: the head that was staged, then the body, framed as the
 * sink's side wants it. Reused from message to message.
 *
 * ```
 *  source.in ─► reader ─┬─ same framing: the slot itself is sent ──────────────► sink.send
 *                       ├─ other framing: spans are copied into one chunk ► out ─► sink.send
 *                       └─ transform: copy ► hook's function ► result ────► out ─► sink.send
 * ```
 * At most one buffer is being sent and one is staged; the source is read again only when its input is used
 * up. So each side waits for the other.
 */
export class BodyPump {
  readonly reader = new BodyReader();
  /** Bytes of content that went through, as they came in. */
  contentBytes = 0;
  /** All output has been handed to the sink; its last send may be under way. */
  drained = true;
  /** The body waits (for 100 Continue); what is staged still goes out. */
  paused = false;
  /** No slot was left: `run` has to be called again a little later. */
  stalled = false;
  #source: HttpSocket | null = null;
  #sink: HttpSocket | null = null;
  #owner: PumpOwner | null = null;
  #chunked = false;
  #discard = false;
  #outSlot = -1;
  #outStart = 0;
  #outEnd = 0;
  #lastChunkDue = false;
  #transform: BodyTransform | null = null;
  #transforming = false;
  #transformEnded = false;
  /** Counts messages: an answer of a transform that belongs to an earlier one is dropped. */
  #message = 0;
  /** Bytes from outside the arena that go out next: a transform's result, or a body made here. */
  #heap: Uint8Array | null = null;
  #heapAt = 0;

  /**
   * Begins a message. `source` may be null for one without a body. What is staged for the same sink (interim
   * responses) stays staged.
   */
  begin(source: HttpSocket | null, sink: HttpSocket, owner: PumpOwner): void {
    assert(this.#outSlot < 0 || this.#sink === sink);
    this.#message++;
    this.paused = false;
    this.#source = source;
    this.#sink = sink;
    this.#owner = owner;
    this.#chunked = false;
    this.#discard = false;
    this.#lastChunkDue = false;
    this.#transform = null;
    this.#transforming = false;
    this.#transformEnded = true;
    this.#heap = null;
    this.contentBytes = 0;
    this.drained = false;
    this.reader.begin(BodyFraming.None, 0);
  }

  /**
   * How the body comes and goes. `chunked` frames it as chunks on the way out; else its bytes go as they are.
   */
  frame(framing: BodyFraming, length: number, chunked: boolean): void {
    this.reader.begin(framing, length);
    this.#chunked = chunked;
    this.#lastChunkDue = chunked;
  }

  /** Sends the body through a hook's function. The framing on the way out must not tell a length. */
  transformBy(transform: BodyTransform): void {
    this.#transform = transform;
    this.#transformEnded = false;
  }

  /** Content is read and thrown away: the sink wants no body. */
  discardBody(): void {
    this.#discard = true;
    this.#lastChunkDue = false;
  }

  /** The body is these bytes; they must not change until the message is over. */
  bodyFrom(bytes: Uint8Array): void {
    this.#heap = bytes.length > 0 ? bytes : null;
    this.#heapAt = 0;
  }

  /**
   * Offset where a head may be written: behind what is staged, or at the beginning of a fresh slot. −1 when
   * no slot is left. Follow with `extend`, or with `closeEmpty` when nothing was written.
   */
  open(): number {
    return this.#outSlot >= 0 || this.#openOut() ? this.#outEnd : -1;
  }

  /** Where the open slot ends. */
  get limit(): number {
    return this.#outSlot + (this.#sink as HttpSocket).world.streams.slotBytes;
  }

  /** What was written up to `end` is staged. */
  extend(end: number): void {
    assert(this.#outSlot >= 0 && end > this.#outEnd && end <= this.limit);
    this.#outEnd = end;
    this.drained = false;
  }

  /** Gives an opened slot back when nothing is staged in it. */
  closeEmpty(): void {
    this.#dropEmptyOut();
  }

  /** Something is staged and waits for the sink. */
  get hasStaged(): boolean {
    return this.#outSlot >= 0;
  }

  /** More of the body is needed, and none of it is here. */
  get wantsInput(): boolean {
    const source = this.#source;
    return !this.reader.done && !this.paused && !this.#transforming && source !== null && source.inSlot < 0;
  }

  /**
   * Moves what can be moved. Returns 0, or the negated fault of a malformed body: then nothing more may be
   * sent.
   *
   * @throws what a transform throws
   */
  run(): number {
    this.stalled = false;
    for (;;) {
      const filled = this.#fill();
      if (filled < 0) return filled;
      if (!this.#flush() && filled === 0) break;
    }
    this.drained =
      this.#outSlot < 0 &&
      this.#heap === null &&
      !this.#transforming &&
      this.#transformEnded &&
      !this.#lastChunkDue &&
      this.reader.done;
    return 0;
  }

  /** Forgets everything that was not sent. */
  abandon(): void {
    this.#message++;
    if (this.#outSlot >= 0) this.#sink?.world.streams.release(this.#outSlot);
    this.#outSlot = -1;
    this.#heap = null;
    this.#transform = null;
    this.#lastChunkDue = false;
    this.#source = null;
    this.#sink = null;
    this.#owner = null;
    this.drained = true;
    this.reader.begin(BodyFraming.None, 0);
  }

  /** The source's bytes are the sink's bytes. */
  get #isPassThrough(): boolean {
    return (
      !this.#chunked &&
      this.#transform === null &&
      !this.#discard &&
      this.reader.framing !== BodyFraming.Chunked
    );
  }

  #flush(): boolean {
    const sink = this.#sink as HttpSocket;
    if (this.#outSlot < 0 || sink.sending || sink.closed) return false;
    const slot = this.#outSlot;
    this.#outSlot = -1;
    sink.send(slot, this.#outStart, this.#outEnd - this.#outStart);
    return true;
  }

  /** One step: 1 when something was moved, 0 when nothing can be now, or a negated fault. */
  #fill(): number {
    if (this.#heap !== null) return this.#fillFromHeap(this.#heap);
    if (this.#transforming) return 0;
    const source = this.#source;
    if (!this.reader.done) {
      if (source === null || source.inSlot < 0 || this.paused) return 0;
      if (this.#discard) return this.#fillNothing(source);
      if (this.#transform !== null) return this.#fillTransform(source, this.#transform);
      return this.#isPassThrough ? this.#fillWhole(source) : this.#fillSpans(source);
    }
    if (this.#transform !== null && !this.#transformEnded) {
      this.#callTransform(this.#transform, null);
      return 1;
    }
    return this.#lastChunkDue ? this.#writeLastChunk() : 0;
  }

  /** Same framing on both sides: a small rest joins what is staged, else the source's slot itself is sent. */
  #fillWhole(source: HttpSocket): number {
    const sink = this.#sink as HttpSocket;
    const { streams, io } = sink.world;
    const { reader } = this;
    const wanted = reader.framing === BodyFraming.Length ? reader.remaining : source.available;
    const length = Math.min(wanted, source.available);
    const hasMore = length < source.available;
    const { bytes } = io.arena;
    if (this.#outSlot >= 0 || hasMore) {
      if (this.#outSlot < 0 && !this.#openOut()) return 0;
      if (length > this.#outSlot + streams.slotBytes - this.#outEnd) return 0;
      bytes.copyWithin(this.#outEnd, source.inAt, source.inAt + length);
      this.#outEnd += length;
      reader.next(bytes, source.inAt, source.inAt + length);
      this.contentBytes += length;
      source.consumeTo(source.inAt + length);
      return 1;
    }
    if (sink.sending || sink.closed) return 0;
    const start = source.inAt;
    reader.next(bytes, start, start + length);
    this.contentBytes += length;
    sink.send(source.takeInput(), start, length);
    return 1;
  }

  /** Other framing: all spans that are here and fit become one chunk (or bare bytes). */
  #fillSpans(source: HttpSocket): number {
    if (this.#outSlot < 0 && !this.#openOut()) return 0;
    const { streams, io } = (this.#sink as HttpSocket).world;
    const { bytes } = io.arena;
    const { reader } = this;
    const dataStart = this.#outEnd + (this.#chunked ? CHUNK_HEADER_BYTES : 0);
    const limit = this.#outSlot + streams.slotBytes - CHUNK_OVERHEAD_BYTES;
    let out = dataStart;
    let moved = 0;
    while (!reader.done && source.inSlot >= 0 && out < limit) {
      // A window as large as the room: the span in it cannot be larger.
      const at = reader.next(bytes, source.inAt, Math.min(source.inEnd, source.inAt + limit - out));
      if (at < 0) return at;
      if (reader.dataLength > 0) {
        bytes.copyWithin(out, reader.dataStart, reader.dataStart + reader.dataLength);
        out += reader.dataLength;
      }
      source.consumeTo(at);
      moved = 1;
    }
    this.contentBytes += out - dataStart;
    this.#closeSpan(dataStart, out);
    return moved;
  }

  /** Bytes from `dataStart` to `out` lie in the out slot: frames them. */
  #closeSpan(dataStart: number, out: number): void {
    const { bytes } = (this.#sink as HttpSocket).world.io.arena;
    const length = out - dataStart;
    if (length > 0) {
      if (this.#chunked) {
        for (let i = 0, shift = 12; i < 4; i++, shift -= 4) {
          const digit = (length >>> shift) & 15;
          bytes[this.#outEnd + i] = digit < 10 ? 0x30 + digit : 0x57 + digit;
        }
        bytes[dataStart - 2] = CARRIAGE_RETURN;
        bytes[dataStart - 1] = LINE_FEED;
        bytes[out] = CARRIAGE_RETURN;
        bytes[out + 1] = LINE_FEED;
        this.#outEnd = out + 2;
      } else this.#outEnd = out;
    }
    this.#dropEmptyOut();
  }

  #fillNothing(source: HttpSocket): number {
    const { bytes } = source.world.io.arena;
    const at = this.reader.next(bytes, source.inAt, source.inEnd);
    if (at < 0) return at;
    source.consumeTo(at);
    return 1;
  }

  #fillFromHeap(heap: Uint8Array): number {
    if (this.#outSlot < 0 && !this.#openOut()) return 0;
    const { streams, io } = (this.#sink as HttpSocket).world;
    const dataStart = this.#outEnd + (this.#chunked ? CHUNK_HEADER_BYTES : 0);
    const room = this.#outSlot + streams.slotBytes - CHUNK_OVERHEAD_BYTES - dataStart;
    const length = Math.min(room, heap.length - this.#heapAt);
    if (length <= 0) return 0;
    io.arena.bytes.set(heap.subarray(this.#heapAt, this.#heapAt + length), dataStart);
    this.#heapAt += length;
    if (this.#heapAt === heap.length) this.#heap = null;
    this.#closeSpan(dataStart, dataStart + length);
    return 1;
  }

  /** One span goes to the hook's function; what it answers is the next output. */
  #fillTransform(source: HttpSocket, transform: BodyTransform): number {
    const { bytes } = source.world.io.arena;
    const { reader } = this;
    const at = reader.next(bytes, source.inAt, source.inEnd);
    if (at < 0) return at;
    const chunk =
      reader.dataLength > 0 ? bytes.slice(reader.dataStart, reader.dataStart + reader.dataLength) : null;
    source.consumeTo(at);
    if (chunk !== null) this.#callTransform(transform, chunk);
    return 1;
  }

  #callTransform(transform: BodyTransform, chunk: Uint8Array | null): void {
    const message = this.#message;
    if (chunk === null) this.#transformEnded = true;
    else this.contentBytes += chunk.length;
    // A throw goes up to the owner, as a rejection does.
    const result = transform(chunk);
    if (!(result instanceof Promise)) {
      this.#takeTransformed(result);
      return;
    }
    this.#transforming = true;
    result.then(
      (later) => {
        if (message !== this.#message) return;
        this.#transforming = false;
        this.#takeTransformed(later);
        this.#owner?.onTransformed(this, null);
      },
      (error: unknown) => {
        if (message === this.#message) this.#owner?.onTransformed(this, error ?? new Error('rejected'));
      },
    );
  }

  #takeTransformed(result: Uint8Array | null): void {
    if (result === null || result.length === 0) return;
    this.#heap = result;
    this.#heapAt = 0;
  }

  #writeLastChunk(): number {
    const isChunked = this.reader.framing === BodyFraming.Chunked && this.#transform === null;
    const trailers: MessageHead | null = isChunked ? this.reader.chunked.trailers : null;
    const { io } = (this.#sink as HttpSocket).world;
    const at = this.open();
    if (at < 0 || at + lastChunkBytesMax(trailers) > this.limit) return 0;
    this.#outEnd = writeLastChunk(io.arena.bytes, at, trailers);
    this.#lastChunkDue = false;
    return 1;
  }

  #openOut(): boolean {
    const slot = (this.#sink as HttpSocket).world.streams.acquire();
    if (slot < 0) {
      this.stalled = true;
      return false;
    }
    this.#outSlot = slot;
    this.#outStart = slot;
    this.#outEnd = slot;
    return true;
  }

  #dropEmptyOut(): void {
    if (this.#outSlot < 0 || this.#outEnd > this.#outStart) return;
    (this.#sink as HttpSocket).world.streams.release(this.#outSlot);
    this.#outSlot = -1;
  }
}
