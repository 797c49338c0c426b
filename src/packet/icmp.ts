/**
 * ICMP messages (RFC 792, RFC 4443): what kind they are, and the packet that an error quotes. An error
 * belongs to the flow of its quoted packet and goes the other way: it is found by the quoted tuple, and the
 * quote is translated as the flow's packets are, or its receiver would not know what it is about.
 */
import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';

import { addDelta, updateChecksum, verifyTransportChecksum, writeTransportChecksum } from './checksum.ts';
import { FragmentKind, IpProtocol, type ParsedPacket } from './parse.ts';
import { parseExtensionHeaders } from './parse-extension.ts';
import { replaceAddress, replacePort } from './rewrite.ts';
import { checksumFieldOffset, clearVirtioHeader, isChecksumTrusted } from './virtio-header.ts';

/** What an ICMP message is, the same for both versions. */
export const IcmpKind = Object.freeze({
  /** Anything else: redirects, router and neighbour discovery, timestamps. They do not cross a router. */
  Other: 0,
  EchoRequest: 1,
  EchoReply: 2,
  /** Destination unreachable. */
  Unreachable: 3,
  /** Packet too big, fragmentation needed; see `icmpMtu`. */
  PacketTooBig: 4,
  TimeExceeded: 5,
  ParameterProblem: 6,
} as const);

/** One of the numbers of `IcmpKind`. */
export type IcmpKind = (typeof IcmpKind)[keyof typeof IcmpKind];

/** Whether messages of this kind quote a packet. */
export function isErrorKind(kind: IcmpKind): boolean {
  return kind >= IcmpKind.Unreachable;
}

/** The kind of a packet that was parsed as ICMP; `Other` for every other protocol. */
export function icmpKind(parsed: ParsedPacket): IcmpKind {
  if (parsed.fragmentKind === FragmentKind.Later) return IcmpKind.Other;
  if (parsed.protocol === IpProtocol.Icmp4) return icmp4Kind(parsed.icmpType, parsed.icmpCode);
  return parsed.protocol === IpProtocol.Icmp6 ? icmp6Kind(parsed.icmpType) : IcmpKind.Other;
}

function icmp4Kind(type: number, code: number): IcmpKind {
  switch (type) {
    case 0:
      return IcmpKind.EchoReply;
    case 3:
      return code === 4 ? IcmpKind.PacketTooBig : IcmpKind.Unreachable;
    case 8:
      return IcmpKind.EchoRequest;
    case 11:
      return IcmpKind.TimeExceeded;
    case 12:
      return IcmpKind.ParameterProblem;
    default:
      return IcmpKind.Other;
  }
}

function icmp6Kind(type: number): IcmpKind {
  switch (type) {
    case 1:
      return IcmpKind.Unreachable;
    case 2:
      return IcmpKind.PacketTooBig;
    case 3:
      return IcmpKind.TimeExceeded;
    case 4:
      return IcmpKind.ParameterProblem;
    case 128:
      return IcmpKind.EchoRequest;
    case 129:
      return IcmpKind.EchoReply;
    default:
      return IcmpKind.Other;
  }
}

/** The MTU that a `PacketTooBig` message reports; 0 when it does not say (RFC 1191 section 3). Bytes. */
export function icmpMtu(view: DataView, parsed: ParsedPacket): number {
  assert(icmpKind(parsed) === IcmpKind.PacketTooBig);
  const at = parsed.transportOffset;
  return parsed.version === 4 ? view.getUint16(at + 6) : view.getUint32(at + 4);
}

/**
 * Parses the packet that an ICMP error quotes. Of a quote only the beginning is there, so in `into` these
 * fields are valid: `offset`, `version`, `protocol`, `headerLength`, `addressOffset`, `transportOffset`, the
 * ports and the ICMP type; `totalLength` is the length of the quote. That is what `hashReplyTuple` and the
 * functions below need. The error's own checksum is verified, because translation gives it a new one.
 *
 * @returns 0; `IcmpUnrelated` when the quote names no flow (too short, a later fragment, another IP version);
 *   `IcmpUnsupported` when the message is not an error; `BadTransportChecksum`.
 */
export function parseQuoted(view: DataView, outer: ParsedPacket, into: ParsedPacket): DropReason {
  if (!isErrorKind(icmpKind(outer))) return DropReason.IcmpUnsupported;
  if (outer.fragmentKind !== FragmentKind.None) return DropReason.IcmpUnsupported;
  if (!isChecksumTrusted(view, outer.offset) && !verifyTransportChecksum(view, outer)) {
    return DropReason.BadTransportChecksum;
  }
  const offset = outer.payloadOffset;
  const end = offset + outer.payloadLength;
  into.offset = offset;
  into.totalLength = outer.payloadLength;
  into.fragmentKind = FragmentKind.None;
  const reason =
    outer.version === 4 ? quotedIpv4(view, offset, end, into) : quotedIpv6(view, offset, end, into);
  if (reason !== DropReason.None) return reason;
  into.headerLength = into.transportOffset - offset;
  // 8 bytes of the transport header are always quoted (RFC 792); they hold ports or echo identifier.
  const at = into.transportOffset;
  if (at + 8 > end) return DropReason.IcmpUnrelated;
  return quotedPorts(view, at, into);
}

