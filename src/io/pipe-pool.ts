import { assert } from '#base/assert.ts';

import type { Fd, Io } from './io.ts';

/** A pipe that bytes are spliced through. */
export interface Pipe {
  readonly readEnd: Fd;
  readonly writeEnd: Fd;
}

/**
 * Capacity that is asked for. Half a mebibyte is where a bigger pipe stops saving CPU; what an ordinary user may have
 * in all pipes together is limited (`fs.pipe-user-pages-soft`), so the kernel may give less.
 */
const PIPE_BYTES = 1 << 19;

/** Empty pipes kept ready. */
const IDLE_MAX = 32;

/** Empty pipes of one engine, made when needed. A pipe that may hold bytes of one stream never serves another. */
export class PipePool {
  static readonly #pools = new WeakMap<Io, PipePool>();
  readonly #io: Io;
  readonly #idle: Pipe[] = [];

  private constructor(io: Io) {
    this.#io = io;
  }

  /** The pool of an engine. */
  static of(io: Io): PipePool {
    let pool = PipePool.#pools.get(io);
    if (pool === undefined) {
      pool = new PipePool(io);
      PipePool.#pools.set(io, pool);
    }
    return pool;
  }

  /** An empty pipe; the caller owns it until `give` or `discard`. @throws RAMP_NO_DESCRIPTORS */
  take(): Pipe {
    const ready = this.#idle.pop();
    if (ready !== undefined) return ready;
    const [readEnd, writeEnd] = this.#io.pipe(PIPE_BYTES);
    return { readEnd, writeEnd };
  }

  /** Takes an empty pipe back. */
  give(pipe: Pipe): void {
    assert(pipe.readEnd >= 0);
    if (this.#idle.length < IDLE_MAX) this.#idle.push(pipe);
    else this.#close(pipe);
  }

  /** Takes a pipe back that is kept only when it is empty. */
  discard(pipe: Pipe, isEmpty: boolean): void {
    if (isEmpty) this.give(pipe);
    else this.#close(pipe);
  }

  /** Closes the pipes that are kept ready: for leak checks and at the end. */
  drain(): void {
    for (const pipe of this.#idle.splice(0)) this.#close(pipe);
  }

  #close(pipe: Pipe): void {
    this.#io.close(pipe.readEnd);
    this.#io.close(pipe.writeEnd);
  }
}
