/** What WireGuard reads of the packets it carries: version, length and addresses, nothing else. */

/** Shortest headers. */
const HEADER4 = 20;
const HEADER6 = 40;

/** Where addresses stand in the two headers. */
export const SOURCE4 = 12;
export const DESTINATION4 = 16;
export const SOURCE6 = 8;
export const DESTINATION6 = 24;

/** 4 or 6 for a packet that may be one of that version with at least its header, 0 for anything else. */
export function innerVersion(view: DataView, at: number, length: number): 0 | 4 | 6 {
  if (length < HEADER4) return 0;
  const version = view.getUint8(at) >>> 4;
  if (version === 4) return 4;
  return version === 6 && length >= HEADER6 ? 6 : 0;
}

/** The packet's own length, without padding behind it; 0 when it claims more than `length` or too little. */
export function innerLength(view: DataView, at: number, length: number): number {
  const version = innerVersion(view, at, length);
  if (version === 0) return 0;
  const claimed = version === 4 ? view.getUint16(at + 2) : view.getUint16(at + 4) + HEADER6;
  return claimed >= HEADER4 && claimed <= length ? claimed : 0;
}
