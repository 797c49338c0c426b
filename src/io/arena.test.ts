import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { Arena } from './arena.ts';

function makeArena(length: number): Arena {
  return new Arena(new ArrayBuffer(length), 0);
}

describe('arena', () => {
  it('reserves aligned ranges that do not overlap, until it is full', () => {
    const arena = makeArena(10_000);
    const first = arena.reserve(10);
    const second = arena.reserve(100, 4096);
    assert.equal(first, 0);
    assert.equal(second, 4096);
    assert.ok(arena.reserve(1) >= second + 100);
    assert.throws(() => arena.reserve(6000), { code: 'RAMP_NO_MEMORY' });
  });

  it('counts the slots that are in use in all pools', () => {
    const arena = makeArena(65_536);
    const small = arena.pool(256, 4);
    const large = arena.pool(1024, 4);
    const slots = [small.acquire(), large.acquire(), large.acquire()];
    assert.equal(arena.slotsInUse, 3);
    small.release(slots[0] as number);
    large.release((slots[1] as number) + 1000);
    large.release(slots[2] as number);
    assert.equal(arena.slotsInUse, 0);
  });
});

describe('slot pool', () => {
  it('hands every slot out once, then none', () => {
    const pool = makeArena(65_536).pool(512, 8);
    const slots = Array.from({ length: 8 }, () => pool.acquire());
    assert.equal(new Set(slots).size, 8);
    assert.equal(pool.acquire(), -1);
    assert.equal(pool.available, 0);
    for (const slot of slots) assert.equal(pool.offsetOf(pool.indexOf(slot + 100)), slot);
  });

  it('refuses a slot that is not in use or not its own', () => {
    const pool = makeArena(65_536).pool(512, 8);
    const slot = pool.acquire();
    pool.release(slot);
    assert.throws(() => pool.release(slot));
    assert.throws(() => pool.release(pool.base - 1));
    assert.throws(() => pool.release(pool.base + 8 * 512));
  });

  it('counts lent slots as free, and gets them back when nothing else is left', () => {
    const pool = makeArena(65_536).pool(512, 4);
    const lent = [pool.lend(), pool.lend(), pool.lend()];
    let reclaims = 0;
    pool.onExhausted(() => {
      reclaims++;
      const index = lent.pop();
      if (index !== undefined) pool.unlend(index);
    });
    assert.equal(pool.inUse, 0);
    assert.equal(pool.available, 4);
    const slots = [pool.acquire(), pool.acquire(), pool.acquire(), pool.acquire()];
    assert.equal(new Set(slots).size, 4);
    assert.equal(reclaims, 3);
    assert.equal(pool.acquire(), -1);
    for (const slot of slots) pool.release(slot);
    assert.equal(pool.inUse, 0);
  });

  it('gives a filled lent slot to its receiver', () => {
    const pool = makeArena(65_536).pool(512, 4);
    const index = pool.lend();
    pool.take(index);
    assert.equal(pool.inUse, 1);
    assert.throws(() => pool.take(index));
    pool.release(pool.offsetOf(index));
    assert.equal(pool.inUse, 0);
  });
});
