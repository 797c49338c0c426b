import { assert } from '#base/assert.ts';

import { AccountShares } from './account-shares.ts';
import type { AccountId } from './networks.ts';

/**
 * The flows of each account in a ring, with a hand at which the next eviction begins to look: new flows come
 * behind all others, so the hand meets the oldest first. And who has the most flows.
 */
export class AccountRings {
  readonly shares: AccountShares;
  readonly #accounts: Int32Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  #hands = new Int32Array(64).fill(-1);

  constructor(flowsMax: number) {
    this.shares = new AccountShares(flowsMax);
    this.#accounts = new Int32Array(flowsMax);
    this.#next = new Int32Array(flowsMax);
    this.#previous = new Int32Array(flowsMax);
  }

  /** The account of a flow that has joined. */
  accountOf(flow: number): AccountId {
    return this.#accounts[flow] as number;
  }

  /** The accounts of the first `slots` flows, to be copied. */
  accounts(slots: number): Int32Array {
    return this.#accounts.subarray(0, slots);
  }

  join(flow: number, account: AccountId): void {
    this.#accounts[flow] = account;
    this.shares.add(account);
    if (account >= this.#hands.length) this.#growHands(account);
    const hand = this.#hands[account] as number;
    if (hand < 0) {
      this.#hands[account] = flow;
      this.#next[flow] = flow;
      this.#previous[flow] = flow;
      return;
    }
    const last = this.#previous[hand] as number;
    this.#next[flow] = hand;
    this.#previous[flow] = last;
    this.#next[last] = flow;
    this.#previous[hand] = flow;
  }

  leave(flow: number): void {
    const account = this.#accounts[flow] as number;
    this.shares.remove(account);
    const next = this.#next[flow] as number;
    if (next === flow) {
      this.#hands[account] = -1;
      return;
    }
    const previous = this.#previous[flow] as number;
    this.#next[previous] = next;
    this.#previous[next] = previous;
    if (this.#hands[account] === flow) this.#hands[account] = next;
  }

  /** The flow under an account's hand; it must have one. */
  hand(account: AccountId): number {
    const flow = this.#hands[account] ?? -1;
    assert(flow >= 0, 'account has no flow');
    return flow;
  }

  /** The next flow of the same account. */
  next(flow: number): number {
    return this.#next[flow] as number;
  }

  /** Puts the account's hand on one of its flows. */
  setHand(account: AccountId, flow: number): void {
    this.#hands[account] = flow;
  }

  #growHands(account: AccountId): void {
    const larger = new Int32Array(Math.max(account + 1, this.#hands.length * 2)).fill(-1);
    larger.set(this.#hands);
    this.#hands = larger;
  }
}
