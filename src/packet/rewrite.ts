/**
 * Changes to a packet in place, with incremental checksums. All honour the virtio header before the packet:
 * where the checksum is partial (`NeedsChecksum`) the field holds the pseudo-header's sum, so only what the
 * pseudo-header covers changes it. The packet must have been parsed; `parsed` is kept in step.
 */
import { assert } from '#base/assert.ts';

import { addDelta, delta16, delta32, deltaAtOddOffset, foldSum, updateChecksum } from './checksum.ts';
import { FragmentKind, IpProtocol, type ParsedPacket, TcpFlag } from './parse.ts';
import { checksumFieldOffset, needsChecksum } from './virtio-header.ts';

/**
 * Replaces source address and port (or echo identifier). The 4 or 16 bytes of the address stand at
 * `fromOffset` of `from`. Ports of fragments behind the first and of protocols without ports are not touched.
 */
export function rewriteSource(
  view: DataView,
  parsed: ParsedPacket,
  from: DataView,
  fromOffset: number,
  port: number,
): void {
  rewriteEndpoint(view, parsed, 0, from, fromOffset, port);
}

/** Replaces destination address and port; as `rewriteSource`. */
export function rewriteDestination(
  view: DataView,
  parsed: ParsedPacket,
  from: DataView,
  fromOffset: number,
  port: number,
): void {
  rewriteEndpoint(view, parsed, 1, from, fromOffset, port);
}

/** `side` is 0 for the source, 1 for the destination. */
function rewriteEndpoint(
  view: DataView,
  parsed: ParsedPacket,
  side: number,
  from: DataView,
  fromOffset: number,
  port: number,
): void {
  const delta = replaceAddress(view, parsed, side, from, fromOffset);
  if (parsed.fragmentKind === FragmentKind.Later) return;
  updateTransport(view, parsed, delta, replacePort(view, parsed, side, port));
}

/**
 * Replaces one address (`side` 0: source, 1: destination) and brings the IPv4 header checksum in step; no
 * other.
 *
 * @returns the delta of the pseudo-header.
 */
export function replaceAddress(
  view: DataView,
  parsed: ParsedPacket,
  side: number,
  from: DataView,
  fromOffset: number,
): number {
  const length = parsed.version === 4 ? 4 : 16;
  const at = parsed.addressOffset + side * length;
  let delta = 0;
  for (let i = 0; i < length; i += 4) {
    const before = view.getInt32(at + i);
    const after = from.getInt32(fromOffset + i);
    if (before === after) continue;
    delta = addDelta(delta, delta32(before, after));
    view.setInt32(at + i, after);
  }
  if (parsed.version === 4 && delta !== 0) {
    const field = parsed.offset + 10;
    view.setUint16(field, updateChecksum(view.getUint16(field), delta));
  }
  return delta;
}

/**
 * Writes one port, or the echo identifier, without any checksum.
 *
 * @returns its delta; 0 for protocols without ports.
 */
export function replacePort(view: DataView, parsed: ParsedPacket, side: number, port: number): number {
  assert(port >= 0 && port <= 0xffff);
  const protocol = parsed.protocol;
  let at = parsed.transportOffset;
  if (protocol === IpProtocol.Tcp || protocol === IpProtocol.Udp) {
    at += side * 2;
    if (side === 0) parsed.sourcePort = port;
    else parsed.destinationPort = port;
  } else if (isEcho(parsed)) {
    at += 4;
    parsed.sourcePort = port;
    parsed.destinationPort = port;
  } else {
    return 0;
  }
  const before = view.getUint16(at);
  view.setUint16(at, port);
  return before === port ? 0 : delta16(before, port);
}

/** True for ICMP echo requests and replies. */
function isEcho(parsed: ParsedPacket): boolean {
  const type = parsed.icmpType;
  return parsed.protocol === IpProtocol.Icmp4
    ? type === 8 || type === 0
    : parsed.protocol === IpProtocol.Icmp6 && (type === 128 || type === 129);
}

/**
 * Brings the transport checksum in step: `pseudoDelta` is what the addresses changed, `dataDelta` the ports.
 */
