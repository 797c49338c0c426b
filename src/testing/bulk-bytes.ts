/** Length of a block, bytes. */
const BLOCK_BYTES = 65_536;

/** One block of bytes without a pattern that any shorter shift repeats (xorshift32, fixed seed). */
const BLOCK = makeBlock();

function makeBlock(): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  let state = 0x9e3779b9;
  for (let at = 0; at < BLOCK_BYTES; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    block.writeInt32LE(state | 0, at);
  }
  return block;
}

/** Bytes that are the same wherever they are made, and in which lost, doubled or exchanged blocks show. */
export function* bulkBytes(length: number): Generator<Buffer> {
  for (let at = 0; at < length; at += BLOCK_BYTES) {
    const block = Buffer.from(BLOCK.subarray(0, Math.min(BLOCK_BYTES, length - at)));
    if (block.length >= 6) block.writeUIntLE(at, 0, 6);
    yield block;
  }
}
