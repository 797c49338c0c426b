import { assert } from '#base/assert.ts';

import { equalsIgnoringCase, latin1Bytes, latin1Text } from './octets.ts';

/** Bits above the kind in `FieldSection.kinds`. */
export const FieldMark = Object.freeze({
  /** The lower six bits are the `FieldKind`. */
  KindMask: 0x3f,
  /** Named by a Connection field and not protected: belongs to this hop only. */
  NamedByConnection: 0x40,
  /** The line is not `name:value CRLF` byte for byte (a leniency let it in) and must be written afresh. */
  Irregular: 0x80,
} as const);

/**
 * The fields of one section (head or trailers) as offsets into the bytes that they were parsed from. Offsets
 * are relative to `base`, so the bytes may move if `base` moves with them. Valid only while those bytes stay
 * unchanged.
 */
export class FieldSection {
  bytes: Uint8Array = new Uint8Array(0);
  /** Offset in `bytes` that all offsets here are relative to. */
  base = 0;
  count = 0;
  /** For field `i` at `4 * i`: name start, name end, value start, value end. */
  readonly offsets: Int32Array;
  /** For field `i`: its `FieldKind` with `FieldMark` bits. */
  readonly kinds: Uint8Array;
  readonly capacity: number;

  constructor(fieldsMax: number) {
    assert(fieldsMax > 0 && fieldsMax <= 1024);
    this.capacity = fieldsMax;
    this.offsets = new Int32Array(4 * fieldsMax);
    this.kinds = new Uint8Array(fieldsMax);
  }

  /** Forgets all fields and looks at other bytes. */
  reset(bytes: Uint8Array, base: number): void {
    this.bytes = bytes;
    this.base = base;
    this.count = 0;
  }

  /** Name of field `index` as it was written. */
  nameAt(index: number): string {
    assert(index >= 0 && index < this.count);
    const offsets = this.offsets;
    return latin1Text(
      this.bytes,
      this.base + (offsets[4 * index] as number),
      this.base + (offsets[4 * index + 1] as number),
    );
  }

  /** Value of field `index`, one character for each octet, without the whitespace around it. */
  valueAt(index: number): string {
    assert(index >= 0 && index < this.count);
    const offsets = this.offsets;
    return latin1Text(
      this.bytes,
      this.base + (offsets[4 * index + 2] as number),
      this.base + (offsets[4 * index + 3] as number),
    );
  }

  /** Index of the first field at or after `from` with this name in any case, or −1. */
  indexOf(name: string, from = 0): number {
    return this.indexOfBytes(lowerCaseBytes(name), from);
  }

  /** As `indexOf`, with the name given as lower-case bytes. */
  indexOfBytes(name: Uint8Array, from = 0): number {
    for (let index = from; index < this.count; index++) {
      const start = this.offsets[4 * index] as number;
      const length = (this.offsets[4 * index + 1] as number) - start;
      if (length === name.length && equalsIgnoringCase(this.bytes, this.base + start, name)) return index;
    }
    return -1;
  }

  /** Value of the first field of this name in any case, or null. */
  value(name: string): string | null {
    const index = this.indexOf(name);
    return index < 0 ? null : this.valueAt(index);
  }

  /** Values of all fields of this name, in order; empty when there is none. */
  values(name: string): string[] {
    const bytes = lowerCaseBytes(name);
    const found: string[] = [];
    for (let i = this.indexOfBytes(bytes); i >= 0; i = this.indexOfBytes(bytes, i + 1))
      found.push(this.valueAt(i));
    return found;
  }

  /** All fields as pairs of lower-case name and value, in order. For hooks and logs, not for the hot path. */
  entries(): [name: string, value: string][] {
    const list: [string, string][] = [];
    for (let i = 0; i < this.count; i++) list.push([this.nameAt(i).toLowerCase(), this.valueAt(i)]);
    return list;
  }
}

/** Names that hooks ask for again and again: a program has few of them, so each is turned into bytes once. */
const lowerCaseNames = new Map<string, Uint8Array>();
const LOWER_CASE_NAMES_MAX = 1024;

/**
 * Lower-case bytes of a field name; remembered for the next time. A name that is no token matches nothing.
 */
export function lowerCaseBytes(name: string): Uint8Array {
  let bytes = lowerCaseNames.get(name);
  if (bytes === undefined) {
    bytes = latin1Bytes(name.toLowerCase());
    if (lowerCaseNames.size >= LOWER_CASE_NAMES_MAX) lowerCaseNames.clear();
    lowerCaseNames.set(name, bytes);
  }
  return bytes;
}
