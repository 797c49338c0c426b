import assert from 'node:assert/strict';
import { test } from 'node:test';

import { twinBytes, twinEcho, twinPacket, twinTcp, twinUdp } from '#packet/twin.ts';
import { Counter } from '#proxy/stats.ts';

import { FlowWorld, testRoute } from './test-world.ts';

const LENGTHS = [0, 1, 19, 20, 28, 40, 41, 60, 68, 100] as const;

test('whatever bytes come, nothing throws, no slot is lost and no flow is left behind', async () => {
  let state = 77;
  const next = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return ((state >>> 8) * below) >>> 24;
  };
  const world = new FlowWorld({ limits: { flowsMax: 256, reassemblyBytesMax: 1 << 16 } });
  const client = world.tunnel('wg', ['10.0.0.0/24', 'fd00::/64']);
  const server = world.tunnel('office', ['10.10.0.0/24']);
  server.mtu = 1280;
  server.offload = true;
  world.leadTo('office', server);
  world.ways.set('sockets', () => ({ kind: 'upgrade' }));
  world.routes.replace([
    testRoute('10.10.0.0/25', 'office'),
    testRoute('10.10.0.128/25', 'sockets', { upgrade: 'sniff' }),
    testRoute('fd10::/64', 'office'),
  ]);
  const inner = twinPacket({
    source: '10.0.0.1',
    destination: '10.10.0.1',
    protocol: 17,
    transport: twinUdp(1000, 53, twinBytes(20)),
  });
  const v4 = { source: '10.0.0.1', destination: '10.10.0.1' };
  const seeds = [
    inner,
    twinPacket({
      ...v4,
      protocol: 6,
      transport: twinTcp({ flags: 2, options: Uint8Array.from([2, 4, 5, 180]) }),
    }),
    twinPacket({ ...v4, destination: '10.10.0.200', protocol: 6, transport: twinTcp({ flags: 2 }) }),
    twinPacket({
      ...v4,
      protocol: 6,
      transport: twinTcp({ flags: 16, payload: twinBytes(1400) }),
      fragment: 0,
    }),
    twinPacket({ ...v4, protocol: 1, transport: twinEcho(8, 9, twinBytes(40)) }),
    twinPacket({ ...v4, protocol: 1, transport: Uint8Array.from([3, 4, 0, 0, 0, 0, 5, 0, ...inner]) }),
    twinPacket({ ...v4, protocol: 17, transport: twinUdp(1, 2, twinBytes(64)), fragment: 0x2000 }),
    twinPacket({
      source: 'fd00::1',
      destination: 'fd10::1',
      protocol: 17,
      transport: twinUdp(5, 6, twinBytes(9)),
    }),
    twinPacket({
      source: 'fd00::1',
      destination: 'fd10::1',
      protocol: 58,
      transport: twinEcho(128, 1, twinBytes(9)),
    }),
  ];
  const rounds = 30_000;
  for (let i = 0; i < rounds; i++) {
    let bytes = (seeds[next(seeds.length)] as Uint8Array).slice();
    for (let change = next(4); change > 0; change--) bytes[next(Math.min(bytes.length, 60))] = next(256);
    if (next(6) === 0)
      bytes = bytes.slice(0, Math.min(bytes.length, LENGTHS[next(LENGTHS.length)] as number));
    if ((bytes[0] as number) >> 4 === 4 && next(3) > 0) fixHeader(bytes);
    const virtio = next(8) === 0 ? Uint8Array.from({ length: 10 }, () => next(4) * next(80)) : undefined;
    world.send(next(4) === 0 ? server : client, bytes, virtio);
    if (i % 500 === 0) await world.clock.advance(next(5000));
  }
  assert.equal(world.leaked, 0);
  assert.equal(world.counter(Counter.PacketsIn), rounds);
  assert.ok(server.sentCount > 1000, `${server.sentCount} packets passed`);
  assert.ok(Object.keys(world.drops).length > 12, Object.keys(world.drops).join());
  await world.clock.advance(10_000_000);
  assert.equal(world.pipeline.table.count, 0);
  assert.equal(world.counter(Counter.FlowsOpened), world.counter(Counter.FlowsClosed));
  assert.equal(world.io.audit().timers, 0);
});

/** Makes length and checksum of an IPv4 header right, so that changes reach what is behind. */
function fixHeader(bytes: Uint8Array): void {
  const headerLength = ((bytes[0] as number) & 15) * 4;
  if (bytes.length < headerLength || headerLength < 20) return;
  bytes[2] = bytes.length >> 8;
  bytes[3] = bytes.length & 0xff;
  bytes[10] = 0;
  bytes[11] = 0;
  let sum = 0;
  for (let at = 0; at < headerLength; at += 2) {
    sum += ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  bytes[10] = (~sum >> 8) & 0xff;
  bytes[11] = ~sum & 0xff;
}
