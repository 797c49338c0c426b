/**
 * The ClientHello of TLS 1.0 to 1.3 as a client sends it, read without a key: for choosing a way out by name
 * before anything is decrypted, and for deciding whether to terminate at all.
 *
 * ```
 *  record (RFC 8446 section 5.1)          handshake message (section 4)      ClientHello (section 4.1.2)
 *  ┌────┬───────┬──────┬──────────┐       ┌───┬─────────┬────────┐           version random session
 *  │ 22 │ 3.x   │length│ fragment ├─┬────►│ 1 │ length24│ body   ├─────────► suites compression
 *  └────┴───────┴──────┴──────────┘ │     └───┴─────────┴────────┘           extensions
 *  │ 22 │ 3.x   │length│ fragment ├─┘  a message may be cut into records anywhere, also inside its header
 * ```
 * Total: any bytes get an answer, nothing is thrown, nothing behind the given end is read.
 */

/** What the first bytes of a stream are when they are not a whole ClientHello. */
export const ClientHelloFault = Object.freeze({
  /** Right so far; more bytes are needed. */
  Incomplete: 0,
  /** The first byte is not that of a TLS handshake record, or its version is none of TLS. */
  NotTls: 1,
  /** A record is empty, too long, or of another type than handshake before the message was whole. */
  BadRecord: 2,
  /** The handshake message is another one than ClientHello. */
  NotClientHello: 3,
  /** The message is longer than `CLIENT_HELLO_BYTES_MAX`. */
  TooLong: 4,
  /**
   * A length inside the message does not fit, a list that needs elements has none, or bytes are left over.
   */
  Malformed: 5,
  /** An extension stands twice (RFC 8446 section 4.2). */
  DuplicateExtension: 6,
  /** The server name is no host name (RFC 6066 section 3). */
  BadServerName: 7,
} as const);

/** One of the faults. */
export type ClientHelloFault = (typeof ClientHelloFault)[keyof typeof ClientHelloFault];

/**
 * A ClientHello. Numbers are code points of the IANA registries, GREASE (RFC 8701) among them, in their
 * order.
 */
export interface ClientHello {
  /** Bytes of the stream up to the end of the last record of the message. */
  readonly streamBytes: number;
  /** Bytes of the handshake message with its header. */
  readonly messageBytes: number;
  /** Records that the message came in. */
  readonly recordCount: number;
  /** `legacy_version`: 0x0303 for TLS 1.2 and 1.3. */
  readonly legacyVersion: number;
  /** 32 bytes, a copy. */
  readonly random: Uint8Array;
  /** 0 to 32 bytes, a copy. */
  readonly sessionId: Uint8Array;
  readonly cipherSuites: readonly number[];
  readonly compressionMethods: readonly number[];
  /** Types of all extensions. */
  readonly extensions: readonly number[];
  /** `host_name` of server_name in lower case without a dot at its end; null when absent. */
  readonly serverName: string | null;
  /** Protocol names of ALPN (RFC 7301), a byte a character; empty when absent. */
  readonly alpn: readonly string[];
  /** Versions of supported_versions; empty when absent: then `legacyVersion` is the highest. */
  readonly versions: readonly number[];
  readonly groups: readonly number[];
  readonly signatureSchemes: readonly number[];
  /** Groups for which a key share came; empty for TLS 1.2. */
  readonly keyShares: readonly number[];
  /** A session is to be resumed by pre_shared_key. */
  readonly hasPreSharedKey: boolean;
  /** Data in the first flight follow (0-RTT). */
  readonly hasEarlyData: boolean;
  /** A session ticket of TLS 1.2 stands in it (RFC 5077); an empty extension only asks for one. */
  readonly hasTicket: boolean;
  /** An encrypted ClientHello stands inside: `serverName` is only the outer one. */
  readonly hasEncryptedHello: boolean;
}

/** Extension types that are read (IANA: TLS ExtensionType Values). */
export const ExtensionType = Object.freeze({
  ServerName: 0,
  SupportedGroups: 10,
  SignatureAlgorithms: 13,
  Alpn: 16,
  SessionTicket: 35,
  PreSharedKey: 41,
  EarlyData: 42,
  SupportedVersions: 43,
  KeyShare: 51,
  EncryptedClientHello: 0xfe0d,
} as const);

/**
 * Longest message that is looked at, bytes. A hello with post-quantum key shares and a ticket has about 3
 * KiB; with the overhead of a reasonable number of records this fits a stream buffer.
 */
