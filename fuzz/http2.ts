/**
 * Fuzzes HTTP/2: `node fuzz/http2.ts [--seconds 10] [--seed S] [--only TARGET]`. What must hold for any
 * bytes: no exception, the same outcome however the bytes are cut, nothing written beyond the room given, and
 * after every end no stream left whose content was not given back.
 */
import assert from 'node:assert/strict';
import { latin1Bytes } from '#protocol/http/octets.ts';
import { FrameType, PREFACE } from '#protocol/http2/http2.ts';
import { HpackDecoder } from '#protocol/http2/hpack-decoder.ts';
import { HpackEncoder } from '#protocol/http2/hpack-encoder.ts';
import { huffmanDecode, huffmanDecodedMax, huffmanEncode } from '#protocol/http2/hpack-huffman.ts';
import { frame, headers, join, literalBlock, Pair, Peer, requestFields } from '#protocol/http2/test-peer.ts';

import { type Chance, type FuzzTarget, fuzzMain } from './fuzz.ts';

const OUT = new Uint8Array(256 * 1024);
const TRAPS = [
  'a',
  'te',
  'trailers',
  'host',
  ':path',
  'cookie',
  'content-length',
  '5',
  ' ',
  '\r\n',
  '\0',
  'X',
  '',
];

/** Bytes of a client: frames that are nearly right, in nearly any order. */
function clientBytes(chance: Chance): Uint8Array {
  const parts = [PREFACE, frame(FrameType.Settings, 0, 0)];
  for (let count = chance.between(1, 12); count > 0; count--) parts.push(oneFrame(chance));
  const bytes = join(...parts);
  return chance.oneIn(3) ? chance.mutate(bytes) : bytes;
}

function oneFrame(chance: Chance): Uint8Array {
  const id = chance.pick([0, 1, 1, 1, 3, 3, 5, 7, 2, 99]);
  switch (chance.below(6)) {
    case 0:
      return frame(chance.below(12), chance.below(256), id, chance.bytes(chance.below(30)));
    case 1:
      return frame(FrameType.Data, chance.pick([0, 1, 8, 9]), id, chance.bytes(chance.below(300)));
    case 2:
      return frame(
        chance.below(10),
        chance.pick([0, 1, 4, 5]),
        id,
        chance.bytes(chance.pick([0, 4, 5, 6, 8])),
      );
    case 3: {
      const block = chance.mutate(literalBlock(requestFields()));
      return frame(FrameType.Headers, chance.pick([0, 1, 4, 5, 5, 5, 0x25, 0xd]), id, block);
    }
    default: {
      const more: [string, string][] = [];
      for (let i = chance.below(4); i > 0; i--) more.push([chance.pick(TRAPS), chance.pick(TRAPS)]);
      return headers(id, requestFields(...more), chance.pick([4, 5]));
    }
  }
}

/** What a server made of the bytes, as text. */
function reading(bytes: Uint8Array, step: number): string {
  const peer = new Peer({ isServer: true });
  const outcome = peer.feed(bytes, step);
  const told = peer.take();
  const list = [...peer.messages].map(([id, message]) => {
    const fields = message.reset < 0 && message.fault === 0 ? message.head.fields.entries() : [];
    return [id, message.line, message.text, message.complete, message.reset, message.fault, fields];
  });
  if (outcome === 0) {
    for (const stream of [...peer.connection.streams.values()]) peer.connection.release(stream);
    assert.equal(peer.connection.streams.size, 0);
  }
  return JSON.stringify([outcome, list, told.length]);
}

