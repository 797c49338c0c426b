/**
 * The IPv6 extension headers (RFC 8200 section 4), walked with limits on their number and bytes. What could
 * steer the packet past the routes and the policy (routing headers with segments left) is refused.
 */
import { DropReason } from '#base/drop-reason.ts';

import { IpProtocol, type ParsedPacket, setFragment } from './parse.ts';

/**
 * RFC 8200 section 4.1 names six that can stand together; more are only ever an attempt to hide the
 * transport.
 */
export const EXTENSION_HEADERS_MAX = 6;

/** RFC 8504 section 5.3 lets a node limit the chain; real chains stay far below this. Bytes. */
export const EXTENSION_BYTES_MAX = 512;

/**
 * Walks the chain that starts at `into.transportOffset` with header `into.protocol`, and leaves both at what
 * comes after it. `end` is the first byte after the packet. Stops behind the fragment header of a later
 * fragment.
 */
export function parseExtensionHeaders(view: DataView, into: ParsedPacket, end: number): DropReason {
  const start = into.transportOffset;
  let nextHeaderOffset = into.offset + 6;
  let seen = 0;
  for (let count = 0; ; count++) {
    const header = into.protocol;
    const at = into.transportOffset;
    const bit = headerBit(header);
    if (bit === 0) return DropReason.None;
    if (count === EXTENSION_HEADERS_MAX) return DropReason.TooManyExtensionHeaders;
    // Hop-by-hop only directly behind the IP header; each once, destination options before and behind
    // routing.
    if (header === IpProtocol.HopByHop && count > 0) return DropReason.BadExtensionHeader;
    if ((seen & bit) !== 0) {
      if (header !== IpProtocol.DestinationOptions || (seen & SECOND_DESTINATION_OPTIONS) !== 0) {
        return DropReason.BadExtensionHeader;
      }
      seen |= SECOND_DESTINATION_OPTIONS;
    }
    seen |= bit;
    if (at + 8 > end) return shortChain(into);
    const length = headerLength(view, header, at);
    if (at + length > end) return shortChain(into);
    if (at + length - start > EXTENSION_BYTES_MAX) return DropReason.TooManyExtensionHeaders;
    if (header === IpProtocol.Fragment) {
      into.fragmentNextHeaderOffset = nextHeaderOffset;
      const reason = parseFragmentHeader(view, into, end);
      if (reason !== DropReason.None || into.fragmentOffset > 0) return reason;
    } else {
      const reason = checkHeader(view, header, at, length);
      if (reason !== DropReason.None) return reason;
      into.protocol = view.getUint8(at);
      into.transportOffset = at + length;
    }
    nextHeaderOffset = at;
  }
}

const SECOND_DESTINATION_OPTIONS = 0x20;

/** One bit per known header, 0 for what ends the chain. */
function headerBit(header: number): number {
  switch (header) {
    case IpProtocol.HopByHop:
      return 0x01;
    case IpProtocol.DestinationOptions:
      return 0x02;
    case IpProtocol.Routing:
      return 0x04;
    case IpProtocol.Fragment:
      return 0x08;
    case IpProtocol.Authentication:
      return 0x10;
    default:
      return 0;
  }
}

/**
 * Bytes of the header: a fragment header is 8, AH counts words less two (RFC 4302), the others 8 bytes less
 * one.
 */
function headerLength(view: DataView, header: number, at: number): number {
  if (header === IpProtocol.Fragment) return 8;
  const units = view.getUint8(at + 1);
  return header === IpProtocol.Authentication ? (units + 2) * 4 : (units + 1) * 8;
}

function checkHeader(view: DataView, header: number, at: number, length: number): DropReason {
  if (header === IpProtocol.Routing) {
    // Type 0 is forbidden (RFC 5095). Any other with segments left would choose its own way.
    const type = view.getUint8(at + 2);
    const segmentsLeft = view.getUint8(at + 3);
    return type === 0 || segmentsLeft > 0 ? DropReason.SourceRoute : DropReason.None;
  }
  if (header === IpProtocol.Authentication) {
    // The fixed part alone is 12 bytes, and in IPv6 the whole is a multiple of 8 (RFC 4302 section
    // 3.3.3.2.1).
    return length < 16 || (length & 7) !== 0 ? DropReason.BadExtensionHeader : DropReason.None;
  }
  return checkOptions(view, at + 2, at + length);
}

/** The options of a hop-by-hop or destination header (RFC 8200 section 4.2). */
function checkOptions(view: DataView, offset: number, end: number): DropReason {
  let at = offset;
  while (at < end) {
    const type = view.getUint8(at);
    if (type === 0) {
      at++;
      continue;
    }
    if (at + 2 > end) return DropReason.BadExtensionHeader;
    const next = at + 2 + view.getUint8(at + 1);
    if (next > end) return DropReason.BadExtensionHeader;
    if (type === JUMBO_PAYLOAD) return DropReason.PacketTooLong;
    // The two high bits say what to do with an unknown option; only 00 lets it pass. None needs to be known
    // here.
    if (type > 0x3f) return DropReason.BadExtensionHeader;
    at = next;
  }
  return DropReason.None;
}

const JUMBO_PAYLOAD = 0xc2;

/** RFC 8200 section 4.5. An atomic fragment (offset 0, none to follow) is a whole packet (RFC 6946). */
function parseFragmentHeader(view: DataView, into: ParsedPacket, end: number): DropReason {
  const at = into.transportOffset;
  const word = view.getUint16(at + 2);
  into.fragmentHeaderOffset = at;
  into.fragmentId = view.getInt32(at + 4);
  into.protocol = view.getUint8(at);
  into.transportOffset = at + 8;
  const fragmentOffset = word & 0xfff8;
  const moreFragments = word & 1;
  if (fragmentOffset === 0 && moreFragments === 0) return DropReason.None;
  return setFragment(into, fragmentOffset, moreFragments, end - at - 8);
}

/** A chain that does not fit: in a first fragment the rest may follow, but must not (RFC 7112). */
function shortChain(into: ParsedPacket): DropReason {
  return into.fragmentKind === 0 ? DropReason.Truncated : DropReason.BadFragment;
}
