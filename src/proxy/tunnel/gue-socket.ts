/**
 * The UDP socket under a GUE port: whole datagrams between the kernel and slots. Many datagrams of equal
 * size come and go in one system call (UDP_GRO, UDP_SEGMENT), which is what bulk traffic in a tunnel
 * consists of.
 *
 * Datagrams that go out are copied into one staging buffer until a run ends: another peer, another size, a
 * full buffer, or the end of the batch (a microtask). So a slot is free again as soon as its packet is
 * given.
 */
import { assert } from '#base/assert.ts';
import type { SocketAddress } from '#base/ip.ts';
import { Errno, type Fd, type Io } from '#io/io.ts';
import { SOCKADDR_BYTES } from '#io/socket-address.ts';
import { copyBytes } from '#packet/copy.ts';
import { PACKET_HEADROOM } from '#packet/virtio-header.ts';
import type { Worker } from '#proxy/proxy-contract.ts';

import { READ_BATCH, ReadLoop, ReadNext, type ReadOwner } from './read-loop.ts';

/** Takes what a socket receives. */
export interface DatagramReceiver {
  /**
   * One datagram; ownership of the slot passes. The sender's sockaddr stands at `address` during the call.
   */
  onDatagram(offset: number, length: number, address: number): void;
  /** After the last datagram of a batch. */
  onDatagramBatchEnd(): void;
  /** Datagrams that came and for which there was no slot. */
  onDatagramsLost(count: number): void;
}

/** Where datagrams are sent to. */
export interface DatagramPeer {
  /** struct sockaddr of the socket's family. */
  readonly sockaddr: Uint8Array;
  /** `count` datagrams could not be sent; `errno` is positive. */
  onUnsent(count: number, errno: number): void;
}

/** Most datagrams in one send: what kernels before 6.9 accept. */
const RUN_COUNT_MAX = 64;

/** Most bytes in one send: one UDP datagram's worth, whatever the headers are. */
const RUN_BYTES_MAX = 65000;

/** Bytes that may wait in the socket, each way; a burst of a few milliseconds at 10 Gb/s. */
const BUFFER_BYTES = 8 << 20;

/**
 * The parts of the socket's own memory: struct msghdr (56 bytes), one iovec (16), address, control data;
 * each twice.
 */
const RECEIVE = 0;
const SEND = 512;
const VECTOR = 64;
const NAME = 96;
const CONTROL = 256;
const CONTROL_BYTES = 64;
const MEMORY_BYTES = 1024;

const MSGHDR_NAME_LENGTH = 8;
const MSGHDR_CONTROL_LENGTH = 40;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
/** cmsg_len of a two-byte value, and the space that it takes. */
const SEGMENT_CMSG_LENGTH = 18;
const SEGMENT_CMSG_SPACE = 24;

