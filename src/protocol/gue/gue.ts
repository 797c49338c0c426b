/**
 * `protocol/gue` is Generic UDP Encapsulation, variant 0 (draft-ietf-intarea-gue-09 section 3), as the
 * unconnected IP tunnel uses it: one IP packet in each datagram, with its context beside it in the header's
 * private data.
 *
 * ```
 *   0                   1                   2                   3
 *   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *  +---+-+---------+---------------+-------------------------------+
 *  | 0 |C|  Hlen   |  Proto/ctype  |            Flags              |
 *  +---+-+---------+---------------+-------------------------------+
 *  |   Form (1)    | Context bytes | Context …                     |
 *  +---------------+---------------+-------------------------------+
 *  | … context, filled up with zeros to a multiple of 4 bytes      |
 *  +---------------------------------------------------------------+
 *  | IPv4 (Proto 4) or IPv6 (Proto 41) packet                      |
 * ```
 *
 * Hlen counts words of 4 bytes behind the first, at most 31. Flags are zero, so there are no extension
 * fields, and all of Hlen is private data (section 3.2 of the draft), which other implementations skip. Its
 * first byte says what form it has; no private data is an empty context. Private data is not authenticated:
 * who may send to the port is decided by the tunnel's configuration.
 */
import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';
import { RampartError } from '#base/error.ts';
import { bytesOf } from '#packet/copy.ts';

/** Longest header: 4 bytes and 31 words. */
export const GUE_HEADER_LENGTH_MAX = 4 + 31 * 4;

/** Longest context: what form and length leave of 31 words. Bytes. */
export const GUE_CONTEXT_LENGTH_MAX = 31 * 4 - 2;

/** The only form of private data so far. */
const CONTEXT_FORM = 1;

const PROTOCOL_IPV4 = 4;
const PROTOCOL_IPV6 = 41;

/** Where things are in a datagram; one instance per worker, overwritten by each. Offsets are absolute. */
export class GueHeader {
  packetOffset = 0;
  packetLength = 0;
  /** Meaningless when `contextLength` is 0. */
  contextOffset = 0;
  contextLength = 0;
}

/**
 * Reads the header of a datagram of `length` bytes at `offset`. Total: never throws, never reads outside.
 * Control messages, other variants, flags and protocols are refused, as is private data in any but the one
 * way to write it.
 *
 * @returns 0, `BadEncapsulation`, or `BadContext` when only the private data is wrong.
 */
export function readGueHeader(view: DataView, offset: number, length: number, into: GueHeader): DropReason {
  if (length < 4) return DropReason.BadEncapsulation;
  const word = view.getInt32(offset);
  // Variant and control bit are the three high bits; flags the low 16.
  if ((word & 0xe000ffff) !== 0) return DropReason.BadEncapsulation;
  const privateLength = ((word >>> 24) & 0x1f) * 4;
  const headerLength = 4 + privateLength;
  if (headerLength >= length) return DropReason.BadEncapsulation;
  const protocol = (word >>> 16) & 0xff;
  const version = view.getUint8(offset + headerLength) >>> 4;
  if (protocol === PROTOCOL_IPV4 ? version !== 4 : protocol !== PROTOCOL_IPV6 || version !== 6) {
    return DropReason.BadEncapsulation;
  }
  into.packetOffset = offset + headerLength;
  into.packetLength = length - headerLength;
  into.contextOffset = offset + 6;
  into.contextLength = 0;
  return privateLength === 0 ? DropReason.None : readPrivateData(view, offset + 4, privateLength, into);
}

function readPrivateData(view: DataView, offset: number, length: number, into: GueHeader): DropReason {
  if (view.getUint8(offset) !== CONTEXT_FORM) return DropReason.BadContext;
  const contextLength = view.getUint8(offset + 1);
  const used = 2 + contextLength;
  // Exactly as many words as are needed, with zeros behind: one context has one form, so it can be compared
  // by bytes.
  if (contextLength === 0 || used > length || length - used > 3) return DropReason.BadContext;
  for (let at = used; at < length; at++) {
    if (view.getUint8(offset + at) !== 0) return DropReason.BadContext;
  }
  into.contextLength = contextLength;
  return DropReason.None;
}

/**
 * The header for all packets with one context, made once and then given to `writeGueHeader`. The caller owns
 * it.
 *
 * @throws RAMP_CONTEXT when the context is longer than `GUE_CONTEXT_LENGTH_MAX`.
 */
export function makeGueHeader(context: Uint8Array): Uint8Array {
  if (context.length > GUE_CONTEXT_LENGTH_MAX) {
    throw new RampartError(
      'RAMP_CONTEXT',
      `the context has ${context.length} bytes and a GUE header holds ${GUE_CONTEXT_LENGTH_MAX}; ` +
        'shorten it, or use a connected tunnel',
    );
  }
  const words = context.length === 0 ? 0 : Math.ceil((2 + context.length) / 4);
  const header = new Uint8Array(4 + words * 4);
  header[0] = words;
  if (words > 0) {
    header[4] = CONTEXT_FORM;
    header[5] = context.length;
    header.set(context, 6);
  }
  return header;
}

/**
 * Writes a header from `makeGueHeader` directly before the IP packet at `packetOffset`, which has
 * `PACKET_HEADROOM` before it. The virtio header there is overwritten, so the packet's checksum must be
 * complete and it must not be a super-packet.
 *
 * @returns the offset of the datagram: `packetOffset − header.length`.
 */
export function writeGueHeader(view: DataView, packetOffset: number, header: Uint8Array): number {
  const version = view.getUint8(packetOffset) >>> 4;
  assert(version === 4 || version === 6);
  const offset = packetOffset - header.length;
  assert(offset >= 0 && header.length >= 4);
  bytesOf(view).set(header, offset);
  view.setUint8(offset + 1, version === 4 ? PROTOCOL_IPV4 : PROTOCOL_IPV6);
  return offset;
}
