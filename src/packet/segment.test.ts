import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { DropReason } from '#base/drop-reason.ts';

import { verifyTransportChecksum, writePartialChecksum } from './checksum.ts';
import { Coalescer, tryAppend } from './coalesce.ts';
import { ParsedPacket, parsePacket, TcpFlag } from './parse.ts';
import { segmentCount, segmentSize, writeSegment } from './segment.ts';
import { TwinArena, type TwinPacket, twinBytes, twinPacket, twinTcp, twinUdp } from './twin.ts';
import { checkVirtioHeader, GsoType, gsoSize, gsoType, setGso, setNeedsChecksum } from './virtio-header.ts';

const V4 = { source: '10.0.0.1', destination: '10.0.0.2' };
const V6 = { source: 'fd00::1', destination: 'fd00::2' };
const SLOTS = 72;
const arena = new TwinArena(SLOTS, 66000);
const view = arena.view;

function put(slot: number, packet: Uint8Array): ParsedPacket {
  const parsed = new ParsedPacket();
  assert.equal(parsePacket(view, arena.put(slot, packet), packet.length, parsed), DropReason.None);
  return parsed;
}

/** A super-packet in slot 0, as a TUN would deliver it. */
function putSuper(packet: TwinPacket, size: number): ParsedPacket {
  const parsed = put(0, twinPacket(packet));
  const tcp = parsed.version === 4 ? GsoType.Tcp4 : GsoType.Tcp6;
  setGso(view, parsed, parsed.protocol === 6 ? tcp : GsoType.UdpL4, size);
  setNeedsChecksum(view, parsed);
  writePartialChecksum(view, parsed);
  assert.equal(checkVirtioHeader(view, parsed), DropReason.None);
  return parsed;
}

/** The segments' bytes, written into slots 1 and on, each parsed and verified. */
function split(parsed: ParsedPacket, size: number): Uint8Array[] {
  const segments: Uint8Array[] = [];
  const segment = new ParsedPacket();
  for (let index = 0; index < segmentCount(parsed, size); index++) {
    const to = arena.at(1 + (index % (SLOTS - 1)));
    const length = writeSegment(view, parsed, index, size, to);
    assert.equal(parsePacket(view, to, length, segment), DropReason.None);
    assert.equal(verifyTransportChecksum(view, segment), true);
    segments.push(arena.get(to, length));
  }
  return segments;
}

const OPTIONS = Uint8Array.from([1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7]);

test('TCP segments are the packets that the sender would have sent', () => {
  for (const addresses of [V4, V6]) {
    const payload = twinBytes(5000);
    const flags = TcpFlag.Ack | TcpFlag.Psh | TcpFlag.Fin | TcpFlag.Cwr;
    const fields = { flags, options: OPTIONS, sequence: 0xfffffff0, acknowledgement: 77, payload };
    const ip = { ...addresses, protocol: 6, ttl: 60, tos: 2, id: 0xfffe };
    const parsed = putSuper({ ...ip, transport: twinTcp(fields) }, 1448);
    const expected = [0, 1448, 2896, 4344].map((start, index) => {
      const isLast = index === 3;
      const kept = (isLast ? flags : TcpFlag.Ack | TcpFlag.Cwr) & (index === 0 ? 0xff : ~TcpFlag.Cwr);
      const transport = twinTcp({
        ...fields,
        flags: kept,
        sequence: (fields.sequence + start) >>> 0,
        payload: payload.slice(start, start + 1448),
      });
      return twinPacket({ ...ip, id: (ip.id + index) & 0xffff, transport });
    });
    assert.deepEqual(split(parsed, 1448), expected);
  }
});

test('UDP segments are datagrams of the chosen size, the last may be shorter', () => {
  for (const addresses of [V4, V6]) {
    const payload = twinBytes(2500);
    const ip = { ...addresses, protocol: 17, id: 5 };
    const parsed = putSuper({ ...ip, transport: twinUdp(7, 8, payload) }, 1000);
    const expected = [0, 1000, 2000].map((start, index) =>
      twinPacket({ ...ip, id: 5 + index, transport: twinUdp(7, 8, payload.slice(start, start + 1000)) }),
    );
    assert.deepEqual(split(parsed, 1000), expected);
  }
});

