/**
 * The fuzzer that must fail: a parser with a planted error (it believes the header length) has to be caught
 * within the given runs, or the fuzzers would prove nothing. Exit code 0 when it was caught.
 */
import { twinPacket, twinUdp } from '#packet/twin.ts';

import { type Chance, campaign } from './fuzz.ts';

/** Reads the UDP destination port where the header length says, without looking whether it is there. */
export function carelessTarget(chance: Chance): void {
  const transport = twinUdp(1, 2, chance.bytes(4));
  const packet = twinPacket({ source: '10.0.0.1', destination: '10.0.0.2', protocol: 17, transport });
  const bytes = chance.mutate(packet);
  if (bytes.length < 20) return;
  const view = new DataView(bytes.buffer);
  view.getUint16((view.getUint8(0) & 15) * 4 + 2);
}

if (import.meta.main) {
  const seed = Date.now() >>> 0;
  const outcome = campaign(carelessTarget, { seed, runs: 10_000, seconds: 10 });
  const verdict = outcome.failure === null ? 'the planted error was missed' : `found in run ${outcome.runs}`;
  console.log(`seed ${seed}: ${verdict}`);
  process.exitCode = outcome.failure === null ? 1 : 0;
}
