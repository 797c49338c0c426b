import { assert } from '#base/assert.ts';

import { Http2Fault } from './fault.ts';
import { frameFlags, frameLength, frameStreamId, frameType } from './frame.ts';
import { FRAME_HEADER_BYTES, FrameFlag, FrameType } from './http2.ts';

/** Takes what a `FrameReader` finds, in order. A negated fault that it returns ends the reading. */
export interface FrameSink {
  /** A frame begins; called before its payload is here, so that a wrong one is refused without being kept. */
  checkFrame(type: number, flags: number, streamId: number, length: number): number;
  /** A whole frame that is not DATA; its payload is `bytes[start..start+length)`. */
  onFrame(
    type: number,
    flags: number,
    streamId: number,
    bytes: Uint8Array,
    start: number,
    length: number,
  ): number;
  /** A DATA frame begins: `length` as flow control counts it, `padding` of that are no content. */
  onDataBegin(flags: number, streamId: number, length: number, padding: number): number;
  /** A part of its content, as it comes; never empty. */
  onDataPart(bytes: Uint8Array, start: number, length: number): number;
  /** Its last octet, padding included, has come. */
  onDataEnd(): number;
}

/**
 * Cuts a stream of bytes into frames (RFC 9113 section 4.1). The content of DATA is passed on as it comes;
 * any other frame is passed whole: from the input where it lies there in one piece, else from a copy of its
 * own size.
 */
export class FrameReader {
  readonly #sink: FrameSink;
  /** Largest payload taken. */
  readonly #lengthMax: number;
  /** A frame that has come in part; null between frames. */
  #kept: Uint8Array | null = null;
  #keptLength = 0;
  /** Content and padding that are still to come of a DATA frame. */
  #contentLeft = 0;
  #paddingLeft = 0;
  #inData = false;
  /** Payload of an unknown frame that is still to be skipped. */
  #skipLeft = 0;

  constructor(sink: FrameSink, lengthMax: number) {
    this.#sink = sink;
    this.#lengthMax = lengthMax;
  }

  /** A frame has come in part. */
  get isInsideFrame(): boolean {
    return this.#kept !== null || this.#inData || this.#skipLeft > 0;
  }

  /**
   * Reads `bytes[start..end)` to its end. Returns 0 or a negated fault, behind which nothing more may be
   * read.
   */
  read(bytes: Uint8Array, start: number, end: number): number {
    assert(start <= end && end <= bytes.length);
    let at = start;
    while (at < end) {
      if (this.#inData) at = this.#readData(bytes, at, end);
      else if (this.#skipLeft > 0) {
        const length = Math.min(this.#skipLeft, end - at);
        this.#skipLeft -= length;
        at += length;
      } else if (this.#kept !== null) at = this.#complete(this.#kept, bytes, at, end);
      else at = this.#readFrame(bytes, at, end);
      if (at < 0) return at;
    }
    return 0;
  }

  /** Reads the frame that begins at `at`; the offset behind what was taken, or a negated fault. */
  #readFrame(bytes: Uint8Array, at: number, end: number): number {
    const here = end - at;
    if (here < FRAME_HEADER_BYTES) return this.#keep(bytes, at, end, FRAME_HEADER_BYTES);
    const length = frameLength(bytes, at);
    const type = frameType(bytes, at);
    const flags = frameFlags(bytes, at);
    const streamId = frameStreamId(bytes, at);
    if (length > this.#lengthMax) return -Http2Fault.FrameTooLong;
    const fault = this.#sink.checkFrame(type, flags, streamId, length);
    if (fault !== 0) return fault;
    const payload = at + FRAME_HEADER_BYTES;
    if (type === FrameType.Data) {
      let padding = 0;
      let next = payload;
      if ((flags & FrameFlag.Padded) !== 0) {
        if (length === 0) return -Http2Fault.FrameSizeInvalid;
        if (here === FRAME_HEADER_BYTES) return this.#keep(bytes, at, end, FRAME_HEADER_BYTES + 1);
        padding = 1 + (bytes[payload] as number);
        if (padding > length) return -Http2Fault.PaddingInvalid;
        next++;
      }
      return this.#beginData(flags, streamId, length, padding, next);
    }
    if (type > FrameType.Continuation) {
      this.#skipLeft = length;
      return payload;
    }
    const total = FRAME_HEADER_BYTES + length;
    if (here < total) return this.#keep(bytes, at, end, total);
    const outcome = this.#sink.onFrame(type, flags, streamId, bytes, payload, length);
    return outcome < 0 ? outcome : at + total;
  }

  #beginData(flags: number, streamId: number, length: number, padding: number, next: number): number {
    const fault = this.#sink.onDataBegin(flags, streamId, length, padding);
    if (fault !== 0) return fault;
    this.#contentLeft = length - padding;
    this.#paddingLeft = padding === 0 ? 0 : padding - 1;
    this.#inData = true;
    if (this.#contentLeft + this.#paddingLeft > 0) return next;
    this.#inData = false;
    const outcome = this.#sink.onDataEnd();
    return outcome < 0 ? outcome : next;
  }

  #readData(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    if (this.#contentLeft > 0) {
      const length = Math.min(this.#contentLeft, end - at);
      this.#contentLeft -= length;
      const fault = this.#sink.onDataPart(bytes, at, length);
      if (fault !== 0) return fault;
      at += length;
    }
    const padding = Math.min(this.#paddingLeft, end - at);
    this.#paddingLeft -= padding;
    at += padding;
    if (this.#contentLeft + this.#paddingLeft > 0) return at;
    this.#inData = false;
    const fault = this.#sink.onDataEnd();
    return fault < 0 ? fault : at;
  }

  /** Keeps all that is here of a frame of which `total` octets have to be seen together. */
  #keep(bytes: Uint8Array, at: number, end: number, total: number): number {
    const kept = new Uint8Array(total);
    for (let i = at; i < end; i++) kept[i - at] = bytes[i] as number;
    this.#kept = kept;
    this.#keptLength = end - at;
    return end;
  }

  /** Adds to the kept frame what is missing, and reads it when it is whole. */
  #complete(kept: Uint8Array, bytes: Uint8Array, start: number, end: number): number {
    const length = Math.min(kept.length - this.#keptLength, end - start);
    for (let i = 0; i < length; i++) kept[this.#keptLength + i] = bytes[start + i] as number;
    this.#keptLength += length;
    if (this.#keptLength < kept.length) return end;
    this.#kept = null;
    const outcome = this.#readFrame(kept, 0, kept.length);
    return outcome < 0 ? outcome : start + length;
  }
}
