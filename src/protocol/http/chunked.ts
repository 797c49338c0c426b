import { assert } from '#base/assert.ts';

import { HttpFault } from './fault.ts';
import { mayBeTrailer } from './field-kind.ts';
import { parseTrailers } from './head.ts';
import { MessageHead, STRICT_HEAD_OPTIONS } from './message-head.ts';
import { CARRIAGE_RETURN, copyOctets, HEX, LINE_FEED, OCTET_CLASS, SEMICOLON, TEXT } from './octets.ts';

/** Limits of a chunked body. */
export interface ChunkedOptions {
  /**
   * Digits of a chunk size, leading zeros counted: eight reach 4 GiB, and no sum of them can lose precision.
   */
  readonly sizeDigitsMax: number;
  /** Bytes of extensions on one chunk. They are dropped and never forwarded (RFC 9112 section 7.1.1). */
  readonly extensionBytesMax: number;
  /**
   * Bytes of extensions in one body: one-byte chunks with long extensions are otherwise a cheap way to burn
   * time.
   */
  readonly extensionBytesTotalMax: number;
  /** Bytes of the trailer section. */
  readonly trailerBytesMax: number;
  /** Trailer fields. */
  readonly trailersMax: number;
}

/** The limits that apply when none are given. */
export const CHUNKED_OPTIONS: ChunkedOptions = Object.freeze({
  sizeDigitsMax: 8,
  extensionBytesMax: 256,
  extensionBytesTotalMax: 16 * 1024,
  trailerBytesMax: 4096,
  trailersMax: 32,
});

/**
 *        ┌────────────────────────────────────────────────────┐
 *        ▼                                                    │
 *   SizeFirst ─► Size ─┬─► SizeEnd ─┬─ size > 0 ─► Data ─► DataCr ─► DataLf
 *                      └► Extension ┘
 *                                   └─ size = 0 ─► TrailerStart ─┬─ CR ─► FinalLf ─► Done
 *                                                   ▲            └► Trailer ─► TrailerLf
 *                                                   └──────────────────────────────┘
 */
const State = Object.freeze({
  SizeFirst: 0,
  Size: 1,
  Extension: 2,
  SizeEnd: 3,
  Data: 4,
  DataCr: 5,
  DataLf: 6,
  TrailerStart: 7,
  Trailer: 8,
  TrailerLf: 9,
  FinalLf: 10,
  Done: 11,
} as const);
type State = (typeof State)[keyof typeof State];

/**
 * Takes the chunked coding off a body, span by span, as bytes come in (RFC 9112 section 7.1). Strict: sizes
 * are hexadecimal digits and nothing else, every line ends in CRLF, extensions are bounded and dropped,
 * trailers are kept apart from the head's fields.
 */
export class ChunkedDecoder {
  /** Offset of the data found by the last `next`; meaningful while `dataLength` > 0. */
  dataStart = 0;
  /** Bytes of data found by the last `next`. */
  dataLength = 0;
  /** The final empty line has been read; bytes behind it belong to the next message. */
  done = false;
  readonly #options: ChunkedOptions;
  #state: State = State.SizeFirst;
  #remaining = 0;
  #digits = 0;
  #extensionBytes = 0;
  #extensionBytesTotal = 0;
  #trailerBytes: Uint8Array | null = null;
  #trailerLength = 0;
  #trailers: MessageHead | null = null;

  constructor(options: ChunkedOptions = CHUNKED_OPTIONS) {
    assert(options.sizeDigitsMax > 0 && options.sizeDigitsMax <= 13);
    this.#options = options;
  }

  /** Begins another body. */
  reset(): void {
    this.dataStart = 0;
    this.dataLength = 0;
    this.done = false;
    this.#state = State.SizeFirst;
    this.#remaining = 0;
    this.#digits = 0;
    this.#extensionBytes = 0;
    this.#extensionBytesTotal = 0;
    this.#trailerLength = 0;
  }

  /** Trailers of a body that is done, or null when it had none. Valid until `reset`. */
  get trailers(): MessageHead | null {
    return this.done && this.#trailerLength > 0 ? this.#trailers : null;
  }

