import { assert } from '#base/assert.ts';
import { copyOctets, latin1Bytes } from '#protocol/http/octets.ts';

import { huffmanEncode, huffmanLength } from './hpack-huffman.ts';
import {
  STATIC_BYTES,
  STATIC_COUNT,
  STATIC_NAME_LENGTH,
  STATIC_START,
  STATIC_VALUE_LENGTH,
} from './hpack-static.ts';
import { HpackTable } from './hpack-table.ts';
import { TABLE_BYTES_DEFAULT } from './http2.ts';

/**
 * How a field is written. `Index` puts it into the table, for fields that come again; `Literal` is for values
 * that do not; `Never` is for secrets, which no hop may put into a table (RFC 7541 section 7.1.3): several
 * clients share the connection to an upstream, and none may learn from sizes what another one sent.
 */
export const Indexing = Object.freeze({ Index: 0, Literal: 1, Never: 2 } as const);
export type Indexing = (typeof Indexing)[keyof typeof Indexing];

/**
 * Octets that a field takes beside its own at most: kind and index, two lengths, and table updates in front.
 */
export const FIELD_OVERHEAD_MAX = 16;
/** Octets that `begin` writes at most. */
export const UPDATE_BYTES_MAX = 12;
/** A larger field is not worth the entries that it would push out. */
const INDEXED_BYTES_MAX = 1024;
const HASH_SLOTS = 256;
/** Octets at either end of a text that its hash is made of. */
const HASHED_OCTETS = 24;
const NAME_BYTES_MAX = 256;

/** Field names whose values rarely come twice, or that are secret. Everything else goes into the table. */
const POLICY: readonly (readonly [name: string, indexing: Indexing])[] = [
  ['authorization', Indexing.Never],
  ['proxy-authorization', Indexing.Never],
  ['cookie', Indexing.Never],
  ['set-cookie', Indexing.Never],
  [':path', Indexing.Literal],
  ['age', Indexing.Literal],
  ['content-length', Indexing.Literal],
  ['content-range', Indexing.Literal],
  ['etag', Indexing.Literal],
  ['expires', Indexing.Literal],
  ['if-modified-since', Indexing.Literal],
  ['if-none-match', Indexing.Literal],
  ['last-modified', Indexing.Literal],
  ['location', Indexing.Literal],
  ['range', Indexing.Literal],
  ['traceparent', Indexing.Literal],
  ['x-request-id', Indexing.Literal],
];

/** Static entries and policies by hash of the name; what collides is found by looking on. */
const STATIC_BY_NAME = new Uint8Array(HASH_SLOTS);
const POLICY_BY_NAME = new Uint8Array(HASH_SLOTS);
const POLICY_NAMES: readonly Uint8Array[] = POLICY.map(([name]) => latin1Bytes(name));

function buildTables(): void {
  for (let index = STATIC_COUNT; index >= 1; index--) {
    const start = STATIC_START[index] as number;
    const end = start + (STATIC_NAME_LENGTH[index] as number);
    const isFirst = index === 1 || !sameName(index - 1, STATIC_BYTES, start, end);
    if (isFirst) enter(STATIC_BY_NAME, hash(STATIC_BYTES, start, end, 0), index);
  }
  POLICY_NAMES.forEach((name, i) => {
    enter(POLICY_BY_NAME, hash(name, 0, name.length, 0), i + 1);
  });
}

function enter(table: Uint8Array, at: number, value: number): void {
  let slot = at & (HASH_SLOTS - 1);
  while (table[slot] !== 0) slot = (slot + 1) & (HASH_SLOTS - 1);
  table[slot] = value;
}

/**
 * Encodes field blocks of one connection (RFC 7541), in the order in which they are sent. Names may come in
 * any case and go out in lower case (RFC 9113 section 8.2).
 */
export class HpackEncoder {
  readonly #table = new HpackTable(TABLE_BYTES_DEFAULT);
  readonly #huffman: boolean;
  /**
   * What the peer's SETTINGS allow; and the smallest value since the last block, which has to be told too.
   */
  #limit = TABLE_BYTES_DEFAULT;
  #lowest = TABLE_BYTES_DEFAULT;
  #updateDue = false;
  /** By hash: number of the entry that was inserted last with it, for whole fields and for names. */
  #byField: Int32Array | null = null;
  #byName: Int32Array | null = null;
  readonly #name = new Uint8Array(NAME_BYTES_MAX);

  constructor(options: { readonly huffman?: boolean } = {}) {
    this.#huffman = options.huffman ?? true;
  }

  /**
   * The peer's SETTINGS_HEADER_TABLE_SIZE. More than the default is never used: it would only cost memory
   * here.
   */
  setLimit(bytes: number): void {
    this.#limit = Math.min(bytes, TABLE_BYTES_DEFAULT);
    this.#lowest = Math.min(this.#lowest, this.#limit);
    this.#updateDue = this.#lowest !== this.#table.capacity || this.#limit !== this.#table.capacity;
  }

