import type { SlotPool } from '#io/arena.ts';
import type { Io } from '#io/io.ts';

/**
 * The forwarded head of a request that may be sent again. A used connection may be closed by the upstream
 * just when the request goes out (RFC 9112 section 9.3.1); an idempotent request without a body is then
 * repeated, once, on a fresh one (RFC 9110 section 9.2.2).
 */
export class RetryCopy {
  readonly #io: Io;
  readonly #pool: SlotPool;
  #slot = -1;
  #length = 0;

  /** @param pool slots for copies; when none is free, or the head is longer than one, there is no copy. */
  constructor(io: Io, pool: SlotPool) {
    this.#io = io;
    this.#pool = pool;
  }

  /** There is a copy. */
  get held(): boolean {
    return this.#slot >= 0;
  }

  /** Copies the bytes from arena offset `start` to before `end`. */
  keep(start: number, end: number): void {
    if (end - start > this.#pool.slotBytes) return;
    this.#slot = this.#pool.acquire();
    if (this.#slot < 0) return;
    this.#length = end - start;
    this.#io.arena.bytes.copyWithin(this.#slot, start, end);
  }

  /** Writes the copy to arena offset `at`, forgets it, and returns the offset behind it. */
  spend(at: number): number {
    this.#io.arena.bytes.copyWithin(at, this.#slot, this.#slot + this.#length);
    this.forget();
    return at + this.#length;
  }

  /** Gives the slot back, if there is one. */
  forget(): void {
    if (this.#slot >= 0) this.#pool.release(this.#slot);
    this.#slot = -1;
  }
}
