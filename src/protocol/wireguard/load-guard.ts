import { sourceHigh, sourceLow } from './endpoint.ts';
import { HANDSHAKES_PER_SECOND, SOURCE_BURST, SOURCE_COUNT, SOURCE_RATE, UNDER_LOAD_TIME } from './limits.ts';

const WINDOW_MS = 100;
const WINDOW_MAX = (HANDSHAKES_PER_SECOND * WINDOW_MS) / 1000;
/** Places that one source may have. */
const WAYS = 4;
const SET_MASK = SOURCE_COUNT / WAYS - 1;

/**
 * Tells when handshakes cost too much, and lets each source have its share. Its memory is fixed: two words, a
 * time and a level for each of `SOURCE_COUNT` sources, taken when load first occurs.
 */
export class LoadGuard {
  readonly #seed: number;
  #windowAt = Number.NEGATIVE_INFINITY;
  #windowCount = 0;
  #loadedUntil = Number.NEGATIVE_INFINITY;
  #high = new Int32Array(0);
  #low = new Int32Array(0);
  /** When a source's tokens were counted last, ms. */
  #at = new Float64Array(0);
  #tokens = new Float64Array(0);

  /** `seed` is random, so that nobody can aim at the place of another source. */
  constructor(seed: number) {
    this.#seed = seed;
  }

  /** Counts one handshake message with a right MAC1. True when the interface is under load. */
  isLoaded(now: number): boolean {
    if (now - this.#windowAt >= WINDOW_MS) {
      this.#windowAt = now;
      this.#windowCount = 0;
    }
    if (++this.#windowCount > WINDOW_MAX) this.#loadedUntil = now + UNDER_LOAD_TIME;
    return now < this.#loadedUntil;
  }

  /** Counts as under load for `UNDER_LOAD_TIME`: for who sees a queue grow. */
  declareLoad(now: number): void {
    this.#loadedUntil = now + UNDER_LOAD_TIME;
  }

  /**
   * Takes a token of the source of the endpoint at `from`, which has shown that it owns its address. False
   * when it has none left: `SOURCE_RATE` a second, `SOURCE_BURST` at once.
   */
  takeToken(view: DataView, from: number, now: number): boolean {
    const place = this.#find(sourceHigh(view, from), sourceLow(view, from), now);
    const earned = ((now - (this.#at[place] as number)) * SOURCE_RATE) / 1000;
    const tokens = Math.min(SOURCE_BURST, (this.#tokens[place] as number) + earned);
    this.#at[place] = now;
    this.#tokens[place] = tokens >= 1 ? tokens - 1 : tokens;
    return tokens >= 1;
  }

  /** Place of a source; a new one replaces the one among its neighbours that was seen longest ago. */
  #find(high: number, low: number, now: number): number {
    if (this.#at.length === 0) {
      this.#high = new Int32Array(SOURCE_COUNT);
      this.#low = new Int32Array(SOURCE_COUNT);
      this.#at = new Float64Array(SOURCE_COUNT).fill(Number.NEGATIVE_INFINITY);
      this.#tokens = new Float64Array(SOURCE_COUNT);
    }
    let mixed = Math.imul(high ^ this.#seed, 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15) ^ low, 0x735a2d97);
    const first = ((mixed ^ (mixed >>> 15)) & SET_MASK) * WAYS;
    let oldest = first;
    for (let place = first; place < first + WAYS; place++) {
      const at = this.#at[place] as number;
      if (at !== Number.NEGATIVE_INFINITY && this.#high[place] === high && this.#low[place] === low) {
        return place;
      }
      if (at < (this.#at[oldest] as number)) oldest = place;
    }
    this.#high[oldest] = high;
    this.#low[oldest] = low;
    this.#at[oldest] = now;
    this.#tokens[oldest] = SOURCE_BURST;
    return oldest;
  }
}
