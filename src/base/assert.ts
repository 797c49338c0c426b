/**
 * Ends the worker when a programmer's invariant is broken. Never used for data from outside: a bad packet is
 * a returned `DropReason`, a failed operation a `RampartError`.
 *
 * @throws Error when `condition` is false.
 */
export function assert(condition: boolean, message = 'invariant broken'): asserts condition {
  if (!condition) failAssertion(message);
}

/** Marks a place that no execution reaches; `value` is what came there against the types. */
export function unreachable(value: never): never {
  return failAssertion(`unreachable: ${String(value)}`);
}

function failAssertion(message: string): never {
  throw new Error(`assertion failed: ${message}`);
}
