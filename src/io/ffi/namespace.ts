/**
 * The system calls of private namespaces, devices and descriptor passing. All of it is cold path: arguments and
 * structs go through one mapped scratch page range, results are counts or descriptors (≥ 0) or a negative errno.
 *
 * Every argument is declared `pointer` and every result `i32`, so that these calls never leave Node's short way
 * into native code (a `buffer` argument anywhere makes calls slow for the whole process).
 */
import ffi from 'node:ffi';

import { assert } from '#base/assert.ts';

const { functions: libc } = ffi.dlopen('libc.so.6', {
  unshare: { arguments: ['pointer'], return: 'i32' },
  setns: { arguments: ['pointer', 'pointer'], return: 'i32' },
  open: { arguments: ['pointer', 'pointer', 'pointer'], return: 'i32' },
  close: { arguments: ['pointer'], return: 'i32' },
  ioctl: { arguments: ['pointer', 'pointer', 'pointer'], return: 'i32' },
  socket: { arguments: ['pointer', 'pointer', 'pointer'], return: 'i32' },
  socketpair: { arguments: ['pointer', 'pointer', 'pointer', 'pointer'], return: 'i32' },
  setsockopt: { arguments: ['pointer', 'pointer', 'pointer', 'pointer', 'pointer'], return: 'i32' },
  bind: { arguments: ['pointer', 'pointer', 'pointer'], return: 'i32' },
  listen: { arguments: ['pointer', 'pointer'], return: 'i32' },
  send: { arguments: ['pointer', 'pointer', 'pointer', 'pointer'], return: 'i32' },
  recv: { arguments: ['pointer', 'pointer', 'pointer', 'pointer'], return: 'i32' },
  sendmsg: { arguments: ['pointer', 'pointer', 'pointer'], return: 'i32' },
  recvmsg: { arguments: ['pointer', 'pointer', 'pointer'], return: 'i32' },
  mmap: {
    arguments: ['pointer', 'pointer', 'pointer', 'pointer', 'pointer', 'pointer'],
    return: 'pointer',
  },
  __errno_location: { arguments: [], return: 'pointer' },
});

/** Bytes of scratch memory: one netlink datagram (the kernel's largest is 32 KiB) beside the structs. */
const SCRATCH_BYTES = 1 << 17;
/** Where variable data starts in the scratch; structs lie below. */
const DATA = 4096;
const DATA_BYTES = SCRATCH_BYTES - DATA;

const PROT_READ_WRITE = 3n;
const MAP_PRIVATE_ANONYMOUS = 0x22n;
const scratchAddress = libc.mmap(
  0n,
  BigInt(SCRATCH_BYTES),
  PROT_READ_WRITE,
  MAP_PRIVATE_ANONYMOUS,
  0xffff_ffffn,
  0n,
);
const scratchMemory = ffi.toArrayBuffer(scratchAddress, SCRATCH_BYTES, false);
const scratch = new Uint8Array(scratchMemory);
const scratchView = new DataView(scratchMemory);
const dataAddress = scratchAddress + BigInt(DATA);
/** This thread's errno. A module is loaded once per thread, as errno is. */
const errno = new Int32Array(ffi.toArrayBuffer(libc.__errno_location(), 4, false));

const CLONE_NEWNET = 0x4000_0000n;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CTRUNC = 8;

/** Flags of a socket's type: close-on-exec and non-blocking, as every descriptor of the process is. */
export const SOCKET_FLAGS = O_CLOEXEC | O_NONBLOCK;

/** Most descriptors that one message carries; the kernel's limit is 253. */
export const DESCRIPTORS_PER_MESSAGE_MAX = 64;

/** The count or descriptor, or the negative errno of the call that has just failed. */
function result(value: number): number {
  return value < 0 ? -(errno[0] as number) : value;
}

/** A signed 32-bit number as the register that the C side reads as `int`. */
function integer(value: number): bigint {
  return BigInt(value >>> 0);
}

/** Puts this thread alone into a new, empty network namespace. */
export function unshareNetwork(): number {
  return result(libc.unshare(CLONE_NEWNET));
}

/** Puts this thread into the network namespace of descriptor `fd`. */
export function enterNetwork(fd: number): number {
  return result(libc.setns(integer(fd), CLONE_NEWNET));
}

/** open(2) with close-on-exec and non-blocking added to `flags`. */
export function openPath(path: string, flags: number): number {
  const bytes = Buffer.from(`${path}\0`);
  assert(bytes.length <= DATA_BYTES);
  scratch.set(bytes, DATA);
  return result(libc.open(dataAddress, integer(flags | O_CLOEXEC | O_NONBLOCK), 0n));
}

/** close(2). EBADF is a programmer's error and comes back as such. */
export function closeDescriptor(fd: number): number {
  return result(libc.close(integer(fd)));
}

/** A socket; `type` is completed with close-on-exec and non-blocking. */
export function openSocket(domain: number, type: number, protocol: number): number {
  return result(libc.socket(integer(domain), integer(type | SOCKET_FLAGS), integer(protocol)));
}

/** Two connected Unix SEQPACKET sockets, or a negative errno. */
export function openSeqpacketPair(): [number, number] | number {
  const AF_UNIX = 1n;
  const SOCK_SEQPACKET = 5;
  const code = result(libc.socketpair(AF_UNIX, integer(SOCK_SEQPACKET | SOCKET_FLAGS), 0n, scratchAddress));
  return code < 0 ? code : [scratchView.getInt32(0, true), scratchView.getInt32(4, true)];
}

/** setsockopt(2) with an int. */
export function setIntegerOption(fd: number, level: number, name: number, value: number): number {
  scratchView.setInt32(0, value, true);
  return result(libc.setsockopt(integer(fd), integer(level), integer(name), scratchAddress, 4n));
}

