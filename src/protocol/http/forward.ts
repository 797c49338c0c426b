/**
 * Writes the head that goes to the next hop. Field lines that stay are copied as runs of bytes; what belongs
 * to one hop is left out (RFC 9110 section 7.6.1), and framing, Connection, Upgrade, TE, Via and
 * X-Forwarded-* are written afresh.
 */
import { assert } from '#base/assert.ts';

import type { FieldEdits } from './edits.ts';
import { FieldKind, HOP_BY_HOP } from './field-kind.ts';
import { FieldMark, type FieldSection } from './fields.ts';
import { Method, TargetForm } from './http.ts';
import { HeadFlag, type MessageHead } from './message-head.ts';
import { copyOctets, equalsIgnoringCase, latin1Bytes, latin1Text, SPACE, writeDecimal } from './octets.ts';

/** How a body is framed on the way out; both absent means no framing fields. */
export interface OutgoingFraming {
  /** Content-Length to write, or −1. */
  contentLength: number;
  /** Write Transfer-Encoding: chunked. Never together with a Content-Length. */
  chunked: boolean;
}

/** What is written into a forwarded request. Mutable: one object serves many requests. */
export interface RequestForward extends OutgoingFraming {
  /** This node's pseudonym in Via, a token; empty for no Via. */
  via: Uint8Array;
  /** `viaLine(via)`, made once for many messages; null: it is put together each time. */
  viaLine: Uint8Array | null;
  /** Address of the client as X-Forwarded-For has it; empty for no X-Forwarded-* at all. */
  clientAddress: Uint8Array;
  /** `http` or `https`, for X-Forwarded-Proto. */
  protocol: Uint8Array;
  /**
   * `forwardedLines(clientAddress, protocol)`, made once for many requests; null: they are put together each
   * time.
   */
  forwardedLines: Uint8Array | null;
  /**
   * The client is a proxy whose X-Forwarded-* and Forwarded are believed and extended; else they are
   * replaced.
   */
  trustForwarded: boolean;
  /** Ask the upstream to close after this exchange. */
  close: boolean;
  /** Forward the Upgrade field; only where the head says it is forwardable. */
  upgrade: boolean;
  /** Forward Expect: 100-continue. */
  expectContinue: boolean;
  /** A hook's method, target (origin form) and host; null leaves the client's. */
  method: Uint8Array | null;
  target: Uint8Array | null;
  authority: Uint8Array | null;
  /** A whole field line with its end that is added, or null. */
  added: Uint8Array | null;
  edits: FieldEdits | null;
}

/** What is written into a forwarded response. Mutable: one object serves many responses. */
export interface ResponseForward extends OutgoingFraming {
  /** As in `RequestForward`. */
  via: Uint8Array;
  viaLine: Uint8Array | null;
  /** Value of Date where the origin sent none (RFC 9110 section 6.6.1); empty for none (1xx). */
  date: Uint8Array;
  /** Tell the client that the connection ends after this message. */
  close: boolean;
  /** Tell an HTTP/1.0 client that the connection stays open. */
  keepAlive: boolean;
  /** 101: forward Upgrade and Connection: upgrade. */
  upgrade: boolean;
  /** A hook's status, or 0. */
  status: number;
  edits: FieldEdits | null;
}

/** A request forward that adds nothing; copy and fill it. */
export function newRequestForward(): RequestForward {
  return {
    contentLength: -1,
    chunked: false,
    via: NOTHING,
    viaLine: null,
    clientAddress: NOTHING,
    protocol: latin1Bytes('http'),
    forwardedLines: null,
    trustForwarded: false,
    close: false,
    upgrade: false,
    expectContinue: false,
    method: null,
    target: null,
    authority: null,
    added: null,
    edits: null,
  };
}

/** A response forward that adds nothing; copy and fill it. */
export function newResponseForward(): ResponseForward {
  return {
    contentLength: -1,
    chunked: false,
    via: NOTHING,
    viaLine: null,
    date: NOTHING,
    close: false,
    keepAlive: false,
    upgrade: false,
    status: 0,
    edits: null,
  };
}

const NOTHING = new Uint8Array(0);
/** All constant text that either writer may add, in bytes, with the longest numbers. */
const CONSTANT_BYTES_MAX = 512;

