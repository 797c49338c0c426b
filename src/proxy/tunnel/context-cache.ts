/**
 * Which tunnel a datagram belongs to: (remote address, context blob) → a number of the caller's. A hit
 * allocates nothing: keys are bytes in one array, compared with the datagram where it lies. The cache is
 * bounded; the entry that was not used for longest makes room.
 *
 * Whoever can send datagrams chooses the keys. The hash is seeded, so that nobody can choose keys that
 * collide.
 */
import { assert } from '#base/assert.ts';

/** Bytes of a remote address in a key: sixteen of the address (IPv4 mapped), two of the port. */
export const REMOTE_BYTES = 18;

/** Longest blob: what fits into a GUE header beside its own fields. Bytes. */
export const BLOB_BYTES_MAX = 124;

/** Bytes of one key, whole words: remote, a byte of length, blob. */
const KEY_BYTES = 144;
const LENGTH_AT = REMOTE_BYTES;
const BLOB_AT = REMOTE_BYTES + 2;

const NONE = -1;

/** A bounded map from datagrams' contexts to numbers. */
export class ContextCache {
  readonly capacity: number;
  readonly #seed: number;
  readonly #keys: Uint8Array;
  readonly #values: Int32Array;
  readonly #hashes: Int32Array;
  /** Open addressing with linear probing: entry index, or −1. At most half full. */
  readonly #table: Int32Array;
  readonly #mask: number;
  /** The list by last use: `#newer[e]` was used after `e`. */
  readonly #older: Int32Array;
  readonly #newer: Int32Array;
  #newest = NONE;
  #oldest = NONE;
  /** Unused entries, linked by `#older`. */
  #free = 0;
  #count = 0;

  /** @param seed random per process. */
  constructor(capacity: number, seed: number) {
    assert(capacity > 0 && capacity <= 1 << 20);
    this.capacity = capacity;
    this.#seed = seed | 0;
    this.#keys = new Uint8Array(capacity * KEY_BYTES);
    this.#values = new Int32Array(capacity);
    this.#hashes = new Int32Array(capacity);
    this.#older = new Int32Array(capacity);
    this.#newer = new Int32Array(capacity).fill(NONE);
    for (let entry = 0; entry < capacity; entry++) this.#older[entry] = entry + 1;
    this.#older[capacity - 1] = NONE;
    let size = 16;
    while (size < capacity * 2) size *= 2;
    this.#table = new Int32Array(size).fill(NONE);
    this.#mask = size - 1;
  }

  get count(): number {
    return this.#count;
  }

  /**
   * The entry of remote and blob, which becomes the newest; −1 when there is none. `remote` is the offset of
   * `REMOTE_BYTES` bytes, `blob` that of `length` bytes.
   */
  find(bytes: Uint8Array, remote: number, blob: number, length: number): number {
    if (length > BLOB_BYTES_MAX) return NONE;
    // Datagrams come in runs, and comparing is cheaper than hashing.
    const newest = this.#newest;
    if (newest !== NONE && this.#equals(newest, bytes, remote, blob, length)) return newest;
    const hash = this.#hash(bytes, remote, blob, length);
    for (let at = hash & this.#mask; ; at = (at + 1) & this.#mask) {
      const entry = this.#table[at] as number;
      if (entry === NONE) return NONE;
      if (this.#hashes[entry] !== hash || !this.#equals(entry, bytes, remote, blob, length)) continue;
      this.#unlink(entry);
      this.#linkNewest(entry);
      return entry;
    }
  }

  /** Adds what `find` did not find; there must be room (`oldest`, `delete`). Returns the entry. */
  add(bytes: Uint8Array, remote: number, blob: number, length: number, value: number): number {
    assert(this.#count < this.capacity && length <= BLOB_BYTES_MAX);
    const entry = this.#free;
    this.#free = this.#older[entry] as number;
    const key = entry * KEY_BYTES;
    this.#keys.set(bytes.subarray(remote, remote + REMOTE_BYTES), key);
    this.#keys[key + LENGTH_AT] = length;
    this.#keys.set(bytes.subarray(blob, blob + length), key + BLOB_AT);
    const hash = this.#hash(bytes, remote, blob, length);
    this.#hashes[entry] = hash;
    this.#values[entry] = value;
    let at = hash & this.#mask;
    while (this.#table[at] !== NONE) at = (at + 1) & this.#mask;
    this.#table[at] = entry;
    this.#linkNewest(entry);
    this.#count++;
    return entry;
  }

  /** The value of an entry. */
  valueOf(entry: number): number {
    return this.#values[entry] as number;
  }

  setValue(entry: number, value: number): void {
    this.#values[entry] = value;
  }

  /** The entry that was not used for longest, when there is no room; −1 while there is. */
  get oldestIfFull(): number {
    return this.#count < this.capacity ? NONE : this.#oldest;
  }

  /** Removes an entry. */
  delete(entry: number): void {
    let at = (this.#hashes[entry] as number) & this.#mask;
    while (this.#table[at] !== entry) {
      assert(this.#table[at] !== NONE, 'entry deleted twice');
      at = (at + 1) & this.#mask;
    }
    this.#closeGap(at);
    this.#unlink(entry);
    this.#older[entry] = this.#free;
    this.#free = entry;
    this.#count--;
  }

  /** Moves later entries of the run up, so that no probe ends early at the gap. */
  #closeGap(start: number): void {
    let gap = start;
    for (let at = (gap + 1) & this.#mask; ; at = (at + 1) & this.#mask) {
      const entry = this.#table[at] as number;
      if (entry === NONE) break;
      const home = (this.#hashes[entry] as number) & this.#mask;
      if (((at - home) & this.#mask) < ((at - gap) & this.#mask)) continue;
      this.#table[gap] = entry;
      gap = at;
    }
    this.#table[gap] = NONE;
  }

  #linkNewest(entry: number): void {
    this.#older[entry] = this.#newest;
    this.#newer[entry] = NONE;
    if (this.#newest !== NONE) this.#newer[this.#newest] = entry;
    this.#newest = entry;
    if (this.#oldest === NONE) this.#oldest = entry;
  }

  #unlink(entry: number): void {
    const older = this.#older[entry] as number;
    const newer = this.#newer[entry] as number;
    if (older === NONE) this.#oldest = newer;
    else this.#newer[older] = newer;
    if (newer === NONE) this.#newest = older;
    else this.#older[newer] = older;
  }

  #equals(entry: number, bytes: Uint8Array, remote: number, blob: number, length: number): boolean {
    const keys = this.#keys;
    const key = entry * KEY_BYTES;
    if (keys[key + LENGTH_AT] !== length) return false;
    for (let i = 0; i < REMOTE_BYTES; i++) if (keys[key + i] !== bytes[remote + i]) return false;
    for (let i = 0; i < length; i++) if (keys[key + BLOB_AT + i] !== bytes[blob + i]) return false;
    return true;
  }

  #hash(bytes: Uint8Array, remote: number, blob: number, length: number): number {
    let hash = this.#seed ^ length;
    for (let i = 0; i < REMOTE_BYTES; i++) hash = Math.imul(hash ^ (bytes[remote + i] as number), 0x01000193);
    hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
    for (let i = 0; i < length; i++) hash = Math.imul(hash ^ (bytes[blob + i] as number), 0x01000193);
    hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d);
    hash = Math.imul(hash ^ (hash >>> 15), 0x846ca68b | 0);
    return hash ^ (hash >>> 16);
  }
}
