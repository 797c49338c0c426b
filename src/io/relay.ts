import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';

import type { SlotPool } from './arena.ts';
import { type Completion, Errno, type Fd, type Io, type OperationId, PollMask } from './io.ts';
import { isLayered } from './layered.ts';
import { type Pipe, PipePool } from './pipe-pool.ts';

/**
 * A full-duplex byte mover between two connected streams. After readiness it moves by system calls that
 * answer at once: small amounts are copied through a slot (two calls), large ones spliced through a pipe (no
 * copy). Slots and pipes are borrowed only while data are in flight, so an idle relay holds two armed polls
 * and nothing else.
 *
 * ```
 *   a ── readable ──► [slot | pipe] ── writable ──► b      direction 0
 *   a ◄── writable ── [slot | pipe] ◄── readable ── b      direction 1
 * ```
 *
 * The end of one side's stream is passed on as the end of writing on the other; the way back goes on. When
 * both have ended, both descriptors are closed. A broken side resets the other.
 */
export interface RelayOwner {
  /**
   * The relay is over and its descriptors are closed; called exactly once, unless the owner ended it by
   * `close` or `detach`.
   *
   * @param side 0 for `a` and 1 for `b`: whose stream ended first, or who failed.
   * @param errno 0 after a clean end, else the positive errno.
   */
  onRelayEnd(relay: Relay, side: RelaySide, errno: number): void;
}

/** 0 is the first descriptor, 1 the second. */
export type RelaySide = 0 | 1;

/** Bytes that were received before the relay started, in a slot that the relay releases to `pool`. */
export interface RelayPrefix {
  readonly pool: SlotPool;
  readonly offset: number;
  readonly length: number;
}

/** What a relay is started with. */
export interface RelayOptions {
  /** Bytes already received from `a`, to be sent to `b` first. */
  readonly fromA?: RelayPrefix;
  /** Bytes already received from `b`, to be sent to `a` first. */
  readonly fromB?: RelayPrefix;
}

/** A slot holds what an interactive exchange sends at once; a full one means that more is to come. */
const SLOT_BYTES = 16_384;
/** Slots hold data only while the receiver is slow; without a free one, data are spliced. */
const SLOT_COUNT_DEFAULT = 256;
const SPLICE_BYTES_MAX = 1024 * 1024;
/** Bytes that one direction moves before others have their turn. */
const TURN_BYTES_MAX = 2 * 1024 * 1024;
/** Calls that one direction makes before others have their turn. */
const TURN_CALLS_MAX = 64;
/** How long a direction that cannot splice waits for a slot: all are with slow receivers. */
const STARVED_MS = 5;
/** A pass that moves less than this goes back to copying. */
const BULK_BYTES_MIN = 8192;

const WATCHED = PollMask.In | PollMask.Out | PollMask.ReadHangUp;
const MEANS_READABLE = PollMask.In | PollMask.ReadHangUp | PollMask.HangUp | PollMask.Error;
const MEANS_WRITABLE = PollMask.Out | PollMask.HangUp | PollMask.Error;
const MEANS_ENDED = PollMask.ReadHangUp | PollMask.HangUp | PollMask.Error;

/** What the relays of one engine share: pipes, slots, and the queue of those that have more to move. */
export class RelayHub {
  readonly io: Io;
  readonly pipes: PipePool;
  readonly slots: SlotPool;
  #again: Direction[] = [];
  #scheduled = false;

  constructor(io: Io, { slotCount = SLOT_COUNT_DEFAULT } = {}) {
    this.io = io;
    this.pipes = new PipePool(io);
    this.slots = io.arena.pool(SLOT_BYTES, slotCount);
  }

  /** Starts moving bytes between `a` and `b`, which the relay owns from here on; both non-blocking. */
  start(a: Fd, b: Fd, owner: RelayOwner, options: RelayOptions = {}): Relay {
    return new Relay(this, a, b, owner, options);
  }

  /** Closes idle pipes; relays must have ended. */
  close(): void {
    this.pipes.close();
  }

  /** Runs `direction` again after other work. */
  runLater(direction: Direction): void {
    this.#again.push(direction);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#run);
  }

  /** Runs `direction` again when slots may have come back. */
  runWithSlots(direction: Direction): void {
    setTimeout(() => direction.resume(), STARVED_MS);
  }

  readonly #run = (): void => {
    this.#scheduled = false;
    const directions = this.#again;
    this.#again = [];
    for (const direction of directions) direction.resume();
  };
}

/** One running relay; made by `RelayHub.start`. */
export class Relay implements Completion {
  readonly a: Fd;
  readonly b: Fd;
  /** Milliseconds of `io.now()` when bytes moved last. */
  lastActivity: number;
  readonly #hub: RelayHub;
  readonly #owner: RelayOwner;
  readonly #forth: Direction;
  readonly #back: Direction;
  readonly #polls: readonly [OperationId, OperationId];
  #firstEnd: RelaySide = 0;
  #over = false;

