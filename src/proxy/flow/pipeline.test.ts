import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CloseReason } from '#contract/record.ts';
import { TcpFlag } from '#packet/parse.ts';
import { twinBytes, twinEcho, twinPacket, twinTcp } from '#packet/twin.ts';
import { Counter } from '#proxy/stats.ts';

import { CLIENT, down, only, parse, SERVER, setUp, udp, up, withTransportAt20 } from './test-packets.ts';
import { FlowWorld, testRoute } from './test-world.ts';

const { Ack, Fin } = TcpFlag;

test('a forwarded connection goes both ways, one hop nearer, and leaves one right record', async (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, up());
  world.send(server, down());
  world.send(client, up({ flags: Ack }));
  world.send(client, up({ flags: Ack | TcpFlag.Psh, payload: twinBytes(1000) }));
  world.send(server, down({ flags: Ack, payload: twinBytes(500) }));
  const forth = server.take();
  const back = client.take();
  assert.deepEqual([forth.length, back.length], [3, 2]);
  for (const bytes of [...forth, ...back]) {
    assert.equal(parse(bytes).packet.ttl, 63);
    assert.ok(withTransportAt20(bytes));
  }
  assert.equal(world.counter(Counter.FlowMisses), 1);
  assert.equal(world.counter(Counter.FlowHits), 4);
  world.send(client, up({ flags: Fin | Ack }));
  world.send(server, down({ flags: Fin | Ack }));
  assert.equal(world.records.length, 0);
  await world.clock.advance(300_000);
  const record = only(world.records);
  assert.equal(record.reason, CloseReason.ClientClosed);
  assert.deepEqual(record.source, { address: CLIENT, port: 4000 });
  assert.deepEqual(record.destination, { address: SERVER, port: 80 });
  assert.deepEqual([record.packetsUp, record.bytesUp], [4, 4 * 40 + 1000]);
  assert.deepEqual([record.packetsDown, record.bytesDown], [3, 3 * 40 + 500]);
  assert.deepEqual([record.layer, record.offRamp, record.onRamp], ['ip', 'office', 'wg']);
  assert.equal(world.pipeline.table.count, 0);
  assert.deepEqual(world.drops, {});
});

test('an idle process has no timer', async (t) => {
  const { world, client } = setUp(t);
  assert.equal(world.io.audit().timers, 0);
  world.send(client, udp({}));
  assert.equal(world.io.audit().timers, 1);
  await world.clock.advance(400_000);
  assert.equal(only(world.records).reason, CloseReason.ClientIdle);
  assert.equal(world.io.audit().timers, 0);
});

test('IPv6 flows go both ways', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, udp({ source: 'fd00::1', destination: 'fd10::a' }));
  world.send(server, udp({ source: 'fd10::a', destination: 'fd00::1', ports: [53, 4000] }));
  assert.equal(parse(only(server.take())).packet.ttl, 63);
  assert.equal(parse(only(client.take())).packet.ttl, 63);
});

test('echo is a flow of its own and its reply finds the way back', (t) => {
  const { world, client, server } = setUp(t);
  const echo = (type: number, source: string, destination: string, id = 77): Uint8Array =>
    twinPacket({ source, destination, protocol: 1, transport: twinEcho(type, id, twinBytes(20)) });
  world.send(client, echo(8, CLIENT, SERVER));
  world.send(server, echo(0, SERVER, CLIENT));
  assert.equal(only(server.take())[20], 8);
  assert.equal(only(client.take())[20], 0);
  world.send(server, echo(0, SERVER, CLIENT, 78));
  assert.deepEqual(client.take(), []);
});

test('removing a route ends its flows with route_removed and leaves the others', (t) => {
  const { world, client, server } = setUp(t);
  world.routes.replace([testRoute('10.10.0.0/25', 'office'), testRoute('10.10.0.128/25', 'office')]);
  world.send(client, udp({ destination: '10.10.0.1' }));
  world.send(client, udp({ destination: '10.10.0.200' }));
  world.pipeline.routesRemoved(world.routes.replace([testRoute('10.10.0.128/25', 'office')]));
  const record = only(world.records);
  assert.deepEqual([record.destination.address, record.reason], ['10.10.0.1', CloseReason.RouteRemoved]);
  world.send(client, udp({ destination: '10.10.0.200' }));
  assert.equal(server.take().length, 3);
});