  /**
   * Reads on from `at` and returns the offset behind what was consumed, or a negated fault. Stops after one
   * span of data, at `end`, or when `done`. Call it until `at` reaches `end` or `done` is set. After a fault
   * the decoder is of no more use.
   */
  next(bytes: Uint8Array, at: number, end: number): number {
    assert(!this.done && at >= 0 && at <= end && end <= bytes.length);
    this.dataLength = 0;
    let position = at;
    while (position < end) {
      if (this.#state === State.Data) {
        const length = Math.min(this.#remaining, end - position);
        this.dataStart = position;
        this.dataLength = length;
        this.#remaining -= length;
        if (this.#remaining === 0) this.#state = State.DataCr;
        return position + length;
      }
      const fault = this.#octet(bytes[position] as number);
      if (fault !== 0) return fault;
      position++;
      if (this.done) return position;
    }
    return position;
  }

  #octet(octet: number): number {
    switch (this.#state) {
      case State.SizeFirst:
      case State.Size:
        return this.#sizeOctet(octet);
      case State.Extension:
        return this.#extensionOctet(octet);
      case State.SizeEnd:
        if (octet !== LINE_FEED) return -HttpFault.ChunkSizeInvalid;
        this.#state = this.#remaining > 0 ? State.Data : State.TrailerStart;
        return 0;
      case State.DataCr:
        if (octet !== CARRIAGE_RETURN) return -HttpFault.ChunkEndInvalid;
        this.#state = State.DataLf;
        return 0;
      case State.DataLf:
        if (octet !== LINE_FEED) return -HttpFault.ChunkEndInvalid;
        this.#state = State.SizeFirst;
        return 0;
      default:
        return this.#trailerOctet(octet);
    }
  }

  #sizeOctet(octet: number): number {
    if (((OCTET_CLASS[octet] as number) & HEX) !== 0) {
      if (this.#state === State.SizeFirst) {
        this.#state = State.Size;
        this.#remaining = 0;
        this.#digits = 0;
        this.#extensionBytes = 0;
      }
      if (++this.#digits > this.#options.sizeDigitsMax) return -HttpFault.ChunkSizeTooLarge;
      this.#remaining = this.#remaining * 16 + (octet <= 0x39 ? octet - 0x30 : (octet | 0x20) - 0x57);
      return 0;
    }
    if (this.#state === State.SizeFirst) return -HttpFault.ChunkSizeInvalid;
    if (octet === CARRIAGE_RETURN) this.#state = State.SizeEnd;
    else if (octet === SEMICOLON) this.#state = State.Extension;
    else return -HttpFault.ChunkSizeInvalid;
    return 0;
  }

  #extensionOctet(octet: number): number {
    if (octet === CARRIAGE_RETURN) {
      this.#state = State.SizeEnd;
      return 0;
    }
    if (((OCTET_CLASS[octet] as number) & TEXT) === 0) return -HttpFault.ChunkExtensionInvalid;
    this.#extensionBytes++;
    this.#extensionBytesTotal++;
    return this.#extensionBytes > this.#options.extensionBytesMax ||
      this.#extensionBytesTotal > this.#options.extensionBytesTotalMax
      ? -HttpFault.ChunkExtensionTooLong
      : 0;
  }

  #trailerOctet(octet: number): number {
    switch (this.#state) {
      case State.TrailerStart:
        this.#state = octet === CARRIAGE_RETURN ? State.FinalLf : State.Trailer;
        if (octet === CARRIAGE_RETURN && this.#trailerLength === 0) return 0;
        break;
      case State.Trailer:
        if (octet === CARRIAGE_RETURN) this.#state = State.TrailerLf;
        break;
      case State.TrailerLf:
        if (octet !== LINE_FEED) return -HttpFault.TrailerInvalid;
        this.#state = State.TrailerStart;
        break;
      default:
        if (octet !== LINE_FEED) return -HttpFault.TrailerInvalid;
        this.#state = State.Done;
        this.done = true;
        if (this.#trailerLength === 0) return 0;
    }
    this.#trailerBytes ??= new Uint8Array(this.#options.trailerBytesMax);
    const bytes = this.#trailerBytes;
    if (this.#trailerLength >= bytes.length) return -HttpFault.TrailersTooLong;
    bytes[this.#trailerLength++] = octet;
    return this.done ? this.#finishTrailers(bytes) : 0;
  }

  #finishTrailers(bytes: Uint8Array): number {
    this.#trailers ??= new MessageHead({ ...STRICT_HEAD_OPTIONS, fieldsMax: this.#options.trailersMax });
    return parseTrailers(bytes, 0, this.#trailerLength, this.#trailers);
  }
}

/** The most bytes that `writeChunkHeader` writes. */
export const CHUNK_HEADER_BYTES_MAX = 10;

/**
 * Writes the size line of a chunk of `length` > 0 bytes and returns the offset behind it. The data and CRLF
 * follow.
 */
export function writeChunkHeader(out: Uint8Array, at: number, length: number): number {
  assert(length > 0 && length <= 0xffff_ffff);
  let digits = 1;
  for (let rest = length; rest >= 16; rest = Math.floor(rest / 16)) digits++;
  let rest = length;
  for (let i = digits - 1; i >= 0; i--) {
    const digit = rest % 16;
    out[at + i] = digit < 10 ? 0x30 + digit : 0x57 + digit;
    rest = (rest - digit) / 16;
  }
  out[at + digits] = CARRIAGE_RETURN;
  out[at + digits + 1] = LINE_FEED;
  return at + digits + 2;
}

/** Bytes needed by `writeLastChunk`: its five, and the trailer section at most as long as it came. */
export function lastChunkBytesMax(trailers: MessageHead | null): number {
  return 5 + (trailers === null ? 0 : trailers.fieldsEnd);
}

/**
 * Writes the last chunk with those of `trailers` that may stand in trailers (RFC 9110 section 6.5.1), and
 * returns the offset behind it. Only called when the body ended as its own framing said: a truncated one must
 * not look complete.
 */
export function writeLastChunk(out: Uint8Array, at: number, trailers: MessageHead | null): number {
  out[at] = 0x30;
  out[at + 1] = CARRIAGE_RETURN;
  out[at + 2] = LINE_FEED;
  let position = at + 3;
  if (trailers !== null) {
    const { fields, fieldsEnd } = trailers;
    for (let i = 0; i < fields.count; i++) {
      if (!mayBeTrailer(fields.nameAt(i).toLowerCase())) continue;
      const start = fields.offsets[4 * i] as number;
      const end = i + 1 < fields.count ? (fields.offsets[4 * i + 4] as number) : fieldsEnd;
      position = copyOctets(out, position, fields.bytes, fields.base + start, fields.base + end);
    }
  }
  out[position] = CARRIAGE_RETURN;
  out[position + 1] = LINE_FEED;
  return position + 2;
}
