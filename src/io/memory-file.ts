/**
 * What the descriptors of a memory engine refer to: streams, packet sockets, pipes and listeners. A file
 * moves bytes at once or answers −EAGAIN; waiting is done by the operations in its queues, which `changed`
 * sets going again.
 */
import { assert } from '#base/assert.ts';
import type { SocketAddress } from '#base/ip.ts';

import type { InetAddress, MemoryWorld, Task } from './memory-world.ts';

/** What is known of a message beside its bytes; filled by `read`. */
export interface ReceiveInfo {
  from: SocketAddress | null;
  /** Where a datagram was sent to. */
  to: InetAddress | null;
  truncated: boolean;
  /** Files that came along, each with a reference that the receiver owns. */
  files: MemoryFile[];
  /** Look without taking (MSG_PEEK). */
  peek: boolean;
}

/** An empty one, to be filled. */
export function receiveInfo(): ReceiveInfo {
  return { from: null, to: null, truncated: false, files: [], peek: false };
}

/** An operation that waits in a queue: it is over when `attempt` says so. */
export interface Waiter {
  /** True when the operation is over; false leaves it at the head of its queue. */
  attempt(): boolean;
}

/**
 * Operations that wait for one direction of a file. They are tried in the order in which they were started.
 */
export class WaitQueue implements Task {
  scheduled = false;
  readonly waiters: Waiter[] = [];
  readonly #world: MemoryWorld;

  constructor(world: MemoryWorld) {
    this.#world = world;
  }

  add(waiter: Waiter): void {
    this.waiters.push(waiter);
    this.#world.schedule(this);
  }

  remove(waiter: Waiter): void {
    const index = this.waiters.indexOf(waiter);
    if (index >= 0) this.waiters.splice(index, 1);
  }

  wake(): void {
    if (this.waiters.length > 0) this.#world.schedule(this);
  }

  /** One operation at a time, so that chance can put those of other files between. */
  runTask(): void {
    const waiter = this.waiters[0];
    if (waiter === undefined) return;
    if (waiter.attempt()) {
      this.remove(waiter);
      this.wake();
    }
  }
}

/**
 * An open file. Whoever keeps it holds a reference; `release` of the last ends it, and its peer sees the end.
 */
export abstract class MemoryFile {
  /** Descriptors, messages under way and queues that refer to the file; it ends with the last. */
  references = 1;
  readonly readers: WaitQueue;
  readonly writers: WaitQueue;
  /** Tasks of polls, and queues elsewhere that wait for this file (splice, connect). */
  readonly watchers = new Set<Task>();
  /** Counts changes, so that a poll tells a new one from one it has reported. */
  edges = 0;
  lingerZero = false;
  reusePort = false;
  v6Only = false;
  local: SocketAddress | null = null;
  remote: SocketAddress | null = null;
  readonly options = new Map<string, number>();
  protected readonly world: MemoryWorld;

  constructor(world: MemoryWorld) {
    this.world = world;
    this.readers = new WaitQueue(world);
    this.writers = new WaitQueue(world);
  }

  /** PollMask bits that hold at present. */
  abstract readiness(): number;
  /** Bytes moved, 0 at the end, or a negative errno. */
  abstract read(target: Uint8Array, info: ReceiveInfo | null): number;
  /** Bytes taken, which may be fewer than given on a stream, or a negative errno. */
  abstract write(source: Uint8Array, files?: readonly MemoryFile[]): number;
  /** The last reference is gone. */
  protected abstract end(): void;

  /** Bytes that `write` would take; packets take any. */
  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }

  /** Pending error as a positive errno; reading it clears it. */
  takeError(): number {
    return 0;
  }

  shutdownWrite(): void {}

  setCapacity(_bytes: number): void {}

  hold(): this {
    this.references++;
    return this;
  }

  release(): void {
    assert(this.references > 0, 'a file was released too often');
    if (--this.references === 0) this.end();
  }

  /** Something that an operation may wait for has happened. */
  changed(): void {
    this.edges++;
    this.readers.wake();
    this.writers.wake();
    for (const task of this.watchers) this.world.schedule(task);
  }
}
