import { assert } from '#base/assert.ts';

import type { Completion, TimerId } from './io.ts';

const SLOT_BITS = 6;
const SLOTS = 1 << SLOT_BITS;
const SLOT_MASK = SLOTS - 1;
/**
 * Five levels of 64 slots of a millisecond reach 2^30 ms, over twelve days; a longer delay is cut to that.
 */
const LEVELS = 5;
/** The longest delay in milliseconds: within the top level, short of its current slot. */
export const DELAY_MS_MAX = 2 ** (SLOT_BITS * LEVELS) - 2 ** (SLOT_BITS * (LEVELS - 1)) - 1;

/** List heads: one for each slot, one for timers that are about to fire. */
const DUE = LEVELS * SLOTS;
const NONE = -1;

const INDEX_BITS = 20;
const INDEX_MASK = (1 << INDEX_BITS) - 1;
const GENERATION_MASK = (1 << (31 - INDEX_BITS)) - 1;
/** A million timers: two for each of half a million connections, which no single worker holds. */
const TIMERS_MAX = 1 << INDEX_BITS;

/**
 * A hierarchical timing wheel: levels of 64 slots, each slot of a level as long as the whole level below.
 * Arming and cancelling cost O(1) and allocate nothing once the tables have grown; a timer moves down a level
 * at most `LEVELS − 1` times. `nextTick` tells when something has to be done, so nothing ticks while nothing
 * is due.
 *
 * The wheel is pure: it knows ticks (whole milliseconds since its start), not clocks.
 */
export class TimerWheel {
  readonly #heads = new Int32Array(LEVELS * SLOTS + 1).fill(NONE);
  readonly #tails = new Int32Array(LEVELS * SLOTS + 1).fill(NONE);
  /** Bit per slot: two words a level. */
  readonly #occupied = new Int32Array(LEVELS * 2);
  #next = new Int32Array(64);
  #previous = new Int32Array(64);
  /** The list that a timer is in, NONE when it is free. */
  #list = new Int32Array(64).fill(NONE);
  #deadline = new Float64Array(64);
  #ids = new Int32Array(64);
  readonly #completions: (Completion | null)[] = [];
  readonly #tags: number[] = [];
  #free = NONE;
  /** Index 0 is never used, so that no timer has the id 0. */
  #made = 1;
  #armed = 0;
  #tick = 0;

  /** Timers armed now. */
  get armed(): number {
    return this.#armed;
  }

  /** Arms a timer for absolute `tick`; one that lies in the past fires at the next `advance`. */
  arm(tick: number, completion: Completion, tag: number): TimerId {
    const index = this.#take();
    const nearest = this.#tick + 1;
    const farthest = this.#tick + DELAY_MS_MAX;
    this.#deadline[index] = Math.max(nearest, Math.min(tick, farthest));
    this.#completions[index] = completion;
    this.#tags[index] = tag;
    this.#armed++;
    this.#place(index);
    return this.#ids[index] as number;
  }