  constructor(hub: RelayHub, a: Fd, b: Fd, owner: RelayOwner, options: RelayOptions) {
    this.a = a;
    this.b = b;
    this.#hub = hub;
    this.#owner = owner;
    this.lastActivity = hub.io.now();
    this.#forth = new Direction(hub, this, a, b, 0, options.fromA);
    this.#back = new Direction(hub, this, b, a, 1, options.fromB);
    this.#polls = [hub.io.poll(a, WATCHED, true, this, 0), hub.io.poll(b, WATCHED, true, this, 1)];
    // What was received ahead does not wait for an edge.
    if (options.fromA !== undefined) hub.runLater(this.#forth);
    if (options.fromB !== undefined) hub.runLater(this.#back);
  }

  /** Bytes delivered to `b` and to `a`. */
  get bytesForth(): number {
    return this.#forth.bytes;
  }

  get bytesBack(): number {
    return this.#back.bytes;
  }

  get over(): boolean {
    return this.#over;
  }

  /** Readiness of side `tag`. */
  onCompletion(tag: number, result: number): void {
    if (this.#over) return;
    const side: RelaySide = tag === 0 ? 0 : 1;
    if (result < 0) {
      this.fail(side, -result);
      return;
    }
    const from = side === 0 ? this.#forth : this.#back;
    const to = side === 0 ? this.#back : this.#forth;
    if ((result & PollMask.Error) !== 0) {
      const errno = this.#hub.io.socketError(side === 0 ? this.a : this.b);
      if (errno !== 0) {
        this.fail(side, errno);
        return;
      }
    }
    if ((result & MEANS_ENDED) !== 0) from.sourceEnded = true;
    if ((result & MEANS_READABLE) !== 0) from.readable = true;
    if ((result & MEANS_WRITABLE) !== 0) to.writable = true;
    from.run();
    if (!this.#over) to.run();
  }

  /** A direction has passed its end on. */
  directionDone(side: RelaySide): void {
    const other = side === 0 ? this.#back : this.#forth;
    if (!other.done) {
      this.#firstEnd = side;
      return;
    }
    this.#finish(false);
    this.#owner.onRelayEnd(this, this.#firstEnd, 0);
  }

  /** Side `side` is broken: the other learns it by a reset. */
  fail(side: RelaySide, errno: number): void {
    if (this.#over) return;
    this.#finish(true);
    this.#owner.onRelayEnd(this, side, errno);
  }

  /** Ends the relay by resetting both sides, for limits and policy. The owner is not called. */
  close(): void {
    if (!this.#over) this.#finish(true);
  }

  /**
   * Stops moving and gives both descriptors back, untouched and open, when nothing is in flight; false (and
   * the relay goes on) when something is. Armed polls are cancelled. The owner is not called.
   */
  detach(): boolean {
    if (this.#over || this.#forth.holding || this.#back.holding) return false;
    this.#over = true;
    for (const poll of this.#polls) this.#hub.io.cancel(poll);
    return true;
  }

  #finish(reset: boolean): void {
    this.#over = true;
    this.#forth.drop();
    this.#back.drop();
    const { io } = this.#hub;
    for (const fd of [this.a, this.b]) {
      if (reset) resetOnClose(io, fd);
      io.close(fd);
    }
  }
}

/** Unix sockets know no reset; closing them is all that can be done. */
function resetOnClose(io: Io, fd: Fd): void {
  try {
    io.setOption(fd, 'linger-zero', 1);
  } catch {
    // The socket may be beyond options already, and is closed next anyway.
  }
}

/** One way of a relay. Public fields are for `Relay` alone. */
class Direction {
  bytes = 0;
  readable = false;
  writable = true;
  /** The source has announced an end or error, so a short read does not mean that nothing is left. */
  sourceEnded = false;
  /** The end of the source's stream was passed on. */
  done = false;
  readonly #hub: RelayHub;
  readonly #relay: Relay;
  readonly #source: Fd;
  readonly #target: Fd;
  readonly #side: RelaySide;
  /** Both ends are the kernel's, so bytes can pass through a pipe. */
  readonly #splices: boolean;
  /** Moving by splice, because the last pass had much to move. */
  #bulk = false;
  #queued = false;
  /** It had something to move and nothing to move it in. */
  #starved = false;
  /** What is in flight: bytes in the slot, or in the pipe. */
  #held = 0;
  #slotPool: SlotPool | null = null;
  #slot = 0;
  #slotPosition = 0;
  #pipe: Pipe | null = null;

  constructor(hub: RelayHub, relay: Relay, source: Fd, target: Fd, side: RelaySide, prefix?: RelayPrefix) {
    this.#hub = hub;
    this.#relay = relay;
    this.#source = source;
    this.#target = target;
    this.#side = side;
    this.#splices = !isLayered(source) && !isLayered(target);
    if (prefix === undefined) return;
    assert(prefix.length > 0, 'a prefix has at least one byte');
    this.#queued = true;
    this.#slotPool = prefix.pool;
    this.#slot = prefix.offset;
    this.#slotPosition = prefix.offset;
    this.#held = prefix.length;
  }

  /** Bytes are in flight. */
  get holding(): boolean {
    return this.#held > 0;
  }

  /** Moves what can be moved, within the turn's limits. */
  run(): void {
    if (this.#queued || this.done) return;
    if (!(this.#held > 0 ? this.writable : this.readable)) return;
    const before = this.bytes;
    for (let calls = 0; calls < TURN_CALLS_MAX; calls++) {
      if (this.#held > 0) {
        if (!this.writable || !this.#push()) break;
      } else {
        if (!this.readable || !this.#pull()) break;
      }
      if (this.bytes - before >= TURN_BYTES_MAX) break;
    }
    if (this.#relay.over) return;
    const moved = this.bytes - before;
    if (moved > 0) this.#relay.lastActivity = this.#hub.io.now();
    if (this.#bulk && moved < BULK_BYTES_MIN) this.#bulk = false;
    if (this.#held === 0) this.#giveBack();
    const more = this.#held > 0 ? this.writable : this.readable;
    if (!more || this.done) return;
    this.#queued = true;
    if (this.#starved) this.#hub.runWithSlots(this);
    else this.#hub.runLater(this);
    this.#starved = false;
  }

  /** Called by the hub's queue. */
  resume(): void {
    this.#queued = false;
    if (!this.#relay.over) this.run();
    else this.drop();
  }

  /** Gives up what is in flight. */
  drop(): void {
    this.#giveBack();
    this.#held = 0;
  }

  /** Takes from the source into a slot or a pipe; false when there is nothing. */
  #pull(): boolean {
    const slot = this.#bulk ? -1 : this.#hub.slots.acquire();
    let result: number;
    if (slot >= 0) {
      this.#slotPool = this.#hub.slots;
      this.#slot = slot;
      this.#slotPosition = slot;
      result = this.#hub.io.tryRecv(this.#source, slot, SLOT_BYTES);
      if (result === SLOT_BYTES) this.#bulk = this.#splices;
      else if (result > 0 && !this.sourceEnded) this.readable = false;
    } else if (!this.#splices) {
      this.#starved = true;
      return false;
    } else {
      const pipe = this.#borrowPipe();
      if (pipe === null) return false;
      result = this.#hub.io.trySplice(this.#source, pipe.writer, SPLICE_BYTES_MAX);
    }
    if (result > 0) {
      this.#held = result;
      return true;
    }
    this.#releaseSlot();
    this.#pulledNothing(result);
    return false;
  }

  /** A pipe; null when there is none, which ends the relay. */
  #borrowPipe(): Pipe | null {
    if (this.#pipe !== null) return this.#pipe;
    try {
      this.#pipe = this.#hub.pipes.take();
    } catch (error) {
      const errno = error instanceof RampartError ? error.errno : Errno.EMFILE;
      this.#relay.fail(this.#side, errno);
    }
    return this.#pipe;
  }

  /** The end of the stream, an empty source, or an error. */
  #pulledNothing(result: number): void {
    if (result === -Errno.EAGAIN) {
      this.readable = false;
    } else if (result === 0) {
      this.done = true;
      this.#giveBack();
      this.#hub.io.shutdownWrite(this.#target);
      this.#relay.directionDone(this.#side);
    } else if (result !== -Errno.EINTR) {
      this.#relay.fail(this.#side, -result);
    }
  }

  /** Gives to the target; false when it takes no more or is broken. */
  #push(): boolean {
    const { io } = this.#hub;
    const result =
      this.#slotPool === null
        ? io.trySplice((this.#pipe as Pipe).reader, this.#target, this.#held)
        : io.trySend(this.#target, this.#slotPosition, this.#held);
    if (result > 0) {
      this.#held -= result;
      this.#slotPosition += result;
      this.bytes += result;
      if (this.#held === 0) this.#releaseSlot();
      return true;
    }
    if (result === -Errno.EAGAIN) this.writable = false;
    else if (result !== -Errno.EINTR) {
      this.#relay.fail(this.#side === 0 ? 1 : 0, result === 0 ? Errno.EPIPE : -result);
    }
    return false;
  }

  #releaseSlot(): void {
    if (this.#slotPool === null) return;
    this.#slotPool.release(this.#slot);
    this.#slotPool = null;
  }

  #giveBack(): void {
    const inPipe = this.#slotPool === null;
    this.#releaseSlot();
    if (this.#pipe === null) return;
    this.#hub.pipes.give(this.#pipe, this.#held === 0 || !inPipe);
    this.#pipe = null;
  }
}