/** One UDP socket. */
export class GueSocket implements ReadOwner {
  readonly fd: Fd;
  readonly #io: Io;
  readonly #worker: Worker;
  readonly #receiver: DatagramReceiver;
  readonly #loop: ReadLoop;
  readonly #memory: number;
  readonly #staging: number;
  readonly #flushLater = (): void => {
    this.#isFlushDue = false;
    this.flush();
  };
  #isFlushDue = false;
  #peer: DatagramPeer | null = null;
  #runBytes = 0;
  #runCount = 0;
  /** Size of each datagram of the run but the last. */
  #runSize = 0;
  /** The run's last datagram was shorter, so nothing can follow it. */
  #isRunClosed = false;
  /** False once the kernel or the way out has refused segmentation. */
  #canSegment = true;
  #closed = false;

  /** @throws RAMP_LISTEN when the address cannot be bound. */
  constructor(
    worker: Worker,
    receiver: DatagramReceiver,
    options: { readonly listen: SocketAddress & { readonly family: 4 | 6 }; readonly inherited?: Fd },
  ) {
    const { io } = worker;
    this.#io = io;
    this.#worker = worker;
    this.#receiver = receiver;
    this.#loop = new ReadLoop(io, this);
    this.#memory = io.arena.reserve(MEMORY_BYTES);
    this.#staging = io.arena.reserve(RUN_BYTES_MAX, 4096);
    this.#prepareMessage(this.#memory + RECEIVE, CONTROL_BYTES);
    this.#prepareMessage(this.#memory + SEND, 0);
    this.#setVector(this.#memory + SEND, this.#staging);
    this.fd = options.inherited ?? this.#open(options.listen);
  }

  start(): void {
    this.#loop.start(this.fd);
  }

  /** Sends what waits and ends; with `keep` the descriptor stays open for a new process. */
  close(keep = false): void {
    if (this.#closed) return;
    this.flush();
    this.#closed = true;
    this.#loop.stop();
    if (!keep) this.#io.close(this.fd);
  }

  /** Copies one datagram for sending. What cannot be sent later is told to `peer.onUnsent`. */
  send(peer: DatagramPeer, offset: number, length: number): void {
    assert(length > 0 && !this.#closed);
    const fits =
      peer === this.#peer &&
      !this.#isRunClosed &&
      length <= this.#runSize &&
      this.#runCount < RUN_COUNT_MAX &&
      this.#runBytes + length <= RUN_BYTES_MAX;
    if (!fits) this.flush();
    if (length > RUN_BYTES_MAX) {
      peer.onUnsent(1, Errno.EMSGSIZE);
      return;
    }
    if (this.#runCount === 0) {
      this.#peer = peer;
      this.#runSize = length;
    }
    copyBytes(this.#io.arena.view, offset, this.#staging + this.#runBytes, length);
    this.#runBytes += length;
    this.#runCount++;
    if (length < this.#runSize || !this.#canSegment) this.#isRunClosed = true;
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    queueMicrotask(this.#flushLater);
  }

  /** Sends the run. */
  flush(): void {
    const peer = this.#peer;
    if (peer === null) return;
    const count = this.#runCount;
    const message = this.#memory + SEND;
    this.#io.arena.bytes.set(peer.sockaddr, message + NAME);
    const { view } = this.#io.arena;
    view.setUint32(message + MSGHDR_NAME_LENGTH, peer.sockaddr.length, true);
    let result = this.#transmit(0, this.#runBytes, count > 1 ? this.#runSize : 0);
    if (result < 0 && count > 1 && isSegmentationRefused(result)) {
      this.#canSegment = false;
      result = this.#transmitSingly();
    }
    this.#peer = null;
    this.#runBytes = 0;
    this.#runCount = 0;
    this.#runSize = 0;
    this.#isRunClosed = false;
    if (result < 0) peer.onUnsent(count, -result);
  }

  onReadable(): ReadNext {
    const { packets } = this.#worker;
    const { view } = this.#io.arena;
    const message = this.#memory + RECEIVE;
    let next: ReadNext = ReadNext.Wait;
    for (let count = 0; count < READ_BATCH; count++) {
      const slot = packets.acquire();
      if (slot < 0) {
        next = ReadNext.Pause;
        break;
      }
      const offset = slot + PACKET_HEADROOM;
      this.#setVector(message, offset);
      view.setUint32(message + VECTOR + 8, packets.slotBytes - PACKET_HEADROOM, true);
      view.setUint32(message + MSGHDR_NAME_LENGTH, SOCKADDR_BYTES, true);
      view.setUint32(message + MSGHDR_CONTROL_LENGTH, CONTROL_BYTES, true);
      const length = this.#io.tryRecvmsg(this.fd, message, 0);
      if (length <= 0) {
        packets.release(slot);
        if (length === -Errno.EAGAIN) break;
        if (length === -Errno.EBADF) next = ReadNext.Stop;
        if (next === ReadNext.Stop) break;
        // An empty datagram, or an ICMP error that came back for an earlier one.
        continue;
      }
      const size = this.#segmentSize(message);
      if (size <= 0 || length <= size) this.#receiver.onDatagram(offset, length, message + NAME);
      else this.#split(offset, length, size);
      if (this.#closed) return ReadNext.Stop;
    }
    this.#receiver.onDatagramBatchEnd();
    return next;
  }

  /** Gives each datagram that the kernel had joined a slot of its own, since each gets its own owner. */
  #split(offset: number, length: number, size: number): void {
    const { packets } = this.#worker;
    const { view } = this.#io.arena;
    const address = this.#memory + RECEIVE + NAME;
    for (let at = 0; at < length; at += size) {
      const slot = packets.acquire();
      if (slot < 0) {
        this.#receiver.onDatagramsLost(Math.ceil((length - at) / size));
        break;
      }
      const part = Math.min(size, length - at);
      copyBytes(view, offset + at, slot + PACKET_HEADROOM, part);
      this.#receiver.onDatagram(slot + PACKET_HEADROOM, part, address);
    }
    packets.release(offset);
  }

  /** Bytes of each joined datagram, 0 when it is one alone. */
  #segmentSize(message: number): number {
    const { view } = this.#io.arena;
    if (view.getUint32(message + MSGHDR_CONTROL_LENGTH, true) < 20) return 0;
    const control = message + CONTROL;
    const isGro =
      view.getInt32(control + 8, true) === SOL_UDP && view.getInt32(control + 12, true) === UDP_GRO;
    return isGro ? view.getInt32(control + 16, true) : 0;
  }

  #transmit(start: number, length: number, segment: number): number {
    const { view } = this.#io.arena;
    const message = this.#memory + SEND;
    this.#setVector(message, this.#staging + start);
    view.setUint32(message + VECTOR + 8, length, true);
    view.setUint32(message + MSGHDR_CONTROL_LENGTH, segment === 0 ? 0 : SEGMENT_CMSG_SPACE, true);
    if (segment !== 0) {
      const control = message + CONTROL;
      view.setUint32(control, SEGMENT_CMSG_LENGTH, true);
      view.setUint32(control + 4, 0, true);
      view.setInt32(control + 8, SOL_UDP, true);
      view.setInt32(control + 12, UDP_SEGMENT, true);
      view.setUint16(control + 16, segment, true);
    }
    return this.#io.trySendmsg(this.fd, message, 0);
  }

  #transmitSingly(): number {
    let result = 0;
    for (let start = 0; start < this.#runBytes; start += this.#runSize) {
      result = Math.min(result, this.#transmit(start, Math.min(this.#runSize, this.#runBytes - start), 0));
    }
    return result;
  }

  #open(listen: SocketAddress & { readonly family: 4 | 6 }): Fd {
    const io = this.#io;
    const fd = io.socket(listen.family === 4 ? 'udp4' : 'udp6');
    try {
      if (listen.family === 6) io.setOption(fd, 'v6-only', 0);
      io.setOption(fd, 'receive-buffer', BUFFER_BYTES);
      io.setOption(fd, 'send-buffer', BUFFER_BYTES);
      try {
        io.setOption(fd, 'udp-receive-offload', 1);
      } catch {
        // Before Linux 5.0 each datagram comes alone.
      }
      io.bind(fd, listen);
      return fd;
    } catch (error) {
      io.close(fd);
      throw error;
    }
  }

  #prepareMessage(message: number, controlLength: number): void {
    const { view, address, bytes } = this.#io.arena;
    bytes.fill(0, message, message + SEND);
    writePointer(view, message, address + message + NAME);
    writePointer(view, message + 16, address + message + VECTOR);
    view.setUint32(message + 24, 1, true);
    writePointer(view, message + 32, address + message + CONTROL);
    view.setUint32(message + MSGHDR_CONTROL_LENGTH, controlLength, true);
  }

  #setVector(message: number, offset: number): void {
    writePointer(this.#io.arena.view, message + VECTOR, this.#io.arena.address + offset);
  }
}

/**
 * Addresses are below 2^47, so exact as numbers; two halves, because a BigInt would be garbage for each
 * packet.
 */
function writePointer(view: DataView, at: number, pointer: number): void {
  view.setUint32(at, pointer >>> 0, true);
  view.setUint32(at + 4, Math.floor(pointer / 0x1_0000_0000), true);
}

/**
 * EIO: the device cannot finish checksums of segments. EINVAL: too many, or too large for the route's MTU.
 */
function isSegmentationRefused(result: number): boolean {
  return result === -Errno.EIO || result === -Errno.EINVAL || result === -Errno.EMSGSIZE;
}
