/**
 * struct msghdr, struct iovec and control messages in the arena of a memory engine, where addresses are
 * offsets.
 *
 * ```
 *   msghdr: 0 name  8 namelen  16 iov  24 iovlen  32 control  40 controllen  48 flags
 *   cmsg:   0 length (with these 16 bytes)  8 level  12 type  16 data, the next at a multiple of 8
 * ```
 */
import { parseIp, formatIp, type SocketAddress } from '#base/ip.ts';

import type { Arena } from './arena.ts';
import type { ReceiveInfo } from './memory-file.ts';
import { canonical, presented, type InetAddress } from './memory-world.ts';
import { readSocketAddress, writeSocketAddress, SOCKADDR_BYTES } from './socket-address.ts';

const SOL_IP = 0;
const SOL_UDP = 17;
const SOL_IPV6 = 41;
const IP_PKTINFO = 8;
const IP_ORIGDSTADDR = 20;
const IPV6_PKTINFO = 50;
const IPV6_ORIGDSTADDR = 74;
const UDP_SEGMENT = 103;
const MSG_TRUNC = 0x20;

/** Bytes that `count` vectors at `vectors` hold. */
export function vectorBytes(arena: Arena, vectors: number, count: number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += pointerAt(arena.view, vectors + 16 * i + 8);
  return total;
}

/** The bytes of all vectors in one piece. */
export function gather(arena: Arena, vectors: number, count: number): Uint8Array {
  const bytes = new Uint8Array(vectorBytes(arena, vectors, count));
  let at = 0;
  for (let i = 0; i < count; i++) {
    const base = pointerAt(arena.view, vectors + 16 * i);
    const length = pointerAt(arena.view, vectors + 16 * i + 8);
    bytes.set(arena.bytes.subarray(base, base + length), at);
    at += length;
  }
  return bytes;
}

/** Spreads `bytes` over the vectors. */
export function scatter(arena: Arena, vectors: number, count: number, bytes: Uint8Array): void {
  let at = 0;
  for (let i = 0; i < count && at < bytes.length; i++) {
    const base = pointerAt(arena.view, vectors + 16 * i);
    const length = Math.min(pointerAt(arena.view, vectors + 16 * i + 8), bytes.length - at);
    arena.bytes.set(bytes.subarray(at, at + length), base);
    at += length;
  }
}

/** What a struct msghdr asks for when it is sent. */
export interface OutgoingMessage {
  readonly bytes: Uint8Array;
  readonly to: SocketAddress | null;
  /** Source address, from a packet-info message. */
  readonly source: string | null;
  /** Bytes of a segment (UDP_SEGMENT), 0 for none. */
  readonly segment: number;
}

/** Reads the struct msghdr at `message`. */
export function readMessage(arena: Arena, message: number): OutgoingMessage {
  const { view } = arena;
  const bytes = gather(arena, pointerAt(view, message + 16), pointerAt(view, message + 24));
  const name = pointerAt(view, message);
  const to = name === 0 ? null : readSocketAddress(view, name, view.getUint32(message + 8, true));
  let source: string | null = null;
  let segment = 0;
  const control = pointerAt(view, message + 32);
  const end = control + (control === 0 ? 0 : pointerAt(view, message + 40));
  for (let at = control; at + 16 <= end; ) {
    const length = pointerAt(view, at);
    if (length < 16) break;
    const level = view.getInt32(at + 8, true);
    const type = view.getInt32(at + 12, true);
    if (level === SOL_UDP && type === UDP_SEGMENT) segment = view.getUint16(at + 16, true);
    if (level === SOL_IP && type === IP_PKTINFO) source = addressAt(arena, at + 20, 4);
    if (level === SOL_IPV6 && type === IPV6_PKTINFO) source = addressAt(arena, at + 16, 16);
    at += Math.ceil(length / 8) * 8;
  }
  return { bytes, to, source, segment };
}

/** An address of a packet-info message; null when it is the any-address, which asks for nothing. */
function addressAt(arena: Arena, offset: number, length: number): string | null {
  const bytes = arena.bytes.slice(offset, offset + length);
  return bytes.every((byte) => byte === 0) ? null : formatIp(bytes);
}

/** What the receiving socket wants to be told. */
export interface ControlWishes {
  readonly family: 4 | 6;
  readonly packetInfo: boolean;
  readonly originalDestination: boolean;
}

/** Writes what was received back into the struct msghdr at `message`: name, control data, flags. */
export function writeMessage(arena: Arena, message: number, info: ReceiveInfo, wishes: ControlWishes): void {
  const { view } = arena;
  const name = pointerAt(view, message);
  if (name !== 0) view.setUint32(message + 8, writeName(arena, name, message, info, wishes.family), true);
  view.setInt32(message + 48, info.truncated ? MSG_TRUNC : 0, true);
  const control = pointerAt(view, message + 32);
  const room = control === 0 ? 0 : pointerAt(view, message + 40);
  let used = 0;
  const { to } = info;
  if (to !== null && wishes.packetInfo) used += writePacketInfo(arena, control, room, to);
  if (to !== null && wishes.originalDestination) {
    used += writeOriginalDestination(arena, control + used, room - used, to);
  }
  view.setBigUint64(message + 40, BigInt(used), true);
}

function writeName(arena: Arena, name: number, message: number, info: ReceiveInfo, family: 4 | 6): number {
  const { from } = info;
  if (from === null) return 0;
  const scratch = new DataView(new ArrayBuffer(SOCKADDR_BYTES));
  const shown = from.family === 'unix' ? from : presented(canonical(from), family);
  const length = writeSocketAddress(scratch, 0, shown);
  const room = Math.min(length, arena.view.getUint32(message + 8, true));
  arena.bytes.set(new Uint8Array(scratch.buffer, 0, room), name);
  return length;
}

/** IP_PKTINFO has index, local address, destination; IPV6_PKTINFO has destination, index. */
function writePacketInfo(arena: Arena, control: number, room: number, to: InetAddress): number {
  const address = parseIp(to.address) as Uint8Array;
  const four = address.length === 4;
  const length = 16 + (four ? 12 : 20);
  if (room < length) return 0;
  writeControlHead(arena, control, length, four ? SOL_IP : SOL_IPV6, four ? IP_PKTINFO : IPV6_PKTINFO);
  arena.bytes.fill(0, control + 16, control + length);
  if (four) arena.bytes.set(address, control + 20);
  arena.bytes.set(address, control + (four ? 24 : 16));
  return Math.ceil(length / 8) * 8;
}

function writeOriginalDestination(arena: Arena, control: number, room: number, to: InetAddress): number {
  const four = to.family === 4;
  const length = 16 + (four ? 16 : 28);
  if (room < length) return 0;
  writeControlHead(
    arena,
    control,
    length,
    four ? SOL_IP : SOL_IPV6,
    four ? IP_ORIGDSTADDR : IPV6_ORIGDSTADDR,
  );
  writeSocketAddress(arena.view, control + 16, to);
  return Math.ceil(length / 8) * 8;
}

function writeControlHead(arena: Arena, control: number, length: number, level: number, type: number): void {
  arena.view.setBigUint64(control, BigInt(length), true);
  arena.view.setInt32(control + 8, level, true);
  arena.view.setInt32(control + 12, type, true);
}

function pointerAt(view: DataView, offset: number): number {
  return Number(view.getBigUint64(offset, true));
}
