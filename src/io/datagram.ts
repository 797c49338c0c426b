import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';

import type { SlotPool } from './arena.ts';
import { type Completion, Errno, type Fd, type Io, type TimerId } from './io.ts';
import {
  CONTROL_HEADER_BYTES,
  ControlLevel,
  ControlType,
  controlLevel,
  controlSpace,
  controlType,
  hasControl,
  layoutMessage,
  MessageFlag,
  messageControlLength,
  messageFlags,
  messageNameLength,
  nextControl,
  setMessageControlLength,
  setMessageNameLength,
  setVector,
  writeControl,
} from './message.ts';
import { SOCKADDR_BYTES } from './socket-address.ts';

/** Receives what comes in on a `DatagramPort`. */
export interface DatagramOwner {
  /**
   * A datagram, or with `segmentSize` > 0 a train of equal ones (the last may be shorter), lies at arena
   * offset `offset` in a slot of the port's pool, which the owner has to release or to send. During the call
   * `port.remote`, `port.destination` and `port.localIp` are valid.
   */
  onDatagram(port: DatagramPort, offset: number, length: number, segmentSize: number): void;
  /** The network reported an error about something that was sent, such as ECONNREFUSED; positive errno. */
  onDatagramError(port: DatagramPort, errno: number): void;
}

/** Sizes of a `DatagramPort`. */
export interface DatagramOptions {
  /**
   * Buffers for receiving. With receive offload the kernel fills up to 64 KiB at once; a slot should hold
   * that.
   */
  readonly pool: SlotPool;
  /** Receives kept under way; more let a burst complete in one batch. Default 16. */
  readonly receiveCount?: number;
  /** Sends under way, beyond which packets are dropped. Default 256. */
  readonly sendCount?: number;
  /** Bytes of each slot left free before the datagram, for headers to come. Default 0. */
  readonly headroom?: number;
}

const RECEIVE_COUNT_DEFAULT = 16;
const SEND_COUNT_DEFAULT = 256;
/** The longest payload of a datagram over IPv4. */
const DATAGRAM_BYTES_MAX = 65_507;
const MSG_DONTWAIT = 0x40;
/** How long receiving pauses when no buffer is free. */
const STARVED_MS = 2;

/** Layout of a header in the arena: struct msghdr, struct iovec, the peer's address, control messages. */
const HEADER_VECTOR = 64;
const HEADER_NAME = 96;
const HEADER_CONTROL = 256;
const HEADER_BYTES = 512;
const CONTROL_BYTES = HEADER_BYTES - HEADER_CONTROL;

/**
 * A UDP socket with a fixed set of message headers: so many receives are always under way, and each send uses
 * a free header or is dropped. Nothing is allocated per packet. The port owns its descriptor.
 */
export class DatagramPort implements Completion {
  readonly fd: Fd;
  /** Arena offset of the sender's socket address, and its length; valid during `onDatagram`. */
  remote = 0;
  remoteLength = 0;
  /**
   * Arena offset of the socket address that the packet was sent to before redirection, −1 when not known;
   * likewise.
   */
  destination = -1;
  /**
   * Arena offset of the local IP address (4 or 16 bytes) that the packet came to, −1 when not known;
   * likewise.
   */
  localIp = -1;
  /** Index of the interface that the packet came in by, 0 when not known; likewise. */
  interfaceIndex = 0;
  /**
   * Datagrams or trains received, sent, dropped on sending, and dropped on receiving because a slot was too
   * short.
   */
  received = 0;
  sent = 0;
  dropped = 0;
  truncated = 0;
  readonly #io: Io;
  readonly #owner: DatagramOwner;
  readonly #pool: SlotPool;
  readonly #headroom: number;
  readonly #receiveCount: number;
  readonly #sendCount: number;
  /** Arena offset of the first header; receives come first, then sends. */
  readonly #headers: number;
  /** Slot of each header, −1 when it has none. */
  readonly #slots: Int32Array;
  readonly #lengths: Int32Array;
  readonly #segmentSizes: Int32Array;
  readonly #sendPools: (SlotPool | null)[];
  readonly #freeSends: Int32Array;
  #freeSendCount: number;
  /** The timer after which receives that wait for a buffer are tried again, 0 when none waits. */
  #retryTimer: TimerId = 0;
  /** The interface segments itself; cleared when it refuses. */
  #segmentation = true;
  #closed = false;

