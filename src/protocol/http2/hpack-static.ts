import { latin1Bytes } from '#protocol/http/octets.ts';

import { markOfName, markOfValue } from './field-mark.ts';

/** The static table of RFC 7541 appendix A, from index 1: names, each with its values. */
const ENTRIES: readonly (readonly [name: string, value: string])[] = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  [':status', '200'],
  [':status', '204'],
  [':status', '206'],
  [':status', '304'],
  [':status', '400'],
  [':status', '404'],
  [':status', '500'],
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ['accept-language', ''],
  ['accept-ranges', ''],
  ['accept', ''],
  ['access-control-allow-origin', ''],
  ['age', ''],
  ['allow', ''],
  ['authorization', ''],
  ['cache-control', ''],
  ['content-disposition', ''],
  ['content-encoding', ''],
  ['content-language', ''],
  ['content-length', ''],
  ['content-location', ''],
  ['content-range', ''],
  ['content-type', ''],
  ['cookie', ''],
  ['date', ''],
  ['etag', ''],
  ['expect', ''],
  ['expires', ''],
  ['from', ''],
  ['host', ''],
  ['if-match', ''],
  ['if-modified-since', ''],
  ['if-none-match', ''],
  ['if-range', ''],
  ['if-unmodified-since', ''],
  ['last-modified', ''],
  ['link', ''],
  ['location', ''],
  ['max-forwards', ''],
  ['proxy-authenticate', ''],
  ['proxy-authorization', ''],
  ['range', ''],
  ['referer', ''],
  ['refresh', ''],
  ['retry-after', ''],
  ['server', ''],
  ['set-cookie', ''],
  ['strict-transport-security', ''],
  ['transfer-encoding', ''],
  ['user-agent', ''],
  ['vary', ''],
  ['via', ''],
  ['www-authenticate', ''],
];

/** Entries of the static table; dynamic indices begin behind them (RFC 7541 section 2.3.3). */
export const STATIC_COUNT: number = ENTRIES.length;

/** All entries as `name: value CRLF`, one behind the other. */
export const STATIC_BYTES: Uint8Array = latin1Bytes(
  ENTRIES.map(([name, value]) => `${name}: ${value}\r\n`).join(''),
);
/** By index (1 to `STATIC_COUNT`): where the entry begins, the lengths of name and value, and its marks. */
export const STATIC_START = new Int32Array(STATIC_COUNT + 1);
export const STATIC_NAME_LENGTH = new Int32Array(STATIC_COUNT + 1);
export const STATIC_VALUE_LENGTH = new Int32Array(STATIC_COUNT + 1);
export const STATIC_MARK = new Uint16Array(STATIC_COUNT + 1);
/** Marks of the name alone, for a name that comes with another value. */
export const STATIC_NAME_MARK = new Uint16Array(STATIC_COUNT + 1);

function buildTables(): void {
  let at = 0;
  ENTRIES.forEach(([name, value], i) => {
    const nameEnd = at + name.length;
    const valueStart = nameEnd + 2;
    const valueEnd = valueStart + value.length;
    STATIC_START[i + 1] = at;
    STATIC_NAME_LENGTH[i + 1] = name.length;
    STATIC_VALUE_LENGTH[i + 1] = value.length;
    const nameMark = markOfName(STATIC_BYTES, at, nameEnd);
    STATIC_NAME_MARK[i + 1] = nameMark;
    STATIC_MARK[i + 1] = markOfValue(STATIC_BYTES, valueStart, valueEnd, nameMark);
    at = valueEnd + 2;
  });
}
buildTables();
