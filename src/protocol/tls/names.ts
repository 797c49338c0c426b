/**
 * Server names: exact ones, and patterns whose first label is `*`, which stands for exactly one label (RFC
 * 6125 section 6.4.3). Names are compared in lower case without a dot at the end.
 */

/** A table from names and patterns to values; an exact name wins over a pattern. */
export class NameTable<Value> {
  readonly #exact = new Map<string, Value>();
  /** By what follows `*`, such as `.example.com`. */
  readonly #patterns = new Map<string, Value>();

  /** Adds a name or pattern; what was added first for the same one stays. */
  add(name: string, value: Value): void {
    const lower = name.toLowerCase();
    const map = lower.startsWith('*.') ? this.#patterns : this.#exact;
    const key = lower.startsWith('*.') ? lower.slice(1) : lower;
    if (!map.has(key)) map.set(key, value);
  }

  /** The value for a name; undefined when none fits. */
  find(name: string): Value | undefined {
    const exact = this.#exact.get(name);
    if (exact !== undefined || this.#patterns.size === 0) return exact;
    const dot = name.indexOf('.');
    return dot <= 0 ? undefined : this.#patterns.get(name.slice(dot));
  }
}

/** Whether a name is one of `patterns`: exact, `*.one.label`, or `.any.depth` with a dot before it. */
export function matchesAnyName(name: string, patterns: readonly string[]): boolean {
  for (const pattern of patterns) {
    const lower = pattern.toLowerCase();
    if (lower === name) return true;
    if (lower.startsWith('*.')) {
      const dot = name.indexOf('.');
      if (dot > 0 && name.slice(dot) === lower.slice(1)) return true;
    } else if (lower.startsWith('.') && name.length > lower.length && name.endsWith(lower)) return true;
  }
  return false;
}
