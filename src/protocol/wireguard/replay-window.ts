import { assert } from '#base/assert.ts';

import { REPLAY_BITS, REPLAY_WINDOW } from './limits.ts';

const WORDS = REPLAY_BITS / 32;
const WORD_MASK = WORDS - 1;

/**
 * Which counters of a session have been seen (RFC 6479): a ring of bits that is cleared word by word as the
 * newest counter moves on. Memory is taken with the first packet, so an idle session has none.
 */
export class ReplayWindow {
  /** Next counter that has not been overtaken: the newest seen plus one. */
  #next = 0;
  #bits: Int32Array | null = null;

  /** True when `counter` has been seen, or is too old to tell. Changes nothing. */
  has(counter: number): boolean {
    assert(counter >= 0);
    if (counter >= this.#next) return false;
    if (this.#next - counter > REPLAY_WINDOW) return true;
    const bits = this.#bits as Int32Array;
    const low = counter % 0x1_0000_0000;
    return (((bits[(low >>> 5) & WORD_MASK] as number) >>> (low & 31)) & 1) === 1;
  }

  /**
   * Notes an authentic `counter`, for which `has` is false. Only after authentication: a forged counter would
   * close the window for honest ones.
   */
  add(counter: number): void {
    assert(!this.has(counter));
    this.#bits ??= new Int32Array(WORDS);
    const bits = this.#bits;
    if (counter >= this.#next) {
      // Word of the newest seen so far, −1 before the first; words between it and the new one are cleared.
      const before = this.#next === 0 ? -1 : Math.floor((this.#next - 1) / 32);
      const word = Math.floor(counter / 32);
      const count = Math.min(word - before, WORDS);
      for (let i = 0; i < count; i++) bits[((word - i) % 0x1_0000_0000) & WORD_MASK] = 0;
      this.#next = counter + 1;
    }
    const low = counter % 0x1_0000_0000;
    const at = (low >>> 5) & WORD_MASK;
    bits[at] = (bits[at] as number) | (1 << (low & 31));
  }
}
