/**
 * `protocol/socks` is the bytes of SOCKS version 5 (RFC 1928) with usernames and passwords (RFC 1929), as the
 * server reads and writes them. Pure and total.
 *
 * ```
 *  client                                   server
 *  05 n methods            ── greeting ──►
 *                          ◄── method ────  05 method
 *  01 n name n password    ─ credentials ►                 only behind method 02
 *                          ◄── status ────  01 status
 *  05 command 00 address   ── request ───►
 *                          ◄── reply ─────  05 reply 00 address
 *  bytes of the stream, or datagrams: 0000 fragment address payload
 * ```
 * An address is a type (1: IPv4, 3: a name behind its length, 4: IPv6) and a port.
 */
import { formatIp, parseIp, unmapIp } from '#base/ip.ts';
import type { Target } from '#contract/context.ts';

/** What bytes are that are no whole message. */
export const SocksFault = Object.freeze({
  /** Right so far; more bytes are needed. */
  Incomplete: 0,
  /** Another version than 5 (and 1 for credentials), or lengths that cannot be. */
  Malformed: 1,
  /** A type of address that does not exist. */
  AddressType: 2,
  /** A name that is no host name, or port 0 to connect to. */
  BadAddress: 3,
} as const);

/** One of the faults. */
export type SocksFault = (typeof SocksFault)[keyof typeof SocksFault];

/** Methods of authentication (RFC 1928 section 3). */
export const SocksMethod = Object.freeze({ None: 0, Password: 2, NoneAcceptable: 0xff } as const);

/** Commands (section 4). BIND is not served. */
export const SocksCommand = Object.freeze({ Connect: 1, Bind: 2, UdpAssociate: 3 } as const);

/** Replies (section 6). */
export const SocksReply = Object.freeze({
  Succeeded: 0,
  GeneralFailure: 1,
  NotAllowed: 2,
  NetworkUnreachable: 3,
  HostUnreachable: 4,
  ConnectionRefused: 5,
  TtlExpired: 6,
  CommandNotSupported: 7,
  AddressTypeNotSupported: 8,
} as const);

/** One of the replies. */
export type SocksReply = (typeof SocksReply)[keyof typeof SocksReply];

/** Methods that a client offers. */
export interface SocksGreeting {
  readonly methods: readonly number[];
  /** Bytes of the message, as in all that follow. */
  readonly length: number;
}

/** A name and a password, UTF-8. */
export interface SocksCredentials {
  readonly user: string;
  readonly password: string;
  readonly length: number;
}

/** What a client asks for. */
export interface SocksRequest {
  readonly command: number;
  /** An IP literal in its usual form, or a name in lower case that the way out resolves. */
  readonly target: Target;
  readonly length: number;
}

/** The header of a datagram. */
export interface SocksDatagram {
  /** 0: a datagram of its own. Others are dropped by those who do not reassemble (section 7). */
  readonly fragment: number;
  readonly target: Target;
  /** Bytes of the header: the payload begins behind them. */
  readonly length: number;
}

const VERSION = 5;
const CREDENTIALS_VERSION = 1;
const TYPE_IPV4 = 1;
const TYPE_NAME = 3;
const TYPE_IPV6 = 4;

/** Longest header of a datagram: a name of 255 bytes. */
export const SOCKS_DATAGRAM_HEADER_MAX = 4 + 1 + 255 + 2;

/** Reads a greeting; faults as numbers. So do the other readers. */
export function parseSocksGreeting(
  bytes: Uint8Array,
  at: number,
  length: number,
): SocksGreeting | SocksFault {
  if (length === 0) return SocksFault.Incomplete;
  if (bytes[at] !== VERSION) return SocksFault.Malformed;
  if (length < 2) return SocksFault.Incomplete;
  const count = bytes[at + 1] as number;
  if (count === 0) return SocksFault.Malformed;
  if (length < 2 + count) return SocksFault.Incomplete;
  return { methods: [...bytes.subarray(at + 2, at + 2 + count)], length: 2 + count };
}

/** Reads a name and a password (RFC 1929 section 2), each of 1 to 255 bytes. */
export function parseSocksCredentials(
  bytes: Uint8Array,
  at: number,
  length: number,
): SocksCredentials | SocksFault {
  if (length === 0) return SocksFault.Incomplete;
  if (bytes[at] !== CREDENTIALS_VERSION) return SocksFault.Malformed;
  if (length < 2) return SocksFault.Incomplete;
  const nameLength = bytes[at + 1] as number;
  if (nameLength === 0) return SocksFault.Malformed;
  if (length < 3 + nameLength) return SocksFault.Incomplete;
  const passwordLength = bytes[at + 2 + nameLength] as number;
  if (passwordLength === 0) return SocksFault.Malformed;
  const total = 3 + nameLength + passwordLength;
  if (length < total) return SocksFault.Incomplete;
  const user = utf8(bytes, at + 2, nameLength);
  const password = utf8(bytes, at + 3 + nameLength, passwordLength);
  return user === null || password === null ? SocksFault.Malformed : { user, password, length: total };
}

