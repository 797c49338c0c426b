import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { DropReason, dropReasonName } from '#base/drop-reason.ts';

import { verifyTransportChecksum } from './checksum.ts';
import { fragmentCount, writeFragment } from './fragment.ts';
import { ParsedPacket, parsePacket } from './parse.ts';
import { Reassembler } from './reassemble.ts';
import { TwinArena, type TwinPacket, twinBytes, twinPacket, twinUdp } from './twin.ts';

const V4 = { source: '10.0.0.1', destination: '10.0.0.2' };
const V6 = { source: 'fd00::1', destination: 'fd00::2' };
const arena = new TwinArena(2, 66000);
const view = arena.view;
const parsed = new ParsedPacket();
const TO = arena.at(1);

function put(packet: Uint8Array): ParsedPacket {
  const reason = parsePacket(view, arena.put(0, packet), packet.length, parsed);
  assert.equal(dropReasonName(reason), 'none');
  return parsed;
}

/** Adds a fragment; the whole packet's bytes, null while waiting, or the reason's name. */
function add(
  reassembler: Reassembler,
  fragment: Uint8Array,
  network = 1,
  now = 0,
): Uint8Array | string | null {
  const result = reassembler.add(view, put(fragment), network, now, TO);
  if (result < 0) return dropReasonName(-result);
  if (result === 0) return null;
  assert.equal(parsePacket(view, TO, result, parsed), DropReason.None);
  return arena.get(TO, result);
}

/** IPv4 fragments as this project cuts them. */
function cut(packet: Uint8Array, mtu: number): Uint8Array[] {
  put(packet);
  const whole = new ParsedPacket();
  whole.copyFrom(parsed);
  const fragments: Uint8Array[] = [];
  for (let index = 0; index < fragmentCount(whole, mtu); index++) {
    const length = writeFragment(view, whole, index, mtu, TO);
    assert.ok(length <= mtu);
    fragments.push(arena.get(TO, length));
  }
  return fragments;
}

/** One IPv6 fragment of `transport`. */
function fragment6(transport: Uint8Array, start: number, end: number, more: boolean, id = 7): Uint8Array {
  const word = start | (more ? 1 : 0);
  const header = [17, 0, word >> 8, word & 0xff, 0, 0, id >> 8, id & 0xff];
  return twinPacket({
    ...V6,
    protocol: 17,
    firstHeader: 44,
    extensions: Uint8Array.from(header),
    transport: transport.slice(start, end),
    keepChecksum: true,
  });
}

const udp4 = (length: number, id = 9): TwinPacket => ({
  ...V4,
  protocol: 17,
  id,
  fragment: 0,
  transport: twinUdp(5, 6, twinBytes(length, id)),
});

test('a packet that is cut and put together again in any order is the same packet', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1600, max: 9000 }),
      fc.integer({ min: 100, max: 1500 }),
      fc.infiniteStream(fc.nat(1000)),
      fc.boolean(),
      (length, mtu, order, hasOptions) => {
        const ipOptions = hasOptions ? Uint8Array.from([148, 4, 0, 0]) : new Uint8Array(0);
        const packet = twinPacket({ ...udp4(length), ipOptions });
        const fragments = cut(packet, mtu);
        const shuffled = fragments
          .map((fragment) => ({ fragment, at: order.next().value as number }))
          .sort((a, b) => a.at - b.at);
        const reassembler = new Reassembler();
        let whole: Uint8Array | string | null = null;
        shuffled.forEach(({ fragment }, index) => {
          whole = add(reassembler, fragment);
          assert.equal(whole !== null, index === fragments.length - 1);
        });
        assert.deepEqual(whole, packet);
        assert.equal(verifyTransportChecksum(view, parsed), true);
        assert.equal(reassembler.bytes, 0);
        assert.equal(reassembler.datagrams, 0);
      },
    ),
    { numRuns: 100 },
  );
});

test('fragments are the packets that RFC 791 asks for', () => {
  const ipOptions = Uint8Array.from([7, 4, 4, 0, 148, 4, 0, 0]);
  const packet = udp4(100);
  const transport = twinPacket({ ...packet, ipOptions }).slice(28);
  const nop = Uint8Array.from([1, 1, 1, 1, 148, 4, 0, 0]);
  const expected = [
    twinPacket({
      ...packet,
      keepChecksum: true,
      ipOptions,
      fragment: 0x2000,
      transport: transport.slice(0, 48),
    }),
    twinPacket({
      ...{ ...packet, keepChecksum: true, ipOptions: nop },
      ...{ fragment: 0x2006, transport: transport.slice(48, 96) },
    }),
    twinPacket({
      ...packet,
      keepChecksum: true,
      ipOptions: nop,
      fragment: 12,
      transport: transport.slice(96),
    }),
  ];
  assert.deepEqual(cut(twinPacket({ ...packet, ipOptions }), 80), expected);
});

