import { test } from 'node:test';

import { campaign } from './fuzz.ts';
import { WIREGUARD_TARGETS } from './wireguard.ts';

for (const [name, target] of Object.entries(WIREGUARD_TARGETS)) {
  test(`the WireGuard fuzzer "${name}" finds nothing in a short campaign`, () => {
    const { failure } = campaign(target, { seed: 20240601, runs: 60, seconds: 10 });
    if (failure !== null) throw new Error(`seed ${failure.seed}`, { cause: failure.error });
  });
}
