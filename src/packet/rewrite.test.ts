import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { DropReason } from '#base/drop-reason.ts';
import { parseIp } from '#base/ip.ts';

import { finishChecksum, verifyTransportChecksum, writePartialChecksum } from './checksum.ts';
import { ParsedPacket, parsePacket } from './parse.ts';
import { clampMss, decrementTtl, mssForMtu, rewriteDestination, rewriteSource, setTos } from './rewrite.ts';
import { TwinArena, type TwinPacket, twinBytes, twinEcho, twinPacket, twinTcp, twinUdp } from './twin.ts';
import { setNeedsChecksum } from './virtio-header.ts';

const arena = new TwinArena(1, 4096);
const parsed = new ParsedPacket();

function put(packet: Uint8Array): number {
  const at = arena.put(0, packet);
  assert.equal(parsePacket(arena.view, at, packet.length, parsed), DropReason.None);
  return at;
}

function addressView(text: string): DataView {
  return new DataView((parseIp(text) as Uint8Array).slice().buffer);
}

const address4 = fc
  .nat(0xffffffff)
  .map((n) => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255].join('.'));
const address6 = fc
  .array(fc.nat(0xffff), { minLength: 8, maxLength: 8 })
  .map((words) => words.map((word) => word.toString(16)).join(':'));

function transport(protocol: number, ports: [number, number], length: number): Uint8Array {
  const payload = twinBytes(length);
  if (protocol === 6) return twinTcp({ sourcePort: ports[0], destinationPort: ports[1], payload });
  if (protocol === 17) return twinUdp(ports[0], ports[1], payload);
  return twinEcho(protocol === 1 ? 8 : 128, ports[0], payload);
}

test('a rewritten packet equals one that was built with the new addresses and ports', () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.constantFrom('tcp', 'udp', 'echo'),
      fc.tuple(address4, address4, address4, address4),
      fc.tuple(address6, address6, address6, address6),
      fc.array(fc.integer({ min: 1, max: 65535 }), { minLength: 4, maxLength: 4 }),
      fc.nat(60),
      fc.boolean(),
      (isIpv4, kind, four, six, ports, length, isPartial) => {
        const protocol = { tcp: 6, udp: 17, echo: isIpv4 ? 1 : 58 }[kind];
        const [s1, d1, s2, d2] = isIpv4 ? four : six;
        const [a, b, c, d] = ports as [number, number, number, number];
        const [c2, d2port] = kind === 'echo' ? [d, d] : [c, d];
        const before = twinPacket({
          source: s1,
          destination: d1,
          protocol,
          transport: transport(protocol, [a, b], length),
        });
        const after = twinPacket({
          source: s2,
          destination: d2,
          protocol,
          transport: transport(protocol, [c2, d2port], length),
        });
        const at = put(before);
        if (isPartial && protocol !== 1) {
          setNeedsChecksum(arena.view, parsed);
          writePartialChecksum(arena.view, parsed);
        }
        rewriteSource(arena.view, parsed, addressView(s2), 0, c2);
        rewriteDestination(arena.view, parsed, addressView(d2), 0, d2port);
        assert.equal(parsed.sourcePort, c2);
        assert.equal(parsed.destinationPort, d2port);
        finishChecksum(arena.view, at, before.length);
        assert.equal(parsePacket(arena.view, at, before.length, parsed), DropReason.None);
        assert.equal(verifyTransportChecksum(arena.view, parsed), true);
        // Checksums have two zeros; all else must be equal byte for byte.
        arena.view.setUint16(at + (isIpv4 ? 10 : 0), new DataView(after.buffer).getUint16(isIpv4 ? 10 : 0));
        const field = parsed.transportOffset + { tcp: 16, udp: 6, echo: 2 }[kind];
        arena.view.setUint16(field, new DataView(after.buffer).getUint16(field - at));
        assert.deepEqual(arena.get(at, before.length), after);
      },
    ),
    { numRuns: 1000 },
  );
});

const V4 = { source: '10.0.0.1', destination: '10.0.0.2' };
const V6 = { source: 'fd00::1', destination: 'fd00::2' };
const udp: TwinPacket = { ...V4, protocol: 17, transport: twinUdp(5, 6, twinBytes(8)) };

