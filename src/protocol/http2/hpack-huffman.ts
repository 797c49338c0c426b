/**
 * The Huffman code of RFC 7541 appendix B. The code is canonical, so the lengths of its words say all: words
 * are given out by length, and by octet within a length.
 */

/** Word lengths of octets 0 to 255 and of EOS, in bits. */
const LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28,
  28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7,
  8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19,
  13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13,
  28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21,
  22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23,
  22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25,
  25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const EOS = 256;
const LENGTH_MAX = 30;
/**
 * Words of this length and shorter are found by one look into a table; they are the octets that fields
 * consist of.
 */
const SHORT_BITS = 8;

const WORDS = new Uint32Array(257);
const WORD_LENGTHS = Uint8Array.from(LENGTHS);
/**
 * For every eight bits: length << 8 | octet of the word that they begin with, 0 where it is longer than that.
 */
const SHORT = new Uint16Array(1 << SHORT_BITS);
/** For each length: its first word, how many there are, and where their octets begin in `ORDERED`. */
const FIRST_WORD = new Uint32Array(LENGTH_MAX + 1);
const WORD_COUNT = new Uint16Array(LENGTH_MAX + 1);
const FIRST_INDEX = new Uint16Array(LENGTH_MAX + 1);
const ORDERED = new Uint16Array(257);

function buildTables(): void {
  let word = 0;
  let index = 0;
  for (let length = 1; length <= LENGTH_MAX; length++) {
    FIRST_WORD[length] = word;
    FIRST_INDEX[length] = index;
    for (let octet = 0; octet <= EOS; octet++) {
      if (LENGTHS[octet] !== length) continue;
      WORDS[octet] = word;
      ORDERED[index++] = octet;
      if (length <= SHORT_BITS) {
        const first = word << (SHORT_BITS - length);
        SHORT.fill((length << 8) | octet, first, first + (1 << (SHORT_BITS - length)));
      }
      word++;
    }
    WORD_COUNT[length] = index - (FIRST_INDEX[length] as number);
    word *= 2;
  }
}
buildTables();

/** The most octets that `length` coded octets can stand for: the shortest word has five bits. */
export function huffmanDecodedMax(length: number): number {
  return (length * 8 - ((length * 8) % 5)) / 5;
}

/**
 * Decodes `source[start..end)` to `out[at…]`, where there is room for `huffmanDecodedMax`. Returns the offset
 * behind the last octet, or −1 when it is malformed: EOS inside, a word cut off, or padding that is not up to
 * seven one bits (RFC 7541 section 5.2).
 */
export function huffmanDecode(
  source: Uint8Array,
  start: number,
  end: number,
  out: Uint8Array,
  at: number,
): number {
  let from = start;
  let to = at;
  /** The lowest `bits` bits are not decoded yet. */
  let held = 0;
  let bits = 0;
  for (;;) {
    while (bits <= 23 && from < end) {
      held = (held << 8) | (source[from++] as number);
      bits += 8;
    }
    if (bits < SHORT_BITS) break;
    const entry = SHORT[(held >>> (bits - SHORT_BITS)) & 0xff] as number;
    if (entry !== 0) {
      out[to++] = entry & 0xff;
      bits -= entry >>> 8;
      continue;
    }
    let word = (held >>> (bits - SHORT_BITS)) & 0xff;
    let length = SHORT_BITS;
    bits -= SHORT_BITS;
    for (;;) {
      if (bits === 0) {
        if (from === end) return -1;
        held = source[from++] as number;
        bits = 8;
      }
      bits--;
      length++;
      word = word * 2 + ((held >>> bits) & 1);
      const index = word - (FIRST_WORD[length] as number);
      if (index < (WORD_COUNT[length] as number)) {
        const octet = ORDERED[(FIRST_INDEX[length] as number) + index] as number;
        if (octet === EOS) return -1;
        out[to++] = octet;
        break;
      }
      if (length === LENGTH_MAX) return -1;
    }
  }
  while (bits > 0) {
    const padding = SHORT_BITS - bits;
    const ones = (1 << padding) - 1;
    const entry = SHORT[((held << padding) | ones) & 0xff] as number;
    const length = entry >>> 8;
    if (length === 0 || length > bits) return (held & ((1 << bits) - 1)) === (1 << bits) - 1 ? to : -1;
    out[to++] = entry & 0xff;
    bits -= length;
  }
  return to;
}

/** Octets that `source[start..end)` takes when it is coded. */
export function huffmanLength(source: Uint8Array, start: number, end: number): number {
  let bits = 0;
  for (let i = start; i < end; i++) bits += WORD_LENGTHS[source[i] as number] as number;
  return (bits + 7) >>> 3;
}

/** Codes `source[start..end)` to `out[at…]`; the offset behind the last octet. */
export function huffmanEncode(
  source: Uint8Array,
  start: number,
  end: number,
  out: Uint8Array,
  at: number,
): number {
  let to = at;
  /** The lowest `bits` bits (fewer than eight) are not written yet. */
  let held = 0;
  let bits = 0;
  for (let i = start; i < end; i++) {
    const octet = source[i] as number;
    const word = WORDS[octet] as number;
    let length = WORD_LENGTHS[octet] as number;
    if (length > 16) {
      length -= 16;
      held = (held << length) | (word >>> 16);
      bits += length;
      while (bits >= 8) {
        bits -= 8;
        out[to++] = held >>> bits;
      }
      length = 16;
    }
    held = (held << length) | (word & 0xffff);
    bits += length;
    while (bits >= 8) {
      bits -= 8;
      out[to++] = held >>> bits;
    }
  }
  if (bits > 0) out[to++] = (held << (8 - bits)) | ((1 << (8 - bits)) - 1);
  return to;
}
