import { assert } from '#base/assert.ts';
import { copyOctets } from '#protocol/http/octets.ts';

import { Http2Fault } from './fault.ts';
import { markOfName, markOfValue } from './field-mark.ts';
import { huffmanDecode, huffmanDecodedMax } from './hpack-huffman.ts';
import {
  STATIC_BYTES,
  STATIC_COUNT,
  STATIC_MARK,
  STATIC_NAME_LENGTH,
  STATIC_NAME_MARK,
  STATIC_START,
  STATIC_VALUE_LENGTH,
} from './hpack-static.ts';
import { HpackTable } from './hpack-table.ts';
import { TABLE_BYTES_DEFAULT } from './http2.ts';

/** Hears of each field of a block, in order. */
export interface FieldSink {
  /**
   * A field whose text `name: value CRLF` lies in `HpackDecoder.out` from `start` on. `mark` has `Mark` bits.
   * Not called for fields that found no room.
   */
  onField(start: number, nameLength: number, valueLength: number, mark: number): void;
}

/** Octets of a prefix integer behind the prefix: four make 2^28, more than anything here may count. */
const INTEGER_OCTETS_MAX = 4;
const TEXT_OVERHEAD = 4;
/** The longest field block that is decoded, bytes. */
export const BLOCK_BYTES_MAX = 32 * 1024;
/**
 * Where fields are decoded that found no room in `out`: they still belong into the table. One for the whole
 * thread, because nothing in it outlives a field. Room for a name and a value of a block that is nothing
 * else.
 */
const SCRATCH = new Uint8Array(2 * huffmanDecodedMax(BLOCK_BYTES_MAX) + TEXT_OVERHEAD);

/**
 * Decodes field blocks of one connection (RFC 7541). Blocks must come in the order in which they were
 * received; a block that nobody wants is decoded too, because it changes the table.
 *
 * Fields are written as text to `out` between `outAt` and `outLimit`. When one finds no room there,
 * `overflowed` is set, nothing more is written, and only the table goes on: memory is bounded before anything
 * is decoded.
 */
export class HpackDecoder {
  out: Uint8Array = SCRATCH;
  outAt = 0;
  outLimit = 0;
  overflowed = false;
  readonly #table = new HpackTable(TABLE_BYTES_DEFAULT);
  /** What our SETTINGS allow. */
  #limit = TABLE_BYTES_DEFAULT;
  /** The limit was lowered: the next block has to begin with an update (RFC 7541 section 4.2). */
  #updateDue = false;
  #at = 0;

  /** Our SETTINGS_HEADER_TABLE_SIZE was acknowledged. */
  setLimit(bytes: number): void {
    this.#limit = bytes;
    this.#updateDue = bytes < this.#table.capacity;
  }

  /** Bytes of the dynamic table by RFC 7541 section 4.1. */
  get tableSize(): number {
    return this.#table.size;
  }

  /** Where the next block's fields go. */
  begin(out: Uint8Array, at: number, limit: number): void {
    this.out = out;
    this.outAt = at;
    this.outLimit = limit;
    this.overflowed = false;
  }

