import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { parseIp } from '#base/ip.ts';

import { formatAddressAt } from './address.ts';
import {
  IcmpError,
  PacketEndpoints,
  udpHeadersLength,
  writeEchoReply,
  writeIcmpError,
  writeTcpReset,
  writeUdpHeaders,
} from './build.ts';
import { verifyTransportChecksum } from './checksum.ts';
import { ParsedPacket, parsePacket, TcpFlag } from './parse.ts';
import { TwinArena, twinBytes, twinEcho, twinPacket, twinTcp, twinUdp } from './twin.ts';

const V4 = { source: '10.0.0.1', destination: '10.0.0.2' };
const V6 = { source: 'fd00::1', destination: 'fd00::2' };
const BOTH = [V4, V6];
const arena = new TwinArena(2, 70000);
const parsed = new ParsedPacket();
const answer = new ParsedPacket();
const TO = arena.at(1);

function put(packet: Uint8Array): number {
  const at = arena.put(0, packet);
  assert.equal(parsePacket(arena.view, at, packet.length, parsed), DropReason.None);
  return at;
}

/** Parses what was written to slot 1 and checks its checksum and direction. */
function checkAnswer(length: number, at = TO): void {
  assert.equal(parsePacket(arena.view, at, length, answer), DropReason.None);
  assert.equal(verifyTransportChecksum(arena.view, answer), true);
  assert.deepEqual([...arena.get(at - 10, 10)], new Array(10).fill(0));
}

const swap = (addresses: { source: string; destination: string }) => ({
  source: addresses.destination,
  destination: addresses.source,
});

test('UDP headers before a payload give the packet of the simple twin', () => {
  const endpoints = new PacketEndpoints();
  for (const addresses of BOTH) {
    const memory = Uint8Array.from([...parseIp(addresses.source)!, ...parseIp(addresses.destination)!]);
    endpoints.view = new DataView(memory.buffer);
    endpoints.version = memory.length === 8 ? 4 : 6;
    endpoints.destinationOffset = memory.length / 2;
    endpoints.sourcePort = 53;
    endpoints.destinationPort = 50000;
    for (const length of [0, 1, 511, 1400]) {
      const payload = twinBytes(length, length);
      arena.bytes.set(payload, TO + udpHeadersLength(endpoints.version));
      const written = writeUdpHeaders(arena.view, TO, length, endpoints);
      const expected = twinPacket({ ...addresses, protocol: 17, transport: twinUdp(53, 50000, payload) });
      assert.deepEqual(arena.get(TO, written), expected);
      checkAnswer(written);
    }
  }
});

test('a reset answers a SYN by acknowledging it', () => {
  for (const addresses of BOTH) {
    const transport = twinTcp({
      flags: TcpFlag.Syn,
      sequence: 0xffffffff,
      sourcePort: 1000,
      destinationPort: 22,
    });
    put(twinPacket({ ...addresses, protocol: 6, transport }));
    const length = writeTcpReset(arena.view, parsed, TO);
    checkAnswer(length);
    const expected = twinTcp({
      ...{ sourcePort: 22, destinationPort: 1000, sequence: 0, acknowledgement: 0, window: 0 },
      flags: TcpFlag.Rst | TcpFlag.Ack,
    });
    assert.deepEqual(
      arena.get(TO, length),
      twinPacket({ ...swap(addresses), protocol: 6, transport: expected }),
    );
  }
});

test('a reset continues at the acknowledgement, counts data and FIN, and never answers a reset', () => {
  const reset = (fields: Parameters<typeof twinTcp>[0]) => {
    put(twinPacket({ ...V4, protocol: 6, transport: twinTcp(fields) }));
    const length = writeTcpReset(arena.view, parsed, TO);
    if (length === 0) return null;
    checkAnswer(length);
    const view = arena.view;
    return {
      sequence: view.getUint32(TO + 24),
      acknowledgement: view.getUint32(TO + 28),
      flags: answer.tcpFlags,
    };
  };
  const payload = twinBytes(100);
  assert.deepEqual(reset({ flags: 0x18, sequence: 7, acknowledgement: 4000000000, payload }), {
    sequence: 4000000000,
    acknowledgement: 0,
    flags: TcpFlag.Rst,
  });
  assert.equal(reset({ flags: 0x02, sequence: 7, payload })?.acknowledgement, 108);
  assert.equal(reset({ flags: 0x04 }), null);
  assert.equal(reset({ flags: 0x14 }), null);
  put(twinPacket({ ...V4, protocol: 17, transport: twinUdp(1, 2, payload) }));
  assert.equal(writeTcpReset(arena.view, parsed, TO), 0);
});

