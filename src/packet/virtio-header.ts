/**
 * The form of a packet inside the process: `[headroom][virtio_net_hdr, 10 bytes][IP packet]` in one slot. The
 * virtio header ALWAYS stands directly before the IP packet, at `offset − 10`; a packet that came without one
 * gets a clear one (`clearVirtioHeader`). It is what a TUN with IFF_VNET_HDR reads and writes, so a packet
 * goes to and from such a device without a copy. Fields are little-endian (TUN on the machines that are
 * supported, and VIRTIO 1.x section 5.1.6).
 *
 * ```
 *  −10 flags   −9 gso type   −8 header length   −6 gso size
 *  −4 checksum start   −2 checksum offset   0 IP packet
 * ```
 */
import { DropReason } from '#base/drop-reason.ts';

import { FragmentKind, IpProtocol, type ParsedPacket } from './parse.ts';

/** Bytes of the header. */
export const VIRTIO_HEADER_LENGTH = 10;

/**
 * Bytes before the IP packet in its slot: enough for the largest GUE header (4 + 124), or for the virtio
 * header (10) with an Ethernet header (14) before it. A multiple of 16, so that packets are aligned where
 * their slot is.
 */
export const PACKET_HEADROOM = 160;

/** Longest IP packet: an IPv6 header and a payload of 65535. Bytes. */
export const PACKET_LENGTH_MAX = 40 + 65535;

/**
 * Bytes of a slot that holds any packet with headroom and room behind it for padding and an AEAD tag. Whole
 * pages.
 */
export const PACKET_SLOT_BYTES = 17 * 4096;

/** Bits of the flags byte. */
export const VirtioFlag = Object.freeze({
  /** The checksum field holds the pseudo-header's sum; whoever sends the packet on completes it. */
  NeedsChecksum: 1,
  /** The checksum was verified already. */
  DataValid: 2,
} as const);

/** Values of the gso type byte. */
export const GsoType = Object.freeze({
  None: 0,
  Tcp4: 1,
  /** UDP fragmentation offload, never negotiated here. */
  Udp: 3,
  Tcp6: 4,
  /** Equal UDP datagrams, the last may be shorter. */
  UdpL4: 5,
  /** A bit on top of a TCP type: the first segment carries CWR (RFC 3168). */
  Ecn: 0x80,
} as const);

/**
 * Smallest TCP segment a super-packet may ask for: 88 bytes of data less 40 of options. Bounds the work it
 * makes.
 */
export const GSO_TCP_SIZE_MIN = 48;

/** Most datagrams in one UDP super-packet (the kernel's own limit). */
export const GSO_UDP_SEGMENTS_MAX = 128;

/** Makes the header say "an ordinary packet with a complete, unverified checksum". */
export function clearVirtioHeader(view: DataView, offset: number): void {
  view.setInt32(offset - 10, 0);
  view.setInt32(offset - 6, 0);
  view.setInt16(offset - 2, 0);
}

/** `VirtioFlag` bits. */
export function virtioFlags(view: DataView, offset: number): number {
  return view.getUint8(offset - 10);
}

/** Sets the `VirtioFlag` bits. */
export function setVirtioFlags(view: DataView, offset: number, flags: number): void {
  view.setUint8(offset - 10, flags);
}

/** True when the checksum field of the packet at `offset` holds only the pseudo-header's sum. */
export function needsChecksum(view: DataView, offset: number): boolean {
  return (view.getUint8(offset - 10) & VirtioFlag.NeedsChecksum) !== 0;
}

/** True when nobody has to verify the checksum: it was verified, or does not exist yet. */
export function isChecksumTrusted(view: DataView, offset: number): boolean {
  return (view.getUint8(offset - 10) & (VirtioFlag.NeedsChecksum | VirtioFlag.DataValid)) !== 0;
}

/** A `GsoType`, without the ECN bit. 0 for a packet that is not a super-packet. */
export function gsoType(view: DataView, offset: number): number {
  return view.getUint8(offset - 9) & ~GsoType.Ecn;
}

