/**
 * Joins packets of one flow that follow each other into a super-packet, the reverse of `segment.ts`, so that
 * a TUN device or a tunnel moves one large packet where many small ones came. Only what segmentation gives
 * back exactly is joined: equal headers, consecutive sequence, full segments but for the last.
 */
import { assert } from '#base/assert.ts';

import { addressesEqual } from './address.ts';
import { delta16, updateChecksum, verifyTransportChecksum, writePartialChecksum } from './checksum.ts';
import { copyBytes } from './copy.ts';
import { FragmentKind, IpProtocol, ParsedPacket, TcpFlag } from './parse.ts';
import {
  GSO_TCP_SIZE_MIN,
  GsoType,
  gsoSize,
  gsoType,
  isChecksumTrusted,
  setGso,
  setNeedsChecksum,
} from './virtio-header.ts';

/** Most datagrams joined: what kernels before 6.9 accept in one UDP super-packet. */
export const COALESCED_DATAGRAMS_MAX = 64;

/** Longest super-packet: what the length field of IPv4 can say. Bytes. */
export const COALESCED_LENGTH_MAX = 65535;

/**
 * True for packets that could be joined with another: whole, without IP options, TCP data or a UDP datagram.
 */
function isCandidate(view: DataView, parsed: ParsedPacket): boolean {
  if (parsed.fragmentKind !== FragmentKind.None || parsed.payloadLength === 0) return false;
  if (parsed.headerLength !== (parsed.version === 4 ? 20 : 40)) return false;
  if (parsed.protocol === IpProtocol.Tcp) return (parsed.tcpFlags & ~TcpFlag.Psh) === TcpFlag.Ack;
  // A datagram without checksum cannot be told from a damaged one.
  return parsed.protocol === IpProtocol.Udp && view.getUint16(parsed.transportOffset + 6) !== 0;
}

/** True when nothing can follow `head`: it was pushed, its last segment is short, or it is full. */
function isClosed(view: DataView, head: ParsedPacket, lengthMax: number): boolean {
  const isSuper = gsoType(view, head.offset) !== GsoType.None;
  const size = isSuper ? gsoSize(view, head.offset) : head.payloadLength;
  if ((head.tcpFlags & TcpFlag.Psh) !== 0 || head.payloadLength % size !== 0) return true;
  if (head.totalLength + size > lengthMax) return true;
  if (head.protocol === IpProtocol.Tcp) return size < GSO_TCP_SIZE_MIN;
  return head.payloadLength / size >= COALESCED_DATAGRAMS_MAX;
}

/**
 * Appends the payload of `next` to `head` when that is a packet (or super-packet) of the same flow that
 * `next` continues. On success `head` (packet, virtio header and fields) is the longer super-packet with a
 * partial checksum, and `next` is not needed any more. The slot of `head` must hold `lengthMax` bytes at its
 * offset.
 *
 * Checksums that nobody vouched for are verified first, because a super-packet gets new ones; that is most of
 * the cost. An on-ramp whose packets are authenticated may vouch for them (`VirtioFlag.DataValid`).
 *
 * @returns false when they cannot be joined; then nothing was changed.
 */
export function tryAppend(
  view: DataView,
  head: ParsedPacket,
  next: ParsedPacket,
  lengthMax: number = COALESCED_LENGTH_MAX,
): boolean {
  assert(lengthMax <= COALESCED_LENGTH_MAX && head.offset !== next.offset);
  if (!isCandidate(view, head) || !isCandidate(view, next) || isClosed(view, head, lengthMax)) return false;
  if (gsoType(view, next.offset) !== GsoType.None) return false;
  if (!isSameFlow(view, head, next) || !haveEqualHeaders(view, head, next)) return false;
  const isSuper = gsoType(view, head.offset) !== GsoType.None;
  const size = isSuper ? gsoSize(view, head.offset) : head.payloadLength;
  if (next.payloadLength > size || head.totalLength + next.payloadLength > lengthMax) return false;
  // Without DF the identifications matter, and segmentation counts them up.
  if (head.version === 4 && head.dontFragment === 0) {
    if (((head.fragmentId + head.payloadLength / size) & 0xffff) !== next.fragmentId) return false;
  }
  if (!isIntact(view, head) || !isIntact(view, next)) return false;
  copyBytes(view, next.payloadOffset, head.offset + head.totalLength, next.payloadLength);
  grow(view, head, next, size);
  return true;
}

