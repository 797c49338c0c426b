import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { CloseReason } from '#contract/record.ts';
import { TcpFlag } from '#packet/parse.ts';
import { twinBytes, twinEcho, twinPacket } from '#packet/twin.ts';
import { Counter } from '#proxy/stats.ts';

import {
  CLIENT,
  down,
  icmpError,
  only,
  parse,
  SERVER,
  setUp,
  TCP4_SUPER,
  udp,
  up,
  upgraded,
  withTransportAt20,
} from './test-packets.ts';
import { testRoute } from './test-world.ts';

const { Ack, Rst } = TcpFlag;

test('an upgraded flow is delivered, answers by emit, and leaves its record to the upper layer', (t) => {
  const { world, client, server } = upgraded(t);
  const { upgrade } = world;
  world.send(client, up());
  const { flow, handle, direction, bytes } = only(upgrade.delivered);
  assert.deepEqual([handle, direction], [100, 0]);
  assert.equal(parse(bytes).packet.destinationPort, 80);
  const info = world.pipeline.coldInfo(flow);
  assert.deepEqual([info.wish, info.via, info.destination.address], ['sniff', 'sockets', SERVER]);
  assert.equal(world.emit(flow, 1, down()), DropReason.None);
  assert.equal(only(client.take()).length, 40);
  world.send(client, up({ flags: Ack }));
  assert.equal(world.pipeline.summaries({})[0]?.state, 'established');
  assert.equal(upgrade.flushed, 2 * 3, 'each of the three upgrades hears of the end of each batch');
  world.pipeline.endFlow(flow, CloseReason.OriginClosed);
  assert.deepEqual(upgrade.ended, [{ handle: 100, reason: CloseReason.OriginClosed }]);
  assert.deepEqual(world.records, []);
  assert.deepEqual(server.take(), []);
});

test('when the upper layer has no record for an upgraded flow, the pipeline writes it', async (t) => {
  const { world, client } = upgraded(t);
  world.upgrade.records = false;
  world.send(client, up());
  await world.clock.advance(60_000);
  const record = only(world.records);
  assert.deepEqual([record.layer, record.reason], ['tcp', CloseReason.ClientIdle]);
});

test('a SYN on a finished connection is a new flow with a new handle', (t) => {
  const { world, client } = upgraded(t);
  world.send(client, up());
  const { flow } = only(world.upgrade.delivered);
  world.emit(flow, 1, down());
  world.send(client, up({ flags: Rst }));
  world.send(client, up());
  assert.deepEqual(world.upgrade.ended, [{ handle: 100, reason: CloseReason.ClientError }]);
  assert.deepEqual(
    world.upgrade.delivered.map(({ handle }) => handle),
    [100, 100, 101],
  );
});

test('not_flow_start: a connection met in its middle cannot be upgraded, and its sender is told', (t) => {
  const { world, client } = upgraded(t);
  world.send(client, up({ flags: Ack }));
  assert.deepEqual(world.drops, { not_flow_start: 1 });
  assert.equal(parse(only(client.take())).packet.tcpFlags, Rst);
  assert.deepEqual(world.upgrade.delivered, []);
});

test('nat_full and stack_down: an upgrade that cannot take the flow ends it', (t) => {
  const { world, client } = upgraded(t);
  world.upgrade.refusal = DropReason.NatFull;
  world.send(client, up());
  assert.deepEqual(world.drops, { nat_full: 1 });
  assert.deepEqual([only(world.records).reason, world.pipeline.table.count], [CloseReason.Limit, 0]);
  assert.deepEqual(world.upgrade.ended, []);
  const none = setUp(t, { upgrades: false });
  none.world.ways.set('office', () => ({ kind: 'upgrade' }));
  none.world.send(none.client, up());
  assert.deepEqual(none.world.drops, { stack_down: 1 });
});

test('the stack learns the MSS that the client side allows, in both directions', (t) => {
  const { world, client } = upgraded(t);
  client.mtu = 1280;
  const options = Uint8Array.from([2, 4, 0xff, 0xd7]);
  world.send(client, up({ options }));
  const { flow, bytes } = only(world.upgrade.delivered);
  assert.deepEqual(bytes.slice(42, 44), Uint8Array.from([1240 >> 8, 1240 & 0xff]));
  world.emit(flow, 1, down({ options }));
  assert.deepEqual(only(client.take()).slice(42, 44), Uint8Array.from([1240 >> 8, 1240 & 0xff]));
});

test('what starts here and is too long is cut: TCP into segments, UDP into fragments', (t) => {
  for (const [source, destination] of [
    [SERVER, CLIENT],
    ['fd10::a', 'fd00::1'],
  ] as const) {
    const { world, client } = setUp(t);
    world.ways.set('office', () => ({ kind: 'upgrade' }));
    world.send(client, udp({ source: destination, destination: source }));
    const { flow } = only(world.upgrade.delivered);
    world.emit(flow, 1, udp({ source, destination, ports: [53, 4000], payload: twinBytes(4000) }));
    const fragments = client.take();
    assert.equal(fragments.length, 3);
    for (const bytes of fragments) assert.ok(bytes.length <= 1500);
    assert.deepEqual(world.drops, {});
  }
  const { world, client } = upgraded(t);
  world.send(client, up());
  const { flow } = only(world.upgrade.delivered);
  const bulk = down({ flags: Ack, payload: twinBytes(20_000) });
  world.emit(flow, 1, bulk, TCP4_SUPER(9000));
  const segments = client.take();
  assert.equal(segments.length, Math.ceil(20_000 / 1460));
  for (const bytes of segments) assert.ok(bytes.length <= 1500 && withTransportAt20(bytes));
});

