import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DeadlineHeap } from './deadline-heap.ts';
import { BoundedQueue } from './queue.ts';
import { LoadGuard } from './load-guard.ts';
import { SOURCE_COUNT } from './limits.ts';
import { isLater, timestampOf } from './timestamp.ts';

test('labels are TAI64N: ten seconds ahead of Unix time, in order, and coarse', () => {
  assert.equal(timestampOf(0).toHex(), '400000000000000a00000000');
  // 2024-01-01T00:00:00.5Z; half a second rounded down to a multiple of 2^24 ns.
  assert.equal(timestampOf(1_704_067_200_500).toHex(), '400000006592008a1d000000');
  assert.equal(timestampOf(5).toHex(), timestampOf(16).toHex());
  let last = timestampOf(1_704_067_200_000);
  for (let ms = 20; ms < 5000; ms += 17) {
    const label = timestampOf(1_704_067_200_000 + ms);
    assert.ok(isLater(label, last));
    assert.ok(!isLater(last, label) && !isLater(label, label));
    last = label;
  }
});

test('the heap hands out who is due, in order, whatever was moved or removed', () => {
  const heap = new DeadlineHeap<{ heapAt: number; heapIndex: number; due: number }>();
  const members = Array.from({ length: 300 }, (_, index) => ({
    heapAt: 0,
    heapIndex: -1,
    due: (index * 7919) % 1009,
  }));
  for (const member of members) heap.schedule(member, member.due + 500);
  for (const member of members) heap.schedule(member, member.due);
  for (const member of members) heap.schedule(member, member.due + 900);
  for (const member of members.slice(0, 100)) heap.remove(member);
  heap.schedule({ heapAt: 0, heapIndex: -1, due: 0 }, Number.POSITIVE_INFINITY);
  const expected = members.slice(100).map(({ due }) => due);
  expected.sort((a, b) => a - b);
  const taken: number[] = [];
  for (let now = 0; now <= 1010; now += 10) {
    for (let member = heap.take(now); member !== null; member = heap.take(now)) {
      assert.ok(member.due <= now);
      taken.push(member.due);
    }
  }
  assert.deepEqual(taken, expected);
  assert.equal(heap.next, Number.POSITIVE_INFINITY);
});

test('a queue keeps order and refuses what is too much', () => {
  const queue = new BoundedQueue<number>(3);
  for (let round = 0; round < 5; round++) {
    assert.deepEqual(
      [1, 2, 3, 4].map((item) => queue.push(item)),
      [true, true, true, false],
    );
    assert.equal(queue.take(), 1);
    assert.ok(queue.push(5));
    assert.deepEqual([queue.take(), queue.take(), queue.take(), queue.take()], [2, 3, 5, null]);
  }
});

test('tokens come back in time, and a million sources need no more memory than a few', () => {
  const guard = new LoadGuard(0x12345678);
  const view = new DataView(new ArrayBuffer(28));
  view.setUint16(0, 2, true);
  const take = (address: number, now: number): boolean => {
    view.setInt32(4, address);
    return guard.takeToken(view, 0, now);
  };
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6].map(() => take(7, 0)),
    [true, true, true, true, true, false],
  );
  assert.ok(take(8, 0), 'another source has its own');
  assert.ok(!take(7, 40));
  assert.ok(take(7, 50));
  assert.ok(!take(7, 60));
  let taken = 0;
  for (let source = 0; source < 4 * SOURCE_COUNT; source++) if (take(source, 1000)) taken++;
  assert.equal(taken, 4 * SOURCE_COUNT, 'a new source is never refused');
});

test('load begins above a rate and ends a second after it', () => {
  const guard = new LoadGuard(1);
  let loaded = 0;
  for (let i = 0; i < 100; i++) if (guard.isLoaded(1000)) loaded++;
  assert.equal(loaded, 0);
  assert.ok(guard.isLoaded(1050));
  assert.ok(guard.isLoaded(1999));
  assert.ok(!guard.isLoaded(2051));
});
