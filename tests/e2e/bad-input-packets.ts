/** One bad packet for each drop reason that a packet alone can have. */
import { TcpFlag } from '#packet/parse.ts';
import { echoRequest, repairIpv4Header, tcpPacket, udpPacket } from '#testing/packets.ts';

/** A packet that has to be dropped, and why. */
export interface BadPacket {
  /** What is wrong with it. */
  readonly about: string;
  /** Name of the drop reason. */
  readonly reason: string;
  /** Sent in turn; the last one is dropped. */
  readonly packets: readonly Uint8Array[];
}

const CLIENT = '10.0.0.5';
const SERVER = '10.0.1.80';
/** Behind a route that makes sessions of datagrams. */
const SESSION = '10.0.2.80';
const good = udpPacket(
  { source: CLIENT, destination: SERVER, sourcePort: 1000, destinationPort: 53 },
  'good',
);
const good6 = udpPacket(
  { source: 'fd00::5', destination: 'fd01::80', sourcePort: 1, destinationPort: 53 },
  'good',
);
const syn = tcpPacket(
  { source: CLIENT, destination: SERVER, sourcePort: 1000, destinationPort: 80 },
  { sequence: 1, flags: TcpFlag.Syn },
);

/** A copy of the packet with some bytes set, by offset; the IPv4 header checksum is made right again. */
function changed(packet: Uint8Array, bytes: Readonly<Record<number, number>>): Uint8Array {
  const copy = Uint8Array.from(packet);
  for (const [at, value] of Object.entries(bytes)) copy[Number(at)] = value;
  return (copy[0] as number) >>> 4 === 4 && ((copy[0] as number) & 15) >= 5 ? repairIpv4Header(copy) : copy;
}

function between(source: string, destination: string, destinationPort = 53): Uint8Array {
  return udpPacket({ source, destination, sourcePort: 1000, destinationPort }, 'x');
}

/** IPv4 with options of whole words behind its header. */
function withOptions(packet: Uint8Array, options: readonly number[]): Uint8Array {
  const longer = Uint8Array.of(...packet.subarray(0, 20), ...options, ...packet.subarray(20));
  longer[0] = 0x40 | ((20 + options.length) / 4);
  new DataView(longer.buffer).setUint16(2, longer.length);
  return repairIpv4Header(longer);
}

/**
 * An IPv6 packet whose chain of headers is `chain` (each byte string begins with the next header's number).
 */
function withExtensions(first: number, chain: readonly (readonly number[])[]): Uint8Array {
  const extensions = chain.flat();
  const packet = Uint8Array.of(...good6.subarray(0, 40), ...extensions, ...good6.subarray(40));
  packet[6] = first;
  new DataView(packet.buffer).setUint16(4, packet.length - 40);
  return packet;
}

/** Parts of an IPv4 datagram to a session; offsets in bytes. */
function fragment(offset: number, length: number, more: boolean, id = 0x1234): Uint8Array {
  const whole = udpPacket(
    { source: CLIENT, destination: SESSION, sourcePort: 1000, destinationPort: 53 },
    new Uint8Array(4000),
  );
  const part = Uint8Array.of(...whole.subarray(0, 20), ...whole.subarray(20 + offset, 20 + offset + length));
  const view = new DataView(part.buffer);
  view.setUint16(2, part.length);
  view.setUint16(4, id);
  view.setUint16(6, (more ? 0x2000 : 0) | (offset / 8));
  return repairIpv4Header(part);
}

const OPTIONS_FILLER = [60, 0, 1, 4, 0, 0, 0, 0];

