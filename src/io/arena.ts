import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';

/**
 * The one block of memory that an engine shares with the kernel. It is mapped once, never moves and is never
 * collected; memory is committed by the kernel only when touched, so its size is a reservation.
 * Everything in it is named by its offset, a small integer.
 */
export class Arena {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Address of offset 0 in this process; below 2^47, so exact as a number. 0 in the memory engine. */
  readonly address: number;
  #next = 0;
  readonly #pools: SlotPool[] = [];

  constructor(memory: ArrayBuffer, address: number) {
    this.bytes = new Uint8Array(memory);
    this.view = new DataView(memory);
    this.address = address;
  }

  /**
   * Reserves `length` bytes for the life of the arena. Alignment is a power of two. @throws RAMP_NO_MEMORY
   */
  reserve(length: number, alignment = 64): number {
    assert(length > 0 && (alignment & (alignment - 1)) === 0);
    const offset = Math.ceil(this.#next / alignment) * alignment;
    if (offset + length > this.bytes.length) {
      throw new RampartError(
        'RAMP_NO_MEMORY',
        `the arena has ${this.bytes.length - this.#next} of ${this.bytes.length} bytes left and ${length} ` +
          'were asked for; raise limits.arena',
      );
    }
    this.#next = offset + length;
    return offset;
  }

  /** Reserves a pool of `count` slots of `slotBytes` each. A pool lives as long as the arena. */
  pool(slotBytes: number, count: number): SlotPool {
    const pool = new SlotPool(this.reserve(slotBytes * count, 4096), slotBytes, count);
    this.#pools.push(pool);
    return pool;
  }

  /** Slots of all pools that are in use now. */
  get slotsInUse(): number {
    let total = 0;
    for (const pool of this.#pools) total += pool.inUse;
    return total;
  }
}

/**
 * Equal slots with a free list. A slot has exactly one owner; `acquire` gives ownership, `release` ends it.
 * The free list is last-in first-out, so a busy process touches few pages.
 */
export class SlotPool {
  /** Arena offset of slot 0. */
  readonly base: number;
  readonly slotBytes: number;
  readonly count: number;
  readonly #free: Int32Array;
  /** 1 where the slot is in use: a second release is a programmer's error. */
  readonly #used: Uint8Array;
  #freeCount: number;
  /** Slots lent to the kernel by `lend`: nobody's data is in them, so they count as free. */
  #lentCount = 0;
  #reclaim: (() => void) | null = null;

  constructor(base: number, slotBytes: number, count: number) {
    assert(slotBytes > 0 && count > 0);
    this.base = base;
    this.slotBytes = slotBytes;
    this.count = count;
    this.#free = new Int32Array(count);
    this.#used = new Uint8Array(count);
    for (let i = 0; i < count; i++) this.#free[i] = count - 1 - i;
    this.#freeCount = count;
  }

  /** Arena offset of a free slot, or −1 when none is left. */
  acquire(): number {
    if (this.#freeCount === 0) {
      if (this.#lentCount === 0 || this.#reclaim === null) return -1;
      this.#reclaim();
      if (this.#freeCount === 0) return -1;
    }
    const index = this.#free[--this.#freeCount] as number;
    this.#used[index] = 1;
    return this.base + index * this.slotBytes;
  }

  /** Gives back the slot that contains arena offset `offset` (any offset inside it). */
  release(offset: number): void {
    const index = Math.floor((offset - this.base) / this.slotBytes);
    assert(
      index >= 0 && index < this.count && this.#used[index] === 1,
      'slot released twice or not of this pool',
    );
    this.#used[index] = 0;
    this.#free[this.#freeCount++] = index;
  }

  /** Arena offset of slot `index`. */
  offsetOf(index: number): number {
    return this.base + index * this.slotBytes;
  }

  /** Index of the slot that contains `offset`. */
  indexOf(offset: number): number {
    return Math.floor((offset - this.base) / this.slotBytes);
  }

  /**
   * For an engine: lends a free slot to the kernel, which may fill it for a pooled receive. Returns the
   * index, or −1 when no slot is free. A lent slot counts as free until `take`.
   */
  lend(): number {
    if (this.#freeCount === 0) return -1;
    this.#lentCount++;
    return this.#free[--this.#freeCount] as number;
  }

  /** For an engine: the kernel filled lent slot `index`, which is in use from here on. */
  take(index: number): void {
    assert(this.#lentCount > 0 && this.#used[index] === 0, 'slot taken that was not lent');
    this.#lentCount--;
    this.#used[index] = 1;
  }

  /** For an engine: the kernel gave lent slot `index` back unused. */
  unlend(index: number): void {
    assert(this.#lentCount > 0 && this.#used[index] === 0, 'slot given back that was not lent');
    this.#lentCount--;
    this.#free[this.#freeCount++] = index;
  }

  /**
   * For an engine: `reclaim` is called when `acquire` finds only lent slots left; it should `unlend` some.
   */
  onExhausted(reclaim: (() => void) | null): void {
    this.#reclaim = reclaim;
  }

  /** Slots that somebody owns. */
  get inUse(): number {
    return this.count - this.#freeCount - this.#lentCount;
  }

  /** Slots that can be acquired. */
  get available(): number {
    return this.#freeCount + this.#lentCount;
  }
}