function isIntact(view: DataView, parsed: ParsedPacket): boolean {
  return isChecksumTrusted(view, parsed.offset) || verifyTransportChecksum(view, parsed);
}

/** Same version, protocol, ports and addresses. */
function isSameFlow(view: DataView, a: ParsedPacket, b: ParsedPacket): boolean {
  if (a.sourcePort !== b.sourcePort || a.destinationPort !== b.destinationPort) return false;
  if (a.version !== b.version || a.protocol !== b.protocol) return false;
  const step = a.version === 4 ? 4 : 16;
  return (
    addressesEqual(view, a.addressOffset, view, b.addressOffset, a.version) &&
    addressesEqual(view, a.addressOffset + step, view, b.addressOffset + step, a.version)
  );
}

/** What a receiver would see of each packet has to be the same, or follow on. */
function haveEqualHeaders(view: DataView, head: ParsedPacket, next: ParsedPacket): boolean {
  if (head.ttl !== next.ttl || head.tos !== next.tos || head.dontFragment !== next.dontFragment) return false;
  // The IPv6 flow label is in the word with version and traffic class.
  if (head.version === 6 && view.getInt32(head.offset) !== view.getInt32(next.offset)) return false;
  if (head.protocol === IpProtocol.Udp) return true;
  const a = head.transportOffset;
  const b = next.transportOffset;
  const headerLength = head.payloadOffset - a;
  if (next.payloadOffset - b !== headerLength) return false;
  if (((view.getInt32(a + 4) + head.payloadLength) | 0) !== view.getInt32(b + 4)) return false;
  if (view.getInt32(a + 8) !== view.getInt32(b + 8)) return false;
  if (view.getUint16(a + 14) !== view.getUint16(b + 14)) return false;
  for (let i = 20; i < headerLength; i += 4) {
    if (view.getInt32(a + i) !== view.getInt32(b + i)) return false;
  }
  return true;
}

/** Makes the headers say what the packet is after `next`'s payload was added. */
function grow(view: DataView, head: ParsedPacket, next: ParsedPacket, size: number): void {
  const at = head.offset;
  const before = head.totalLength;
  head.totalLength += next.payloadLength;
  head.payloadLength += next.payloadLength;
  if (head.version === 4) {
    view.setUint16(at + 2, head.totalLength);
    view.setUint16(at + 10, updateChecksum(view.getUint16(at + 10), delta16(before, head.totalLength)));
  } else {
    view.setUint16(at + 4, head.totalLength - 40);
  }
  if (head.protocol === IpProtocol.Tcp) {
    head.tcpFlags |= next.tcpFlags;
    view.setUint8(head.transportOffset + 13, head.tcpFlags);
    setGso(view, head, head.version === 4 ? GsoType.Tcp4 : GsoType.Tcp6, size);
  } else {
    view.setUint16(head.transportOffset + 4, 8 + head.payloadLength);
    setGso(view, head, GsoType.UdpL4, size);
  }
  setNeedsChecksum(view, head);
  writePartialChecksum(view, head);
}

/** Receives what comes out of a `Coalescer`. The slot that contains `offset` belongs to the callee. */
export interface CoalescerSink {
  /** @param tag the number that was given with the packet (the first, of a super-packet). */
  onPacket(offset: number, length: number, tag: number): void;
}

