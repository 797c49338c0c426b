import type { SocketAddress } from '#base/ip.ts';

import { Errno, PollMask, type SocketKind } from './io.ts';
import { MemoryFile, type ReceiveInfo } from './memory-file.ts';
import { removeFrom, type InetAddress, type MemoryWorld } from './memory-world.ts';

/** Packets that wait at a socket unless an option says otherwise. */
const PACKETS_MAX = 256;
const EDESTADDRREQ = 89;

interface Packet {
  readonly bytes: Uint8Array;
  readonly from: SocketAddress | null;
  readonly to: InetAddress | null;
  readonly files: readonly MemoryFile[];
}

/** What a packet socket is. */
export type PacketKind = Exclude<SocketKind, 'tcp4' | 'tcp6' | 'unix-stream'> | 'device';

/**
 * A socket whose reads and writes are whole packets: SEQPACKET, datagrams, and one end of a packet device.
 */
export class PacketFile extends MemoryFile {
  readonly kind: PacketKind;
  readonly #inbound: Packet[] = [];
  #capacity = PACKETS_MAX;
  #peer: PacketFile | null = null;
  #ended = false;
  #writeShut = false;
  #error = 0;

  constructor(world: MemoryWorld, kind: PacketKind) {
    super(world);
    this.kind = kind;
  }

  get #isUdp(): boolean {
    return this.kind === 'udp4' || this.kind === 'udp6';
  }

  join(peer: PacketFile): void {
    this.#peer = peer;
    peer.#peer = this;
    this.changed();
    peer.changed();
  }

  /** A datagram socket of a Unix path sends to `peer` from here on, which knows nothing of it. */
  aim(peer: PacketFile): void {
    this.#peer = peer;
    this.changed();
  }

  get connected(): boolean {
    return this.#peer !== null;
  }

  readiness(): number {
    let mask = 0;
    if (this.#inbound.length > 0 || this.#ended || this.#error !== 0) mask |= PollMask.In;
    if (this.room() > 0) mask |= PollMask.Out;
    if (this.#ended) mask |= PollMask.HangUp | PollMask.ReadHangUp;
    if (this.#error !== 0) mask |= PollMask.Error;
    return mask;
  }

  override room(): number {
    const peer = this.#peer;
    if (peer === null || this.#writeShut) return Number.MAX_SAFE_INTEGER;
    return peer.#inbound.length < peer.#capacity ? Number.MAX_SAFE_INTEGER : 0;
  }

  read(target: Uint8Array, info: ReceiveInfo | null): number {
    const packet = this.#inbound[0];
    if (packet === undefined) {
      if (this.#error !== 0) return -this.takeError();
      if (this.#ended) return 0;
      return this.kind === 'unix-seqpacket' && this.#peer === null ? -Errno.ENOTCONN : -Errno.EAGAIN;
    }
    const length = Math.min(target.length, packet.bytes.length);
    target.set(packet.bytes.subarray(0, length));
    if (info !== null) {
      info.from = packet.from;
      info.to = packet.to;
      info.truncated = length < packet.bytes.length;
    }
    if (info?.peek === true) return length;
    this.#inbound.shift();
    if (info !== null) info.files.push(...packet.files);
    else for (const file of packet.files) file.release();
    this.#peer?.changed();
    return length;
  }

  write(source: Uint8Array, files: readonly MemoryFile[] = []): number {
    if (this.#error !== 0) return -this.takeError();
    if (this.#isUdp) {
      const remote = this.remote as InetAddress | null;
      return remote === null ? -EDESTADDRREQ : this.sendTo(source, remote, null);
    }
    const peer = this.#peer;
    if (this.#writeShut) return -Errno.EPIPE;
    if (peer === null) return this.kind === 'unix-dgram' ? -Errno.ENOTCONN : -Errno.EPIPE;
    if (peer.references === 0) return -Errno.ECONNREFUSED;
    if (!peer.#push({ bytes: source.slice(), from: this.local, to: null, files })) return -Errno.EAGAIN;
    return source.length;
  }

  /**
   * Sends a UDP datagram, from `source` instead of the own address if that is given. One that finds no room
   * is lost, one that finds nobody is an error for a connected sender.
   */
  sendTo(bytes: Uint8Array, to: InetAddress, source: InetAddress | null): number {
    if (this.#error !== 0) return -this.takeError();
    if (bytes.length > 65_507) return -Errno.EMSGSIZE;
    const from = source ?? (this.local as InetAddress);
    const target = this.world.findDatagramSocket(to, from);
    if (target !== null) target.#push({ bytes: bytes.slice(), from, to, files: [] });
    else if (this.remote !== null) this.#fail(Errno.ECONNREFUSED);
    return bytes.length;
  }

  /** Sends to a Unix datagram socket by path. */
  sendToFile(source: Uint8Array, target: PacketFile): number {
    const packet = { bytes: source.slice(), from: this.local, to: null, files: [] };
    return target.#push(packet) ? source.length : -Errno.EAGAIN;
  }

  #push(packet: Packet): boolean {
    if (this.#inbound.length >= this.#capacity) return false;
    this.#inbound.push(packet);
    this.changed();
    return true;
  }

  /** The next operation ends with `errno`, one that waits included. */
  #fail(errno: number): void {
    this.#error = errno;
    this.changed();
  }

  override takeError(): number {
    const error = this.#error;
    this.#error = 0;
    return error;
  }

  override shutdownWrite(): void {
    if (this.#writeShut) return;
    this.#writeShut = true;
    if (this.kind === 'unix-seqpacket' && this.#peer !== null) {
      this.#peer.#ended = true;
      this.#peer.changed();
    }
  }

  /** A packet counts as 2 KiB, the least that the kernel charges for one of some size. */
  override setCapacity(bytes: number): void {
    this.#capacity = Math.max(1, Math.floor(bytes / 2048));
    this.#peer?.changed();
  }

  protected end(): void {
    for (const packet of this.#inbound) for (const file of packet.files) file.release();
    this.#inbound.length = 0;
    const peer = this.#peer;
    this.#peer = null;
    if (peer !== null && peer.#peer === this) {
      peer.#peer = null;
      if (this.kind === 'unix-seqpacket') peer.#ended = true;
      peer.changed();
    }
    if (this.local?.family === 'unix') {
      if (this.world.unix.get(this.local.path) === this) this.world.unix.delete(this.local.path);
    } else if (this.local !== null) {
      removeFrom(this.world.datagramSockets, this.local.port, this);
    }
  }
}
