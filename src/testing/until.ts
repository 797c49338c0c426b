import { setTimeout as pause } from 'node:timers/promises';

/** How long a condition may take to come true on a loaded machine with two cores, milliseconds. */
export const PATIENCE_MS = 20_000;

/** Between two looks, milliseconds: short against what is waited for, long against what looking costs. */
const LOOK_MS = 5;

/** Thrown by a condition that can no longer come true: then nobody waits for the deadline. */
export class Hopeless extends Error {}

/** Values that mean "not yet". */
type NotYet = false | null | undefined;

/**
 * Asks until the answer is anything but false, null or undefined, and gives that answer.
 *
 * @throws Error after `patienceMs` that names `what`, with the last failure of `look` as its cause.
 */
export async function until<T>(
  what: string,
  look: () => T | NotYet | Promise<T | NotYet>,
  patienceMs = PATIENCE_MS,
): Promise<T> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    let cause: unknown;
    try {
      const answer = await look();
      if (answer !== false && answer !== null && answer !== undefined) return answer;
    } catch (error) {
      if (error instanceof Hopeless) throw error;
      cause = error;
    }
    if (performance.now() > deadline) {
      const text = `waited ${patienceMs} ms in vain until ${what}`;
      throw new Error(text, cause === undefined ? undefined : { cause });
    }
    await pause(LOOK_MS);
  }
}

/** The promise's value, or an error that names `what` when it takes longer than `patienceMs`. */
export async function within<T>(what: string, promise: Promise<T>, patienceMs = PATIENCE_MS): Promise<T> {
  const watch = new AbortController();
  const late = pause(patienceMs, undefined, { signal: watch.signal, ref: true }).then(
    () => {
      throw new Error(`${what} took longer than ${patienceMs} ms`);
    },
    () => undefined as never,
  );
  try {
    return await Promise.race([promise, late]);
  } finally {
    watch.abort();
  }
}

/**
 * Closes what a test has opened, in this order and all of it, whatever fails on the way; what was never
 * opened is undefined. @throws what failed first.
 */
export async function closeAll(
  ...opened: readonly (
    | { stop(): Promise<unknown> }
    | { close(): Promise<unknown> | undefined }
    | (() => unknown)
    | undefined
  )[]
): Promise<void> {
  const failures: unknown[] = [];
  for (const one of opened) {
    try {
      if (typeof one === 'function') await one();
      else if (one !== undefined) await ('stop' in one ? one.stop() : one.close());
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