/** What a `Coalescer` may do. */
export interface CoalescerOptions {
  /**
   * Bytes that each slot holds from a packet's offset on; bounds super-packets. Default
   * `COALESCED_LENGTH_MAX`.
   */
  readonly lengthMax?: number;
  /**
   * Join UDP datagrams too: only where the way out takes UDP super-packets (TUN from Linux 6.2). Default
   * false.
   */
  readonly udp?: boolean;
}

/**
 * Super-packets open at once: flows that alternate within one batch. More would cost more to search than they
 * bring.
 */
const HEADS_MAX = 8;

/**
 * Joins the packets of one batch, keeping the order within each flow. Use: `push` each packet that was
 * parsed, then `flush` when the batch is over, so that nothing waits for packets that may never come.
 */
export class Coalescer {
  readonly #view: DataView;
  readonly #sink: CoalescerSink;
  readonly #lengthMax: number;
  readonly #isUdpJoined: boolean;
  /** The open super-packets, oldest first; those from `#count` on are spare. */
  readonly #heads: ParsedPacket[];
  readonly #tags: number[];
  #count = 0;

  constructor(view: DataView, sink: CoalescerSink, options: CoalescerOptions = {}) {
    this.#view = view;
    this.#sink = sink;
    this.#lengthMax = Math.min(options.lengthMax ?? COALESCED_LENGTH_MAX, COALESCED_LENGTH_MAX);
    this.#isUdpJoined = options.udp ?? false;
    this.#heads = Array.from({ length: HEADS_MAX }, () => new ParsedPacket());
    this.#tags = new Array<number>(HEADS_MAX).fill(0);
  }

  /**
   * Takes one packet. Packets are only joined when their tags are equal (say, the number of the way out).
   *
   * @returns true when its data was appended to another packet: the caller keeps the slot and may release it.
   * False
   *   when the slot now belongs to the coalescer, which hands it to the sink at once or later.
   */
  push(parsed: ParsedPacket, tag: number): boolean {
    const view = this.#view;
    const isJoinable = isCandidate(view, parsed) && (this.#isUdpJoined || parsed.protocol === IpProtocol.Tcp);
    const index = this.#find(parsed, tag);
    if (index >= 0) {
      const head = this.#heads[index] as ParsedPacket;
      if (isJoinable && tryAppend(view, head, parsed, this.#lengthMax)) {
        if (isClosed(view, head, this.#lengthMax)) this.#emit(index);
        return true;
      }
      // What cannot be joined must not overtake.
      this.#emit(index);
    }
    if (!isJoinable || isClosed(view, parsed, this.#lengthMax)) {
      this.#sink.onPacket(parsed.offset, parsed.totalLength, tag);
      return false;
    }
    if (this.#count === HEADS_MAX) this.#emit(0);
    (this.#heads[this.#count] as ParsedPacket).copyFrom(parsed);
    this.#tags[this.#count] = tag;
    this.#count++;
    return false;
  }

  /** Hands out everything that is open, oldest first. */
  flush(): void {
    while (this.#count > 0) this.#emit(0);
  }

  /** Slots held now. */
  get held(): number {
    return this.#count;
  }

  #find(parsed: ParsedPacket, tag: number): number {
    for (let i = 0; i < this.#count; i++) {
      if (this.#tags[i] === tag && isSameFlow(this.#view, this.#heads[i] as ParsedPacket, parsed)) return i;
    }
    return -1;
  }

  /** Removes a head, keeping the order of the others, and hands it out. */
  #emit(index: number): void {
    const head = this.#heads[index] as ParsedPacket;
    const tag = this.#tags[index] as number;
    this.#count--;
    for (let i = index; i < this.#count; i++) {
      this.#heads[i] = this.#heads[i + 1] as ParsedPacket;
      this.#tags[i] = this.#tags[i + 1] as number;
    }
    this.#heads[this.#count] = head;
    this.#sink.onPacket(head.offset, head.totalLength, tag);
  }
}