/** In the order of the drop reasons' numbers. */
export const BAD_PACKETS: readonly BadPacket[] = [
  { about: 'a piece of a header', reason: 'truncated', packets: [good.slice(0, 12)] },
  { about: 'a version that is none', reason: 'bad_version', packets: [changed(good, { 0: 0x75 })] },
  {
    about: 'a header shorter than a header',
    reason: 'bad_header_length',
    packets: [changed(good, { 0: 0x44 })],
  },
  { about: 'a length beyond the packet', reason: 'length_mismatch', packets: [changed(good, { 2: 0x40 })] },
  { about: 'a length short of the packet', reason: 'length_mismatch', packets: [changed(good, { 3: 24 })] },
  { about: 'bytes behind an IPv6 packet', reason: 'length_mismatch', packets: [Uint8Array.of(...good6, 0)] },
  {
    about: 'a wrong header checksum',
    reason: 'bad_header_checksum',
    packets: [Uint8Array.from(good).fill((good[10] as number) ^ 1, 10, 11)],
  },
  {
    about: 'damaged data of a datagram that becomes a session',
    reason: 'bad_transport_checksum',
    packets: [changed(between(CLIENT, SESSION), { 28: 0x79 })],
  },
  {
    about: 'a TCP header shorter than a header',
    reason: 'bad_transport_header',
    packets: [changed(syn, { 32: 0x40 })],
  },
  {
    about: 'a datagram shorter than its header',
    reason: 'bad_transport_header',
    packets: [changed(good, { 25: 4 })],
  },
  {
    about: 'SYN and FIN at once',
    reason: 'bad_transport_header',
    packets: [changed(syn, { 33: TcpFlag.Syn | TcpFlag.Fin })],
  },
  {
    about: 'hop-by-hop options behind others',
    reason: 'bad_extension_header',
    packets: [
      withExtensions(60, [
        [0, ...OPTIONS_FILLER.slice(1)],
        [17, ...OPTIONS_FILLER.slice(1)],
      ]),
    ],
  },
  {
    about: 'more options than anybody needs',
    reason: 'too_many_extension_headers',
    packets: [withExtensions(60, [[17, 100, ...new Array<number>(806).fill(0)]])],
  },
  { about: 'a fragment of odd length', reason: 'bad_fragment', packets: [fragment(0, 1001, true)] },
  { about: 'a fragment beyond what a packet holds', reason: 'bad_fragment', packets: [pingOfDeath()] },
  {
    about: 'fragments that overlap',
    reason: 'fragment_overlap',
    packets: [fragment(0, 1200, true, 0x77), fragment(800, 1200, true, 0x77)],
  },
  {
    about: 'a source route',
    reason: 'source_route',
    packets: [withOptions(good, [131, 7, 4, 10, 0, 1, 1, 0])],
  },
  {
    about: 'a source that the context does not allow',
    reason: 'spoofed_source',
    packets: [between('10.9.9.9', SERVER)],
  },
  { about: 'a source of loopback', reason: 'martian_source', packets: [between('127.0.0.1', SERVER)] },
  {
    about: 'a destination of loopback',
    reason: 'martian_destination',
    packets: [between(CLIENT, '127.0.0.1')],
  },
  {
    about: 'a protocol that no socket carries',
    reason: 'unknown_protocol',
    packets: [changed(between(CLIENT, SESSION), { 9: 132 })],
  },
  { about: 'a destination without a route', reason: 'no_route', packets: [between(CLIENT, '10.77.0.1')] },
  { about: 'a destination that a route refuses', reason: 'policy', packets: [between(CLIENT, '10.0.9.1')] },
  { about: 'a flow that the hook drops', reason: 'hook_rejected', packets: [between(CLIENT, SERVER, 667)] },
  {
    about: 'a flow at which the hook throws',
    reason: 'hook_failed',
    packets: [between(CLIENT, SERVER, 666)],
  },
  { about: 'a packet at the end of its life', reason: 'ttl_exceeded', packets: [changed(good, { 8: 1 })] },
  { about: 'a packet too big for its way out', reason: 'too_big', packets: [tooBig()] },
  {
    about: 'an answer to no connection',
    reason: 'not_flow_start',
    packets: [changed(syn, { 20: 0x55, 33: TcpFlag.Syn | TcpFlag.Ack })],
  },
  {
    about: 'an ICMP type that is not carried',
    reason: 'icmp_unsupported',
    packets: [
      changed(echoRequest({ source: CLIENT, destination: SERVER }, { identifier: 1, sequence: 1 }), {
        20: 13,
      }),
    ],
  },
  { about: 'a link-local destination', reason: 'link_scope', packets: [between(CLIENT, '169.254.1.1')] },
];

function pingOfDeath(): Uint8Array {
  const last = fragment(0, 1200, false);
  new DataView(last.buffer).setUint16(6, 0x1fff);
  return repairIpv4Header(last);
}

function tooBig(): Uint8Array {
  const path = { source: CLIENT, destination: SERVER, sourcePort: 1000, destinationPort: 53 };
  return udpPacket(path, new Uint8Array(3000));
}
