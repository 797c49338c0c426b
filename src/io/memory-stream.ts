import { assert } from '#base/assert.ts';

import { Errno, PollMask } from './io.ts';
import { ByteQueue } from './memory-bytes.ts';
import { MemoryFile, type ReceiveInfo } from './memory-file.ts';
import type { MemoryWorld } from './memory-world.ts';

/** Capacity of each direction of a stream unless an option says otherwise, as a Unix socket's. */
const STREAM_BYTES = 64 * 1024;

/** A TCP or Unix stream socket, from its birth on. */
export class StreamFile extends MemoryFile {
  readonly kind: 'tcp4' | 'tcp6' | 'unix-stream';
  readonly #inbound = new ByteQueue(STREAM_BYTES);
  #peer: StreamFile | null = null;
  #connected = false;
  /** The peer sends no more. */
  #ended = false;
  #writeShut = false;
  #error = 0;
  /** The peer is gone for good: what is written gets nowhere. */
  #broken = false;

  constructor(world: MemoryWorld, kind: 'tcp4' | 'tcp6' | 'unix-stream') {
    super(world);
    this.kind = kind;
  }

  get connected(): boolean {
    return this.#connected;
  }

  /** Joins two ends. */
  join(peer: StreamFile): void {
    assert(!this.#connected && !peer.#connected);
    this.#peer = peer;
    peer.#peer = this;
    this.#connected = true;
    peer.#connected = true;
    this.changed();
    peer.changed();
  }

  readiness(): number {
    if (!this.#connected) return PollMask.Out | PollMask.HangUp;
    let mask = 0;
    if (this.#inbound.length > 0 || this.#ended || this.#error !== 0) mask |= PollMask.In;
    if (this.room() > 0) mask |= PollMask.Out;
    if (this.#ended) mask |= PollMask.ReadHangUp;
    if (this.#error !== 0) mask |= PollMask.Error;
    if ((this.#ended && this.#writeShut) || this.#broken) mask |= PollMask.HangUp;
    return mask;
  }

  override room(): number {
    const peer = this.#peer;
    // What would fail does not wait.
    if (peer === null || this.#error !== 0 || this.#writeShut) return Number.MAX_SAFE_INTEGER;
    return peer.#inbound.room;
  }

  read(target: Uint8Array, info: ReceiveInfo | null): number {
    if (this.#inbound.length > 0) {
      const count = this.#inbound.pull(target, info);
      this.#peer?.changed();
      return count;
    }
    if (this.#error !== 0) return -this.takeError();
    if (!this.#connected) return -Errno.ENOTCONN;
    return this.#ended ? 0 : -Errno.EAGAIN;
  }

  write(source: Uint8Array, files: readonly MemoryFile[] = []): number {
    if (this.#error !== 0) return -this.takeError();
    if (!this.#connected && this.kind === 'unix-stream') return -Errno.ENOTCONN;
    if (!this.#connected || this.#writeShut || this.#broken) return -Errno.EPIPE;
    const peer = this.#peer;
    if (peer === null) {
      // TCP learns by the answer to this segment that nobody is there any more; a Unix socket knows at once.
      this.#broken = true;
      this.changed();
      return this.kind === 'unix-stream' ? -Errno.EPIPE : source.length;
    }
    const count = peer.#inbound.push(source, files);
    if (count === 0 && source.length > 0) return -Errno.EAGAIN;
    peer.changed();
    return count;
  }

  override takeError(): number {
    const error = this.#error;
    this.#error = 0;
    return error;
  }

  /** A connection attempt failed; the socket can be asked why. */
  fail(errno: number): void {
    this.#error = errno;
    this.changed();
  }

  override shutdownWrite(): void {
    if (!this.#connected || this.#writeShut) return;
    this.#writeShut = true;
    const peer = this.#peer;
    if (peer !== null) {
      peer.#ended = true;
      peer.changed();
    }
    this.changed();
  }

  override setCapacity(bytes: number): void {
    this.#inbound.capacity = Math.max(bytes, 1);
    this.#peer?.changed();
  }

  /** The connection breaks, as by a RST segment. What had arrived can still be read. */
  reset(): void {
    if (this.#broken) return;
    this.#error = Errno.ECONNRESET;
    this.#ended = true;
    this.#broken = true;
    this.#peer = null;
    this.changed();
  }

  protected end(): void {
    const peer = this.#peer;
    // RFC 2525 section 2.17: data that nobody will read is answered by a reset.
    const abrupt = this.lingerZero || this.#inbound.length > 0;
    this.#inbound.clear();
    this.#peer = null;
    if (peer === null) return;
    peer.#peer = null;
    if (abrupt && this.kind !== 'unix-stream') {
      peer.reset();
      return;
    }
    if (abrupt) peer.#error = Errno.ECONNRESET;
    peer.#ended = true;
    peer.changed();
  }
}
