/** W3C Trace Context: finds the trace of a request, and makes one for a request that has none. */
import { assert } from '#base/assert.ts';
import { latin1Bytes } from '#protocol/http/octets.ts';

/** Hex digits of a trace's number. */
export const TRACE_ID_LENGTH = 32;

/** `00-<32 hex>-<16 hex>-<2 hex>`: a value of version 00 (Trace Context section 3.2.2). */
const VALUE_LENGTH = 55;

const NAME = latin1Bytes('traceparent: ');
const ID_AT = 3;
const PARENT_AT = 36;
const FLAGS_AT = 53;

/** Length of a whole field line with its end. */
export const TRACE_LINE_LENGTH = NAME.length + VALUE_LENGTH + 2;

/** Offset of the trace's number in a value of traceparent, or −1 when the value is none. */
export function traceIdOffset(bytes: Uint8Array, start: number, end: number): number {
  if (end - start < VALUE_LENGTH) return -1;
  const isVersion00 = bytes[start] === 0x30 && bytes[start + 1] === 0x30;
  // A later version may go on behind a dash; ff is forbidden (section 3.2.2.1).
  if (isVersion00 ? end - start !== VALUE_LENGTH : !isHex(bytes, start, start + 2)) return -1;
  if (bytes[start] === 0x66 && bytes[start + 1] === 0x66) return -1;
  if (end - start > VALUE_LENGTH && bytes[start + VALUE_LENGTH] !== 0x2d) return -1;
  const dashes = bytes[start + 2] === 0x2d && bytes[start + 35] === 0x2d && bytes[start + 52] === 0x2d;
  if (!dashes || !isHex(bytes, start + FLAGS_AT, start + VALUE_LENGTH)) return -1;
  if (!isNumber(bytes, start + ID_AT, TRACE_ID_LENGTH)) return -1;
  return isNumber(bytes, start + PARENT_AT, 16) ? start + ID_AT : -1;
}

/** All lower-case hex digits, and not all zero. */
function isNumber(bytes: Uint8Array, start: number, length: number): boolean {
  if (!isHex(bytes, start, start + length)) return false;
  for (let i = 0; i < length; i++) if (bytes[start + i] !== 0x30) return true;
  return false;
}

function isHex(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) {
    const octet = bytes[i] as number;
    if (!((octet >= 0x30 && octet <= 0x39) || (octet >= 0x61 && octet <= 0x66))) return false;
  }
  return true;
}

/**
 * Makes numbers of traces: xoshiro128++ from a random seed. They have to differ from each other, not to be
 * secret, and one costs some nanoseconds.
 */
export class TraceIds {
  readonly #state: Uint32Array;

  /** @param seed four random words, not all zero; the generator owns them. */
  constructor(seed: Uint32Array) {
    assert(seed.length === 4);
    this.#state = seed;
    if (seed.every((word) => word === 0)) seed[0] = 1;
  }

  /** Writes a whole field line of `TRACE_LINE_LENGTH` bytes, and the trace's number to `id`. */
  next(line: Uint8Array, id: Uint8Array): void {
    assert(line.length === TRACE_LINE_LENGTH && id.length === TRACE_ID_LENGTH);
    line.set(NAME);
    line.set(SHAPE, NAME.length);
    const at = NAME.length + ID_AT;
    for (let word = 0; word < 3; word++) hex(line, at + 8 * word, this.#random());
    // A number must not be all zero (sections 3.2.2.3 and 3.2.2.4).
    hex(line, at + 24, this.#random() | 1);
    hex(line, NAME.length + PARENT_AT, this.#random());
    hex(line, NAME.length + PARENT_AT + 8, this.#random() | 1);
    for (let i = 0; i < TRACE_ID_LENGTH; i++) id[i] = line[at + i] as number;
  }

  #random(): number {
    const s = this.#state;
    const [s0, s1, s2, s3] = [s[0] as number, s[1] as number, s[2] as number, s[3] as number];
    const sum = (s0 + s3) | 0;
    const result = (((sum << 7) | (sum >>> 25)) + s0) >>> 0;
    const t2 = s2 ^ s0;
    const t3 = s3 ^ s1;
    s[1] = s1 ^ t2;
    s[0] = s0 ^ t3;
    s[2] = t2 ^ (s1 << 9);
    s[3] = (t3 << 11) | (t3 >>> 21);
    return result;
  }
}

/** Version 00; sampled (section 3.2.2.3.1), so that what follows may record it. */
const SHAPE = latin1Bytes(`00-${'0'.repeat(32)}-${'0'.repeat(16)}-01\r\n`);
const DIGITS = latin1Bytes('0123456789abcdef');

function hex(out: Uint8Array, at: number, word: number): void {
  for (let i = 0; i < 8; i++) out[at + i] = DIGITS[(word >>> (28 - 4 * i)) & 15] as number;
}