export const CLIENT_HELLO_BYTES_MAX = 16_384;

const RECORD_HEADER_BYTES = 5;
/** RFC 8446 section 5.1. */
const FRAGMENT_BYTES_MAX = 16_384;
const MESSAGE_HEADER_BYTES = 4;
const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const RANDOM_BYTES = 32;
const SESSION_ID_BYTES_MAX = 32;
const HOST_NAME = 0;
const NO_BYTES = new Uint8Array(0);

/**
 * Reads the ClientHello at `offset` of a stream of which `length` bytes are here. A result that is a number
 * is a `ClientHelloFault`; with `Incomplete` the same call is made again when more bytes have come. The
 * result keeps no reference to `bytes`.
 */
export function parseClientHello(
  bytes: Uint8Array,
  offset: number,
  length: number,
): ClientHello | ClientHelloFault {
  const joined = joinRecords(bytes, offset, offset + length);
  if (typeof joined === 'number') return joined;
  return readMessage(joined);
}

/** True for one of the values that clients send only so that servers stay used to unknown ones (RFC 8701). */
export function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >>> 8 === (value & 0xff);
}

/** The highest version that the client offers, 0x0304 being TLS 1.3; GREASE does not count. */
export function highestVersion(hello: ClientHello): number {
  if (hello.versions.length === 0) return hello.legacyVersion;
  return hello.versions.reduce((best, version) => (isGrease(version) ? best : Math.max(best, version)), 0);
}

/** A whole message: `bytes` from `start` to before `end`, the header included. */
interface Message {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
  readonly streamBytes: number;
  readonly recordCount: number;
}

/**
 * Finds the message in its records. A message in one record, which is nearly every one, is read where it
 * lies; one in several is joined in a copy.
 */
function joinRecords(bytes: Uint8Array, offset: number, end: number): Message | ClientHelloFault {
  let at = offset;
  let needed = -1;
  let copy: Uint8Array = NO_BYTES;
  let held = 0;
  for (let recordCount = 1; ; recordCount++) {
    const fault = checkRecordHeader(bytes, at, end, recordCount === 1);
    if (fault !== null) return fault;
    const start = at + RECORD_HEADER_BYTES;
    const fragment = word(bytes, at + 3);
    const here = Math.min(fragment, end - start);
    if (held === 0 && here >= MESSAGE_HEADER_BYTES) {
      needed = messageLength(bytes, start);
      if (needed < 0) return -needed as ClientHelloFault;
      if (fragment > needed) return ClientHelloFault.Malformed;
      if (here === needed) {
        return { bytes, start, end: start + needed, streamBytes: start + needed - offset, recordCount };
      }
    } else if (held === 0 && here > 0 && bytes[start] !== CLIENT_HELLO)
      return ClientHelloFault.NotClientHello;
    if (here < fragment) return ClientHelloFault.Incomplete;
    if (copy.length === 0) copy = new Uint8Array(Math.min(end - offset, CLIENT_HELLO_BYTES_MAX));
    if (held + fragment > copy.length) return ClientHelloFault.TooLong;
    copy.set(bytes.subarray(start, start + fragment), held);
    held += fragment;
    at = start + fragment;
    if (needed < 0 && held >= MESSAGE_HEADER_BYTES) {
      needed = messageLength(copy, 0);
      if (needed < 0) return -needed as ClientHelloFault;
    } else if (copy[0] !== CLIENT_HELLO) return ClientHelloFault.NotClientHello;
    if (needed < 0 || held < needed) continue;
    if (held > needed) return ClientHelloFault.Malformed;
    return { bytes: copy, start: 0, end: held, streamBytes: at - offset, recordCount };
  }
}

/** Null when a whole and right record header lies at `at`. */
function checkRecordHeader(
  bytes: Uint8Array,
  at: number,
  end: number,
  first: boolean,
): ClientHelloFault | null {
  if (at >= end) return ClientHelloFault.Incomplete;
  const wrong = first ? ClientHelloFault.NotTls : ClientHelloFault.BadRecord;
  if (bytes[at] !== HANDSHAKE) return wrong;
  if (at + 1 >= end) return ClientHelloFault.Incomplete;
  // The minor version is frozen at 1 or 3 and is to be ignored (RFC 8446 section 5.1).
  if (bytes[at + 1] !== 3) return wrong;
  if (at + RECORD_HEADER_BYTES > end) return ClientHelloFault.Incomplete;
  const fragment = word(bytes, at + 3);
  // Empty handshake fragments are forbidden (section 5.1): they would let a hello go on for ever.
  return fragment === 0 || fragment > FRAGMENT_BYTES_MAX ? ClientHelloFault.BadRecord : null;
}

