import { FieldKind } from '#protocol/http/field-kind.ts';
import { recordField } from '#protocol/http/field-facts.ts';
import { HttpFault } from '#protocol/http/fault.ts';
import { methodOf } from '#protocol/http/head.ts';
import { Method, TargetForm } from '#protocol/http/http.ts';
import type { MessageHead } from '#protocol/http/message-head.ts';
import { latin1Text, OCTET_CLASS, TARGET, TOKEN } from '#protocol/http/octets.ts';
import { checkAuthority } from '#protocol/http/target.ts';

import { Http2Fault } from './fault.ts';
import { Mark, PseudoField } from './field-mark.ts';
import type { FieldSink, HpackDecoder } from './hpack-decoder.ts';
import { HTTP2_VERSION } from './http2.ts';

/** What a field block is. */
export const HeadKind = Object.freeze({ Request: 0, Response: 1, Trailers: 2 } as const);
export type HeadKind = (typeof HeadKind)[keyof typeof HeadKind];

const SLASH = 0x2f;
const ASTERISK = 0x2a;
const COMPLETE: ReadonlySet<number> = new Set([
  Http2Fault.HeadTooLong,
  Http2Fault.TooManyFields,
  Http2Fault.ExpectationUnknown,
]);

/**
 * Whether a fault of a head is answered with a status; with any other the message is malformed and is reset.
 */
export function isAnswerable(fault: number): boolean {
  return COMPLETE.has(Math.abs(fault));
}

/**
 * Makes a `MessageHead` of the fields of one block, and judges it by RFC 9113 section 8. The text of the
 * fields lies where the decoder wrote it, so that a head which came in HTTP/2 is forwarded, and shown to
 * hooks, as one of HTTP/1.1 is. Reused from block to block.
 */
export class HeadReader implements FieldSink {
  /** The protocol of an extended CONNECT (RFC 8441 section 4), empty for any other request. */
  protocol = '';
  /** The first fault found, or 0; with one the head means nothing. */
  fault = 0;
  readonly #decoder: HpackDecoder;
  #head: MessageHead | null = null;
  #kind: HeadKind = HeadKind.Request;
  #base = 0;
  #pseudoEnd = 0;
  /** Bit for each `PseudoField` seen. */
  #seen = 0;
  /** Value offsets by `PseudoField`: start at 2i, end at 2i + 1, relative to the base. */
  readonly #pseudo = new Int32Array(2 * 8);
  #cookieIndex = -1;

  constructor(decoder: HpackDecoder) {
    this.#decoder = decoder;
  }

