import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { formatIp, parsePrefix, prefixContains } from '#base/ip.ts';

import {
  NAT_INDEX_MAX,
  NatTable,
  readPeerIndex,
  StackPlan,
  writePeerAddress,
  writeStackAddress,
} from './nat.ts';

const view = new DataView(new ArrayBuffer(16));

function addressBytes(version: number): Uint8Array {
  return new Uint8Array(view.buffer, 0, version === 4 ? 4 : 16).slice();
}

test('every index has an address in its prefix, which gives it back and is not of the other peer', () => {
  for (const version of [4, 6]) {
    for (const peer of ['client', 'target'] as const) {
      const text = StackPlan[`${peer}Prefix${version as 4 | 6}`];
      const prefix = parsePrefix(text);
      for (const n of [1, 2, 255, 256, 65_536, 1_000_000, NAT_INDEX_MAX]) {
        writePeerAddress(view, 0, { version, peer, n });
        assert.ok(prefix !== null && prefixContains(prefix, addressBytes(version)));
        assert.equal(readPeerIndex(view, 0, version, peer), n);
        assert.equal(readPeerIndex(view, 0, version, peer === 'client' ? 'target' : 'client'), 0);
      }
    }
    writeStackAddress(view, 0, version);
    assert.equal(formatIp(addressBytes(version)), StackPlan[`stackText${version as 4 | 6}`]);
    assert.equal(readPeerIndex(view, 0, version, 'client'), 0);
    assert.equal(readPeerIndex(view, 0, version, 'target'), 0);
  }
});

test('an address that is only nearly of the plan has no index', () => {
  writePeerAddress(view, 0, { version: 6, peer: 'client', n: 5 });
  view.setInt32(8, 1);
  assert.equal(readPeerIndex(view, 0, 6, 'client'), 0);
  view.setInt32(8, 0);
  view.setInt32(12, -1);
  assert.equal(readPeerIndex(view, 0, 6, 'client'), 0);
});

test('indexes lead to their flows until released, and a released one rests as long as possible', () => {
  const nat = new NatTable(8);
  const first = nat.allocate(40);
  assert.equal(nat.flowOf(first), 40);
  nat.release(first);
  assert.equal(nat.flowOf(first), -1);
  const others = Array.from({ length: 7 }, (_, at) => nat.allocate(at));
  assert.ok(!others.includes(first), 'all others are given out before a freed one');
  assert.equal(nat.inUse, 7);
  nat.release(others[3] as number);
  assert.equal(nat.allocate(99), first, 'the one freed first comes first');
  assert.equal(nat.flowOf(first), 99);
});

test('when all indexes are in use the answer is NatFull, until one is released', () => {
  const nat = new NatTable(4);
  for (let flow = 0; flow < 4; flow++) assert.ok(nat.allocate(flow) > 0);
  assert.equal(nat.allocate(4), -DropReason.NatFull);
  nat.release(2);
  assert.equal(nat.allocate(4), 2);
  assert.equal(nat.allocate(5), -DropReason.NatFull);
});

test('numbers that a packet may hold and that are no index lead nowhere', () => {
  const nat = new NatTable(4);
  for (const n of [-1, 0, 1, 4, 5, 0xffffff]) assert.equal(nat.flowOf(n), -1);
  assert.throws(() => nat.release(1), /twice/);
});

test('a new process goes on with the same indexes and the same order of reuse', () => {
  const old = new NatTable(8);
  for (let flow = 10; flow < 18; flow++) old.allocate(flow);
  for (const n of [5, 2, 7]) old.release(n);
  const fresh = new NatTable(8);
  fresh.restore(structuredClone(old.snapshot()));
  assert.equal(fresh.inUse, 5);
  assert.equal(fresh.flowOf(1), 10);
  assert.equal(fresh.flowOf(5), -1);
  assert.deepEqual([fresh.allocate(1), fresh.allocate(2), fresh.allocate(3)], [5, 2, 7]);
  assert.equal(fresh.allocate(4), -DropReason.NatFull);
});
