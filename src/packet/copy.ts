/** Copies inside the arena, for callers that hold only its view. */

let cachedView: DataView = new DataView(new ArrayBuffer(0));
let cachedBytes: Uint8Array = new Uint8Array(0);

/**
 * The bytes under a view, index 0 being the view's offset 0. One view is remembered, because a worker has one
 * arena: a new object for each packet would be garbage.
 */
export function bytesOf(view: DataView): Uint8Array {
  if (view !== cachedView) {
    cachedView = view;
    cachedBytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  }
  return cachedBytes;
}

/** Below this many bytes a loop is faster than the call of `copyWithin` (about 30 ns). */
const LOOP_BYTES_MAX = 64;

/** Copies `length` bytes from `from` to `to`; the ranges may overlap in either direction. */
export function copyBytes(view: DataView, from: number, to: number, length: number): void {
  if (length > LOOP_BYTES_MAX || (to > from && to < from + length)) {
    bytesOf(view).copyWithin(to, from, from + length);
    return;
  }
  let at = 0;
  for (; at + 4 <= length; at += 4) view.setInt32(to + at, view.getInt32(from + at));
  for (; at < length; at++) view.setUint8(to + at, view.getUint8(from + at));
}
