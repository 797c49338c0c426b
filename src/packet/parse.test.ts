import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { DropReason, dropReasonName } from '#base/drop-reason.ts';

import { FragmentKind, ParsedPacket, parsePacket } from './parse.ts';
import { TwinArena, type TwinPacket, twinBytes, twinEcho, twinPacket, twinTcp, twinUdp } from './twin.ts';

const V4 = { source: '10.0.0.1', destination: '10.0.0.2' };
const V6 = { source: 'fd00::1', destination: 'fd00::2' };
const arena = new TwinArena(2, 70000);

function parse(
  bytes: Uint8Array,
  length = bytes.length,
): { reason: string; parsed: ParsedPacket; at: number } {
  const at = arena.put(0, bytes);
  const parsed = new ParsedPacket();
  const reason = parsePacket(arena.view, at, length, parsed);
  return { reason: dropReasonName(reason), parsed, at };
}

/** Parses after changing bytes; the IPv4 header checksum is made right again unless that is what changed. */
function parseChanged(packet: TwinPacket, changes: Record<number, number>): string {
  const bytes = twinPacket(packet);
  for (const [at, value] of Object.entries(changes)) bytes[Number(at)] = value;
  if (bytes[0]! >> 4 === 4 && !(10 in changes)) {
    const header = bytes.subarray(0, Math.max(20, (bytes[0]! & 15) * 4));
    header[10] = header[11] = 0;
    let sum = 0;
    for (let i = 0; i < header.length; i += 2) sum += header[i]! * 256 + header[i + 1]!;
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    header[10] = (~sum >> 8) & 0xff;
    header[11] = ~sum & 0xff;
  }
  return parse(bytes).reason;
}

const tcp4: TwinPacket = { ...V4, protocol: 6, transport: twinTcp({ payload: twinBytes(10) }) };
const udp4: TwinPacket = { ...V4, protocol: 17, transport: twinUdp(5000, 53, twinBytes(12)) };
const udp6: TwinPacket = { ...V6, protocol: 17, transport: twinUdp(5000, 53, twinBytes(12)) };

test('an IPv4 header taken from the wire parses, and its checksum is right', () => {
  // The well-known example header with checksum b1e6, here with its 40 bytes of TCP SYN.
  const bytes = Buffer.from(
    '4500003c1c4640004006b1e6ac100a63ac100a0c' +
      'a5e60050d2e34a6700000000a002ffff0000000002040564040208' +
      '0a00d1b4f30000000001030307',
    'hex',
  );
  const { reason, parsed, at } = parse(bytes);
  assert.equal(reason, 'none');
  assert.equal(parsed.version, 4);
  assert.equal(parsed.protocol, 6);
  assert.equal(parsed.headerLength, 20);
  assert.equal(parsed.totalLength, 60);
  assert.equal(parsed.addressOffset, at + 12);
  assert.equal(parsed.transportOffset, at + 20);
  assert.equal(parsed.payloadOffset, at + 60);
  assert.equal(parsed.payloadLength, 0);
  assert.equal(parsed.ttl, 64);
  assert.equal(parsed.dontFragment, 1);
  assert.equal(parsed.fragmentId, 0x1c46);
  assert.equal(parsed.sourcePort, 0xa5e6);
  assert.equal(parsed.destinationPort, 80);
  assert.equal(parsed.tcpFlags, 0x02);
});

test('an IPv6 router solicitation taken from the wire parses', () => {
  const bytes = Buffer.from(
    '6000000000103afffe80000000000000020000fffe000001ff020000000000000000000000000002' +
      '85007d380000000001010200000001',
    'hex',
  );
  // One byte of the option is missing above: the length says 16.
  assert.equal(parse(bytes).reason, 'length_mismatch');
  const { reason, parsed } = parse(Buffer.concat([bytes, Buffer.from([0])]));
  assert.equal(reason, 'none');
  assert.equal(parsed.icmpType, 133);
  assert.equal(parsed.ttl, 255);
  assert.equal(parsed.sourcePort, 0);
});

