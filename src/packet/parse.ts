/**
 * The one parser of IP packets. It is total: it never throws, never reads outside
 * `[offset, offset + length)`, and answers with a `DropReason` for everything that it does not understand. In
 * packet order: version, IP header, options or extension headers, fragment, transport header.
 */
import { DropReason } from '#base/drop-reason.ts';

import { parseExtensionHeaders } from './parse-extension.ts';

/** Protocol numbers (IANA) that the packet path tells apart. */
export const IpProtocol = Object.freeze({
  HopByHop: 0,
  Icmp4: 1,
  Tcp: 6,
  Udp: 17,
  Routing: 43,
  Fragment: 44,
  Esp: 50,
  Authentication: 51,
  Icmp6: 58,
  None: 59,
  DestinationOptions: 60,
} as const);

/** Bits of `ParsedPacket.tcpFlags` (RFC 9293 section 3.1). */
export const TcpFlag = Object.freeze({
  Fin: 0x01,
  Syn: 0x02,
  Rst: 0x04,
  Psh: 0x08,
  Ack: 0x10,
  Urg: 0x20,
  Ece: 0x40,
  Cwr: 0x80,
} as const);

/** Values of `ParsedPacket.fragmentKind`. An IPv6 atomic fragment (RFC 6946) is a whole packet: `None`. */
export const FragmentKind = Object.freeze({ None: 0, First: 1, Later: 2 } as const);

/**
 * What the parser found: numbers only, one instance per worker, overwritten by each packet. Every field is
 * written by each successful parse, so none is ever left from the packet before. After a failed parse nothing
 * in it is valid. Offsets are absolute in the arena; lengths are bytes.
 */
export class ParsedPacket {
  /** Where the IP packet starts. */
  offset = 0;
  /** 4 or 6. */
  version = 0;
  /** The final protocol: the transport's, or what a later fragment's header names. */
  protocol = 0;
  /** IP header with options or extension headers; `transportOffset − offset`. */
  headerLength = 0;
  /** The whole packet; equal to the length that was given. */
  totalLength = 0;
  /** The source address: 4 or 16 bytes, the destination follows at once. */
  addressOffset = 0;
  /** First byte after the IP headers. In a later fragment this is bare data. */
  transportOffset = 0;
  /**
   * First byte after the transport header; for other protocols and later fragments equal to
   * `transportOffset`.
   */
  payloadOffset = 0;
  payloadLength = 0;
  /** TTL or hop limit. */
  ttl = 0;
  /** The TOS or traffic-class byte; its low two bits are ECN (RFC 3168). */
  tos = 0;
  /** 1 when IPv4 DF is set; always 1 for IPv6, which routers never fragment. */
  dontFragment = 0;
  /** A `FragmentKind`. */
  fragmentKind = 0;
  /** Bytes, a multiple of 8; 0 in whole packets and first fragments. */
  fragmentOffset = 0;
  /** 1 when more fragments follow. */
  moreFragments = 0;
  /**
   * IPv4 identification (16 bits), IPv6 fragment identification as a signed 32-bit number; 0 when there is
   * none.
   */
  fragmentId = 0;
  /** Where the IPv6 fragment header stands, also an atomic one; 0 when there is none. */
  fragmentHeaderOffset = 0;
  /** The byte that names the IPv6 fragment header; 0 when there is none. */
  fragmentNextHeaderOffset = 0;
  /**
   * TCP and UDP: the port. ICMP echo: the identifier in both ports, so that replies have the mirrored key.
   * Else 0.
   */
  sourcePort = 0;
  destinationPort = 0;
  /** `TcpFlag` bits; 0 unless TCP. */
  tcpFlags = 0;
  /** ICMP only; 0 otherwise. */
  icmpType = 0;
  icmpCode = 0;

