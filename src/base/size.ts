const UNITS: readonly (readonly [unit: string, bytes: number])[] = Object.freeze([
  ['GiB', 1024 ** 3],
  ['MiB', 1024 ** 2],
  ['KiB', 1024],
  ['B', 1],
]);

/** Bytes of a size as people write it: `64KiB`, `1.5MiB`, `512B`, `512`. Null when malformed or not whole. */
export function parseSize(text: string): number | null {
  const match = /^([0-9]+(?:\.[0-9]+)?)\s*(B|KiB|MiB|GiB)?$/.exec(text);
  if (match === null) return null;
  const unit = UNITS.find(([name]) => name === (match[2] ?? 'B')) as readonly [string, number];
  const bytes = Number(match[1]) * unit[1];
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/**
 * The exact text of a number of bytes in its largest whole unit: `64KiB`, `1000B`; the inverse of
 * `parseSize`.
 */
export function formatSize(bytes: number): string {
  for (const [unit, size] of UNITS) if (bytes >= size && bytes % size === 0) return `${bytes / size}${unit}`;
  return `${bytes}B`;
}
