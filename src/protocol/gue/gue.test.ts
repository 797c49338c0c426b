import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { DropReason, dropReasonName } from '#base/drop-reason.ts';

import {
  GUE_CONTEXT_LENGTH_MAX,
  GUE_HEADER_LENGTH_MAX,
  GueHeader,
  makeGueHeader,
  readGueHeader,
  writeGueHeader,
} from './gue.ts';

const header = new GueHeader();
const V4 = [0x45, ...new Array(19).fill(0)];
const V6 = [0x60, ...new Array(39).fill(0)];

function read(bytes: number[] | Uint8Array): string {
  const view = new DataView(Uint8Array.from(bytes).buffer);
  return dropReasonName(readGueHeader(view, 0, bytes.length, header));
}

test('a datagram carries its context and its packet', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: GUE_CONTEXT_LENGTH_MAX }), fc.boolean(), (context, isIpv4) => {
      const packet = isIpv4 ? V4 : V6;
      const bytes = new Uint8Array(200 + packet.length);
      bytes.set(packet, 160);
      const view = new DataView(bytes.buffer);
      const made = makeGueHeader(context);
      assert.ok(made.length <= GUE_HEADER_LENGTH_MAX && made.length % 4 === 0);
      const offset = writeGueHeader(view, 160, made);
      const length = 160 + packet.length - offset;
      assert.equal(readGueHeader(view, offset, length, header), DropReason.None);
      assert.equal(header.packetOffset, 160);
      assert.equal(header.packetLength, packet.length);
      assert.deepEqual(
        bytes.slice(header.contextOffset, header.contextOffset + header.contextLength),
        context,
      );
    }),
  );
});

test('the bytes are those of the draft', () => {
  const bytes = Uint8Array.from([...new Array(16).fill(0xee), ...V6]);
  const offset = writeGueHeader(new DataView(bytes.buffer), 16, makeGueHeader(Buffer.from('abc')));
  assert.equal(Buffer.from(bytes.subarray(offset, 16)).toString('hex'), '02290000' + '0103616263000000');
  assert.deepEqual(makeGueHeader(new Uint8Array(0)), new Uint8Array(4));
});

test('a plain encapsulator, which sends no private data, has an empty context', () => {
  assert.equal(read([0, 4, 0, 0, ...V4]), 'none');
  assert.equal(header.contextLength, 0);
  assert.equal(header.packetOffset, 4);
  assert.equal(read([0, 41, 0, 0, ...V6]), 'none');
});

test('anything else is refused', () => {
  assert.equal(read([]), 'bad_encapsulation');
  assert.equal(read([0, 4, 0]), 'bad_encapsulation');
  assert.equal(read([0, 4, 0, 0]), 'bad_encapsulation', 'no packet');
  assert.equal(read([0x20, 4, 0, 0, ...V4]), 'bad_encapsulation', 'control');
  assert.equal(read([0x40, 4, 0, 0, ...V4]), 'bad_encapsulation', 'variant 1');
  assert.equal(read(V4), 'bad_encapsulation', 'variant 1 is bare IP');
  assert.equal(read([0, 4, 0, 1, ...V4]), 'bad_encapsulation', 'flags');
  assert.equal(read([0, 4, 0x80, 0, ...V4]), 'bad_encapsulation', 'flags');
  assert.equal(read([0, 6, 0, 0, ...V4]), 'bad_encapsulation', 'protocol');
  assert.equal(read([0, 41, 0, 0, ...V4]), 'bad_encapsulation', 'version');
  assert.equal(read([0, 4, 0, 0, ...V6]), 'bad_encapsulation', 'version');
  assert.equal(read([31, 4, 0, 0, ...V4]), 'bad_encapsulation', 'header longer than datagram');
  assert.equal(read([1, 4, 0, 0, 1, 2, 9, 9, ...V4]), 'none');
  assert.equal(read([1, 4, 0, 0, 1, 3, 9, 9, ...V4]), 'bad_context', 'context longer than header');
  assert.equal(read([1, 4, 0, 0, 2, 2, 9, 9, ...V4]), 'bad_context', 'form');
  assert.equal(read([1, 4, 0, 0, 1, 0, 0, 0, ...V4]), 'bad_context', 'empty');
  assert.equal(read([1, 4, 0, 0, 1, 1, 9, 9, ...V4]), 'bad_context', 'padding');
  assert.equal(read([2, 4, 0, 0, 1, 1, 9, 0, 0, 0, 0, 0, ...V4]), 'bad_context', 'too much padding');
});

test('a context that does not fit is an error that says the limit', () => {
  makeGueHeader(new Uint8Array(GUE_CONTEXT_LENGTH_MAX));
  assert.throws(() => makeGueHeader(new Uint8Array(GUE_CONTEXT_LENGTH_MAX + 1)), /123 bytes .* holds 122/);
});

test('reading is total', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      if (readGueHeader(view, 0, bytes.length, header) !== DropReason.None) return;
      assert.equal(header.packetOffset + header.packetLength, bytes.length);
      assert.ok(
        header.contextOffset + header.contextLength <= header.packetOffset || header.contextLength === 0,
      );
    }),
    { numRuns: 2000 },
  );
});