function updateTransport(view: DataView, parsed: ParsedPacket, pseudoDelta: number, dataDelta: number): void {
  let field = parsed.transportOffset;
  if (parsed.protocol === IpProtocol.Icmp4) {
    // ICMPv4 has no pseudo-header.
    if (dataDelta !== 0) view.setUint16(field + 2, updateChecksum(view.getUint16(field + 2), dataDelta));
    return;
  }
  const fieldOffset = checksumFieldOffset(parsed.protocol);
  if (fieldOffset < 0) return;
  field += fieldOffset;
  const before = view.getUint16(field);
  if (needsChecksum(view, parsed.offset)) {
    view.setUint16(field, foldSum(before + pseudoDelta));
    return;
  }
  const isUdp = parsed.protocol === IpProtocol.Udp;
  if (isUdp && before === 0) return;
  const after = updateChecksum(before, addDelta(pseudoDelta, dataDelta));
  view.setUint16(field, isUdp && after === 0 ? 0xffff : after);
}

/**
 * Takes one from TTL or hop limit.
 *
 * @returns false, and changes nothing, when the packet must not be forwarded because none is left.
 */
export function decrementTtl(view: DataView, parsed: ParsedPacket): boolean {
  if (parsed.ttl <= 1) return false;
  parsed.ttl--;
  if (parsed.version === 6) {
    view.setUint8(parsed.offset + 7, parsed.ttl);
    return true;
  }
  const at = parsed.offset;
  const before = view.getUint16(at + 8);
  view.setUint8(at + 8, parsed.ttl);
  view.setUint16(at + 10, updateChecksum(view.getUint16(at + 10), delta16(before, before - 0x100)));
  return true;
}

/**
 * Replaces the TOS or traffic-class byte (DSCP and ECN), for example to carry congestion marks (RFC 6040).
 */
export function setTos(view: DataView, parsed: ParsedPacket, tos: number): void {
  assert(tos >= 0 && tos <= 0xff);
  const at = parsed.offset;
  const before = view.getUint16(at);
  parsed.tos = tos;
  if (parsed.version === 6) {
    view.setUint16(at, (before & 0xf00f) | (tos << 4));
    return;
  }
  const after = (before & 0xff00) | tos;
  view.setUint16(at, after);
  view.setUint16(at + 10, updateChecksum(view.getUint16(at + 10), delta16(before, after)));
}

/**
 * Lowers the maximum segment size that a SYN announces to `mssMax`, so that the peers never send what does
 * not fit the way. A SYN without the option is left alone: its peer assumes 536 or 1220 (RFC 9293 section
 * 3.7.1). Malformed options end the search.
 *
 * @returns true when the option was lowered.
 */
export function clampMss(view: DataView, parsed: ParsedPacket, mssMax: number): boolean {
  if (parsed.protocol !== IpProtocol.Tcp || (parsed.tcpFlags & TcpFlag.Syn) === 0) return false;
  const end = parsed.payloadOffset;
  let at = parsed.transportOffset + 20;
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === 0) return false;
    if (kind === 1) {
      at++;
      continue;
    }
    if (at + 2 > end) return false;
    const length = view.getUint8(at + 1);
    if (length < 2 || at + length > end) return false;
    if (kind === 2) return length === 4 && lowerMss(view, parsed, at + 2, mssMax);
    at += length;
  }
  return false;
}

function lowerMss(view: DataView, parsed: ParsedPacket, at: number, mssMax: number): boolean {
  const before = view.getUint16(at);
  if (before <= mssMax) return false;
  view.setUint16(at, mssMax);
  const delta = delta16(before, mssMax);
  const isOdd = ((at - parsed.transportOffset) & 1) === 1;
  updateTransport(view, parsed, 0, isOdd ? deltaAtOddOffset(delta) : delta);
  return true;
}

/** The largest MSS for packets of at most `mtu` bytes without options. */
export function mssForMtu(mtu: number, version: number): number {
  return mtu - (version === 4 ? 40 : 60);
}