test('the segment size follows the narrower of sender and way out; datagrams are never cut', () => {
  const tcp = putSuper({ ...V4, protocol: 6, transport: twinTcp({ payload: twinBytes(9000) }) }, 1460);
  assert.equal(segmentSize(view, tcp, 1500), 1460);
  assert.equal(segmentSize(view, tcp, 65535), 1460);
  assert.equal(segmentSize(view, tcp, 1280), 1240);
  assert.equal(segmentSize(view, tcp, 60), 0);
  assert.equal(segmentCount(tcp, 1240), 8);
  const udp = putSuper({ ...V6, protocol: 17, transport: twinUdp(7, 8, twinBytes(2500)) }, 1000);
  assert.equal(segmentSize(view, udp, 1048), 1000);
  assert.equal(segmentSize(view, udp, 1047), 0);
  const plain = put(0, twinPacket({ ...V4, protocol: 6, transport: twinTcp({ payload: twinBytes(4000) }) }));
  assert.equal(segmentSize(view, plain, 1500), 1460);
  const empty = put(0, twinPacket({ ...V4, protocol: 6, transport: twinTcp({}) }));
  assert.equal(segmentCount(empty, 1460), 1);
});

test('splitting and joining again gives the super-packet back', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(V4, V6),
      fc.boolean(),
      fc.integer({ min: 48, max: 1448 }),
      fc.integer({ min: 2, max: 64 }),
      fc.nat(1447),
      fc.boolean(),
      fc.boolean(),
      (addresses, isTcp, size, count, missing, isPushed, isDontFragment) => {
        // Far enough below 65535 that a full segment more would fit, or the coalescer closes early.
        const payload = twinBytes(Math.min(Math.max(size * count - (missing % size), size + 1), 64000));
        const flags = TcpFlag.Ack | (isPushed ? TcpFlag.Psh : 0);
        const packet = {
          ...addresses,
          protocol: isTcp ? 6 : 17,
          id: 65530,
          fragment: isDontFragment ? 0x4000 : 0,
          transport: isTcp ? twinTcp({ flags, options: OPTIONS, payload }) : twinUdp(7, 8, payload),
        };
        const whole = putSuper(packet, size);
        const expected = arena.get(whole.offset - 10, whole.totalLength + 10);
        const segments = split(whole, size);
        const out: [number, number][] = [];
        const sink = { onPacket: (offset: number, length: number) => out.push([offset, length]) };
        const coalescer = new Coalescer(view, sink, { udp: true });
        segments.forEach((segment, index) => {
          assert.equal(coalescer.push(put(1 + index, segment), 3), index > 0);
        });
        coalescer.flush();
        assert.equal(coalescer.held, 0);
        assert.equal(out.length, 1);
        const [offset, length] = out[0]!;
        assert.deepEqual(arena.get(offset - 10, length + 10), expected);
      },
    ),
    { numRuns: 150 },
  );
});

/** Two TCP packets, the second changed; whether they join. */
function joins(next: Partial<TwinPacket>, fields: Parameters<typeof twinTcp>[0], damage = 0): boolean {
  const first = { sequence: 100, payload: twinBytes(100), options: OPTIONS };
  const ip = { ...V4, protocol: 6, id: 1, fragment: 0 };
  const head = put(0, twinPacket({ ...ip, transport: twinTcp(first) }));
  const transport = twinTcp({ ...first, sequence: 200, ...fields });
  const packet = twinPacket({ ...ip, id: 2, transport, ...next });
  if (damage > 0) packet[damage] = packet[damage]! ^ 1;
  const before = arena.get(head.offset - 10, head.totalLength + 10);
  const isJoined = tryAppend(view, head, put(1, packet));
  if (!isJoined) assert.deepEqual(arena.get(head.offset - 10, before.length), before);
  return isJoined;
}

