/**
 * Cuts an IPv6 packet into fragments (RFC 8200 section 4.5). Routers must not do that to packets of others:
 * it is only for packets that start here, and for those that came as fragments and were put together here.
 */
import { assert } from '#base/assert.ts';
import { copyBytes } from '#packet/copy.ts';
import { IpProtocol, type ParsedPacket } from '#packet/parse.ts';
import { clearVirtioHeader, needsChecksum } from '#packet/virtio-header.ts';

/** IPv6 header and fragment header. Bytes. */
const HEADERS = 48;

/**
 * Fragments that a whole packet is cut into; 0 when it has extension headers: some of them would have to be
 * repeated in each fragment and some not, and nobody sends such packets.
 */
export function fragmentCount6(parsed: ParsedPacket, mtu: number): number {
  assert(parsed.version === 6 && mtu > HEADERS + 8);
  if (parsed.headerLength !== 40) return 0;
  return Math.ceil((parsed.totalLength - 40) / dataLength(mtu));
}

/** Where a packet is cut, and its identification. One object is reused. */
export interface FragmentCut {
  index: number;
  mtu: number;
  /** Signed 32-bit number, the same in all fragments of the packet. */
  id: number;
}

/**
 * Writes one fragment at `to`, a slot of its own with headroom. The packet's checksum must be complete.
 *
 * @returns the fragment's length.
 */
export function writeFragment6(view: DataView, parsed: ParsedPacket, cut: FragmentCut, to: number): number {
  assert(parsed.headerLength === 40 && !needsChecksum(view, parsed.offset));
  const size = dataLength(cut.mtu);
  const data = parsed.totalLength - 40;
  const start = cut.index * size;
  assert(cut.index >= 0 && start < data);
  const length = Math.min(size, data - start);
  copyBytes(view, parsed.offset, to, 40);
  copyBytes(view, parsed.offset + 40 + start, to + HEADERS, length);
  clearVirtioHeader(view, to);
  view.setUint16(to + 4, length + 8);
  view.setUint8(to + 6, IpProtocol.Fragment);
  view.setUint8(to + 40, view.getUint8(parsed.offset + 6));
  view.setUint8(to + 41, 0);
  view.setUint16(to + 42, start | (start + length < data ? 1 : 0));
  view.setInt32(to + 44, cut.id);
  return HEADERS + length;
}

function dataLength(mtu: number): number {
  return (mtu - HEADERS) & ~7;
}
