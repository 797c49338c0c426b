import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { DropReason } from '#base/drop-reason.ts';

import {
  delta16,
  delta32,
  deltaAtOddOffset,
  finishChecksum,
  foldSum,
  sumBytes,
  updateChecksum,
  verifyTransportChecksum,
  writePartialChecksum,
  writeTransportChecksum,
} from './checksum.ts';
import { ParsedPacket, parsePacket } from './parse.ts';
import { TwinArena, twinBytes, twinEcho, twinPacket, twinSum, twinTcp, twinUdp } from './twin.ts';
import { checkVirtioHeader, needsChecksum, setNeedsChecksum } from './virtio-header.ts';

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

test('the example of RFC 1071 section 3 sums to ddf2', () => {
  assert.equal(sumBytes(viewOf(Uint8Array.from([0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7])), 0, 8), 0xddf2);
});

test('the example of RFC 1624 section 4: dd2f becomes 0000', () => {
  assert.equal(updateChecksum(0xdd2f, delta16(0x5555, 0x3285)), 0);
});

test('the fast sum equals the simple one at every offset and length', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(8), (bytes, skip) => {
      const offset = Math.min(skip, bytes.length);
      const part = bytes.subarray(offset);
      const fast = sumBytes(viewOf(bytes), offset, part.length);
      assert.equal(fast % 0xffff, twinSum(part) % 0xffff);
      assert.equal(
        fast === 0,
        part.every((byte) => byte === 0),
      );
    }),
    { numRuns: 1000 },
  );
});

test('the longest sum of the largest words does not overflow', () => {
  const bytes = new Uint8Array(0x20000).fill(0xff);
  assert.equal(sumBytes(viewOf(bytes), 0, bytes.length), 0xffff);
  assert.throws(() => sumBytes(viewOf(bytes), 0, 0x20001), /too many bytes/);
});

test('an incremental update equals a new checksum', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 40, maxLength: 40 }),
      fc.nat(9),
      fc.nat(0xffffffff),
      (bytes, word, after) => {
        const view = viewOf(bytes);
        bytes[39] = 1;
        const before = ~sumBytes(view, 0, 40) & 0xffff;
        const old = view.getInt32(word * 4);
        view.setUint32(word * 4, after);
        bytes[39] = 1;
        const delta = delta32(old, view.getInt32(word * 4));
        assert.equal(updateChecksum(before, delta) % 0xffff, (~sumBytes(view, 0, 40) & 0xffff) % 0xffff);
      },
    ),
  );
  assert.equal(deltaAtOddOffset(0x1234), 0x3412);
  assert.equal(foldSum(0xffffffff), 0xffff);
});

const arena = new TwinArena(1, 70000);
const parsed = new ParsedPacket();
const V4 = { source: '10.0.0.1', destination: '10.0.0.2' };
const V6 = { source: 'fd00::1', destination: 'fd00::2' };

function put(packet: Uint8Array): number {
  const at = arena.put(0, packet);
  assert.equal(parsePacket(arena.view, at, packet.length, parsed), DropReason.None);
  return at;
}

const PACKETS = [V4, V6].flatMap((addresses) => [
  twinPacket({ ...addresses, protocol: 6, transport: twinTcp({ payload: twinBytes(101) }) }),
  twinPacket({ ...addresses, protocol: 17, transport: twinUdp(1, 2, twinBytes(64)) }),
]);
PACKETS.push(
  twinPacket({ ...V4, protocol: 1, transport: twinEcho(8, 3, twinBytes(33)) }),
  twinPacket({ ...V6, protocol: 58, transport: twinEcho(128, 3, twinBytes(33)) }),
);

test('right transport checksums verify, and no changed byte passes', () => {
  for (const packet of PACKETS) {
    const at = put(packet);
    assert.equal(verifyTransportChecksum(arena.view, parsed), true);
    for (let i = parsed.transportOffset - at; i < packet.length; i++) {
      arena.bytes[at + i] = arena.bytes[at + i]! ^ 0x10;
      assert.equal(verifyTransportChecksum(arena.view, parsed), false, `byte ${i}`);
      arena.bytes[at + i] = arena.bytes[at + i]! ^ 0x10;
    }
  }
});

test('a UDP checksum of zero is right in IPv4 and wrong in IPv6', () => {
  for (const [addresses, expected] of [
    [V4, true],
    [V6, false],
  ] as const) {
    const transport = twinUdp(1, 2, twinBytes(8));
    put(twinPacket({ ...addresses, protocol: 17, transport, keepChecksum: true }));
    assert.equal(verifyTransportChecksum(arena.view, parsed), expected);
  }
});

test('writing a transport checksum gives the bytes of the simple twin', () => {
  for (const packet of PACKETS) {
    const at = put(packet);
    writeTransportChecksum(arena.view, parsed);
    assert.deepEqual(arena.get(at, packet.length), packet);
  }
});

test('a UDP checksum that comes to zero is written as ffff', () => {
  // The payload is chosen so that the sum is ffff.
  const probe = twinPacket({ ...V4, protocol: 17, transport: twinUdp(1, 2, Uint8Array.from([0, 0])) });
  const payload = probe.subarray(26, 28).slice();
  const packet = twinPacket({ ...V4, protocol: 17, transport: twinUdp(1, 2, payload) });
  const at = put(packet);
  writeTransportChecksum(arena.view, parsed);
  assert.equal(arena.view.getUint16(at + 26), 0xffff);
  setNeedsChecksum(arena.view, parsed);
  writePartialChecksum(arena.view, parsed);
  finishChecksum(arena.view, at, packet.length);
  assert.equal(arena.view.getUint16(at + 26), 0xffff);
});

test('a partial checksum is completed to what the twin computes', () => {
  for (const packet of PACKETS) {
    const at = put(packet);
    if (parsed.protocol === 1) continue;
    setNeedsChecksum(arena.view, parsed);
    writePartialChecksum(arena.view, parsed);
    assert.equal(checkVirtioHeader(arena.view, parsed), DropReason.None);
    finishChecksum(arena.view, at, packet.length);
    assert.equal(needsChecksum(arena.view, at), false);
    assert.deepEqual(arena.get(at, packet.length), packet);
  }
});