const Keep = 0;
/** What `requestRule` and `responseRule` answer for a field that is left out. */
export const Drop = 1;
/** The decision needs more than the kind. */
const Ask = 2;
/** Kept, and written afresh. */
const Rewrite = 3;

const REQUEST_RULES: Uint8Array = rules({
  [FieldKind.Host]: Ask,
  [FieldKind.Expect]: Drop,
  [FieldKind.MaxForwards]: Ask,
  [FieldKind.Trailer]: Ask,
  [FieldKind.XForwardedFor]: Drop,
  [FieldKind.XForwardedProto]: Ask,
  [FieldKind.XForwardedHost]: Ask,
  [FieldKind.XForwardedPort]: Ask,
  [FieldKind.XRealIp]: Ask,
  [FieldKind.Forwarded]: Ask,
});
const RESPONSE_RULES: Uint8Array = rules({ [FieldKind.Trailer]: Ask });

function rules(special: Readonly<Record<number, number>>): Uint8Array {
  const table = Uint8Array.from(HOP_BY_HOP);
  for (const [kind, rule] of Object.entries(special)) table[Number(kind)] = rule;
  return table;
}

/**
 * Writes the request head for the upstream at `at` and returns the offset behind it, or −1 when it might not
 * fit before `limit`. `out` may be the array that the head was parsed from, in another place.
 */
export function writeRequestHead(
  out: Uint8Array,
  at: number,
  limit: number,
  head: MessageHead,
  forward: RequestForward,
): number {
  assert(head.isRequest && head.length > 0);
  assert(!forward.chunked || forward.contentLength < 0);
  if (requestBytesMax(head, forward) > limit - at) return -1;
  const { fields } = head;
  const { bytes, base } = fields;
  let position = at;
  let run = head.startLine;
  if (!isPlainRequest(head, forward)) {
    run = head.firstField;
    position = writeRequestLine(out, position, head, forward);
    if (replacesHost(head, forward)) position = writeHost(out, position, head, forward);
  }
  for (let i = 0; i < fields.count; i++) {
    const rule = requestRule(head, i, forward);
    if (rule === Keep) continue;
    const start = fields.offsets[4 * i] as number;
    if (start > run) position = copyOctets(out, position, bytes, base + run, base + start);
    run = lineAfter(head, i);
    if (rule === Rewrite) position = writeLineAfresh(out, position, fields, i);
  }
  if (head.fieldsEnd > run) {
    position = copyOctets(out, position, bytes, base + run, base + head.fieldsEnd);
  }
  if (forward.clientAddress.length > 0) position = writeForwarded(out, position, head, forward);
  if (forward.via.length > 0) position = writeVia(out, position, head.minorVersion, forward);
  if (forward.added !== null) position = put(out, position, forward.added);
  if (forward.edits !== null) position = writeAdded(out, position, forward.edits);
  if (forward.expectContinue) position = put(out, position, EXPECT_CONTINUE);
  if (spendsMaxForwards(head)) position = writeMaxForwards(out, position, head);
  position = writeFraming(out, position, forward);
  position = writeRequestConnection(out, position, head, forward);
  position = endLine(out, position);
  assert(position <= limit);
  return position;
}

/**
 * Writes the response head for the client at `at` and returns the offset behind it, or −1 when it might not
 * fit before `limit`. The version sent is this proxy's own, HTTP/1.1 (RFC 9112 section 2.3).
 */
export function writeResponseHead(
  out: Uint8Array,
  at: number,
  limit: number,
  head: MessageHead,
  forward: ResponseForward,
): number {
  assert(!head.isRequest && head.length > 0);
  assert(!forward.chunked || forward.contentLength < 0);
  if (responseBytesMax(head, forward) > limit - at) return -1;
  const { fields } = head;
  const { bytes, base } = fields;
  let position = at;
  let run = head.startLine;
  if (!isPlainStatusLine(head, forward)) {
    run = head.firstField;
    position = writeStatusLine(out, position, head, forward);
  }
  for (let i = 0; i < fields.count; i++) {
    const rule = responseRule(head, i, forward);
    if (rule === Keep) continue;
    const start = fields.offsets[4 * i] as number;
    if (start > run) position = copyOctets(out, position, bytes, base + run, base + start);
    run = lineAfter(head, i);
    if (rule === Rewrite) position = writeLineAfresh(out, position, fields, i);
  }
  if (head.fieldsEnd > run) {
    position = copyOctets(out, position, bytes, base + run, base + head.fieldsEnd);
  }
  if (forward.date.length > 0 && (head.flags & HeadFlag.HasDate) === 0) {
    position = put(out, position, DATE);
    position = put(out, position, forward.date);
    position = endLine(out, position);
  }
  if (forward.via.length > 0) position = writeVia(out, position, head.minorVersion, forward);
  if (forward.edits !== null) position = writeAdded(out, position, forward.edits);
  position = writeFraming(out, position, forward);
  if (forward.upgrade) {
    position = writeUpgrade(out, position, head);
    position = put(out, position, CONNECTION_UPGRADE);
  } else if (forward.close) position = put(out, position, CONNECTION_CLOSE);
  else if (forward.keepAlive) position = put(out, position, CONNECTION_KEEP_ALIVE);
  position = endLine(out, position);
  assert(position <= limit);
  return position;
}