test('lying lengths are refused', () => {
  assert.equal(parse(new Uint8Array(0)).reason, 'truncated');
  assert.equal(parse(twinPacket(tcp4), 19).reason, 'truncated');
  assert.equal(parse(twinPacket(tcp4), 59).reason, 'length_mismatch');
  assert.equal(parse(Uint8Array.from([...twinPacket(tcp4), 0])).reason, 'length_mismatch');
  assert.equal(parse(twinPacket(udp6), 39).reason, 'truncated');
  assert.equal(parse(Uint8Array.from([...twinPacket(udp6), 0])).reason, 'length_mismatch');
  assert.equal(parseChanged(tcp4, { 0: 0x44 }), 'bad_header_length');
  assert.equal(
    parse(twinPacket({ ...tcp4, transport: new Uint8Array(0) }).fill(0x4f, 0, 1)).reason,
    'truncated',
  );
  assert.equal(parseChanged(tcp4, { 0: 0x55 }), 'bad_version');
  assert.equal(parseChanged(udp4, { 25: 19 }), 'length_mismatch');
  assert.equal(parseChanged(udp4, { 25: 21 }), 'length_mismatch');
  assert.equal(parseChanged(udp4, { 25: 7 }), 'bad_transport_header');
  assert.equal(parseChanged(udp6, { 4: 0, 5: 0 }), 'packet_too_long');
});

test('a wrong IPv4 header checksum is refused', () => {
  assert.equal(parseChanged(tcp4, { 10: 0xab, 11: 0xcd }), 'bad_header_checksum');
});

test('every single-bit error of an IPv4 header is noticed', () => {
  const good = twinPacket(tcp4);
  for (let bit = 0; bit < 160; bit++) {
    const bad = good.slice();
    bad[bit >> 3] = bad[bit >> 3]! ^ (0x80 >> (bit & 7));
    assert.notEqual(parse(bad).reason, 'none', `bit ${bit}`);
  }
});

test('source routes and malformed options are refused, others pass', () => {
  const withOptions = (...options: number[]) =>
    parse(twinPacket({ ...tcp4, ipOptions: Uint8Array.from(options) })).reason;
  assert.equal(withOptions(131, 3, 4, 0), 'source_route');
  assert.equal(withOptions(1, 137, 3, 4), 'source_route');
  assert.equal(withOptions(7, 0, 0, 0), 'bad_header_length');
  assert.equal(withOptions(7, 5, 0, 0), 'bad_header_length');
  assert.equal(withOptions(1, 1, 1, 7), 'bad_header_length');
  assert.equal(withOptions(148, 4, 0, 0), 'none');
  assert.equal(withOptions(0, 131, 3, 4), 'none');
});

test('TCP flags that no stack sends are refused', () => {
  const possible = new Set([0x02, 0x12, 0x10, 0x18, 0x04, 0x14, 0x11, 0x19, 0x30, 0x38, 0x39, 0xd0, 0xc2]);
  for (const flags of [0x00, 0x01, 0x03, 0x06, 0x07, 0x3f, 0x29, 0x05, 0x15, 0x08, 0x20, ...possible]) {
    const { reason } = parse(twinPacket({ ...V4, protocol: 6, transport: twinTcp({ flags }) }));
    assert.equal(reason, possible.has(flags) ? 'none' : 'bad_transport_header', flags.toString(16));
  }
});

test('transport headers that do not fit or make no sense are refused', () => {
  assert.equal(parse(twinPacket({ ...tcp4, transport: new Uint8Array(19) })).reason, 'truncated');
  assert.equal(parse(twinPacket({ ...udp4, transport: new Uint8Array(7) })).reason, 'truncated');
  assert.equal(parse(twinPacket({ ...udp6, transport: new Uint8Array(0) })).reason, 'truncated');
  assert.equal(parseChanged(tcp4, { 32: 0x40 }), 'bad_transport_header');
  assert.equal(parseChanged(tcp4, { 32: 0xf0 }), 'truncated');
  assert.equal(parseChanged(tcp4, { 20: 0, 21: 0 }), 'bad_transport_header');
  assert.equal(parseChanged(udp4, { 22: 0, 23: 0 }), 'bad_transport_header');
  assert.equal(parseChanged(udp4, { 20: 0, 21: 0 }), 'none');
});

