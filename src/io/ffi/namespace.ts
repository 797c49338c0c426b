/**
 * The system calls of private namespaces, devices and descriptor passing, over the calls of `libc.ts`. All of
 * it is cold path: arguments and structs go through the scratch memory, results are counts or descriptors (≥
 * 0) or a negative errno.
 */
import { assert } from '#base/assert.ts';

import * as libc from './libc.ts';

const { bytes: scratch, view: scratchView } = libc.scratch;
const { Value, Message, Vector, Control, Data } = libc.ScratchOffset;
/** Room for a struct or an option at `Value`, for control data, and for bytes at `Data`. */
const VALUE_BYTES = 3072;
const CONTROL_BYTES = 16 + 4 * 256;
const DATA_BYTES = 64 * 1024;
const dataAddress = libc.scratch.address + Data;
const valueAddress = libc.scratch.address + Value;

const MSG_CTRUNC = 8;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

/** Flags of a socket's type: close-on-exec and non-blocking, as every descriptor of the process is. */
const SOCKET_FLAGS = libc.SOCK_CLOEXEC | libc.SOCK_NONBLOCK;

/** Most descriptors that one message carries; the kernel's limit is 253. */
export const DESCRIPTORS_PER_MESSAGE_MAX = 64;

/** Puts this thread alone into a new, empty network namespace. */
export function unshareNetwork(): number {
  return libc.unshare(libc.CLONE_NEWNET);
}

/** Puts this thread into the network namespace of descriptor `fd`. */
export function enterNetwork(fd: number): number {
  return libc.setns(fd, libc.CLONE_NEWNET);
}

/** open(2) with close-on-exec and non-blocking added to `flags`. */
export function openPath(path: string, flags: number): number {
  return libc.open(path, flags | libc.O_CLOEXEC | libc.O_NONBLOCK);
}

/** close(2). EBADF is a programmer's error and comes back as such. */
export function closeDescriptor(fd: number): number {
  return libc.close(fd);
}

/** A socket; `type` is completed with close-on-exec and non-blocking. */
export function openSocket(domain: number, type: number, protocol: number): number {
  return libc.socket(domain, type | SOCKET_FLAGS, protocol);
}

/** Two connected Unix SEQPACKET sockets, or a negative errno. */
export function openSeqpacketPair(): [number, number] | number {
  const code = libc.socketpair(libc.AF_UNIX, libc.SOCK_SEQPACKET | SOCKET_FLAGS, 0, valueAddress);
  return code < 0 ? code : [scratchView.getInt32(Value, true), scratchView.getInt32(Value + 4, true)];
}

/** setsockopt(2) with an int. */
export function setIntegerOption(fd: number, level: number, name: number, value: number): number {
  return libc.setsockoptInt(fd, level, name, value);
}

/** setsockopt(2) with a struct or a name. */
export function setBytesOption(fd: number, level: number, name: number, value: Uint8Array): number {
  assert(value.length <= VALUE_BYTES);
  scratch.set(value, Value);
  return libc.setsockopt(fd, level, name, valueAddress, value.length);
}

/** bind(2) to a struct sockaddr of any family. */
export function bindSocket(fd: number, address: Uint8Array): number {
  assert(address.length >= 2 && address.length <= 128);
  scratch.set(address, Value);
  return libc.bind(fd, valueAddress, address.length);
}

/** listen(2). */
export function listenSocket(fd: number, backlog: number): number {
  return libc.listen(fd, backlog);
}

/** ioctl(2) whose argument is a number. */
export function controlNumber(fd: number, request: number, value: number): number {
  return libc.ioctl(fd, request, value);
}

/** ioctl(2) whose argument is a struct; what the kernel wrote is copied back into `struct`. */
export function controlStruct(fd: number, request: number, struct: Uint8Array): number {
  assert(struct.length <= VALUE_BYTES);
  scratch.set(struct, Value);
  const code = libc.ioctl(fd, request, valueAddress);
  struct.set(scratch.subarray(Value, Value + struct.length));
  return code;
}