/** The Via line for messages that came by HTTP/1.1. */
export function viaLine(via: Uint8Array): Uint8Array {
  return latin1Bytes(`Via: 1.1 ${latin1Text(via, 0, via.length)}\r\n`);
}

/** The lines X-Forwarded-For and X-Forwarded-Proto for a client that is not believed. */
export function forwardedLines(clientAddress: Uint8Array, protocol: Uint8Array): Uint8Array {
  const address = latin1Text(clientAddress, 0, clientAddress.length);
  return latin1Bytes(
    `X-Forwarded-For: ${address}\r\nX-Forwarded-Proto: ${latin1Text(protocol, 0, protocol.length)}\r\n`,
  );
}

/**
 * Whether this node's pseudonym stands in a Via field already: the message has come round in a circle
 * (RFC 9110 section 7.6.3). `via` is compared as a whole word, ignoring case.
 */
export function hasViaPseudonym(head: MessageHead, via: Uint8Array): boolean {
  if ((head.flags & HeadFlag.HasVia) === 0 || via.length === 0) return false;
  const { bytes, base, offsets, kinds, count } = head.fields;
  for (let i = 0; i < count; i++) {
    if (((kinds[i] as number) & FieldMark.KindMask) !== FieldKind.Via) continue;
    const end = base + (offsets[4 * i + 3] as number);
    // received-protocol RWS received-by: the pseudonym is the word behind the first whitespace of a member.
    for (let at = base + (offsets[4 * i + 2] as number); at + via.length <= end; at++) {
      if (!isSpaceOrComma(bytes[at - 1] as number)) continue;
      const after = at + via.length;
      if (after < end && !isSpaceOrComma(bytes[after] as number)) continue;
      if (sameText(bytes, at, via)) return true;
    }
  }
  return false;
}

const VERSION_LINE_END = latin1Bytes(' HTTP/1.1\r\n');
const VERSION_11 = latin1Bytes('HTTP/1.1 ');
const HOST_NAME = latin1Bytes('Host: ');
const DATE = latin1Bytes('Date: ');
const VIA_11 = latin1Bytes('Via: 1.1 ');
const VIA_10 = latin1Bytes('Via: 1.0 ');
const VIA_20 = latin1Bytes('Via: 2.0 ');
const X_FORWARDED_FOR = latin1Bytes('X-Forwarded-For: ');
const X_FORWARDED_PROTO = latin1Bytes('X-Forwarded-Proto: ');
const X_FORWARDED_HOST = latin1Bytes('X-Forwarded-Host: ');
const EXPECT_CONTINUE = latin1Bytes('Expect: 100-continue\r\n');
const MAX_FORWARDS = latin1Bytes('Max-Forwards: ');
const CONTENT_LENGTH = latin1Bytes('Content-Length: ');
const TRANSFER_ENCODING_CHUNKED = latin1Bytes('Transfer-Encoding: chunked\r\n');
const CONNECTION_CLOSE = latin1Bytes('Connection: close\r\n');
const CONNECTION_KEEP_ALIVE = latin1Bytes('Connection: keep-alive\r\n');
const CONNECTION_UPGRADE = latin1Bytes('Connection: Upgrade\r\n');
const TE_TRAILERS = latin1Bytes('TE: trailers\r\nConnection: TE\r\n');
const TE_TRAILERS_CLOSE = latin1Bytes('TE: trailers\r\nConnection: TE, close\r\n');
const UPGRADE = latin1Bytes('Upgrade: ');
const COMMA_SPACE = latin1Bytes(', ');
const COLON_SPACE = latin1Bytes(': ');

