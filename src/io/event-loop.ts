import { LoopHandles } from './ffi/libuv.ts';

/**
 * Where an engine meets Node's event loop. The engine has one pollable descriptor (its ring, its epoll); when
 * that is readable, or work was left over, the loop calls `turn`, and before it may sleep it calls `prepare`.
 * Promises, Node's own timers and completions so share one thread, and an idle process sleeps.
 *
 * A callback from native code has two duties, which are met here: no exception may cross it (it is thrown
 * again from an immediate, where Node reports it as uncaught), and microtasks do not run by themselves after
 * it.
 */
export interface LoopClient {
  /** Delivers what is complete; returns true when work is left that must not wait for the descriptor. */
  turn(): boolean;
  /** Delivers timers that are due. */
  fireTimers(): void;
  /**
   * Called before the loop looks for events: submit what is pending. Returns true when work is left, as
   * `turn`.
   */
  prepare(): boolean;
}

type TickCallback = () => void;

/** Runs `process.nextTick` callbacks and promise jobs: what Node does after each of its own callbacks. */
const runMicrotasks: TickCallback = (process as unknown as { _tickCallback: TickCallback })._tickCallback;

/** One engine's part of the event loop of the thread that made it. */
export class EventLoop {
  readonly #client: LoopClient;
  readonly #handles: LoopHandles;
  /** The descriptor's handle is referenced, so the process lives. */
  #alive = false;
  #awake = false;
  #now = performance.now();
  #inTurn = false;
  #closed = false;

  constructor(fd: number, client: LoopClient) {
    this.#client = client;
    this.#handles = new LoopHandles(fd, {
      onReadable: () => this.#run('turn'),
      onPrepare: () => this.#run('prepare'),
      onTimer: () => this.#run('fireTimers'),
    });
  }

  /**
   * Milliseconds: the turn's own time inside a turn, the clock's outside, where nothing else keeps it fresh.
   */
  now(): number {
    return this.#inTurn ? this.#now : performance.now();
  }

  refreshNow(): number {
    this.#now = performance.now();
    return this.#now;
  }

  /** Keeps the process alive, or not. Cheap when nothing changes. */
  setAlive(alive: boolean): void {
    if (alive === this.#alive || this.#closed) return;
    this.#alive = alive;
    if (alive) this.#handles.ref();
    else this.#handles.unref();
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Makes the loop call `prepare` again without sleeping. */
  setAwake(awake: boolean): void {
    if (awake === this.#awake || this.#closed) return;
    this.#awake = awake;
    if (awake) this.#handles.keepAwake();
    else this.#handles.letSleep();
  }

  /** Calls `fireTimers` in `delayMs` milliseconds, rounded up. */
  startTimer(delayMs: number): void {
    if (!this.#closed) this.#handles.startTimer(Math.max(0, Math.ceil(delayMs)));
  }

  close(): void {
    if (this.#closed) return;
    this.setAlive(false);
    this.#closed = true;
    this.#handles.close();
  }

  /** Runs promise jobs between batches of completions. */
  drain(): void {
    try {
      runMicrotasks();
    } catch (error) {
      rethrowLater(error);
    }
  }

  #run(what: 'turn' | 'prepare' | 'fireTimers'): void {
    if (this.#closed || this.#inTurn) return;
    this.#inTurn = true;
    try {
      this.#now = performance.now();
      if (what === 'turn') this.setAwake(this.#client.turn());
      else if (what === 'prepare') this.setAwake(this.#client.prepare());
      else this.#client.fireTimers();
    } catch (error) {
      rethrowLater(error);
    }
    this.#inTurn = false;
  }
}

/** Reports an error of a callback as uncaught, from a place where that is possible. */
export function rethrowLater(error: unknown): void {
  setImmediate(() => {
    throw error;
  });
}
