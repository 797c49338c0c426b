/**
 * struct msghdr, struct iovec and control messages where they lie in an arena (64-bit Linux). Headers are
 * laid out once and reused; per packet only lengths and the buffer's address change. Addresses of the process
 * are split into two 32-bit words, so that no BigInt is made.
 */
import { assert } from '#base/assert.ts';

import type { Arena } from './arena.ts';

/** Size of struct msghdr. */
export const MESSAGE_BYTES = 56;
/** Size of struct iovec. */
export const VECTOR_BYTES = 16;
/** Size of struct cmsghdr; its data follow. */
export const CONTROL_HEADER_BYTES = 16;

/** Levels and types of control messages, as setsockopt(2) levels and option numbers. */
export const ControlType = Object.freeze({
  /** Level SOL_UDP. Size of the segments that one received buffer was coalesced from: an int. */
  UdpGro: 104,
  /** Level SOL_UDP. Size of the segments to cut one sent buffer into: 16 bits. */
  UdpSegment: 103,
  /** Level SOL_IP: struct in_pktinfo. */
  IpPacketInfo: 8,
  /** Level SOL_IPV6: struct in6_pktinfo. */
  Ipv6PacketInfo: 50,
  /** Level SOL_IP: the destination before redirection, struct sockaddr_in. */
  IpOriginalDestination: 20,
  /** Level SOL_IPV6: struct sockaddr_in6. */
  Ipv6OriginalDestination: 74,
} as const);

/** Levels of control messages, as setsockopt(2) has them. */
export const ControlLevel = Object.freeze({ Socket: 1, Ip: 0, Udp: 17, Ipv6: 41 } as const);

/** Bits of a received message's flags. */
export const MessageFlag = Object.freeze({
  /** The buffer was shorter than the packet. */
  Truncated: 0x20,
  /** The room for control messages was too short. */
  ControlTruncated: 8,
} as const);

const NAME = 0;
const NAME_LENGTH = 8;
const VECTORS = 16;
const VECTOR_COUNT = 24;
const CONTROL = 32;
const CONTROL_LENGTH = 40;
const FLAGS = 48;

/** Writes the 64-bit address of arena offset `offset` at `at`. */
export function setPointer(arena: Arena, at: number, offset: number): void {
  const address = arena.address + offset;
  arena.view.setUint32(at, address >>> 0, true);
  arena.view.setUint32(at + 4, Math.floor(address / 4294967296), true);
}

/** Writes struct iovec `index` of those at `vectors`: `length` bytes at arena offset `offset`. */
export function setVector(arena: Arena, vector: number, offset: number, length: number): void {
  setPointer(arena, vector, offset);
  arena.view.setUint32(vector + 8, length, true);
  arena.view.setUint32(vector + 12, 0, true);
}

/** Where the parts of a message lie, as arena offsets; a length of 0 means that a part is absent. */
export interface MessageLayout {
  readonly name: number;
  readonly nameLength: number;
  readonly vectors: number;
  readonly vectorCount: number;
  readonly control: number;
  readonly controlLength: number;
}

/** Writes a whole struct msghdr at arena offset `message`. */
export function layoutMessage(arena: Arena, message: number, layout: MessageLayout): void {
  const { view } = arena;
  assert(message % 8 === 0 && layout.control % 8 === 0, 'message structures are aligned to 8 bytes');
  for (let i = 0; i < MESSAGE_BYTES; i += 4) view.setUint32(message + i, 0);
  if (layout.nameLength > 0) setPointer(arena, message + NAME, layout.name);
  if (layout.vectorCount > 0) setPointer(arena, message + VECTORS, layout.vectors);
  if (layout.controlLength > 0) setPointer(arena, message + CONTROL, layout.control);
  view.setUint32(message + NAME_LENGTH, layout.nameLength, true);
  view.setUint32(message + VECTOR_COUNT, layout.vectorCount, true);
  view.setUint32(message + CONTROL_LENGTH, layout.controlLength, true);
}

/** Length of the peer's address: the room before a receive, what was written after it. */
export function messageNameLength(view: DataView, message: number): number {
  return view.getUint32(message + NAME_LENGTH, true);
}

/** Sets the room for the peer's address, or the length of the target's. */
export function setMessageNameLength(view: DataView, message: number, length: number): void {
  view.setUint32(message + NAME_LENGTH, length, true);
}

/** Length of the control messages: the room before a receive, what was written after it. */
export function messageControlLength(view: DataView, message: number): number {
  return view.getUint32(message + CONTROL_LENGTH, true);
}

/** Sets the room for control messages, or the length of those to send. */
export function setMessageControlLength(view: DataView, message: number, length: number): void {
  view.setUint32(message + CONTROL_LENGTH, length, true);
}

/** `MessageFlag` bits of a received message. */
export function messageFlags(view: DataView, message: number): number {
  return view.getUint32(message + FLAGS, true);
}

// --- control messages: walk with `control = nextControl(view, control)` while `hasControl(view, control, end

/** True when a whole control message header lies at `control`, before `end`. */
export function hasControl(view: DataView, control: number, end: number): boolean {
  return control + CONTROL_HEADER_BYTES <= end && view.getUint32(control, true) >= CONTROL_HEADER_BYTES;
}

/** Offset of the next control message. */
export function nextControl(view: DataView, control: number): number {
  return control + ((view.getUint32(control, true) + 7) & ~7);
}

/** `ControlLevel` of the control message at `control`. */
export function controlLevel(view: DataView, control: number): number {
  return view.getInt32(control + 8, true);
}

/** `ControlType` of the control message at `control`. */
export function controlType(view: DataView, control: number): number {
  return view.getInt32(control + 12, true);
}

/**
 * Writes a control message header for `dataLength` bytes, which follow at `control + CONTROL_HEADER_BYTES`.
 */
export function writeControl(
  view: DataView,
  control: number,
  header: { readonly level: number; readonly type: number; readonly dataLength: number },
): void {
  view.setUint32(control, CONTROL_HEADER_BYTES + header.dataLength, true);
  view.setUint32(control + 4, 0);
  view.setInt32(control + 8, header.level, true);
  view.setInt32(control + 12, header.type, true);
}

/** Room that a control message with `dataLength` bytes takes. */
export function controlSpace(dataLength: number): number {
  return CONTROL_HEADER_BYTES + ((dataLength + 7) & ~7);
}
