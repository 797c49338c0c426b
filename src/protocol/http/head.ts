import { assert } from '#base/assert.ts';

import { HttpFault } from './fault.ts';
import { finishRequest, finishResponse, recordField } from './field-facts.ts';
import { FieldMark } from './fields.ts';
import { Method } from './http.ts';
import type { MessageHead } from './message-head.ts';
import {
  CARRIAGE_RETURN,
  COLON,
  LINE_FEED,
  latin1Bytes,
  OCTET_CLASS,
  SPACE,
  TAB,
  TARGET,
  TOKEN,
  VALUE,
} from './octets.ts';
import { parseTarget } from './target.ts';

/** Longest method taken: the longest registered one has 17 octets (UPDATEREDIRECTREF). Longer: 501. */
const METHOD_BYTES_MAX = 32;
const VERSION_PREFIX = latin1Bytes('HTTP/');
const VERSION_BYTES = 8;
/** `HTTP` and `/1.` as little-endian words. */
const HTTP_WORD = 0x50545448;
const SLASH_ONE_DOT_WORD = 0x2e312f;

/**
 * Parses a request head that begins at `offset`, as far as the bytes before `end` go (RFC 9112 sections 2 to
 * 5).
 *
 * Returns the length of the head in bytes (> 0), 0 when more bytes are needed, or a negated `HttpFault`.
 * After 0, call again with the same `bytes`, `offset` and `into` and a larger `end`: scanning goes on at the
 * first line that was not complete, so a head that comes in drops costs no more than its lines. Any other
 * place starts over by itself; so must `into.reset` when another message comes to stand at the same place.
 */
export function parseRequestHead(bytes: Uint8Array, offset: number, end: number, into: MessageHead): number {
  return parseHead(bytes, offset, end, into, true);
}

/**
 * Parses a response head; as `parseRequestHead`. Faults of responses are answered with 502, whatever their
 * own status.
 */
export function parseResponseHead(bytes: Uint8Array, offset: number, end: number, into: MessageHead): number {
  return parseHead(bytes, offset, end, into, false);
}

/**
 * Parses a whole trailer section, from its first field line to behind its empty line (RFC 9112 section
 * 7.1.2). Only the fields are entered into `into`; they mean nothing for framing or routing. Returns 0 or a
 * negated fault.
 */
export function parseTrailers(bytes: Uint8Array, start: number, end: number, into: MessageHead): number {
  into.reset(bytes, start);
  let at = start;
  while (at < end && bytes[at] !== CARRIAGE_RETURN) {
    const next = parseFieldLine(bytes, at, end, into);
    if (next <= 0) return -HttpFault.TrailerInvalid;
    at = next;
  }
  into.fieldsEnd = at - start;
  return at + 2 === end ? 0 : -HttpFault.TrailerInvalid;
}

function parseHead(
  bytes: Uint8Array,
  offset: number,
  end: number,
  into: MessageHead,
  isRequest: boolean,
): number {
  assert(offset >= 0 && end >= offset && end <= bytes.length);
  const fields = into.fields;
  if (fields.bytes !== bytes || fields.base !== offset || into.length !== 0) into.reset(bytes, offset);
  into.isRequest = isRequest;
  const limit = Math.min(end, offset + into.options.headBytesMax);
  let at = offset + into.scanned;
  if (into.firstField === 0) {
    at = skipEmptyLines(bytes, at, limit, into);
    if (at < 0) return at;
    // Half of an empty line: not yet a start line.
    if (at < limit && bytes[at] === CARRIAGE_RETURN) return needMore(offset, end, into);
    const next = isRequest
      ? parseRequestLine(bytes, at, limit, into)
      : parseStatusLine(bytes, at, limit, into);
    if (next <= 0) return next < 0 ? next : needMore(offset, end, into);
    at = next;
    into.firstField = at - offset;
    into.scanned = at - offset;
  }
  while (at < limit) {
    const octet = bytes[at] as number;
    if (octet === CARRIAGE_RETURN || octet === LINE_FEED) {
      const next = lineEnd(bytes, at, limit, into);
      if (next <= 0) return next < 0 ? next : needMore(offset, end, into);
      const fault = isRequest ? finishRequest(into) : finishResponse(into);
      if (fault !== 0) return fault;
      into.fieldsEnd = at - offset;
      into.length = next - offset;
      return into.length;
    }
    const next = parseFieldLine(bytes, at, limit, into);
    if (next <= 0) return next < 0 ? next : needMore(offset, end, into);
    const fault = recordField(into, fields.count - 1);
    if (fault !== 0) return fault;
    at = next;
    into.scanned = at - offset;
  }
  return needMore(offset, end, into);
}

