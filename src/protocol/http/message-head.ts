import { FieldSection } from './fields.ts';
import { Method, TargetForm } from './http.ts';
import { latin1Text } from './octets.ts';

/** Limits and leniencies of a head parser. Frozen, shared by all heads of a listener. */
export interface HeadOptions {
  /** Start line, fields and the final empty line together, bytes. Longer: 431. */
  readonly headBytesMax: number;
  /** Request target, bytes. Longer: 414. */
  readonly targetBytesMax: number;
  /** Field lines. More: 431. */
  readonly fieldsMax: number;
  /** Empty lines tolerated before a start line (RFC 9112 section 2.2); clients once sent one after a POST. */
  readonly leadingEmptyLinesMax: number;
  /** Take a lone LF as a line end (RFC 9112 section 2.2 allows it). */
  readonly allowBareLineFeed: boolean;
  /**
   * Replace obsolete line folding by spaces, in place in the input (RFC 9112 section 5.2), and not refuse it.
   */
  readonly allowObsoleteFold: boolean;
  /** Take repeated and listed Content-Length of one value as that value (RFC 9110 section 8.6). */
  readonly mergeIdenticalContentLength: boolean;
  /** Where both framings stand, go by Transfer-Encoding and close afterwards (RFC 9112 section 6.3). */
  readonly preferTransferEncoding: boolean;
  /** Accept octets above 0x7F in a request target, which RFC 3986 wants percent-encoded. */
  readonly allowRawTarget: boolean;
}

/**
 * Strict: no leniency but one empty line before a request, which RFC 9112 section 2.2 asks servers to skip.
 */
export const STRICT_HEAD_OPTIONS: HeadOptions = Object.freeze({
  // Fits a receive slot of 16 KiB; nginx allows 32 KiB in all and 8 KiB a line, HAProxy 16 KiB.
  headBytesMax: 16 * 1024,
  targetBytesMax: 8 * 1024,
  fieldsMax: 100,
  leadingEmptyLinesMax: 1,
  allowBareLineFeed: false,
  allowObsoleteFold: false,
  mergeIdenticalContentLength: false,
  preferTransferEncoding: false,
  allowRawTarget: false,
});

const NO_BYTES = new Uint8Array(0);

/** Facts of a head, bits of `MessageHead.flags`. */
export const HeadFlag = Object.freeze({
  /** Connection: close. */
  Close: 1,
  /** Connection: keep-alive. */
  KeepAlive: 1 << 1,
  /** Connection: upgrade. */
  ConnectionUpgrade: 1 << 2,
  /** Connection names other fields; they are marked in the field table. */
  ConnectionNames: 1 << 3,
  /** Transfer-Encoding is exactly chunked. */
  Chunked: 1 << 4,
  /** Expect: 100-continue in an HTTP/1.1 request. */
  ExpectContinue: 1 << 5,
  /** TE holds the member trailers. */
  TeTrailers: 1 << 6,
  /** An Upgrade field is present in an HTTP/1.1 message whose Connection has upgrade. */
  Upgrade: 1 << 7,
  /**
   * That Upgrade names one protocol which may be forwarded (never h2c, HTTP or TLS; RFC 9113 section 3.1).
   */
  UpgradeForwardable: 1 << 8,
  /** Framing was repaired by a leniency: close the connection after this message. */
  FramingRepaired: 1 << 9,
  HasVia: 1 << 10,
  HasXForwardedFor: 1 << 11,
  HasXForwardedProto: 1 << 12,
  HasXForwardedHost: 1 << 13,
  HasDate: 1 << 14,
  HasMaxForwards: 1 << 15,
  /** Transfer-Encoding is present, whatever it says. */
  HasTransferEncoding: 1 << 16,
  HasHost: 1 << 17,
} as const);

/**
 * One parsed head: mutable and reused, filled by `parseRequestHead` or `parseResponseHead`. All offsets are
 * relative to `fields.base` and are valid only while the bytes stay where they are. Strings are made only by
 * the methods.
 */
export class MessageHead {
  readonly options: HeadOptions;
  readonly fields: FieldSection;
  /** The same memory as `fields.bytes`, for the parser; set by `reset`. */
  view: DataView = new DataView(NO_BYTES.buffer);
  /** Bytes from `fields.base` to behind the empty line; 0 while incomplete. */
  length = 0;
  /** Where the start line begins: behind tolerated empty lines. */
  startLine = 0;
  /** Where the first field line begins. */
  firstField = 0;
  /** Where the empty line begins: behind the last field line. */
  fieldsEnd = 0;
  /** 0 for HTTP/1.0, 1 for HTTP/1.1, 2 for a head that came in HTTP/2. */
  minorVersion = 1;
  /** `HeadFlag` bits. */
  flags = 0;
  /** Value of Content-Length, or −1 when there is none. */
  contentLength = -1;
  /** Value of Max-Forwards, or −1 when there is none. */
  maxForwards = -1;
  /** Whether this is a request; the parser in use sets it. */
  isRequest = true;
  /** Index of the Host field, or −1. */
  hostIndex = -1;
  /** Index of the Upgrade field, or −1. */
  upgradeIndex = -1;

