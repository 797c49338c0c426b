import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DropReason, dropReasonName } from '#base/drop-reason.ts';
import { parseIp } from '#base/ip.ts';

import { IcmpError, writeIcmpError } from './build.ts';
import { verifyTransportChecksum } from './checksum.ts';
import {
  IcmpKind,
  icmpKind,
  icmpMtu,
  isErrorKind,
  parseQuoted,
  rewriteQuotedDestination,
  rewriteQuotedSource,
} from './icmp.ts';
import { ParsedPacket, parsePacket } from './parse.ts';
import { hashReplyTuple, hashTuple } from './tuple.ts';
import { TwinArena, twinBytes, twinEcho, twinPacket, twinTcp, twinUdp, twinVerify } from './twin.ts';

const V4 = { source: '10.0.0.1', destination: '10.0.0.2' };
const V6 = { source: 'fd00::1', destination: 'fd00::2' };
const arena = new TwinArena(2, 4096);
const view = arena.view;
const parsed = new ParsedPacket();
const outer = new ParsedPacket();
const quoted = new ParsedPacket();
const TO = arena.at(1);

function put(packet: Uint8Array): void {
  assert.equal(parsePacket(view, arena.put(0, packet), packet.length, parsed), DropReason.None);
}

/** Puts the packet into slot 0 and an error about it into slot 1, parsed as `outer`. */
function putError(packet: Uint8Array, error: IcmpError = IcmpError.PortUnreachable): number {
  put(packet);
  const length = writeIcmpError(view, parsed, TO, error, { mtu: 1300 });
  assert.equal(parsePacket(view, TO, length, outer), DropReason.None);
  return length;
}

function memory(text: string): DataView {
  return new DataView((parseIp(text) as Uint8Array).slice().buffer);
}

const CASES = [V4, V6].flatMap((addresses) => [
  {
    addresses,
    protocol: 6,
    transport: twinTcp({ sourcePort: 1000, destinationPort: 2000 }),
    ports: [1000, 2000],
  },
  { addresses, protocol: 17, transport: twinUdp(1000, 2000, twinBytes(20)), ports: [1000, 2000] },
  addresses === V4
    ? { addresses, protocol: 1, transport: twinEcho(8, 77, twinBytes(20)), ports: [77, 77] }
    : { addresses, protocol: 58, transport: twinEcho(128, 77, twinBytes(20)), ports: [77, 77] },
]);

test('the packet that an error quotes leads back to its flow', () => {
  for (const { addresses, protocol, transport, ports } of CASES) {
    putError(twinPacket({ ...addresses, protocol, transport }));
    assert.equal(parseQuoted(view, outer, quoted), DropReason.None);
    assert.deepEqual([quoted.sourcePort, quoted.destinationPort], ports);
    assert.equal(quoted.protocol, protocol);
    assert.equal(hashTuple(view, quoted, 3, 4), hashTuple(view, parsed, 3, 4));
    assert.equal(hashReplyTuple(view, quoted, 3, 4), hashReplyTuple(view, parsed, 3, 4));
  }
});

test('a translated quote is the packet as it was before translation, with right checksums', () => {
  for (const { addresses, protocol, transport, ports } of CASES) {
    const isEcho = ports[0] === 77;
    const length = putError(twinPacket({ ...addresses, protocol, transport }));
    assert.equal(parseQuoted(view, outer, quoted), DropReason.None);
    const [source, destination] = addresses === V4 ? ['192.168.7.7', '172.16.0.9'] : ['fd77::7', 'fd99::9'];
    rewriteQuotedSource(view, outer, quoted, memory(source as string), 0, isEcho ? 55 : 4444);
    rewriteQuotedDestination(view, outer, quoted, memory(destination as string), 0, isEcho ? 55 : 5555);
    assert.equal(parsePacket(view, TO, length, outer), DropReason.None);
    assert.equal(verifyTransportChecksum(view, outer), true);
    const inner = arena.get(quoted.offset, quoted.totalLength);
    assert.equal(twinVerify(inner, quoted.headerLength, protocol), true);
    assert.equal(parsePacket(view, quoted.offset, quoted.totalLength, parsed), DropReason.None);
    assert.deepEqual([parsed.sourcePort, parsed.destinationPort], isEcho ? [55, 55] : [4444, 5555]);
  }
});

