/**
 * Writes whole packets: UDP around a payload, TCP resets, ICMP errors and echo replies. Each returns the
 * packet's length, 0 when no packet must be sent, and leaves a clear virtio header and complete checksums.
 * The slot at `to` has `PACKET_HEADROOM` and belongs to the caller; it must not overlap the packet that is
 * answered, except where said.
 */
import { assert } from '#base/assert.ts';

import { addressScope, AddressScope, copyAddress } from './address.ts';
import { foldSum, sumBytes, writeIpv4Checksum } from './checksum.ts';
import { copyBytes } from './copy.ts';
import { FragmentKind, IpProtocol, type ParsedPacket, TcpFlag } from './parse.ts';
import { clearVirtioHeader } from './virtio-header.ts';

/** TTL and hop limit of packets that start here (RFC 1700). */
const TTL = 64;

/**
 * Who a new packet is from and to. One instance is reused for many packets. `version` says whether 4 or 16
 * bytes stand at each of the offsets in `view`, which may be any memory.
 */
export class PacketEndpoints {
  view: DataView = new DataView(new ArrayBuffer(0));
  version = 4;
  sourceOffset = 0;
  destinationOffset = 0;
  sourcePort = 0;
  destinationPort = 0;

  /** Takes over the endpoints of a packet, swapped: as an answer to it has them. */
  setReply(view: DataView, parsed: ParsedPacket): void {
    this.view = view;
    this.version = parsed.version;
    this.destinationOffset = parsed.addressOffset;
    this.sourceOffset = parsed.addressOffset + (parsed.version === 4 ? 4 : 16);
    this.sourcePort = parsed.destinationPort;
    this.destinationPort = parsed.sourcePort;
  }
}

/** Bytes of IP and UDP header that `writeUdpHeaders` writes. */
export function udpHeadersLength(version: number): number {
  return version === 4 ? 28 : 48;
}

/**
 * Writes IP and UDP header before a payload of `payloadLength` bytes that already stands at
 * `to + udpHeadersLength(version)`. The identification of IPv4 is 0 and DF is set (RFC 6864 section 4).
 */
export function writeUdpHeaders(
  view: DataView,
  to: number,
  payloadLength: number,
  endpoints: PacketEndpoints,
): number {
  const length = 8 + payloadLength;
  assert(payloadLength >= 0 && length <= (endpoints.version === 4 ? 65515 : 65535));
  const at = writeIpHeader(view, to, length, IpProtocol.Udp, endpoints);
  view.setUint16(at, endpoints.sourcePort);
  view.setUint16(at + 2, endpoints.destinationPort);
  view.setUint16(at + 4, length);
  view.setUint16(at + 6, 0);
  const checksum = checksumFor(view, to, at, length, IpProtocol.Udp);
  view.setUint16(at + 6, checksum === 0 ? 0xffff : checksum);
  return at - to + length;
}

/**
 * Writes IPv4 or IPv6 header and a clear virtio header, for `length` bytes of `protocol` behind it.
 *
 * @returns the offset of what follows the header.
 */
export function writeIpHeader(
  view: DataView,
  to: number,
  length: number,
  protocol: number,
  endpoints: PacketEndpoints,
): number {
  clearVirtioHeader(view, to);
  const from = endpoints.view;
  if (endpoints.version === 4) {
    view.setInt32(to, 0x45000000 | (20 + length));
    view.setInt32(to + 4, 0x4000);
    view.setInt32(to + 8, (TTL << 24) | (protocol << 16));
    copyAddress(from, endpoints.sourceOffset, view, to + 12, 4);
    copyAddress(from, endpoints.destinationOffset, view, to + 16, 4);
    writeIpv4Checksum(view, to, 20);
    return to + 20;
  }
  view.setInt32(to, 0x60000000);
  view.setInt32(to + 4, (length << 16) | (protocol << 8) | TTL);
  copyAddress(from, endpoints.sourceOffset, view, to + 8, 6);
  copyAddress(from, endpoints.destinationOffset, view, to + 24, 6);
  return to + 40;
}

/**
 * Checksum of `length` bytes at `at` with the pseudo-header of the packet at `packet` (headers as written
 * here).
 */
function checksumFor(view: DataView, packet: number, at: number, length: number, protocol: number): number {
  const addresses = at - packet === 20 ? sumBytes(view, packet + 12, 8) : sumBytes(view, packet + 8, 32);
  return ~foldSum(addresses + protocol + length + sumBytes(view, at, length)) & 0xffff;
}

const endpointsForReply = new PacketEndpoints();

/**
 * Writes the reset that answers a TCP segment, as a closed port does (RFC 9293 section 3.10.7.1): with the
 * segment's acknowledgement as its sequence, or acknowledging the segment. None for resets and later
 * fragments.
 */