  // Request line.
  method: Method = Method.Other;
  methodEnd = 0;
  targetStart = 0;
  targetEnd = 0;
  targetForm: TargetForm = TargetForm.Origin;
  /** Path with query inside the target; empty for `http://host` and authority form. */
  pathStart = 0;
  pathEnd = 0;
  /**
   * Host with port that the request is for: of the target if it has one (it wins), else of Host; may be
   * empty.
   */
  authorityStart = 0;
  authorityEnd = 0;
  /** Absolute form with the scheme https. */
  targetIsSecure = false;

  // Status line.
  status = 0;
  reasonStart = 0;
  reasonEnd = 0;

  /** Parser's own: offset of the first line not yet taken, and input for which that holds. */
  scanned = 0;

  constructor(options: HeadOptions = STRICT_HEAD_OPTIONS) {
    this.options = options;
    this.fields = new FieldSection(options.fieldsMax);
  }

  /** Starts over; the next parse begins a new message at `base` of `bytes`. */
  reset(bytes: Uint8Array, base: number): void {
    this.fields.reset(bytes, base);
    if (this.view.buffer !== bytes.buffer || this.view.byteOffset !== bytes.byteOffset) {
      this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    }
    this.length = 0;
    this.scanned = 0;
    this.startLine = 0;
    this.firstField = 0;
    this.fieldsEnd = 0;
    this.minorVersion = 1;
    this.flags = 0;
    this.contentLength = -1;
    this.maxForwards = -1;
    this.hostIndex = -1;
    this.upgradeIndex = -1;
    this.method = Method.Other;
    this.methodEnd = 0;
    this.targetStart = 0;
    this.targetEnd = 0;
    this.targetForm = TargetForm.Origin;
    this.pathStart = 0;
    this.pathEnd = 0;
    this.authorityStart = 0;
    this.authorityEnd = 0;
    this.targetIsSecure = false;
    this.status = 0;
    this.reasonStart = 0;
    this.reasonEnd = 0;
  }

  /** Forgets which bytes it was parsed from: the next parse begins a new message wherever it is. */
  invalidate(): void {
    this.fields.bytes = NO_BYTES;
    this.length = 0;
  }

  /**
   * The bytes were moved: all offsets go on to hold from `base` of `bytes`. A head half parsed goes on there.
   */
  moveTo(bytes: Uint8Array, base: number): void {
    this.fields.bytes = bytes;
    this.fields.base = base;
    if (this.view.buffer !== bytes.buffer || this.view.byteOffset !== bytes.byteOffset) {
      this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    }
  }

  /** Whether all bits of `flag` are set. */
  has(flag: number): boolean {
    return (this.flags & flag) === flag;
  }

  /** Whether the sender keeps the connection after this message (RFC 9112 section 9.3). */
  get persistent(): boolean {
    if ((this.flags & (HeadFlag.Close | HeadFlag.FramingRepaired)) !== 0) return false;
    return this.minorVersion >= 1 || (this.flags & HeadFlag.KeepAlive) !== 0;
  }

  /** The method as it was written. */
  get methodText(): string {
    return this.text(this.startLine, this.methodEnd);
  }

  /** The request target as it was written. */
  get target(): string {
    return this.text(this.targetStart, this.targetEnd);
  }

  /** Path with query as it was written; `/` where the target has none, `*` for the asterisk form. */
  get path(): string {
    return this.pathEnd > this.pathStart ? this.text(this.pathStart, this.pathEnd) : '/';
  }

  /** Host with port that the request is for, as it was written; empty when an HTTP/1.0 request names none. */
  get authority(): string {
    return this.text(this.authorityStart, this.authorityEnd);
  }

  /** Reason phrase of a response. */
  get reason(): string {
    return this.text(this.reasonStart, this.reasonEnd);
  }

  /** Value of the first field of this name in any case, or null. */
  field(name: string): string | null {
    return this.fields.value(name);
  }

  /** Text of a span of offsets relative to the head. */
  text(start: number, end: number): string {
    return latin1Text(this.fields.bytes, this.fields.base + start, this.fields.base + end);
  }
}
