import { get } from 'node:http';

import type { HealthCheckConfig } from '#config/upstream.ts';
import type { Target } from '#contract/context.ts';

/** Counts the answers of one origin in a row. Pure. */
export class CheckState {
  readonly #rise: number;
  readonly #fall: number;
  #up = true;
  /** Answers in a row that speak against what holds. */
  #against = 0;

  constructor({ rise, fall }: Pick<HealthCheckConfig, 'rise' | 'fall'>) {
    this.#rise = rise;
    this.#fall = fall;
  }

  /** Whether the origin counts as working after one more answer. */
  onAnswer(isGood: boolean): boolean {
    this.#against = isGood === this.#up ? 0 : this.#against + 1;
    if (this.#against >= (this.#up ? this.#fall : this.#rise)) {
      this.#up = !this.#up;
      this.#against = 0;
    }
    return this.#up;
  }
}

/** What checks are made with. */
export interface HealthChecksOptions {
  readonly config: HealthCheckConfig;
  readonly targets: readonly Target[];
  /** Rejects when the target does not work. Has to settle in the end by itself. */
  readonly probe: (target: Target) => Promise<void>;
  /** Told after every answer. */
  readonly onAnswer: (index: number, up: boolean) => void;
  /** Calls back once after a time; gives what calls it off. */
  readonly after: (ms: number, callback: () => void) => () => void;
  /** From 0 to below 1. */
  readonly random: () => number;
}

/** Asks every origin, each at its own time: not all at once, and none twice at a time. */
export class HealthChecks {
  readonly #options: HealthChecksOptions;
  readonly #callOff: (() => void)[] = [];
  #closed = false;

  constructor(options: HealthChecksOptions) {
    this.#options = options;
    const { targets, config, random } = options;
    targets.forEach((target, index) => {
      this.#wait({ target, index, state: new CheckState(config) }, random() * config.intervalMs);
    });
  }

  /** Asks no more. */
  close(): void {
    this.#closed = true;
    for (const callOff of this.#callOff) callOff();
  }

  #wait(origin: { target: Target; index: number; state: CheckState }, ms: number): void {
    if (this.#closed) return;
    const { probe, config, after, onAnswer } = this.#options;
    const settle = (isGood: boolean): void => {
      if (this.#closed) return;
      onAnswer(origin.index, origin.state.onAnswer(isGood));
      this.#wait(origin, config.intervalMs);
    };
    this.#callOff[origin.index] = after(ms, () => {
      probe(origin.target).then(
        () => settle(true),
        () => settle(false),
      );
    });
  }
}

/** A GET whose answer has a status below 400, within `timeoutMs`; rejects otherwise. */
export function probeHttp(target: Target, { path, timeoutMs }: HealthCheckConfig): Promise<void> {
  return new Promise((resolve, reject) => {
    const { host, port } = target;
    const headers = { 'user-agent': 'rampart-health-check', connection: 'close' };
    const signal = AbortSignal.timeout(timeoutMs);
    const request = get({ host, port, path: path ?? '/', agent: false, headers, signal }, (response) => {
      // The head says it; the body is of no interest.
      response.destroy();
      const { statusCode = 0 } = response;
      if (statusCode < 400) resolve();
      else reject(new Error(`answered ${statusCode}`));
    });
    request.on('error', reject);
  });
}
