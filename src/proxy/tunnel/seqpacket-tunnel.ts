import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';
import { formatSocketAddress, type SocketAddress } from '#base/ip.ts';
import type { Context } from '#contract/context.ts';
import { type Completion, Errno, type Fd, type Io } from '#io/io.ts';
import { clearVirtioHeader, PACKET_HEADROOM, PACKET_LENGTH_MAX } from '#packet/virtio-header.ts';
import type { IpTunnel, NetworkId } from '#proxy/proxy-contract.ts';

import { type Admitted, specOf } from './admission.ts';
import { READ_BATCH, ReadLoop, ReadNext, type ReadOwner } from './read-loop.ts';
import { countDropIn, type TunnelHost, tunnelClosed, tunnelOpened } from './tunnel-host.ts';
import { TunnelFigure, type TunnelState } from './tunnel-registry.ts';

/** A connection as a tunnel. */
export interface SeqpacketTunnelOptions extends Admitted {
  readonly name: string;
  /** Bytes of the largest IP packet that is sent. */
  readonly mtu: number;
  /** Connected, its context message gone over; the tunnel owns it. −1 with `dial`. */
  readonly fd: Fd;
  /** The tunnel connects by itself, and again when the peer goes away. */
  readonly dial?: SeqpacketDial;
  /** Called once after the tunnel is closed. */
  readonly onClosed?: () => void;
}

/** Where an outgoing tunnel leads, and who we say that we are. */
export interface SeqpacketDial {
  readonly address: SocketAddress & { readonly family: 'unix' };
  /** Message 0, in the format that the peer reads. */
  readonly blob: Uint8Array;
}

/**
 * Bytes that may wait in a tunnel's socket, as far as net.core.wmem_max allows: 2 ms of 10 Gb/s, and a
 * burst of super-packets.
 */
export const SEQPACKET_BUFFER_BYTES = 4 << 20;

/** First and longest pause between attempts to connect. */
const REDIAL_MS_MIN = 100;
const REDIAL_MS_MAX = 5000;

const TAG_CONNECTED = 0;
const TAG_REDIAL = 1;

/**
 * A connected IP tunnel: a Unix SEQPACKET connection on which, after the context message, each message is
 * exactly one bare IP packet. Closing the socket ends it. Nothing is queued here: a packet that the peer's
 * queue has no room for is dropped and counted, as on any link.
 *
 * ```
 *   accepted:   open ──peer closes, close()──► closed
 *   outgoing:   connecting ──connected, message 0 sent──► open ──peer closes──► paused ──timer──► connecting
 *                    └──────────refused──► paused             close() from any ──► closed
 * ```
 */
export class SeqpacketTunnel implements IpTunnel, ReadOwner, Completion {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly context: Context;
  readonly network: NetworkId;
  readonly offload = false;
  readonly #host: TunnelHost;
  readonly #io: Io;
  readonly #loop: ReadLoop;
  readonly #dial: SeqpacketDial | null;
  readonly #onClosed: (() => void) | undefined;
  /** −1 unless open. */
  #fd: Fd = -1;
  /** The socket of a connect under way. */
  #connecting: Fd = -1;
  #timer = 0;
  #pauseMs = REDIAL_MS_MIN;
  #closed = false;

  /** Opens at once, or begins to connect. `adopted` goes on with another process's tunnel. */
  constructor(host: TunnelHost, options: SeqpacketTunnelOptions, adopted?: TunnelState) {
    assert(options.network > 0 && options.mtu >= 1280 && options.mtu <= 65535);
    assert(options.fd >= 0 || options.dial !== undefined);
    this.#host = host;
    this.#io = host.worker.io;
    this.name = options.name;
    this.mtu = options.mtu;
    this.context = options.context;
    this.network = options.network;
    this.#dial = options.dial ?? null;
    this.#onClosed = options.onClosed;
    this.#loop = new ReadLoop(this.#io, this);
    this.index = host.registry.reserve(adopted);
    const { account, vnet } = options.context;
    tunnelOpened(host, this, `seqpacket of ${account}/${vnet}, mtu ${this.mtu}`);
    if (options.fd >= 0) this.#open(options.fd);
    else this.#connect();
  }

  /** True while packets can go over; an outgoing tunnel is not while it connects. */
  get isOpen(): boolean {
    return this.#fd >= 0;
  }

  send(offset: number, length: number): DropReason {
    const { worker, registry } = this.#host;
    if (this.#fd < 0) {
      worker.packets.release(offset);
      registry.countDrop(this.index, TunnelFigure.DropsOut);
      return DropReason.TunnelClosed;
    }
    const result = this.#io.trySend(this.#fd, offset, length);
    worker.packets.release(offset);
    if (result >= 0) {
      registry.countOut(this.index, length);
      return DropReason.None;
    }
    registry.countDrop(this.index, TunnelFigure.DropsOut);
    // A broken connection is noticed by the reading side, which ends the tunnel outside of this call.
    if (result === -Errno.EAGAIN || result === -Errno.ENOBUFS) return DropReason.QueueFull;
    return result === -Errno.EMSGSIZE ? DropReason.PacketTooLong : DropReason.SendFailed;
  }

