import { HttpFault } from './fault.ts';
import { FieldKind, fieldKindOf, PROTECTED_FROM_CONNECTION } from './field-kind.ts';
import { FieldMark } from './fields.ts';
import { TargetForm } from './http.ts';
import { HeadFlag, type MessageHead } from './message-head.ts';
import {
  COMMA,
  equalsIgnoringCase,
  latin1Bytes,
  OCTET_CLASS,
  SEMICOLON,
  SPACE,
  TAB,
  TOKEN,
} from './octets.ts';
import { checkAuthority } from './target.ts';

const CHUNKED = latin1Bytes('chunked');
const CLOSE = latin1Bytes('close');
const KEEP_ALIVE = latin1Bytes('keep-alive');
const UPGRADE = latin1Bytes('upgrade');
const TRAILERS = latin1Bytes('trailers');
const CONTINUE = latin1Bytes('100-continue');
const TE = latin1Bytes('te');

/** Digits of a Content-Length: fifteen stay exact in a number, and no body has a petabyte. */
const CONTENT_LENGTH_DIGITS_MAX = 15;
const SLASH = 0x2f;

/**
 * Takes note of field `index` of `head`, whose line has just been scanned. Returns 0 or a negated fault. What
 * can only be judged when all fields are known is left to `finishRequest` and `finishResponse`.
 */
export function recordField(head: MessageHead, index: number): number {
  const fields = head.fields;
  const at = 4 * index;
  const bytes = fields.bytes;
  const base = fields.base;
  const kind = fieldKindOf(
    bytes,
    base + (fields.offsets[at] as number),
    base + (fields.offsets[at + 1] as number),
  );
  fields.kinds[index] = (fields.kinds[index] as number) | kind;
  if (kind === FieldKind.Other) return 0;
  const start = base + (fields.offsets[at + 2] as number);
  const end = base + (fields.offsets[at + 3] as number);
  switch (kind) {
    case FieldKind.Host:
      return recordHost(head, index);
    case FieldKind.ContentLength:
      return recordContentLength(head, start, end);
    case FieldKind.TransferEncoding:
      return recordTransferEncoding(head, start, end);
    case FieldKind.Connection:
      return recordConnection(head, start, end);
    case FieldKind.Te:
      if (listHasToken(bytes, start, end, TRAILERS)) head.flags |= HeadFlag.TeTrailers;
      return 0;
    case FieldKind.Upgrade:
      // A second Upgrade field makes the choice ambiguous: finishing sees that it is not forwardable.
      head.upgradeIndex = head.upgradeIndex === -1 ? index : -2;
      return 0;
    case FieldKind.Expect:
      return recordExpect(head, start, end);
    case FieldKind.MaxForwards:
      return recordMaxForwards(head, start, end);
    case FieldKind.Via:
      head.flags |= HeadFlag.HasVia;
      return 0;
    case FieldKind.XForwardedFor:
      head.flags |= HeadFlag.HasXForwardedFor;
      return 0;
    case FieldKind.XForwardedProto:
      head.flags |= HeadFlag.HasXForwardedProto;
      return 0;
    case FieldKind.XForwardedHost:
      head.flags |= HeadFlag.HasXForwardedHost;
      return 0;
    case FieldKind.Date:
      head.flags |= HeadFlag.HasDate;
      return 0;
    default:
      return 0;
  }
}

/** RFC 9112 section 3.2: exactly one, and valid, even where an absolute target makes it irrelevant. */
function recordHost(head: MessageHead, index: number): number {
  if (!head.isRequest) return 0;
  if (head.hostIndex >= 0) return -HttpFault.HostDuplicate;
  const { bytes, base, offsets } = head.fields;
  const start = offsets[4 * index + 2] as number;
  const end = offsets[4 * index + 3] as number;
  if (checkAuthority(bytes, base + start, base + end) < 0) return -HttpFault.HostInvalid;
  head.hostIndex = index;
  head.flags |= HeadFlag.HasHost;
  return 0;
}