export function writeTcpReset(view: DataView, parsed: ParsedPacket, to: number): number {
  if (parsed.protocol !== IpProtocol.Tcp || parsed.fragmentKind !== FragmentKind.None) return 0;
  const flags = parsed.tcpFlags;
  if ((flags & TcpFlag.Rst) !== 0) return 0;
  if (!isAnswerable(view, parsed)) return 0;
  endpointsForReply.setReply(view, parsed);
  const at = writeIpHeader(view, to, 20, IpProtocol.Tcp, endpointsForReply);
  view.setUint16(at, parsed.destinationPort);
  view.setUint16(at + 2, parsed.sourcePort);
  const segment = parsed.transportOffset;
  if ((flags & TcpFlag.Ack) !== 0) {
    view.setInt32(at + 4, view.getInt32(segment + 8));
    view.setInt32(at + 8, 0);
    view.setUint16(at + 12, 0x5000 | TcpFlag.Rst);
  } else {
    // SYN and FIN take a place in the sequence each.
    const length = parsed.payloadLength + ((flags >>> 1) & 1) + (flags & 1);
    view.setInt32(at + 4, 0);
    view.setInt32(at + 8, (view.getInt32(segment + 4) + length) | 0);
    view.setUint16(at + 12, 0x5000 | TcpFlag.Rst | TcpFlag.Ack);
  }
  view.setInt32(at + 14, 0);
  view.setUint16(at + 18, 0);
  view.setUint16(at + 16, checksumFor(view, to, at, 20, IpProtocol.Tcp));
  return at - to + 20;
}

/**
 * The ICMP errors that are sent, each with its type and code in both versions (RFC 792, RFC 1812, RFC 4443).
 */
export const IcmpError = Object.freeze({
  NetworkUnreachable: 0,
  HostUnreachable: 1,
  PortUnreachable: 2,
  AdminProhibited: 3,
  TtlExceeded: 4,
  ReassemblyTimeExceeded: 5,
  /** Fragmentation needed (RFC 1191), packet too big (RFC 8201); needs the MTU. */
  PacketTooBig: 6,
  ProtocolUnreachable: 7,
} as const);

/** One of the numbers of `IcmpError`. */
export type IcmpError = (typeof IcmpError)[keyof typeof IcmpError];

// Type × 256 + code, indexed by `IcmpError`. For an unknown protocol ICMPv6 has a parameter problem (4, 1).
const ICMP4_TYPE_CODE = [0x0300, 0x0301, 0x0303, 0x030d, 0x0b00, 0x0b01, 0x0304, 0x0302];
const ICMP6_TYPE_CODE = [0x0100, 0x0103, 0x0104, 0x0101, 0x0300, 0x0301, 0x0200, 0x0401];

/** Options of `writeIcmpError`. */
export interface IcmpErrorOptions {
  /** Bytes, for `PacketTooBig`. */
  readonly mtu?: number;
  /**
   * 4 or 16 bytes: the address of the node that reports. Absent: the packet's destination, as a host reports.
   */
  readonly reporter?: Uint8Array;
}

/** An IPv4 error never gets longer than this (RFC 1812 section 4.3.2.3). Bytes of the whole packet. */
export const ICMP4_ERROR_LENGTH_MAX = 576;

/** An IPv6 error fits the minimum MTU (RFC 4443 section 2.4 c). */
export const ICMP6_ERROR_LENGTH_MAX = 1280;

/**
 * Writes the ICMP error about a packet to its source. None is written about ICMP errors, later fragments,
 * packets to or from multicast and broadcast, or from addresses that cannot be answered (RFC 1812 section
 * 4.3.2.7, RFC 4443 section 2.4 e); the caller limits the rate. A quoted partial checksum stays partial.
 */
export function writeIcmpError(
  view: DataView,
  parsed: ParsedPacket,
  to: number,
  error: IcmpError,
  options: IcmpErrorOptions = {},
): number {
  if (parsed.fragmentKind === FragmentKind.Later || isIcmpError(parsed)) return 0;
  if (!isAnswerable(view, parsed)) return 0;
  const isIpv4 = parsed.version === 4;
  const headers = isIpv4 ? 28 : 48;
  const quoteMax = (isIpv4 ? ICMP4_ERROR_LENGTH_MAX : ICMP6_ERROR_LENGTH_MAX) - headers;
  const quote = Math.min(parsed.totalLength, quoteMax);
  const length = 8 + quote;
  const protocol = isIpv4 ? IpProtocol.Icmp4 : IpProtocol.Icmp6;
  assert(to + headers + quote <= parsed.offset || to >= parsed.offset + parsed.totalLength, 'slots overlap');
  endpointsForReply.setReply(view, parsed);
  const at = writeIpHeader(view, to, length, protocol, endpointsForReply);
  if (options.reporter !== undefined) setReporter(view, to, options.reporter);
  view.setUint16(at, (isIpv4 ? ICMP4_TYPE_CODE : ICMP6_TYPE_CODE)[error] as number);
  view.setUint16(at + 2, 0);
  view.setInt32(at + 4, errorWord(parsed, error, options.mtu));
  copyBytes(view, parsed.offset, at + 8, quote);
  const checksum = isIpv4
    ? ~sumBytes(view, at, length) & 0xffff
    : checksumFor(view, to, at, length, protocol);
  view.setUint16(at + 2, checksum);
  return headers + quote;
}

