import type { OperationTable } from './operation-table.ts';

/** An index that names no operation. */
const NONE = 0;

/**
 * Doubly linked lists of operations, named by small integers. The links lie in the operation table, so
 * putting an operation into a list and taking it out again allocates nothing and costs O(1).
 */
export class OperationLists {
  readonly #operations: OperationTable;
  /** The first operation of each list, 0 for an empty one. Read by engines. */
  heads: Int32Array;
  #tails: Int32Array;

  constructor(operations: OperationTable, count: number) {
    this.#operations = operations;
    this.heads = new Int32Array(count);
    this.#tails = new Int32Array(count);
  }

  /** Makes room for `count` lists. */
  reach(count: number): void {
    if (count <= this.heads.length) return;
    const heads = new Int32Array(count);
    const tails = new Int32Array(count);
    heads.set(this.heads);
    tails.set(this.#tails);
    this.heads = heads;
    this.#tails = tails;
  }

  /** Puts an operation that is in no list to the end of `list`. */
  append(index: number, list: number): void {
    const operations = this.#operations;
    const tail = this.#tails[list] as number;
    operations.lists[index] = list;
    operations.previous[index] = tail;
    operations.next[index] = NONE;
    if (tail === NONE) this.heads[list] = index;
    else operations.next[tail] = index;
    this.#tails[list] = index;
  }

  /** Takes an operation out of its list. */
  unlink(index: number): void {
    const operations = this.#operations;
    const list = operations.lists[index] as number;
    const next = operations.next[index] as number;
    const previous = operations.previous[index] as number;
    if (previous === NONE) this.heads[list] = next;
    else operations.next[previous] = next;
    if (next === NONE) this.#tails[list] = previous;
    else operations.previous[next] = previous;
    operations.lists[index] = -1;
  }
}
