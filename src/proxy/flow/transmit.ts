import { DropReason } from '#base/drop-reason.ts';
import { IcmpError } from '#packet/build.ts';
import { finishChecksum, writeIpv4Checksum } from '#packet/checksum.ts';
import { Coalescer, type CoalescerSink } from '#packet/coalesce.ts';
import { fragmentCount, writeFragment } from '#packet/fragment.ts';
import { IpProtocol, ParsedPacket, parsePacket } from '#packet/parse.ts';
import { segmentCount, segmentSize, writeSegment } from '#packet/segment.ts';
import { GsoType, gsoSize, gsoType, isChecksumTrusted, PACKET_HEADROOM } from '#packet/virtio-header.ts';
import type { IpTunnel, Worker } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import type { Answers } from './answers.ts';
import type { FlowLog } from './flow-log.ts';
import { type FragmentCut, fragmentCount6, writeFragment6 } from './fragment6.ts';
import type { TunnelDirectory } from './packet-upgrade.ts';

/** What the transmitter works with. */
export interface TransmitterParts {
  readonly answers: Answers;
  readonly tunnels: TunnelDirectory;
  readonly log: FlowLog;
  /** Any number: the identification of the first packet that is cut here (RFC 7739). */
  readonly firstId: number;
}

/**
 * The way out of a packet whose flow is decided. In this order: does it fit, can the tunnel take it as it is,
 * else what has to be done to it.
 *
 * ```
 *  fits ─┬─ ordinary ──── TCP from a tunnel into a device ─ join with its like until the batch ends ─► send
 *        │              └ else ────────────────────────────────────► send
 *        ├─ partial checksum ── tunnel completes it ────────────────► send
 *        │                    └ else complete it ──────────────────► send
 *        └─ super-packet ────── tunnel cuts it ────────────────────► send
 *                             └ else into segments ────────────────► send each
 *  too long ─ may be cut ── TCP of our own: smaller segments; else fragments ► send each
 *           └ may not ── packet too big is answered, the packet dropped
 * ```
 * A super-packet is judged by its segments. Which packets may be cut: IPv4 without DF; whatever starts here;
 * and IPv6 that came in fragments.
 */
export class Transmitter implements CoalescerSink {
  readonly #worker: Worker;
  readonly #view: DataView;
  readonly #answers: Answers;
  readonly #tunnels: TunnelDirectory;
  readonly #log: FlowLog;
  readonly #coalescer: Coalescer;
  /** A datagram of a super-packet, while that is fragmented. */
  readonly #part = new ParsedPacket();
  readonly #cut: FragmentCut = { index: 0, mtu: 0, id: 0 };
  /** Identification of the next packet that is cut here. */
  #nextId: number;

  constructor(worker: Worker, parts: TransmitterParts) {
    this.#worker = worker;
    this.#view = worker.io.arena.view;
    this.#answers = parts.answers;
    this.#tunnels = parts.tunnels;
    this.#log = parts.log;
    this.#nextId = parts.firstId | 0;
    this.#coalescer = new Coalescer(this.#view, this);
  }

  /**
   * Sends a parsed packet and takes its slot.
   *
   * @param from the tunnel that it came from, which hears when the packet is too big; null when it starts
   * here.
   * @param wasFragmented it came as fragments, so it may go as fragments.
   * @returns 0 or why it was dropped, which the caller counts.
   */
  send(out: IpTunnel, packet: ParsedPacket, from: IpTunnel | null, wasFragmented: boolean): DropReason {
    const view = this.#view;
    const { offset, totalLength } = packet;
    const isOrdinary = view.getUint16(offset - 10) === 0;
    if (isOrdinary && totalLength <= out.mtu) {
      if (!out.offload || from === null || from.offload || packet.protocol !== IpProtocol.Tcp) {
        return this.#hand(out, offset, totalLength);
      }
      if (this.#coalescer.push(packet, out.index)) this.#worker.packets.release(offset);
      return DropReason.None;
    }
    const type = gsoType(view, offset);
    const headers = packet.payloadOffset - offset;
    const longest = type === GsoType.None ? totalLength : headers + gsoSize(view, offset);
    if (longest > out.mtu && totalLength > out.mtu)
      return this.#sendTooLong(out, packet, from, wasFragmented);
    if (out.offload) return this.#hand(out, offset, totalLength);
    if (type !== GsoType.None) return this.#sendSegments(out, packet, gsoSize(view, offset));
    finishChecksum(view, offset, totalLength);
    return this.#hand(out, offset, totalLength);
  }

  /** After the last packet of a batch: what was joined goes out. */
  flush(): void {
    this.#coalescer.flush();
  }

  /** A packet, or several joined, for the device with index `tag`. */
  onPacket(offset: number, length: number, tag: number): void {
    const out = this.#tunnels.get(tag);
    if (out === null) this.#worker.packets.release(offset);
    const reason = out === null ? DropReason.TunnelClosed : this.#hand(out, offset, length);
    if (reason !== DropReason.None) this.#log.count(reason);
  }

  #hand(out: IpTunnel, offset: number, length: number): DropReason {
    const { stats, tracer } = this.#worker;
    if (tracer.enabled) tracer.packet('out', out, offset, length);
    const reason = out.send(offset, length);
    if (reason !== DropReason.None) return reason;
    const { counters } = stats;
    counters[Counter.PacketsOut] = (counters[Counter.PacketsOut] as number) + 1;
    counters[Counter.BytesOut] = (counters[Counter.BytesOut] as number) + length;
    return reason;
  }