  /** Disarms; false when the timer has fired, was cancelled or never was. */
  cancel(timer: TimerId): boolean {
    const index = timer & INDEX_MASK;
    if (index >= this.#made || this.#ids[index] !== timer || this.#list[index] === NONE) return false;
    this.#unlink(index);
    this.#release(index);
    return true;
  }

  /**
   * The tick at which `advance` has something to do: a timer fires or moves down a level. Infinity when
   * nothing is armed. Never later than the earliest deadline.
   */
  nextTick(): number {
    if (this.#armed === 0) return Number.POSITIVE_INFINITY;
    if (this.#heads[DUE] !== NONE) return this.#tick;
    let nearest = Number.POSITIVE_INFINITY;
    for (let level = 0; level < LEVELS; level++) {
      const distance = this.#distance(level);
      if (distance < 0) continue;
      // Slots of a level start at multiples of the slot's length.
      const length = 2 ** (SLOT_BITS * level);
      const start = (Math.floor(this.#tick / length) + distance) * length;
      if (start < nearest) nearest = start;
    }
    return nearest;
  }

  /**
   * Goes on to `tick` and fires what is due, in order of deadline, through `fire`. Timers armed meanwhile
   * fire too when they are due by then. `fire` must not throw.
   */
  advance(tick: number, fire: (completion: Completion, tag: number) => void): void {
    for (;;) {
      const next = this.nextTick();
      if (next > tick) break;
      this.#tick = next;
      this.#cascade();
      this.#fireDue(fire);
    }
    if (tick > this.#tick) this.#tick = tick;
  }

  /** Drops every timer without firing it. */
  clear(): void {
    for (let index = 0; index < this.#made; index++) {
      if (this.#list[index] === NONE) continue;
      this.#unlink(index);
      this.#release(index);
    }
    assert(this.#armed === 0);
  }

  /** Moves the timers of the slots that begin at this tick down; those of level 0 become due. */
  #cascade(): void {
    for (let level = LEVELS - 1; level >= 0; level--) {
      const length = 2 ** (SLOT_BITS * level);
      if (this.#tick % length !== 0) continue;
      const list = level * SLOTS + (Math.floor(this.#tick / length) & SLOT_MASK);
      for (let index = this.#heads[list] as number; index !== NONE; index = this.#heads[list] as number) {
        this.#unlink(index);
        if ((this.#deadline[index] as number) <= this.#tick) this.#link(index, DUE);
        else this.#place(index);
      }
    }
  }

  #fireDue(fire: (completion: Completion, tag: number) => void): void {
    for (let index = this.#heads[DUE] as number; index !== NONE; index = this.#heads[DUE] as number) {
      const completion = this.#completions[index] as Completion;
      const tag = this.#tags[index] as number;
      this.#unlink(index);
      this.#release(index);
      fire(completion, tag);
    }
  }

  /** Puts a timer into the slot of the lowest level that reaches its deadline. */
  #place(index: number): void {
    const deadline = this.#deadline[index] as number;
    const delay = deadline - this.#tick;
    assert(delay > 0 && delay <= DELAY_MS_MAX);
    let level = 0;
    let length = 1;
    // In slots of this level: less than a whole turn ahead, so that a slot never mixes two turns.
    while (Math.floor(deadline / length) - Math.floor(this.#tick / length) >= SLOTS) {
      level++;
      length *= SLOTS;
    }
    this.#link(index, level * SLOTS + (Math.floor(deadline / length) & SLOT_MASK));
  }

  /**
   * How many slots ahead of the current one the next occupied slot of `level` is, 1 to 63; −1 when all are
   * empty.
   */
  #distance(level: number): number {
    const low = this.#occupied[2 * level] as number;
    const high = this.#occupied[2 * level + 1] as number;
    if ((low | high) === 0) return -1;
    const current = Math.floor(this.#tick / 2 ** (SLOT_BITS * level)) & SLOT_MASK;
    const first = firstBitFrom(low, high, current + 1);
    if (first >= 0) return first - current;
    const wrapped = firstBitFrom(low, high, 0);
    assert(wrapped >= 0 && wrapped !== current, 'a timer lies in the slot that has begun');
    return wrapped + SLOTS - current;
  }

  #link(index: number, list: number): void {
    const tail = this.#tails[list] as number;
    this.#list[index] = list;
    this.#next[index] = NONE;
    this.#previous[index] = tail;
    if (tail === NONE) this.#heads[list] = index;
    else this.#next[tail] = index;
    this.#tails[list] = index;
    if (list !== DUE) this.#occupied[list >> 5] = (this.#occupied[list >> 5] as number) | (1 << (list & 31));
  }

  #unlink(index: number): void {
    const list = this.#list[index] as number;
    const next = this.#next[index] as number;
    const previous = this.#previous[index] as number;
    if (previous === NONE) this.#heads[list] = next;
    else this.#next[previous] = next;
    if (next === NONE) this.#tails[list] = previous;
    else this.#previous[next] = previous;
    if (list !== DUE && this.#heads[list] === NONE) {
      this.#occupied[list >> 5] = (this.#occupied[list >> 5] as number) & ~(1 << (list & 31));
    }
  }

  #take(): number {
    const index = this.#free;
    if (index !== NONE) {
      this.#free = this.#next[index] as number;
      return index;
    }
    assert(this.#made < TIMERS_MAX, 'a million timers are armed');
    if (this.#made === this.#next.length) this.#grow();
    this.#ids[this.#made] = this.#made;
    return this.#made++;
  }

  #release(index: number): void {
    const id = this.#ids[index] as number;
    this.#ids[index] = ((((id >>> INDEX_BITS) + 1) & GENERATION_MASK) << INDEX_BITS) | index;
    this.#list[index] = NONE;
    this.#completions[index] = null;
    this.#next[index] = this.#free;
    this.#free = index;
    this.#armed--;
  }

  #grow(): void {
    const length = this.#next.length * 2;
    this.#next = copyInto(new Int32Array(length), this.#next);
    this.#previous = copyInto(new Int32Array(length), this.#previous);
    this.#list = copyInto(new Int32Array(length).fill(NONE), this.#list);
    this.#deadline = copyInto(new Float64Array(length), this.#deadline);
    this.#ids = copyInto(new Int32Array(length), this.#ids);
  }
}

function copyInto<T extends Int32Array | Float64Array>(target: T, source: T): T {
  target.set(source);
  return target;
}

/** Index of the lowest bit set at or above `from` in the 64 bits `high:low`; −1 when there is none. */
function firstBitFrom(low: number, high: number, from: number): number {
  if (from >= 64) return -1;
  if (from < 32) {
    const masked = low & (-1 << from);
    if (masked !== 0) return 31 - Math.clz32(masked & -masked);
    return high === 0 ? -1 : 63 - Math.clz32(high & -high);
  }
  const masked = high & (-1 << (from - 32));
  return masked === 0 ? -1 : 63 - Math.clz32(masked & -masked);
}