  /** Takes over all fields of another one, to remember a packet while the worker's own is overwritten. */
  copyFrom(other: ParsedPacket): void {
    this.offset = other.offset;
    this.version = other.version;
    this.protocol = other.protocol;
    this.headerLength = other.headerLength;
    this.totalLength = other.totalLength;
    this.addressOffset = other.addressOffset;
    this.transportOffset = other.transportOffset;
    this.payloadOffset = other.payloadOffset;
    this.payloadLength = other.payloadLength;
    this.ttl = other.ttl;
    this.tos = other.tos;
    this.dontFragment = other.dontFragment;
    this.fragmentKind = other.fragmentKind;
    this.fragmentOffset = other.fragmentOffset;
    this.moreFragments = other.moreFragments;
    this.fragmentId = other.fragmentId;
    this.fragmentHeaderOffset = other.fragmentHeaderOffset;
    this.fragmentNextHeaderOffset = other.fragmentNextHeaderOffset;
    this.sourcePort = other.sourcePort;
    this.destinationPort = other.destinationPort;
    this.tcpFlags = other.tcpFlags;
    this.icmpType = other.icmpType;
    this.icmpCode = other.icmpCode;
  }
}

/**
 * Parses one IP packet of exactly `length` bytes at `offset` into `into`. IPv4 header checksum, lengths,
 * options, extension headers, fragment fields and transport header are checked; the transport checksum is not
 * (`verifyTransportChecksum`), addresses are not (`checkSource`, `checkDestination` in `address.ts`).
 *
 * @returns 0 when the packet is well formed, else why it has to be dropped.
 */
export function parsePacket(view: DataView, offset: number, length: number, into: ParsedPacket): DropReason {
  if (length < 20) return DropReason.Truncated;
  const version = view.getUint8(offset) >>> 4;
  into.offset = offset;
  into.totalLength = length;
  if (version === 4) return parseIpv4(view, offset, length, into);
  if (version === 6) return parseIpv6(view, offset, length, into);
  return DropReason.BadVersion;
}

/** RFC 791 section 3.1. The header is read as five words, from which both fields and checksum come. */
function parseIpv4(view: DataView, offset: number, length: number, into: ParsedPacket): DropReason {
  const word0 = view.getInt32(offset);
  const word1 = view.getInt32(offset + 4);
  const word2 = view.getInt32(offset + 8);
  const word3 = view.getInt32(offset + 12);
  const word4 = view.getInt32(offset + 16);
  const headerLength = (word0 >>> 22) & 0x3c;
  // A message of a tunnel is exactly one packet, so bytes behind it are as much a lie as missing ones.
  if ((word0 & 0xffff) !== length) return DropReason.LengthMismatch;
  let sum =
    (word0 & 0xffff) +
    (word0 >>> 16) +
    (word1 & 0xffff) +
    (word1 >>> 16) +
    (word2 & 0xffff) +
    (word2 >>> 16) +
    (word3 & 0xffff) +
    (word3 >>> 16) +
    (word4 & 0xffff) +
    (word4 >>> 16);
  if (headerLength !== 20) {
    if (headerLength < 20) return DropReason.BadHeaderLength;
    if (headerLength > length) return DropReason.Truncated;
    for (let at = offset + 20; at < offset + headerLength; at += 2) sum += view.getUint16(at);
    const reason = checkIpv4Options(view, offset + 20, offset + headerLength);
    if (reason !== DropReason.None) return reason;
  }
  sum = (sum & 0xffff) + (sum >>> 16);
  if (sum !== 0xffff && (sum & 0xffff) + (sum >>> 16) !== 0xffff) return DropReason.BadHeaderChecksum;

  into.version = 4;
  const protocol = (word2 >>> 16) & 0xff;
  into.protocol = protocol;
  into.headerLength = headerLength;
  into.addressOffset = offset + 12;
  into.transportOffset = offset + headerLength;
  into.ttl = word2 >>> 24;
  into.tos = (word0 >>> 16) & 0xff;
  into.dontFragment = (word1 >>> 14) & 1;
  into.fragmentId = word1 >>> 16;
  into.fragmentHeaderOffset = 0;
  into.fragmentNextHeaderOffset = 0;
  // The reserved bit must be zero; MF and offset say whether the packet is a fragment.
  if ((word1 & 0xbfff) !== 0) {
    if ((word1 & 0x8000) !== 0) return DropReason.BadFragment;
    const reason = setFragment(into, (word1 & 0x1fff) * 8, (word1 >>> 13) & 1, length - headerLength);
    if (reason !== DropReason.None) return reason;
    if (into.fragmentKind === FragmentKind.Later) return setNoTransport(into, offset + length);
  } else {
    into.fragmentKind = FragmentKind.None;
    into.fragmentOffset = 0;
    into.moreFragments = 0;
  }
  return parseTransport(view, into, protocol, offset + headerLength, offset + length);
}

