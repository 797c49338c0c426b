/**
 * The name that a person most likely meant: the one of `names` with the smallest edit distance to `text`,
 * compared without case and with `-` equal to `_`. Null when nothing is near (more than about a third of the
 * letters differ).
 */
export function nearestName(text: string, names: Iterable<string>): string | null {
  const wanted = fold(text);
  let best: string | null = null;
  let bestDistance = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const name of names) {
    const distance = editDistance(wanted, fold(name), bestDistance);
    if (distance < bestDistance) {
      best = name;
      bestDistance = distance;
    }
  }
  return best;
}

/** `; did you mean "x"?` for the nearest of `names`, or the empty text. Ends an error's sentence. */
export function didYouMean(text: string, names: Iterable<string>): string {
  const nearest = nearestName(text, names);
  return nearest === null ? '' : `; did you mean "${nearest}"?`;
}

function fold(text: string): string {
  return text.toLowerCase().replaceAll('-', '_');
}

/** Levenshtein distance with swaps of neighbours counted as one; gives up at `limit` and returns it. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit || a.length > 64 || b.length > 64) return a === b ? 0 : limit;
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let distance = Math.min(
        (last[column] as number) + 1,
        (current[column - 1] as number) + 1,
        (last[column - 1] as number) + (same ? 0 : 1),
      );
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) distance = Math.min(distance, (beforeLast[column - 2] as number) + 1);
      current.push(distance);
    }
    beforeLast = last;
    last = current;
  }
  return Math.min(last[b.length] as number, limit);
}