test('a quote of eight transport bytes is enough', () => {
  const packet = twinPacket({
    ...V4,
    protocol: 6,
    transport: twinTcp({ sourcePort: 1000, destinationPort: 2000 }),
  });
  const message = Uint8Array.from([3, 1, 0, 0, 0, 0, 0, 0, ...packet.slice(0, 28)]);
  const error = twinPacket({ source: '10.9.9.9', destination: '10.0.0.1', protocol: 1, transport: message });
  arena.put(1, error);
  assert.equal(parsePacket(view, TO, error.length, outer), DropReason.None);
  assert.equal(parseQuoted(view, outer, quoted), DropReason.None);
  assert.deepEqual([quoted.sourcePort, quoted.destinationPort], [1000, 2000]);
  rewriteQuotedSource(view, outer, quoted, memory('10.1.1.1'), 0, 3000);
  assert.equal(verifyTransportChecksum(view, outer), true);
});

test('quotes that name no flow are refused', () => {
  const parse = (quote: Uint8Array, type = 3, protocol = 1, damage = false) => {
    const message = Uint8Array.from([type, 1, 0, 0, 0, 0, 0, 0, ...quote]);
    const addresses = protocol === 1 ? V4 : V6;
    const error = twinPacket({ ...addresses, protocol, transport: message });
    if (damage) error[error.length - 1]! ^= 1;
    arena.put(1, error);
    assert.equal(parsePacket(view, TO, error.length, outer), DropReason.None);
    return dropReasonName(parseQuoted(view, outer, quoted));
  };
  const udp = twinPacket({ ...V4, protocol: 17, transport: twinUdp(1, 2, twinBytes(4)) });
  const udp6 = twinPacket({ ...V6, protocol: 17, transport: twinUdp(1, 2, twinBytes(4)) });
  assert.equal(parse(udp), 'none');
  assert.equal(parse(udp6, 1, 58), 'none');
  assert.equal(parse(udp, 3, 1, true), 'bad_transport_checksum');
  assert.equal(parse(udp, 8), 'icmp_unsupported');
  assert.equal(parse(udp, 5), 'icmp_unsupported');
  assert.equal(parse(udp, 13), 'icmp_unsupported');
  assert.equal(parse(udp6, 135, 58), 'icmp_unsupported');
  assert.equal(parse(udp.slice(0, 27)), 'icmp_unrelated');
  assert.equal(parse(new Uint8Array(0)), 'icmp_unrelated');
  assert.equal(parse(udp6), 'icmp_unrelated');
  assert.equal(parse(udp, 1, 58), 'icmp_unrelated');
  assert.equal(parse(udp6.slice(0, 47), 1, 58), 'icmp_unrelated');
  assert.equal(parse(Uint8Array.from([0x4f, ...udp.slice(1)])), 'icmp_unrelated');
  const later = twinPacket({
    ...V4,
    protocol: 17,
    fragment: 4,
    transport: twinBytes(16),
    keepChecksum: true,
  });
  assert.equal(parse(later), 'icmp_unrelated');
  const error = twinPacket({
    ...V4,
    protocol: 1,
    transport: Uint8Array.from([3, 1, 0, 0, 0, 0, 0, 0, ...udp]),
  });
  assert.equal(parse(error), 'icmp_unrelated');
});

test('kinds are the same in both versions, and too-big messages say the MTU', () => {
  const kinds = new Map<number, IcmpKind>([
    [IcmpError.PortUnreachable, IcmpKind.Unreachable],
    [IcmpError.TtlExceeded, IcmpKind.TimeExceeded],
    [IcmpError.PacketTooBig, IcmpKind.PacketTooBig],
  ]);
  for (const addresses of [V4, V6]) {
    for (const [error, kind] of kinds) {
      putError(
        twinPacket({ ...addresses, protocol: 17, transport: twinUdp(1, 2, twinBytes(9)) }),
        error as IcmpError,
      );
      assert.equal(icmpKind(outer), kind);
      assert.equal(isErrorKind(icmpKind(outer)), true);
      if (kind === IcmpKind.PacketTooBig) assert.equal(icmpMtu(view, outer), 1300);
      assert.equal(icmpKind(parsed), IcmpKind.Other);
    }
    put(
      twinPacket({
        ...addresses,
        protocol: addresses === V4 ? 1 : 58,
        transport: twinEcho(addresses === V4 ? 0 : 129, 1, twinBytes(3)),
      }),
    );
    assert.equal(icmpKind(parsed), IcmpKind.EchoReply);
    assert.equal(isErrorKind(IcmpKind.EchoReply), false);
  }
});
