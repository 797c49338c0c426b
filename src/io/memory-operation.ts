import type { MemoryFile, WaitQueue } from './memory-file.ts';
import type { MemoryWorld, Task } from './memory-world.ts';

/** What the step of an operation returns when it has to wait. */
export const WAIT = Number.MIN_SAFE_INTEGER;

/**
 * An operation under way: waits in a queue of its file until its step has a result, or is ended from
 * outside.
 */
export class Operation implements Task {
  scheduled = false;
  readonly file: MemoryFile;
  /** The queue in which it waits; null for a poll. */
  queue: WaitQueue | null = null;
  /** What it came to, once that is decided. */
  result: number | null = null;
  flags = 0;
  over = false;
  readonly #world: MemoryWorld;
  readonly #step: (operation: Operation) => number;
  readonly #finish: (result: number, flags: number) => void;

  constructor(
    world: MemoryWorld,
    file: MemoryFile | null,
    step: (operation: Operation) => number,
    finish: (result: number, flags: number) => void,
  ) {
    this.#world = world;
    // Without a file the operation is ended before it is ever tried.
    this.file = file as MemoryFile;
    this.#step = step;
    this.#finish = finish;
  }

  waitIn(queue: WaitQueue | null): void {
    this.queue = queue;
    if (queue === null) this.#world.schedule(this);
    else queue.add(this);
  }

  attempt(): boolean {
    if (this.result !== null || this.over) return true;
    const result = this.#step(this);
    // The step may have called back, and the callback may have ended this very operation.
    if (result === WAIT || this.result !== null || this.over) return this.result !== null || this.over;
    this.result = result;
    this.#complete();
    return true;
  }

  /** Does the work ahead of its turn if it is next in its queue, and delivers later. */
  performEarly(): void {
    if (this.result !== null || this.over || this.queue?.waiters[0] !== this) return;
    const result = this.#step(this);
    if (result !== WAIT) this.endWith(result);
  }

  /** Ends the operation with `result` at a later turn, unless it is over by itself. */
  endWith(result: number): void {
    if (this.result !== null || this.over) return;
    this.result = result;
    this.queue?.remove(this);
    this.#world.schedule(this);
  }

  /** Ends it without a word. */
  drop(): void {
    this.over = true;
    this.queue?.remove(this);
    this.file?.watchers.delete(this);
  }

  runTask(): void {
    if (this.over) return;
    if (this.result !== null) this.#complete();
    else this.attempt();
  }

  #complete(): void {
    this.over = true;
    this.file?.watchers.delete(this);
    this.#finish(this.result as number, this.flags);
  }
}
