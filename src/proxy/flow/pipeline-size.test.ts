import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CloseReason } from '#contract/record.ts';
import { FragmentKind, IpProtocol } from '#packet/parse.ts';
import { twinBytes, twinPacket, twinUdp } from '#packet/twin.ts';

import { ANSWER_BURST } from './answers.ts';
import {
  CLIENT,
  down,
  icmpError,
  only,
  parse,
  SERVER,
  setUp,
  superPacket,
  TCP4_SUPER,
  udp,
  up,
  withTransportAt20,
} from './test-packets.ts';
import type { FlowWorld } from './test-world.ts';

test('ttl_exceeded: the last hop is answered and not forwarded', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, udp({ ttl: 1 }));
  world.send(client, udp({ ttl: 1, source: 'fd00::1', destination: 'fd10::a' }));
  const [four, six] = client.take().map(icmpError);
  assert.deepEqual([four?.type, six?.type], [11, 3]);
  assert.equal(four?.quotedPort, 4000);
  assert.deepEqual(world.drops, { ttl_exceeded: 2 });
  assert.deepEqual(server.take(), []);
});

test('answers come at a limited rate for each tunnel by itself', async (t) => {
  const { world, client } = setUp(t);
  const other = world.tunnel('wg', ['10.0.0.0/24']);
  for (let i = 0; i < ANSWER_BURST + 50; i++) world.send(client, udp({ ttl: 1 }));
  assert.equal(client.take().length, ANSWER_BURST);
  world.send(other, udp({ ttl: 1, source: '10.0.0.9' }));
  assert.equal(other.take().length, 1);
  await world.clock.advance(100);
  for (let i = 0; i < 50; i++) world.send(client, udp({ ttl: 1 }));
  const later = client.take().length;
  assert.ok(later > 0 && later < 50, `${later} answers after a tenth of a second`);
});

test('too_big: DF is answered with the MTU of the way out, in both versions', (t) => {
  const { world, client, server } = setUp(t);
  server.mtu = 1300;
  world.send(client, udp({ payload: twinBytes(1400), fragment: 0x4000 }));
  world.send(client, udp({ payload: twinBytes(1400), source: 'fd00::1', destination: 'fd10::a' }));
  const answers = client.take();
  assert.deepEqual(
    answers.map((bytes) => icmpError(bytes).mtu),
    [1300, 1300],
  );
  assert.deepEqual(world.drops, { too_big: 2 });
  assert.deepEqual(server.take(), []);
});

test('without DF a packet that is too long leaves in fragments that make up the whole', (t) => {
  const { world, client, server } = setUp(t);
  server.mtu = 576;
  const packet = udp({ payload: twinBytes(1400), fragment: 0 });
  world.send(client, packet);
  const fragments = server.take();
  assert.equal(fragments.length, 3);
  const whole = new Uint8Array(packet.length - 20);
  for (const bytes of fragments) {
    assert.ok(bytes.length <= 576);
    const { packet: parsed } = parse(bytes);
    assert.equal(parsed.ttl, 63);
    whole.set(bytes.subarray(20), parsed.fragmentOffset);
  }
  assert.deepEqual(whole, packet.slice(20));
});

test('fragments are put together, decided about as a whole, and cut again for the way out', (t) => {
  for (const version of [4, 6]) {
    const { world, client, server } = setUp(t);
    const payload = twinBytes(3000);
    const inner = twinUdp(4000, 53, payload);
    const pieces = version === 4 ? ipv4Fragments(inner) : ipv6Fragments(inner);
    for (const piece of pieces.toReversed()) world.send(client, piece);
    const fragments = server.take();
    assert.equal(fragments.length, 3);
    const whole = new Uint8Array(inner.length);
    for (const bytes of fragments) {
      assert.ok(bytes.length <= 1500);
      const { packet } = parse(bytes);
      assert.notEqual(packet.fragmentKind, FragmentKind.None);
      const data = bytes.subarray(version === 4 ? 20 : 48);
      whole.set(data, packet.fragmentOffset);
    }
    assert.deepEqual(whole.subarray(8), payload);
    assert.equal(world.pipeline.summaries({})[0]?.packets, 1);
  }
});

function dropsOf(world: FlowWorld): Record<string, number> {
  return world.drops;
}

function ipv4Fragments(transport: Uint8Array): Uint8Array[] {
  const size = 1000;
  const pieces: Uint8Array[] = [];
  // The checksum of the whole is not looked at by anybody on a forwarded way.
  for (let at = 0; at < transport.length; at += size) {
    const more = at + size < transport.length ? 0x2000 : 0;
    pieces.push(
      twinPacket({
        source: CLIENT,
        destination: SERVER,
        protocol: 17,
        transport: transport.slice(at, at + size),
        keepChecksum: true,
        id: 99,
        fragment: more | (at >> 3),
      }),
    );
  }
  return pieces;
}

