import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Balancer, type BalancerOptions, type Origin, textHash } from './balancer.ts';
import { RetryBudget } from './retry-budget.ts';

/** A sequence of chance that is the same in every run (Lehmer). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return (state - 1) / 2147483646;
  };
}

const NONE: ReadonlySet<Origin> = new Set();

function balancer(count: number, options: Partial<BalancerOptions> = {}): Balancer {
  const targets = Array.from({ length: count }, (_, index) => ({ host: `10.0.0.${index + 1}`, port: 80 }));
  return new Balancer(targets, {
    policy: 'round-robin',
    failuresMax: 3,
    ejectMs: 1000,
    slowStartMs: 0,
    connectionsMax: 100,
    random: seeded(7),
    ...options,
  });
}

/** How often each origin is chosen in `times` turns. */
function tally(of: Balancer, options: { times: number; now?: number; hold?: boolean }): number[] {
  const counts = of.origins.map(() => 0);
  for (let i = 0; i < options.times; i++) {
    const origin = of.choose(options.now ?? 0, textHash(`client ${i}`), NONE) as Origin;
    counts[origin.index] = (counts[origin.index] as number) + 1;
    if (options.hold === true) origin.connections++;
  }
  return counts;
}

function fail(of: Balancer, index: number, now: number): void {
  for (let i = 0; i < 3; i++) of.onFailure(of.origins[index] as Origin, now);
}

test('round robin takes each in turn', () => {
  const of = balancer(3);
  const order = Array.from({ length: 6 }, () => of.choose(0, 0, NONE)?.index);
  assert.deepEqual(order, [0, 1, 2, 0, 1, 2]);
});

test('least-loaded keeps origins level, and fills up one that has less', () => {
  const of = balancer(4, { policy: 'least-loaded' });
  (of.origins[0] as Origin).connections = 20;
  const counts = tally(of, { times: 60, hold: true });
  const loads = of.origins.map(({ connections }) => connections);
  assert.ok(Math.max(...loads) - Math.min(...loads) <= 4, String(loads));
  assert.ok((counts[0] as number) <= 3, String(counts));
});

test('a hash leads to the same origin, evenly over all, and only those of a lost origin move', () => {
  const of = balancer(5, { policy: 'source-hash' });
  const before = Array.from({ length: 2000 }, (_, i) => of.choose(0, textHash(`client ${i}`), NONE)?.index);
  assert.deepEqual(
    before,
    Array.from({ length: 2000 }, (_, i) => of.choose(5, textHash(`client ${i}`), NONE)?.index),
  );
  for (const count of tally(of, { times: 2000 })) assert.ok(count > 320 && count < 480, String(count));
  fail(of, 2, 0);
  for (const [i, index] of before.entries()) {
    const after = of.choose(1, textHash(`client ${i}`), NONE)?.index;
    if (index === 2) assert.notEqual(after, 2);
    else assert.equal(after, index);
  }
});

test('an origin is ejected after failures in a row, each time for longer, and forgiven in the end', () => {
  const of = balancer(2);
  const bad = of.origins[0] as Origin;
  of.onFailure(bad, 0);
  of.onFailure(bad, 0);
  of.onSuccess(bad, 0);
  of.onFailure(bad, 0);
  assert.ok(of.isInUse(bad, 0), 'a success begins the row anew');
  let now = 0;
  for (const length of [1000, 2000, 4000, 8000, 16_000, 32_000, 32_000]) {
    bad.failures = 0;
    fail(of, 0, now);
    assert.equal(bad.ejectedUntil, now + length);
    assert.deepEqual(tally(of, { times: 10, now: now + length - 1 }), [0, 10]);
    now += length;
    assert.ok(of.isInUse(bad, now));
  }
  of.onSuccess(bad, now + 4 * 32_000);
  assert.equal(bad.ejections, 0);
});

test('when all are ejected or down they are used all the same', () => {
  const of = balancer(2);
  fail(of, 0, 0);
  of.onCheck(of.origins[1] as Origin, false, 0);
  assert.deepEqual(tally(of, { times: 10, now: 1 }), [5, 5]);
});

test('an origin that a check brought back gets its share slowly, under every policy that shares', () => {
  for (const policy of ['round-robin', 'least-loaded'] as const) {
    const of = balancer(2, { policy, slowStartMs: 10_000 });
    const back = of.origins[0] as Origin;
    of.onCheck(back, false, 0);
    of.onCheck(back, true, 1000);
    const early = tally(of, { times: 1000, now: 1000 })[0] as number;
    const later = tally(of, { times: 1000, now: 6000 })[0] as number;
    const full = tally(of, { times: 1000, now: 11_000 })[0] as number;
    assert.ok(early < 150, `${policy}: ${early} at once`);
    assert.ok(early <= later && later <= full, `${policy}: ${early}, ${later}, ${full}`);
    assert.ok(full > 450 && full < 1000, `${policy}: ${full} in the end`);
  }
});

test('the limit of connections and what was tried leave nothing in the end', () => {
  const of = balancer(2, { connectionsMax: 3 });
  assert.deepEqual(tally(of, { times: 6, hold: true }), [3, 3]);
  assert.equal(of.choose(0, 0, NONE), null);
  (of.origins[1] as Origin).connections--;
  assert.equal(of.choose(0, 0, NONE)?.index, 1);
  assert.equal(of.choose(0, 0, new Set([of.origins[1] as Origin])), null);
});

test('second tries are a burst and then a fifth of first tries', () => {
  const budget = new RetryBudget();
  let allowed = 0;
  while (budget.take()) allowed++;
  assert.equal(allowed, 10);
  for (let i = 0; i < 1000; i++) {
    budget.onTry();
    if (budget.take()) allowed++;
  }
  assert.ok(allowed >= 205 && allowed <= 210, String(allowed));
});
