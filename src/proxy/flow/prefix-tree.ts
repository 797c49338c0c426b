import { assert } from '#base/assert.ts';
import type { IpPrefix } from '#base/ip.ts';

/** A prefix with what the builder needs to make its value. */
export interface PrefixEntry {
  readonly prefix: IpPrefix;
}

/**
 * Longest prefix match over a fixed set of prefixes of one family. The prefixes cut the address space into
 * intervals, each of which has one longest prefix; a lookup is a binary search over the intervals' first
 * addresses. Built once, never changed.
 *
 * @typeParam Entry a prefix with what the builder needs to make its value.
 * @typeParam Value what a prefix stands for; made by the builder, which is given the value of the next
 * shorter prefix.
 */
export class PrefixTree<Value, Entry extends PrefixEntry = PrefixEntry> {
  /** Words of an address: 1 or 4. */
  readonly #words: number;
  /** First address of each interval, ascending; words biased so that signed comparison orders them. */
  readonly #starts: Int32Array;
  readonly #values: readonly Value[];

  /** No prefix may be given twice. `root` is the value of addresses that no prefix holds. */
  constructor(
    family: 4 | 6,
    root: Value,
    entries: readonly Entry[],
    make: (entry: Entry, parent: Value) => Value,
  ) {
    this.#words = family === 4 ? 1 : 4;
    const intervals = cut(family, root, entries, make);
    this.#values = intervals.map(({ value }) => value);
    this.#starts = new Int32Array(intervals.length * this.#words);
    for (const [at, { start }] of intervals.entries()) this.#writeStart(at, start);
  }

  /** Number of intervals. */
  get size(): number {
    return this.#values.length;
  }

  /** The value of the longest prefix that holds an IPv4 address, given as a signed number. */
  find4(address: number): Value {
    const starts = this.#starts;
    const wanted = address ^ BIAS;
    let low = 0;
    let high = this.#values.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if ((starts[middle] as number) <= wanted) low = middle;
      else high = middle;
    }
    return this.#values[low] as Value;
  }

  /** The value of the longest prefix that holds the IPv6 address at `offset`. */
  find6(view: DataView, offset: number): Value {
    const starts = this.#starts;
    const word0 = view.getInt32(offset) ^ BIAS;
    const word1 = view.getInt32(offset + 4) ^ BIAS;
    const word2 = view.getInt32(offset + 8) ^ BIAS;
    const word3 = view.getInt32(offset + 12) ^ BIAS;
    let low = 0;
    let high = this.#values.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      const at = middle * 4;
      let order = (starts[at] as number) - word0;
      if (order === 0) order = (starts[at + 1] as number) - word1;
      if (order === 0) order = (starts[at + 2] as number) - word2;
      if (order === 0) order = (starts[at + 3] as number) - word3;
      if (order <= 0) low = middle;
      else high = middle;
    }
    return this.#values[low] as Value;
  }

  #writeStart(at: number, start: bigint): void {
    for (let word = 0; word < this.#words; word++) {
      const shift = BigInt(32 * (this.#words - 1 - word));
      this.#starts[at * this.#words + word] = Number((start >> shift) & 0xffffffffn) ^ BIAS;
    }
  }
}

/** Turns the order of unsigned 32-bit numbers into that of signed ones. */
const BIAS = 0x80000000 | 0;

/** The addresses from `start` to the next interval's. */
interface Interval<Value> {
  readonly start: bigint;
  readonly value: Value;
}

/** A prefix whose end the sweep has not reached yet. */
interface Open<Value> {
  readonly end: bigint;
  readonly value: Value;
}

function cut<Value, Entry extends PrefixEntry>(
  family: 4 | 6,
  root: Value,
  entries: readonly Entry[],
  make: (entry: Entry, parent: Value) => Value,
): readonly Interval<Value>[] {
  const bits = family === 4 ? 32 : 128;
  const space = 1n << BigInt(bits);
  const ranges = entries
    .map((entry) => ({ entry, start: firstAddress(entry.prefix), length: entry.prefix.length }))
    .toSorted((a, b) => (a.start === b.start ? a.length - b.length : a.start < b.start ? -1 : 1));
  const intervals: Interval<Value>[] = [];
  const open: Open<Value>[] = [{ end: space, value: root }];
  const begin = (start: bigint, value: Value): void => {
    if (intervals.at(-1)?.start === start) intervals.pop();
    if (start < space) intervals.push({ start, value });
  };
  const closeUntil = (start: bigint): void => {
    while (open.length > 1 && (open.at(-1) as Open<Value>).end <= start) {
      const { end } = open.pop() as Open<Value>;
      begin(end, (open.at(-1) as Open<Value>).value);
    }
  };
  begin(0n, root);
  for (const { entry, start, length } of ranges) {
    assert(entry.prefix.family === family);
    closeUntil(start);
    const value = make(entry, (open.at(-1) as Open<Value>).value);
    begin(start, value);
    open.push({ end: start + (1n << BigInt(bits - length)), value });
  }
  closeUntil(space);
  return intervals;
}

function firstAddress(prefix: IpPrefix): bigint {
  let value = 0n;
  for (const byte of prefix.bytes) value = (value << 8n) | BigInt(byte);
  return value;
}
