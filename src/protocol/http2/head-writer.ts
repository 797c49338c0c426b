/**
 * Writes the field block that goes to the next hop in HTTP/2. What is left out, and what is written afresh,
 * is as in `protocol/http/forward.ts`; what is not there in HTTP/2 (Connection, Upgrade, Transfer-Encoding)
 * falls away.
 */
import { assert } from '#base/assert.ts';
import type { FieldEdits } from '#protocol/http/edits.ts';
import { FieldKind, mayBeTrailer } from '#protocol/http/field-kind.ts';
import { FieldMark } from '#protocol/http/fields.ts';
import {
  Drop,
  type RequestForward,
  type ResponseForward,
  requestRule,
  responseRule,
  spendsMaxForwards,
} from '#protocol/http/forward.ts';
import { Method } from '#protocol/http/http.ts';
import { HeadFlag, type MessageHead } from '#protocol/http/message-head.ts';
import { copyOctets, latin1Bytes, writeDecimal } from '#protocol/http/octets.ts';

import { FIELD_OVERHEAD_MAX, type HpackEncoder, UPDATE_BYTES_MAX } from './hpack-encoder.ts';

/** Fields that a writer may add by itself. */
const OWN_FIELDS_MAX = 16;
const OWN_BYTES_MAX = 512;
const DROP_FROM_TRAILERS = FieldMark.NamedByConnection;

const METHOD = latin1Bytes(':method');
const SCHEME = latin1Bytes(':scheme');
const AUTHORITY = latin1Bytes(':authority');
const PATH = latin1Bytes(':path');
const STATUS = latin1Bytes(':status');
const PROTOCOL = latin1Bytes(':protocol');
const CONNECT = latin1Bytes('CONNECT');
const CONTENT_LENGTH = latin1Bytes('content-length');
const DATE = latin1Bytes('date');
const VIA = latin1Bytes('via');
const X_FORWARDED_FOR = latin1Bytes('x-forwarded-for');
const X_FORWARDED_PROTO = latin1Bytes('x-forwarded-proto');
const X_FORWARDED_HOST = latin1Bytes('x-forwarded-host');
const EXPECT = latin1Bytes('expect');
const CONTINUE = latin1Bytes('100-continue');
const MAX_FORWARDS = latin1Bytes('max-forwards');
const TE = latin1Bytes('te');
const TRAILERS = latin1Bytes('trailers');
const COMMA_SPACE = latin1Bytes(', ');
const SLASH = latin1Bytes('/');
const ASTERISK = latin1Bytes('*');
/** Digits of one number that is being written. */
const DIGITS = new Uint8Array(20);

/** How many octets the block of a forwarded request takes at most. */
export function requestBlockMax(head: MessageHead, forward: RequestForward): number {
  let length = blockMax(head, forward.edits);
  length += forward.via.length + forward.protocol.length + forward.clientAddress.length;
  length += head.authorityEnd - head.authorityStart;
  if (forward.method !== null) length += forward.method.length;
  if (forward.target !== null) length += forward.target.length;
  if (forward.authority !== null) length += forward.authority.length;
  return length;
}

/** How many octets the block of a forwarded response takes at most. */
export function responseBlockMax(head: MessageHead, forward: ResponseForward): number {
  return blockMax(head, forward.edits) + forward.via.length + forward.date.length;
}

/** How many octets the block of trailers takes at most. */
export function trailersBlockMax(trailers: MessageHead): number {
  return blockMax(trailers, null);
}

function blockMax(head: MessageHead, edits: FieldEdits | null): number {
  const added = edits === null ? 0 : edits.addedBytes + FIELD_OVERHEAD_MAX * edits.added.length;
  const own = OWN_BYTES_MAX + OWN_FIELDS_MAX * FIELD_OVERHEAD_MAX + UPDATE_BYTES_MAX;
  // `fieldsEnd` bounds the text of the trailers of HTTP/1.1, which have no length of their own.
  return Math.max(head.length, head.fieldsEnd) + FIELD_OVERHEAD_MAX * head.fields.count + added + own;
}

