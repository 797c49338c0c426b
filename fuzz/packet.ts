/**
 * Fuzzers of `src/packet` and `src/protocol/gue`: parsing is total, changes keep packets valid, memory is
 * bounded.
 */
import assert from 'node:assert/strict';

import { DropReason } from '#base/drop-reason.ts';
import { type IcmpError, writeEchoReply, writeIcmpError, writeTcpReset } from '#packet/build.ts';
import { finishChecksum, verifyTransportChecksum, writePartialChecksum } from '#packet/checksum.ts';
import { Coalescer } from '#packet/coalesce.ts';
import { fragmentCount, writeFragment } from '#packet/fragment.ts';
import { parseQuoted, rewriteQuotedDestination, rewriteQuotedSource } from '#packet/icmp.ts';
import { FragmentKind, ParsedPacket, parsePacket } from '#packet/parse.ts';
import { Reassembler } from '#packet/reassemble.ts';
import { clampMss, decrementTtl, rewriteDestination, rewriteSource, setTos } from '#packet/rewrite.ts';
import { segmentCount, segmentSize, writeSegment } from '#packet/segment.ts';
import {
  TwinArena,
  type TwinPacket,
  twinEcho,
  twinPacket,
  twinTcp,
  twinUdp,
  twinVerify,
} from '#packet/twin.ts';
import { GsoType, setGso, setNeedsChecksum } from '#packet/virtio-header.ts';
import { GueHeader, readGueHeader } from '#protocol/gue/gue.ts';

import { type Chance, fuzzMain } from './fuzz.ts';

const arena = new TwinArena(4, 70000);
const view = arena.view;
const parsed = new ParsedPacket();
const other = new ParsedPacket();
const third = new ParsedPacket();

function address(chance: Chance, isIpv4: boolean): string {
  if (isIpv4) return `10.${chance.below(256)}.${chance.below(256)}.${chance.between(1, 254)}`;
  return `fd00::${chance.below(65536).toString(16)}:${chance.between(1, 65535).toString(16)}`;
}

/** A valid packet of any kind. */
function validPacket(chance: Chance, payloadMax = 200): Uint8Array {
  const isIpv4 = chance.oneIn(2);
  const payload = chance.bytes(chance.below(payloadMax));
  const port = () => chance.between(1, 65535);
  const [protocol, transport] = chance.pick<() => [number, Uint8Array]>([
    () => [6, tcp(chance, payload)],
    () => [17, twinUdp(port(), port(), payload)],
    () =>
      isIpv4
        ? [1, twinEcho(chance.pick([0, 8]), port(), payload)]
        : [58, twinEcho(chance.pick([128, 129]), port(), payload)],
    () => (isIpv4 ? [1, quoting(chance, 3)] : [58, quoting(chance, 1)]),
    () => [47, payload],
  ])();
  const packet: TwinPacket = {
    source: address(chance, isIpv4),
    destination: address(chance, isIpv4),
    protocol,
    transport,
    ttl: chance.below(256),
    tos: chance.below(256),
    id: chance.below(65536),
    fragment: chance.pick([0, 0x4000]),
  };
  if (isIpv4) {
    return twinPacket(chance.oneIn(6) ? { ...packet, ipOptions: Uint8Array.from([148, 4, 0, 0]) } : packet);
  }
  if (!chance.oneIn(4)) return twinPacket(packet);
  const pad = [1, 4, 0, 0, 0, 0];
  const extensions = Uint8Array.from([60, 0, ...pad, 44, 0, ...pad, protocol, 0, 0, 0, 1, 2, 3, 4]);
  return twinPacket({ ...packet, firstHeader: 0, extensions });
}

