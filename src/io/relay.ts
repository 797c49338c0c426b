import { assert } from '#base/assert.ts';

import type { SlotPool } from './arena.ts';
import {
  type Completion,
  CompletionFlag,
  Errno,
  type Fd,
  type Io,
  type OperationId,
  PollMask,
} from './io.ts';
import { type Pipe, PipePool } from './pipe-pool.ts';

/** The two ends of a relay. */
export const RelaySide = Object.freeze({ Downstream: 0, Upstream: 1 } as const);

/** One of the ends. */
export type RelaySide = (typeof RelaySide)[keyof typeof RelaySide];

/** Is told when a relay is over. */
export interface RelayOwner {
  /**
   * Once, after both descriptors were closed (not after `abort` or `detach`). With `errno` 0 both directions ended in
   * order and `side` is the one that closed first; else `side` failed with it and the other was reset.
   */
  onRelayEnd(relay: Relay, side: RelaySide, errno: number): void;
}

/** Bytes in a slot that were read already; the relay releases the slot. */
export interface RelayPrefix {
  readonly offset: number;
  readonly length: number;
  readonly pool: SlotPool;
}

/** What a relay is made of. Both descriptors are connected streams, and the relay's from here on. */
export interface RelayOptions {
  readonly downstream: Fd;
  readonly upstream: Fd;
  readonly owner: RelayOwner;
  /** Goes to the upstream first. */
  readonly prefix?: RelayPrefix;
  /** Goes to the client first. */
  readonly prefixDown?: RelayPrefix;
}

/** Bytes that one splice moves at most: the pipe's size. */
const CHUNK = 1 << 19;

/** Splices of one direction in one turn; then everybody else is served before it goes on. */
const ROUNDS_MAX = 8;

/** Both directions of a descriptor are watched by one poll for as long as the relay lives. */
const WATCHED = PollMask.In | PollMask.Out | PollMask.ReadHangUp;

/**
 * Moves bytes both ways between two streams without copying them: by non-blocking splice through a pipe, after the
 * kernel has said that there is something to do. An idle relay holds no pipe. What one side says is passed on as it was
 * said: FIN as a shutdown of writing (RFC 9293 section 3.6), an abort as a reset.
 */
export class Relay implements Completion {
  readonly #io: Io;
  readonly #owner: RelayOwner;
  readonly #pipes: PipePool;
  readonly #up: Direction;
  readonly #down: Direction;
  /** Operations under way; the owner hears of the end when none is left. */
  #pending = 0;
  readonly #polls: [OperationId, OperationId] = [0, 0];
  #state: 'new' | 'running' | 'closed' | 'detaching' | 'detached' = 'new';
  #firstClosed: RelaySide | -1 = -1;
  #lastActivity: number;
  #onDetached: ((detached: boolean) => void) | null = null;

  constructor(io: Io, options: RelayOptions) {
    this.#io = io;
    this.#owner = options.owner;
    this.#pipes = PipePool.of(io);
    this.#up = new Direction(options.downstream, options.upstream, options.prefix ?? null);
    this.#down = new Direction(options.upstream, options.downstream, options.prefixDown ?? null);
    this.#lastActivity = io.now();
  }

  /** Payload bytes that the upstream, or the client, was given. */
  get bytesUp(): number {
    return this.#up.bytes;
  }

  get bytesDown(): number {
    return this.#down.bytes;
  }

  /** When bytes last moved, as `io.now()` counts. */
  get lastActivity(): number {
    return this.#lastActivity;
  }

