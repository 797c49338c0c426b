/**
 * TAI64N labels as handshakes carry them: 8 bytes of seconds and 4 of nanoseconds, big-endian, so that
 * comparing bytes compares times.
 */
import { assert } from '#base/assert.ts';

/** Bytes of a label. */
export const TIMESTAMP_LENGTH = 12;

/** TAI64 counts from here (2^62) and is ten seconds ahead of Unix time, without leap seconds. */
const SECONDS_HIGH = 0x40000000;
const TAI_OFFSET = 10;
/**
 * Nanoseconds are rounded down to this (about 17 ms), so that a handshake does not tell how exactly the clock
 * of the sender runs.
 */
const RESOLUTION_NS = 2 ** 24;

/** The label of Unix time in milliseconds, which may have a fraction; the caller's. */
export function timestampOf(unixMs: number): Uint8Array {
  assert(unixMs >= 0 && unixMs < 2 ** 52);
  const unixSeconds = Math.floor(unixMs / 1000);
  const seconds = unixSeconds + TAI_OFFSET;
  const nanoseconds = Math.floor((unixMs - unixSeconds * 1000) * 1e6);
  const label = new Uint8Array(TIMESTAMP_LENGTH);
  const view = new DataView(label.buffer);
  view.setUint32(0, SECONDS_HIGH + Math.floor(seconds / 2 ** 32));
  view.setUint32(4, seconds % 2 ** 32);
  view.setUint32(8, nanoseconds - (nanoseconds % RESOLUTION_NS));
  return label;
}

/** True when label `a` is later than `b`. */
export function isLater(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < TIMESTAMP_LENGTH; i++) {
    if (a[i] !== b[i]) return (a[i] as number) > (b[i] as number);
  }
  return false;
}