function tcp(chance: Chance, payload: Uint8Array): Uint8Array {
  const flags = chance.pick([0x02, 0x12, 0x10, 0x18, 0x11, 0x14, 0x04, 0xd0]);
  const options = chance.pick([
    [],
    [2, 4, 5, 0xb4],
    [1, 2, 4, 5, 0xb4, 1, 1, 0],
    [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
  ]);
  return twinTcp({
    ...{ flags, payload, options: Uint8Array.from(options), sequence: chance.word() },
    ...{ acknowledgement: chance.word(), sourcePort: chance.between(1, 65535) },
  });
}

/** An ICMP error that quotes something. */
function quoting(chance: Chance, type: number): Uint8Array {
  const transport = twinUdp(chance.between(1, 65535), 53, chance.bytes(chance.below(30)));
  const isIpv4 = type === 3;
  const quote = twinPacket({
    source: address(chance, isIpv4),
    destination: address(chance, isIpv4),
    protocol: 17,
    transport,
  });
  const changed = chance.oneIn(3) ? chance.mutate(quote) : quote;
  return Uint8Array.from([type, chance.below(6), 0, 0, 0, 0, 5, 0, ...changed]);
}

/** A parsed packet in slot 0, valid and with a right checksum. */
function putValid(chance: Chance, payloadMax?: number): Uint8Array {
  const packet = validPacket(chance, payloadMax);
  arena.bytes.fill(0xa5);
  assert.equal(parsePacket(view, arena.put(0, packet), packet.length, parsed), DropReason.None);
  assert.equal(verifyTransportChecksum(view, parsed), true);
  return packet;
}

/** Parsing never throws and never reads outside: the view ends where the packet ends. */
function parseIsTotal(chance: Chance): void {
  const bytes = chance.oneIn(4) ? chance.bytes(chance.below(150)) : chance.mutate(validPacket(chance));
  const exact = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (parsePacket(exact, 0, bytes.length, parsed) !== DropReason.None) return;
  assert.equal(parsed.totalLength, bytes.length);
  assert.equal(parsed.payloadOffset + parsed.payloadLength, bytes.length);
  assert.ok(parsed.headerLength >= 20 && parsed.transportOffset === parsed.headerLength);
  const isTwinRight =
    parsed.fragmentKind !== FragmentKind.None ||
    ![1, 6, 17, 58].includes(parsed.protocol) ||
    twinVerify(bytes, parsed.transportOffset, parsed.protocol);
  assert.equal(verifyTransportChecksum(exact, parsed), isTwinRight);
}

/**
 * Whatever is rewritten, the packet parses again with a right checksum, and nothing outside it is touched.
 */
function rewritingKeepsChecksums(chance: Chance): void {
  const packet = putValid(chance);
  const at = parsed.offset;
  const isPartial = chance.oneIn(2) && (parsed.protocol === 6 || parsed.protocol === 17);
  if (isPartial) {
    setNeedsChecksum(view, parsed);
    writePartialChecksum(view, parsed);
  }
  const memory = new DataView(chance.bytes(16).buffer);
  for (let steps = chance.between(1, 5); steps > 0; steps--) {
    const port = chance.between(1, 65535);
    chance.pick([
      () => rewriteSource(view, parsed, memory, 0, port),
      () => rewriteDestination(view, parsed, memory, 0, port),
      () => decrementTtl(view, parsed),
      () => setTos(view, parsed, chance.below(256)),
      () => clampMss(view, parsed, chance.between(500, 1500)),
    ])();
  }
  finishChecksum(view, at, packet.length);
  assert.equal(parsePacket(view, at, packet.length, other), DropReason.None);
  assert.equal(verifyTransportChecksum(view, other), true);
  assert.deepEqual({ ...other }, { ...parsed, payloadLength: other.payloadLength });
  assert.equal(arena.bytes[at - 11], 0xa5);
  assert.equal(arena.bytes[at + packet.length], 0xa5);
}

/** Answers are valid packets, and errors about any valid packet can be translated. */
function answersAreValid(chance: Chance): void {
  const packet = putValid(chance, 2000);
  const to = arena.at(1);
  const length = chance.pick([
    () => writeTcpReset(view, parsed, to),
    () => writeEchoReply(view, parsed, to),
    () => writeIcmpError(view, parsed, to, chance.below(8) as IcmpError, { mtu: chance.between(68, 65535) }),
  ])();
  assert.deepEqual(arena.get(parsed.offset, packet.length), packet);
  if (length === 0) return;
  assert.equal(parsePacket(view, to, length, other), DropReason.None);
  assert.equal(verifyTransportChecksum(view, other), true);
}

/** Parsing and translating the quote of any ICMP message is total and leaves a right checksum. */
function quotesAreTotal(chance: Chance): void {
  const isIpv4 = chance.oneIn(2);
  const transport = quoting(chance, isIpv4 ? 3 : 1);
  const addresses = { source: address(chance, isIpv4), destination: address(chance, isIpv4) };
  const packet = twinPacket({ ...addresses, protocol: isIpv4 ? 1 : 58, transport });
  arena.bytes.fill(0xa5);
  if (parsePacket(view, arena.put(0, packet), packet.length, parsed) !== DropReason.None) return;
  if (parseQuoted(view, parsed, other) !== DropReason.None) return;
  const memory = new DataView(chance.bytes(16).buffer);
  rewriteQuotedSource(view, parsed, other, memory, 0, chance.between(1, 65535));
  rewriteQuotedDestination(view, parsed, other, memory, 0, chance.between(1, 65535));
  assert.equal(verifyTransportChecksum(view, parsed), true);
  assert.equal(arena.bytes[parsed.offset + packet.length], 0xa5);
}

/** Segments of a super-packet join to it again, whatever the MTU. */
function segmentsJoin(chance: Chance): void {
  const isIpv4 = chance.oneIn(2);
  const payload = chance.bytes(chance.between(200, 5000));
  const transport = twinTcp({ payload, flags: 0x18, sequence: chance.word() });
  const packet = twinPacket({
    ...{ source: address(chance, isIpv4), destination: address(chance, isIpv4) },
    ...{ protocol: 6, transport, id: chance.below(65536) },
  });
  assert.equal(parsePacket(view, arena.put(0, packet), packet.length, parsed), DropReason.None);
  setGso(view, parsed, isIpv4 ? GsoType.Tcp4 : GsoType.Tcp6, chance.between(48, 1460));
  setNeedsChecksum(view, parsed);
  writePartialChecksum(view, parsed);
  const size = segmentSize(view, parsed, chance.between(108, 1500));
  assert.ok(size >= 48);
  let joined = new Uint8Array(0);
  const coalescer = new Coalescer(view, {
    onPacket: (offset, length) => {
      finishChecksum(view, offset, length);
      assert.equal(joined.length, 0);
      joined = arena.get(offset, length) as Uint8Array<ArrayBuffer>;
    },
  });
  for (let index = 0; index < segmentCount(parsed, size); index++) {
    const to = arena.at(index === 0 ? 1 : 2);
    const length = writeSegment(view, parsed, index, size, to);
    assert.equal(parsePacket(view, to, length, other), DropReason.None);
    assert.equal(verifyTransportChecksum(view, other), true);
    assert.equal(coalescer.push(other, 0), index > 0);
  }
  coalescer.flush();
  assert.deepEqual(joined, packet);
}

/** The reassembler stays within its limits, and what it gives out is a whole packet. */
function reassemblyIsBounded(chance: Chance): void {
  const limits = { bytesMax: 6000, networkBytesMax: 4000, datagramsMax: 10, fragmentsMax: 6, timeoutMs: 50 };
  const reassembler = new Reassembler(limits);
  let now = 0;
  for (let steps = chance.between(5, 60); steps > 0; steps--) {
    now += chance.below(10);
    const fragment = someFragment(chance);
    if (parsePacket(view, arena.put(0, fragment), fragment.length, parsed) !== DropReason.None) continue;
    if (parsed.fragmentKind === FragmentKind.None) continue;
    const length = reassembler.add(view, parsed, chance.below(3), now, arena.at(1));
    assert.ok(reassembler.bytes <= limits.bytesMax && reassembler.datagrams <= limits.datagramsMax);
    if (length <= 0) continue;
    const reason = parsePacket(view, arena.at(1), length, third);
    assert.ok(reason !== DropReason.None || third.fragmentKind === FragmentKind.None);
    assert.notEqual(reason, DropReason.BadHeaderChecksum);
    assert.notEqual(reason, DropReason.BadFragment);
  }
  reassembler.expire(now + limits.timeoutMs);
  assert.equal(reassembler.bytes, 0);
  assert.equal(reassembler.datagrams, 0);
}

/** A fragment of one of few datagrams, aligned mostly, so that some complete and many overlap. */
function someFragment(chance: Chance): Uint8Array {
  const start = chance.below(6) * 64;
  const length = chance.oneIn(5) ? chance.between(1, 200) : 64;
  const more = chance.oneIn(3) ? 0 : 1;
  const data = chance.bytes(length);
  data.set([0, 1, 0, 2, 1, 0x80, 0, 0].slice(0, Math.min(8, length)));
  const id = chance.below(3);
  const base = {
    protocol: 17,
    transport: data,
    keepChecksum: true,
    id,
    tos: chance.oneIn(20) ? chance.below(4) : 2,
  };
  if (chance.oneIn(2)) {
    return twinPacket({
      ...base,
      source: '10.0.0.1',
      destination: '10.0.0.2',
      fragment: (more << 13) | (start >> 3),
    });
  }
  const word = start | more;
  const extensions = Uint8Array.from([17, 0, word >> 8, word & 0xff, 0, 0, 0, id]);
  return twinPacket({ ...base, source: 'fd00::1', destination: 'fd00::2', firstHeader: 44, extensions });
}

/** A packet cut at any MTU is the same packet again. */
function fragmentsJoin(chance: Chance): void {
  const transport = twinUdp(1, 2, chance.bytes(chance.between(100, 3000)));
  const packet = twinPacket({
    source: '10.0.0.1',
    destination: '10.0.0.2',
    protocol: 17,
    transport,
    fragment: 0,
    id: 5,
  });
  assert.equal(parsePacket(view, arena.put(0, packet), packet.length, parsed), DropReason.None);
  const mtu = chance.between(68, packet.length - 1);
  const reassembler = new Reassembler();
  const count = fragmentCount(parsed, mtu);
  let result = 0;
  for (let index = 0; index < count; index++) {
    const length = writeFragment(view, parsed, index, mtu, arena.at(1));
    assert.ok(length <= mtu);
    assert.equal(parsePacket(view, arena.at(1), length, other), DropReason.None);
    result = reassembler.add(view, other, 1, 0, arena.at(1));
    // A tiny MTU makes more fragments than are kept.
    if (result < 0) {
      assert.ok(count > 64);
      return;
    }
  }
  assert.deepEqual(arena.get(arena.at(1), result), packet);
}

/** Reading a GUE header never throws and never reads outside. */
function gueIsTotal(chance: Chance): void {
  const start = Uint8Array.from([chance.below(4), chance.pick([4, 41]), 0, 0, 1, chance.below(8)]);
  const bytes = chance.mutate(Uint8Array.from([...start, ...chance.bytes(10), ...validPacket(chance)]));
  const header = new GueHeader();
  if (readGueHeader(new DataView(bytes.buffer), 0, bytes.length, header) !== DropReason.None) return;
  assert.equal(header.packetOffset + header.packetLength, bytes.length);
  if (header.contextLength > 0) assert.ok(header.contextOffset + header.contextLength <= header.packetOffset);
}

/** All targets by name. */
export const PACKET_TARGETS = {
  parse: parseIsTotal,
  rewrite: rewritingKeepsChecksums,
  answer: answersAreValid,
  quote: quotesAreTotal,
  segment: segmentsJoin,
  reassemble: reassemblyIsBounded,
  fragment: fragmentsJoin,
  gue: gueIsTotal,
};

if (import.meta.main) fuzzMain(PACKET_TARGETS);