function ipv6Fragments(transport: Uint8Array): Uint8Array[] {
  const size = 1000;
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < transport.length; at += size) {
    const more = at + size < transport.length ? 1 : 0;
    const extensions = Uint8Array.from([17, 0, at >> 8, (at & 0xf8) | more, 0, 0, 0, 99]);
    pieces.push(
      twinPacket({
        source: 'fd00::1',
        destination: 'fd10::a',
        protocol: 17,
        transport: transport.slice(at, at + size),
        keepChecksum: true,
        extensions,
        firstHeader: IpProtocol.Fragment,
      }),
    );
  }
  return pieces;
}

test('fragments of two tunnels of one network never become one packet', (t) => {
  const { world, client, server } = setUp(t);
  const other = world.tunnel('wg', ['10.0.0.0/24']);
  const [first, second, third] = ipv4Fragments(twinUdp(4000, 53, twinBytes(2500)));
  world.send(client, first as Uint8Array);
  world.send(client, second as Uint8Array);
  world.send(other, third as Uint8Array);
  assert.deepEqual(server.take(), []);
  world.send(client, third as Uint8Array);
  assert.ok(server.take().length > 0);
});

test('reassembly_timeout and fragment_overlap are counted', async (t) => {
  const { world, client } = setUp(t);
  const [first, second] = ipv4Fragments(twinUdp(4000, 53, twinBytes(2500)));
  world.send(client, first as Uint8Array);
  await world.clock.advance(60_000);
  assert.deepEqual(world.drops, { reassembly_timeout: 1 });
  world.send(client, first as Uint8Array);
  const overlapping = (second as Uint8Array).slice();
  overlapping[7] = 124;
  overlapping[10] = 0;
  overlapping[11] = 0;
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += (overlapping[at]! << 8) | overlapping[at + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  overlapping[10] = ~(sum >> 8) & 0xff;
  overlapping[11] = ~sum & 0xff;
  world.send(client, overlapping);
  assert.ok((dropsOf(world).fragment_overlap ?? 0) > 0);
});

test('the MSS of both SYNs is lowered to the narrower tunnel', (t) => {
  const { world, client, server } = setUp(t);
  server.mtu = 1400;
  const mss = Uint8Array.from([2, 4, 0x05, 0xb4]);
  world.send(client, up({ options: mss }));
  world.send(server, down({ options: mss }));
  for (const bytes of [only(server.take()), only(client.take())]) {
    assert.deepEqual(bytes.slice(40, 44), Uint8Array.from([2, 4, 1360 >> 8, 1360 & 0xff]));
    assert.ok(withTransportAt20(bytes));
  }
});

test('a super-packet is judged by its segments, whole for a device and cut for other tunnels', async (t) => {
  const { world, client, server } = setUp(t);
  server.offload = true;
  world.send(client, superPacket(14_000), TCP4_SUPER(1400));
  assert.equal(only(server.take()).length, 14_040);
  server.offload = false;
  world.send(client, superPacket(14_000), TCP4_SUPER(1400));
  const segments = server.take();
  assert.equal(segments.length, 10);
  for (const bytes of segments) {
    assert.equal(bytes.length, 1440);
    assert.ok(withTransportAt20(bytes));
  }
  world.send(client, superPacket(14_000), TCP4_SUPER(1461));
  assert.deepEqual(world.drops, { too_big: 1 });
  assert.equal(icmpError(only(client.take())).mtu, 1500);
  world.pipeline.close(CloseReason.Shutdown);
  const record = only(world.records);
  assert.equal(record.packetsUp, 30);
  assert.equal(record.bytesUp, 42_000 + 30 * 40);
});

test('a partial checksum is finished for a tunnel that cannot', (t) => {
  const { world, client, server } = setUp(t);
  const packet = up();
  let pseudo = 6 + 20;
  for (let at = 12; at < 20; at += 2) pseudo += (packet[at]! << 8) | packet[at + 1]!;
  pseudo = (pseudo & 0xffff) + (pseudo >> 16);
  packet[36] = pseudo >> 8;
  packet[37] = pseudo & 0xff;
  world.send(client, packet, Uint8Array.from([1, 0, 0, 0, 0, 0, 20, 0, 16, 0]));
  assert.ok(withTransportAt20(only(server.take())));
});

test('no_buffer: a super-packet that cannot be cut for want of slots is dropped in part', (t) => {
  const { world, client, server } = setUp(t, { slots: 4 });
  const held = [
    world.worker.packets.acquire(),
    world.worker.packets.acquire(),
    world.worker.packets.acquire(),
  ];
  world.send(client, superPacket(14_000), TCP4_SUPER(1400));
  assert.deepEqual(server.take(), []);
  assert.deepEqual(world.drops, { no_buffer: 1 });
  for (const slot of held) world.worker.packets.release(slot);
});