/** Options must be well formed (RFC 791); those that let the sender choose the way are refused (RFC 7126). */
function checkIpv4Options(view: DataView, offset: number, end: number): DropReason {
  let at = offset;
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === 0) return DropReason.None;
    if (kind === 1) {
      at++;
      continue;
    }
    if (kind === 131 || kind === 137) return DropReason.SourceRoute;
    if (at + 2 > end) return DropReason.BadHeaderLength;
    const optionLength = view.getUint8(at + 1);
    if (optionLength < 2 || at + optionLength > end) return DropReason.BadHeaderLength;
    at += optionLength;
  }
  return DropReason.None;
}

/** RFC 8200 section 3. */
function parseIpv6(view: DataView, offset: number, length: number, into: ParsedPacket): DropReason {
  if (length < 40) return DropReason.Truncated;
  const word0 = view.getInt32(offset);
  const word1 = view.getInt32(offset + 4);
  const payload = word1 >>> 16;
  const next = (word1 >>> 8) & 0xff;
  // A payload length of zero with bytes behind it announces a jumbogram (RFC 2675).
  if (payload === 0 && length > 40) return DropReason.PacketTooLong;
  if (payload + 40 !== length) return DropReason.LengthMismatch;
  into.version = 6;
  into.tos = (word0 >>> 20) & 0xff;
  into.ttl = word1 & 0xff;
  into.addressOffset = offset + 8;
  into.dontFragment = 1;
  into.fragmentKind = FragmentKind.None;
  into.fragmentOffset = 0;
  into.moreFragments = 0;
  into.fragmentId = 0;
  into.fragmentHeaderOffset = 0;
  into.fragmentNextHeaderOffset = 0;
  into.protocol = next;
  into.transportOffset = offset + 40;
  if (isExtensionHeader(next)) {
    const reason = parseExtensionHeaders(view, into, offset + length);
    if (reason !== DropReason.None) return reason;
  }
  into.headerLength = into.transportOffset - offset;
  if (into.fragmentKind === FragmentKind.Later) return setNoTransport(into, offset + length);
  return parseTransport(view, into, into.protocol, into.transportOffset, offset + length);
}

/** Headers that another header follows; ESP and "no next header" end the chain. */
function isExtensionHeader(protocol: number): boolean {
  return (
    protocol === IpProtocol.HopByHop ||
    protocol === IpProtocol.Routing ||
    protocol === IpProtocol.Fragment ||
    protocol === IpProtocol.Authentication ||
    protocol === IpProtocol.DestinationOptions
  );
}

/** Takes over the fragment fields; `dataLength` is what this fragment carries. Shared by both versions. */
export function setFragment(
  into: ParsedPacket,
  fragmentOffset: number,
  moreFragments: number,
  dataLength: number,
): DropReason {
  // All but the last fragment carry a multiple of 8 bytes, and none reaches past what a packet can hold
  // ("ping of death").
  if (dataLength <= 0) return DropReason.BadFragment;
  if (moreFragments === 1 && (dataLength & 7) !== 0) return DropReason.BadFragment;
  if (fragmentOffset + dataLength > 0xffff) return DropReason.BadFragment;
  into.fragmentOffset = fragmentOffset;
  into.moreFragments = moreFragments;
  into.fragmentKind = fragmentOffset === 0 ? FragmentKind.First : FragmentKind.Later;
  // A fragment at offset 8 would overwrite the TCP flags (RFC 1858 section 3, RFC 3128).
  if (fragmentOffset === 8 && into.protocol === IpProtocol.Tcp) return DropReason.BadFragment;
  return DropReason.None;
}

/**
 * The transport header at `at`, `end` being the first byte after the packet. A first fragment has to contain
 * the whole transport header (RFC 7112, RFC 1858), or nothing could be decided about it.
 */
function parseTransport(
  view: DataView,
  into: ParsedPacket,
  protocol: number,
  at: number,
  end: number,
): DropReason {
  switch (protocol) {
    case IpProtocol.Tcp:
      return parseTcp(view, into, at, end);
    case IpProtocol.Udp:
      return parseUdp(view, into, at, end);
    case IpProtocol.Icmp4:
      if (into.version !== 4) return DropReason.UnknownProtocol;
      return parseIcmp(view, into, end, 8, 0);
    case IpProtocol.Icmp6:
      if (into.version !== 6) return DropReason.UnknownProtocol;
      return parseIcmp(view, into, end, 128, 129);
    default:
      return setNoTransport(into, end);
  }
}

