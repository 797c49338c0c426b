import { assert } from '#base/assert.ts';
import type { SocketAddress } from '#base/ip.ts';

import { Errno, PollMask } from './io.ts';
import { MemoryFile } from './memory-file.ts';
import type { PacketFile } from './memory-packet.ts';
import type { StreamFile } from './memory-stream.ts';
import { removeFrom, type MemoryWorld } from './memory-world.ts';

/** A listening socket with the connections that wait to be accepted. */
export class ListenerFile extends MemoryFile {
  readonly seqpacket: boolean;
  readonly backlog: number;
  readonly #waiting: (StreamFile | PacketFile)[] = [];

  constructor(world: MemoryWorld, local: SocketAddress, seqpacket: boolean, backlog: number) {
    super(world);
    this.local = local;
    this.seqpacket = seqpacket;
    this.backlog = Math.max(1, backlog);
  }

  get isFull(): boolean {
    return this.#waiting.length >= this.backlog;
  }

  /** Puts the server's end of a new connection into the queue, which owns it. */
  enqueue(file: StreamFile | PacketFile): void {
    assert(!this.isFull);
    this.#waiting.push(file);
    this.changed();
  }

  /** The next connection, owned by the caller; null when none waits. */
  dequeue(): StreamFile | PacketFile | null {
    const file = this.#waiting.shift() ?? null;
    // Those who found the queue full may try again.
    if (file !== null) for (const task of this.watchers) this.world.schedule(task);
    return file;
  }

  readiness(): number {
    return this.#waiting.length > 0 ? PollMask.In : 0;
  }

  read(): number {
    return -Errno.ENOTCONN;
  }

  write(): number {
    return -Errno.EPIPE;
  }

  protected end(): void {
    for (const file of this.#waiting.splice(0)) {
      file.lingerZero = true;
      file.release();
    }
    for (const task of this.watchers) this.world.schedule(task);
    if (this.local?.family === 'unix') this.world.unix.delete(this.local.path);
    else if (this.local !== null) removeFrom(this.world.listeners, this.local.port, this);
  }
}