function requestBytesMax(head: MessageHead, forward: RequestForward): number {
  let length = head.length + CONSTANT_BYTES_MAX + forward.via.length + forward.protocol.length;
  length += forward.clientAddress.length + head.authorityEnd - head.authorityStart;
  if (forward.method !== null) length += forward.method.length;
  if (forward.target !== null) length += forward.target.length;
  if (forward.authority !== null) length += forward.authority.length;
  if (forward.added !== null) length += forward.added.length;
  return forward.edits === null ? length : length + forward.edits.addedBytes;
}

function responseBytesMax(head: MessageHead, forward: ResponseForward): number {
  const length = head.length + CONSTANT_BYTES_MAX + forward.via.length + forward.date.length;
  return forward.edits === null ? length : length + forward.edits.addedBytes;
}

/** The request line may be copied as it stands, with the fields behind it. */
function isPlainRequest(head: MessageHead, forward: RequestForward): boolean {
  return (
    head.minorVersion === 1 &&
    head.targetForm !== TargetForm.Absolute &&
    forward.method === null &&
    forward.target === null &&
    !replacesHost(head, forward) &&
    !head.options.allowBareLineFeed
  );
}

/** RFC 9112 section 3.2.2: the authority of an absolute target replaces whatever Host said. */
function replacesHost(head: MessageHead, forward: RequestForward): boolean {
  return forward.authority !== null || head.targetForm === TargetForm.Absolute || head.hostIndex < 0;
}

function writeRequestLine(out: Uint8Array, at: number, head: MessageHead, forward: RequestForward): number {
  const { bytes, base } = head.fields;
  let position = at;
  if (forward.method !== null) position = put(out, position, forward.method);
  else position = copyOctets(out, position, bytes, base + head.startLine, base + head.methodEnd);
  out[position++] = SPACE;
  if (forward.target !== null) position = put(out, position, forward.target);
  else if (head.method === Method.Connect)
    position = copyOctets(out, position, bytes, base + head.targetStart, base + head.targetEnd);
  else position = writePath(out, position, head);
  return put(out, position, VERSION_LINE_END);
}

/**
 * The origin form of the target: `http://host?q` has the path `/?q`, and OPTIONS of a bare authority asks for
 * `*`.
 */
function writePath(out: Uint8Array, at: number, head: MessageHead): number {
  const { bytes, base } = head.fields;
  let position = at;
  if (head.pathEnd === head.pathStart) out[position++] = head.method === Method.Options ? 0x2a : 0x2f;
  else if (bytes[base + head.pathStart] === 0x3f) out[position++] = 0x2f;
  return copyOctets(out, position, bytes, base + head.pathStart, base + head.pathEnd);
}

function writeHost(out: Uint8Array, at: number, head: MessageHead, forward: RequestForward): number {
  const { bytes, base } = head.fields;
  let position = put(out, at, HOST_NAME);
  if (forward.authority !== null) position = put(out, position, forward.authority);
  else position = copyOctets(out, position, bytes, base + head.authorityStart, base + head.authorityEnd);
  return endLine(out, position);
}

/** Keep, Drop or Rewrite for field `index` of a request. */
export function requestRule(head: MessageHead, index: number, forward: RequestForward): number {
  const marks = head.fields.kinds[index] as number;
  const kind = marks & FieldMark.KindMask;
  let rule = REQUEST_RULES[kind] as number;
  if (rule === Drop || (marks & FieldMark.NamedByConnection) !== 0) return Drop;
  if (rule === Ask) {
    if (kind === FieldKind.Host) rule = replacesHost(head, forward) ? Drop : Keep;
    else if (kind === FieldKind.MaxForwards) rule = spendsMaxForwards(head) ? Drop : Keep;
    else if (kind === FieldKind.Trailer) rule = forward.chunked ? Keep : Drop;
    else rule = forward.trustForwarded ? Keep : Drop;
    if (rule === Drop) return Drop;
  }
  if (forward.edits !== null && isRemoved(head.fields, index, forward.edits)) return Drop;
  return (marks & FieldMark.Irregular) !== 0 ? Rewrite : Keep;
}