  /** Writes what has to stand in front of a block (RFC 7541 section 4.2); the offset behind it. */
  begin(out: Uint8Array, at: number): number {
    if (!this.#updateDue) return at;
    let position = at;
    if (this.#lowest < this.#limit) position = this.#writeUpdate(out, position, this.#lowest);
    position = this.#writeUpdate(out, position, this.#limit);
    this.#lowest = this.#limit;
    this.#updateDue = false;
    return position;
  }

  #writeUpdate(out: Uint8Array, at: number, size: number): number {
    this.#table.setCapacity(size);
    return writeInteger(out, at, 0x20, 0x1f, size);
  }

  /**
   * Writes one field: the name is a span of `names`, the value one of `bytes`. It takes at most their lengths
   * and `FIELD_OVERHEAD_MAX`. Returns the offset behind it. Neither span may overlap the output.
   */
  field(
    out: Uint8Array,
    at: number,
    names: Uint8Array,
    nameStart: number,
    nameEnd: number,
    bytes: Uint8Array,
    valueStart: number,
    valueEnd: number,
  ): number {
    assert(nameEnd > nameStart && valueEnd >= valueStart);
    const name = nameEnd - nameStart <= NAME_BYTES_MAX ? this.#name : new Uint8Array(nameEnd - nameStart);
    const nameLength = copyLowerCase(name, names, nameStart, nameEnd);
    const nameHash = hash(name, 0, nameLength, 0);
    const fieldHash = hash(bytes, valueStart, valueEnd, nameHash);
    const known = this.#find(name, nameLength, nameHash);
    // One name in the static table has several values: they stand one behind the other.
    for (let index = known; index > 0 && index <= STATIC_COUNT; index++) {
      if (!sameName(index, name, 0, nameLength)) break;
      if (sameValue(index, bytes, valueStart, valueEnd)) return writeInteger(out, at, 0x80, 0x7f, index);
    }
    const whole = this.#findField(name, nameLength, bytes, valueStart, valueEnd, fieldHash);
    if (whole > 0) return writeInteger(out, at, 0x80, 0x7f, whole);
    let indexing = policyOf(name, nameLength, nameHash);
    const valueLength = valueEnd - valueStart;
    if (nameLength + valueLength > INDEXED_BYTES_MAX || this.#table.capacity === 0) {
      if (indexing === Indexing.Index) indexing = Indexing.Literal;
    }
    let position = writeKind(out, at, indexing, known);
    if (known === 0) position = this.#string(out, position, name, 0, nameLength);
    position = this.#string(out, position, bytes, valueStart, valueEnd);
    if (indexing === Indexing.Index) {
      this.#insert(name, nameLength, nameHash, bytes, valueStart, valueEnd, fieldHash);
    }
    return position;
  }

  /** Index of an entry with this name: static first, which never goes away; 0 for none. */
  #find(name: Uint8Array, length: number, nameHash: number): number {
    for (let slot = nameHash & (HASH_SLOTS - 1); ; slot = (slot + 1) & (HASH_SLOTS - 1)) {
      const index = STATIC_BY_NAME[slot] as number;
      if (index === 0) break;
      if (sameName(index, name, 0, length)) return index;
    }
    if (this.#byName === null) return 0;
    const table = this.#table;
    const age = table.inserted - (this.#byName[nameHash & (HASH_SLOTS - 1)] as number);
    if (age >= table.count) return 0;
    const place = table.placeOf(age);
    if (table.nameLengthAt(place) !== length) return 0;
    return sameOctets(table.bytes, table.startAt(place), name, 0, length) ? STATIC_COUNT + 1 + age : 0;
  }

  #findField(
    name: Uint8Array,
    nameLength: number,
    bytes: Uint8Array,
    valueStart: number,
    valueEnd: number,
    fieldHash: number,
  ): number {
    if (this.#byField === null) return 0;
    const table = this.#table;
    const age = table.inserted - (this.#byField[fieldHash & (HASH_SLOTS - 1)] as number);
    if (age >= table.count) return 0;
    const place = table.placeOf(age);
    const length = valueEnd - valueStart;
    if (table.nameLengthAt(place) !== nameLength || table.valueLengthAt(place) !== length) return 0;
    const start = table.startAt(place);
    if (!sameOctets(table.bytes, start, name, 0, nameLength)) return 0;
    return sameOctets(table.bytes, start + nameLength + 2, bytes, valueStart, length)
      ? STATIC_COUNT + 1 + age
      : 0;
  }

  #insert(
    name: Uint8Array,
    nameLength: number,
    nameHash: number,
    bytes: Uint8Array,
    valueStart: number,
    valueEnd: number,
    fieldHash: number,
  ): void {
    let at = copyOctets(ENTRY, 0, name, 0, nameLength);
    ENTRY[at] = 0x3a;
    ENTRY[at + 1] = 0x20;
    at = copyOctets(ENTRY, at + 2, bytes, valueStart, valueEnd);
    ENTRY[at] = 0x0d;
    ENTRY[at + 1] = 0x0a;
    const table = this.#table;
    table.insert(ENTRY, 0, nameLength, valueEnd - valueStart, 0);
    this.#byField ??= new Int32Array(HASH_SLOTS).fill(-TABLE_BYTES_DEFAULT);
    this.#byName ??= new Int32Array(HASH_SLOTS).fill(-TABLE_BYTES_DEFAULT);
    this.#byField[fieldHash & (HASH_SLOTS - 1)] = table.inserted;
    this.#byName[nameHash & (HASH_SLOTS - 1)] = table.inserted;
  }

  /** A string literal, coded where that is shorter (RFC 7541 section 5.2). */
  #string(out: Uint8Array, at: number, bytes: Uint8Array, start: number, end: number): number {
    const length = end - start;
    if (this.#huffman) {
      const coded = huffmanLength(bytes, start, end);
      if (coded < length)
        return huffmanEncode(bytes, start, end, out, writeInteger(out, at, 0x80, 0x7f, coded));
    }
    return copyOctets(out, writeInteger(out, at, 0, 0x7f, length), bytes, start, end);
  }
}

/** The text of the entry that is being inserted. */
const ENTRY = new Uint8Array(INDEXED_BYTES_MAX + 4);

/** Kind and name index of a literal, RFC 7541 section 6.2. */
function writeKind(out: Uint8Array, at: number, indexing: Indexing, index: number): number {
  if (indexing === Indexing.Index) return writeInteger(out, at, 0x40, 0x3f, index);
  return writeInteger(out, at, indexing === Indexing.Never ? 0x10 : 0, 0x0f, index);
}

/** Writes a prefix integer (RFC 7541 section 5.1) under the bits of `first`; the offset behind it. */
export function writeInteger(
  out: Uint8Array,
  at: number,
  first: number,
  mask: number,
  value: number,
): number {
  if (value < mask) {
    out[at] = first | value;
    return at + 1;
  }
  out[at] = first | mask;
  let position = at + 1;
  let rest = value - mask;
  while (rest >= 0x80) {
    out[position++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  out[position] = rest;
  return position + 1;
}

function policyOf(name: Uint8Array, length: number, nameHash: number): Indexing {
  for (let slot = nameHash & (HASH_SLOTS - 1); ; slot = (slot + 1) & (HASH_SLOTS - 1)) {
    const entry = POLICY_BY_NAME[slot] as number;
    if (entry === 0) return Indexing.Index;
    const known = POLICY_NAMES[entry - 1] as Uint8Array;
    if (known.length === length && sameOctets(known, 0, name, 0, length)) {
      return (POLICY[entry - 1] as readonly [string, Indexing])[1];
    }
  }
}

/** Mixes the octets at both ends of a span, and its length, into `seed`. */
function hash(bytes: Uint8Array, start: number, end: number, seed: number): number {
  let mixed = (seed ^ (end - start)) | 0;
  if (end - start <= 2 * HASHED_OCTETS) {
    for (let i = start; i < end; i++) mixed = Math.imul(mixed ^ (bytes[i] as number), 0x01000193);
  } else {
    for (let i = start; i < start + HASHED_OCTETS; i++) {
      mixed = Math.imul(mixed ^ (bytes[i] as number), 0x01000193);
    }
    for (let i = end - HASHED_OCTETS; i < end; i++) {
      mixed = Math.imul(mixed ^ (bytes[i] as number), 0x01000193);
    }
  }
  return mixed ^ (mixed >>> 15);
}

function copyLowerCase(out: Uint8Array, bytes: Uint8Array, start: number, end: number): number {
  for (let i = start; i < end; i++) {
    const octet = bytes[i] as number;
    out[i - start] = octet >= 0x41 && octet <= 0x5a ? octet | 0x20 : octet;
  }
  return end - start;
}

function sameOctets(a: Uint8Array, aStart: number, b: Uint8Array, bStart: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (a[aStart + i] !== b[bStart + i]) return false;
  return true;
}

function sameName(index: number, bytes: Uint8Array, start: number, end: number): boolean {
  if (STATIC_NAME_LENGTH[index] !== end - start) return false;
  return sameOctets(STATIC_BYTES, STATIC_START[index] as number, bytes, start, end - start);
}

function sameValue(index: number, bytes: Uint8Array, start: number, end: number): boolean {
  if (STATIC_VALUE_LENGTH[index] !== end - start) return false;
  const value = (STATIC_START[index] as number) + (STATIC_NAME_LENGTH[index] as number) + 2;
  return sameOctets(STATIC_BYTES, value, bytes, start, end - start);
}

buildTables();
