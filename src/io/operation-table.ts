import { assert } from '#base/assert.ts';

import type { Completion, Fd, OperationId } from './io.ts';

/**
 * What an operation is. The first group completes as the kernel says; the others need a step of the engine.
 */
export const OperationKind = Object.freeze({
  Recv: 1,
  Read: 2,
  Write: 3,
  Readv: 4,
  Writev: 5,
  Recvmsg: 6,
  Sendmsg: 7,
  Connect: 8,
  Poll: 9,
  Send: 10,
  RecvPooled: 11,
  Accept: 12,
  PollMany: 13,
  Splice: 14,
} as const);

/** The last kind whose completion is the kernel's, unchanged. */
export const OPERATION_KIND_PLAIN_MAX = OperationKind.Poll;

/** Bits of `OperationTable.states`. */
export const OperationState = Object.freeze({
  /** `cancel` was called, or the descriptor is being closed: do not go on. */
  Cancelled: 1,
  /** Nothing is under way in the kernel: the engine itself will go on by a timer. */
  Waiting: 2,
  /** Splice: waits for room in the target, not for data in the source. */
  AwaitsRoom: 4,
  /** Its end is decided and waits for delivery. */
  Done: 8,
} as const);

const INDEX_BITS = 18;
const INDEX_MASK = (1 << INDEX_BITS) - 1;
const GENERATION_MASK = (1 << (31 - INDEX_BITS)) - 1;
/** A quarter of a million operations: more descriptors than that belong into more workers. */
const OPERATIONS_MAX = 1 << INDEX_BITS;
const NONE = 0;

/**
 * The operations under way, as a struct of arrays: index → fields. An id is the index with a generation above
 * it, so a late completion or a late `cancel` of a finished operation finds another id in its place. Index 0
 * is not used.
 *
 * The fields are public: engines read and write them in their hot loops. A number that an operation does not
 * need is left as it was.
 */
export class OperationTable {
  ids = new Int32Array(256);
  kinds = new Uint8Array(256);
  states = new Uint8Array(256);
  fds = new Int32Array(256);
  /** Arena offset of the buffer, or the other descriptor of a splice. */
  offsets = new Uint32Array(256);
  /** Length in bytes; a mask for poll; a pool's number for a pooled receive. */
  lengths = new Uint32Array(256);
  /** Bytes sent so far, or message flags. */
  progress = new Uint32Array(256);
  /** Links for the engine's lists; `next` also links free entries. */
  next = new Int32Array(256);
  previous = new Int32Array(256);
  /** The list that an operation is in, −1 for none. */
  lists = new Int32Array(256);
  readonly completions: (Completion | null)[] = [null];
  readonly tags: number[] = [0];
  #made = 1;
  #free = NONE;
  #active = 0;

  /** Operations under way. */
  get active(): number {
    return this.#active;
  }

  /** One past the highest index that was ever used. */
  get end(): number {
    return this.#made;
  }

  /** Takes an entry for a new operation; returns its index. */
  take(kind: number, fd: Fd, completion: Completion, tag: number): number {
    assert(fd >= 0, 'not a descriptor');
    let index = this.#free;
    if (index !== NONE) {
      this.#free = this.next[index] as number;
    } else {
      assert(this.#made < OPERATIONS_MAX, 'a quarter of a million operations are under way');
      if (this.#made === this.ids.length) this.#grow();
      index = this.#made++;
      this.ids[index] = index;
    }
    this.kinds[index] = kind;
    this.states[index] = 0;
    this.fds[index] = fd;
    this.completions[index] = completion;
    this.tags[index] = tag;
    this.#active++;
    return index;
  }

  /** Ends an operation: its id is stale from here on. */
  release(index: number): void {
    const id = this.ids[index] as number;
    this.ids[index] = ((((id >>> INDEX_BITS) + 1) & GENERATION_MASK) << INDEX_BITS) | index;
    this.kinds[index] = 0;
    this.completions[index] = null;
    this.next[index] = this.#free;
    this.#free = index;
    this.#active--;
  }

  /** The index of a live operation, or 0 when the id is stale. */
  find(id: OperationId): number {
    const index = id & INDEX_MASK;
    return index < this.#made && this.ids[index] === id && this.kinds[index] !== 0 ? index : 0;
  }

  #grow(): void {
    const length = this.ids.length * 2;
    this.ids = copyInto(new Int32Array(length), this.ids);
    this.kinds = copyInto(new Uint8Array(length), this.kinds);
    this.states = copyInto(new Uint8Array(length), this.states);
    this.fds = copyInto(new Int32Array(length), this.fds);
    this.offsets = copyInto(new Uint32Array(length), this.offsets);
    this.lengths = copyInto(new Uint32Array(length), this.lengths);
    this.progress = copyInto(new Uint32Array(length), this.progress);
    this.next = copyInto(new Int32Array(length), this.next);
    this.previous = copyInto(new Int32Array(length), this.previous);
    this.lists = copyInto(new Int32Array(length), this.lists);
  }
}

function copyInto<T extends Int32Array | Uint32Array | Uint8Array>(target: T, source: T): T {
  target.set(source);
  return target;
}
