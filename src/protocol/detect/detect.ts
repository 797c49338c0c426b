/**
 * `protocol/detect` tells from a client's first bytes what it speaks. Pure and total; nothing is consumed. A
 * protocol whose server speaks first (MySQL, SMTP, FTP) has no first bytes of the client: only silence shows
 * it, and the caller has the clock.
 *
 * No two of the patterns fit the same bytes, so more bytes never change an answer that is not `more`.
 */

/** What a client's first bytes are. */
export type DetectedProtocol =
  | 'tls'
  | 'http1'
  | 'http2'
  | 'ssh'
  | 'dns'
  | 'rdp'
  | 'mqtt'
  | 'postgresql'
  /** None of these. */
  | 'other';

/** Bytes after which every stream is known to be one or none of the protocols. */
export const DETECT_BYTES_MAX = 24;

const Match = Object.freeze({ No: 0, Yes: 1, More: 2 } as const);
type Match = (typeof Match)[keyof typeof Match];

/** Looks at `length` bytes at `at`. */
type Matcher = (bytes: Uint8Array, at: number, length: number) => Match;

/** What the `length` bytes at `offset` begin; `more` when that is open. */
export function detectProtocol(bytes: Uint8Array, offset: number, length: number): DetectedProtocol | 'more' {
  let open = false;
  for (const [protocol, matcher] of MATCHERS) {
    const match = matcher(bytes, offset, length);
    if (match === Match.Yes) return protocol;
    if (match === Match.More) open = true;
  }
  return open ? 'more' : 'other';
}

/** A handshake record (RFC 8446 section 5.1) that begins a ClientHello. */
function matchTls(bytes: Uint8Array, at: number, length: number): Match {
  if (!beginsWith(bytes, at, length, TLS)) return Match.No;
  if (length < 3) return Match.More;
  if ((bytes[at + 2] as number) > 4) return Match.No;
  if (length < 6) return Match.More;
  return bytes[at + 5] === 1 ? Match.Yes : Match.No;
}

const TLS = [0x16, 3];

/** RFC 9113 section 3.4. */
function matchHttp2(bytes: Uint8Array, at: number, length: number): Match {
  if (!beginsWith(bytes, at, length, PREFACE)) return Match.No;
  return length < PREFACE.length ? Match.More : Match.Yes;
}