test('ICMP of the other IP version is refused', () => {
  const echo = twinEcho(8, 7, twinBytes(8));
  assert.equal(parse(twinPacket({ ...V4, protocol: 58, transport: echo })).reason, 'unknown_protocol');
  assert.equal(parse(twinPacket({ ...V6, protocol: 1, transport: echo })).reason, 'unknown_protocol');
});

test('an echo has its identifier as both ports, so that the reply has the mirrored key', () => {
  for (const [type, reply, protocol, addresses] of [
    [8, 0, 1, V4],
    [128, 129, 58, V6],
  ] as const) {
    for (const kind of [type, reply]) {
      const { parsed } = parse(
        twinPacket({ ...addresses, protocol, transport: twinEcho(kind, 777, twinBytes(8)) }),
      );
      assert.equal(parsed.sourcePort, 777);
      assert.equal(parsed.destinationPort, 777);
      assert.equal(parsed.icmpType, kind);
    }
  }
});

test('other protocols parse without ports', () => {
  const { reason, parsed } = parse(twinPacket({ ...V4, protocol: 47, transport: twinBytes(30) }));
  assert.equal(reason, 'none');
  assert.equal(parsed.sourcePort, 0);
  assert.equal(parsed.payloadLength, 30);
});

test('IPv4 fragments are told apart, and impossible ones are refused', () => {
  const fragment = (word: number, transport: Uint8Array, protocol = 17) =>
    parse(twinPacket({ ...V4, protocol, fragment: word, transport, keepChecksum: true, id: 99 }));
  const first = fragment(0x2000, twinUdp(1, 2, twinBytes(24)).fill(200, 5, 6));
  assert.equal(first.reason, 'none');
  assert.equal(first.parsed.fragmentKind, FragmentKind.First);
  assert.equal(first.parsed.moreFragments, 1);
  assert.equal(first.parsed.destinationPort, 2);
  const later = fragment(0x0004, twinBytes(9));
  assert.equal(later.reason, 'none');
  assert.equal(later.parsed.fragmentKind, FragmentKind.Later);
  assert.equal(later.parsed.fragmentOffset, 32);
  assert.equal(later.parsed.fragmentId, 99);
  assert.equal(later.parsed.sourcePort, 0);
  assert.equal(later.parsed.payloadLength, 9);
  assert.equal(fragment(0x2004, twinBytes(9)).reason, 'bad_fragment');
  assert.equal(fragment(0x2004, new Uint8Array(0)).reason, 'bad_fragment');
  assert.equal(fragment(0x8000, twinUdp(1, 2, twinBytes(8))).reason, 'bad_fragment');
  assert.equal(fragment(0x1fff, twinBytes(8)).reason, 'bad_fragment', 'past 65535 bytes');
  assert.equal(fragment(0x0001, twinBytes(8), 6).reason, 'bad_fragment', 'TCP flags overwritten');
  assert.equal(fragment(0x2000, twinTcp({}).slice(0, 16), 6).reason, 'bad_fragment', 'tiny fragment');
  assert.equal(fragment(0x2000, new Uint8Array(8).fill(9), 6).reason, 'bad_fragment', 'tiny fragment');
});

/** An IPv6 packet with a chain of extension headers before UDP. */
function chain(first: number, extensions: number[], transport = udp6.transport, protocol = 17) {
  return parse(
    twinPacket({ ...V6, protocol, transport, firstHeader: first, extensions: Uint8Array.from(extensions) }),
  );
}
const PAD = [1, 4, 0, 0, 0, 0];

test('IPv6 extension headers are walked to the transport header', () => {
  const { reason, parsed, at } = chain(0, [
    60,
    0,
    ...PAD,
    43,
    0,
    ...PAD,
    60,
    0,
    4,
    0,
    0,
    0,
    0,
    0,
    17,
    0,
    ...PAD,
  ]);
  assert.equal(reason, 'none');
  assert.equal(parsed.protocol, 17);
  assert.equal(parsed.headerLength, 72);
  assert.equal(parsed.transportOffset, at + 72);
  assert.equal(parsed.destinationPort, 53);
  assert.equal(chain(51, [17, 4, ...new Array(22).fill(0)]).reason, 'none');
});

