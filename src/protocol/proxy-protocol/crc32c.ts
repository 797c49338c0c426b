/** Table of the Castagnoli polynomial, bits reversed (RFC 9260 appendix A). */
const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

/**
 * CRC32C of the bytes from `start` to before `end`, the four from `hole` on taken as zero; −1 means no hole.
 * A checksum that stands inside what it covers is computed so.
 */
export function crc32c(
  bytes: Uint8Array,
  range: { readonly start: number; readonly end: number; readonly hole: number },
): number {
  const { start, end, hole } = range;
  let crc = 0xffffffff;
  for (let at = start; at < end; at++) {
    const byte = hole >= 0 && at >= hole && at < hole + 4 ? 0 : (bytes[at] as number);
    crc = (TABLE[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