/** 0, or the fault of a head that filled its limit without ending. */
function needMore(offset: number, end: number, into: MessageHead): number {
  if (end - offset < into.options.headBytesMax) return 0;
  return into.firstField === 0 && into.isRequest ? -HttpFault.TargetTooLong : -HttpFault.HeadTooLong;
}

/** RFC 9112 section 2.2. Returns where the start line begins, or a negated fault. */
function skipEmptyLines(bytes: Uint8Array, from: number, limit: number, into: MessageHead): number {
  let at = from;
  let lines = 0;
  while (at < limit && (bytes[at] === CARRIAGE_RETURN || bytes[at] === LINE_FEED)) {
    const next = lineEnd(bytes, at, limit, into);
    if (next < 0) return next;
    if (next === 0) return at;
    if (++lines > into.options.leadingEmptyLinesMax) return -HttpFault.LeadingBytes;
    at = next;
  }
  return at;
}

/** The offset behind the line end at `at`, 0 when more bytes are needed, or a negated fault. */
function lineEnd(bytes: Uint8Array, at: number, limit: number, into: MessageHead): number {
  if (bytes[at] === LINE_FEED) return into.options.allowBareLineFeed ? at + 1 : -HttpFault.BareLineFeed;
  if (at + 1 >= limit) return 0;
  return bytes[at + 1] === LINE_FEED ? at + 2 : -HttpFault.BareCarriageReturn;
}

/** method SP request-target SP HTTP-version (RFC 9112 section 3). */
function parseRequestLine(bytes: Uint8Array, start: number, limit: number, into: MessageHead): number {
  const { base } = into.fields;
  let at = start;
  while (at < limit && ((OCTET_CLASS[bytes[at] as number] as number) & TOKEN) !== 0) at++;
  if (at - start > METHOD_BYTES_MAX) return -HttpFault.MethodTooLong;
  if (at === limit) return 0;
  if (at === start || bytes[at] !== SPACE) return -HttpFault.MethodInvalid;
  into.startLine = start - base;
  into.methodEnd = at - base;
  into.method = methodOf(bytes, start, at - start);

  const target = at + 1;
  at = target;
  const { targetBytesMax, allowRawTarget } = into.options;
  while (at < limit) {
    const octet = bytes[at] as number;
    if (((OCTET_CLASS[octet] as number) & TARGET) === 0 && !(allowRawTarget && octet > 0x7f)) break;
    at++;
  }
  if (at - target > targetBytesMax) return -HttpFault.TargetTooLong;
  if (at === limit) return 0;
  if (at === target || bytes[at] !== SPACE) return -HttpFault.TargetInvalid;
  into.targetStart = target - base;
  into.targetEnd = at - base;

  const fault = parseVersion(bytes, at + 1, limit, into);
  if (fault <= 0) return fault;
  const next = startLineEnd(bytes, at + 1 + VERSION_BYTES, limit, into);
  if (next <= 0) return next;
  const targetFault = parseTarget(into);
  return targetFault === 0 ? next : targetFault;
}

/**
 * HTTP-version SP status-code [SP reason-phrase] (RFC 9112 section 4); servers often leave the last SP out.
 */
