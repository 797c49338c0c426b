import { assert } from '#base/assert.ts';
import type { SlotPool } from '#io/arena.ts';
import { type Completion, Errno, type Fd, type Io, type OperationId } from '#io/io.ts';
import type { MessageHead } from '#protocol/http/message-head.ts';

/** What sockets of the HTTP engine share: memory, and somebody who tries again when it has run out. */
export interface SocketWorld {
  readonly io: Io;
  readonly streams: SlotPool;
  /** The pool was empty: calls `socket.receive` again a little later. */
  starved(socket: HttpSocket): void;
}

const TAG_RECEIVE = 0;
const TAG_SEND = 1;

/**
 * One stream descriptor of the HTTP engine: at most one receive and one send under way. An idle one holds no
 * buffer.
 *
 * Input that has come and is not consumed lies from `inAt` to `inEnd` in the slot `inSlot`, which this owns.
 * Nothing more is received before it is consumed, so a slow reader on the other side holds up the sender
 * here.
 */
export abstract class HttpSocket implements Completion {
  readonly fd: Fd;
  readonly world: SocketWorld;
  /** Slot of unconsumed input, −1 for none. */
  inSlot = -1;
  inAt = 0;
  inEnd = 0;
  receiving = false;
  sending = false;
  closed = false;
  /** The peer has sent FIN. */
  ended = false;
  bytesIn = 0;
  bytesOut = 0;
  #receiveOperation: OperationId = 0;
  #sendSlot = -1;
  /** Beginning of a head whose rest has not come yet, kept outside the pool: a slow sender holds no slot. */
  #parked: Uint8Array | null = null;
  #parkedHead: MessageHead | null = null;
  /** A whole head with what came behind it, while slots are scarce. */
  #shelved: Uint8Array | null = null;
  #shelvedAt = 0;
  /** Input behind `inEnd` that found no room in that slot. */
  #laterSlot = -1;
  #laterAt = 0;
  #laterEnd = 0;

  constructor(world: SocketWorld, fd: Fd) {
    this.world = world;
    this.fd = fd;
  }

  /** New input lies from `inAt` to `inEnd`. */
  protected abstract onInput(): void;
  /** The peer ended its side (`errno` 0), or the connection broke. */
  protected abstract onEnd(errno: number): void;
  /** The send is over; `errno` is 0 when all bytes are in the kernel's hands. */
  protected abstract onSent(errno: number): void;

  /** Unconsumed bytes that are here. */
  get available(): number {
    return this.inSlot < 0 ? 0 : this.inEnd - this.inAt;
  }

  /** Waits for input, unless it does so already. Only when all that came is consumed. */
  receive(): void {
    if (this.receiving || this.closed || this.ended) return;
    assert(this.inSlot < 0);
    this.receiving = true;
    this.#receiveOperation = this.world.io.recvPooled(this.fd, this.world.streams, this, TAG_RECEIVE);
  }