test('IPv6 chains that hide, steer or do not fit are refused', () => {
  assert.equal(chain(60, [0, 0, ...PAD, 17, 0, ...PAD]).reason, 'bad_extension_header', 'hop-by-hop later');
  assert.equal(chain(43, [17, 0, 0, 0, 0, 0, 0, 0]).reason, 'source_route', 'type 0');
  assert.equal(chain(43, [17, 0, 4, 1, 0, 0, 0, 0]).reason, 'source_route', 'segments left');
  assert.equal(chain(43, [43, 0, 4, 0, 0, 0, 0, 0, 17, 0, 4, 0, 0, 0, 0, 0]).reason, 'bad_extension_header');
  const thrice = [60, 0, ...PAD, 60, 0, ...PAD, 17, 0, ...PAD];
  assert.equal(chain(60, thrice).reason, 'bad_extension_header');
  assert.equal(chain(60, [17, 9, ...PAD], new Uint8Array(8)).reason, 'truncated');
  assert.equal(chain(0, [17, 0, 1, 5, 0, 0, 0, 0]).reason, 'bad_extension_header', 'option past the end');
  assert.equal(chain(0, [17, 0, 0x41, 4, 0, 0, 0, 0]).reason, 'bad_extension_header', 'unknown, discard');
  assert.equal(chain(0, [17, 0, 0x05, 2, 0, 0, 1, 0]).reason, 'none', 'router alert');
  assert.equal(chain(0, [17, 0, 0xc2, 4, 0, 1, 0, 0]).reason, 'packet_too_long', 'jumbo');
  assert.equal(chain(51, [17, 0, ...new Array(6).fill(0)]).reason, 'bad_extension_header', 'short AH');
  const long = new Array(768).fill(0);
  long[0] = 17;
  long[1] = 95;
  assert.equal(chain(0, long).reason, 'too_many_extension_headers');
});

test('IPv6 fragments are told apart; an atomic fragment is a whole packet', () => {
  const atomic = chain(44, [17, 0, 0, 0, 0, 0, 1, 2]);
  assert.equal(atomic.reason, 'none');
  assert.equal(atomic.parsed.fragmentKind, FragmentKind.None);
  assert.equal(atomic.parsed.destinationPort, 53);
  assert.equal(atomic.parsed.fragmentHeaderOffset, atomic.at + 40);
  assert.equal(atomic.parsed.fragmentNextHeaderOffset, atomic.at + 6);
  const first = chain(60, [44, 0, ...PAD, 17, 0, 0, 1, 0, 0, 1, 2], twinUdp(1, 2, twinBytes(8)));
  assert.equal(first.reason, 'none');
  assert.equal(first.parsed.fragmentKind, FragmentKind.First);
  assert.equal(first.parsed.fragmentNextHeaderOffset, first.at + 40);
  const later = chain(44, [17, 0, 0, 0x10, 0, 0, 1, 2], twinBytes(5));
  assert.equal(later.reason, 'none');
  assert.equal(later.parsed.fragmentOffset, 16);
  assert.equal(later.parsed.fragmentId, 258);
  assert.equal(chain(44, [17, 0, 0, 0x11, 0, 0, 1, 2], twinBytes(5)).reason, 'bad_fragment');
  assert.equal(chain(44, [17, 0, 0, 1, 0, 0, 1, 2], new Uint8Array(0)).reason, 'bad_fragment');
  assert.equal(chain(44, [60, 0, 0, 1, 0, 0, 1, 2], twinBytes(8).fill(1, 1, 2)).reason, 'bad_fragment');
});

test('parsing is total: random bytes give a reason or fields that lie inside the packet', () => {
  const parsed = new ParsedPacket();
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ minLength: 0, maxLength: 120 }),
        fc
          .tuple(fc.constantFrom(tcp4, udp4, udp6), fc.array(fc.tuple(fc.nat(80), fc.nat(255))))
          .map(([p, edits]) => {
            const bytes = twinPacket(p);
            for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
            return bytes;
          }),
      ),
      (bytes) => {
        // The view ends where the packet ends: a read outside of it would throw.
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        const reason = parsePacket(view, 0, bytes.length, parsed);
        if (reason !== DropReason.None) return;
        assert.ok(parsed.transportOffset >= 20 && parsed.payloadOffset >= parsed.transportOffset);
        assert.equal(parsed.payloadOffset + parsed.payloadLength, bytes.length);
      },
    ),
    { numRuns: 3000 },
  );
});
