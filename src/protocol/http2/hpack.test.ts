import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { latin1Bytes, latin1Text } from '#protocol/http/octets.ts';

import { Http2Fault } from './fault.ts';
import { Mark } from './field-mark.ts';
import { BLOCK_BYTES_MAX, type FieldSink, HpackDecoder } from './hpack-decoder.ts';
import { HpackEncoder, writeInteger } from './hpack-encoder.ts';
import { huffmanDecode, huffmanDecodedMax, huffmanEncode, huffmanLength } from './hpack-huffman.ts';

type Field = readonly [name: string, value: string];

class Fields implements FieldSink {
  readonly list: Field[] = [];
  readonly marks: number[] = [];
  readonly #decoder: HpackDecoder;

  constructor(decoder: HpackDecoder) {
    this.#decoder = decoder;
  }

  onField(start: number, nameLength: number, valueLength: number, mark: number): void {
    const { out } = this.#decoder;
    const value = start + nameLength + 2;
    this.list.push([latin1Text(out, start, start + nameLength), latin1Text(out, value, value + valueLength)]);
    this.marks.push(mark);
  }
}

const OUT = new Uint8Array(128 * 1024);

function decode(decoder: HpackDecoder, hex: string, limit: number = OUT.length): Fields {
  const block = Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
  const fields = new Fields(decoder);
  decoder.begin(OUT, 0, limit);
  assert.equal(decoder.decode(block, 0, block.length, fields), 0);
  return fields;
}

function refuses(hex: string, decoder: HpackDecoder = new HpackDecoder()): void {
  const block = Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
  decoder.begin(OUT, 0, OUT.length);
  const outcome = decoder.decode(block, 0, block.length, new Fields(decoder));
  assert.equal(outcome, -Http2Fault.CompressionInvalid);
}

function encode(encoder: HpackEncoder, fields: readonly Field[]): Uint8Array {
  const out = new Uint8Array(64 * 1024);
  let at = encoder.begin(out, 0);
  for (const [name, value] of fields) {
    const names = latin1Bytes(name);
    const values = latin1Bytes(value);
    at = encoder.field(out, at, names, 0, names.length, values, 0, values.length);
  }
  return out.slice(0, at);
}

test('the examples of RFC 7541 appendix C.2 decode', () => {
  const one = (hex: string) => decode(new HpackDecoder(), hex).list;
  assert.deepEqual(one('400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572'), [
    ['custom-key', 'custom-header'],
  ]);
  assert.deepEqual(one('040c 2f73 616d 706c 652f 7061 7468'), [[':path', '/sample/path']]);
  assert.deepEqual(one('1008 7061 7373 776f 7264 0673 6563 7265 74'), [['password', 'secret']]);
  assert.deepEqual(one('82'), [[':method', 'GET']]);
});

test('the requests of RFC 7541 appendix C.4 decode with one table', () => {
  const decoder = new HpackDecoder();
  const common: Field[] = [
    [':method', 'GET'],
    [':scheme', 'http'],
    [':path', '/'],
    [':authority', 'www.example.com'],
  ];
  assert.deepEqual(decode(decoder, '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff').list, common);
  assert.equal(decoder.tableSize, 57);
  const second = decode(decoder, '8286 84be 5886 a8eb 1064 9cbf').list;
  assert.deepEqual(second, [...common, ['cache-control', 'no-cache']]);
  assert.equal(decoder.tableSize, 110);
  const third = decode(decoder, '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf').list;
  assert.deepEqual(third, [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':path', '/index.html'],
    [':authority', 'www.example.com'],
    ['custom-key', 'custom-value'],
  ]);
  assert.equal(decoder.tableSize, 164);
});

test('the responses of RFC 7541 appendix C.6 evict from a table of 256 octets', () => {
  const decoder = new HpackDecoder();
  decoder.setLimit(256);
  const first = decode(
    decoder,
    '3fe1 01 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e' +
      '919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
  );
  assert.deepEqual(first.list, [
    [':status', '302'],
    ['cache-control', 'private'],
    ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
    ['location', 'https://www.example.com'],
  ]);
  assert.equal(decoder.tableSize, 222);
  assert.deepEqual(decode(decoder, '4883 640e ffc1 c0bf').list[0], [':status', '307']);
  assert.equal(decoder.tableSize, 222);
});

