/**
 * Cuts an IPv4 packet that is too long for the way out into fragments (RFC 791 section 3.2). IPv6 is never
 * cut here.
 */
import { assert } from '#base/assert.ts';

import { writeIpv4Checksum } from './checksum.ts';
import { copyBytes } from './copy.ts';
import type { ParsedPacket } from './parse.ts';
import { clearVirtioHeader, needsChecksum } from './virtio-header.ts';

/** Every link carries IPv4 packets of this length (RFC 791). Bytes. */
export const IPV4_MTU_MIN = 68;

/**
 * Fragments that `parsed` is cut into so that none is longer than `mtu`; 1 when it fits as it is; 0 when it
 * must not be cut (DF set, or IPv6): the caller answers with `IcmpError.PacketTooBig`.
 */
export function fragmentCount(parsed: ParsedPacket, mtu: number): number {
  assert(mtu >= IPV4_MTU_MIN);
  if (parsed.totalLength <= mtu) return 1;
  if (parsed.version !== 4 || parsed.dontFragment === 1) return 0;
  return Math.ceil((parsed.totalLength - parsed.headerLength) / fragmentDataLength(parsed, mtu));
}

/**
 * Writes fragment `index` at `to`, a slot of its own with headroom. The packet may be a fragment itself. Its
 * checksum must be complete (`finishChecksum`), since nobody can complete it over fragments.
 *
 * @returns the fragment's length.
 */
export function writeFragment(
  view: DataView,
  parsed: ParsedPacket,
  index: number,
  mtu: number,
  to: number,
): number {
  assert(!needsChecksum(view, parsed.offset), 'a partial checksum cannot be fragmented');
  const size = fragmentDataLength(parsed, mtu);
  const data = parsed.totalLength - parsed.headerLength;
  const start = index * size;
  assert(index >= 0 && start < data);
  const length = Math.min(size, data - start);
  const total = parsed.headerLength + length;
  assert(to + total <= parsed.offset || to >= parsed.offset + parsed.totalLength, 'slots overlap');
  copyBytes(view, parsed.offset, to, parsed.headerLength);
  copyBytes(view, parsed.transportOffset + start, to + parsed.headerLength, length);
  clearVirtioHeader(view, to);
  if (index > 0) dropUncopiedOptions(view, to, parsed.headerLength);
  const more = start + length < data || parsed.moreFragments === 1 ? 0x2000 : 0;
  view.setUint16(to + 2, total);
  view.setUint16(to + 6, more | ((parsed.fragmentOffset + start) >>> 3));
  writeIpv4Checksum(view, to, parsed.headerLength);
  return total;
}

/** Bytes of data in each fragment but the last: a multiple of 8. */
function fragmentDataLength(parsed: ParsedPacket, mtu: number): number {
  return (mtu - parsed.headerLength) & ~7;
}

/** Only options with the copied flag stand in later fragments; no-operation takes the place of the others. */
function dropUncopiedOptions(view: DataView, to: number, headerLength: number): void {
  const end = to + headerLength;
  let at = to + 20;
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === 0) return;
    const length = kind === 1 ? 1 : view.getUint8(at + 1);
    if ((kind & 0x80) === 0) for (let i = 0; i < length; i++) view.setUint8(at + i, 1);
    at += length;
  }
}
