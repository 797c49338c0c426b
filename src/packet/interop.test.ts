/**
 * What this project writes, judged by a program that it did not write: tcpdump prints every packet of a
 * capture file with all checksums checked.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

import { parseIp } from '#base/ip.ts';

import {
  IcmpError,
  PacketEndpoints,
  udpHeadersLength,
  writeEchoReply,
  writeIcmpError,
  writeTcpReset,
  writeUdpHeaders,
} from './build.ts';
import { finishChecksum, writePartialChecksum } from './checksum.ts';
import { fragmentCount, writeFragment } from './fragment.ts';
import { ParsedPacket, parsePacket } from './parse.ts';
import { clampMss, decrementTtl, rewriteDestination, rewriteSource } from './rewrite.ts';
import { segmentCount, writeSegment } from './segment.ts';
import { TwinArena, twinBytes, twinEcho, twinPacket, twinTcp, twinUdp } from './twin.ts';
import { GsoType, setGso, setNeedsChecksum } from './virtio-header.ts';

const skip = spawnSync('tcpdump', ['--version']).status === 0 ? false : 'tcpdump is not installed';
const arena = new TwinArena(2, 70000);
const view = arena.view;
const parsed = new ParsedPacket();
const TO = arena.at(1);
const PAIRS = [
  { source: '10.0.0.1', destination: '10.0.0.2' },
  { source: 'fd00::1', destination: 'fd00::2' },
];

function put(packet: Uint8Array): ParsedPacket {
  assert.equal(parsePacket(view, arena.put(0, packet), packet.length, parsed), 0);
  return parsed;
}

/** A capture file of bare IP packets (link type 101). */
function captureFile(packets: readonly Uint8Array[]): Uint8Array {
  const header = new DataView(new ArrayBuffer(24));
  header.setUint32(0, 0xa1b2c3d4);
  header.setUint16(4, 2);
  header.setUint16(6, 4);
  header.setUint32(16, 262144);
  header.setUint32(20, 101);
  const parts: Uint8Array[] = [new Uint8Array(header.buffer)];
  for (const packet of packets) {
    const record = new DataView(new ArrayBuffer(16));
    record.setUint32(8, packet.length);
    record.setUint32(12, packet.length);
    parts.push(new Uint8Array(record.buffer), packet);
  }
  return Buffer.concat(parts);
}

/** One text per packet. */
function judge(packets: readonly Uint8Array[]): string[] {
  const result = spawnSync('tcpdump', ['-nvvv', '-t', '-r', '-'], { input: captureFile(packets) });
  assert.equal(result.status, 0, result.stderr.toString());
  return result.stdout.toString().replaceAll('\n    ', ' ').replaceAll('\n\t', ' ').trim().split('\n');
}

test('tcpdump finds the checksums of all that is written right', { skip }, () => {
  const packets: Uint8Array[] = [];
  for (const pair of PAIRS) {
    const isIpv4 = pair === PAIRS[0];
    const payload = twinBytes(4000);
    const whole = put(twinPacket({ ...pair, protocol: 6, transport: twinTcp({ payload, flags: 0x18 }) }));
    setGso(view, whole, isIpv4 ? GsoType.Tcp4 : GsoType.Tcp6, 1400);
    setNeedsChecksum(view, whole);
    writePartialChecksum(view, whole);
    rewriteSource(view, whole, new DataView((parseIp(pair.destination) as Uint8Array).buffer), 0, 999);
    rewriteDestination(view, whole, new DataView((parseIp(pair.source) as Uint8Array).buffer), 0, 888);
    decrementTtl(view, whole);
    for (let index = 0; index < segmentCount(whole, 1400); index++) {
      packets.push(arena.get(TO, writeSegment(view, whole, index, 1400, TO)));
    }
    finishChecksum(view, whole.offset, whole.totalLength);
    packets.push(arena.get(whole.offset, whole.totalLength));
    const options = Uint8Array.from([2, 4, 5, 0xb4]);
    const syn = put(twinPacket({ ...pair, protocol: 6, transport: twinTcp({ flags: 2, options }) }));
    clampMss(view, syn, 1200);
    packets.push(arena.get(syn.offset, syn.totalLength));
    packets.push(arena.get(TO, writeTcpReset(view, syn, TO)));
    packets.push(arena.get(TO, writeIcmpError(view, syn, TO, IcmpError.AdminProhibited)));
    const echo = twinEcho(isIpv4 ? 8 : 128, 7, twinBytes(56));
    put(twinPacket({ ...pair, protocol: isIpv4 ? 1 : 58, transport: echo }));
    packets.push(arena.get(TO, writeEchoReply(view, parsed, TO)));
    const endpoints = new PacketEndpoints();
    endpoints.setReply(view, parsed);
    endpoints.sourcePort = 4000;
    endpoints.destinationPort = 4001;
    arena.bytes.set(twinBytes(33), TO + udpHeadersLength(parsed.version));
    packets.push(arena.get(TO, writeUdpHeaders(view, TO, 33, endpoints)));
  }
  const texts = judge(packets);
  assert.equal(texts.length, packets.length);
  for (const text of texts) assert.doesNotMatch(text, /bad|incorrect|wrong|invalid|truncated/, text);
  const all = texts.join('\n');
  assert.equal(all.match(/\[udp sum ok\]/g)?.length, 2);
  // Six TCP packets each, and the SYN that the ICMPv4 error quotes.
  assert.equal(all.match(/cksum 0x[0-9a-f]+ \(correct\)/g)?.length, 2 * 6 + 1);
  assert.equal(all.match(/\[icmp6 sum ok\]/g)?.length, 2);
  assert.equal(all.match(/mss 1200/g)?.length, 2 + 1);
  assert.match(all, /10\.0\.0\.2\.80 > 10\.0\.0\.1\.40000: Flags \[R\.\]/);
  assert.match(all, /admin prohibited/);
});

test('tcpdump reads the fragments as this project means them', { skip }, () => {
  const whole = new ParsedPacket();
  whole.copyFrom(
    put(twinPacket({ ...PAIRS[0]!, protocol: 17, fragment: 0, transport: twinUdp(1, 2, twinBytes(3000)) })),
  );
  const packets: Uint8Array[] = [];
  for (let index = 0; index < fragmentCount(whole, 1500); index++) {
    packets.push(arena.get(TO, writeFragment(view, whole, index, 1500, TO)));
  }
  const texts = judge(packets);
  assert.match(texts[0]!, /offset 0, flags \[\+\].*length 1500/);
  assert.match(texts[1]!, /offset 1480, flags \[\+\].*length 1500/);
  assert.match(texts[2]!, /offset 2960, flags \[none\].*length 68/);
});