/** Length of the message whose header lies at `at`, header included; a negated fault. */
function messageLength(bytes: Uint8Array, at: number): number {
  if (bytes[at] !== CLIENT_HELLO) return -ClientHelloFault.NotClientHello;
  const length = MESSAGE_HEADER_BYTES + ((bytes[at + 1] as number) << 16) + word(bytes, at + 2);
  return length > CLIENT_HELLO_BYTES_MAX ? -ClientHelloFault.TooLong : length;
}

function word(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

/** A part of the message that is being read; `failed` once anything did not fit. */
class Reader {
  readonly bytes: Uint8Array;
  readonly end: number;
  at: number;
  failed = false;

  constructor(bytes: Uint8Array, at: number, end: number) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
  }

  get left(): number {
    return this.end - this.at;
  }

  /** An unsigned number of `size` bytes; 0 when they are not there. */
  number(size: 1 | 2): number {
    if (this.left < size) return this.#fail();
    const value = size === 1 ? (this.bytes[this.at] as number) : word(this.bytes, this.at);
    this.at += size;
    return value;
  }

  /** A vector behind a length of `size` bytes, of at least `min` bytes. */
  vector(size: 1 | 2, min = 0): Reader {
    const length = this.number(size);
    if (length < min || length > this.left) this.#fail();
    const start = this.at;
    const end = this.failed ? start : start + length;
    this.at = end;
    const inner = new Reader(this.bytes, start, end);
    inner.failed = this.failed;
    return inner;
  }

  /** A copy of the next `length` bytes. */
  copy(length: number): Uint8Array {
    if (length > this.left) this.#fail();
    if (this.failed) return NO_BYTES;
    this.at += length;
    return this.bytes.slice(this.at - length, this.at);
  }

  /** All that is left, as numbers of `size` bytes each. */
  numbers(size: 1 | 2): number[] {
    const list: number[] = [];
    while (this.left > 0 && !this.failed) list.push(this.number(size));
    return list;
  }

  #fail(): 0 {
    this.failed = true;
    this.at = this.end;
    return 0;
  }
}

/** What extensions fill in. */
type Facts = {
  -readonly [Key in keyof Omit<
    ClientHello,
    | 'streamBytes'
    | 'messageBytes'
    | 'recordCount'
    | 'legacyVersion'
    | 'random'
    | 'sessionId'
    | 'cipherSuites'
    | 'compressionMethods'
    | 'extensions'
  >]: ClientHello[Key];
};

function readMessage(message: Message): ClientHello | ClientHelloFault {
  const { bytes, start, end, streamBytes, recordCount } = message;
  const body = new Reader(bytes, start + MESSAGE_HEADER_BYTES, end);
  const legacyVersion = body.number(2);
  const random = body.copy(RANDOM_BYTES);
  const session = body.vector(1);
  const suites = body.vector(2, 2);
  const compression = body.vector(1, 1);
  if (body.failed || session.left > SESSION_ID_BYTES_MAX) return ClientHelloFault.Malformed;
  const cipherSuites = suites.numbers(2);
  if (suites.failed) return ClientHelloFault.Malformed;
  const facts = noFacts();
  // Extensions may be absent as a whole in TLS 1.2 (RFC 5246 section 7.4.1.2).
  const extensions: number[] = [];
  if (body.left > 0) {
    const block = body.vector(2);
    if (block.failed || body.left > 0) return ClientHelloFault.Malformed;
    const fault = readExtensions(block, facts, extensions);
    if (fault !== null) return fault;
  }
  return {
    streamBytes,
    messageBytes: end - start,
    recordCount,
    legacyVersion,
    random,
    sessionId: session.copy(session.left),
    cipherSuites,
    compressionMethods: compression.numbers(1),
    extensions,
    ...facts,
  };
}

function noFacts(): Facts {
  return {
    serverName: null,
    alpn: [],
    versions: [],
    groups: [],
    signatureSchemes: [],
    keyShares: [],
    hasPreSharedKey: false,
    hasEarlyData: false,
    hasTicket: false,
    hasEncryptedHello: false,
  };
}

