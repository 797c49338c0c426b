import type { MemoryFile, ReceiveInfo } from './memory-file.ts';

/** Bytes in order, with a capacity, and files attached to places among them. */
export class ByteQueue {
  capacity: number;
  #bytes = new Uint8Array(4096);
  #start = 0;
  #length = 0;
  /** Bytes that ever went out; the position of the next one. */
  #position = 0;
  readonly #attached: { readonly position: number; readonly files: readonly MemoryFile[] }[] = [];

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get length(): number {
    return this.#length;
  }

  get room(): number {
    return Math.max(0, this.capacity - this.#length);
  }

  push(source: Uint8Array, files: readonly MemoryFile[]): number {
    const count = Math.min(this.room, source.length);
    if (count === 0) return 0;
    if (files.length > 0) this.#attached.push({ position: this.#position + this.#length, files });
    if (this.#start + this.#length + count > this.#bytes.length) this.#compact(count);
    this.#bytes.set(source.subarray(0, count), this.#start + this.#length);
    this.#length += count;
    return count;
  }

  #compact(more: number): void {
    const kept = this.#bytes.subarray(this.#start, this.#start + this.#length);
    const needed = this.#length + more;
    const target = needed <= this.#bytes.length ? this.#bytes : new Uint8Array(2 * needed);
    target.set(kept);
    this.#bytes = target;
    this.#start = 0;
  }

  /**
   * Takes up to `target.length` bytes, but never across a place with files: those come with the bytes they
   * were sent with.
   */
  pull(target: Uint8Array, info: ReceiveInfo | null): number {
    let limit = Math.min(target.length, this.#length);
    const first = this.#attached[0];
    const ahead = first?.position === this.#position ? this.#attached[1] : first;
    if (ahead !== undefined) limit = Math.min(limit, ahead.position - this.#position);
    target.set(this.#bytes.subarray(this.#start, this.#start + limit));
    if (info?.peek === true) return limit;
    if (first?.position === this.#position && limit > 0) {
      this.#attached.shift();
      if (info !== null) info.files.push(...first.files);
      else for (const file of first.files) file.release();
    }
    this.#start += limit;
    this.#length -= limit;
    this.#position += limit;
    return limit;
  }

  /** Drops everything. */
  clear(): void {
    for (const { files } of this.#attached) for (const file of files) file.release();
    this.#attached.length = 0;
    this.#position += this.#length;
    this.#length = 0;
  }
}
