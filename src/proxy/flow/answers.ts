import { assert } from '#base/assert.ts';
import { type IcmpError, writeIcmpError, writeTcpReset } from '#packet/build.ts';
import type { ParsedPacket } from '#packet/parse.ts';
import { PACKET_HEADROOM } from '#packet/virtio-header.ts';
import type { IpTunnel, Worker } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

/** Answers per second and tunnel in the long run (RFC 4443 section 2.4 f asks for a limit). */
export const ANSWERS_PER_SECOND = 200;

/** Answers that a tunnel may get at once: a person's scan is answered whole, a flood is not amplified. */
export const ANSWER_BURST = 100;

/** Addresses from which ICMP errors come; absent: the address that the packet was sent to. */
export interface Reporters {
  /** 4 bytes. */
  readonly ipv4?: Uint8Array;
  /** 16 bytes. */
  readonly ipv6?: Uint8Array;
}

/**
 * What the proxy itself says to the sender of a packet, by the tunnel that the packet came from: resets and
 * ICMP errors, each tunnel at a limited rate of its own, so that no sender uses up what another gets.
 */
export class Answers {
  readonly #worker: Worker;
  readonly #view: DataView;
  readonly #reporters: Reporters;
  /** Per tunnel: answers left, and when that was true. Grows with the highest index. */
  #tokens = new Float64Array(2 * 64).fill(-1);

  constructor(worker: Worker, reporters: Reporters) {
    this.#worker = worker;
    this.#view = worker.io.arena.view;
    this.#reporters = reporters;
  }

  /**
   * A TCP reset to the sender of a segment. The packet stays the caller's. @returns true when it was sent.
   */
  reset(tunnel: IpTunnel, packet: ParsedPacket): boolean {
    const to = this.#slot(tunnel);
    if (to < 0) return false;
    const length = writeTcpReset(this.#view, packet, to);
    return this.#send(tunnel, to, length, Counter.RejectsSent);
  }

  /** An ICMP error to the sender of a packet, which stays the caller's. `mtu` is for `PacketTooBig`. */
  error(tunnel: IpTunnel, packet: ParsedPacket, error: IcmpError, mtu = 0): boolean {
    const to = this.#slot(tunnel);
    if (to < 0) return false;
    const reporter = packet.version === 4 ? this.#reporters.ipv4 : this.#reporters.ipv6;
    const options = reporter === undefined ? { mtu } : { mtu, reporter };
    const length = writeIcmpError(this.#view, packet, to, error, options);
    return this.#send(tunnel, to, length, Counter.IcmpErrorsSent);
  }

  #send(tunnel: IpTunnel, offset: number, length: number, counter: number): boolean {
    const { packets, stats, tracer } = this.#worker;
    if (length === 0) {
      packets.release(offset);
      return false;
    }
    if (tracer.enabled) tracer.packet('out', tunnel, offset, length);
    const reason = tunnel.send(offset, length);
    const { counters, drops } = stats;
    if (reason !== 0) drops[reason] = (drops[reason] as number) + 1;
    else counters[counter] = (counters[counter] as number) + 1;
    return reason === 0;
  }

  /** Where an answer may be written; −1 when the tunnel had enough of them or no slot is free. */
  #slot(tunnel: IpTunnel): number {
    if (!this.#take(tunnel.index)) return -1;
    const slot = this.#worker.packets.acquire();
    return slot < 0 ? -1 : slot + PACKET_HEADROOM;
  }

  #take(index: number): boolean {
    assert(index > 0);
    if (index * 2 >= this.#tokens.length) {
      const larger = new Float64Array(Math.max(index * 2 + 2, this.#tokens.length * 2)).fill(-1);
      larger.set(this.#tokens);
      this.#tokens = larger;
    }
    const now = this.#worker.io.now();
    const before = this.#tokens[index * 2] as number;
    const elapsed = now - (this.#tokens[index * 2 + 1] as number);
    const tokens =
      before < 0 ? ANSWER_BURST : Math.min(ANSWER_BURST, before + (elapsed * ANSWERS_PER_SECOND) / 1000);
    this.#tokens[index * 2 + 1] = now;
    this.#tokens[index * 2] = tokens < 1 ? tokens : tokens - 1;
    return tokens >= 1;
  }

  /** The index will be another tunnel's. */
  forget(tunnel: IpTunnel): void {
    if (tunnel.index * 2 < this.#tokens.length) this.#tokens[tunnel.index * 2] = -1;
  }
}