/**
 * Writes the block of a request at `at`, where `requestBlockMax` octets are free; the offset behind it.
 * `protocol` is that of an extended CONNECT (RFC 8441), empty for any other request.
 */
export function writeRequestBlock(
  encoder: HpackEncoder,
  out: Uint8Array,
  at: number,
  head: MessageHead,
  forward: RequestForward,
  protocol: Uint8Array,
): number {
  assert(head.isRequest && head.length > 0);
  const { bytes, base } = head.fields;
  let position = encoder.begin(out, at);
  const isExtended = protocol.length > 0;
  if (isExtended) position = put(encoder, out, position, METHOD, CONNECT);
  else if (forward.method !== null) position = put(encoder, out, position, METHOD, forward.method);
  else position = span(encoder, out, position, METHOD, bytes, base + head.startLine, base + head.methodEnd);
  if (isExtended) position = put(encoder, out, position, PROTOCOL, protocol);
  if (isExtended || head.method !== Method.Connect) {
    position = put(encoder, out, position, SCHEME, forward.protocol);
    position = writePath(encoder, out, position, head, forward);
  }
  if (forward.authority !== null) position = put(encoder, out, position, AUTHORITY, forward.authority);
  else {
    const start = base + head.authorityStart;
    position = span(encoder, out, position, AUTHORITY, bytes, start, base + head.authorityEnd);
  }
  const { fields } = head;
  for (let i = 0; i < fields.count; i++) {
    const kind = (fields.kinds[i] as number) & FieldMark.KindMask;
    if (
      kind === FieldKind.Host ||
      (kind === FieldKind.Trailer ? false : requestRule(head, i, forward) === Drop)
    ) {
      continue;
    }
    position = copyField(encoder, out, position, head, i);
  }
  if (forward.clientAddress.length > 0) position = writeForwarded(encoder, out, position, head, forward);
  if (forward.via.length > 0) position = writeVia(encoder, out, position, head.minorVersion, forward.via);
  if (forward.edits !== null) position = writeAdded(encoder, out, position, forward.edits);
  if (forward.expectContinue) position = put(encoder, out, position, EXPECT, CONTINUE);
  if (spendsMaxForwards(head)) position = number(encoder, out, position, MAX_FORWARDS, head.maxForwards - 1);
  if (forward.contentLength >= 0) {
    position = number(encoder, out, position, CONTENT_LENGTH, forward.contentLength);
  }
  if ((head.flags & HeadFlag.TeTrailers) !== 0) position = put(encoder, out, position, TE, TRAILERS);
  return position;
}

/** Writes the block of a response at `at`, where `responseBlockMax` octets are free; the offset behind it. */
export function writeResponseBlock(
  encoder: HpackEncoder,
  out: Uint8Array,
  at: number,
  head: MessageHead,
  forward: ResponseForward,
): number {
  assert(!head.isRequest && head.length > 0);
  const status = forward.status === 0 ? head.status : forward.status;
  let position = encoder.begin(out, at);
  position = number(encoder, out, position, STATUS, status);
  const { fields } = head;
  for (let i = 0; i < fields.count; i++) {
    const kind = (fields.kinds[i] as number) & FieldMark.KindMask;
    // Trailer is kept: in HTTP/2 any response may have trailers.
    if (kind !== FieldKind.Trailer && responseRule(head, i, forward) === Drop) continue;
    position = copyField(encoder, out, position, head, i);
  }
  if (forward.date.length > 0 && (head.flags & HeadFlag.HasDate) === 0) {
    position = put(encoder, out, position, DATE, forward.date);
  }
  if (forward.via.length > 0) position = writeVia(encoder, out, position, head.minorVersion, forward.via);
  if (forward.edits !== null) position = writeAdded(encoder, out, position, forward.edits);
  if (forward.contentLength >= 0) {
    position = number(encoder, out, position, CONTENT_LENGTH, forward.contentLength);
  }
  return position;
}

