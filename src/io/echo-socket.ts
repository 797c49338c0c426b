/**
 * Sockets that send ICMP echo requests from this host and receive the replies. Two kinds, the first that is
 * permitted:
 *
 * - `ping` (SOCK_DGRAM): needs no privilege where the sysctl net.ipv4.ping_group_range has the process's
 *   group, for both families. The kernel puts its own identifier into each request and hands over only
 *   replies to it. What is read and written is the ICMP message.
 * - `raw` (SOCK_RAW): needs CAP_NET_RAW. The caller chooses the identifier, and has to tell its replies
 *   from those of others by it. What is written is the ICMP message; what is read begins with the IP header
 *   in IPv4 only.
 *
 * The kernel fills in the checksum of ICMPv6 in both, and of ICMPv4 in `ping`.
 */
import type { SocketAddress } from '#base/ip.ts';

import * as libc from './ffi/libc.ts';
import { closeDescriptor, openSocket, setBytesOption } from './ffi/namespace.ts';
import { Errno, type Fd } from './io.ts';
import { writeSocketAddress } from './socket-address.ts';

/** What was permitted. */
export type EchoSocketKind = 'ping' | 'raw';

/** An open, connected echo socket; the caller owns the descriptor and closes it through its engine. */
export interface EchoSocket {
  readonly fd: Fd;
  readonly kind: EchoSocketKind;
}

const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;
const SOCK_RAW = 3;
const SOL_RAW = 255;
const ICMP_FILTER = 1;
const ICMP6_FILTER = 1;
const ECHO_REPLY6 = 129;

/**
 * Opens a socket for one family; what comes in is echo replies only.
 * @returns −EACCES or −EPERM when neither kind is permitted, or another negative errno.
 */
export function openEchoSocket(version: 4 | 6): EchoSocket | number {
  const family = version === 4 ? libc.AF_INET : libc.AF_INET6;
  const protocol = version === 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
  const ping = openSocket(family, libc.SOCK_DGRAM, protocol);
  if (ping >= 0) return { fd: ping, kind: 'ping' };
  if (ping !== -Errno.EACCES && ping !== -Errno.EPROTONOSUPPORT) return ping;
  const raw = openSocket(family, SOCK_RAW, protocol);
  if (raw < 0) return raw;
  const filtered = version === 4 ? filterIcmp4(raw) : filterIcmp6(raw);
  if (filtered >= 0) return { fd: raw, kind: 'raw' };
  closeDescriptor(raw);
  return filtered;
}

/** Sets the only peer; for sockets without connections that takes effect at once. Returns 0 or −errno. */
export function connectEchoSocket(fd: Fd, peer: Exclude<SocketAddress, { family: 'unix' }>): number {
  const at = libc.ScratchOffset.Value;
  const length = writeSocketAddress(libc.scratch.view, at, peer);
  return libc.connect(fd, libc.scratch.address + at, length);
}

/** Whether echo can be sent from here at all, for the log at start. Never throws. */
export function echoSupport(): EchoSocketKind | 'none' {
  const socket = openEchoSocket(4);
  if (typeof socket === 'number') return 'none';
  closeDescriptor(socket.fd);
  return socket.kind;
}

/** A set bit of the mask blocks the type. */
function filterIcmp4(fd: Fd): number {
  return setBytesOption(fd, SOL_RAW, ICMP_FILTER, Uint8Array.of(0xfe, 0xff, 0xff, 0xff));
}

/** A bit for each of 256 types in 32-bit words of the machine's order; a set bit blocks. */
function filterIcmp6(fd: Fd): number {
  const mask = new Uint8Array(32).fill(0xff);
  mask[ECHO_REPLY6 >> 3] = 0xff & ~(1 << (ECHO_REPLY6 & 7));
  return setBytesOption(fd, IPPROTO_ICMPV6, ICMP6_FILTER, mask);
}