test('a UDP packet without checksum stays without', () => {
  const at = put(twinPacket({ ...udp, keepChecksum: true }));
  rewriteSource(arena.view, parsed, addressView('192.168.1.1'), 0, 99);
  assert.equal(arena.view.getUint16(at + 26), 0);
  assert.equal(parsePacket(arena.view, at, 36, parsed), DropReason.None);
});

test('a later fragment gets new addresses only', () => {
  const packet = twinPacket({ ...udp, fragment: 0x0010 });
  const at = put(packet);
  rewriteSource(arena.view, parsed, addressView('192.168.1.1'), 0, 99);
  assert.deepEqual(arena.get(at + 20, 16), packet.slice(20));
  assert.equal(parsePacket(arena.view, at, packet.length, parsed), DropReason.None);
  assert.equal(arena.view.getInt32(at + 12) >>> 0, 0xc0a80101);
});

test('the TTL goes down to one and no further', () => {
  for (const addresses of [V4, V6]) {
    for (let ttl = 255; ttl > 1; ttl--) {
      const packet = { ...udp, ...addresses };
      const at = put(twinPacket({ ...packet, ttl }));
      assert.equal(decrementTtl(arena.view, parsed), true);
      const expected = twinPacket({ ...packet, ttl: ttl - 1 });
      assert.equal(parsePacket(arena.view, at, expected.length, parsed), DropReason.None);
      assert.equal(parsed.ttl, ttl - 1);
    }
    for (const ttl of [1, 0]) {
      const packet = twinPacket({ ...udp, ...addresses, ttl });
      const at = put(packet);
      assert.equal(decrementTtl(arena.view, parsed), false);
      assert.deepEqual(arena.get(at, packet.length), packet);
    }
  }
});

test('the TOS byte is replaced in both versions', () => {
  for (const addresses of [V4, V6]) {
    const packet = twinPacket({ ...udp, ...addresses, tos: 0xb8 });
    const at = put(packet);
    setTos(arena.view, parsed, 0x03);
    assert.deepEqual(arena.get(at, packet.length), twinPacket({ ...udp, ...addresses, tos: 0x03 }));
  }
});

test('the MSS of a SYN is lowered wherever the option stands, and never raised', () => {
  for (const options of [
    [2, 4, 5, 0xb4],
    [1, 2, 4, 5, 0xb4, 1, 1, 1],
    [4, 2, 1, 2, 4, 5, 0xb4, 0],
    [8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 5, 0xb4, 3, 3, 7, 0, 0, 0],
  ]) {
    for (const addresses of [V4, V6]) {
      const build = (mss: number) => {
        const bytes = Uint8Array.from(options);
        const at = options.indexOf(5, options.indexOf(8) === 0 ? 10 : 0);
        bytes[at] = mss >> 8;
        bytes[at + 1] = mss & 0xff;
        return twinPacket({ ...addresses, protocol: 6, transport: twinTcp({ flags: 2, options: bytes }) });
      };
      const at = put(build(1460));
      assert.equal(clampMss(arena.view, parsed, 1380), true);
      assert.deepEqual(arena.get(at, parsed.totalLength), build(1380));
      assert.equal(clampMss(arena.view, parsed, 1380), false);
      assert.equal(clampMss(arena.view, parsed, 9000), false);
    }
  }
  assert.equal(mssForMtu(1500, 4), 1460);
  assert.equal(mssForMtu(1500, 6), 1440);
});

test('segments without SYN and malformed options are left alone', () => {
  for (const [flags, options] of [
    [0x10, [2, 4, 5, 0xb4]],
    [0x02, [2, 3, 5, 0xb4]],
    [0x02, [2, 8, 5, 0xb4]],
    [0x02, [8, 0, 2, 4]],
    [0x02, [1, 1, 1, 2]],
    [0x02, [0, 2, 4, 5]],
  ] as const) {
    const transport = twinTcp({ flags, options: Uint8Array.from(options) });
    const packet = twinPacket({ ...V4, protocol: 6, transport });
    const at = put(packet);
    assert.equal(clampMss(arena.view, parsed, 100), false);
    assert.deepEqual(arena.get(at, packet.length), packet);
  }
});