test('the integers of RFC 7541 appendix C.1 are written', () => {
  const out = new Uint8Array(8);
  assert.deepEqual([...out.subarray(0, writeInteger(out, 0, 0, 0x1f, 10))], [10]);
  assert.deepEqual([...out.subarray(0, writeInteger(out, 0, 0, 0x1f, 1337))], [31, 154, 10]);
  assert.deepEqual([...out.subarray(0, writeInteger(out, 0, 0, 0xff, 42))], [42]);
});

test('every octet comes back from its Huffman word, alone and among others', () => {
  const coded = new Uint8Array(4096);
  const back = new Uint8Array(8192);
  for (let octet = 0; octet < 256; octet++) {
    for (const text of [[octet], [octet, octet], [0x61, octet, 0x30], [octet, 255, octet, 0]]) {
      const bytes = Uint8Array.from(text);
      const end = huffmanEncode(bytes, 0, bytes.length, coded, 0);
      assert.equal(end, huffmanLength(bytes, 0, bytes.length));
      assert.ok(huffmanDecodedMax(end) >= bytes.length);
      const length = huffmanDecode(coded, 0, end, back, 0);
      assert.deepEqual([...back.subarray(0, length)], text);
    }
  }
});

test('malformed Huffman strings are refused (RFC 7541 section 5.2)', () => {
  const out = new Uint8Array(64);
  const of = (...octets: number[]) => huffmanDecode(Uint8Array.from(octets), 0, octets.length, out, 0);
  assert.equal(of(0x1f), 1, 'a and three ones of padding');
  assert.equal(of(0x18), -1, 'padding with zeros');
  assert.equal(of(0x1f, 0xff), -1, 'more than seven bits of padding');
  assert.equal(of(0xff, 0xff, 0xff, 0xff), -1, 'EOS');
  assert.equal(of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff), -1, 'EOS and more');
  assert.equal(of(), 0);
});

test('malformed blocks are refused', () => {
  refuses('80'); // index 0
  refuses('be'); // behind the table
  refuses('ffffffffff7f'); // an integer beyond reason
  refuses('ff'); // an integer cut off
  refuses('40'); // no name
  refuses('400a6375'); // a string cut off
  refuses('4001612'.concat('0')); // no value
  refuses('82 20'); // an update behind a field
  refuses('20 20 20'); // three updates
  refuses('3fe21f'); // an update beyond the limit
  const lowered = new HpackDecoder();
  lowered.setLimit(128);
  refuses('82', lowered); // no update where one is due
});

test('a decompression bomb costs no more than the room that was given (bug 28)', () => {
  const decoder = new HpackDecoder();
  const value = 'x'.repeat(4000);
  const block = encode(new HpackEncoder({ huffman: false }), []);
  assert.equal(block.length, 0);
  const literal = [0x40, 1, 0x61, ...intoString(value)];
  const bomb = Uint8Array.from([...literal, ...new Array<number>(20_000).fill(0xbe)]);
  const fields = new Fields(decoder);
  decoder.begin(OUT, 0, 16 * 1024);
  assert.equal(decoder.decode(bomb, 0, bomb.length, fields), 0);
  assert.ok(decoder.overflowed);
  assert.ok(decoder.outAt <= 16 * 1024);
  assert.equal(fields.list.length, 4);
  // The table is still the peer's.
  assert.deepEqual(decode(decoder, 'be').list, [['a', value]]);
});

test('an entry larger than the table empties it, and a name may come from an entry that is evicted', () => {
  const decoder = new HpackDecoder();
  const name = 'n'.repeat(2000);
  const hexOf = (...octets: number[]) => Buffer.from(octets).toString('hex');
  decode(decoder, hexOf(0x40, ...intoString(name), 1, 0x61));
  assert.deepEqual(decode(decoder, hexOf(0x7e, ...intoString('v'.repeat(2040)))).list, [
    [name, 'v'.repeat(2040)],
  ]);
  assert.equal(decoder.tableSize, 4072);
  assert.deepEqual(decode(decoder, 'be').list, [[name, 'v'.repeat(2040)]]);
  decode(decoder, hexOf(0x40, 1, 0x61, ...intoString('w'.repeat(4090))));
  assert.equal(decoder.tableSize, 0);
});