/** Reads a request. The address of UDP ASSOCIATE may be all zero. */
export function parseSocksRequest(bytes: Uint8Array, at: number, length: number): SocksRequest | SocksFault {
  if (length === 0) return SocksFault.Incomplete;
  if (bytes[at] !== VERSION) return SocksFault.Malformed;
  if (length < 4) return SocksFault.Incomplete;
  const address = parseAddress(bytes, at + 3, length - 3);
  if (typeof address === 'number') return address;
  const command = bytes[at + 1] as number;
  const { target } = address;
  if (target.port === 0 && command === SocksCommand.Connect) return SocksFault.BadAddress;
  return { command, target, length: 3 + address.length };
}

/** Reads a datagram's header; `Incomplete` means that the datagram is too short. */
export function parseSocksDatagram(
  bytes: Uint8Array,
  at: number,
  length: number,
): SocksDatagram | SocksFault {
  if (length < 4) return SocksFault.Incomplete;
  if (bytes[at] !== 0 || bytes[at + 1] !== 0) return SocksFault.Malformed;
  const address = parseAddress(bytes, at + 3, length - 3);
  if (typeof address === 'number') return address;
  if (address.target.port === 0) return SocksFault.BadAddress;
  return { fragment: bytes[at + 2] as number, target: address.target, length: 3 + address.length };
}

/** Which method the server has chosen. */
export function writeSocksMethod(method: number): Uint8Array {
  return Uint8Array.of(VERSION, method);
}

/** Whether the credentials were right (RFC 1929 section 2). */
export function writeSocksStatus(accepted: boolean): Uint8Array {
  return Uint8Array.of(CREDENTIALS_VERSION, accepted ? 0 : 1);
}

/** A reply with the address that the server uses for it; all zero where that says nothing. */
export function writeSocksReply(reply: SocksReply, bound: Target = NOWHERE): Uint8Array {
  return Uint8Array.of(VERSION, reply, 0, ...addressBytes(bound));
}

/** The header of a datagram that came from `from`. */
export function writeSocksDatagramHeader(from: Target): Uint8Array {
  return Uint8Array.of(0, 0, 0, ...addressBytes(from));
}

const NOWHERE: Target = Object.freeze({ host: '0.0.0.0', port: 0 });

/** Letters, digits, hyphen, underscore in labels; a dot at the end is dropped. */
const NAME_FORM = /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/;

function parseAddress(
  bytes: Uint8Array,
  at: number,
  length: number,
): { readonly target: Target; readonly length: number } | SocksFault {
  const type = bytes[at];
  if (type !== TYPE_IPV4 && type !== TYPE_NAME && type !== TYPE_IPV6) return SocksFault.AddressType;
  if (length < 2) return SocksFault.Incomplete;
  const isName = type === TYPE_NAME;
  const size = isName ? (bytes[at + 1] as number) : type === TYPE_IPV4 ? 4 : 16;
  const start = at + (isName ? 2 : 1);
  const total = start - at + size + 2;
  if (length < total) return SocksFault.Incomplete;
  const portAt = start + size;
  const port = ((bytes[portAt] as number) << 8) | (bytes[portAt + 1] as number);
  const host = isName ? hostName(bytes, start, size) : formatIp(unmapIp(bytes.slice(start, portAt)));
  return host === null ? SocksFault.BadAddress : { target: { host, port }, length: total };
}

/** Clients that leave all to the proxy write an address as a name: then it is one address like any other. */
function hostName(bytes: Uint8Array, at: number, length: number): string | null {
  let text = String.fromCharCode(...bytes.subarray(at, at + length)).toLowerCase();
  const ip = parseIp(text);
  if (ip !== null) return formatIp(unmapIp(ip));
  if (text.endsWith('.')) text = text.slice(0, -1);
  return text.length <= 253 && NAME_FORM.test(text) ? text : null;
}

function addressBytes({ host, port }: Target): number[] {
  const ip = parseIp(host);
  const ports = [port >>> 8, port & 0xff];
  if (ip !== null) return [ip.length === 4 ? TYPE_IPV4 : TYPE_IPV6, ...ip, ...ports];
  const name = new TextEncoder().encode(host);
  return [TYPE_NAME, name.length, ...name, ...ports];
}

function utf8(bytes: Uint8Array, at: number, length: number): string | null {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(at, at + length));
  } catch {
    return null;
  }
}
