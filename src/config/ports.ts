import * as z from 'zod';

/** An inclusive range of ports. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** A list of ports and ranges, as sorted ranges without overlap. */
export const portsSchema = z
  .array(z.union([z.int(), z.string()]))
  .min(1)
  .max(256)
  .transform((items, context) => {
    const ranges: PortRange[] = [];
    for (const [index, item] of items.entries()) {
      const range = parsePorts(item);
      if (range !== null) ranges.push(range);
      else {
        const message = 'does not fit; expected a port or a range of ports, such as 80 or "8000-8100"';
        context.issues.push({ code: 'custom', message, input: item, path: [index] });
      }
    }
    return mergePorts(ranges);
  });

function parsePorts(item: string | number): PortRange | null {
  const match = /^([0-9]{1,5})(?:-([0-9]{1,5}))?$/.exec(String(item));
  if (match === null) return null;
  const first = Number(match[1]);
  const last = Number(match[2] ?? match[1]);
  return first >= 1 && first <= last && last <= 65535 ? { first, last } : null;
}

/** Sorts ranges and joins those that touch or overlap. */
function mergePorts(ranges: readonly PortRange[]): readonly PortRange[] {
  const merged: PortRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.first - b.first)) {
    const before = merged.at(-1);
    if (before === undefined || range.first > before.last + 1) merged.push(range);
    else merged[merged.length - 1] = { first: before.first, last: Math.max(before.last, range.last) };
  }
  return merged;
}