  /**
   * Decodes the whole block `block[start..end)`, which must not overlap the output. Returns 0, or a negated
   * `CompressionInvalid`: then the table is no longer the peer's, and the connection has to end (RFC 9113
   * section 4.3).
   */
  decode(block: Uint8Array, start: number, end: number, sink: FieldSink): number {
    assert(start <= end && end - start <= BLOCK_BYTES_MAX);
    this.#at = start;
    let updates = 0;
    while (this.#at < end) {
      const octet = block[this.#at] as number;
      if (octet >= 0x80) {
        if (this.#updateDue || !this.#indexed(block, end, sink)) return -Http2Fault.CompressionInvalid;
        updates = 2;
        continue;
      }
      if ((octet & 0xe0) === 0x20) {
        // At most two, and only in front (RFC 7541 section 4.2).
        if (++updates > 2 || !this.#update(block, end)) return -Http2Fault.CompressionInvalid;
        continue;
      }
      if (this.#updateDue || !this.#literal(block, end, octet, sink)) return -Http2Fault.CompressionInvalid;
      updates = 2;
    }
    return 0;
  }

  /** RFC 7541 section 6.3. */
  #update(block: Uint8Array, end: number): boolean {
    const size = this.#integer(block, end, 0x1f);
    if (size < 0 || size > this.#limit) return false;
    this.#updateDue = false;
    this.#table.setCapacity(size);
    return true;
  }

  /** RFC 7541 section 6.1: the whole entry is one copy. */
  #indexed(block: Uint8Array, end: number, sink: FieldSink): boolean {
    const index = this.#integer(block, end, 0x7f);
    if (index <= 0) return false;
    const table = this.#table;
    let bytes = STATIC_BYTES;
    let start = 0;
    let nameLength = 0;
    let valueLength = 0;
    let mark = 0;
    if (index <= STATIC_COUNT) {
      start = STATIC_START[index] as number;
      nameLength = STATIC_NAME_LENGTH[index] as number;
      valueLength = STATIC_VALUE_LENGTH[index] as number;
      mark = STATIC_MARK[index] as number;
    } else {
      if (index - STATIC_COUNT > table.count) return false;
      const place = table.placeOf(index - STATIC_COUNT - 1);
      bytes = table.bytes;
      start = table.startAt(place);
      nameLength = table.nameLengthAt(place);
      valueLength = table.valueLengthAt(place);
      mark = table.markAt(place);
    }
    const length = nameLength + valueLength + TEXT_OVERHEAD;
    if (this.overflowed || length > this.outLimit - this.outAt) {
      this.overflowed = true;
      return true;
    }
    const at = this.outAt;
    this.outAt = copyOctets(this.out, at, bytes, start, start + length);
    sink.onField(at, nameLength, valueLength, mark);
    return true;
  }

  /** RFC 7541 section 6.2, all three kinds. */
  #literal(block: Uint8Array, end: number, octet: number, sink: FieldSink): boolean {
    const isInserted = octet >= 0x40;
    const index = this.#integer(block, end, isInserted ? 0x3f : 0x0f);
    if (index < 0 || index > STATIC_COUNT + this.#table.count) return false;
    // What is left of the block bounds what is left of this field.
    const most = this.#nameLength(index) + huffmanDecodedMax(end - this.#at) + TEXT_OVERHEAD;
    const isDirect = !this.overflowed && most <= this.outLimit - this.outAt;
    const out = isDirect ? this.out : SCRATCH;
    let at = isDirect ? this.outAt : 0;
    const start = at;
    let mark = 0;
    if (index > 0) {
      at = this.#copyName(index, out, at);
      mark = this.#nameMark(index);
    } else {
      at = this.#string(block, end, out, at);
      if (at < 0) return false;
      mark = markOfName(out, start, at);
    }
    const nameLength = at - start;
    out[at] = 0x3a;
    out[at + 1] = 0x20;
    const value = at + 2;
    at = this.#string(block, end, out, value);
    if (at < 0) return false;
    const valueLength = at - value;
    out[at] = 0x0d;
    out[at + 1] = 0x0a;
    mark = markOfValue(out, value, at, mark);
    if (isInserted) this.#table.insert(out, start, nameLength, valueLength, mark);
    if (isDirect) {
      this.outAt = at + 2;
      sink.onField(start, nameLength, valueLength, mark);
    } else this.#fromScratch(nameLength, valueLength, mark, sink);
    return true;
  }

  /** The bound was too careful for a field near the end of the room: it may fit after all. */
  #fromScratch(nameLength: number, valueLength: number, mark: number, sink: FieldSink): void {
    const length = nameLength + valueLength + TEXT_OVERHEAD;
    if (this.overflowed || length > this.outLimit - this.outAt) {
      this.overflowed = true;
      return;
    }
    const at = this.outAt;
    this.outAt = copyOctets(this.out, at, SCRATCH, 0, length);
    sink.onField(at, nameLength, valueLength, mark);
  }

  #nameLength(index: number): number {
    if (index === 0) return 0;
    if (index <= STATIC_COUNT) return STATIC_NAME_LENGTH[index] as number;
    return this.#table.nameLengthAt(this.#table.placeOf(index - STATIC_COUNT - 1));
  }

  /** Marks of an entry's name, without those of its value. */
  #nameMark(index: number): number {
    if (index <= STATIC_COUNT) return STATIC_NAME_MARK[index] as number;
    const table = this.#table;
    const start = table.startAt(table.placeOf(index - STATIC_COUNT - 1));
    return markOfName(table.bytes, start, start + this.#nameLength(index));
  }

  #copyName(index: number, out: Uint8Array, at: number): number {
    if (index <= STATIC_COUNT) {
      const start = STATIC_START[index] as number;
      return copyOctets(out, at, STATIC_BYTES, start, start + (STATIC_NAME_LENGTH[index] as number));
    }
    const table = this.#table;
    const place = table.placeOf(index - STATIC_COUNT - 1);
    const start = table.startAt(place);
    return copyOctets(out, at, table.bytes, start, start + table.nameLengthAt(place));
  }

  /** A string literal (RFC 7541 section 5.2) is decoded to `out[at…]`. The offset behind it, or −1. */
  #string(block: Uint8Array, end: number, out: Uint8Array, at: number): number {
    if (this.#at >= end) return -1;
    const isHuffman = (block[this.#at] as number) >= 0x80;
    const length = this.#integer(block, end, 0x7f);
    if (length < 0 || length > end - this.#at) return -1;
    const start = this.#at;
    this.#at = start + length;
    if (isHuffman) return huffmanDecode(block, start, start + length, out, at);
    return copyOctets(out, at, block, start, start + length);
  }

  /** A prefix integer (RFC 7541 section 5.1), or −1 when it is cut off or beyond all reason. */
  #integer(block: Uint8Array, end: number, mask: number): number {
    let at = this.#at;
    let value = (block[at++] as number) & mask;
    if (value < mask) {
      this.#at = at;
      return value;
    }
    for (let shift = 0; shift < 7 * INTEGER_OCTETS_MAX; shift += 7) {
      if (at === end) return -1;
      const octet = block[at++] as number;
      value += (octet & 0x7f) << shift;
      if (octet < 0x80) {
        this.#at = at;
        return value;
      }
    }
    return -1;
  }
}
