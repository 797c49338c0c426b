import { assert } from '#base/assert.ts';
import type { Fd } from '#io/io.ts';
import type { Worker } from '#proxy/proxy-contract.ts';

/** Sends a few bytes that a fresh socket has room for. False when it does not take all of them at once. */
export function sendNow(worker: Worker, fd: Fd, bytes: Uint8Array): boolean {
  const { io, streams } = worker;
  const slot = streams.acquire();
  if (slot < 0) return false;
  assert(bytes.length <= streams.slotBytes);
  io.arena.bytes.set(bytes, slot);
  const sent = io.trySend(fd, slot, bytes.length);
  streams.release(slot);
  return sent === bytes.length;
}