  #sendTooLong(
    out: IpTunnel,
    packet: ParsedPacket,
    from: IpTunnel | null,
    wasFragmented: boolean,
  ): DropReason {
    const view = this.#view;
    if (from === null && packet.protocol === IpProtocol.Tcp && isChecksumTrusted(view, packet.offset)) {
      const size = segmentSize(view, packet, out.mtu);
      if (size > 0) return this.#sendSegments(out, packet, size);
    }
    const mayBeCut = from === null || packet.dontFragment === 0 || (wasFragmented && packet.version === 6);
    if (mayBeCut) return this.#sendFragmented(out, packet);
    this.#answers.error(from, packet, IcmpError.PacketTooBig, out.mtu);
    this.#worker.packets.release(packet.offset);
    return DropReason.TooBig;
  }

  /** Cuts a super-packet into segments with `size` bytes of payload. */
  #sendSegments(out: IpTunnel, packet: ParsedPacket, size: number): DropReason {
    const { packets } = this.#worker;
    const count = segmentCount(packet, size);
    let reason: DropReason = DropReason.None;
    for (let index = 0; index < count && reason === DropReason.None; index++) {
      const slot = packets.acquire();
      if (slot < 0) {
        reason = DropReason.NoBuffer;
        break;
      }
      const to = slot + PACKET_HEADROOM;
      reason = this.#hand(out, to, writeSegment(this.#view, packet, index, size, to));
    }
    packets.release(packet.offset);
    return reason;
  }

  #sendFragmented(out: IpTunnel, packet: ParsedPacket): DropReason {
    if (gsoType(this.#view, packet.offset) !== GsoType.None) return this.#sendDatagrams(out, packet);
    finishChecksum(this.#view, packet.offset, packet.totalLength);
    const id = this.#nextId++ | 0;
    if (packet.version === 4 && packet.dontFragment === 1) this.#allowFragments(packet, id);
    const count = packet.version === 4 ? fragmentCount(packet, out.mtu) : fragmentCount6(packet, out.mtu);
    const { packets } = this.#worker;
    let reason: DropReason = count === 0 ? DropReason.TooBig : DropReason.None;
    for (let index = 0; index < count && reason === DropReason.None; index++) {
      const slot = packets.acquire();
      if (slot < 0) {
        reason = DropReason.NoBuffer;
        break;
      }
      const to = slot + PACKET_HEADROOM;
      reason = this.#hand(out, to, this.#writeFragment(packet, index, out.mtu, id, to));
    }
    packets.release(packet.offset);
    return reason;
  }

  #writeFragment(packet: ParsedPacket, index: number, mtu: number, id: number, to: number): number {
    if (packet.version === 4) return writeFragment(this.#view, packet, index, mtu, to);
    this.#cut.index = index;
    this.#cut.mtu = mtu;
    this.#cut.id = id;
    return writeFragment6(this.#view, packet, this.#cut, to);
  }

  /** Makes an IPv4 packet of our own fit to be cut: without DF, and with an identification. */
  #allowFragments(packet: ParsedPacket, id: number): void {
    const view = this.#view;
    view.setUint16(packet.offset + 4, id & 0xffff);
    view.setUint16(packet.offset + 6, 0);
    writeIpv4Checksum(view, packet.offset, packet.headerLength);
    packet.fragmentId = id & 0xffff;
    packet.dontFragment = 0;
  }

  /** A UDP super-packet whose datagrams do not fit: each is cut by itself. */
  #sendDatagrams(out: IpTunnel, packet: ParsedPacket): DropReason {
    const { packets } = this.#worker;
    const size = gsoSize(this.#view, packet.offset);
    const count = segmentCount(packet, size);
    let reason: DropReason = DropReason.None;
    for (let index = 0; index < count && reason === DropReason.None; index++) {
      const slot = packets.acquire();
      if (slot < 0) {
        reason = DropReason.NoBuffer;
        break;
      }
      const to = slot + PACKET_HEADROOM;
      const length = writeSegment(this.#view, packet, index, size, to);
      const parsed = parsePacket(this.#view, to, length, this.#part);
      if (parsed === DropReason.None && length <= out.mtu) reason = this.#hand(out, to, length);
      else if (parsed === DropReason.None) reason = this.#sendFragmented(out, this.#part);
      else {
        packets.release(to);
        reason = parsed;
      }
    }
    packets.release(packet.offset);
    return reason;
  }
}
