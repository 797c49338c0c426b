import assert from 'node:assert/strict';
import { test } from 'node:test';

import { REPLAY_WINDOW } from './limits.ts';
import { ReplayWindow } from './replay-window.ts';

/** The simple twin: every counter ever seen. */
class Twin {
  readonly seen = new Set<number>();
  newest = -1;

  has(counter: number): boolean {
    return this.seen.has(counter) || this.newest + 1 - counter > REPLAY_WINDOW;
  }

  add(counter: number): void {
    this.seen.add(counter);
    this.newest = Math.max(this.newest, counter);
  }
}

test('the window answers as a set of all counters does', () => {
  for (const start of [0, 31, 2 ** 32 - 5000, 2 ** 40, 2 ** 52]) {
    const window = new ReplayWindow();
    const twin = new Twin();
    let state = start % 1000;
    const below = (limit: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state >>> 8) % limit;
    };
    let around = start;
    for (let step = 0; step < 20_000; step++) {
      const jump = below(500) === 0 ? below(20_000) : below(3);
      around += jump;
      const behind = below(10) === 0 ? below(9000) : below(20);
      const counter = Math.max(start, around - behind);
      assert.equal(window.has(counter), twin.has(counter), `counter ${counter} after ${twin.newest}`);
      if (window.has(counter)) continue;
      window.add(counter);
      twin.add(counter);
    }
  }
});

test('the edges of the window are exact', () => {
  const window = new ReplayWindow();
  window.add(0);
  assert.ok(window.has(0));
  window.add(REPLAY_WINDOW);
  assert.ok(window.has(0), 'one behind the window');
  assert.ok(!window.has(1), 'the last in the window');
  window.add(1);
  assert.ok(window.has(1));
  window.add(2 ** 53 - 2 ** 13 - 2);
  assert.ok(window.has(REPLAY_WINDOW + 1));
  assert.ok(!window.has(2 ** 53 - 2 ** 13 - 3));
});