  start(): void {
    assert(this.#state === 'new');
    this.#state = 'running';
    this.#watch(RelaySide.Downstream);
    this.#watch(RelaySide.Upstream);
    for (const direction of [this.#up, this.#down]) {
      if (direction.prefix === null) this.#run(direction);
      else this.#sendPrefix(direction);
      if (this.#state !== 'running') return;
    }
  }

  /** Resets both sides; the owner is not told. */
  abort(): void {
    if (this.#state === 'new') {
      for (const { prefix } of [this.#up, this.#down]) prefix?.pool.release(prefix.offset);
    } else if (this.#state !== 'running') return;
    this.#shut(true);
  }

  /**
   * Stops moving bytes and gives both descriptors back, open, when no byte is on its way between them: true. False
   * when the relay ended before that. The byte counters stay.
   */
  detach(): Promise<boolean> {
    assert(this.#state === 'running' && this.#onDetached === null);
    return new Promise((resolve) => {
      this.#onDetached = resolve;
      this.#tryDetach();
    });
  }

  onCompletion(tag: number, result: number, flags: number): void {
    if ((flags & CompletionFlag.More) === 0) this.#pending--;
    if (this.#state === 'detaching') {
      this.#finishDetach();
      return;
    }
    if (tag >= TAG_PREFIX) {
      this.#onPrefixSent(tag === TAG_PREFIX ? this.#up : this.#down, result);
      return;
    }
    if (this.#state !== 'running') return;
    if (tag >= TAG_AGAIN) {
      const direction = tag === TAG_AGAIN ? this.#up : this.#down;
      direction.again = false;
      this.#run(direction);
      return;
    }
    this.#onEvent(tag as RelaySide, result, flags);
  }

  #onEvent(side: RelaySide, result: number, flags: number): void {
    if (result < 0) {
      this.#fail(side, -result);
      return;
    }
    const fd = side === RelaySide.Downstream ? this.#up.from : this.#down.from;
    if ((result & PollMask.Error) !== 0) {
      const errno = this.#io.socketError(fd);
      if (errno !== 0) {
        this.#fail(side, errno);
        return;
      }
    }
    if ((flags & CompletionFlag.More) === 0) this.#watch(side);
    const reading = side === RelaySide.Downstream ? this.#up : this.#down;
    const writing = side === RelaySide.Downstream ? this.#down : this.#up;
    if (!reading.again) this.#run(reading);
    if (this.#state === 'running' && writing.inPipe > 0 && !writing.again) this.#run(writing);
  }

  #watch(side: RelaySide): void {
    const fd = side === RelaySide.Downstream ? this.#up.from : this.#down.from;
    this.#pending++;
    this.#polls[side] = this.#io.poll(fd, WATCHED, true, this, side);
  }

  /** Moves what can be moved in one direction, in bounded work. */
  #run(direction: Direction): void {
    if (direction.prefix !== null || direction.ended) return;
    const io = this.#io;
    for (let round = 0; round < ROUNDS_MAX; round++) {
      if (direction.inPipe === 0 && !this.#fill(direction)) return;
      const pipe = direction.pipe as Pipe;
      const moved = io.trySplice(pipe.readEnd, direction.to, direction.inPipe);
      if (moved > 0) {
        direction.inPipe -= moved;
        direction.bytes += moved;
        this.#lastActivity = io.now();
        continue;
      }
      if (moved !== -Errno.EAGAIN) this.#fail(this.#sideOf(direction.to), -moved);
      return;
    }
    this.#again(direction);
  }

  /** Fills the direction's pipe; false when there is nothing to fill it with now. */
  #fill(direction: Direction): boolean {
    try {
      direction.pipe ??= this.#pipes.take();
    } catch {
      this.#fail(this.#sideOf(direction.from), Errno.EMFILE);
      return false;
    }
    const count = this.#io.trySplice(direction.from, direction.pipe.writeEnd, CHUNK);
    if (count > 0) {
      direction.inPipe = count;
      return true;
    }
    this.#pipes.give(direction.pipe);
    direction.pipe = null;
    if (count === 0) this.#onEndOfStream(direction);
    else if (count !== -Errno.EAGAIN) this.#fail(this.#sideOf(direction.from), -count);
    else if (this.#onDetached !== null) this.#tryDetach();
    return false;
  }

  #onEndOfStream(direction: Direction): void {
    direction.ended = true;
    if (this.#firstClosed < 0) this.#firstClosed = this.#sideOf(direction.from);
    if (this.#up.ended && this.#down.ended) {
      this.#shut(false);
      this.#owner.onRelayEnd(this, this.#firstClosed as RelaySide, 0);
      return;
    }
    this.#io.shutdownWrite(direction.to);
  }

  /** Goes on after everybody else had a turn: the poll completes at once, for there is something to do. */
  #again(direction: Direction): void {
    direction.again = true;
    const waitsForRoom = direction.inPipe > 0;
    const fd = waitsForRoom ? direction.to : direction.from;
    const mask = waitsForRoom ? PollMask.Out : PollMask.In;
    this.#pending++;
    this.#io.poll(fd, mask, false, this, direction === this.#up ? TAG_AGAIN : TAG_AGAIN + 1);
  }

  #sendPrefix(direction: Direction): void {
    const prefix = direction.prefix as RelayPrefix;
    if (prefix.length === 0) {
      this.#onPrefixSent(direction, 0);
      return;
    }
    this.#pending++;
    const tag = direction === this.#up ? TAG_PREFIX : TAG_PREFIX + 1;
    this.#io.send(direction.to, prefix.offset, prefix.length, this, tag);
  }

  #onPrefixSent(direction: Direction, result: number): void {
    const prefix = direction.prefix as RelayPrefix;
    direction.prefix = null;
    prefix.pool.release(prefix.offset);
    if (this.#state !== 'running') return;
    if (result < 0) {
      this.#fail(this.#sideOf(direction.to), -result);
      return;
    }
    direction.bytes += result;
    this.#run(direction);
  }

  #fail(side: RelaySide, errno: number): void {
    this.#shut(true);
    this.#owner.onRelayEnd(this, side, errno);
  }

  #sideOf(fd: Fd): RelaySide {
    return fd === this.#up.from ? RelaySide.Downstream : RelaySide.Upstream;
  }

  /** Closes both descriptors, by RST with `reset`, and gives the pipes back. */
  #shut(reset: boolean): void {
    this.#state = 'closed';
    const io = this.#io;
    for (const direction of [this.#up, this.#down]) {
      if (direction.pipe !== null) this.#pipes.discard(direction.pipe, direction.inPipe === 0);
      direction.pipe = null;
      if (reset) {
        try {
          io.setOption(direction.from, 'linger-zero', 1);
        } catch {
          // A dead socket needs no reset.
        }
      }
      io.close(direction.from);
    }
    this.#onDetached?.(false);
    this.#onDetached = null;
  }

  #tryDetach(): void {
    if (this.#up.busy || this.#down.busy) return;
    this.#state = 'detaching';
    this.#io.cancel(this.#polls[RelaySide.Downstream]);
    this.#io.cancel(this.#polls[RelaySide.Upstream]);
    this.#finishDetach();
  }

  #finishDetach(): void {
    if (this.#pending > 0) return;
    this.#state = 'detached';
    this.#onDetached?.(true);
    this.#onDetached = null;
  }
}

const TAG_AGAIN = 2;
const TAG_PREFIX = 4;

/** One way of a relay. */
class Direction {
  readonly from: Fd;
  readonly to: Fd;
  prefix: RelayPrefix | null;
  /** Held only while bytes are in it. */
  pipe: Pipe | null = null;
  /** Bytes in the pipe. */
  inPipe = 0;
  /** Bytes given to `to`. */
  bytes = 0;
  /** `from` has said everything. */
  ended = false;
  /** Waits for its next turn. */
  again = false;

  constructor(from: Fd, to: Fd, prefix: RelayPrefix | null) {
    this.from = from;
    this.to = to;
    this.prefix = prefix;
  }

  get busy(): boolean {
    return this.prefix !== null || this.inPipe > 0 || this.again;
  }
}
