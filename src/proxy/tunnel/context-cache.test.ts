import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BLOB_BYTES_MAX, ContextCache, REMOTE_BYTES } from './context-cache.ts';

/** A datagram's remote and blob side by side, at offsets that are not aligned. */
function datagram(remote: string, blob: string | Uint8Array): { bytes: Uint8Array; length: number } {
  const data = typeof blob === 'string' ? Buffer.from(blob) : blob;
  const bytes = new Uint8Array(3 + REMOTE_BYTES + data.length);
  bytes.set(Buffer.from(remote.padEnd(REMOTE_BYTES, '.')).subarray(0, REMOTE_BYTES), 3);
  bytes.set(data, 3 + REMOTE_BYTES);
  return { bytes, length: data.length };
}

function find(cache: ContextCache, remote: string, blob: string | Uint8Array): number {
  const { bytes, length } = datagram(remote, blob);
  const entry = cache.find(bytes, 3, 3 + REMOTE_BYTES, length);
  return entry < 0 ? -1 : cache.valueOf(entry);
}

function add(cache: ContextCache, remote: string, blob: string | Uint8Array, value: number): number {
  const { bytes, length } = datagram(remote, blob);
  return cache.add(bytes, 3, 3 + REMOTE_BYTES, length, value);
}

test('equal blobs of two remotes, and two blobs of one remote, are different contexts', () => {
  const cache = new ContextCache(8, 1);
  add(cache, 'a', 'x', 1);
  add(cache, 'b', 'x', 2);
  add(cache, 'a', 'xy', 3);
  assert.deepEqual([find(cache, 'a', 'x'), find(cache, 'b', 'x'), find(cache, 'a', 'xy')], [1, 2, 3]);
  assert.equal(find(cache, 'a', 'y'), -1);
  assert.equal(find(cache, 'b', ''), -1);
});

test('the context that was not used for longest makes room', () => {
  const cache = new ContextCache(3, 1);
  for (const [value, name] of ['a', 'b', 'c'].entries()) add(cache, name, 'x', value);
  find(cache, 'a', 'x');
  assert.equal(cache.valueOf(cache.oldestIfFull), 1);
  cache.delete(cache.oldestIfFull);
  assert.equal(cache.oldestIfFull, -1);
  add(cache, 'd', 'x', 3);
  assert.deepEqual(
    ['a', 'b', 'c', 'd'].map((name) => find(cache, name, 'x')),
    [0, -1, 2, 3],
  );
});

test('a blob of the greatest length fits, a longer one is not found', () => {
  const cache = new ContextCache(2, 1);
  add(cache, 'a', new Uint8Array(BLOB_BYTES_MAX).fill(7), 5);
  assert.equal(find(cache, 'a', new Uint8Array(BLOB_BYTES_MAX).fill(7)), 5);
  assert.equal(find(cache, 'a', new Uint8Array(BLOB_BYTES_MAX + 1).fill(7)), -1);
});

test('it agrees with a plain map over many random finds, additions and deletions', () => {
  const cache = new ContextCache(64, 0x1234567);
  const twin = new Map<string, number>();
  let random = 42;
  const next = (below: number): number => {
    random = (Math.imul(random, 1103515245) + 12345) >>> 0;
    return (random >>> 8) % below;
  };
  for (let step = 0; step < 20000; step++) {
    const remote = `r${next(12)}`;
    const blob = `b${next(12)}`;
    const key = `${remote} ${blob}`;
    assert.equal(find(cache, remote, blob), twin.get(key) ?? -1, `step ${step}`);
    if (next(3) === 0) continue;
    if (twin.has(key)) {
      const { bytes, length } = datagram(remote, blob);
      cache.delete(cache.find(bytes, 3, 3 + REMOTE_BYTES, length));
      twin.delete(key);
    } else {
      const oldest = cache.oldestIfFull;
      if (oldest >= 0) {
        const value = cache.valueOf(oldest);
        for (const [other, its] of twin) if (its === value) twin.delete(other);
        cache.delete(oldest);
      }
      add(cache, remote, blob, step);
      twin.set(key, step);
    }
    assert.equal(cache.count, twin.size);
  }
});
