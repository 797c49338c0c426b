/**
 * Packets by hand: built with the builders of `packet` where they can, so that only what a test makes wrong
 * is wrong.
 */
import { formatIp, parseIp } from '#base/ip.ts';
import { PacketEndpoints, udpHeadersLength, writeIpHeader, writeUdpHeaders } from '#packet/build.ts';
import { writeTransportChecksum } from '#packet/checksum.ts';
import { IpProtocol, ParsedPacket, parsePacket } from '#packet/parse.ts';
import { PACKET_HEADROOM } from '#packet/virtio-header.ts';

/** Who a packet is from and to. */
export interface PacketPath {
  /** Both of one family. */
  readonly source: string;
  readonly destination: string;
  /** Default 0. */
  readonly sourcePort?: number;
  readonly destinationPort?: number;
}

/** What a TCP segment says beside its path. */
export interface Segment {
  readonly sequence: number;
  readonly acknowledgement?: number;
  /** `TcpFlag` bits. */
  readonly flags: number;
  readonly payload?: Uint8Array;
  /** Maximum segment size, announced as an option. */
  readonly mss?: number;
  readonly window?: number;
}

const scratch = new DataView(new ArrayBuffer(PACKET_HEADROOM + 70_000));
const scratchBytes = new Uint8Array(scratch.buffer);
const parsedHere = new ParsedPacket();

/** A UDP datagram. */
export function udpPacket(path: PacketPath, payload: Uint8Array | string): Uint8Array {
  const endpoints = endpointsOf(path);
  const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload;
  scratchBytes.set(bytes, PACKET_HEADROOM + udpHeadersLength(endpoints.version));
  return taken(writeUdpHeaders(scratch, PACKET_HEADROOM, bytes.length, endpoints));
}

/** A TCP segment. */
export function tcpPacket(path: PacketPath, segment: Segment): Uint8Array {
  const endpoints = endpointsOf(path);
  const payload = segment.payload ?? new Uint8Array(0);
  const headerLength = segment.mss === undefined ? 20 : 24;
  const at = writeIpHeader(
    scratch,
    PACKET_HEADROOM,
    headerLength + payload.length,
    IpProtocol.Tcp,
    endpoints,
  );
  scratch.setUint16(at, path.sourcePort ?? 0);
  scratch.setUint16(at + 2, path.destinationPort ?? 0);
  scratch.setUint32(at + 4, segment.sequence >>> 0);
  scratch.setUint32(at + 8, (segment.acknowledgement ?? 0) >>> 0);
  scratch.setUint16(at + 12, ((headerLength / 4) << 12) | segment.flags);
  scratch.setUint16(at + 14, segment.window ?? 65_535);
  scratch.setUint32(at + 16, 0);
  if (segment.mss !== undefined) scratch.setUint32(at + 20, 0x02040000 | segment.mss);
  scratchBytes.set(payload, at + headerLength);
  return finished(at - PACKET_HEADROOM + headerLength + payload.length);
}

/** An ICMP echo request of either version. */
export function echoRequest(
  path: PacketPath,
  echo: { readonly identifier: number; readonly sequence: number; readonly data?: Uint8Array },
): Uint8Array {
  const endpoints = endpointsOf(path);
  const data = echo.data ?? new Uint8Array(16);
  const isIpv4 = endpoints.version === 4;
  const protocol = isIpv4 ? IpProtocol.Icmp4 : IpProtocol.Icmp6;
  const at = writeIpHeader(scratch, PACKET_HEADROOM, 8 + data.length, protocol, endpoints);
  scratch.setUint16(at, isIpv4 ? 0x0800 : 0x8000);
  scratch.setUint16(at + 2, 0);
  scratch.setUint16(at + 4, echo.identifier);
  scratch.setUint16(at + 6, echo.sequence);
  scratchBytes.set(data, at + 8);
  return finished(at - PACKET_HEADROOM + 8 + data.length);
}

/** A packet that came, taken apart for a test's assertions. */
export interface SeenPacket extends Required<PacketPath> {
  readonly version: number;
  readonly protocol: number;
  readonly ttl: number;
  readonly tcpFlags: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly icmpType: number;
  readonly icmpCode: number;
  /** Behind the transport header. */
  readonly payload: Uint8Array;
  readonly bytes: Uint8Array;
}

/** Takes a packet apart. @throws Error when it is malformed: what comes out must never be. */
export function seen(bytes: Uint8Array): SeenPacket {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parsed = new ParsedPacket();
  const reason = parsePacket(view, 0, bytes.length, parsed);
  if (reason !== 0)
    throw new Error(`a malformed packet came out (${reason}): ${Buffer.from(bytes).toString('hex')}`);
  const addressLength = parsed.version === 4 ? 4 : 16;
  const address = (at: number): string => formatIp(bytes.slice(at, at + addressLength));
  const isTcp = parsed.protocol === IpProtocol.Tcp;
  return {
    version: parsed.version,
    protocol: parsed.protocol,
    ttl: parsed.ttl,
    source: address(parsed.addressOffset),
    destination: address(parsed.addressOffset + addressLength),
    sourcePort: parsed.sourcePort,
    destinationPort: parsed.destinationPort,
    tcpFlags: parsed.tcpFlags,
    sequence: isTcp ? view.getUint32(parsed.transportOffset + 4) : 0,
    acknowledgement: isTcp ? view.getUint32(parsed.transportOffset + 8) : 0,
    icmpType: parsed.icmpType,
    icmpCode: parsed.icmpCode,
    payload: bytes.slice(parsed.payloadOffset, parsed.payloadOffset + parsed.payloadLength),
    bytes,
  };
}

/** The path of an answer. */
export function reversed(path: Required<PacketPath>): Required<PacketPath> {
  return {
    source: path.destination,
    destination: path.source,
    sourcePort: path.destinationPort,
    destinationPort: path.sourcePort,
  };
}

/** Writes the IPv4 header checksum of a packet that a test has changed. */
export function repairIpv4Header(packet: Uint8Array): Uint8Array {
  const headerLength = ((packet[0] as number) & 15) * 4;
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  view.setUint16(10, 0);
  let sum = 0;
  for (let at = 0; at < headerLength; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(10, ~sum & 0xffff);
  return packet;
}

function endpointsOf(path: PacketPath): PacketEndpoints {
  const source = parseIp(path.source);
  const destination = parseIp(path.destination);
  if (source === null || destination?.length !== source.length) {
    throw new Error(`no path: ${path.source} to ${path.destination}`);
  }
  const endpoints = new PacketEndpoints();
  endpoints.view = new DataView(Uint8Array.of(...source, ...destination).buffer);
  endpoints.version = source.length === 4 ? 4 : 6;
  endpoints.sourceOffset = 0;
  endpoints.destinationOffset = source.length;
  endpoints.sourcePort = path.sourcePort ?? 0;
  endpoints.destinationPort = path.destinationPort ?? 0;
  return endpoints;
}

/** Adds the transport checksum. */
function finished(length: number): Uint8Array {
  const reason = parsePacket(scratch, PACKET_HEADROOM, length, parsedHere);
  if (reason !== 0) throw new Error(`the packet that was built is malformed (${reason})`);
  writeTransportChecksum(scratch, parsedHere);
  return taken(length);
}

function taken(length: number): Uint8Array {
  return scratchBytes.slice(PACKET_HEADROOM, PACKET_HEADROOM + length);
}