  close(): void {
    this.#end('closed');
  }

  describe(): { readonly kind: 'seqpacket'; readonly fd: Fd; readonly state: unknown } | null {
    if (this.#fd < 0) return null;
    const dial = this.#dial;
    return {
      kind: 'seqpacket',
      fd: this.#fd,
      state: {
        mtu: this.mtu,
        context: specOf(this.context),
        dial: dial && { path: dial.address.path, blob: Buffer.from(dial.blob).toString('base64') },
      },
    };
  }

  onReadable(): ReadNext {
    const { worker, sink, registry } = this.#host;
    const { packets } = worker;
    const { view } = this.#io.arena;
    const room = packets.slotBytes - PACKET_HEADROOM;
    let next: ReadNext = ReadNext.Wait;
    for (let count = 0; count < READ_BATCH; count++) {
      const slot = packets.acquire();
      if (slot < 0) {
        next = ReadNext.Pause;
        break;
      }
      const offset = slot + PACKET_HEADROOM;
      const length = this.#io.tryRecv(this.#fd, offset, room);
      if (length > 0 && length <= PACKET_LENGTH_MAX) {
        registry.countIn(this.index, length);
        clearVirtioHeader(view, offset);
        sink.onPacket(this, offset, length);
        if (this.#fd < 0) break;
        continue;
      }
      packets.release(slot);
      if (length > 0) {
        // The slot is larger than any packet, so a message that was cut to it is seen by its length too.
        countDropIn(this.#host, this.index, DropReason.PacketTooLong);
        continue;
      }
      if (length === -Errno.EAGAIN) break;
      sink.onBatchEnd();
      // A message of no bytes and the end of the connection look the same, and neither is a packet.
      this.#onPeerGone(length === 0 ? 'the peer closed' : `the connection failed with errno ${-length}`);
      return ReadNext.Stop;
    }
    sink.onBatchEnd();
    return next;
  }

  onCompletion(tag: number, result: number, _flags: number): void {
    if (tag === TAG_REDIAL) {
      if (!this.#closed) this.#connect();
      return;
    }
    const fd = this.#connecting;
    this.#connecting = -1;
    const { blob } = this.#dial as SeqpacketDial;
    const failure = result < 0 ? result : this.#closed ? -Errno.ECANCELED : this.#sendBlob(fd, blob);
    if (failure >= 0) {
      this.#pauseMs = REDIAL_MS_MIN;
      this.#open(fd);
      return;
    }
    this.#io.close(fd);
    if (!this.#closed) this.#redial(`connecting failed with errno ${-failure}`);
  }

  #open(fd: Fd): void {
    this.#fd = fd;
    this.#io.setOption(fd, 'send-buffer', SEQPACKET_BUFFER_BYTES);
    this.#loop.start(fd);
  }

  #connect(): void {
    const { address } = this.#dial as SeqpacketDial;
    try {
      this.#connecting = this.#io.socket('unix-seqpacket');
    } catch (error) {
      // Out of descriptors: that may pass, as an absent peer may come.
      this.#redial((error as Error).message);
      return;
    }
    this.#io.connect(this.#connecting, address, this, TAG_CONNECTED);
  }

  /** Message 0; a negative errno when it could not go. */
  #sendBlob(fd: Fd, blob: Uint8Array): number {
    const { packets } = this.#host.worker;
    const slot = packets.acquire();
    if (slot < 0) return -Errno.ENOBUFS;
    assert(blob.length > 0 && blob.length <= packets.slotBytes);
    this.#io.arena.bytes.set(blob, slot);
    const result = this.#io.trySend(fd, slot, blob.length);
    packets.release(slot);
    return result;
  }

  #onPeerGone(reason: string): void {
    if (this.#dial === null) {
      this.#end(reason);
      return;
    }
    const fd = this.#fd;
    this.#fd = -1;
    this.#loop.stop();
    this.#io.close(fd);
    this.#redial(reason);
  }

  /** The first failure in a row is worth a line in the log, those after it are not. */
  #redial(reason: string): void {
    if (this.#pauseMs === REDIAL_MS_MIN) {
      const { address } = this.#dial as SeqpacketDial;
      const text = `${formatSocketAddress(address)}: ${reason}; trying again`;
      this.#host.log({ event: 'failed', tunnel: this.name, text });
    }
    this.#timer = this.#io.timer(this.#pauseMs, this, TAG_REDIAL);
    this.#pauseMs = Math.min(this.#pauseMs * 2, REDIAL_MS_MAX);
  }

  #end(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#loop.stop();
    this.#io.cancelTimer(this.#timer);
    const fd = this.#fd;
    this.#fd = -1;
    if (fd >= 0) this.#io.close(fd);
    tunnelClosed(this.#host, this, reason);
    this.#onClosed?.();
  }
}