test('marks come with fields, whether literal or from a table', () => {
  const decoder = new HpackDecoder();
  const bad = decode(decoder, `40 03 4162 43 01 61 40 01 61 02 0d0a 40 01 62 01 20 00 02 7465 01 61`);
  assert.deepEqual(bad.marks, [Mark.NameInvalid, Mark.ValueInvalid, Mark.ValueInvalid, 8 | Mark.Connection]);
  assert.deepEqual(decode(decoder, 'be bf c0').marks, [
    Mark.ValueInvalid,
    Mark.ValueInvalid,
    Mark.NameInvalid,
  ]);
});

function intoString(text: string): number[] {
  const out = new Uint8Array(8);
  return [...out.subarray(0, writeInteger(out, 0, 0, 0x7f, text.length)), ...latin1Bytes(text)];
}

test('what the encoder writes, the decoder reads, over many blocks and changes of the table', () => {
  for (const huffman of [true, false]) {
    const encoder = new HpackEncoder({ huffman });
    const decoder = new HpackDecoder();
    let state = 7;
    const below = (limit: number) => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state >>> 8) % limit;
    };
    for (let round = 0; round < 400; round++) {
      if (round % 50 === 49) encoder.setLimit(below(3) * 700);
      const fields: Field[] = [[':status', `${200 + below(4)}`]];
      for (let i = below(12); i > 0; i--) {
        const name = ['Server', 'x-a', 'cookie', 'Date', `x-${below(30)}`, 'content-length'][
          below(6)
        ] as string;
        fields.push([name, String.fromCharCode(33 + below(90)).repeat(below(40))]);
      }
      if (below(20) === 0) fields.push(['x-long', 'y'.repeat(below(6000))]);
      const hex = Buffer.from(encode(encoder, fields)).toString('hex');
      assert.deepEqual(
        decode(decoder, hex).list,
        fields.map(([name, value]) => [name.toLowerCase(), value]),
      );
    }
  }
});

test('secrets are never put into a table (RFC 7541 section 7.1.3)', () => {
  const encoder = new HpackEncoder({ huffman: false });
  const block = encode(encoder, [
    ['Authorization', 'Basic x'],
    ['cookie', 'a=b'],
  ]);
  assert.equal((block[0] as number) & 0xf0, 0x10);
  assert.deepEqual(encode(encoder, [['cookie', 'a=b']])[0]! & 0xf0, 0x10);
});

test('a field that comes again is one octet', () => {
  const encoder = new HpackEncoder();
  encode(encoder, [['x-region', 'north']]);
  assert.equal(encode(encoder, [['X-Region', 'north']]).length, 1);
});

/** Blocks of real browsers and servers, encoded by others: a checkout of http2jp/hpack-test-case. */
const STORIES = process.env.HPACK_STORIES;

test('the stories of other encoders decode', {
  skip: STORIES === undefined && 'HPACK_STORIES names no folder',
}, () => {
  let blocks = 0;
  for (const folder of readdirSync(STORIES as string)) {
    if (folder.startsWith('.') || folder === 'raw-data') continue;
    for (const file of listJson(join(STORIES as string, folder))) {
      const { cases } = JSON.parse(readFileSync(file, 'utf8')) as { cases: StoryCase[] };
      const decoder = new HpackDecoder();
      for (const { wire, headers, header_table_size: size } of cases) {
        if (typeof size === 'number') decoder.setLimit(size);
        if (wire.length / 2 > BLOCK_BYTES_MAX) continue;
        const expected = headers.map((field) => Object.entries(field)[0]);
        const utf8 = expected.map((field) =>
          (field as Field).map((text) => Buffer.from(text).toString('latin1')),
        );
        assert.deepEqual(decode(decoder, wire).list, utf8, file);
        blocks++;
      }
    }
  }
  assert.ok(blocks > 0);
});

interface StoryCase {
  readonly wire: string;
  readonly headers: readonly Readonly<Record<string, string>>[];
  readonly header_table_size?: number | null;
}

function listJson(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith('.json'))
      .map((name) => join(folder, name));
  } catch {
    return [];
  }
}