/** A response that this node makes itself. */
export interface OwnResponseBlock {
  readonly status: number;
  /** Value of Date; empty for none (interim responses). */
  readonly date: Uint8Array;
  readonly fields: FieldEdits | null;
  /** Content-Length to tell, or −1. */
  readonly contentLength: number;
}

/** How many octets the block of an own response takes at most. */
export function ownResponseBlockMax(response: OwnResponseBlock): number {
  const { fields } = response;
  const added = fields === null ? 0 : fields.addedBytes + FIELD_OVERHEAD_MAX * fields.added.length;
  return added + response.date.length + OWN_BYTES_MAX;
}

/** Writes the block of an own response at `at`; the offset behind it. */
export function writeOwnResponseBlock(
  encoder: HpackEncoder,
  out: Uint8Array,
  at: number,
  response: OwnResponseBlock,
): number {
  let position = encoder.begin(out, at);
  position = number(encoder, out, position, STATUS, response.status);
  if (response.date.length > 0) position = put(encoder, out, position, DATE, response.date);
  if (response.fields !== null) position = writeAdded(encoder, out, position, response.fields);
  if (response.contentLength >= 0) {
    position = number(encoder, out, position, CONTENT_LENGTH, response.contentLength);
  }
  return position;
}

/** Whether any of `trailers` may go on as a trailer (RFC 9110 section 6.5.1). */
export function hasForwardableTrailers(trailers: MessageHead): boolean {
  for (let i = 0; i < trailers.fields.count; i++) if (isTrailer(trailers, i)) return true;
  return false;
}

/** Writes those of `trailers` that may stand in trailers; the offset behind them. */
export function writeTrailersBlock(
  encoder: HpackEncoder,
  out: Uint8Array,
  at: number,
  trailers: MessageHead,
): number {
  let position = encoder.begin(out, at);
  for (let i = 0; i < trailers.fields.count; i++) {
    if (isTrailer(trailers, i)) position = copyField(encoder, out, position, trailers, i);
  }
  return position;
}

function isTrailer(trailers: MessageHead, index: number): boolean {
  const isDropped = ((trailers.fields.kinds[index] as number) & DROP_FROM_TRAILERS) !== 0;
  return !isDropped && mayBeTrailer(trailers.fields.nameAt(index).toLowerCase());
}

function copyField(
  encoder: HpackEncoder,
  out: Uint8Array,
  at: number,
  head: MessageHead,
  index: number,
): number {
  const { bytes, base, offsets } = head.fields;
  const i = 4 * index;
  return encoder.field(
    out,
    at,
    bytes,
    base + (offsets[i] as number),
    base + (offsets[i + 1] as number),
    bytes,
    base + (offsets[i + 2] as number),
    base + (offsets[i + 3] as number),
  );
}

/**
 * `http://host?q` has the path `/?q`, and OPTIONS of a bare authority asks for `*` (RFC 9113 section 8.3.1).
 */
function writePath(
  encoder: HpackEncoder,
  out: Uint8Array,
  at: number,
  head: MessageHead,
  forward: RequestForward,
): number {
  if (forward.target !== null) return put(encoder, out, at, PATH, forward.target);
  const { bytes, base } = head.fields;
  const start = base + head.pathStart;
  const end = base + head.pathEnd;
  if (start === end) {
    return put(encoder, out, at, PATH, head.method === Method.Options ? ASTERISK : SLASH);
  }
  if (bytes[start] !== 0x3f) return span(encoder, out, at, PATH, bytes, start, end);
  const path = new Uint8Array(1 + end - start);
  path[0] = 0x2f;
  copyOctets(path, 1, bytes, start, end);
  return put(encoder, out, at, PATH, path);
}