  /** Begins a head whose text lies from `base` on in the decoder's output. */
  begin(head: MessageHead, kind: HeadKind, base: number): void {
    this.#head = head;
    this.#kind = kind;
    this.#base = base;
    this.#pseudoEnd = 0;
    this.#seen = 0;
    this.#cookieIndex = -1;
    this.protocol = '';
    this.fault = 0;
    head.reset(this.#decoder.out, base);
    head.isRequest = kind === HeadKind.Request;
    head.minorVersion = HTTP2_VERSION;
  }

  /** Forgets the head: what comes is decoded for the table alone. */
  ignore(): void {
    this.#head = null;
  }

  onField(start: number, nameLength: number, valueLength: number, mark: number): void {
    const head = this.#head;
    if (head === null || this.fault !== 0) return;
    if ((mark & ~Mark.KindMask) !== 0) {
      if (mark & Mark.Pseudo) this.#onPseudo(start, nameLength, valueLength, mark);
      else if (mark & Mark.NameInvalid) this.fault = Http2Fault.FieldNameInvalid;
      else this.fault = mark & Mark.ValueInvalid ? Http2Fault.FieldValueInvalid : Http2Fault.ConnectionField;
      return;
    }
    const { fields } = head;
    const index = fields.count;
    if (index === fields.capacity) {
      this.fault = Http2Fault.TooManyFields;
      return;
    }
    if (mark === FieldKind.Cookie && this.#cookieIndex >= 0) {
      this.#joinCookie(head, start + nameLength + 2, valueLength);
      return;
    }
    const { offsets } = fields;
    const at = start - this.#base;
    const valueStart = at + nameLength + 2;
    offsets[4 * index] = at;
    offsets[4 * index + 1] = at + nameLength;
    offsets[4 * index + 2] = valueStart;
    offsets[4 * index + 3] = valueStart + valueLength;
    fields.kinds[index] = 0;
    fields.count = index + 1;
    if (mark === FieldKind.Other) return;
    if (this.#kind === HeadKind.Trailers) fields.kinds[index] = mark;
    else this.#record(head, index, mark);
  }

  /** The block is over: judges the whole head. Returns 0 or a negated fault. */
  finish(): number {
    const head = this.#head;
    if (head === null) return 0;
    if (this.fault === 0 && this.#decoder.overflowed) this.fault = Http2Fault.HeadTooLong;
    if (this.fault !== 0) return -this.fault;
    head.firstField = this.#pseudoEnd;
    head.fieldsEnd = this.#decoder.outAt - this.#base;
    head.length = head.fieldsEnd;
    switch (this.#kind) {
      case HeadKind.Request:
        return this.#finishRequest(head);
      case HeadKind.Response:
        return this.#finishResponse(head);
      default:
        return this.#seen === 0 ? 0 : -Http2Fault.TrailersInvalid;
    }
  }

  #record(head: MessageHead, index: number, kind: number): void {
    const fault = recordField(head, index);
    if (kind === FieldKind.Cookie && this.#kind === HeadKind.Request) this.#cookieIndex = index;
    if (fault === 0) return;
    switch (-fault) {
      case HttpFault.ContentLengthInvalid:
      case HttpFault.ContentLengthDuplicate:
        this.fault = Http2Fault.ContentLengthInvalid;
        break;
      case HttpFault.HostInvalid:
        this.fault = Http2Fault.TargetInvalid;
        break;
      case HttpFault.HostDuplicate:
        this.fault = Http2Fault.AuthorityDiffers;
        break;
      case HttpFault.ExpectationUnknown:
        this.fault = Http2Fault.ExpectationUnknown;
        break;
      default:
        this.fault = Http2Fault.FieldRefused;
    }
  }

  /** RFC 9113 section 8.3: known, once, and in front of all fields. */
  #onPseudo(start: number, nameLength: number, valueLength: number, mark: number): void {
    const head = this.#head as MessageHead;
    const field = mark & Mark.KindMask;
    const bit = 1 << field;
    const belongs =
      this.#kind === HeadKind.Response ? field === PseudoField.Status : field !== PseudoField.Status;
    const isWrong = field === PseudoField.Unknown || !belongs || this.#kind === HeadKind.Trailers;
    if (isWrong || (this.#seen & bit) !== 0 || head.fields.count > 0) {
      this.fault = this.#kind === HeadKind.Trailers ? Http2Fault.TrailersInvalid : Http2Fault.PseudoInvalid;
      return;
    }
    if (mark & Mark.ValueInvalid) {
      this.fault = Http2Fault.FieldValueInvalid;
      return;
    }
    this.#seen |= bit;
    const value = start - this.#base + nameLength + 2;
    this.#pseudo[2 * field] = value;
    this.#pseudo[2 * field + 1] = value + valueLength;
    this.#pseudoEnd = value + valueLength + 2;
  }

  /**
   * RFC 9113 section 8.2.3: a cookie that was cut into fields is one field again, for HTTP/1.1 and for hooks.
   */
  #joinCookie(head: MessageHead, value: number, length: number): void {
    const { bytes, offsets, count } = head.fields;
    const index = this.#cookieIndex;
    const line = value - 'cookie: '.length;
    const end = this.#base + (offsets[4 * index + 3] as number);
    const piece = bytes.slice(value, value + length);
    const shift = length + 2;
    bytes.copyWithin(end + shift, end, line);
    bytes[end] = 0x3b;
    bytes[end + 1] = 0x20;
    bytes.set(piece, end + 2);
    offsets[4 * index + 3] = end + shift - this.#base;
    for (let i = 4 * (index + 1); i < 4 * count; i++) offsets[i] = (offsets[i] as number) + shift;
    this.#decoder.outAt = line + shift;
  }

  #finishRequest(head: MessageHead): number {
    const { bytes } = head.fields;
    const pseudo = this.#pseudo;
    const seen = this.#seen;
    if ((seen & METHOD) === 0) return -Http2Fault.PseudoMissing;
    head.startLine = pseudo[2 * PseudoField.Method] as number;
    head.methodEnd = pseudo[2 * PseudoField.Method + 1] as number;
    const method = this.#base + head.startLine;
    const methodLength = head.methodEnd - head.startLine;
    if (!isClass(bytes, method, method + methodLength, TOKEN)) return -Http2Fault.TargetInvalid;
    head.method = methodOf(bytes, method, methodLength);
    const fault = this.#finishAuthority(head);
    if (fault !== 0) return fault;
    const isExtended = (seen & PROTOCOL) !== 0;
    if (isExtended && head.method !== Method.Connect) return -Http2Fault.PseudoInvalid;
    if (head.method === Method.Connect && !isExtended) {
      // RFC 9113 section 8.5: nothing but an authority, which has a port.
      if ((seen & (SCHEME | PATH)) !== 0) return -Http2Fault.PseudoInvalid;
      if ((seen & AUTHORITY) === 0) return -Http2Fault.PseudoMissing;
      head.targetForm = TargetForm.Authority;
      head.targetStart = head.authorityStart;
      head.targetEnd = head.authorityEnd;
      head.pathStart = head.targetEnd;
      head.pathEnd = head.targetEnd;
      const port = checkAuthority(bytes, this.#base + head.targetStart, this.#base + head.targetEnd);
      return port < 1 ? -Http2Fault.TargetInvalid : 0;
    }
    if ((seen & (SCHEME | PATH)) !== (SCHEME | PATH)) return -Http2Fault.PseudoMissing;
    if (isExtended) {
      const start = this.#base + (pseudo[2 * PseudoField.Protocol] as number);
      const end = this.#base + (pseudo[2 * PseudoField.Protocol + 1] as number);
      if (!isClass(bytes, start, end, TOKEN)) return -Http2Fault.PseudoInvalid;
      this.protocol = latin1Text(bytes, start, end);
    }
    return this.#finishTarget(head);
  }

  /**
   * RFC 9113 section 8.3.1: one authority. Where Host stands beside `:authority` both have to be the same,
   * because the next hop may go by either.
   */
  #finishAuthority(head: MessageHead): number {
    const { bytes, offsets } = head.fields;
    const pseudo = this.#pseudo;
    const host = head.hostIndex;
    if ((this.#seen & AUTHORITY) === 0) {
      if (host < 0) return -Http2Fault.PseudoMissing;
      head.authorityStart = offsets[4 * host + 2] as number;
      head.authorityEnd = offsets[4 * host + 3] as number;
      return 0;
    }
    head.authorityStart = pseudo[2 * PseudoField.Authority] as number;
    head.authorityEnd = pseudo[2 * PseudoField.Authority + 1] as number;
    const start = this.#base + head.authorityStart;
    const length = head.authorityEnd - head.authorityStart;
    if (checkAuthority(bytes, start, start + length) < 0) return -Http2Fault.TargetInvalid;
    if (host < 0) return 0;
    const hostStart = offsets[4 * host + 2] as number;
    if ((offsets[4 * host + 3] as number) - hostStart !== length) return -Http2Fault.AuthorityDiffers;
    for (let i = 0; i < length; i++) {
      if (lowerCase(bytes[start + i] as number) !== lowerCase(bytes[this.#base + hostStart + i] as number)) {
        return -Http2Fault.AuthorityDiffers;
      }
    }
    return 0;
  }

  #finishTarget(head: MessageHead): number {
    const { bytes } = head.fields;
    const pseudo = this.#pseudo;
    const scheme = this.#base + (pseudo[2 * PseudoField.Scheme] as number);
    const schemeEnd = this.#base + (pseudo[2 * PseudoField.Scheme + 1] as number);
    head.targetIsSecure = isLowerText(bytes, scheme, schemeEnd, 'https');
    if (!head.targetIsSecure && !isLowerText(bytes, scheme, schemeEnd, 'http'))
      return -Http2Fault.TargetInvalid;
    head.targetStart = pseudo[2 * PseudoField.Path] as number;
    head.targetEnd = pseudo[2 * PseudoField.Path + 1] as number;
    head.pathStart = head.targetStart;
    head.pathEnd = head.targetEnd;
    const path = this.#base + head.pathStart;
    const end = this.#base + head.pathEnd;
    if (end - path > head.options.targetBytesMax) return -Http2Fault.HeadTooLong;
    if (!isClass(bytes, path, end, TARGET)) return -Http2Fault.TargetInvalid;
    if (bytes[path] === SLASH) head.targetForm = TargetForm.Origin;
    else if (bytes[path] === ASTERISK && end - path === 1 && head.method === Method.Options) {
      head.targetForm = TargetForm.Asterisk;
    } else return -Http2Fault.TargetInvalid;
    return 0;
  }

  /** RFC 9113 section 8.3.2; 101 does not exist in HTTP/2 (section 8.6). */
  #finishResponse(head: MessageHead): number {
    if (this.#seen !== STATUS) return -Http2Fault.PseudoMissing;
    const start = this.#pseudo[2 * PseudoField.Status] as number;
    const end = this.#pseudo[2 * PseudoField.Status + 1] as number;
    if (end - start !== 3) return -Http2Fault.StatusInvalid;
    let status = 0;
    for (let i = start; i < end; i++) {
      const digit = (head.fields.bytes[this.#base + i] as number) - 0x30;
      if (digit < 0 || digit > 9) return -Http2Fault.StatusInvalid;
      status = status * 10 + digit;
    }
    if (status < 100 || status === 101) return -Http2Fault.StatusInvalid;
    head.status = status;
    return 0;
  }
}

const METHOD = 1 << PseudoField.Method;
const SCHEME = 1 << PseudoField.Scheme;
const AUTHORITY = 1 << PseudoField.Authority;
const PATH = 1 << PseudoField.Path;
const STATUS = 1 << PseudoField.Status;
const PROTOCOL = 1 << PseudoField.Protocol;

function isClass(bytes: Uint8Array, start: number, end: number, octets: number): boolean {
  if (start === end) return false;
  for (let i = start; i < end; i++) {
    if (((OCTET_CLASS[bytes[i] as number] as number) & octets) === 0) return false;
  }
  return true;
}

function isLowerText(bytes: Uint8Array, start: number, end: number, text: string): boolean {
  if (end - start !== text.length) return false;
  for (let i = 0; i < text.length; i++) {
    if (lowerCase(bytes[start + i] as number) !== text.charCodeAt(i)) return false;
  }
  return true;
}

function lowerCase(octet: number): number {
  return octet >= 0x41 && octet <= 0x5a ? octet | 0x20 : octet;
}
