import { assert } from '#base/assert.ts';

/** What has a deadline. The heap alone writes both fields. */
export interface Deadlined {
  /** When the heap will hand it out, ms; meaningless while `heapIndex` is −1. */
  heapAt: number;
  /** Place in the heap, −1 when it is not in it. */
  heapIndex: number;
}

/**
 * Who is due next: a binary heap whose members know their places. Deadlines that move later are left where
 * they are: whoever comes too early asks for its place again, so packets that push a timer ahead cost
 * nothing.
 */
export class DeadlineHeap<T extends Deadlined> {
  readonly #heap: T[] = [];

  /** When the first is due, ms; Infinity when there is none. */
  get next(): number {
    return this.#heap[0]?.heapAt ?? Number.POSITIVE_INFINITY;
  }

  /** Members. */
  get size(): number {
    return this.#heap.length;
  }

  /** Makes sure that `member` is handed out no later than `at`; Infinity asks for nothing. */
  schedule(member: T, at: number): void {
    if (member.heapIndex < 0) {
      if (at === Number.POSITIVE_INFINITY) return;
      member.heapAt = at;
      member.heapIndex = this.#heap.length;
      this.#heap.push(member);
    } else {
      if (at >= member.heapAt) return;
      member.heapAt = at;
    }
    this.#rise(member);
  }

  /** Takes out and returns one that is due at `now`, or null. */
  take(now: number): T | null {
    const first = this.#heap[0];
    if (first === undefined || first.heapAt > now) return null;
    this.remove(first);
    return first;
  }

  /** Takes `member` out, if it is in. */
  remove(member: T): void {
    const index = member.heapIndex;
    if (index < 0) return;
    assert(this.#heap[index] === member);
    const last = this.#heap.pop() as T;
    member.heapIndex = -1;
    if (last === member) return;
    last.heapIndex = index;
    this.#heap[index] = last;
    this.#rise(last);
    this.#sink(last);
  }

  #rise(member: T): void {
    const heap = this.#heap;
    let index = member.heapIndex;
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = heap[parentIndex] as T;
      if (parent.heapAt <= member.heapAt) break;
      heap[index] = parent;
      parent.heapIndex = index;
      index = parentIndex;
    }
    heap[index] = member;
    member.heapIndex = index;
  }

  #sink(member: T): void {
    const heap = this.#heap;
    let index = member.heapIndex;
    for (;;) {
      let childIndex = 2 * index + 1;
      let child = heap[childIndex];
      if (child === undefined) break;
      const right = heap[childIndex + 1];
      if (right !== undefined && right.heapAt < child.heapAt) {
        child = right;
        childIndex++;
      }
      if (child.heapAt >= member.heapAt) break;
      heap[index] = child;
      child.heapIndex = index;
      index = childIndex;
    }
    heap[index] = member;
    member.heapIndex = index;
  }
}
