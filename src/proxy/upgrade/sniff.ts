/** What the first bytes of a stream are; `unknown` asks for more bytes. */
export type Sniffed = 'http' | 'other' | 'unknown';

/** No registered method is longer (UPDATEREDIRECTREF has 17 letters). */
const METHOD_LENGTH_MAX = 20;

const SPACE = 0x20;

/**
 * Tells HTTP/1.x from everything else by a request line's beginning: a method of capital letters, a space, and the first
 * character of a target in any of its four forms (RFC 9112 section 3.2). The HTTP/2 preface is not HTTP/1.x.
 */
export function sniffHttp(bytes: Uint8Array, offset: number, length: number): Sniffed {
  let at = 0;
  while (at < length && at <= METHOD_LENGTH_MAX) {
    const byte = bytes[offset + at] as number;
    if (byte === SPACE) break;
    const isCapital = byte >= 0x41 && byte <= 0x5a;
    const isHyphen = byte === 0x2d && at > 0;
    if (!isCapital && !isHyphen) return 'other';
    at++;
  }
  if (at > METHOD_LENGTH_MAX || at === 0) return at === 0 && length === 0 ? 'unknown' : 'other';
  if (at + 1 >= length) return 'unknown';
  if (at === 3 && bytes[offset] === 0x50 && bytes[offset + 1] === 0x52 && bytes[offset + 2] === 0x49)
    return 'other';
  return isTargetStart(bytes[offset + at + 1] as number) ? 'http' : 'other';
}

/** `/path`, `*`, `http://…` or `host:port`, `[v6]:port`. */
function isTargetStart(byte: number): boolean {
  const letter = byte | 0x20;
  return (
    byte === 0x2f ||
    byte === 0x2a ||
    byte === 0x5b ||
    (letter >= 0x61 && letter <= 0x7a) ||
    (byte >= 0x30 && byte <= 0x39)
  );
}
