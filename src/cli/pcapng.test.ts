import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import type { CapturedPacket } from '#contract/agent.ts';

import { PcapWriter } from './pcapng.ts';

const hasTcpdump = spawnSync('tcpdump', ['--version']).status === 0;

/** An ICMP echo request from 10.0.0.1 to 10.10.0.10, 29 bytes: a length that needs padding. */
const ECHO = Uint8Array.from([
  0x45, 0, 0, 29, 0, 0, 0x40, 0, 0x40, 1, 0x26, 0xcb, 10, 0, 0, 1, 10, 10, 0, 10, 8, 0, 0xf6, 0xf9, 0, 5, 0,
  1, 0,
]);

const PACKET: CapturedPacket = {
  at: 1_700_000_000_123_456,
  direction: 'in',
  tunnel: 'laptop',
  account: 'acme',
  vnet: 'production',
  bytes: ECHO,
  length: ECHO.length,
};

function file(packets: readonly CapturedPacket[]): Uint8Array {
  const writer = new PcapWriter();
  return Buffer.concat([writer.header(), ...packets.flatMap((packet) => writer.packet(packet))]);
}

test('every block is a multiple of four bytes and says its length at both ends', () => {
  const bytes = file([PACKET, { ...PACKET, tunnel: 'net', direction: 'out' }, PACKET]);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const types: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = view.getUint32(at + 4, true);
    assert.equal(length % 4, 0);
    assert.equal(view.getUint32(at + length - 4, true), length);
    types.push(view.getUint32(at, true));
    at += length;
  }
  // Section, then an interface before the first packet of each tunnel.
  assert.deepEqual(types, [0x0a0d0d0a, 1, 6, 1, 6, 6]);
});

test('tcpdump reads it', { skip: hasTcpdump ? false : 'tcpdump is not installed' }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'rampart-pcap-'));
  try {
    const path = join(folder, 'x.pcapng');
    writeFileSync(path, file([PACKET, { ...PACKET, bytes: ECHO.slice(0, 24) }]));
    const { stdout, stderr } = spawnSync('tcpdump', ['-n', '-tt', '-r', path], { encoding: 'utf8' });
    assert.match(stderr, /link-type RAW/);
    const lines = stdout.trim().split('\n');
    assert.equal(lines.length, 2);
    assert.match(
      lines[0] as string,
      /^1700000000\.123456 IP 10\.0\.0\.1 > 10\.10\.0\.10: ICMP echo request, id 5, seq 1/,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});
