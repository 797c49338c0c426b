/**
 * Octets and classes of octets of RFC 9110 section 5.6 and RFC 3986, as one table that every scanner here
 * shares.
 */

export const TAB = 0x09;
export const LINE_FEED = 0x0a;
export const CARRIAGE_RETURN = 0x0d;
export const SPACE = 0x20;
export const COMMA = 0x2c;
export const COLON = 0x3a;
export const SEMICOLON = 0x3b;

/** tchar of RFC 9110 section 5.6.2: methods, field names, codings. */
export const TOKEN = 1;
/**
 * What may stand in a request target: visible ASCII without `#`, `"`, `<` and `>`. RFC 3986 allows less, but
 * browsers send `|`, `^`, backquote, braces, brackets and backslash raw in queries, and none of them can end
 * or split the line.
 */
export const TARGET = 2;
/** field-vchar, SP and HTAB of RFC 9110 section 5.5; obs-text is let through as opaque bytes. */
export const VALUE = 4;
/**
 * Octets of a host name as this proxy routes it: the unreserved set of RFC 3986, no percent or
 * sub-delimiters.
 */
export const HOST = 8;
/** Hexadecimal digits, colon and dot: the inside of an IPv6 literal. */
export const IP_LITERAL = 16;
/** HEXDIG of RFC 5234. */
export const HEX = 32;
/** Visible ASCII and SP, HTAB in quoted strings and chunk extensions. */
export const TEXT = 64;

/** Class bits of every octet. */
export const OCTET_CLASS: Uint8Array = buildClasses();

function buildClasses(): Uint8Array {
  const table = new Uint8Array(256);
  const add = (text: string, bit: number) => {
    for (const char of text) table[char.charCodeAt(0)]! |= bit;
  };
  const alphanumeric = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789';
  add(`${alphanumeric}!#$%&'*+-.^_\`|~`, TOKEN);
  add(`${alphanumeric}-._~`, HOST);
  add('0123456789abcdefABCDEF', HEX | IP_LITERAL);
  add(':.', IP_LITERAL);
  add('\t', VALUE | TEXT);
  for (let octet = 0x20; octet < 0x7f; octet++) table[octet]! |= VALUE | TEXT;
  for (let octet = 0x80; octet < 0x100; octet++) table[octet]! |= VALUE;
  for (let octet = 0x21; octet < 0x7f; octet++) {
    if (!'#"<>'.includes(String.fromCharCode(octet))) table[octet]! |= TARGET;
  }
  return table;
}

/** The bytes of an ASCII or Latin-1 text. @throws RangeError when a character is above U+00FF. */
export function latin1Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0xff) throw new RangeError('text with characters above U+00FF cannot stand in an HTTP head');
    bytes[i] = code;
  }
  return bytes;
}

const latin1Slice = Buffer.prototype.latin1Slice;

/** Text of the bytes from `start` to before `end`, one character for each octet. */
export function latin1Text(bytes: Uint8Array, start: number, end: number): string {
  return latin1Slice.call(bytes, start, end);
}

/**
 * True when the octets from `start` equal `pattern`, which is lower case, ignoring ASCII case. Only for spans
 * of token octets, where setting bit 5 makes no two of them collide with a letter, digit or hyphen.
 */
export function equalsIgnoringCase(bytes: Uint8Array, start: number, pattern: Uint8Array): boolean {
  for (let i = 0; i < pattern.length; i++) {
    if (((bytes[start + i] as number) | 0x20) !== pattern[i]) return false;
  }
  return true;
}

/**
 * Copies `source[start..end)` to `target[at…]` and returns the offset behind it. The two may be the same
 * array, not overlapping spans. Short spans are copied by a loop: below some 24 bytes that beats the call.
 */
export function copyOctets(
  target: Uint8Array,
  at: number,
  source: Uint8Array,
  start: number,
  end: number,
): number {
  const length = end - start;
  if (length < 24) {
    for (let i = 0; i < length; i++) target[at + i] = source[start + i] as number;
  } else if (target === source) {
    target.copyWithin(at, start, end);
  } else {
    for (let i = 0; i < length; i++) target[at + i] = source[start + i] as number;
  }
  return at + length;
}

/** Writes a non-negative integer in decimal digits and returns the offset behind it. */
export function writeDecimal(target: Uint8Array, at: number, value: number): number {
  let digits = 1;
  for (let rest = value; rest >= 10; rest = Math.floor(rest / 10)) digits++;
  let rest = value;
  for (let i = digits - 1; i >= 0; i--) {
    const next = Math.floor(rest / 10);
    target[at + i] = 0x30 + (rest - next * 10);
    rest = next;
  }
  return at + digits;
}