/** Sends one datagram without waiting. */
export function sendBytes(fd: number, bytes: Uint8Array): number {
  assert(bytes.length <= DATA_BYTES);
  scratch.set(bytes, Data);
  return libc.send(fd, dataAddress, bytes.length, libc.MSG_DONTWAIT | libc.MSG_NOSIGNAL);
}

/** Receives one datagram without waiting: a copy of its bytes, or a negative errno. */
export function receiveBytes(fd: number): Uint8Array | number {
  const length = libc.recv(fd, dataAddress, DATA_BYTES, libc.MSG_DONTWAIT);
  return length < 0 ? length : scratch.slice(Data, Data + length);
}

/*
 * struct msghdr:  0 name  8 namelen  16 iov  24 iovlen  32 control  40 controllen  48 flags
 * control data:   0 cmsg_len  8 cmsg_level  12 cmsg_type  16 descriptors, four bytes each
 */
function prepareMessage(length: number, controlLength: number): void {
  scratch.fill(0, Message, Message + 56);
  scratchView.setBigUint64(Message + 16, BigInt(libc.scratch.address + Vector), true);
  scratchView.setBigUint64(Message + 24, 1n, true);
  scratchView.setBigUint64(Message + 32, BigInt(libc.scratch.address + Control), true);
  scratchView.setBigUint64(Message + 40, BigInt(controlLength), true);
  scratchView.setBigUint64(Vector, BigInt(dataAddress), true);
  scratchView.setBigUint64(Vector + 8, BigInt(length), true);
}

/**
 * Sends one message with descriptors (SCM_RIGHTS); the sender keeps its own copies. At least one byte goes
 * along.
 */
export function sendDescriptors(fd: number, bytes: Uint8Array, descriptors: readonly number[]): number {
  assert(bytes.length > 0 && bytes.length <= DATA_BYTES);
  assert(descriptors.length <= DESCRIPTORS_PER_MESSAGE_MAX);
  const controlLength = 16 + 4 * descriptors.length;
  prepareMessage(bytes.length, descriptors.length === 0 ? 0 : Math.ceil(controlLength / 8) * 8);
  scratchView.setBigUint64(Control, BigInt(controlLength), true);
  scratchView.setInt32(Control + 8, SOL_SOCKET, true);
  scratchView.setInt32(Control + 12, SCM_RIGHTS, true);
  for (let i = 0; i < descriptors.length; i++) {
    scratchView.setInt32(Control + 16 + 4 * i, descriptors[i] as number, true);
  }
  scratch.set(bytes, Data);
  return libc.sendmsg(fd, libc.scratch.address + Message, libc.MSG_NOSIGNAL | libc.MSG_DONTWAIT);
}

/** One message that came with descriptors, which the receiver owns. */
export interface DescriptorMessage {
  readonly bytes: Uint8Array;
  readonly descriptors: number[];
  /** The process had no room for all descriptors of the message; some are lost. */
  readonly truncated: boolean;
}

/**
 * Receives one message without waiting; a negative errno when there is none. An empty message is the end of
 * the stream.
 */
export function receiveDescriptors(fd: number): DescriptorMessage | number {
  prepareMessage(DATA_BYTES, CONTROL_BYTES);
  const flags = libc.MSG_CMSG_CLOEXEC | libc.MSG_DONTWAIT;
  const length = libc.recvmsg(fd, libc.scratch.address + Message, flags);
  if (length < 0) return length;
  const descriptors: number[] = [];
  const controlLength = Number(scratchView.getBigUint64(Message + 40, true));
  if (controlLength >= 16 && scratchView.getInt32(Control + 12, true) === SCM_RIGHTS) {
    const end = Math.min(Number(scratchView.getBigUint64(Control, true)), controlLength);
    for (let at = 16; at + 4 <= end; at += 4) descriptors.push(scratchView.getInt32(Control + at, true));
  }
  const truncated = (scratchView.getInt32(Message + 48, true) & MSG_CTRUNC) !== 0;
  return { bytes: scratch.slice(Data, Data + length), descriptors, truncated };
}
