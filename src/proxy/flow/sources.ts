import type { IpPrefix } from '#base/ip.ts';

/**
 * True when the 4 or 16 bytes at `offset` lie in one of the prefixes: whether a tunnel may send from the
 * source, or (of an off-ramp that leads back into tunnels) whether a destination is behind it.
 */
export function isInPrefixes(
  prefixes: readonly IpPrefix[],
  view: DataView,
  offset: number,
  version: number,
): boolean {
  for (let i = 0; i < prefixes.length; i++) {
    const prefix = prefixes[i] as IpPrefix;
    if (prefix.family === version && contains(prefix, view, offset)) return true;
  }
  return false;
}

function contains(prefix: IpPrefix, view: DataView, offset: number): boolean {
  const { bytes, length } = prefix;
  const whole = length >>> 3;
  for (let i = 0; i < whole; i++) if (bytes[i] !== view.getUint8(offset + i)) return false;
  const rest = length & 7;
  return (
    rest === 0 ||
    (((bytes[whole] as number) ^ view.getUint8(offset + whole)) & (0xff << (8 - rest)) & 0xff) === 0
  );
}