function quotedIpv4(view: DataView, offset: number, end: number, into: ParsedPacket): DropReason {
  if (offset + 28 > end || view.getUint8(offset) >>> 4 !== 4) return DropReason.IcmpUnrelated;
  const headerLength = (view.getUint8(offset) & 15) * 4;
  if (headerLength < 20 || offset + headerLength + 8 > end) return DropReason.IcmpUnrelated;
  if ((view.getUint16(offset + 6) & 0x1fff) !== 0) return DropReason.IcmpUnrelated;
  into.version = 4;
  into.protocol = view.getUint8(offset + 9);
  into.addressOffset = offset + 12;
  into.transportOffset = offset + headerLength;
  return DropReason.None;
}

function quotedIpv6(view: DataView, offset: number, end: number, into: ParsedPacket): DropReason {
  if (offset + 48 > end || view.getUint8(offset) >>> 4 !== 6) return DropReason.IcmpUnrelated;
  into.version = 6;
  into.protocol = view.getUint8(offset + 6);
  into.addressOffset = offset + 8;
  into.transportOffset = offset + 40;
  into.fragmentOffset = 0;
  const reason = parseExtensionHeaders(view, into, end);
  if (reason !== DropReason.None || into.fragmentOffset > 0) return DropReason.IcmpUnrelated;
  return DropReason.None;
}

function quotedPorts(view: DataView, at: number, into: ParsedPacket): DropReason {
  into.icmpType = 0;
  into.icmpCode = 0;
  into.sourcePort = 0;
  into.destinationPort = 0;
  if (into.protocol === IpProtocol.Tcp || into.protocol === IpProtocol.Udp) {
    into.sourcePort = view.getUint16(at);
    into.destinationPort = view.getUint16(at + 2);
    return DropReason.None;
  }
  if (into.protocol !== IpProtocol.Icmp4 && into.protocol !== IpProtocol.Icmp6) return DropReason.None;
  into.icmpType = view.getUint8(at);
  into.icmpCode = view.getUint8(at + 1);
  const kind = icmpKind(into);
  // Errors are only about echoes; none is sent about an error (RFC 1122 section 3.2.2).
  if (kind !== IcmpKind.EchoRequest && kind !== IcmpKind.EchoReply) return DropReason.IcmpUnrelated;
  into.sourcePort = view.getUint16(at + 4);
  into.destinationPort = into.sourcePort;
  return DropReason.None;
}

/**
 * Replaces source address and port in the quote of an ICMP error, and every checksum that they are part of.
 */
export function rewriteQuotedSource(
  view: DataView,
  outer: ParsedPacket,
  quoted: ParsedPacket,
  from: DataView,
  fromOffset: number,
  port: number,
): void {
  rewriteQuoted(view, outer, quoted, 0, from, fromOffset, port);
}

/** Replaces destination address and port in the quote of an ICMP error; as `rewriteQuotedSource`. */
export function rewriteQuotedDestination(
  view: DataView,
  outer: ParsedPacket,
  quoted: ParsedPacket,
  from: DataView,
  fromOffset: number,
  port: number,
): void {
  rewriteQuoted(view, outer, quoted, 1, from, fromOffset, port);
}

function rewriteQuoted(
  view: DataView,
  outer: ParsedPacket,
  quoted: ParsedPacket,
  side: number,
  from: DataView,
  fromOffset: number,
  port: number,
): void {
  assert(quoted.offset === outer.payloadOffset && quoted.version === outer.version);
  const addressDelta = replaceAddress(view, quoted, side, from, fromOffset);
  const portDelta = replacePort(view, quoted, side, port);
  updateQuotedChecksum(view, quoted, addressDelta, portDelta);
  // The message is short, so its checksum is made anew.
  clearVirtioHeader(view, outer.offset);
  writeTransportChecksum(view, outer);
}

/** The transport checksum in the quote, where so much was quoted: some receivers compare it. */
function updateQuotedChecksum(
  view: DataView,
  quoted: ParsedPacket,
  addressDelta: number,
  portDelta: number,
): void {
  const isIcmp4 = quoted.protocol === IpProtocol.Icmp4;
  const fieldOffset = isIcmp4 ? 2 : checksumFieldOffset(quoted.protocol);
  const field = quoted.transportOffset + fieldOffset;
  if (fieldOffset < 0 || field + 2 > quoted.offset + quoted.totalLength) return;
  const before = view.getUint16(field);
  if (quoted.protocol === IpProtocol.Udp && before === 0) return;
  view.setUint16(field, updateChecksum(before, isIcmp4 ? portDelta : addDelta(addressDelta, portDelta)));
}
