/**
 * How descriptors that deliver whole packets are read: wait once until there is something, then take
 * packets one by one without waiting until there are none, or until a batch is full. While nothing comes,
 * no slot is held; while much comes, one wait serves a whole batch. (Many reads under way at once would
 * wake them all for each packet.)
 *
 * ```
 *              ┌───────────── Wait ─────────────┐
 *   start ─► waiting ──readable──► owner.onReadable ──Stop──► stopped
 *              ▲                         │
 *              └──── timer ── paused ◄─Pause
 * ```
 */
import { assert } from '#base/assert.ts';
import { type Completion, type Fd, type Io, type OperationId, PollMask, type TimerId } from '#io/io.ts';

/** What happens after `onReadable`. */
export const ReadNext = Object.freeze({
  /** Wait for more. */
  Wait: 0,
  /** There is more, but no slot for it: try again in a moment. The kernel keeps or drops meanwhile. */
  Pause: 1,
  /** Nothing will come any more. */
  Stop: 2,
} as const);

/** One of the numbers of `ReadNext`. */
export type ReadNext = (typeof ReadNext)[keyof typeof ReadNext];

/** Takes packets when there are some. */
export interface ReadOwner {
  /**
   * Takes at most `READ_BATCH` packets. Called after a wait, also when the descriptor failed or was closed
   * by the peer.
   */
  onReadable(): ReadNext;
}

/**
 * Packets per wait. Enough that waiting costs little beside them, few enough that a busy tunnel does not
 * keep others waiting for long: 64 super-packets are about 1 ms.
 */
export const READ_BATCH = 64;

/** How long reading rests when the pool of packet slots is empty. */
const PAUSE_MS = 1;

const TAG_READABLE = 0;
const TAG_PAUSED = 1;

/** One descriptor's reading. */
export class ReadLoop implements Completion {
  readonly #io: Io;
  readonly #owner: ReadOwner;
  #fd: Fd = -1;
  #wait: OperationId = 0;
  #pause: TimerId = 0;
  #state: 'stopped' | 'waiting' | 'paused' | 'reading' = 'stopped';
  /** Counts starts, so that the end of a wait that `stop` cancelled is told from the wait after it. */
  #round = 0;

  constructor(io: Io, owner: ReadOwner) {
    this.#io = io;
    this.#owner = owner;
  }

  /** Begins to wait on `fd`, which stays its owner's and must not be closed before `stop`. */
  start(fd: Fd): void {
    assert(this.#state === 'stopped' && fd >= 0);
    this.#fd = fd;
    this.#await();
  }

  /** Ends it; `onReadable` is not called again. */
  stop(): void {
    if (this.#state === 'waiting') this.#io.cancel(this.#wait);
    if (this.#state === 'paused') this.#io.cancelTimer(this.#pause);
    this.#state = 'stopped';
    this.#round = (this.#round + 2) & 0xffff;
  }

  onCompletion(tag: number, _result: number, _flags: number): void {
    if (tag >> 1 !== this.#round >> 1 || this.#state === 'stopped') return;
    this.#state = 'reading';
    const next = this.#owner.onReadable();
    // `stop` may have been called meanwhile, and `start` after it.
    if (this.#state !== 'reading') return;
    if (next === ReadNext.Wait) {
      this.#await();
    } else if (next === ReadNext.Pause) {
      this.#state = 'paused';
      this.#pause = this.#io.timer(PAUSE_MS, this, this.#round | TAG_PAUSED);
    } else {
      this.#state = 'stopped';
    }
  }

  #await(): void {
    this.#state = 'waiting';
    this.#wait = this.#io.poll(this.#fd, PollMask.In, false, this, this.#round | TAG_READABLE);
  }
}
