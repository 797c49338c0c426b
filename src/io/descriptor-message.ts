/**
 * Messages with descriptors (SCM_RIGHTS, unix(7)), laid out in scratch memory for one synchronous call:
 * struct msghdr at `ScratchOffset.Message`, control messages and bytes at their customary places.
 */
import { ScratchOffset, scratch } from './ffi/libc.ts';
import type { Fd } from './io.ts';

/** The kernel's limit of descriptors in one message (SCM_MAX_FD). */
export const DESCRIPTORS_MAX = 253;
/** The room that scratch memory has for bytes. */
export const MESSAGE_BYTES_MAX = 448 * 1024;
const CONTROL_BYTES = 4096;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

/** Writes a message with all the room there is, to receive into. */
export function writeMessageRoom(): void {
  writeMessageHeader(MESSAGE_BYTES_MAX, CONTROL_BYTES);
}

function writeMessageHeader(dataBytes: number, controlBytes: number): void {
  const { view, address } = scratch;
  const message = ScratchOffset.Message;
  for (let i = 0; i < 56; i += 4) view.setUint32(message + i, 0);
  view.setBigUint64(message + 16, BigInt(address + ScratchOffset.Vector), true);
  view.setBigUint64(message + 24, 1n, true);
  view.setBigUint64(message + 32, BigInt(controlBytes === 0 ? 0 : address + ScratchOffset.Control), true);
  view.setBigUint64(message + 40, BigInt(controlBytes), true);
  view.setBigUint64(ScratchOffset.Vector, BigInt(address + ScratchOffset.Data), true);
  view.setBigUint64(ScratchOffset.Vector + 8, BigInt(dataBytes), true);
}

/** Writes a message with `bytes` after position `from`, and `descriptors`, into scratch memory. */
export function writeDescriptorMessage(bytes: Uint8Array, from: number, descriptors: readonly Fd[]): void {
  const { view } = scratch;
  scratch.bytes.set(from === 0 ? bytes : bytes.subarray(from), ScratchOffset.Data);
  const length = 16 + descriptors.length * 4;
  writeMessageHeader(bytes.length - from, descriptors.length === 0 ? 0 : Math.ceil(length / 8) * 8);
  view.setBigUint64(ScratchOffset.Control, BigInt(length), true);
  view.setInt32(ScratchOffset.Control + 8, SOL_SOCKET, true);
  view.setInt32(ScratchOffset.Control + 12, SCM_RIGHTS, true);
  descriptors.forEach((fd, index) => {
    view.setInt32(ScratchOffset.Control + 16 + 4 * index, fd, true);
  });
}

/** The descriptors that the message in scratch memory came with. */
export function readDescriptorMessage(): Fd[] {
  const { view } = scratch;
  const descriptors: Fd[] = [];
  const controlLength = Number(view.getBigUint64(ScratchOffset.Message + 40, true));
  let at = 0;
  while (at + 16 <= controlLength) {
    const length = Number(view.getBigUint64(ScratchOffset.Control + at, true));
    const rights =
      view.getInt32(ScratchOffset.Control + at + 8, true) === SOL_SOCKET &&
      view.getInt32(ScratchOffset.Control + at + 12, true) === SCM_RIGHTS;
    for (let i = 16; rights && i + 4 <= length; i += 4) {
      descriptors.push(view.getInt32(ScratchOffset.Control + at + i, true));
    }
    at += Math.max(16, Math.ceil(length / 8) * 8);
  }
  return descriptors;
}