  /** Takes `fd`, a bound or connected UDP socket, over. Receiving begins with `start`. */
  constructor(io: Io, fd: Fd, owner: DatagramOwner, options: DatagramOptions) {
    this.fd = fd;
    this.#io = io;
    this.#owner = owner;
    this.#pool = options.pool;
    this.#headroom = options.headroom ?? 0;
    this.#receiveCount = options.receiveCount ?? RECEIVE_COUNT_DEFAULT;
    this.#sendCount = options.sendCount ?? SEND_COUNT_DEFAULT;
    assert(this.#headroom < this.#pool.slotBytes, 'a slot has room beside the headroom');
    const count = this.#receiveCount + this.#sendCount;
    this.#headers = io.arena.reserve(count * HEADER_BYTES);
    this.#slots = new Int32Array(count).fill(-1);
    this.#lengths = new Int32Array(count);
    this.#segmentSizes = new Int32Array(count);
    this.#sendPools = new Array<SlotPool | null>(count).fill(null);
    this.#freeSends = new Int32Array(this.#sendCount);
    this.#freeSendCount = this.#sendCount;
    for (let i = 0; i < count; i++) this.#layout(i);
    for (let i = 0; i < this.#sendCount; i++) this.#freeSends[i] = count - 1 - i;
  }

  #layout(index: number): void {
    const header = this.#headers + index * HEADER_BYTES;
    layoutMessage(this.#io.arena, header, {
      name: header + HEADER_NAME,
      nameLength: SOCKADDR_BYTES,
      vectors: header + HEADER_VECTOR,
      vectorCount: 1,
      control: header + HEADER_CONTROL,
      controlLength: CONTROL_BYTES,
    });
    if (index < this.#receiveCount) return;
    const control = { level: ControlLevel.Udp, type: ControlType.UdpSegment, dataLength: 2 };
    writeControl(this.#io.arena.view, header + HEADER_CONTROL, control);
  }

  /** Sends under way. */
  get sending(): number {
    return this.#sendCount - this.#freeSendCount;
  }

  /** Starts receiving. */
  start(): void {
    for (let i = 0; i < this.#receiveCount; i++) this.#receive(i);
  }

  /**
   * Sends `length` bytes at arena offset `offset`, cut into datagrams of `segmentSize` bytes when that is not
   * 0. The slot of `pool` that holds them belongs to the port from here on and is released when they are sent
   * or dropped. The address is copied; a length of 0 sends to the connected peer.
   *
   * Its many numbers are the price of a hot path without objects.
   *
   * @returns QueueFull when as many sends as allowed are under way, else None.
   */
  send(
    pool: SlotPool,
    offset: number,
    length: number,
    segmentSize: number,
    address: number,
    addressLength: number,
  ): DropReason {
    assert(length > 0 && length <= DATAGRAM_BYTES_MAX, 'a datagram has 1 to 65507 bytes');
    if (this.#freeSendCount === 0 || this.#closed) {
      pool.release(offset);
      this.dropped++;
      return DropReason.QueueFull;
    }
    const index = this.#freeSends[--this.#freeSendCount] as number;
    const { arena } = this.#io;
    const header = this.#headers + index * HEADER_BYTES;
    this.#slots[index] = offset;
    this.#lengths[index] = length;
    this.#segmentSizes[index] = segmentSize;
    this.#sendPools[index] = pool;
    const { view } = arena;
    for (let i = 0; i < addressLength; i += 4) {
      view.setUint32(header + HEADER_NAME + i, view.getUint32(address + i));
    }
    setMessageNameLength(view, header, addressLength);
    setVector(arena, header + HEADER_VECTOR, offset, length);
    const train = segmentSize > 0 && segmentSize < length;
    if (train && !this.#segmentation) {
      this.#sendSingly(index);
      return DropReason.None;
    }
    if (train) view.setUint16(header + HEADER_CONTROL + CONTROL_HEADER_BYTES, segmentSize, true);
    setMessageControlLength(view, header, train ? controlSpace(2) : 0);
    this.#io.sendmsg(this.fd, header, MSG_DONTWAIT, this, index);
    return DropReason.None;
  }

  onCompletion(tag: number, result: number): void {
    if (tag < this.#receiveCount) this.#onReceived(tag, result);
    else this.#onSent(tag, result);
  }

  /** Closes the socket. Buffers come back when what was under way has ended. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#retryTimer !== 0) this.#io.cancelTimer(this.#retryTimer);
    this.#io.close(this.fd);
  }

  // --- receiving -------------------------------------------------------------------------------------------

  #receive(index: number): void {
    const { arena } = this.#io;
    let slot = this.#slots[index] as number;
    if (slot < 0) {
      slot = this.#pool.acquire();
      if (slot < 0) {
        this.#starve();
        return;
      }
      this.#slots[index] = slot;
    }
    const header = this.#headers + index * HEADER_BYTES;
    const room = this.#pool.slotBytes - this.#headroom;
    setVector(arena, header + HEADER_VECTOR, slot + this.#headroom, room);
    setMessageNameLength(arena.view, header, SOCKADDR_BYTES);
    setMessageControlLength(arena.view, header, CONTROL_BYTES);
    this.#io.recvmsg(this.fd, header, 0, this, index);
  }

  /** No buffer is free: this receive waits, and all that wait are tried again soon. */
  #starve(): void {
    if (this.#retryTimer === 0) this.#retryTimer = this.#io.timer(STARVED_MS, this.#retry, 0);
  }

  readonly #retry: Completion = {
    onCompletion: () => {
      this.#retryTimer = 0;
      for (let i = 0; i < this.#receiveCount; i++) if (this.#slots[i] === -1) this.#receive(i);
    },
  };

  #onReceived(index: number, result: number): void {
    const slot = this.#slots[index] as number;
    if (this.#closed || (result < 0 && endsReceiving(result))) {
      this.#pool.release(slot);
      this.#slots[index] = -1;
      if (!this.#closed) this.#owner.onDatagramError(this, -result);
      return;
    }
    if (result < 0) {
      this.#owner.onDatagramError(this, -result);
    } else {
      const { view } = this.#io.arena;
      const header = this.#headers + index * HEADER_BYTES;
      if ((messageFlags(view, header) & MessageFlag.Truncated) !== 0) {
        this.truncated++;
      } else {
        this.#slots[index] = -1;
        this.received++;
        this.remote = header + HEADER_NAME;
        this.remoteLength = messageNameLength(view, header);
        const segmentSize = this.#readControl(view, header, result);
        this.#owner.onDatagram(this, slot + this.#headroom, result, segmentSize);
      }
    }
    if (!this.#closed) this.#receive(index);
    else if ((this.#slots[index] as number) >= 0) {
      this.#pool.release(slot);
      this.#slots[index] = -1;
    }
  }

  /** Notes what the control messages say; returns the segment size of a train, 0 for a single datagram. */
  #readControl(view: DataView, header: number, length: number): number {
    let segmentSize = 0;
    this.destination = -1;
    this.localIp = -1;
    this.interfaceIndex = 0;
    let control = header + HEADER_CONTROL;
    const end = control + messageControlLength(view, header);
    while (hasControl(view, control, end)) {
      const data = control + CONTROL_HEADER_BYTES;
      const level = controlLevel(view, control);
      const type = controlType(view, control);
      if (level === ControlLevel.Udp) {
        if (type === ControlType.UdpGro) segmentSize = view.getInt32(data, true);
      } else if (level === ControlLevel.Ip) {
        if (type === ControlType.IpOriginalDestination) this.destination = data;
        else if (type === ControlType.IpPacketInfo) {
          this.interfaceIndex = view.getInt32(data, true);
          this.localIp = data + 8;
        }
      } else if (level === ControlLevel.Ipv6) {
        if (type === ControlType.Ipv6OriginalDestination) this.destination = data;
        else if (type === ControlType.Ipv6PacketInfo) {
          this.localIp = data;
          this.interfaceIndex = view.getInt32(data + 16, true);
        }
      }
      control = nextControl(view, control);
    }
    return segmentSize < length ? segmentSize : 0;
  }

  // --- sending ---------------------------------------------------------------------------------------------

  #onSent(index: number, result: number): void {
    const train = messageControlLength(this.#io.arena.view, this.#headers + index * HEADER_BYTES) > 0;
    if (train && result === -Errno.EIO && !this.#closed) {
      // The interface cannot checksum segments (udp(7), UDP_SEGMENT): from here on they are sent one by one.
      this.#segmentation = false;
      this.#sendSingly(index);
      return;
    }
    this.#endSend(index, result);
  }

  #endSend(index: number, result: number): void {
    (this.#sendPools[index] as SlotPool).release(this.#slots[index] as number);
    this.#sendPools[index] = null;
    this.#slots[index] = -1;
    this.#freeSends[this.#freeSendCount++] = index;
    if (result >= 0) {
      this.sent++;
      return;
    }
    this.dropped++;
    if (result === -Errno.EAGAIN || result === -Errno.ENOBUFS || this.#closed) return;
    this.#owner.onDatagramError(this, -result);
  }

  /** Sends a train as single datagrams, at once. */
  #sendSingly(index: number): void {
    const { arena } = this.#io;
    const header = this.#headers + index * HEADER_BYTES;
    const offset = this.#slots[index] as number;
    const length = this.#lengths[index] as number;
    const segmentSize = this.#segmentSizes[index] as number;
    setMessageControlLength(arena.view, header, 0);
    let result = 0;
    for (let at = 0; at < length && result >= 0; at += segmentSize) {
      setVector(arena, header + HEADER_VECTOR, offset + at, Math.min(segmentSize, length - at));
      result = this.#io.trySendmsg(this.fd, header, 0);
    }
    this.#endSend(index, result);
  }
}

/** Errors after which nothing can be received any more; all others report something that was sent. */
function endsReceiving(result: number): boolean {
  const errno = -result;
  return errno === Errno.ECANCELED || errno === Errno.EBADF || errno === Errno.EINVAL;
}