/** The second word of an error: the MTU of the next hop, or where the offending byte is. */
function errorWord(parsed: ParsedPacket, error: IcmpError, mtu: number | undefined): number {
  if (error === IcmpError.PacketTooBig) {
    assert(mtu !== undefined && mtu >= 68, 'a packet-too-big error needs the mtu');
    return parsed.version === 4 ? mtu & 0xffff : mtu;
  }
  return error === IcmpError.ProtocolUnreachable && parsed.version === 6 ? 6 : 0;
}

function setReporter(view: DataView, to: number, reporter: Uint8Array): void {
  const isIpv4 = view.getUint8(to) >>> 4 === 4;
  assert(reporter.length === (isIpv4 ? 4 : 16));
  for (let i = 0; i < reporter.length; i++) {
    view.setUint8(to + (isIpv4 ? 12 : 8) + i, reporter[i] as number);
  }
  if (isIpv4) writeIpv4Checksum(view, to, 20);
}

/** True for ICMP error messages, and for redirects, about which no error is sent either. */
function isIcmpError(parsed: ParsedPacket): boolean {
  const type = parsed.icmpType;
  if (parsed.protocol === IpProtocol.Icmp6) return type < 128 || type === 137;
  return parsed.protocol === IpProtocol.Icmp4 && (type === 3 || type === 4 || type === 5 || type > 10);
}

/** False when the answer would go to many, to nobody, or come from a group. */
function isAnswerable(view: DataView, parsed: ParsedPacket): boolean {
  const at = parsed.addressOffset;
  const source = addressScope(view, at, parsed.version);
  const destination = addressScope(view, at + (parsed.version === 4 ? 4 : 16), parsed.version);
  if (source === AddressScope.Multicast || source === AddressScope.Reserved) return false;
  if (source === AddressScope.Unspecified || source === AddressScope.Loopback) return false;
  return destination !== AddressScope.Multicast && destination !== AddressScope.Reserved;
}

/**
 * Writes the reply to an ICMP echo request: same identifier, sequence and data. `to` may be `parsed.offset`,
 * when the request has no IP options; then the request becomes the reply. 0 for anything but a whole echo
 * request.
 */
export function writeEchoReply(view: DataView, parsed: ParsedPacket, to: number): number {
  const isIpv4 = parsed.version === 4;
  const protocol = isIpv4 ? IpProtocol.Icmp4 : IpProtocol.Icmp6;
  if (parsed.protocol !== protocol || parsed.icmpType !== (isIpv4 ? 8 : 128) || parsed.icmpCode !== 0)
    return 0;
  if (parsed.fragmentKind !== FragmentKind.None || !isAnswerable(view, parsed)) return 0;
  const length = 8 + parsed.payloadLength;
  assert(to !== parsed.offset || parsed.headerLength === (isIpv4 ? 20 : 40));
  saveAddresses(view, parsed);
  const body = to + (isIpv4 ? 20 : 40);
  if (body !== parsed.transportOffset) copyBytes(view, parsed.transportOffset, body, length);
  writeIpHeader(view, to, length, protocol, endpointsForReply);
  view.setUint16(body, isIpv4 ? 0 : 0x8100);
  view.setUint16(body + 2, 0);
  const checksum = isIpv4
    ? ~sumBytes(view, body, length) & 0xffff
    : checksumFor(view, to, body, length, protocol);
  view.setUint16(body + 2, checksum);
  return body - to + length;
}

const savedAddresses = new DataView(new ArrayBuffer(32));

/** Copies the addresses aside, since an in-place reply writes over them. */
function saveAddresses(view: DataView, parsed: ParsedPacket): void {
  endpointsForReply.setReply(view, parsed);
  const version = parsed.version;
  copyAddress(view, endpointsForReply.sourceOffset, savedAddresses, 0, version);
  copyAddress(view, endpointsForReply.destinationOffset, savedAddresses, 16, version);
  endpointsForReply.view = savedAddresses;
  endpointsForReply.sourceOffset = 0;
  endpointsForReply.destinationOffset = 16;
}
