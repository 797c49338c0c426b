import { DescriptorKind } from './descriptor-table.ts';
import * as libc from './ffi/libc.ts';
import type { Fd, SocketKind, SocketOption } from './io.ts';

/** Family, type and treatment of each `SocketKind`. */
export const SOCKET_KINDS: Readonly<
  Record<SocketKind, { readonly family: number; readonly type: number; readonly descriptorKind: number }>
> = Object.freeze({
  tcp4: kind(libc.AF_INET, libc.SOCK_STREAM, DescriptorKind.StreamSocket),
  tcp6: kind(libc.AF_INET6, libc.SOCK_STREAM, DescriptorKind.StreamSocket),
  udp4: kind(libc.AF_INET, libc.SOCK_DGRAM, DescriptorKind.PacketSocket),
  udp6: kind(libc.AF_INET6, libc.SOCK_DGRAM, DescriptorKind.PacketSocket),
  'unix-stream': kind(libc.AF_UNIX, libc.SOCK_STREAM, DescriptorKind.LocalStream),
  'unix-seqpacket': kind(libc.AF_UNIX, libc.SOCK_SEQPACKET, DescriptorKind.PacketSocket),
  'unix-dgram': kind(libc.AF_UNIX, libc.SOCK_DGRAM, DescriptorKind.PacketSocket),
});

function kind(family: number, type: number, descriptorKind: number) {
  return Object.freeze({ family, type, descriptorKind });
}

const SOL_IP = 0;
const SOL_SOCKET = 1;
const SOL_TCP = 6;
const SOL_UDP = 17;
const SOL_IPV6 = 41;
const SO_DOMAIN = 39;
const SO_LINGER = 13;

/** Level and number of an option, and those of its IPv6 form where an IPv6 socket needs both. */
type Numbers = readonly [level: number, name: number, name6?: number];

const OPTIONS: Readonly<Record<Exclude<SocketOption, 'linger-zero'>, Numbers>> = Object.freeze({
  'no-delay': [SOL_TCP, 1],
  'keep-alive': [SOL_SOCKET, 9],
  'reuse-address': [SOL_SOCKET, 2],
  'reuse-port': [SOL_SOCKET, 15],
  'receive-buffer': [SOL_SOCKET, 8],
  'send-buffer': [SOL_SOCKET, 7],
  'ip-transparent': [SOL_IP, 19, 75],
  'ip-tos': [SOL_IP, 1, 67],
  'ip-ttl': [SOL_IP, 2, 16],
  'ip-recv-error': [SOL_IP, 11, 25],
  'ip-packet-info': [SOL_IP, 8, 49],
  'ip-recv-original-destination': [SOL_IP, 20, 74],
  'ip-mtu-discover': [SOL_IP, 10, 23],
  'udp-segment': [SOL_UDP, 103],
  'udp-receive-offload': [SOL_UDP, 104],
  mark: [SOL_SOCKET, 36],
  'user-timeout': [SOL_TCP, 18],
  'not-sent-low-water': [SOL_TCP, 25],
  'max-segment': [SOL_TCP, 2],
  'v6-only': [SOL_IPV6, 26],
  'pass-credentials': [SOL_SOCKET, 16],
});

/** SO_RCVBUFFORCE and SO_SNDBUFFORCE, which may exceed the system's limit when the process is privileged. */
const FORCED: Partial<Record<SocketOption, number>> = { 'receive-buffer': 33, 'send-buffer': 32 };

/**
 * Sets an integer option; 0 or −errno. On an IPv6 socket both forms are set, for the IPv4 traffic that it may
 * carry.
 */
export function setSocketOption(fd: Fd, option: SocketOption, value: number): number {
  if (option === 'linger-zero') return setLingerZero(fd, value);
  const forced = FORCED[option];
  if (forced !== undefined && libc.setsockoptInt(fd, SOL_SOCKET, forced, value) === 0) return 0;
  const [level, name, name6] = OPTIONS[option];
  if (name6 === undefined || libc.getsockoptInt(fd, SOL_SOCKET, SO_DOMAIN) !== libc.AF_INET6) {
    return libc.setsockoptInt(fd, level, name, value);
  }
  // The IPv4 form is refused by sockets that are IPv6 only, which need it not.
  libc.setsockoptInt(fd, level, name, value);
  return libc.setsockoptInt(fd, SOL_IPV6, name6, value);
}

/** struct linger: with a time of zero, close(2) resets the connection. */
function setLingerZero(fd: Fd, value: number): number {
  const at = libc.ScratchOffset.Value;
  libc.scratch.view.setInt32(at, value === 0 ? 0 : 1, true);
  libc.scratch.view.setInt32(at + 4, 0, true);
  return libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, libc.scratch.address + at, 8);
}
