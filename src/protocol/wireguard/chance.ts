import type { RandomFill } from './cookie.ts';

const STOCK_BYTES = 512;

/** Chance from outside, in the forms that are needed; small pieces come from a stock. */
export class Chance {
  readonly #random: RandomFill;
  readonly #stock = new Uint8Array(STOCK_BYTES);
  readonly #view = new DataView(this.#stock.buffer);
  #at = STOCK_BYTES;

  constructor(random: RandomFill) {
    this.#random = random;
  }

  /** 32 bits, signed. */
  word(): number {
    if (this.#at === STOCK_BYTES) {
      this.#random(this.#stock);
      this.#at = 0;
    }
    const word = this.#view.getInt32(this.#at);
    this.#at += 4;
    return word;
  }

  /** 0 ≤ result < `limit`, near enough even for small limits. */
  below(limit: number): number {
    return (this.word() >>> 0) % limit;
  }

  /** 32 bytes for a private key, the caller's. */
  secret(): Uint8Array {
    const secret = new Uint8Array(32);
    this.#random(secret);
    return secret;
  }
}