function writeForwarded(
  encoder: HpackEncoder,
  out: Uint8Array,
  at: number,
  head: MessageHead,
  forward: RequestForward,
): number {
  const { bytes, base } = head.fields;
  const trusted = forward.trustForwarded ? head.flags : 0;
  const chain =
    trusted & HeadFlag.HasXForwardedFor ? forwardedFor(head, forward.clientAddress) : forward.clientAddress;
  let position = put(encoder, out, at, X_FORWARDED_FOR, chain);
  if ((trusted & HeadFlag.HasXForwardedProto) === 0) {
    position = put(encoder, out, position, X_FORWARDED_PROTO, forward.protocol);
  }
  if ((trusted & HeadFlag.HasXForwardedHost) === 0 && head.authorityEnd > head.authorityStart) {
    const start = base + head.authorityStart;
    position = span(encoder, out, position, X_FORWARDED_HOST, bytes, start, base + head.authorityEnd);
  }
  return position;
}

/** The chain of a believed client, and its own address behind it. */
function forwardedFor(head: MessageHead, clientAddress: Uint8Array): Uint8Array {
  const { bytes, base, offsets, kinds, count } = head.fields;
  const chain = new Uint8Array(head.length + clientAddress.length + 2 * count);
  let length = 0;
  for (let i = 0; i < count; i++) {
    if (((kinds[i] as number) & FieldMark.KindMask) !== FieldKind.XForwardedFor) continue;
    const start = base + (offsets[4 * i + 2] as number);
    const end = base + (offsets[4 * i + 3] as number);
    if (start === end) continue;
    length = copyOctets(chain, length, bytes, start, end);
    length = copyOctets(chain, length, COMMA_SPACE, 0, 2);
  }
  length = copyOctets(chain, length, clientAddress, 0, clientAddress.length);
  return chain.subarray(0, length);
}

/** Values of Via by version of the message and pseudonym: a process has one pseudonym or few. */
const VIA_VALUES = new Map<Uint8Array, readonly Uint8Array[]>();
const VIA_VALUES_MAX = 64;
const VERSIONS: readonly string[] = ['1.0', '1.1', '2.0'];

function writeVia(
  encoder: HpackEncoder,
  out: Uint8Array,
  at: number,
  minorVersion: number,
  via: Uint8Array,
): number {
  let values = VIA_VALUES.get(via);
  if (values === undefined) {
    if (VIA_VALUES.size >= VIA_VALUES_MAX) VIA_VALUES.clear();
    values = VERSIONS.map((version) => Uint8Array.from([...latin1Bytes(`${version} `), ...via]));
    VIA_VALUES.set(via, values);
  }
  return put(encoder, out, at, VIA, values[minorVersion] as Uint8Array);
}

function writeAdded(encoder: HpackEncoder, out: Uint8Array, at: number, edits: FieldEdits): number {
  let position = at;
  for (let i = 0; i < edits.added.length; i++) {
    const { name, value } = edits.added[i] as (typeof edits.added)[number];
    position = put(encoder, out, position, name, value);
  }
  return position;
}

function number(encoder: HpackEncoder, out: Uint8Array, at: number, name: Uint8Array, value: number): number {
  const length = writeDecimal(DIGITS, 0, value);
  return encoder.field(out, at, name, 0, name.length, DIGITS, 0, length);
}

function put(
  encoder: HpackEncoder,
  out: Uint8Array,
  at: number,
  name: Uint8Array,
  value: Uint8Array,
): number {
  return encoder.field(out, at, name, 0, name.length, value, 0, value.length);
}

function span(
  encoder: HpackEncoder,
  out: Uint8Array,
  at: number,
  name: Uint8Array,
  bytes: Uint8Array,
  start: number,
  end: number,
): number {
  return encoder.field(out, at, name, 0, name.length, bytes, start, end);
}
