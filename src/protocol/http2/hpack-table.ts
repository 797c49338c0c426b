import { assert } from '#base/assert.ts';

/** What RFC 7541 section 4.1 adds to name and value for the size of an entry. */
export const ENTRY_OVERHEAD = 32;
/** Entries that the first ring has room for; it grows with what is inserted. */
const RING_FIRST = 16;
const STORE_FIRST = 512;
/** `: ` and CRLF of the text form. */
const TEXT_OVERHEAD = 4;

/**
 * A dynamic table (RFC 7541 section 2.3.2). Entries lie as `name: value CRLF` in one store, oldest first; a
 * ring has their places. Nothing is allocated before the first insertion, so an idle connection has no table.
 */
export class HpackTable {
  /** Text of all entries; replaced when it grows. */
  bytes: Uint8Array = NO_BYTES;
  /** Entries now. */
  count = 0;
  /** Sum of entry sizes, RFC 7541 section 4.1. */
  size = 0;
  /** Bound of `size`. */
  capacity: number;
  /** Entries ever inserted; the newest has this number. */
  inserted = 0;
  #starts: Int32Array = NO_NUMBERS;
  #nameLengths: Int32Array = NO_NUMBERS;
  #valueLengths: Int32Array = NO_NUMBERS;
  #marks: Uint16Array = NO_MARKS;
  #end = 0;

  constructor(capacity: number) {
    assert(capacity >= 0);
    this.capacity = capacity;
  }

  /** Place of entry `index` (0 is the newest) for the getters below. */
  placeOf(index: number): number {
    assert(index >= 0 && index < this.count);
    return (this.inserted - index) & (this.#starts.length - 1);
  }

  /** Where the entry's text begins in `bytes`. */
  startAt(place: number): number {
    return this.#starts[place] as number;
  }

  nameLengthAt(place: number): number {
    return this.#nameLengths[place] as number;
  }

  valueLengthAt(place: number): number {
    return this.#valueLengths[place] as number;
  }

  /** Marks that the entry was inserted with. */
  markAt(place: number): number {
    return this.#marks[place] as number;
  }

  /** Sets the bound and drops the oldest entries until it holds (RFC 7541 section 4.3). */
  setCapacity(capacity: number): void {
    this.capacity = capacity;
    while (this.size > capacity) this.#evict();
  }

  /**
   * Inserts the field whose text `name: value CRLF` begins at `start` of `source`, which is no memory of this
   * table. One that is larger than the table empties it, which is no error (RFC 7541 section 4.4).
   */
  insert(source: Uint8Array, start: number, nameLength: number, valueLength: number, mark: number): void {
    const size = nameLength + valueLength + ENTRY_OVERHEAD;
    while (this.count > 0 && this.size + size > this.capacity) this.#evict();
    if (size > this.capacity) return;
    const length = nameLength + valueLength + TEXT_OVERHEAD;
    this.#makeRoom(length);
    const { bytes } = this;
    const at = this.#end;
    for (let i = 0; i < length; i++) bytes[at + i] = source[start + i] as number;
    this.#end = at + length;
    if (this.count === this.#starts.length) this.#growRing();
    this.inserted++;
    const place = this.inserted & (this.#starts.length - 1);
    this.#starts[place] = at;
    this.#nameLengths[place] = nameLength;
    this.#valueLengths[place] = valueLength;
    this.#marks[place] = mark;
    this.count++;
    this.size += size;
  }

  #evict(): void {
    const place = this.placeOf(this.count - 1);
    this.size -= this.nameLengthAt(place) + this.valueLengthAt(place) + ENTRY_OVERHEAD;
    this.count--;
    if (this.count === 0) this.#end = 0;
  }

  /** Entries move to the store's beginning, or to a larger one of at most twice the capacity. */
  #makeRoom(length: number): void {
    if (this.#end + length <= this.bytes.length) return;
    const first = this.count === 0 ? this.#end : this.startAt(this.placeOf(this.count - 1));
    const used = this.#end - first;
    const wanted = 2 * (used + length);
    if (wanted > this.bytes.length) {
      const grown = new Uint8Array(Math.max(STORE_FIRST, wanted));
      grown.set(this.bytes.subarray(first, this.#end));
      this.bytes = grown;
    } else this.bytes.copyWithin(0, first, this.#end);
    for (let i = 0; i < this.count; i++) {
      const place = this.placeOf(i);
      this.#starts[place] = (this.#starts[place] as number) - first;
    }
    this.#end = used;
  }

  #growRing(): void {
    const length = Math.max(RING_FIRST, this.#starts.length * 2);
    const starts = new Int32Array(length);
    const nameLengths = new Int32Array(length);
    const valueLengths = new Int32Array(length);
    const marks = new Uint16Array(length);
    for (let i = 0; i < this.count; i++) {
      const from = this.placeOf(i);
      const to = (this.inserted - i) & (length - 1);
      starts[to] = this.#starts[from] as number;
      nameLengths[to] = this.#nameLengths[from] as number;
      valueLengths[to] = this.#valueLengths[from] as number;
      marks[to] = this.#marks[from] as number;
    }
    this.#starts = starts;
    this.#nameLengths = nameLengths;
    this.#valueLengths = valueLengths;
    this.#marks = marks;
  }
}

const NO_BYTES = new Uint8Array(0);
const NO_NUMBERS = new Int32Array(0);
const NO_MARKS = new Uint16Array(0);
