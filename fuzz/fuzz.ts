/**
 * A tiny fuzz runner. A fuzzer is a function that takes a source of chance and throws when something is
 * wrong. Every run has its own seed, derived from the first one and its number, so one run can be repeated
 * alone.
 *
 * `node fuzz/NAME.ts [--seconds 10] [--runs N] [--seed S] [--only TARGET]`; see README.md.
 */
import { parseArgs } from 'node:util';

/** Reproducible chance: a counter that is mixed well (32 bits of state). Not for secrets. */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 32 bits, unsigned. */
  word(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    return mixSeed(this.#state);
  }

  /** 0 ≤ result < `limit`. */
  below(limit: number): number {
    return this.word() % limit;
  }

  /** `low` ≤ result ≤ `high`. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True once in `times` on average. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }

  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.word() >>> 24;
    return bytes;
  }

  /** A copy with a few bytes changed, and sometimes cut or grown: small lies are the interesting ones. */
  mutate(bytes: Uint8Array): Uint8Array {
    let result = bytes.slice();
    for (let edits = this.below(6); edits > 0 && result.length > 0; edits--) {
      const at = this.below(this.oneIn(2) ? Math.min(result.length, 80) : result.length);
      const old = result[at] as number;
      result[at] = this.pick([0, 0xff, old + 1, old - 1, old ^ (1 << this.below(8)), this.below(256)]) & 0xff;
    }
    if (this.oneIn(4)) result = result.slice(0, this.below(result.length + 1));
    if (this.oneIn(8)) result = Uint8Array.from([...result, ...this.bytes(this.below(20))]);
    return result;
  }
}

function mixSeed(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}

/** One thing to fuzz: throws when what must hold does not. */
export type FuzzTarget = (chance: Chance) => void;

/** Bounds of a campaign; whichever is reached first ends it. */
export interface FuzzBounds {
  readonly seed: number;
  readonly runs: number;
  readonly seconds: number;
}

/** What was found. */
export interface FuzzOutcome {
  readonly runs: number;
  /** The seed of the run that failed, and what it threw; null when all is well. */
  readonly failure: { readonly seed: number; readonly error: unknown } | null;
}

/** Seed of run `index`: the first run has the seed itself, so that a failure can be repeated. */
export function runSeed(seed: number, index: number): number {
  return (seed + Math.imul(index, 0x9e3779b1)) >>> 0;
}

/** Runs one target within the bounds and stops at the first failure. */
export function campaign(target: FuzzTarget, bounds: FuzzBounds): FuzzOutcome {
  const end = performance.now() + bounds.seconds * 1000;
  for (let run = 0; run < bounds.runs; run++) {
    if ((run & 63) === 0 && performance.now() > end) return { runs: run, failure: null };
    const seed = runSeed(bounds.seed, run);
    try {
      target(new Chance(seed));
    } catch (error) {
      return { runs: run + 1, failure: { seed, error } };
    }
  }
  return { runs: bounds.runs, failure: null };
}

/**
 * The main program of a fuzzer: reads the command line, runs each target, prints seeds, sets the exit code.
 */
export function fuzzMain(targets: Readonly<Record<string, FuzzTarget>>): void {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '10' },
      runs: { type: 'string', default: 'Infinity' },
      seed: { type: 'string' },
      only: { type: 'string' },
    },
  });
  const seed = values.seed === undefined ? Date.now() >>> 0 : Number(values.seed) >>> 0;
  const names = Object.keys(targets).filter((name) => values.only === undefined || name === values.only);
  if (names.length === 0) {
    console.error(`no target ${values.only}; there are: ${Object.keys(targets).join(', ')}`);
    process.exitCode = 2;
    return;
  }
  console.log(`seed ${seed}`);
  const seconds = Number(values.seconds) / names.length;
  for (const name of names) {
    const outcome = campaign(targets[name] as FuzzTarget, { seed, runs: Number(values.runs), seconds });
    console.log(`${name}: ${outcome.runs} runs, ${outcome.failure === null ? 'well' : 'FAILED'}`);
    if (outcome.failure === null) continue;
    console.error(outcome.failure.error);
    console.error(`repeat: --only ${name} --seed ${outcome.failure.seed} --runs 1`);
    process.exitCode = 1;
  }
}