function parseStatusLine(bytes: Uint8Array, start: number, limit: number, into: MessageHead): number {
  const { base } = into.fields;
  into.startLine = start - base;
  const found = parseVersion(bytes, start, limit, into);
  if (found <= 0) return found;
  let at = start + VERSION_BYTES;
  let status = 0;
  for (let i = 0; i < 4; i++, at++) {
    if (at === limit) return 0;
    const octet = bytes[at] as number;
    if (i === 0) {
      if (octet !== SPACE) return -HttpFault.StatusLineInvalid;
      continue;
    }
    if (octet < 0x30 || octet > 0x39) return -HttpFault.StatusLineInvalid;
    status = status * 10 + (octet - 0x30);
  }
  if (status < 100) return -HttpFault.StatusLineInvalid;
  into.status = status;
  if (at === limit) return 0;
  if (bytes[at] === SPACE) at++;
  else if (bytes[at] !== CARRIAGE_RETURN && bytes[at] !== LINE_FEED) return -HttpFault.StatusLineInvalid;
  into.reasonStart = at - base;
  while (at < limit && ((OCTET_CLASS[bytes[at] as number] as number) & VALUE) !== 0) at++;
  if (at === limit) return 0;
  into.reasonEnd = at - base;
  return startLineEnd(bytes, at, limit, into);
}

/**
 * Reads `HTTP/1.x` octet by octet, so that a line which ends early is refused at once. 1, 0 or a negated
 * fault.
 */
function parseVersion(bytes: Uint8Array, at: number, limit: number, into: MessageHead): number {
  if (
    at + VERSION_BYTES <= limit &&
    into.view.getUint32(at, true) === HTTP_WORD &&
    (into.view.getUint32(at + 4, true) & 0xffffff) === SLASH_ONE_DOT_WORD
  ) {
    const minor = (bytes[at + 7] as number) - 0x30;
    if (minor === 1 || minor === 0) {
      into.minorVersion = minor;
      return 1;
    }
  }
  for (let i = 0; i < VERSION_BYTES; i++) {
    if (at + i === limit) return 0;
    const octet = bytes[at + i] as number;
    if (i < 5) {
      if (octet !== VERSION_PREFIX[i]) return -HttpFault.VersionInvalid;
    } else if (i === 6) {
      if (octet !== 0x2e) return -HttpFault.VersionInvalid;
    } else if (octet < 0x30 || octet > 0x39) {
      return -HttpFault.VersionInvalid;
    }
  }
  const minor = (bytes[at + 7] as number) - 0x30;
  if (bytes[at + 5] !== 0x31 || minor > 1) return -HttpFault.VersionUnsupported;
  into.minorVersion = minor;
  return 1;
}

function startLineEnd(bytes: Uint8Array, at: number, limit: number, into: MessageHead): number {
  if (at >= limit) return 0;
  const octet = bytes[at] as number;
  if (octet === CARRIAGE_RETURN || octet === LINE_FEED) return lineEnd(bytes, at, limit, into);
  return into.isRequest ? -HttpFault.VersionInvalid : -HttpFault.StatusLineInvalid;
}

/**
 * field-name ":" OWS field-value OWS CRLF (RFC 9112 section 5). Returns the offset behind the line, 0 or a
 * negated fault. The field is entered only when its line is complete.
 */
