import { assert } from '#base/assert.ts';

import type { Arena, SlotPool } from './arena.ts';
import type { Ring } from './ffi/ring.ts';

/** A buffer ring has at most this many entries. */
const ENTRIES_MAX = 32_768;
const STOCK_FIRST = 64;
/** Bytes of struct io_uring_buf; the tail lies in the last two bytes of the first one. */
const ENTRY_BYTES = 16;
const TAIL_OFFSET = 14;

/**
 * The buffer ring of one pool: slots that the kernel may fill for pooled receives. Slots in it are *lent*:
 * they count as free in the pool, and `acquire` gets them back when nothing else is left.
 *
 * Only as many slots are lent as receives are under way, up to a target that doubles whenever the kernel ran
 * dry while the pool had more; so a pool that is used by both sides is not divided in advance.
 */
export class PooledBuffers {
  readonly pool: SlotPool;
  readonly group: number;
  /** Pooled receives under way. */
  waiting = 0;
  readonly #ring: Ring;
  readonly #arena: Arena;
  readonly #base: number;
  readonly #mask: number;
  readonly #view: DataView;
  readonly #tails: Uint16Array;
  /** Slot index by ring position, to know what is taken back. */
  readonly #slots: Uint16Array;
  #tail = 0;
  #lent = 0;
  #target = STOCK_FIRST;

  constructor(ring: Ring, arena: Arena, pool: SlotPool, group: number) {
    assert(pool.count <= 65_536, 'a pool for pooled receives has at most 65536 slots');
    const count = Math.min(ENTRIES_MAX, 2 ** Math.ceil(Math.log2(pool.count)));
    this.pool = pool;
    this.group = group;
    this.#ring = ring;
    this.#arena = arena;
    this.#base = arena.reserve(count * ENTRY_BYTES, 4096);
    this.#mask = count - 1;
    this.#view = arena.view;
    this.#slots = new Uint16Array(count);
    this.#tails = new Uint16Array(arena.bytes.buffer, this.#base + TAIL_OFFSET, 1);
    const failed = ring.registerBuffers(arena.address + this.#base, count, group);
    assert(failed === 0, `registering a buffer ring failed: ${failed}`);
    pool.onExhausted(() => this.#reclaim());
  }

  /**
   * Lends more slots where receives could use them. Called before receives are submitted and after a batch.
   */
  stock(): void {
    const wanted = Math.min(this.waiting, this.#target, this.#mask + 1);
    if (this.#lent >= wanted) return;
    while (this.#lent < wanted && this.#lendOne());
    Atomics.store(this.#tails, 0, this.#tail & 0xffff);
  }

  /** The kernel filled slot `index`: it belongs to the receiver from here on. */
  take(index: number): void {
    this.#lent--;
    this.pool.take(index);
  }

  /** The kernel found no buffer. Lends more; false when the pool is empty too. */
  refill(): boolean {
    if (this.#lent > 0) return true;
    this.#target = Math.min(this.#target * 2, this.#mask + 1);
    if (!this.#lendOne()) return false;
    this.stock();
    Atomics.store(this.#tails, 0, this.#tail & 0xffff);
    return true;
  }

  close(): void {
    this.pool.onExhausted(null);
    this.#ring.unregisterBuffers(this.group);
  }

  #lendOne(): boolean {
    const index = this.pool.lend();
    if (index < 0) return false;
    const position = this.#tail & this.#mask;
    const at = this.#base + position * ENTRY_BYTES;
    const address = this.#arena.address + this.pool.offsetOf(index);
    this.#view.setUint32(at, address >>> 0, true);
    this.#view.setUint32(at + 4, Math.floor(address / 4294967296), true);
    this.#view.setUint32(at + 8, this.pool.slotBytes, true);
    this.#view.setUint16(at + 12, index, true);
    this.#slots[position] = index;
    this.#tail++;
    this.#lent++;
    return true;
  }

  /**
   * Takes the newest half of the lent slots back by moving the tail. The kernel takes buffers only while this
   * thread is inside a system call, so it is not looking.
   */
  #reclaim(): void {
    const head = this.#ring.bufferHead(this.group);
    if (head < 0) return;
    const held = (this.#tail - head) & 0xffff;
    for (let i = Math.ceil(held / 2); i > 0; i--) {
      this.#tail--;
      this.#lent--;
      this.pool.unlend(this.#slots[this.#tail & this.#mask] as number);
    }
    Atomics.store(this.#tails, 0, this.#tail & 0xffff);
  }
}