/** Payload bytes of each segment but the last; only valid when `gsoType` is not 0. */
export function gsoSize(view: DataView, offset: number): number {
  return view.getUint16(offset - 6, true);
}

/** Bytes of all headers as the sender of the packet gave them: a hint that nothing here relies on. */
export function gsoHeaderLength(view: DataView, offset: number): number {
  return view.getUint16(offset - 8, true);
}

/** First byte that the checksum covers, counted from the IP packet's start. */
export function checksumStart(view: DataView, offset: number): number {
  return view.getUint16(offset - 4, true);
}

/** Where the checksum field is, counted from `checksumStart`. */
export function checksumOffset(view: DataView, offset: number): number {
  return view.getUint16(offset - 2, true);
}

/**
 * Says that the checksum of a TCP or UDP packet holds only the pseudo-header's sum. Leaves the gso fields.
 */
export function setNeedsChecksum(view: DataView, parsed: ParsedPacket): void {
  const offset = parsed.offset;
  view.setUint8(offset - 10, VirtioFlag.NeedsChecksum);
  view.setUint16(offset - 4, parsed.transportOffset - offset, true);
  view.setUint16(offset - 2, checksumFieldOffset(parsed.protocol), true);
}

/**
 * Makes the packet a super-packet of segments with `size` bytes of payload. Leaves flags and checksum fields.
 */
export function setGso(view: DataView, parsed: ParsedPacket, type: number, size: number): void {
  const offset = parsed.offset;
  view.setUint8(offset - 9, type);
  view.setUint16(offset - 8, parsed.payloadOffset - offset, true);
  view.setUint16(offset - 6, size, true);
}

/** Where a protocol's checksum stands in its header; −1 for those without one that can be completed. */
export function checksumFieldOffset(protocol: number): number {
  if (protocol === IpProtocol.Tcp) return 16;
  if (protocol === IpProtocol.Udp) return 6;
  return protocol === IpProtocol.Icmp6 ? 2 : -1;
}

/**
 * Compares the virtio header with the packet that follows it. A header that lies would make this process or
 * the kernel write a checksum into the wrong place or cut the packet in the wrong places.
 *
 * @returns 0, or `BadSegmentation`.
 */
export function checkVirtioHeader(view: DataView, parsed: ParsedPacket): DropReason {
  const offset = parsed.offset;
  const flags = view.getUint8(offset - 10);
  const type = view.getUint8(offset - 9);
  if (flags === 0 && type === 0) return DropReason.None;
  if (flags > 3) return DropReason.BadSegmentation;
  if ((flags & VirtioFlag.NeedsChecksum) !== 0) {
    if (parsed.fragmentKind !== FragmentKind.None) return DropReason.BadSegmentation;
    if (checksumStart(view, offset) !== parsed.transportOffset - offset) return DropReason.BadSegmentation;
    const field = checksumFieldOffset(parsed.protocol);
    if (field < 0 || checksumOffset(view, offset) !== field) return DropReason.BadSegmentation;
  }
  if (type === GsoType.None) return DropReason.None;
  return checkGso(view, parsed, type, flags);
}

function checkGso(view: DataView, parsed: ParsedPacket, type: number, flags: number): DropReason {
  const size = gsoSize(view, parsed.offset);
  // Segments get new checksums, so a super-packet without a partial one makes no sense.
  if ((flags & VirtioFlag.NeedsChecksum) === 0 || size === 0) return DropReason.BadSegmentation;
  const tcpType = parsed.version === 4 ? GsoType.Tcp4 : GsoType.Tcp6;
  if ((type & ~GsoType.Ecn) === tcpType && parsed.protocol === IpProtocol.Tcp) {
    return size < GSO_TCP_SIZE_MIN && size < parsed.payloadLength
      ? DropReason.BadSegmentation
      : DropReason.None;
  }
  if (type === GsoType.UdpL4 && parsed.protocol === IpProtocol.Udp) {
    return parsed.payloadLength > size * GSO_UDP_SEGMENTS_MAX ? DropReason.BadSegmentation : DropReason.None;
  }
  return DropReason.BadSegmentation;
}