test('a trace tells of packet, flow, verdict and drop; nothing is built while nobody watches', (t) => {
  const { world, client } = setUp(t);
  world.send(client, up());
  assert.equal(world.traced.length, 0);
  world.isTracing = true;
  world.send(client, up({ port: 4001 }));
  world.send(client, up({ source: '10.9.9.9' }));
  assert.deepEqual(
    world.traced.map(({ stage }) => stage),
    ['packet', 'flow', 'verdict', 'drop'],
  );
  assert.equal(world.traced[0]?.tuple, `${CLIENT}:4001 > ${SERVER}:80 tcp`);
  assert.match(world.traced[2]?.text ?? '', /forward by office/);
  assert.match(world.traced[3]?.text ?? '', /spoofed_source/);
});

test('figures of networks count what lives and what ended', (t) => {
  const { world, client } = setUp(t);
  world.send(client, udp({}));
  world.send(client, udp({}));
  const [live] = world.pipeline.networkStats();
  assert.deepEqual([live?.account, live?.flows, live?.packets, live?.bytes], ['acme', 1, 2, 120]);
  world.pipeline.close(CloseReason.Shutdown);
  const [ended] = world.pipeline.networkStats();
  assert.deepEqual([ended?.flows, ended?.packets, ended?.bytes], [0, 2, 120]);
});

test('TCP from a tunnel into a device is joined until the batch ends, everything else goes at once', (t) => {
  const { world, client, server } = setUp(t);
  server.offload = true;
  const segment = (index: number, last = false): Uint8Array =>
    twinPacket({
      source: CLIENT,
      destination: SERVER,
      protocol: 6,
      transport: twinTcp({
        sourcePort: 4000,
        destinationPort: 80,
        sequence: 1 + index * 1000,
        flags: last ? Ack | TcpFlag.Psh : Ack,
        payload: twinBytes(1000, index + 1),
      }),
      id: index,
    });
  world.sendBatch(client, [segment(0), segment(1), udp({}), segment(2, true), up({ port: 4001 })]);
  const sent = server.sent.splice(0);
  assert.deepEqual(
    sent.map(({ bytes }) => bytes.length).sort((a, b) => a - b),
    [40, 60, 3040],
  );
  const joined = sent.find(({ bytes }) => bytes.length === 3040);
  assert.deepEqual([joined?.virtio[0], joined?.virtio[1], joined?.virtio[4]], [1, 1, 1000 & 0xff]);
  world.sendBatch(client, [segment(3), segment(4)]);
  assert.equal(only(server.take()).length, 2040);
});

test('a new process takes over all flows and goes on with them; what did not come along ends there', (t) => {
  const old = setUp(t);
  const doomed = old.world.tunnel('wg', ['10.0.0.0/24']);
  old.world.routes.replace([testRoute('10.10.0.0/25', 'office'), testRoute('10.10.0.128/25', 'office')]);
  old.world.send(old.client, up());
  old.world.send(old.server, down());
  old.world.send(old.client, up({ flags: Ack }));
  old.world.send(old.client, udp({ destination: '10.10.0.200' }));
  old.world.send(doomed, udp({ source: '10.0.0.9' }));
  const { header, buffers } = old.world.pipeline.snapshot();
  const state = {
    header: JSON.parse(JSON.stringify(header)),
    buffers: buffers.map((bytes) => bytes.slice()),
  };
  assert.equal(old.world.pipeline.table.count, 3);

  const world = new FlowWorld();
  world.networks.adopt(state.header.networks);
  world.routes.adopt(state.header.routes);
  world.routes.replace([testRoute('10.10.0.0/25', 'office')]);
  const client = world.tunnel('wg', ['10.0.0.0/24']);
  const server = world.tunnel('office', []);
  world.leadTo('office', server);
  world.pipeline.restore(state);
  assert.deepEqual(world.records.map(({ reason, source }) => [reason, source.address]).sort(), [
    [CloseReason.ClientClosed, '10.0.0.9'],
    [CloseReason.RouteRemoved, CLIENT],
  ]);
  world.send(server, down({ flags: Ack, payload: twinBytes(100) }));
  world.send(client, up({ flags: Ack }));
  assert.deepEqual([client.take().length, server.take().length], [1, 1]);
  assert.equal(world.counter(Counter.FlowMisses), 0);
  const [summary] = world.pipeline.summaries({});
  assert.deepEqual([summary?.state, summary?.packets, summary?.flow], ['established', 5, 1]);
  world.pipeline.close(CloseReason.Shutdown);
  assert.equal(world.io.audit().timers, 0);
  assert.equal(world.leaked, 0);
});