/** RFC 9112 section 6.3 and RFC 9110 section 8.6: one field, decimal digits and nothing else. */
function recordContentLength(head: MessageHead, start: number, end: number): number {
  const merge = head.options.mergeIdenticalContentLength;
  if (head.contentLength >= 0 && !merge) return -HttpFault.ContentLengthDuplicate;
  const { bytes } = head.fields;
  let at = start;
  for (;;) {
    const first = at;
    let value = 0;
    for (; at < end; at++) {
      const digit = (bytes[at] as number) - 0x30;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    if (at === first || at - first > CONTENT_LENGTH_DIGITS_MAX) return -HttpFault.ContentLengthInvalid;
    if (head.contentLength >= 0 && head.contentLength !== value) return -HttpFault.ContentLengthDuplicate;
    head.contentLength = value;
    if (at === end) return 0;
    if (!merge) return -HttpFault.ContentLengthInvalid;
    at = skipWhitespace(bytes, at, end);
    if (bytes[at] !== COMMA) return -HttpFault.ContentLengthInvalid;
    at = skipWhitespace(bytes, at + 1, end);
  }
}

/**
 * RFC 9112 section 6.1: chunked is the only coding here. Anything whose last coding is not exactly one bare
 * `chunked` has no length that two parsers would agree on; a well-formed coding before it is merely not
 * implemented.
 */
function recordTransferEncoding(head: MessageHead, start: number, end: number): number {
  if ((head.flags & HeadFlag.HasTransferEncoding) !== 0) return -HttpFault.TransferEncodingInvalid;
  head.flags |= HeadFlag.HasTransferEncoding;
  const { bytes } = head.fields;
  if (end - start === CHUNKED.length && equalsIgnoringCase(bytes, start, CHUNKED)) {
    head.flags |= HeadFlag.Chunked;
    return 0;
  }
  let at = start;
  let unknown = 0;
  for (;;) {
    const token = at;
    while (at < end && isToken(bytes[at] as number)) at++;
    if (at === token) return -HttpFault.TransferEncodingInvalid;
    const last = at === end;
    const chunked = at - token === CHUNKED.length && equalsIgnoringCase(bytes, token, CHUNKED);
    if (last)
      return chunked && unknown > 0 ? -HttpFault.TransferEncodingUnknown : -HttpFault.TransferEncodingInvalid;
    if (chunked) return -HttpFault.TransferEncodingInvalid;
    unknown++;
    at = skipWhitespace(bytes, at, end);
    if (bytes[at] === SEMICOLON) while (at < end && bytes[at] !== COMMA) at++;
    if (at >= end || bytes[at] !== COMMA) return -HttpFault.TransferEncodingInvalid;
    at = skipWhitespace(bytes, at + 1, end);
  }
}

/** RFC 9110 section 7.6.1: a list of tokens; empty members are allowed in lists (section 5.6.1). */
function recordConnection(head: MessageHead, start: number, end: number): number {
  const { bytes } = head.fields;
  // What nearly every Connection field says.
  if (end - start === KEEP_ALIVE.length && equalsIgnoringCase(bytes, start, KEEP_ALIVE)) {
    head.flags |= HeadFlag.KeepAlive;
    return 0;
  }
  let at = start;
  while (at < end) {
    const octet = bytes[at] as number;
    if (octet === COMMA || octet === SPACE || octet === TAB) {
      at++;
      continue;
    }
    const token = at;
    while (at < end && isToken(bytes[at] as number)) at++;
    if (at === token) return -HttpFault.ConnectionInvalid;
    head.flags |= connectionFlag(bytes, token, at - token);
    at = skipWhitespace(bytes, at, end);
    if (at < end && bytes[at] !== COMMA) return -HttpFault.ConnectionInvalid;
  }
  return 0;
}

function connectionFlag(bytes: Uint8Array, start: number, length: number): number {
  if (length === 5 && equalsIgnoringCase(bytes, start, CLOSE)) return HeadFlag.Close;
  if (length === 10 && equalsIgnoringCase(bytes, start, KEEP_ALIVE)) return HeadFlag.KeepAlive;
  if (length === 7 && equalsIgnoringCase(bytes, start, UPGRADE)) return HeadFlag.ConnectionUpgrade;
  if (length === 2 && equalsIgnoringCase(bytes, start, TE)) return 0;
  return HeadFlag.ConnectionNames;
}

/** RFC 9110 section 10.1.1: 100-continue is the only expectation; HTTP/1.0 senders cannot have one. */
function recordExpect(head: MessageHead, start: number, end: number): number {
  if (!head.isRequest || head.minorVersion === 0) return 0;
  const { bytes } = head.fields;
  if (end - start !== CONTINUE.length || !equalsIgnoringCase(bytes, start, CONTINUE)) {
    return -HttpFault.ExpectationUnknown;
  }
  head.flags |= HeadFlag.ExpectContinue;
  return 0;
}

function recordMaxForwards(head: MessageHead, start: number, end: number): number {
  if (!head.isRequest) return 0;
  const { bytes } = head.fields;
  let value = 0;
  for (let at = start; at < end; at++) {
    const digit = (bytes[at] as number) - 0x30;
    if (digit < 0 || digit > 9) return -HttpFault.MaxForwardsInvalid;
    value = value * 10 + digit;
  }
  if (start === end || end - start > 9 || head.maxForwards >= 0) return -HttpFault.MaxForwardsInvalid;
  head.maxForwards = value;
  head.flags |= HeadFlag.HasMaxForwards;
  return 0;
}

/** Judges a request when all its fields are known. Returns 0 or a negated fault. */
export function finishRequest(head: MessageHead): number {
  const fault = finishFraming(head);
  if (fault !== 0) return fault;
  if (head.hostIndex < 0) {
    if (head.minorVersion >= 1) return -HttpFault.HostMissing;
  } else if (head.targetForm === TargetForm.Origin || head.targetForm === TargetForm.Asterisk) {
    head.authorityStart = head.fields.offsets[4 * head.hostIndex + 2] as number;
    head.authorityEnd = head.fields.offsets[4 * head.hostIndex + 3] as number;
  }
  if (head.upgradeIndex !== -1) finishUpgrade(head);
  if ((head.flags & HeadFlag.ConnectionNames) !== 0) markNamedFields(head);
  return 0;
}

/** Judges a response when all its fields are known. Returns 0 or a negated fault. */
export function finishResponse(head: MessageHead): number {
  const fault = finishFraming(head);
  if (fault !== 0) return fault;
  if (head.upgradeIndex !== -1) finishUpgrade(head);
  if ((head.flags & HeadFlag.ConnectionNames) !== 0) markNamedFields(head);
  return 0;
}

/**
 * RFC 9112 section 6.1: both framings together, or a transfer coding below HTTP/1.1, are how messages are
 * smuggled.
 */
function finishFraming(head: MessageHead): number {
  if ((head.flags & HeadFlag.HasTransferEncoding) === 0) return 0;
  if (head.minorVersion === 0) return -HttpFault.TransferEncodingOnOldVersion;
  if (head.contentLength >= 0) {
    if (!head.options.preferTransferEncoding) return -HttpFault.ContentLengthWithTransferEncoding;
    head.contentLength = -1;
    head.flags |= HeadFlag.FramingRepaired;
  }
  return 0;
}

/**
 * RFC 9110 section 7.8: Upgrade counts only with Connection: upgrade and not in HTTP/1.0. Only a single
 * protocol is forwarded, and never one whose connection would again carry HTTP requests unseen (h2c, HTTP,
 * TLS).
 */
function finishUpgrade(head: MessageHead): void {
  if (head.minorVersion === 0 || (head.flags & HeadFlag.ConnectionUpgrade) === 0) return;
  head.flags |= HeadFlag.Upgrade;
  if (head.upgradeIndex < 0) return;
  const { bytes, base, offsets } = head.fields;
  const start = base + (offsets[4 * head.upgradeIndex + 2] as number);
  const end = base + (offsets[4 * head.upgradeIndex + 3] as number);
  let nameEnd = start;
  while (nameEnd < end && isToken(bytes[nameEnd] as number)) nameEnd++;
  if (nameEnd === start) return;
  let at = nameEnd;
  if (at < end && bytes[at] === SLASH) {
    at++;
    while (at < end && isToken(bytes[at] as number)) at++;
  }
  if (at !== end) return;
  for (const name of FORBIDDEN_UPGRADES) {
    if (nameEnd - start === name.length && equalsIgnoringCase(bytes, start, name)) return;
  }
  head.flags |= HeadFlag.UpgradeForwardable;
}

const FORBIDDEN_UPGRADES: readonly Uint8Array[] = ['h2c', 'h2', 'h3', 'http', 'tls'].map(latin1Bytes);

/** Marks the fields that Connection names, save those that no sender may take away from the next hop. */
function markNamedFields(head: MessageHead): void {
  const fields = head.fields;
  const { bytes, base, offsets, kinds } = fields;
  for (let index = 0; index < fields.count; index++) {
    if (((kinds[index] as number) & FieldMark.KindMask) !== FieldKind.Connection) continue;
    const end = base + (offsets[4 * index + 3] as number);
    let at = base + (offsets[4 * index + 2] as number);
    while (at < end) {
      const token = at;
      while (at < end && isToken(bytes[at] as number)) at++;
      if (at > token) markField(head, token, at - token);
      else at++;
    }
  }
}

function markField(head: MessageHead, token: number, length: number): void {
  const { bytes, base, offsets, kinds, count } = head.fields;
  for (let index = 0; index < count; index++) {
    const start = offsets[4 * index] as number;
    if ((offsets[4 * index + 1] as number) - start !== length) continue;
    if (!sameToken(bytes, base + start, token, length)) continue;
    const kind = (kinds[index] as number) & FieldMark.KindMask;
    if (PROTECTED_FROM_CONNECTION[kind] !== 1) {
      kinds[index] = (kinds[index] as number) | FieldMark.NamedByConnection;
    }
  }
}

function sameToken(bytes: Uint8Array, a: number, b: number, length: number): boolean {
  for (let i = 0; i < length; i++) {
    if (lowerCase(bytes[a + i] as number) !== lowerCase(bytes[b + i] as number)) return false;
  }
  return true;
}

function lowerCase(octet: number): number {
  return octet >= 0x41 && octet <= 0x5a ? octet | 0x20 : octet;
}

/** Whether a comma-separated list holds `token`, with or without parameters. `token` is lower case. */
export function listHasToken(bytes: Uint8Array, start: number, end: number, token: Uint8Array): boolean {
  let at = start;
  while (at < end) {
    at = skipWhitespace(bytes, at, end);
    const first = at;
    while (at < end && isToken(bytes[at] as number)) at++;
    if (at - first === token.length && equalsIgnoringCase(bytes, first, token)) return true;
    while (at < end && bytes[at] !== COMMA) at++;
    at++;
  }
  return false;
}

function isToken(octet: number): boolean {
  return ((OCTET_CLASS[octet] as number) & TOKEN) !== 0;
}

function skipWhitespace(bytes: Uint8Array, at: number, end: number): number {
  let next = at;
  while (next < end && (bytes[next] === SPACE || bytes[next] === TAB)) next++;
  return next;
}
