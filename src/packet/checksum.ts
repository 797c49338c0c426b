/**
 * The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
 *
 * Words: a *sum* is a folded one's-complement sum of big-endian 16-bit words, 0 to 0xffff; a *delta* is the
 * sum that has to be added to another sum when data changes; a *checksum* is the complement of a sum, as it
 * stands in a packet.
 */
import { assert } from '#base/assert.ts';

import { FragmentKind, IpProtocol, type ParsedPacket } from './parse.ts';
import {
  checksumFieldOffset,
  checksumOffset,
  checksumStart,
  needsChecksum,
  setVirtioFlags,
} from './virtio-header.ts';

/** Folds carries back into 16 bits. `sum` is at most 32 bits, unsigned. */
export function foldSum(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/**
 * Sum of `length` bytes (at most 131072) at `offset`; an odd last byte counts as the high byte of a word.
 *
 * The fast way: words of 32 bits are added as they are, wrapping, and their high halves once more on their
 * own. The sum of the low halves follows from both, exactly, because 32768 × 65535 fits into 32 bits. The sum
 * does not care about byte order (RFC 1071 section 2), so it is taken in the machine's order and swapped at
 * the end.
 */
export function sumBytes(view: DataView, offset: number, length: number): number {
  assert(length >= 0 && length <= 0x20000, 'checksum over too many bytes');
  let words = 0;
  let highs = 0;
  let at = offset;
  const end = offset + length;
  for (const unrolled = end - 31; at < unrolled; at += 32) {
    const a = view.getInt32(at, true);
    const b = view.getInt32(at + 4, true);
    const c = view.getInt32(at + 8, true);
    const d = view.getInt32(at + 12, true);
    const e = view.getInt32(at + 16, true);
    const f = view.getInt32(at + 20, true);
    const g = view.getInt32(at + 24, true);
    const h = view.getInt32(at + 28, true);
    words = (words + a + b + c + d + e + f + g + h) | 0;
    highs =
      (highs +
        (a >>> 16) +
        (b >>> 16) +
        (c >>> 16) +
        (d >>> 16) +
        (e >>> 16) +
        (f >>> 16) +
        (g >>> 16) +
        (h >>> 16)) |
      0;
  }
  for (; at + 4 <= end; at += 4) {
    const a = view.getInt32(at, true);
    words = (words + a) | 0;
    highs = (highs + (a >>> 16)) | 0;
  }
  const lows = (words - (highs << 16)) >>> 0;
  let sum = foldSum(highs) + foldSum(lows);
  if (at + 2 <= end) {
    sum += view.getUint16(at, true);
    at += 2;
  }
  if (at < end) sum += view.getUint8(at);
  return swapBytes(foldSum(sum));
}

function swapBytes(word: number): number {
  return ((word & 0xff) << 8) | (word >>> 8);
}

/**
 * The sum of a pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1); `length` is that of transport
 * header and data.
 */
export function sumPseudoHeader(view: DataView, parsed: ParsedPacket, length: number): number {
  const bytes = parsed.version === 4 ? 8 : 32;
  return foldSum(sumBytes(view, parsed.addressOffset, bytes) + parsed.protocol + length);
}

/** The delta of a 16-bit word that changes. */
export function delta16(before: number, after: number): number {
  return foldSum((~before & 0xffff) + (after & 0xffff));
}

/** The delta of a 32-bit word at an even offset that changes. */
export function delta32(before: number, after: number): number {
  return foldSum((~before & 0xffff) + (~before >>> 16) + (after & 0xffff) + (after >>> 16));
}

/** The delta of several words: the sum of their deltas. */
export function addDelta(a: number, b: number): number {
  return foldSum(a + b);
}

/** The delta of data that stands at an odd offset from the checksum's first byte. */
export function deltaAtOddOffset(delta: number): number {
  return swapBytes(delta);
}

/** The checksum after data changed by `delta` (RFC 1624 equation 3). */
export function updateChecksum(checksum: number, delta: number): number {
  return ~foldSum((~checksum & 0xffff) + delta) & 0xffff;
}

/** Writes the checksum of an IPv4 header of `headerLength` bytes. */
export function writeIpv4Checksum(view: DataView, offset: number, headerLength: number): void {
  view.setUint16(offset + 10, 0);
  view.setUint16(offset + 10, ~sumBytes(view, offset, headerLength) & 0xffff);
}

/**
 * Writes a complete checksum into the TCP, UDP or ICMP header of a whole packet; the virtio header is not
 * looked at. A UDP checksum that comes to zero is written as 0xffff (RFC 768).
 */
export function writeTransportChecksum(view: DataView, parsed: ParsedPacket): void {
  assert(parsed.fragmentKind === FragmentKind.None);
  const field = checksumField(parsed);
  if (field < 0) return;
  view.setUint16(field, 0);
  const checksum = ~sumTransport(view, parsed) & 0xffff;
  view.setUint16(field, checksum === 0 && parsed.protocol === IpProtocol.Udp ? 0xffff : checksum);
}

/** Writes the pseudo-header's sum into the checksum field, as packets with `NeedsChecksum` have it. */
export function writePartialChecksum(view: DataView, parsed: ParsedPacket): void {
  const field = parsed.transportOffset + checksumFieldOffset(parsed.protocol);
  assert(field >= parsed.transportOffset);
  view.setUint16(field, sumPseudoHeader(view, parsed, transportLength(parsed)));
}

/**
 * True when the transport checksum of a whole packet is right; the virtio header is not looked at (see
 * `isChecksumTrusted`). True for fragments and for protocols without a checksum that is known here. In IPv4 a
 * UDP checksum of zero means none and is right; in IPv6 it is wrong (RFC 8200 section 8.1).
 */
export function verifyTransportChecksum(view: DataView, parsed: ParsedPacket): boolean {
  if (parsed.fragmentKind !== FragmentKind.None) return true;
  const field = checksumField(parsed);
  if (field < 0) return true;
  if (parsed.protocol === IpProtocol.Udp && view.getUint16(field) === 0) return parsed.version === 4;
  return sumTransport(view, parsed) === 0xffff;
}

/**
 * Completes a partial checksum in place, as the device would have done, and clears `NeedsChecksum`. Does
 * nothing to packets that have a complete one. The virtio header must have passed `checkVirtioHeader`.
 */
export function finishChecksum(view: DataView, offset: number, length: number): void {
  if (!needsChecksum(view, offset)) return;
  const start = checksumStart(view, offset);
  const field = start + checksumOffset(view, offset);
  assert(start >= 20 && field + 2 <= length, 'virtio header was not checked');
  const checksum = ~sumBytes(view, offset + start, length - start) & 0xffff;
  // Only UDP has its checksum at 6, and only there zero means "none".
  view.setUint16(offset + field, checksum === 0 && field - start === 6 ? 0xffff : checksum);
  setVirtioFlags(view, offset, 0);
}

/** Where the packet's transport checksum is, −1 when its protocol has none known here. */
function checksumField(parsed: ParsedPacket): number {
  if (parsed.protocol === IpProtocol.Icmp4) return parsed.transportOffset + 2;
  const field = checksumFieldOffset(parsed.protocol);
  return field < 0 ? -1 : parsed.transportOffset + field;
}

function sumTransport(view: DataView, parsed: ParsedPacket): number {
  const length = transportLength(parsed);
  const data = sumBytes(view, parsed.transportOffset, length);
  if (parsed.protocol === IpProtocol.Icmp4) return data;
  return foldSum(data + sumPseudoHeader(view, parsed, length));
}

function transportLength(parsed: ParsedPacket): number {
  return parsed.offset + parsed.totalLength - parsed.transportOffset;
}