const targets: Record<string, FuzzTarget> = {
  server: (chance) => {
    const bytes = clientBytes(chance);
    const whole = reading(bytes, bytes.length);
    assert.equal(reading(bytes, 1), whole);
    assert.equal(reading(bytes, chance.between(2, 40)), whole);
  },
  client: (chance) => {
    const client = new Peer({ isServer: false });
    client.feed(frame(FrameType.Settings, 0, 0));
    client.request({}, { method: 'POST', ends: chance.oneIn(2) });
    client.request();
    const parts: Uint8Array[] = [];
    for (let count = chance.between(1, 10); count > 0; count--) {
      const status = headers(
        chance.pick([1, 3]),
        [[':status', chance.pick(['200', '100', '304'])]],
        chance.pick([4, 5]),
      );
      parts.push(chance.oneIn(2) ? status : oneFrame(chance));
    }
    client.feed(chance.mutate(join(...parts)), chance.between(1, 50));
    client.take();
  },
  hpack: (chance) => {
    const decoder = new HpackDecoder();
    for (let round = 0; round < 4; round++) {
      const block = chance.oneIn(2)
        ? chance.bytes(chance.below(200))
        : chance.mutate(literalBlock(requestFields()));
      const limit = chance.pick([0, 10, 100, 4096]);
      OUT.fill(0xaa, limit, limit + 64);
      decoder.begin(OUT, 0, limit);
      const outcome = decoder.decode(block, 0, block.length, { onField: () => {} });
      assert.ok(decoder.outAt <= limit && OUT.subarray(limit, limit + 64).every((octet) => octet === 0xaa));
      assert.ok(decoder.tableSize <= 4096);
      if (outcome !== 0) return;
    }
  },
  roundTrip: (chance) => {
    const encoder = new HpackEncoder({ huffman: chance.oneIn(2) });
    const decoder = new HpackDecoder();
    for (let block = 0; block < 6; block++) {
      if (chance.oneIn(4)) encoder.setLimit(chance.below(5000));
      const fields: [string, string][] = [];
      let at = encoder.begin(OUT, 0);
      for (let i = chance.below(8); i > 0; i--) {
        const field: [string, string] = [
          `x-${chance.below(5)}`,
          String.fromCharCode(...chance.bytes(chance.below(60))),
        ];
        fields.push(field);
        const [name, value] = field.map(latin1Bytes) as [Uint8Array, Uint8Array];
        at = encoder.field(OUT, at, name, 0, name.length, value, 0, value.length);
      }
      const read: [string, string][] = [];
      const text = new Uint8Array(64 * 1024);
      decoder.begin(text, 0, text.length);
      const onField = (start: number, nameLength: number, valueLength: number) => {
        const at2 = start + nameLength + 2;
        const latin1 = (from: number, to: number) => Buffer.from(text.subarray(from, to)).toString('latin1');
        read.push([latin1(start, start + nameLength), latin1(at2, at2 + valueLength)]);
      };
      assert.equal(decoder.decode(OUT, 0, at, { onField }), 0);
      assert.deepEqual(read, fields);
    }
  },
  huffman: (chance) => {
    const bytes = chance.bytes(chance.below(64));
    const end = huffmanEncode(bytes, 0, bytes.length, OUT, 0);
    const back = new Uint8Array(huffmanDecodedMax(end));
    assert.equal(huffmanDecode(OUT, 0, end, back, 0), bytes.length);
    const wild = chance.bytes(chance.below(64));
    const room = new Uint8Array(huffmanDecodedMax(wild.length) + 1);
    assert.ok(huffmanDecode(wild, 0, wild.length, room, 0) < room.length);
  },
  pair: (chance) => {
    const pair = new Pair({}, { connectionWindow: 65_535 });
    pair.step = chance.between(1, 2000);
    pair.run();
    for (let i = chance.between(1, 20); i > 0; i--) {
      const stream = pair.client.request({}, { method: 'POST', ends: false });
      const text = 'x'.repeat(chance.below(40_000));
      const sent = pair.client.send(stream, text, true);
      pair.run();
      const other = pair.server.connection.streams.get(stream.id);
      if (other !== undefined && chance.oneIn(2)) {
        pair.server.respond(other, 200);
        pair.server.send(other, 'y'.repeat(chance.below(20_000)), chance.oneIn(2));
      }
      if (other !== undefined && !other.released) pair.server.connection.release(other);
      pair.run();
      if (sent === text.length) assert.equal(pair.server.message(stream.id).text.length, sent);
      if (!stream.released) pair.client.connection.release(stream);
    }
    pair.run();
    assert.ok(pair.client.connection.sendWindow > 65_535 / 2 - 1, `${pair.client.connection.sendWindow}`);
  },
};

fuzzMain(targets);
