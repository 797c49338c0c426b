/**
 * The simple twin: packets built and checksums computed the slow, obvious way, for tests and fuzzers to
 * compare the fast code with. Imported by nothing else.
 */
import { parseIp } from '#base/ip.ts';

import { PACKET_HEADROOM } from './virtio-header.ts';

/** One's-complement sum of big-endian words, word by word (RFC 1071). */
export function twinSum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i] as number) * 256 + (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

/** What a test packet is made of. */
export interface TwinPacket {
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  /** Transport header and payload; a zero checksum field is filled in unless `keepChecksum`. */
  readonly transport: Uint8Array;
  readonly keepChecksum?: boolean;
  readonly ttl?: number;
  readonly tos?: number;
  readonly id?: number;
  /** The IPv4 flags and fragment offset word, such as 0x4000 for DF. */
  readonly fragment?: number;
  /** IPv4 options, a multiple of 4 bytes. */
  readonly ipOptions?: Uint8Array;
  /** IPv6 extension headers as they stand in the packet, and the number of the first. */
  readonly extensions?: Uint8Array;
  readonly firstHeader?: number;
}

/** The packet's bytes. */
export function twinPacket(packet: TwinPacket): Uint8Array {
  const source = parseIp(packet.source) as Uint8Array;
  const destination = parseIp(packet.destination) as Uint8Array;
  const transport = packet.transport.slice();
  if (packet.keepChecksum !== true) fillChecksum(packet.protocol, source, destination, transport);
  return source.length === 4
    ? twinIpv4(packet, source, destination, transport)
    : twinIpv6(packet, source, destination, transport);
}

function fillChecksum(protocol: number, source: Uint8Array, destination: Uint8Array, transport: Uint8Array) {
  const field = { 1: 2, 6: 16, 17: 6, 58: 2 }[protocol];
  if (field === undefined || transport.length < field + 2) return;
  const length = transport.length;
  const pseudo = protocol === 1 ? [] : [...source, ...destination, 0, protocol, length >> 8, length & 0xff];
  transport[field] = 0;
  transport[field + 1] = 0;
  let checksum = 0xffff - twinSum(Uint8Array.from([...pseudo, ...transport]));
  if (protocol === 17 && checksum === 0) checksum = 0xffff;
  transport[field] = checksum >> 8;
  transport[field + 1] = checksum & 0xff;
}

function twinIpv4(packet: TwinPacket, source: Uint8Array, destination: Uint8Array, transport: Uint8Array) {
  const options = packet.ipOptions ?? new Uint8Array(0);
  const headerLength = 20 + options.length;
  const total = headerLength + transport.length;
  const id = packet.id ?? 0;
  const fragment = packet.fragment ?? 0x4000;
  const header = Uint8Array.from([
    0x40 | (headerLength / 4),
    packet.tos ?? 0,
    ...[total >> 8, total & 0xff, id >> 8, id & 0xff, fragment >> 8, fragment & 0xff],
    packet.ttl ?? 64,
    packet.protocol,
    ...[0, 0],
    ...source,
    ...destination,
    ...options,
  ]);
  const checksum = 0xffff - twinSum(header);
  header[10] = checksum >> 8;
  header[11] = checksum & 0xff;
  return Uint8Array.from([...header, ...transport]);
}

function twinIpv6(packet: TwinPacket, source: Uint8Array, destination: Uint8Array, transport: Uint8Array) {
  const extensions = packet.extensions ?? new Uint8Array(0);
  const tos = packet.tos ?? 0;
  const length = extensions.length + transport.length;
  return Uint8Array.from([
    ...[0x60 | (tos >> 4), (tos << 4) & 0xf0, 0, 0, length >> 8, length & 0xff],
    packet.firstHeader ?? packet.protocol,
    packet.ttl ?? 64,
    ...source,
    ...destination,
    ...extensions,
    ...transport,
  ]);
}

/** A TCP segment's header and payload. */
export function twinTcp(fields: {
  sourcePort?: number;
  destinationPort?: number;
  sequence?: number;
  acknowledgement?: number;
  flags?: number;
  window?: number;
  options?: Uint8Array;
  payload?: Uint8Array;
}): Uint8Array {
  const options = fields.options ?? new Uint8Array(0);
  const header = new Uint8Array(20 + options.length);
  const view = new DataView(header.buffer);
  view.setUint16(0, fields.sourcePort ?? 40000);
  view.setUint16(2, fields.destinationPort ?? 80);
  view.setUint32(4, (fields.sequence ?? 1) >>> 0);
  view.setUint32(8, (fields.acknowledgement ?? 0) >>> 0);
  view.setUint8(12, (header.length / 4) << 4);
  view.setUint8(13, fields.flags ?? 0x10);
  view.setUint16(14, fields.window ?? 512);
  header.set(options, 20);
  return Uint8Array.from([...header, ...(fields.payload ?? [])]);
}

/** A UDP header and payload. */
export function twinUdp(sourcePort: number, destinationPort: number, payload: Uint8Array): Uint8Array {
  const length = 8 + payload.length;
  const ports = [sourcePort >> 8, sourcePort & 0xff, destinationPort >> 8, destinationPort & 0xff];
  return Uint8Array.from([...ports, length >> 8, length & 0xff, 0, 0, ...payload]);
}

/** An ICMP echo message of the given type. */
export function twinEcho(type: number, identifier: number, payload: Uint8Array): Uint8Array {
  return Uint8Array.from([type, 0, 0, 0, identifier >> 8, identifier & 0xff, 0, 1, ...payload]);
}

/**
 * True when the packet's transport checksum is right, computed the slow way; headers must be valid, no
 * fragments.
 */
export function twinVerify(bytes: Uint8Array, transportOffset: number, protocol: number): boolean {
  const transport = bytes.subarray(transportOffset);
  const length = transport.length;
  if (protocol === 17 && transport[6] === 0 && transport[7] === 0) return bytes[0]! >> 4 === 4;
  const addresses = bytes[0]! >> 4 === 4 ? bytes.subarray(12, 20) : bytes.subarray(8, 40);
  const pseudo = protocol === 1 ? [] : [...addresses, 0, protocol, length >> 8, length & 0xff];
  return twinSum(Uint8Array.from([...pseudo, ...transport])) === 0xffff;
}

/** `length` bytes that are different everywhere. */
export function twinBytes(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed >>> 0 || 1;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** A small arena of slots with headroom. */
export class TwinArena {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly slotBytes: number;

  constructor(slots: number, slotBytes: number) {
    this.slotBytes = slotBytes;
    this.bytes = new Uint8Array(slots * slotBytes);
    this.view = new DataView(this.bytes.buffer);
  }

  /** Where a packet stands in slot `index`. */
  at(index: number): number {
    return index * this.slotBytes + PACKET_HEADROOM;
  }

  /** Puts a packet into a slot, with a clear virtio header, and returns its offset. */
  put(index: number, packet: Uint8Array): number {
    const offset = this.at(index);
    this.bytes.fill(0, offset - 10, offset);
    this.bytes.set(packet, offset);
    return offset;
  }

  /** A copy of `length` bytes at `offset`. */
  get(offset: number, length: number): Uint8Array {
    return this.bytes.slice(offset, offset + length);
  }
}