/** setsockopt(2) with a struct or a name. */
export function setBytesOption(fd: number, level: number, name: number, value: Uint8Array): number {
  assert(value.length <= DATA);
  scratch.set(value, 0);
  return result(
    libc.setsockopt(integer(fd), integer(level), integer(name), scratchAddress, BigInt(value.length)),
  );
}

/** bind(2) to a struct sockaddr of any family. */
export function bindSocket(fd: number, address: Uint8Array): number {
  assert(address.length >= 2 && address.length <= 128);
  scratch.set(address, 0);
  return result(libc.bind(integer(fd), scratchAddress, BigInt(address.length)));
}

/** listen(2). */
export function listenSocket(fd: number, backlog: number): number {
  return result(libc.listen(integer(fd), integer(backlog)));
}

/** ioctl(2) whose argument is a number. */
export function controlNumber(fd: number, request: number, value: number): number {
  return result(libc.ioctl(integer(fd), integer(request), integer(value)));
}

/** ioctl(2) whose argument is a struct; what the kernel wrote is copied back into `struct`. */
export function controlStruct(fd: number, request: number, struct: Uint8Array): number {
  assert(struct.length <= DATA);
  scratch.set(struct, 0);
  const code = result(libc.ioctl(integer(fd), integer(request), scratchAddress));
  struct.set(scratch.subarray(0, struct.length));
  return code;
}

/** Sends one datagram without waiting. */
export function sendBytes(fd: number, bytes: Uint8Array): number {
  assert(bytes.length <= DATA_BYTES);
  scratch.set(bytes, DATA);
  const flags = integer(MSG_DONTWAIT | MSG_NOSIGNAL);
  return result(libc.send(integer(fd), dataAddress, BigInt(bytes.length), flags));
}

/** Receives one datagram without waiting: a copy of its bytes, or a negative errno. */
export function receiveBytes(fd: number): Uint8Array | number {
  const length = result(libc.recv(integer(fd), dataAddress, BigInt(DATA_BYTES), integer(MSG_DONTWAIT)));
  return length < 0 ? length : scratch.slice(DATA, DATA + length);
}

/*
 * struct msghdr (56 bytes) at 0, struct iovec at 64, control data at 128.
 *
 *   0 name  8 namelen  16 iov  24 iovlen  32 control  40 controllen  48 flags
 *   control: 0 cmsg_len  8 cmsg_level  12 cmsg_type  16 descriptors, four bytes each
 */
const VECTOR = 64;
const CONTROL = 128;
const CONTROL_BYTES = 16 + 4 * 256;

function prepareMessage(length: number, controlLength: number): void {
  scratch.fill(0, 0, 64);
  scratchView.setBigUint64(16, scratchAddress + BigInt(VECTOR), true);
  scratchView.setBigUint64(24, 1n, true);
  scratchView.setBigUint64(32, scratchAddress + BigInt(CONTROL), true);
  scratchView.setBigUint64(40, BigInt(controlLength), true);
  scratchView.setBigUint64(VECTOR, dataAddress, true);
  scratchView.setBigUint64(VECTOR + 8, BigInt(length), true);
}

/** Sends one message with descriptors (SCM_RIGHTS); the sender keeps its own copies. At least one byte goes along. */
export function sendDescriptors(fd: number, bytes: Uint8Array, descriptors: readonly number[]): number {
  assert(bytes.length > 0 && bytes.length <= DATA_BYTES);
  assert(descriptors.length <= DESCRIPTORS_PER_MESSAGE_MAX);
  const controlLength = 16 + 4 * descriptors.length;
  prepareMessage(bytes.length, descriptors.length === 0 ? 0 : Math.ceil(controlLength / 8) * 8);
  scratchView.setBigUint64(CONTROL, BigInt(controlLength), true);
  scratchView.setInt32(CONTROL + 8, 1, true); // SOL_SOCKET
  scratchView.setInt32(CONTROL + 12, 1, true); // SCM_RIGHTS
  for (let i = 0; i < descriptors.length; i++) {
    scratchView.setInt32(CONTROL + 16 + 4 * i, descriptors[i] as number, true);
  }
  scratch.set(bytes, DATA);
  return result(libc.sendmsg(integer(fd), scratchAddress, integer(MSG_NOSIGNAL | MSG_DONTWAIT)));
}

/** One message that came with descriptors, which the receiver owns. */
export interface DescriptorMessage {
  readonly bytes: Uint8Array;
  readonly descriptors: number[];
  /** The process had no room for all descriptors of the message; some are lost. */
  readonly truncated: boolean;
}

/** Receives one message without waiting; a negative errno when there is none. An empty message is the end of the stream. */
export function receiveDescriptors(fd: number): DescriptorMessage | number {
  prepareMessage(DATA_BYTES, CONTROL_BYTES);
  const length = result(libc.recvmsg(integer(fd), scratchAddress, integer(MSG_CMSG_CLOEXEC | MSG_DONTWAIT)));
  if (length < 0) return length;
  const descriptors: number[] = [];
  const controlLength = Number(scratchView.getBigUint64(40, true));
  if (controlLength >= 16 && scratchView.getInt32(CONTROL + 12, true) === 1) {
    const end = Math.min(Number(scratchView.getBigUint64(CONTROL, true)), controlLength);
    for (let at = 16; at + 4 <= end; at += 4) descriptors.push(scratchView.getInt32(CONTROL + at, true));
  }
  const truncated = (scratchView.getInt32(48, true) & MSG_CTRUNC) !== 0;
  return { bytes: scratch.slice(DATA, DATA + length), descriptors, truncated };
}
