/**
 * Socket addresses as the kernel has them: struct sockaddr_in, sockaddr_in6 and sockaddr_un at an offset of a
 * DataView. The functions of the first half make objects and are for the cold path; those of the second half
 * read and write single fields where the address lies and allocate nothing.
 */
import { assert } from '#base/assert.ts';
import { formatIp, parseIp, type SocketAddress } from '#base/ip.ts';

/** Address families of Linux. */
export const AddressFamily = Object.freeze({ Unix: 1, Inet: 2, Inet6: 10 } as const);

/** Room that holds any socket address: the size of struct sockaddr_storage. */
export const SOCKADDR_BYTES = 128;

/** Length of struct sockaddr_in. */
export const SOCKADDR_IN_BYTES = 16;
/** Length of struct sockaddr_in6. */
export const SOCKADDR_IN6_BYTES = 28;

const UNIX_PATH_BYTES_MAX = 107;

/**
 * Writes `address` at `offset` and returns its length. A Unix path that begins with `@` is an abstract name,
 * whose first byte is NUL.
 */
export function writeSocketAddress(view: DataView, offset: number, address: SocketAddress): number {
  if (address.family === 'unix') return writeUnix(view, offset, address.path);
  const bytes = parseIp(address.address);
  assert(bytes !== null, `not an IP address: ${address.address}`);
  assert(bytes.length === (address.family === 4 ? 4 : 16), 'family and address disagree');
  assert(address.port >= 0 && address.port <= 0xffff, 'port out of range');
  view.setUint16(offset + 2, address.port);
  if (address.family === 4) {
    view.setUint16(offset, AddressFamily.Inet, true);
    for (let i = 0; i < 4; i++) view.setUint8(offset + 4 + i, bytes[i] as number);
    for (let i = 8; i < 16; i++) view.setUint8(offset + i, 0);
    return SOCKADDR_IN_BYTES;
  }
  view.setUint16(offset, AddressFamily.Inet6, true);
  view.setUint32(offset + 4, 0);
  for (let i = 0; i < 16; i++) view.setUint8(offset + 8 + i, bytes[i] as number);
  view.setUint32(offset + 24, 0);
  return SOCKADDR_IN6_BYTES;
}

function writeUnix(view: DataView, offset: number, path: string): number {
  const bytes = new TextEncoder().encode(path);
  const abstract = path.startsWith('@');
  assert(bytes.length > 0 && bytes.length <= UNIX_PATH_BYTES_MAX, 'a Unix path has 1 to 107 bytes');
  view.setUint16(offset, AddressFamily.Unix, true);
  for (let i = 0; i < bytes.length; i++) view.setUint8(offset + 2 + i, bytes[i] as number);
  if (abstract) {
    view.setUint8(offset + 2, 0);
    return 2 + bytes.length;
  }
  view.setUint8(offset + 2 + bytes.length, 0);
  return 2 + bytes.length + 1;
}

/** The address at `offset`, of `length` bytes. An unnamed Unix socket has the path ''. */
export function readSocketAddress(view: DataView, offset: number, length: number): SocketAddress {
  const family = length >= 2 ? view.getUint16(offset, true) : AddressFamily.Unix;
  if (family === AddressFamily.Inet) {
    return Object.freeze({
      family: 4,
      address: formatIp(copyBytes(view, offset + 4, 4)),
      port: view.getUint16(offset + 2),
    });
  }
  if (family === AddressFamily.Inet6) {
    return Object.freeze({
      family: 6,
      address: formatIp(copyBytes(view, offset + 8, 16)),
      port: view.getUint16(offset + 2),
    });
  }
  assert(family === AddressFamily.Unix, `address family ${family} is not known`);
  return Object.freeze({ family: 'unix', path: readUnix(view, offset, length) });
}

function readUnix(view: DataView, offset: number, length: number): string {
  if (length <= 2) return '';
  const bytes = copyBytes(view, offset + 2, length - 2);
  if (bytes[0] === 0) return `@${new TextDecoder().decode(bytes.subarray(1))}`;
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

function copyBytes(view: DataView, offset: number, length: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + offset, length).slice();
}

// --- fields where they lie ---------------------------------------------------------------------------------

/** `AddressFamily` of the socket address at `offset`. */
export function sockaddrFamily(view: DataView, offset: number): number {
  return view.getUint16(offset, true);
}

/** Port in host order. */
export function sockaddrPort(view: DataView, offset: number): number {
  return view.getUint16(offset + 2);
}

/** Changes the port. */
export function setSockaddrPort(view: DataView, offset: number, port: number): void {
  view.setUint16(offset + 2, port);
}

/** Offset of the 4 or 16 address bytes. */
export function sockaddrIpOffset(view: DataView, offset: number): number {
  return view.getUint16(offset, true) === AddressFamily.Inet ? offset + 4 : offset + 8;
}

/** True for an IPv6 socket address that holds an IPv4-mapped address (RFC 4291 section 2.5.5.2). */
export function sockaddrIsMapped(view: DataView, offset: number): boolean {
  return (
    view.getUint16(offset, true) === AddressFamily.Inet6 &&
    view.getUint32(offset + 8) === 0 &&
    view.getUint32(offset + 12) === 0 &&
    view.getUint32(offset + 16) === 0xffff
  );
}

/** Writes an IPv4 socket address from 32 bits in host order; returns its length. */
export function writeSockaddrInet(view: DataView, offset: number, ip: number, port: number): number {
  view.setUint16(offset, AddressFamily.Inet, true);
  view.setUint16(offset + 2, port);
  view.setUint32(offset + 4, ip);
  view.setUint32(offset + 8, 0);
  view.setUint32(offset + 12, 0);
  return SOCKADDR_IN_BYTES;
}

/** True when two socket addresses of the same view are the same IP address and port. */
export function sockaddrEqual(view: DataView, a: number, b: number): boolean {
  const family = view.getUint16(a, true);
  if (family !== view.getUint16(b, true) || view.getUint16(a + 2) !== view.getUint16(b + 2)) return false;
  const from = family === AddressFamily.Inet ? 4 : 8;
  const to = family === AddressFamily.Inet ? 8 : 24;
  for (let i = from; i < to; i += 4) {
    if (view.getUint32(a + i) !== view.getUint32(b + i)) return false;
  }
  return true;
}
