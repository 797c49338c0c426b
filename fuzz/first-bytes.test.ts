import { test } from 'node:test';

import { FIRST_BYTES_TARGETS } from './first-bytes.ts';
import { campaign } from './fuzz.ts';

for (const [name, target] of Object.entries(FIRST_BYTES_TARGETS)) {
  test(`the first-bytes fuzzer "${name}" finds nothing in a short campaign`, () => {
    const { failure } = campaign(target, { seed: 20240601, runs: 2000, seconds: 20 });
    if (failure !== null) throw new Error(`seed ${failure.seed}`, { cause: failure.error });
  });
}
