import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { DELAY_MS_MAX, TimerWheel } from './timer-wheel.ts';

const NOBODY = { onCompletion(): void {} };

describe('timer wheel', () => {
  it('fires what a plain sorted list would fire, whatever is armed, cancelled and skipped', () => {
    for (let seed = 1; seed <= 60; seed++) compareWithList(seed, 400);
  });

  it('never names a time later than the next deadline, and none when empty', () => {
    const wheel = new TimerWheel();
    assert.equal(wheel.nextTick(), Number.POSITIVE_INFINITY);
    for (const delay of [1, 63, 64, 65, 4095, 4096, 4097, 262_144, 20_000_000]) {
      const id = wheel.arm(delay, NOBODY, 0);
      assert.ok(wheel.nextTick() <= delay && wheel.nextTick() > 0, `delay ${delay}`);
      assert.ok(wheel.cancel(id));
    }
    assert.equal(wheel.nextTick(), Number.POSITIVE_INFINITY);
  });

  it('has little to do for many long timers', () => {
    const wheel = new TimerWheel();
    for (let i = 0; i < 10_000; i++) wheel.arm(60_000 + i, NOBODY, i);
    let wakes = 0;
    let fired = 0;
    while (wheel.armed > 0) {
      wheel.advance(wheel.nextTick(), () => fired++);
      wakes++;
    }
    assert.equal(fired, 10_000);
    assert.ok(wakes < 10_000 + 400, `${wakes} wakes`);
  });

  it('fires timers of one tick in the order in which they were armed', () => {
    const wheel = new TimerWheel();
    const fired: number[] = [];
    for (let i = 0; i < 5; i++) wheel.arm(10, NOBODY, i);
    wheel.advance(10, (_completion, tag) => fired.push(tag));
    assert.deepEqual(fired, [0, 1, 2, 3, 4]);
  });

  it('fires a timer of the past at the next advance', () => {
    const wheel = new TimerWheel();
    wheel.advance(100, () => {});
    wheel.arm(5, NOBODY, 0);
    let fired = 0;
    wheel.advance(101, () => fired++);
    assert.equal(fired, 1);
  });

  it('cuts a delay that is too long', () => {
    const wheel = new TimerWheel();
    wheel.arm(2 ** 40, NOBODY, 0);
    let fired = 0;
    wheel.advance(DELAY_MS_MAX - 1, () => fired++);
    assert.equal(fired, 0);
    wheel.advance(DELAY_MS_MAX, () => fired++);
    assert.equal(fired, 1);
  });

  it('ignores stale ids, even when the entry is used again', () => {
    const wheel = new TimerWheel();
    const first = wheel.arm(5, NOBODY, 1);
    assert.notEqual(first, 0);
    assert.equal(wheel.cancel(first), true);
    const second = wheel.arm(5, NOBODY, 2);
    assert.notEqual(second, first);
    assert.equal(wheel.cancel(first), false);
    assert.equal(wheel.armed, 1);
    wheel.clear();
    assert.equal(wheel.cancel(second), false);
    assert.equal(wheel.armed, 0);
  });

  it('lets a firing timer arm and cancel others', () => {
    const wheel = new TimerWheel();
    const fired: number[] = [];
    let victim = 0;
    const fire = (_completion: unknown, tag: number): void => {
      fired.push(tag);
      if (tag !== 1) return;
      wheel.cancel(victim);
      wheel.arm(20, NOBODY, 4);
      wheel.arm(50, NOBODY, 5);
    };
    wheel.arm(10, NOBODY, 1);
    victim = wheel.arm(10, NOBODY, 2);
    wheel.arm(10, NOBODY, 3);
    wheel.advance(30, fire);
    assert.deepEqual(fired, [1, 3, 4]);
    assert.equal(wheel.armed, 1);
  });
});

interface Expected {
  readonly tag: number;
  readonly tick: number;
  readonly id: number;
}

function compareWithList(seed: number, steps: number): void {
  const random = generator(seed);
  const wheel = new TimerWheel();
  let list: Expected[] = [];
  let now = 0;
  for (let step = 0; step < steps; step++) {
    const choice = random();
    if (choice < 0.6) {
      const tick = now + 1 + Math.floor(random() ** 6 * 3_000_000);
      list.push({ tag: step, tick, id: wheel.arm(tick, NOBODY, step) });
    } else if (choice < 0.75 && list.length > 0) {
      const [cancelled] = list.splice(Math.floor(random() * list.length), 1);
      assert.equal(wheel.cancel((cancelled as Expected).id), true);
    } else {
      now += Math.floor(random() ** 4 * 100_000);
      const fired: number[] = [];
      wheel.advance(now, (_completion, tag) => fired.push(tag));
      const due = list.filter(({ tick }) => tick <= now);
      list = list.filter(({ tick }) => tick > now);
      const ticks = new Map(due.map(({ tag, tick }) => [tag, tick]));
      assert.deepEqual(
        fired.toSorted(ascending),
        due.map(({ tag }) => tag).toSorted(ascending),
        `seed ${seed}`,
      );
      const order = fired.map((tag) => ticks.get(tag) as number);
      assert.deepEqual(order, order.toSorted(ascending), `seed ${seed}`);
    }
    assert.equal(wheel.armed, list.length);
    for (const { tick } of list) assert.ok(wheel.nextTick() <= tick, `seed ${seed}`);
  }
}

function ascending(a: number, b: number): number {
  return a - b;
}

/** A small generator of pseudorandom numbers in [0, 1), so that a failing seed can be run again. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 4_294_967_296;
  };
}
