import { assert } from '#base/assert.ts';
import type { IpPrefix } from '#base/ip.ts';

/** A node of the trie: a prefix that somebody owns, or where two longer ones part. */
interface Node<T> {
  /** The prefix, bits behind `length` being zero; an IPv4 address uses the first word only. */
  readonly words: Int32Array;
  readonly length: number;
  owner: T | null;
  /** Children by the bit at `length`. */
  zero: Node<T> | null;
  one: Node<T> | null;
}

/**
 * Longest prefix → owner, for both families: a trie without chains, so a lookup visits at most as many nodes
 * as there are prefixes in one another, and one prefix changes without the others noticing. A prefix has one
 * owner: giving it to another takes it from the first, as WireGuard does.
 */
export class AllowedIps<T extends object> {
  #root4: Node<T> | null = null;
  #root6: Node<T> | null = null;
  #size = 0;

  /** Prefixes that have an owner. */
  get size(): number {
    return this.#size;
  }

  /** Gives `prefix` to `owner`. Returns who had it, or null. */
  set(prefix: IpPrefix, owner: T): T | null {
    const node = this.#place(prefix);
    const before = node.owner;
    node.owner = owner;
    if (before === null) this.#size++;
    return before;
  }

  /** Takes `prefix` from `owner`. False, and nothing changes, when it is not the owner's. */
  delete(prefix: IpPrefix, owner: T): boolean {
    const words = wordsOf(prefix);
    const path: Node<T>[] = [];
    let node = prefix.family === 4 ? this.#root4 : this.#root6;
    while (node !== null && node.length < prefix.length && matches(node, words)) {
      path.push(node);
      node = bitOf(words, node.length) === 0 ? node.zero : node.one;
    }
    if (node === null || node.length !== prefix.length || !matches(node, words) || node.owner !== owner) {
      return false;
    }
    node.owner = null;
    this.#size--;
    // A node that nobody owns stays only where it parts two others.
    this.#contract(node, path, prefix.family);
    const parent = path.at(-1);
    if (parent !== undefined && parent.owner === null)
      this.#contract(parent, path.slice(0, -1), prefix.family);
    return true;
  }

  /** The owner of the longest prefix that holds an IPv4 address, given as a signed number; or null. */
  find4(address: number): T | null {
    let node = this.#root4;
    let found: T | null = null;
    while (node !== null) {
      const length = node.length;
      if (length > 0 && (address ^ (node.words[0] as number)) >>> (32 - length) !== 0) break;
      if (node.owner !== null) found = node.owner;
      if (length === 32) break;
      node = ((address >>> (31 - length)) & 1) === 0 ? node.zero : node.one;
    }
    return found;
  }

  /** The owner of the longest prefix that holds the IPv6 address at `at`; or null. */
  find6(view: DataView, at: number): T | null {
    let node = this.#root6;
    let found: T | null = null;
    while (node !== null) {
      const length = node.length;
      const whole = length >>> 5;
      for (let i = 0; i < whole; i++) {
        if (view.getInt32(at + 4 * i) !== node.words[i]) return found;
      }
      const rest = length & 31;
      if (rest > 0) {
        const word = view.getInt32(at + 4 * whole) ^ (node.words[whole] as number);
        if (word >>> (32 - rest) !== 0) return found;
      }
      if (node.owner !== null) found = node.owner;
      if (length === 128) break;
      node = ((view.getInt32(at + 4 * whole) >>> (31 - rest)) & 1) === 0 ? node.zero : node.one;
    }
    return found;
  }

  /** The node of exactly `prefix`, made where there is none. */
  #place(prefix: IpPrefix): Node<T> {
    const words = wordsOf(prefix);
    const length = prefix.length;
    let parent: Node<T> | null = null;
    let node = prefix.family === 4 ? this.#root4 : this.#root6;
    while (node !== null && node.length <= length && matches(node, words)) {
      if (node.length === length) return node;
      parent = node;
      node = bitOf(words, node.length) === 0 ? node.zero : node.one;
    }
    const made: Node<T> = { words, length, owner: null, zero: null, one: null };
    if (node === null) {
      this.#attach(prefix.family, parent, made);
      return made;
    }
    const common = commonLength(node.words, words, Math.min(node.length, length));
    if (common === length) {
      attachChild(made, node);
      this.#attach(prefix.family, parent, made);
      return made;
    }
    const fork: Node<T> = {
      words: masked(words, common),
      length: common,
      owner: null,
      zero: null,
      one: null,
    };
    attachChild(fork, node);
    attachChild(fork, made);
    this.#attach(prefix.family, parent, fork);
    return made;
  }

  #attach(family: 4 | 6, parent: Node<T> | null, node: Node<T>): void {
    if (parent !== null) attachChild(parent, node);
    else if (family === 4) this.#root4 = node;
    else this.#root6 = node;
  }

  /** Replaces an ownerless `node` that has one child or none by that child. */
  #contract(node: Node<T>, path: readonly Node<T>[], family: 4 | 6): void {
    assert(node.owner === null);
    if (node.zero !== null && node.one !== null) return;
    const child = node.zero ?? node.one;
    const parent = path.at(-1);
    if (parent === undefined) {
      if (family === 4) this.#root4 = child;
      else this.#root6 = child;
    } else if (parent.zero === node) parent.zero = child;
    else parent.one = child;
  }
}

function attachChild<T>(parent: Node<T>, child: Node<T>): void {
  assert(child.length > parent.length);
  if (bitOf(child.words, parent.length) === 0) parent.zero = child;
  else parent.one = child;
}

function wordsOf(prefix: IpPrefix): Int32Array {
  const view = new DataView(prefix.bytes.buffer, prefix.bytes.byteOffset, prefix.bytes.length);
  return Int32Array.from({ length: prefix.bytes.length / 4 }, (_, index) => view.getInt32(4 * index));
}

function bitOf(words: Int32Array, bit: number): number {
  return ((words[bit >>> 5] as number) >>> (31 - (bit & 31))) & 1;
}

function matches<T>(node: Node<T>, words: Int32Array): boolean {
  return commonLength(node.words, words, node.length) === node.length;
}

/** Leading bits that are equal, at most `limit`. */
function commonLength(a: Int32Array, b: Int32Array, limit: number): number {
  for (let i = 0; i * 32 < limit; i++) {
    const difference = (a[i] as number) ^ (b[i] as number);
    if (difference !== 0) return Math.min(limit, i * 32 + Math.clz32(difference));
  }
  return limit;
}

function masked(words: Int32Array, length: number): Int32Array {
  return words.map((word, index) => {
    const bits = Math.max(0, Math.min(32, length - 32 * index));
    return bits === 0 ? 0 : word & (-1 << (32 - bits));
  });
}