/** RFC 9293 section 3.1. */
function parseTcp(view: DataView, into: ParsedPacket, at: number, end: number): DropReason {
  if (at + 20 > end) return shortTransport(into);
  const ports = view.getInt32(at);
  const word = view.getUint16(at + 12);
  const headerLength = (word >>> 10) & 0x3c;
  if (headerLength < 20) return DropReason.BadTransportHeader;
  if (at + headerLength > end) return shortTransport(into);
  const flags = word & 0xff;
  if (!areTcpFlagsPossible(flags)) return DropReason.BadTransportHeader;
  const sourcePort = ports >>> 16;
  const destinationPort = ports & 0xffff;
  if (sourcePort === 0 || destinationPort === 0) return DropReason.BadTransportHeader;
  into.payloadOffset = at + headerLength;
  into.payloadLength = end - at - headerLength;
  into.sourcePort = sourcePort;
  into.destinationPort = destinationPort;
  into.tcpFlags = flags;
  into.icmpType = 0;
  into.icmpCode = 0;
  return DropReason.None;
}

// Bit n is set when the flags FIN, SYN, RST, ACK (as bits 0, 1, 2, 3 of n) can stand together: ACK, SYN,
// SYN+ACK, RST, RST+ACK, FIN+ACK. No stack sends the others; scanners do.
const POSSIBLE_TCP_FLAGS =
  (1 << 0b1000) | (1 << 0b0010) | (1 << 0b1010) | (1 << 0b0100) | (1 << 0b1100) | (1 << 0b1001);

function areTcpFlagsPossible(flags: number): boolean {
  return ((POSSIBLE_TCP_FLAGS >>> ((flags & 7) | ((flags >>> 1) & 8))) & 1) === 1;
}

/**
 * RFC 768. The surplus area of UDP options (RFC 9868) is refused: two lengths that differ are a way to
 * smuggle.
 */
function parseUdp(view: DataView, into: ParsedPacket, at: number, end: number): DropReason {
  if (at + 8 > end) return shortTransport(into);
  const ports = view.getInt32(at);
  const length = view.getUint16(at + 4);
  if (length < 8) return DropReason.BadTransportHeader;
  if (into.fragmentKind === FragmentKind.None ? length !== end - at : length < end - at) {
    return DropReason.LengthMismatch;
  }
  // Source port 0 means "no reply wanted"; destination port 0 means nothing.
  if ((ports & 0xffff) === 0) return DropReason.BadTransportHeader;
  into.payloadOffset = at + 8;
  into.payloadLength = end - at - 8;
  into.sourcePort = ports >>> 16;
  into.destinationPort = ports & 0xffff;
  into.tcpFlags = 0;
  into.icmpType = 0;
  into.icmpCode = 0;
  return DropReason.None;
}

/** RFC 792, RFC 4443. `request` and `reply` are the echo types of the version. */
function parseIcmp(
  view: DataView,
  into: ParsedPacket,
  end: number,
  request: number,
  reply: number,
): DropReason {
  const at = into.transportOffset;
  if (at + 8 > end) return shortTransport(into);
  const type = view.getUint8(at);
  const identifier = type === request || type === reply ? view.getUint16(at + 4) : 0;
  into.payloadOffset = at + 8;
  into.payloadLength = end - at - 8;
  into.sourcePort = identifier;
  into.destinationPort = identifier;
  into.tcpFlags = 0;
  into.icmpType = type;
  into.icmpCode = view.getUint8(at + 1);
  return DropReason.None;
}

function setNoTransport(into: ParsedPacket, end: number): DropReason {
  into.payloadOffset = into.transportOffset;
  into.payloadLength = end - into.transportOffset;
  into.sourcePort = 0;
  into.destinationPort = 0;
  into.tcpFlags = 0;
  into.icmpType = 0;
  into.icmpCode = 0;
  return DropReason.None;
}

function shortTransport(into: ParsedPacket): DropReason {
  return into.fragmentKind === FragmentKind.None ? DropReason.Truncated : DropReason.BadFragment;
}