test('only a packet that continues the other is joined', () => {
  assert.equal(joins({}, {}), true);
  assert.equal(joins({}, { flags: TcpFlag.Ack | TcpFlag.Psh }), true);
  assert.equal(joins({}, { payload: twinBytes(99) }), true);
  assert.equal(joins({}, { payload: twinBytes(101) }), false, 'longer');
  assert.equal(joins({}, { payload: new Uint8Array(0) }), false, 'no data');
  assert.equal(joins({}, { sequence: 201 }), false, 'gap');
  assert.equal(joins({}, { sequence: 100 }), false, 'again');
  assert.equal(joins({}, { acknowledgement: 5 }), false);
  assert.equal(joins({}, { window: 513 }), false);
  assert.equal(joins({}, { sourcePort: 9 }), false);
  assert.equal(joins({}, { destinationPort: 9 }), false);
  assert.equal(joins({}, { options: OPTIONS.slice().fill(9, 11) }), false);
  assert.equal(joins({}, { options: OPTIONS.slice(0, 8).fill(1) }), false);
  for (const flags of [TcpFlag.Fin, TcpFlag.Urg, TcpFlag.Ece, TcpFlag.Cwr]) {
    assert.equal(joins({}, { flags: TcpFlag.Ack | flags }), false, `flags ${flags}`);
  }
  assert.equal(joins({}, { flags: TcpFlag.Rst }), false);
  assert.equal(joins({ source: '10.0.0.3' }, {}), false);
  assert.equal(joins({ destination: '10.0.0.3' }, {}), false);
  assert.equal(joins({ ttl: 63 }, {}), false);
  assert.equal(joins({ tos: 3 }, {}), false);
  assert.equal(joins({ id: 3 }, {}), false);
  assert.equal(joins({ fragment: 0x4000 }, {}), false);
  assert.equal(joins({ ipOptions: Uint8Array.from([1, 1, 1, 1]) }, {}), false);
  assert.equal(joins({}, {}, 60), false, 'damaged data');
});

test('a damaged first packet is never given a right checksum', () => {
  const packet = twinPacket({
    ...V4,
    protocol: 6,
    transport: twinTcp({ sequence: 1, payload: twinBytes(100) }),
  });
  packet[70] = packet[70]! ^ 1;
  const head = put(0, packet);
  const next = put(
    1,
    twinPacket({ ...V4, protocol: 6, transport: twinTcp({ sequence: 101, payload: twinBytes(100) }) }),
  );
  assert.equal(tryAppend(view, head, next), false);
});

test('flows that alternate are joined each, in order, and tags are kept apart', () => {
  const out: { length: number; tag: number; type: number }[] = [];
  const sink = {
    onPacket: (offset: number, length: number, tag: number) =>
      out.push({ length, tag, type: gsoType(view, offset) }),
  };
  const coalescer = new Coalescer(view, sink);
  let slot = 0;
  const push = (port: number, sequence: number, tag: number, flags: number = TcpFlag.Ack) => {
    const transport = twinTcp({ sourcePort: port, sequence, flags, payload: twinBytes(100) });
    return coalescer.push(put(slot++, twinPacket({ ...V4, protocol: 6, transport })), tag);
  };
  for (let i = 0; i < 4; i++) {
    assert.equal(push(1, i * 100, 5), i > 0);
    assert.equal(push(2, i * 100, 5), i > 0);
    assert.equal(push(1, 1000 + i * 100, 6), i > 0);
  }
  // A FIN must not overtake the data before it.
  assert.equal(push(2, 400, 5, TcpFlag.Ack | TcpFlag.Fin), false);
  assert.deepEqual(out, [
    { length: 440, tag: 5, type: GsoType.Tcp4 },
    { length: 140, tag: 5, type: GsoType.None },
  ]);
  coalescer.flush();
  assert.deepEqual(
    out.slice(2).map(({ tag }) => tag),
    [5, 6],
  );
});

test('more flows than can be open push out the oldest; datagrams are joined only where wanted', () => {
  const out: number[] = [];
  const coalescer = new Coalescer(view, { onPacket: (_offset, _length, tag) => out.push(tag) });
  for (let flow = 0; flow < 10; flow++) {
    const transport = twinTcp({ sourcePort: 1 + flow, payload: twinBytes(100) });
    coalescer.push(put(flow, twinPacket({ ...V4, protocol: 6, transport })), flow);
  }
  assert.deepEqual(out, [0, 1]);
  assert.equal(coalescer.held, 8);
  coalescer.push(put(20, twinPacket({ ...V4, protocol: 17, transport: twinUdp(1, 2, twinBytes(100)) })), 99);
  assert.deepEqual(out, [0, 1, 99]);
  coalescer.flush();
  assert.deepEqual(out, [0, 1, 99, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test('a super-packet never outgrows its slot', () => {
  const lengths: number[] = [];
  const sink = {
    onPacket: (offset: number, length: number) => {
      lengths.push(length);
      assert.ok(gsoType(view, offset) === 0 || gsoSize(view, offset) === 700);
    },
  };
  const coalescer = new Coalescer(view, sink, { lengthMax: 2048 });
  for (let i = 0; i < 7; i++) {
    const transport = twinTcp({ sequence: i * 700, payload: twinBytes(700) });
    coalescer.push(put(i, twinPacket({ ...V4, protocol: 6, transport })), 0);
  }
  coalescer.flush();
  assert.deepEqual(lengths, [1440, 1440, 1440, 740]);
});