/** Keep, Drop or Rewrite for field `index` of a response. */
export function responseRule(head: MessageHead, index: number, forward: ResponseForward): number {
  const marks = head.fields.kinds[index] as number;
  const rule = RESPONSE_RULES[marks & FieldMark.KindMask] as number;
  if (rule === Drop || (marks & FieldMark.NamedByConnection) !== 0) return Drop;
  // The only question in a response is Trailer, which announces what only chunked framing can carry.
  if (rule === Ask && !forward.chunked) return Drop;
  if (forward.edits !== null && isRemoved(head.fields, index, forward.edits)) return Drop;
  return (marks & FieldMark.Irregular) !== 0 ? Rewrite : Keep;
}

function isRemoved(fields: FieldSection, index: number, edits: FieldEdits): boolean {
  const start = fields.base + (fields.offsets[4 * index] as number);
  const length = fields.base + (fields.offsets[4 * index + 1] as number) - start;
  for (let i = 0; i < edits.removed.length; i++) {
    const name = edits.removed[i] as Uint8Array;
    if (name.length === length && equalsIgnoringCase(fields.bytes, start, name)) return true;
  }
  return false;
}

/** Offset behind the line of field `index`, relative to the head. */
function lineAfter(head: MessageHead, index: number): number {
  const { offsets, count } = head.fields;
  return index + 1 < count ? (offsets[4 * index + 4] as number) : head.fieldsEnd;
}

function writeLineAfresh(out: Uint8Array, at: number, fields: FieldSection, index: number): number {
  const { bytes, base, offsets } = fields;
  const i = 4 * index;
  let position = copyOctets(out, at, bytes, base + (offsets[i] as number), base + (offsets[i + 1] as number));
  position = put(out, position, COLON_SPACE);
  const value = base + (offsets[i + 2] as number);
  position = copyOctets(out, position, bytes, value, base + (offsets[i + 3] as number));
  return endLine(out, position);
}

/** X-Forwarded-For of a believed client is extended; Proto and Host of a believed one stay as they came. */
function writeForwarded(out: Uint8Array, at: number, head: MessageHead, forward: RequestForward): number {
  const trusted = forward.trustForwarded ? head.flags : 0;
  let position = at;
  if (trusted === 0 && forward.forwardedLines !== null) position = put(out, at, forward.forwardedLines);
  else {
    position = put(out, position, X_FORWARDED_FOR);
    if ((trusted & HeadFlag.HasXForwardedFor) !== 0) position = copyForwardedFor(out, position, head.fields);
    position = put(out, position, forward.clientAddress);
    position = endLine(out, position);
    if ((trusted & HeadFlag.HasXForwardedProto) === 0) {
      position = put(out, position, X_FORWARDED_PROTO);
      position = put(out, position, forward.protocol);
      position = endLine(out, position);
    }
  }
  if ((trusted & HeadFlag.HasXForwardedHost) === 0 && head.authorityEnd > head.authorityStart) {
    const { bytes, base } = head.fields;
    position = put(out, position, X_FORWARDED_HOST);
    position = copyOctets(out, position, bytes, base + head.authorityStart, base + head.authorityEnd);
    position = endLine(out, position);
  }
  return position;
}

/** The addresses that came, each followed by a comma. */
function copyForwardedFor(out: Uint8Array, at: number, fields: FieldSection): number {
  const { bytes, base, offsets, kinds, count } = fields;
  let position = at;
  for (let i = 0; i < count; i++) {
    if (((kinds[i] as number) & FieldMark.KindMask) !== FieldKind.XForwardedFor) continue;
    const start = base + (offsets[4 * i + 2] as number);
    const end = base + (offsets[4 * i + 3] as number);
    if (start === end) continue;
    position = copyOctets(out, position, bytes, start, end);
    position = put(out, position, COMMA_SPACE);
  }
  return position;
}

/** Via tells the version in which the message was received (RFC 9110 section 7.6.3). */
function writeVia(
  out: Uint8Array,
  at: number,
  minorVersion: number,
  forward: RequestForward | ResponseForward,
): number {
  if (minorVersion === 1 && forward.viaLine !== null) return put(out, at, forward.viaLine);
  let position = put(out, at, minorVersion === 1 ? VIA_11 : minorVersion === 0 ? VIA_10 : VIA_20);
  position = put(out, position, forward.via);
  return endLine(out, position);
}

