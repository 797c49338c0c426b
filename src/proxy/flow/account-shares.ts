import { assert } from '#base/assert.ts';

import type { AccountId } from './networks.ts';

const NONE = 0;

/**
 * How many flows each account has, and always who has the most: every step is a few array writes. Accounts
 * with equal counts are linked into one list per count; since counts change by one, the greatest count does
 * too.
 */
export class AccountShares {
  #counts = new Int32Array(64);
  #next = new Int32Array(64);
  #previous = new Int32Array(64);
  /** First account of each count. */
  readonly #heads: Int32Array;
  #countMax = 0;

  /** @param flowsMax the highest count that is possible. */
  constructor(flowsMax: number) {
    assert(flowsMax > 0);
    this.#heads = new Int32Array(flowsMax + 1);
  }

  /** Flows of an account. */
  count(account: AccountId): number {
    return this.#counts[account] ?? 0;
  }

  /** The greatest count of any account. */
  get countMax(): number {
    return this.#countMax;
  }

  /** An account that has the greatest count; 0 when there is no flow. */
  get largest(): AccountId {
    return this.#countMax === 0 ? NONE : (this.#heads[this.#countMax] as number);
  }

  add(account: AccountId): void {
    assert(account > 0);
    if (account >= this.#counts.length) this.#grow(account);
    const count = this.#counts[account] as number;
    if (count > 0) this.#unlink(account, count);
    this.#link(account, count + 1);
    if (count + 1 > this.#countMax) this.#countMax = count + 1;
  }

  remove(account: AccountId): void {
    const count = this.#counts[account] as number;
    assert(count > 0, 'account has no flow');
    this.#unlink(account, count);
    if (count > 1) this.#link(account, count - 1);
    else this.#counts[account] = 0;
    if (count === this.#countMax && this.#heads[count] === NONE) this.#countMax = count - 1;
  }

  #link(account: AccountId, count: number): void {
    const head = this.#heads[count] as number;
    this.#counts[account] = count;
    this.#next[account] = head;
    this.#previous[account] = NONE;
    if (head !== NONE) this.#previous[head] = account;
    this.#heads[count] = account;
  }

  #unlink(account: AccountId, count: number): void {
    const next = this.#next[account] as number;
    const previous = this.#previous[account] as number;
    if (next !== NONE) this.#previous[next] = previous;
    if (previous !== NONE) this.#next[previous] = next;
    else this.#heads[count] = next;
  }

  #grow(account: AccountId): void {
    const length = Math.max(account + 1, this.#counts.length * 2);
    this.#counts = enlarged(this.#counts, length);
    this.#next = enlarged(this.#next, length);
    this.#previous = enlarged(this.#previous, length);
  }
}

function enlarged(array: Int32Array<ArrayBuffer>, length: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(length);
  larger.set(array);
  return larger;
}