test('a fragment can be cut further, and packets with DF or IPv6 cannot', () => {
  const packet = twinPacket(udp4(3000));
  const [first, second] = cut(packet, 1500) as [Uint8Array, Uint8Array];
  const reassembler = new Reassembler();
  const pieces = [...cut(first, 600), ...cut(second, 600), ...cut(cut(packet, 1500)[2] as Uint8Array, 600)];
  assert.deepEqual(pieces.map((piece) => add(reassembler, piece)).at(-1), packet);
  assert.equal(fragmentCount(put(twinPacket({ ...udp4(3000), fragment: 0x4000 })), 1500), 0);
  assert.equal(fragmentCount(put(twinPacket({ ...udp4(3000), ...V6 })), 1500), 0);
  assert.equal(fragmentCount(put(packet), 3028), 1);
});

test('IPv6 fragments become a packet without fragment header', () => {
  const whole = twinPacket({ ...V6, protocol: 17, transport: twinUdp(5, 6, twinBytes(2000)) });
  const transport = whole.slice(40);
  const reassembler = new Reassembler();
  assert.equal(add(reassembler, fragment6(transport, 1000, 2008, false)), null);
  assert.deepEqual(add(reassembler, fragment6(transport, 0, 1000, true)), whole);
});

test('IPv6 extension headers before and behind the fragment header stay', () => {
  const transport = twinUdp(5, 6, twinBytes(24));
  const pad = [1, 4, 0, 0, 0, 0];
  const whole = twinPacket({
    ...{ ...V6, protocol: 17, transport, firstHeader: 60 },
    extensions: Uint8Array.from([60, 0, ...pad, 17, 0, ...pad]),
  });
  const data = whole.slice(48);
  const piece = (start: number, end: number, more: number) =>
    twinPacket({
      ...{ ...V6, protocol: 17, firstHeader: 60, keepChecksum: true },
      extensions: Uint8Array.from([44, 0, ...pad, 60, 0, 0, start | more, 0, 0, 0, 1]),
      transport: data.slice(start, end),
    });
  const reassembler = new Reassembler();
  assert.equal(add(reassembler, piece(0, 24, 1)), null);
  assert.deepEqual(add(reassembler, piece(24, 40, 0)), whole);
});

test('fragments of other networks, protocols, identifications and addresses never meet', () => {
  const fragments = cut(twinPacket(udp4(100)), 84);
  const reassembler = new Reassembler();
  assert.equal(add(reassembler, fragments[0]!, 1), null);
  assert.equal(add(reassembler, fragments[1]!, 2), null);
  const transport = twinBytes(44);
  for (const other of [
    { ...V4, protocol: 47, id: 9, fragment: 8, transport },
    { ...V4, protocol: 17, id: 10, fragment: 8, transport, keepChecksum: true },
    { ...V4, source: '10.0.0.9', protocol: 17, id: 9, fragment: 8, transport, keepChecksum: true },
    { ...V4, destination: '10.0.0.9', protocol: 17, id: 9, fragment: 8, transport, keepChecksum: true },
  ]) {
    assert.equal(add(reassembler, twinPacket(other)), null);
  }
  assert.equal(reassembler.datagrams, 6);
  assert.notEqual(add(reassembler, fragments[1]!, 1), null);
  reassembler.forgetNetwork(1);
  assert.equal(reassembler.datagrams, 1);
  reassembler.forgetNetwork(2);
  assert.equal(reassembler.bytes, 0);
});

test('overlapping fragments condemn their datagram, also what comes later; repeated ones do not', () => {
  const transport = twinPacket({ ...V6, protocol: 17, transport: twinUdp(5, 6, twinBytes(92)) }).slice(40);
  const overlaps: [number, number, boolean][] = [
    [8, 24, true],
    [0, 24, true],
    [40, 64, true],
    [16, 100, false],
    [24, 32, false],
  ];
  for (const [start, end, more] of overlaps) {
    const reassembler = new Reassembler();
    assert.equal(add(reassembler, fragment6(transport, 16, 48, true)), null);
    assert.equal(add(reassembler, fragment6(transport, 16, 48, true)), null, 'repeated');
    assert.equal(add(reassembler, fragment6(transport, start, end, more)), 'fragment_overlap', `${start}`);
    assert.equal(add(reassembler, fragment6(transport, 48, 100, false)), 'fragment_overlap');
    assert.equal(add(reassembler, fragment6(transport, 0, 16, true)), 'fragment_overlap');
    assert.equal(reassembler.droppedFragments[DropReason.FragmentOverlap], 1);
    assert.equal(reassembler.expire(30_000), 1);
    assert.equal(reassembler.bytes, 0);
  }
});

