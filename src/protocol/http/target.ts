import { HttpFault } from './fault.ts';
import { Method, TargetForm } from './http.ts';
import type { MessageHead } from './message-head.ts';
import { COLON, equalsIgnoringCase, HOST, IP_LITERAL, latin1Bytes, OCTET_CLASS } from './octets.ts';

const SLASH = 0x2f;
const QUERY = 0x3f;
const ASTERISK = 0x2a;
const BRACKET_OPEN = 0x5b;
const BRACKET_CLOSE = 0x5d;
const HTTP = latin1Bytes('http://');
const HTTPS = latin1Bytes('https://');
const PORT_MAX = 65535;

/**
 * Takes apart the target of `head`, whose octets have been checked to be of the class TARGET, by the four
 * forms of RFC 9112 section 3.2. Returns 0, or a negated fault.
 */
export function parseTarget(head: MessageHead): number {
  const { bytes, base } = head.fields;
  const start = base + head.targetStart;
  const end = base + head.targetEnd;
  if (head.method === Method.Connect) return parseAuthorityForm(head, bytes);
  const first = bytes[start] as number;
  if (first === SLASH) {
    head.targetForm = TargetForm.Origin;
    head.pathStart = head.targetStart;
    head.pathEnd = head.targetEnd;
    return 0;
  }
  if (first === ASTERISK) {
    if (end - start !== 1 || head.method !== Method.Options) return -HttpFault.TargetInvalid;
    head.targetForm = TargetForm.Asterisk;
    head.pathStart = head.targetStart;
    head.pathEnd = head.targetEnd;
    return 0;
  }
  return parseAbsoluteForm(head, bytes);
}

/** `host:port` of CONNECT; the port is compulsory and not 0 (RFC 9110 section 9.3.6). */
function parseAuthorityForm(head: MessageHead, bytes: Uint8Array): number {
  const { base } = head.fields;
  const port = checkAuthority(bytes, base + head.targetStart, base + head.targetEnd);
  if (port < 1) return -HttpFault.TargetInvalid;
  head.targetForm = TargetForm.Authority;
  head.authorityStart = head.targetStart;
  head.authorityEnd = head.targetEnd;
  head.pathStart = head.targetEnd;
  head.pathEnd = head.targetEnd;
  return 0;
}

function parseAbsoluteForm(head: MessageHead, bytes: Uint8Array): number {
  const { base } = head.fields;
  const start = base + head.targetStart;
  const end = base + head.targetEnd;
  let authority = 0;
  if (end - start > HTTP.length && equalsIgnoringCase(bytes, start, HTTP)) {
    authority = start + HTTP.length;
  } else if (end - start > HTTPS.length && equalsIgnoringCase(bytes, start, HTTPS)) {
    authority = start + HTTPS.length;
    head.targetIsSecure = true;
  } else {
    return -HttpFault.TargetInvalid;
  }
  let path = authority;
  while (path < end && bytes[path] !== SLASH && bytes[path] !== QUERY) path++;
  // Also refuses user information, which is an error in http URIs from outside (RFC 9110 section 4.2.4).
  if (checkAuthority(bytes, authority, path) < 0) return -HttpFault.TargetInvalid;
  head.targetForm = TargetForm.Absolute;
  head.authorityStart = authority - base;
  head.authorityEnd = path - base;
  head.pathStart = path - base;
  head.pathEnd = head.targetEnd;
  return 0;
}

/**
 * Checks `host [":" port]` from `start` to before `end`. Returns the port, 0 when there is none (or it is
 * empty or 0), −1 when the host is empty or any part is malformed. Narrower than RFC 3986: a host with
 * percent-encoding or sub-delimiters cannot be routed by name, and a comma would hide two hosts in one.
 */
export function checkAuthority(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  if (at >= end) return -1;
  if (bytes[at] === BRACKET_OPEN) {
    at++;
    while (at < end && ((OCTET_CLASS[bytes[at] as number] as number) & IP_LITERAL) !== 0) at++;
    // The shortest IPv6 literal is "::".
    if (at >= end || bytes[at] !== BRACKET_CLOSE || at - start < 3) return -1;
    at++;
  } else {
    while (at < end && ((OCTET_CLASS[bytes[at] as number] as number) & HOST) !== 0) at++;
    if (at === start) return -1;
  }
  if (at === end) return 0;
  if (bytes[at] !== COLON) return -1;
  at++;
  if (end - at > 5) return -1;
  let port = 0;
  for (; at < end; at++) {
    const digit = (bytes[at] as number) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    port = port * 10 + digit;
  }
  return port <= PORT_MAX ? port : -1;
}