  /** Ends a receive under way; its completion comes as `onEnd(ECANCELED)` or as input. */
  cancelReceive(): void {
    if (this.receiving) this.world.io.cancel(this.#receiveOperation);
  }

  /** Sends `length` bytes at `start`, which lie in slot `slot`; the slot is released when they are sent. */
  send(slot: number, start: number, length: number): void {
    assert(!this.sending && !this.closed && length > 0);
    this.sending = true;
    this.#sendSlot = slot;
    this.bytesOut += length;
    this.world.io.send(this.fd, start, length, this, TAG_SEND);
  }

  /** Takes input that was read before this existed. */
  adopt(slot: number, length: number): void {
    assert(this.inSlot < 0 && length > 0);
    this.#accept(slot, slot + length);
  }

  onCompletion(tag: number, result: number, flags: number): void {
    if (tag === TAG_SEND) {
      this.sending = false;
      this.world.streams.release(this.#sendSlot);
      this.#sendSlot = -1;
      if (!this.closed) this.onSent(result < 0 ? -result : 0);
      return;
    }
    this.receiving = false;
    if (result > 0) {
      const slot = this.world.streams.offsetOf(flags >>> 16);
      if (this.closed) {
        this.world.streams.release(slot);
        return;
      }
      this.#accept(slot, slot + result);
      this.onInput();
    } else if (!this.closed) {
      if (result === -Errno.ENOBUFS) {
        this.world.starved(this);
        return;
      }
      if (result === 0) this.ended = true;
      this.onEnd(-result);
    }
  }

  /** All input up to `at` is consumed. When that is everything, the slot is given back. */
  consumeTo(at: number): void {
    assert(this.inSlot >= 0 && at >= this.inAt && at <= this.inEnd);
    this.inAt = at;
    if (at === this.inEnd) this.dropInput();
  }

  /** Gives back the input's slot; what was kept for later comes to its place. */
  dropInput(): void {
    if (this.inSlot >= 0) this.world.streams.release(this.inSlot);
    this.#shift();
  }

  /** Passes ownership of the input's slot to the caller. */
  takeInput(): number {
    const slot = this.inSlot;
    assert(slot >= 0);
    this.#shift();
    return slot;
  }

  #shift(): void {
    this.inSlot = this.#laterSlot;
    this.inAt = this.#laterAt;
    this.inEnd = this.#laterEnd;
    this.#laterSlot = -1;
  }

  /**
   * Puts the beginning of a head aside until more of it comes: all input, from `inAt` on. `head` goes on
   * where it was when the input is whole again. True when more was here already: parse again.
   */
  park(head: MessageHead): boolean {
    assert(this.inSlot >= 0 && this.#parked === null);
    this.#parked = this.world.io.arena.bytes.slice(this.inAt, this.inEnd);
    this.#parkedHead = head;
    head.moveTo(this.#parked, 0);
    this.dropInput();
    if (this.inSlot < 0) return false;
    this.#unpark(this.#parked);
    return true;
  }

  /**
   * Gives the input's slot back for a while, because slots have run out: keeps `head` and what lies behind it
   * outside the pool. `unshelve` brings it back. Does nothing where that would not free the slot.
   */
  shelve(head: MessageHead): void {
    if (this.inSlot < 0 || this.#laterSlot >= 0) return;
    const { bytes, base } = head.fields;
    assert(bytes === this.world.io.arena.bytes && base >= this.inSlot && base <= this.inAt);
    const copy = bytes.slice(base, this.inEnd);
    this.#shelved = copy;
    this.#shelvedAt = this.inAt - base;
    head.moveTo(copy, 0);
    this.dropInput();
  }

  /** Input is outside the pool. */
  get isShelved(): boolean {
    return this.#shelved !== null;
  }

  /** Brings shelved input back. False while there is no slot for it and one more. */
  unshelve(): boolean {
    const shelved = this.#shelved;
    if (shelved === null) return true;
    const { io, streams } = this.world;
    const length = shelved.length - this.#shelvedAt;
    if (streams.available < (length > 0 ? 2 : 1)) return false;
    this.#shelved = null;
    if (length === 0) return true;
    const slot = streams.acquire();
    if (slot < 0) {
      this.#shelved = shelved;
      return false;
    }
    io.arena.bytes.set(shelved.subarray(this.#shelvedAt), slot);
    this.inSlot = slot;
    this.inAt = slot;
    this.inEnd = slot + length;
    return true;
  }

  /** Whether a head has begun to come. */
  get hasParked(): boolean {
    return this.#parked !== null;
  }

  #accept(slot: number, end: number): void {
    this.bytesIn += end - slot;
    this.inSlot = slot;
    this.inAt = slot;
    this.inEnd = end;
    if (this.#parked !== null) this.#unpark(this.#parked);
  }

  #unpark(parked: Uint8Array): void {
    const { io, streams } = this.world;
    const { bytes } = io.arena;
    const slot = this.inSlot;
    const length = this.inEnd - this.inAt;
    const total = parked.length + length;
    const head = this.#parkedHead as MessageHead;
    this.#parked = null;
    this.#parkedHead = null;
    if (total <= streams.slotBytes) {
      bytes.copyWithin(slot + parked.length, this.inAt, this.inEnd);
      bytes.set(parked, slot);
      this.inAt = slot;
      this.inEnd = slot + total;
      head.moveTo(bytes, slot);
      return;
    }
    // A head near its limit and a full slot behind it: what fits goes together, the rest waits for its turn.
    const joined = streams.acquire();
    if (joined < 0) {
      // Out of memory: the head that was begun is lost, and with it the connection.
      this.close();
      return;
    }
    const room = streams.slotBytes - parked.length;
    bytes.set(parked, joined);
    bytes.copyWithin(joined + parked.length, this.inAt, this.inAt + room);
    this.#laterSlot = slot;
    this.#laterAt = this.inAt + room;
    this.#laterEnd = this.inEnd;
    this.inSlot = joined;
    this.inAt = joined;
    this.inEnd = joined + streams.slotBytes;
    head.moveTo(bytes, joined);
  }

  /**
   * Closes with FIN (or RST where unread input is left). Buffers of operations under way go back when they
   * are over.
   */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.#parked = null;
    this.#shelved = null;
    this.dropInput();
    this.dropInput();
    this.world.io.close(this.fd);
  }

  /** Closes with RST, so that the peer cannot take what it got for complete. */
  reset(): void {
    if (this.closed) return;
    try {
      this.world.io.setOption(this.fd, 'linger-zero', 1);
    } catch {
      // The socket is dead already; closing is all that is left.
    }
    this.close();
  }

  /**
   * Gives the descriptor away: this object is done with it, and the caller owns it. Nothing may be under way.
   */
  detach(): Fd {
    assert(!this.receiving && !this.sending && !this.closed);
    this.closed = true;
    this.dropInput();
    this.dropInput();
    return this.fd;
  }
}