function parseFieldLine(bytes: Uint8Array, start: number, limit: number, into: MessageHead): number {
  let at = start;
  while (at < limit && ((OCTET_CLASS[bytes[at] as number] as number) & TOKEN) !== 0) at++;
  const nameEnd = at;
  if (at === limit) return 0;
  let mark = 0;
  if (bytes[at] !== COLON || at === start) {
    at = colonAfterSpace(bytes, start, at, limit, into);
    if (at <= 0) return at;
    mark = FieldMark.Irregular;
  }
  at++;
  while (at < limit && (bytes[at] === SPACE || bytes[at] === TAB)) at++;
  let valueStart = at;
  let valueEnd = 0;
  for (;;) {
    at = skipPlainOctets(into.view, at, limit);
    while (at < limit && ((OCTET_CLASS[bytes[at] as number] as number) & VALUE) !== 0) at++;
    if (at === limit) return 0;
    const octet = bytes[at] as number;
    if (octet !== CARRIAGE_RETURN && octet !== LINE_FEED) return -HttpFault.FieldValueInvalid;
    const next = lineEnd(bytes, at, limit, into);
    if (next <= 0) return next;
    valueEnd = at;
    if (octet === LINE_FEED) mark = FieldMark.Irregular;
    at = next;
    if (!into.options.allowObsoleteFold) break;
    // Whether the line goes on is known only from the octet behind it.
    if (at === limit) return 0;
    if (bytes[at] !== SPACE && bytes[at] !== TAB) break;
    bytes.fill(SPACE, valueEnd, at);
  }
  while (valueEnd > valueStart && (bytes[valueEnd - 1] === SPACE || bytes[valueEnd - 1] === TAB)) valueEnd--;
  // Only a fold leaves whitespace here: the first line of the value was empty.
  while (valueStart < valueEnd && (bytes[valueStart] === SPACE || bytes[valueStart] === TAB)) valueStart++;

  const fields = into.fields;
  const index = fields.count;
  if (index === fields.capacity) return -HttpFault.TooManyFields;
  const { base, offsets } = fields;
  offsets[4 * index] = start - base;
  offsets[4 * index + 1] = nameEnd - base;
  offsets[4 * index + 2] = valueStart - base;
  offsets[4 * index + 3] = valueEnd - base;
  fields.kinds[index] = mark;
  fields.count = index + 1;
  return at;
}

/**
 * Skips octets that may stand in a value, four at a time, and stops somewhere before the first that may not.
 * In each octet of `word − 0x20…` the top bit rises only for a control character, in `(word ^ 0x7f…) − 0x01…`
 * only for DEL; a borrow can raise the bit of an octet above a hit, never below one.
 */
function skipPlainOctets(view: DataView, start: number, limit: number): number {
  let at = start;
  while (at + 4 <= limit) {
    const word = view.getUint32(at, true) | 0;
    const flipped = word ^ 0x7f7f7f7f;
    const hits = ((word - 0x20202020) & ~word) | ((flipped - 0x01010101) & ~flipped);
    if ((hits & 0x80808080) !== 0) break;
    at += 4;
  }
  return at;
}

/**
 * What follows a name that no colon ends. A response with whitespace there is taken (the forwarded line is
 * written afresh); a request with it is refused (RFC 9112 section 5.1). Returns the offset of the colon, 0 or
 * a negated fault.
 */
function colonAfterSpace(
  bytes: Uint8Array,
  start: number,
  nameEnd: number,
  limit: number,
  into: MessageHead,
): number {
  const octet = bytes[nameEnd] as number;
  if (octet !== SPACE && octet !== TAB) return -HttpFault.FieldNameInvalid;
  if (nameEnd === start)
    return into.fields.count === 0 ? -HttpFault.LeadingWhitespace : -HttpFault.ObsoleteFold;
  if (into.isRequest) return -HttpFault.SpaceBeforeColon;
  let at = nameEnd;
  while (at < limit && (bytes[at] === SPACE || bytes[at] === TAB)) at++;
  if (at === limit) return 0;
  return bytes[at] === COLON ? at : -HttpFault.FieldNameInvalid;
}

const METHODS: readonly (readonly [text: Uint8Array, method: Method])[] = [
  [latin1Bytes('GET'), Method.Get],
  [latin1Bytes('POST'), Method.Post],
  [latin1Bytes('HEAD'), Method.Head],
  [latin1Bytes('PUT'), Method.Put],
  [latin1Bytes('DELETE'), Method.Delete],
  [latin1Bytes('OPTIONS'), Method.Options],
  [latin1Bytes('PATCH'), Method.Patch],
  [latin1Bytes('CONNECT'), Method.Connect],
  [latin1Bytes('TRACE'), Method.Trace],
];

/** Methods are case-sensitive (RFC 9110 section 9.1): `get` is another method than `GET`. */
export function methodOf(bytes: Uint8Array, start: number, length: number): Method {
  for (let i = 0; i < METHODS.length; i++) {
    const [text, method] = METHODS[i] as readonly [Uint8Array, Method];
    if (text.length !== length || text[0] !== bytes[start]) continue;
    let same = 1;
    while (same < length && text[same] === bytes[start + same]) same++;
    if (same === length) return method;
  }
  return Method.Other;
}