const PREFACE = ascii('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const PRI = ascii('PRI ');

const SPACE = 0x20;
const HYPHEN = 0x2d;
/** No registered method is longer (UPDATEREDIRECTREF has 17 letters). */
const METHOD_LENGTH_MAX = 20;

/**
 * A request line's beginning: a method of capital letters, a space, and the first character of a target in
 * any of its four forms (RFC 9112 section 3.2).
 */
function matchHttp1(bytes: Uint8Array, at: number, length: number): Match {
  if (beginsWith(bytes, at, length, PRI) || beginsWith(bytes, at, length, SSH)) {
    return length < PRI.length ? Match.More : Match.No;
  }
  let method = 0;
  while (method < length && method <= METHOD_LENGTH_MAX) {
    const byte = bytes[at + method] as number;
    if (byte === SPACE) break;
    const isCapital = byte >= 0x41 && byte <= 0x5a;
    if (!isCapital && !(byte === HYPHEN && method > 0)) return Match.No;
    method++;
  }
  if (method === 0 || method > METHOD_LENGTH_MAX) return Match.No;
  if (method + 1 >= length) return Match.More;
  return isTargetStart(bytes[at + method + 1] as number) ? Match.Yes : Match.No;
}

/** `/path`, `*`, `http://…` or `host:port`, `[v6]:port`. */
function isTargetStart(byte: number): boolean {
  const letter = byte | 0x20;
  const isAlphanumeric = (letter >= 0x61 && letter <= 0x7a) || (byte >= 0x30 && byte <= 0x39);
  return isAlphanumeric || byte === 0x2f || byte === 0x2a || byte === 0x5b;
}

/** RFC 4253 section 4.2. Most clients speak at once, though they need not. */
function matchSsh(bytes: Uint8Array, at: number, length: number): Match {
  if (!beginsWith(bytes, at, length, SSH)) return Match.No;
  return length < SSH.length ? Match.More : Match.Yes;
}

const SSH = ascii('SSH-');

/** The longest query that is expected over TCP (RFC 1035 section 4.2.2), and the shortest: the root's. */
const DNS_BYTES_MAX = 0x0fff;
const DNS_BYTES_MIN = 17;
/** Begins a TPKT header too, so no DNS query has exactly this length. */
const TPKT_LENGTH = 0x0300;
/** QR, AA, TC, RA and the reserved bit are 0 in a query (RFC 1035 section 4.1.1); AD and CD may be set. */
const DNS_FLAGS_ZERO = 0x8600 | 0x00c0;
const DNS_OPCODE_MAX = 5;
const DNS_ADDITIONAL_MAX = 3;

/** Length, then the header of a query with one question. */
function matchDns(bytes: Uint8Array, at: number, length: number): Match {
  if (length === 0) return Match.More;
  if (length === 1) return (bytes[at] as number) <= DNS_BYTES_MAX >>> 8 ? Match.More : Match.No;
  const size = word(bytes, at);
  if (size < DNS_BYTES_MIN || size > DNS_BYTES_MAX || size === TPKT_LENGTH) return Match.No;
  if (length < 15) return Match.More;
  const flags = word(bytes, at + 4);
  if ((flags & DNS_FLAGS_ZERO) !== 0 || ((flags >>> 11) & 15) > DNS_OPCODE_MAX) return Match.No;
  const isOneQuestion = word(bytes, at + 6) === 1 && word(bytes, at + 8) === 0 && word(bytes, at + 10) === 0;
  if (!isOneQuestion || word(bytes, at + 12) > DNS_ADDITIONAL_MAX) return Match.No;
  // The first label of the question: at most 63 bytes, and no pointer into nothing.
  return (bytes[at + 14] as number) <= 63 ? Match.Yes : Match.No;
}

/** TPKT (RFC 2126 section 4.1) with an X.224 connection request, as RDP begins. */
function matchRdp(bytes: Uint8Array, at: number, length: number): Match {
  if (!beginsWith(bytes, at, length, TPKT)) return Match.No;
  if (length < 6) return Match.More;
  return word(bytes, at + 2) >= 11 && bytes[at + 5] === 0xe0 ? Match.Yes : Match.No;
}

const TPKT = [3, 0];

/** CONNECT with the protocol name of MQTT 3.1.1 and 5 or of 3.1. */
function matchMqtt(bytes: Uint8Array, at: number, length: number): Match {
  if (!beginsWith(bytes, at, length, MQTT_CONNECT)) return Match.No;
  // The remaining length takes 1 to 4 bytes.
  let name = 1;
  while (name < 5 && name < length && ((bytes[at + name] as number) & 0x80) !== 0) name++;
  if (name >= 5) return Match.No;
  if (name >= length) return Match.More;
  name++;
  for (const pattern of MQTT_NAMES) {
    if (!beginsWith(bytes, at + name, length - name, pattern)) continue;
    return length - name < pattern.length ? Match.More : Match.Yes;
  }
  return Match.No;
}

const MQTT_CONNECT = [0x10];
const MQTT_NAMES = [
  [0, 4, ...ascii('MQTT')],
  [0, 6, ...ascii('MQIsdp')],
];

/** Length, then a protocol version or one of the codes in its place. */
function matchPostgresql(bytes: Uint8Array, at: number, length: number): Match {
  if (!beginsWith(bytes, at, length, POSTGRESQL)) return Match.No;
  if (length < 8) return Match.More;
  const size = word(bytes, at + 2);
  const code = word(bytes, at + 4) * 0x10000 + word(bytes, at + 6);
  if (size < 8 || size > POSTGRESQL_BYTES_MAX) return Match.No;
  return POSTGRESQL_CODES.has(code) ? Match.Yes : Match.No;
}

const POSTGRESQL = [0, 0];
/** What the server takes at most. */
const POSTGRESQL_BYTES_MAX = 10_000;
/** Protocol 3.0 and 3.2, CancelRequest, SSLRequest, GSSENCRequest. */
const POSTGRESQL_CODES: ReadonlySet<number> = new Set([196_608, 196_610, 80877102, 80877103, 80877104]);

const MATCHERS: readonly (readonly [DetectedProtocol, Matcher])[] = [
  ['tls', matchTls],
  ['http1', matchHttp1],
  ['http2', matchHttp2],
  ['ssh', matchSsh],
  ['postgresql', matchPostgresql],
  ['mqtt', matchMqtt],
  ['rdp', matchRdp],
  ['dns', matchDns],
];

/** True when the bytes are the beginning of `pattern`, or begin with it. */
function beginsWith(bytes: Uint8Array, at: number, length: number, pattern: readonly number[]): boolean {
  const count = Math.min(length, pattern.length);
  for (let i = 0; i < count; i++) if (bytes[at + i] !== pattern[i]) return false;
  return true;
}

function word(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

function ascii(text: string): number[] {
  return [...text].map((letter) => letter.charCodeAt(0));
}