test('ICMP errors carry type, code, the quoted packet and a right checksum', () => {
  const expected = new Map<number, [number, number, number, number]>([
    [IcmpError.NetworkUnreachable, [3, 0, 1, 0]],
    [IcmpError.HostUnreachable, [3, 1, 1, 3]],
    [IcmpError.PortUnreachable, [3, 3, 1, 4]],
    [IcmpError.AdminProhibited, [3, 13, 1, 1]],
    [IcmpError.TtlExceeded, [11, 0, 3, 0]],
    [IcmpError.ReassemblyTimeExceeded, [11, 1, 3, 1]],
    [IcmpError.PacketTooBig, [3, 4, 2, 0]],
    [IcmpError.ProtocolUnreachable, [3, 2, 4, 1]],
  ]);
  for (const addresses of BOTH) {
    const packet = twinPacket({ ...addresses, protocol: 17, transport: twinUdp(1, 2, twinBytes(40)) });
    for (const [error, [type4, code4, type6, code6]] of expected) {
      const at = put(packet);
      const length = writeIcmpError(arena.view, parsed, TO, error as IcmpError, { mtu: 1400 });
      checkAnswer(length);
      assert.deepEqual(
        [answer.icmpType, answer.icmpCode],
        addresses === V4 ? [type4, code4] : [type6, code6],
      );
      assert.deepEqual(arena.get(answer.payloadOffset, packet.length), packet);
      assert.equal(answer.payloadLength, packet.length);
      if (error === IcmpError.PacketTooBig) {
        assert.equal(arena.view.getUint32(answer.transportOffset + 4), 1400);
      }
      assert.equal(formatAddressAt(arena.view, answer.addressOffset, answer.version), addresses.destination);
      assert.deepEqual(arena.get(at, packet.length), packet);
    }
  }
});

test('an error comes from the reporter and quotes no more than fits 576 or 1280 bytes', () => {
  for (const [addresses, most, reporter] of [
    [V4, 576, '192.0.2.9'],
    [V6, 1280, '2001:db8::9'],
  ] as const) {
    put(twinPacket({ ...addresses, protocol: 17, transport: twinUdp(1, 2, twinBytes(3000)) }));
    const options = { reporter: parseIp(reporter) as Uint8Array };
    const length = writeIcmpError(arena.view, parsed, TO, IcmpError.TtlExceeded, options);
    assert.equal(length, most);
    checkAnswer(length);
    assert.equal(formatAddressAt(arena.view, answer.addressOffset, answer.version), reporter);
  }
});

test('no error about errors, later fragments, multicast, broadcast or unanswerable sources', () => {
  const refused = (packet: Uint8Array) => {
    put(packet);
    return writeIcmpError(arena.view, parsed, TO, IcmpError.HostUnreachable) === 0;
  };
  const udp = { ...V4, protocol: 17, transport: twinUdp(1, 2, twinBytes(16)) };
  const error4 = Uint8Array.from([3, 1, 0, 0, 0, 0, 0, 0, ...twinBytes(28)]);
  const error6 = Uint8Array.from([1, 1, 0, 0, 0, 0, 0, 0, ...twinBytes(48)]);
  assert.equal(refused(twinPacket(udp)), false);
  assert.equal(refused(twinPacket({ ...V4, protocol: 1, transport: twinEcho(8, 1, twinBytes(8)) })), false);
  assert.equal(refused(twinPacket({ ...V4, protocol: 1, transport: error4 })), true);
  assert.equal(refused(twinPacket({ ...V6, protocol: 58, transport: error6 })), true);
  assert.equal(refused(twinPacket({ ...udp, fragment: 4 })), true);
  for (const destination of ['224.0.0.1', '255.255.255.255']) {
    assert.equal(refused(twinPacket({ ...udp, destination })), true, destination);
  }
  for (const source of ['0.0.0.0', '127.0.0.1', '239.1.1.1', '255.255.255.255']) {
    assert.equal(refused(twinPacket({ ...udp, source })), true, source);
  }
  assert.equal(refused(twinPacket({ ...udp, ...V6, destination: 'ff02::1' })), true);
  assert.equal(refused(twinPacket({ ...udp, ...V6, source: '::' })), true);
});

test('an echo reply has the same identifier, sequence and data, in place or elsewhere', () => {
  for (const [addresses, protocol, request, reply] of [
    [V4, 1, 8, 0],
    [V6, 58, 128, 129],
  ] as const) {
    const packet = twinPacket({ ...addresses, protocol, transport: twinEcho(request, 7, twinBytes(57)) });
    const expected = twinPacket({
      ...swap(addresses),
      protocol,
      transport: twinEcho(reply, 7, twinBytes(57)),
    });
    put(packet);
    const length = writeEchoReply(arena.view, parsed, TO);
    assert.deepEqual(arena.get(TO, length), expected);
    const at = put(packet);
    assert.equal(writeEchoReply(arena.view, parsed, at), length);
    assert.deepEqual(arena.get(at, length), expected);
    checkAnswer(length, at);
    put(expected);
    assert.equal(writeEchoReply(arena.view, parsed, TO), 0);
  }
});

test('an echo reply leaves the request options behind', () => {
  const ipOptions = Uint8Array.from([7, 4, 4, 0]);
  const transport = twinEcho(8, 7, twinBytes(8));
  put(twinPacket({ ...V4, protocol: 1, transport, ipOptions }));
  const length = writeEchoReply(arena.view, parsed, TO);
  checkAnswer(length);
  assert.equal(answer.headerLength, 20);
});