test('data past the last fragment, or two ends, condemn the datagram', () => {
  const transport = twinBytes(100);
  const past = new Reassembler();
  assert.equal(add(past, fragment6(transport, 16, 40, false)), null);
  assert.equal(add(past, fragment6(transport, 40, 64, true)), 'fragment_overlap');
  const ends = new Reassembler();
  assert.equal(add(ends, fragment6(transport, 16, 40, false)), null);
  assert.equal(add(ends, fragment6(transport, 48, 64, false)), 'fragment_overlap');
});

test('what stays incomplete is dropped after the timeout', () => {
  const reassembler = new Reassembler({ timeoutMs: 1000 });
  const [first, second] = cut(twinPacket(udp4(100)), 84) as [Uint8Array, Uint8Array];
  assert.equal(add(reassembler, first, 1, 0), null);
  assert.equal(reassembler.expire(999), 0);
  assert.equal(reassembler.datagrams, 1);
  assert.equal(add(reassembler, second, 1, 1000), null, 'a new datagram');
  assert.equal(reassembler.datagrams, 1);
  assert.equal(reassembler.droppedFragments[DropReason.ReassemblyTimeout], 1);
});

test('a packet that would be longer than a packet can be is refused', () => {
  const transport = twinBytes(65535);
  const reassembler = new Reassembler();
  const size = 16000;
  for (let start = 0; start + size < 65520; start += size) {
    const ip = { ...V4, protocol: 47, transport: transport.slice(start, start + size) };
    assert.equal(add(reassembler, twinPacket({ ...ip, fragment: 0x2000 | (start / 8) })), null);
  }
  const ip = { ...V4, protocol: 47, transport: transport.slice(64000, 65530) };
  assert.equal(add(reassembler, twinPacket({ ...ip, fragment: 8000 })), 'packet_too_long');
});

test('congestion marks are carried over, and marks that contradict are refused', () => {
  const whole = (tos: number[]) => {
    const reassembler = new Reassembler();
    const transport = twinUdp(5, 6, twinBytes(24));
    add(
      reassembler,
      twinPacket({
        ...udp4(24),
        keepChecksum: true,
        fragment: 0x2000,
        transport: transport.slice(0, 16),
        tos: tos[0]!,
      }),
    );
    const last = {
      ...udp4(24),
      keepChecksum: true,
      fragment: 2,
      transport: transport.slice(16),
      tos: tos[1]!,
    };
    const result = add(reassembler, twinPacket(last));
    return result instanceof Uint8Array ? result[1] : result;
  };
  assert.equal(whole([0xb8, 0xb8]), 0xb8);
  assert.equal(whole([0xba, 0xbb]), 0xbb);
  assert.equal(whole([0xbb, 0xba]), 0xbb);
  assert.equal(whole([0xb9, 0xb9]), 0xb9);
  assert.equal(whole([0xb8, 0xbb]), 'bad_fragment');
});

test('the fullest network pays when memory is short, and no limit is passed', () => {
  const reassembler = new Reassembler({ bytesMax: 20_000, networkBytesMax: 16_000, datagramsMax: 12 });
  const part = (id: number) => cut(twinPacket(udp4(2000, id)), 1500)[0] as Uint8Array;
  for (let id = 0; id < 5; id++) assert.equal(add(reassembler, part(id), 1), null);
  assert.equal(add(reassembler, part(100), 2), null);
  const victim = cut(twinPacket(udp4(2000, 100)), 1500);
  for (let id = 5; id < 60; id++) {
    assert.equal(add(reassembler, part(id), 1), null);
    assert.ok(reassembler.bytes <= 20_000 && reassembler.datagrams <= 12);
  }
  assert.ok((reassembler.droppedFragments[DropReason.ReassemblyFull] as number) > 0);
  // The small network still has its fragment.
  assert.ok(add(reassembler, victim[1] as Uint8Array, 2) instanceof Uint8Array);
});

test('too many fragments, and a datagram larger than its share, are refused', () => {
  const few = new Reassembler({ fragmentsMax: 3 });
  const pieces = cut(twinPacket(udp4(400)), 84);
  assert.deepEqual(
    pieces.slice(0, 5).map((piece) => add(few, piece)),
    [null, null, null, 'reassembly_full', 'fragment_overlap'],
  );
  const small = new Reassembler({ networkBytesMax: 2000 });
  const large = cut(twinPacket(udp4(4000)), 1500);
  assert.deepEqual(
    large.map((piece) => add(small, piece)),
    [null, 'reassembly_full', 'reassembly_full'],
  );
});
