import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Chance, campaign } from './fuzz.ts';
import { PACKET_TARGETS } from './packet.ts';
import { carelessTarget } from './packet-canary.ts';

for (const [name, target] of Object.entries(PACKET_TARGETS)) {
  test(`the packet fuzzer "${name}" finds nothing in a short campaign`, () => {
    const { failure } = campaign(target, { seed: 20240501, runs: 300, seconds: 20 });
    if (failure !== null) throw new Error(`seed ${failure.seed}`, { cause: failure.error });
  });
}

test('a planted error is found, and its seed alone finds it again', () => {
  const { failure } = campaign(carelessTarget, { seed: 1, runs: 10_000, seconds: 20 });
  assert.ok(failure !== null);
  assert.throws(() => carelessTarget(new Chance(failure.seed)), RangeError);
});

test('one seed gives the same bytes each time', () => {
  assert.deepEqual(new Chance(7).bytes(50), new Chance(7).bytes(50));
  assert.notDeepEqual(new Chance(7).bytes(50), new Chance(8).bytes(50));
});