test('UDP and echo by an off-ramp of sockets are upgraded too', (t) => {
  const { world, client } = setUp(t);
  world.ways.set('office', () => ({ kind: 'upgrade' }));
  world.send(client, udp({}));
  world.send(
    client,
    twinPacket({ source: CLIENT, destination: SERVER, protocol: 1, transport: twinEcho(8, 1, twinBytes(8)) }),
  );
  assert.equal(world.upgrade.delivered.length, 2);
});

test('UDP stays packets where the route wants streams and the way out is a tunnel', (t) => {
  const { world, client, server } = setUp(t);
  world.routes.replace([testRoute('10.10.0.0/24', 'office', { upgrade: 'stream' })]);
  world.send(client, udp({}));
  world.send(client, up());
  assert.equal(server.take().length, 1);
  assert.equal(world.upgrade.delivered.length, 1);
});

test('an outbound flow has a free port, is emitted towards its target and gets its answers', (t) => {
  const { world, server } = setUp(t);
  const { pipeline } = world;
  const context = server.context;
  const spec = {
    context,
    network: server.network,
    protocol: 6,
    source: { address: CLIENT, port: 0 },
    target: { address: SERVER, port: 80 },
    via: 'office',
    flow: 900,
    rule: 'stream',
  };
  const first = pipeline.openOutbound(spec);
  const second = pipeline.openOutbound(spec);
  assert.ok(first >= 0 && second >= 0);
  const port = pipeline.coldInfo(first).source.port;
  assert.notEqual(port, pipeline.coldInfo(second).source.port);
  pipeline.setHandle(first, 7);
  world.emit(first, 0, up({ port }));
  assert.equal(parse(only(server.take())).packet.sourcePort, port);
  world.send(server, down({ port }));
  assert.deepEqual(
    world.upgrade.delivered.map(({ flow, handle, direction }) => [flow, handle, direction]),
    [[first, 7, 1]],
  );
  assert.equal(pipeline.coldInfo(first).flow, 900);
  assert.equal(pipeline.openOutbound({ ...spec, via: 'nowhere' }), -DropReason.NoRoute);
  const taken = { ...spec, source: { address: CLIENT, port } };
  assert.equal(pipeline.openOutbound(taken), -DropReason.NatFull);
  pipeline.close(CloseReason.Shutdown);
  assert.deepEqual(world.records, [], 'the record is the stream’s');
});

function errorAbout(packet: Uint8Array, over: { source?: string; destination: string }): Uint8Array {
  const { source = '10.10.0.254', destination } = over;
  const transport = Uint8Array.from([3, 1, 0, 0, 0, 0, 0, 0, ...packet.subarray(0, 28)]);
  return twinPacket({ source, destination, protocol: 1, transport });
}

test('an ICMP error about a forwarded packet goes back to its sender, from any router on the way', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, up());
  const seen = only(server.take());
  world.send(server, errorAbout(seen, { destination: CLIENT }));
  assert.deepEqual(icmpError(only(client.take())), { type: 3, code: 1, quotedPort: 4000, mtu: 0 });
  assert.equal(world.counter(Counter.IcmpErrorsTranslated), 1);
  world.send(server, down());
  const answer = only(client.take());
  world.send(client, errorAbout(answer, { source: CLIENT, destination: SERVER }));
  assert.equal(icmpError(only(server.take())).quotedPort, 80);
});

test('icmp_unrelated: an error by the wrong tunnel, or for somebody else, is not believed', (t) => {
  const { world, client, server } = setUp(t);
  const other = world.tunnel('wg', ['10.0.0.0/24']);
  world.send(client, up());
  const seen = only(server.take());
  world.send(other, errorAbout(seen, { destination: CLIENT }));
  world.send(client, errorAbout(seen, { destination: CLIENT }));
  world.send(server, errorAbout(seen, { destination: '10.0.0.2' }));
  assert.deepEqual(world.drops, { icmp_unrelated: 3 });
  assert.deepEqual([client.take(), server.take()], [[], []]);
});

test('an ICMP error about an upgrade’s packet is handed to the upgrade', (t) => {
  const { world, client } = upgraded(t);
  world.send(client, up());
  const { flow } = only(world.upgrade.delivered);
  world.emit(flow, 1, down());
  const seen = only(client.take());
  world.send(client, errorAbout(seen, { source: CLIENT, destination: SERVER }));
  assert.deepEqual(world.upgrade.errors, [{ flow, quotedPort: 80 }]);
});