/**
 * RFC 9110 section 7.6.2: only OPTIONS and TRACE count down; the caller has answered those that came with 0.
 */
export function spendsMaxForwards(head: MessageHead): boolean {
  return head.maxForwards > 0 && (head.method === Method.Options || head.method === Method.Trace);
}

function writeMaxForwards(out: Uint8Array, at: number, head: MessageHead): number {
  let position = put(out, at, MAX_FORWARDS);
  position = writeDecimal(out, position, head.maxForwards - 1);
  return endLine(out, position);
}

function writeFraming(out: Uint8Array, at: number, framing: OutgoingFraming): number {
  if (framing.chunked) return put(out, at, TRANSFER_ENCODING_CHUNKED);
  if (framing.contentLength < 0) return at;
  let position = put(out, at, CONTENT_LENGTH);
  position = writeDecimal(out, position, framing.contentLength);
  return endLine(out, position);
}

function writeRequestConnection(
  out: Uint8Array,
  at: number,
  head: MessageHead,
  forward: RequestForward,
): number {
  if (forward.upgrade) {
    assert((head.flags & HeadFlag.UpgradeForwardable) !== 0);
    return put(out, writeUpgrade(out, at, head), CONNECTION_UPGRADE);
  }
  // RFC 9110 section 10.1.4: a sender of TE also names it in Connection.
  if ((head.flags & HeadFlag.TeTrailers) !== 0) {
    return put(out, at, forward.close ? TE_TRAILERS_CLOSE : TE_TRAILERS);
  }
  return forward.close ? put(out, at, CONNECTION_CLOSE) : at;
}

function writeUpgrade(out: Uint8Array, at: number, head: MessageHead): number {
  assert(head.upgradeIndex >= 0);
  const { bytes, base, offsets } = head.fields;
  const start = base + (offsets[4 * head.upgradeIndex + 2] as number);
  let position = put(out, at, UPGRADE);
  position = copyOctets(out, position, bytes, start, base + (offsets[4 * head.upgradeIndex + 3] as number));
  return endLine(out, position);
}

/** The status line may be copied as it stands: HTTP/1.1, both spaces, CRLF. */
function isPlainStatusLine(head: MessageHead, forward: ResponseForward): boolean {
  return (
    head.minorVersion === 1 &&
    forward.status === 0 &&
    head.fields.bytes[head.fields.base + head.reasonStart - 1] === SPACE &&
    !head.options.allowBareLineFeed
  );
}

function writeStatusLine(out: Uint8Array, at: number, head: MessageHead, forward: ResponseForward): number {
  let position = put(out, at, VERSION_11);
  position = writeDecimal(out, position, forward.status === 0 ? head.status : forward.status);
  out[position++] = SPACE;
  // A reason phrase belongs to its status; a changed status goes without one, which RFC 9112 section 4
  // allows.
  if (forward.status === 0 || forward.status === head.status) {
    const { bytes, base } = head.fields;
    position = copyOctets(out, position, bytes, base + head.reasonStart, base + head.reasonEnd);
  }
  return endLine(out, position);
}

function writeAdded(out: Uint8Array, at: number, edits: FieldEdits): number {
  let position = at;
  for (let i = 0; i < edits.added.length; i++) {
    const field = edits.added[i] as { name: Uint8Array; value: Uint8Array };
    position = put(out, position, field.name);
    position = put(out, position, COLON_SPACE);
    position = put(out, position, field.value);
    position = endLine(out, position);
  }
  return position;
}

function endLine(out: Uint8Array, at: number): number {
  out[at] = 0x0d;
  out[at + 1] = 0x0a;
  return at + 2;
}

function put(out: Uint8Array, at: number, text: Uint8Array): number {
  out.set(text, at);
  return at + text.length;
}

function isSpaceOrComma(octet: number): boolean {
  return octet === SPACE || octet === 0x09 || octet === 0x2c;
}

function sameText(bytes: Uint8Array, at: number, text: Uint8Array): boolean {
  for (let i = 0; i < text.length; i++) {
    const octet = bytes[at + i] as number;
    const lower = octet >= 0x41 && octet <= 0x5a ? octet | 0x20 : octet;
    const other = text[i] as number;
    if (lower !== (other >= 0x41 && other <= 0x5a ? other | 0x20 : other)) return false;
  }
  return true;
}
