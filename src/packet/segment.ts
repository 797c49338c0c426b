/**
 * Splits a super-packet (TCP, or UDP datagrams of one flow) into packets that fit the way out, as a device
 * with segmentation offload would. Nothing is allocated: the caller asks how many there are and has each
 * written into a slot.
 *
 * ```
 *  size  = segmentSize(view, parsed, mtu)          payload bytes a segment
 *  count = segmentCount(parsed, size)
 *  for index in 0 … count − 1:  length = writeSegment(view, parsed, index, size, slot)
 * ```
 */
import { assert } from '#base/assert.ts';

import { foldSum, sumBytes, sumPseudoHeader, writeIpv4Checksum } from './checksum.ts';
import { copyBytes } from './copy.ts';
import { FragmentKind, IpProtocol, type ParsedPacket, TcpFlag } from './parse.ts';
import { clearVirtioHeader, GSO_TCP_SIZE_MIN, GsoType, gsoSize, gsoType } from './virtio-header.ts';

/**
 * Payload bytes of each segment such that no packet is longer than `mtu`. For TCP at most what the sender
 * chose; TCP is a stream, so it may be less. The bounds of UDP datagrams are sacred, so there it is what the
 * sender chose.
 *
 * @returns 0 when it cannot be done by segmentation: datagrams longer than the MTU have to be fragmented or
 * refused, and
 *   an MTU that leaves hardly any room for TCP data is refused.
 */
export function segmentSize(view: DataView, parsed: ParsedPacket, mtu: number): number {
  const room = mtu - (parsed.payloadOffset - parsed.offset);
  const chosen = gsoType(view, parsed.offset) === GsoType.None ? 0 : gsoSize(view, parsed.offset);
  if (parsed.protocol === IpProtocol.Tcp) {
    const size = chosen === 0 ? room : Math.min(chosen, room);
    return size < GSO_TCP_SIZE_MIN && size < parsed.payloadLength ? 0 : size;
  }
  const size = chosen === 0 ? parsed.payloadLength : chosen;
  return Math.min(size, parsed.payloadLength) <= room ? size : 0;
}

/** Packets that `parsed` splits into; 1 for a packet without payload. */
export function segmentCount(parsed: ParsedPacket, size: number): number {
  assert(size > 0);
  return parsed.payloadLength <= size ? 1 : Math.ceil(parsed.payloadLength / size);
}

/**
 * Writes segment `index` at `to`, a slot of its own with headroom, with complete checksums and a clear virtio
 * header. The super-packet stays as it is, so the same segment can be written again. Its checksum has to be
 * trusted (`isChecksumTrusted`): segments get right checksums, whatever the data is.
 *
 * (Five parameters, since one call is made for each packet and an object would have to be filled each time.)
 *
 * @returns the segment's length.
 */
export function writeSegment(
  view: DataView,
  parsed: ParsedPacket,
  index: number,
  size: number,
  to: number,
): number {
  assert(parsed.fragmentKind === FragmentKind.None && index * size <= parsed.payloadLength);
  const headers = parsed.payloadOffset - parsed.offset;
  const start = index * size;
  const length = Math.min(size, parsed.payloadLength - start);
  const total = headers + length;
  assert(to + total <= parsed.offset || to >= parsed.offset + parsed.totalLength, 'slots overlap');
  copyBytes(view, parsed.offset, to, headers);
  copyBytes(view, parsed.payloadOffset + start, to + headers, length);
  clearVirtioHeader(view, to);
  if (parsed.version === 4) {
    view.setUint16(to + 2, total);
    // Each segment is a packet of its own: identifications count up, as the sender's would (RFC 6864).
    view.setUint16(to + 4, (parsed.fragmentId + index) & 0xffff);
    writeIpv4Checksum(view, to, parsed.headerLength);
  } else {
    view.setUint16(to + 4, total - 40);
  }
  const transport = to + parsed.headerLength;
  const transportLength = total - parsed.headerLength;
  if (parsed.protocol === IpProtocol.Tcp) {
    const isLast = start + length === parsed.payloadLength;
    view.setInt32(transport + 4, (view.getInt32(transport + 4) + start) | 0);
    view.setUint8(transport + 13, segmentFlags(parsed.tcpFlags, index === 0, isLast));
    writeChecksum(view, parsed, transport + 16, transport, transportLength);
  } else {
    assert(parsed.protocol === IpProtocol.Udp);
    view.setUint16(transport + 4, transportLength);
    writeChecksum(view, parsed, transport + 6, transport, transportLength);
  }
  return total;
}

/** FIN and PSH mean the end of the data, CWR is said once (RFC 3168 section 6.1.2). */
function segmentFlags(flags: number, isFirst: boolean, isLast: boolean): number {
  let kept = flags;
  if (!isLast) kept &= ~(TcpFlag.Fin | TcpFlag.Psh);
  if (!isFirst) kept &= ~TcpFlag.Cwr;
  return kept;
}

function writeChecksum(
  view: DataView,
  parsed: ParsedPacket,
  field: number,
  transport: number,
  length: number,
): void {
  view.setUint16(field, 0);
  // The addresses are those of the super-packet, so its pseudo-header serves.
  const sum = foldSum(sumPseudoHeader(view, parsed, length) + sumBytes(view, transport, length));
  view.setUint16(field, sum === 0xffff && parsed.protocol === IpProtocol.Udp ? 0xffff : ~sum & 0xffff);
}