function readExtensions(block: Reader, facts: Facts, types: number[]): ClientHelloFault | null {
  const seen = new Set<number>();
  while (block.left > 0) {
    const type = block.number(2);
    const data = block.vector(2);
    if (block.failed) return ClientHelloFault.Malformed;
    if (seen.has(type)) return ClientHelloFault.DuplicateExtension;
    // pre_shared_key is the last one (RFC 8446 section 4.2.11).
    if (facts.hasPreSharedKey) return ClientHelloFault.Malformed;
    seen.add(type);
    types.push(type);
    const fault = readExtension(type, data, facts);
    if (fault !== null) return fault;
  }
  return null;
}

function readExtension(type: number, data: Reader, facts: Facts): ClientHelloFault | null {
  switch (type) {
    case ExtensionType.ServerName:
      return readServerName(data, facts);
    case ExtensionType.Alpn:
      return readAlpn(data, facts);
    case ExtensionType.SupportedVersions:
      facts.versions = readNumbers(data, 1);
      return facts.versions.length > 0 && !data.failed ? null : ClientHelloFault.Malformed;
    case ExtensionType.SupportedGroups:
      facts.groups = readNumbers(data, 2);
      return facts.groups.length > 0 && !data.failed ? null : ClientHelloFault.Malformed;
    case ExtensionType.SignatureAlgorithms:
      facts.signatureSchemes = readNumbers(data, 2);
      return facts.signatureSchemes.length > 0 && !data.failed ? null : ClientHelloFault.Malformed;
    case ExtensionType.KeyShare:
      return readKeyShares(data, facts);
    case ExtensionType.PreSharedKey:
      facts.hasPreSharedKey = true;
      return null;
    case ExtensionType.EarlyData:
      facts.hasEarlyData = true;
      return null;
    case ExtensionType.SessionTicket:
      facts.hasTicket = data.left > 0;
      return null;
    case ExtensionType.EncryptedClientHello:
      facts.hasEncryptedHello = true;
      return null;
    default:
      return null;
  }
}

/** A vector of 16-bit numbers that is all of the extension; sets `data.failed` when it is not. */
function readNumbers(data: Reader, lengthSize: 1 | 2): number[] {
  const list = data.vector(lengthSize);
  const numbers = list.numbers(2);
  if (list.failed || data.left > 0) data.failed = true;
  return numbers;
}

/** RFC 6066 section 3: a list of names, of which each type stands at most once; only host names are known. */
function readServerName(data: Reader, facts: Facts): ClientHelloFault | null {
  const list = data.vector(2, 1);
  if (data.left > 0 || list.failed) return ClientHelloFault.Malformed;
  while (list.left > 0) {
    const type = list.number(1);
    const name = list.vector(2, 1);
    if (list.failed) return ClientHelloFault.Malformed;
    if (type !== HOST_NAME) continue;
    if (facts.serverName !== null) return ClientHelloFault.Malformed;
    facts.serverName = hostName(name.copy(name.left));
    if (facts.serverName === null) return ClientHelloFault.BadServerName;
  }
  return null;
}

/** RFC 1035 section 2.3.4 in its text form. */
const HOST_NAME_LENGTH_MAX = 253;
/** Letters, digits and hyphen, and the underscore that is met in practice; labels of 1 to 63 characters. */
const HOST_NAME_FORM = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/;

/**
 * The name as it is compared; null when it is none. An IPv4 address, though forbidden there, has the form of
 * one.
 */
function hostName(bytes: Uint8Array): string | null {
  let text = latin1(bytes).toLowerCase();
  if (text.endsWith('.')) text = text.slice(0, -1);
  return text.length <= HOST_NAME_LENGTH_MAX && HOST_NAME_FORM.test(text) ? text : null;
}

/** RFC 7301 section 3.1: names of 1 to 255 bytes, at least one. */
function readAlpn(data: Reader, facts: Facts): ClientHelloFault | null {
  const list = data.vector(2, 2);
  if (data.left > 0 || list.failed) return ClientHelloFault.Malformed;
  const names: string[] = [];
  while (list.left > 0) {
    const name = list.vector(1, 1);
    if (list.failed) return ClientHelloFault.Malformed;
    names.push(latin1(name.copy(name.left)));
  }
  facts.alpn = names;
  return null;
}

/** RFC 8446 section 4.2.8; the list may be empty. */
function readKeyShares(data: Reader, facts: Facts): ClientHelloFault | null {
  const list = data.vector(2);
  if (data.left > 0 || list.failed) return ClientHelloFault.Malformed;
  const groups: number[] = [];
  while (list.left > 0) {
    groups.push(list.number(2));
    list.vector(2, 1);
    if (list.failed) return ClientHelloFault.Malformed;
  }
  facts.keyShares = groups;
  return null;
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}
