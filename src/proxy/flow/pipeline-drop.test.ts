import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { CloseReason } from '#contract/record.ts';
import { TcpFlag } from '#packet/parse.ts';
import { twinBytes, twinEcho, twinPacket } from '#packet/twin.ts';
import { Counter } from '#proxy/stats.ts';

import { REFUSAL_MS } from './flow-table.ts';
import { CLIENT, down, icmpError, only, parse, SERVER, setUp, udp, up } from './test-packets.ts';
import { testRoute } from './test-world.ts';

const { Syn, Ack, Rst } = TcpFlag;

test('spoofed_source: a packet from an address that the tunnel may not use', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, up({ source: '10.0.1.1' }));
  assert.deepEqual(world.drops, { spoofed_source: 1 });
  assert.deepEqual([server.take(), client.take(), world.pipeline.table.count], [[], [], 0]);
});

test('spoofed_source: the tuple of a live flow by another tunnel of its network changes nothing', (t) => {
  const { world, client, server } = setUp(t);
  const other = world.tunnel('wg', ['10.0.0.0/24']);
  world.send(client, up());
  world.send(server, down());
  world.send(client, up({ flags: Ack }));
  const before = world.pipeline.summaries({});
  world.send(other, up({ flags: Rst }));
  world.send(other, up({ flags: Ack, payload: twinBytes(10) }));
  world.send(other, down({ flags: Rst | Ack }));
  assert.deepEqual(world.pipeline.summaries({}), before);
  assert.deepEqual(world.drops, { spoofed_source: 3 });
  assert.equal(server.take().length, 2);
});

test('a client with an identity may go on over another tunnel, a stranger may not', (t) => {
  const { world, server } = setUp(t);
  const laptop = { user: 'ana', device: 'laptop', groups: [] };
  const before = world.tunnel('wg', ['10.0.0.7/32'], { identity: laptop });
  const after = world.tunnel('wg', ['10.0.0.7/32'], { identity: { ...laptop, groups: [] } });
  const stranger = world.tunnel('wg', ['10.0.0.7/32'], { identity: { ...laptop, device: 'phone' } });
  const segment = { source: '10.0.0.7' };
  world.send(before, up(segment));
  world.send(stranger, up({ ...segment, flags: Ack }));
  world.send(after, up({ ...segment, flags: Ack }));
  world.send(server, down({ destination: '10.0.0.7', flags: Ack }));
  assert.deepEqual([before.take().length, after.take().length, stranger.take().length], [0, 1, 0]);
  assert.deepEqual(world.drops, { spoofed_source: 1 });
});

test('martian_source, martian_destination and link_scope: addresses that no flow may have', (t) => {
  const { world, client } = setUp(t);
  world.send(client, udp({ source: '127.0.0.1' }));
  world.send(client, udp({ source: SERVER, destination: SERVER }));
  world.send(client, udp({ destination: '224.0.0.1' }));
  world.send(client, udp({ destination: '255.255.255.255' }));
  world.send(client, udp({ destination: '169.254.169.254' }));
  world.send(client, udp({ source: 'fe80::1', destination: 'ff02::2' }));
  assert.deepEqual(world.drops, { martian_source: 2, martian_destination: 2, link_scope: 2 });
  assert.deepEqual(client.take(), []);
});

test('malformed packets are counted by their reason and touch nothing', (t) => {
  const { world, client } = setUp(t);
  world.send(client, up().subarray(0, 15));
  world.send(client, Uint8Array.from([0x50, ...up().subarray(1)]));
  const badSum = up();
  badSum[10]! ^= 0xff;
  world.send(client, badSum);
  world.send(client, Uint8Array.from([...up(), 0]));
  world.send(client, up(), Uint8Array.from([1, 1, 0, 0, 0, 0, 99, 0, 16, 0]));
  assert.deepEqual(world.drops, {
    truncated: 1,
    bad_version: 1,
    bad_header_checksum: 1,
    length_mismatch: 1,
    bad_segmentation: 1,
  });
});

test('no_route: answered with host unreachable, remembered, recorded once', async (t) => {
  const { world, client } = setUp(t);
  for (let i = 0; i < 3; i++) world.send(client, up({ destination: '10.20.0.1' }));
  const answers = client.take().map(icmpError);
  assert.equal(answers.length, 3);
  assert.deepEqual(answers[0], { type: 3, code: 1, quotedPort: 4000, mtu: 0 });
  assert.deepEqual(world.drops, { no_route: 3 });
  assert.equal(world.counter(Counter.FlowMisses), 1);
  await world.clock.advance(REFUSAL_MS + 5000);
  const record = only(world.records);
  assert.deepEqual(
    [record.reason, record.packetsUp, record.offRamp],
    [CloseReason.OriginUnroutable, 3, null],
  );
});

test('unknown_protocol: what neither sockets nor streams can carry is refused', (t) => {
  const { world, client } = setUp(t);
  world.ways.set('internet', () => ({ kind: 'upgrade' }));
  world.routes.replace([testRoute('10.10.0.0/24', 'internet', {})]);
  world.send(
    client,
    twinPacket({ source: CLIENT, destination: SERVER, protocol: 47, transport: twinBytes(20) }),
  );
  assert.deepEqual(world.drops, { unknown_protocol: 1 });
  assert.deepEqual(only(client.take()).slice(20, 22), Uint8Array.from([3, 2]));
});

test('not_flow_start: resets and answers open nothing, whatever the policy', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, up({ flags: Rst }));
  world.send(client, up({ flags: Syn | Ack }));
  assert.deepEqual(world.drops, { not_flow_start: 2 });
  assert.deepEqual([client.take(), server.take(), world.records], [[], [], []]);
});

test('not_flow_start: a connection met in its middle is forwarded, unless the option says no', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, up({ flags: Ack, payload: twinBytes(9) }));
  assert.equal(server.take().length, 1);
  assert.equal(world.pipeline.summaries({})[0]?.state, 'established');
  const strict = setUp(t, { parts: { forwardMidStream: false } });
  strict.world.send(strict.client, up({ flags: Ack }));
  assert.deepEqual(strict.world.drops, { not_flow_start: 1 });
  assert.equal(parse(only(strict.client.take())).packet.tcpFlags & Rst, Rst, 'the sender is told');
});

test('icmp_unsupported and icmp_unrelated: only echo, and errors about flows, pass', (t) => {
  const { world, client, server } = setUp(t);
  const icmp = (source: string, destination: string, transport: Uint8Array): Uint8Array =>
    twinPacket({ source, destination, protocol: 1, transport });
  world.send(client, icmp(CLIENT, SERVER, Uint8Array.from([13, 0, 0, 0, 0, 0, 0, 0])));
  assert.deepEqual(world.drops, { icmp_unsupported: 1 });
  const error = icmp(SERVER, CLIENT, Uint8Array.from([3, 1, 0, 0, 0, 0, 0, 0, ...up().subarray(0, 40)]));
  world.send(server, error);
  assert.deepEqual(world.drops, { icmp_unsupported: 1, icmp_unrelated: 1 });
  world.send(client, icmp(CLIENT, SERVER, twinEcho(0, 5, twinBytes(8))));
  assert.deepEqual(world.drops, { icmp_unsupported: 1, icmp_unrelated: 2 });
  assert.deepEqual([client.take(), server.take()], [[], []]);
});

test('flow_table_full and account_flow_limit: an active account may not push its own flows out', (t) => {
  const { world, client, server } = setUp(t, { limits: { flowsMax: 16 } });
  for (let i = 0; i < 20; i++) world.send(client, udp({ ports: [1000 + i, 53] }));
  assert.deepEqual(world.drops, { flow_table_full: 4 });
  assert.equal(server.take().length, 16);
  const capped = setUp(t, { limits: { flowsPerAccountMax: 8 } });
  for (let i = 0; i < 10; i++) capped.world.send(capped.client, udp({ ports: [1000 + i, 53] }));
  assert.deepEqual(capped.world.drops, { account_flow_limit: 2 });
});

test('eviction: the account with most flows gives one up for another account, with a record', (t) => {
  const { world, client } = setUp(t, { limits: { flowsMax: 16 } });
  for (let i = 0; i < 16; i++) world.send(client, udp({ ports: [1000 + i, 53] }));
  const globex = world.tunnel('wg', ['10.0.0.0/24'], { account: 'globex' });
  const far = world.tunnel('far', [], { account: 'globex' });
  world.leadTo('office', far);
  world.routes.replace([
    testRoute('10.10.0.0/24', 'office'),
    testRoute('10.10.0.0/24', 'office', { account: 'globex' }),
  ]);
  world.send(globex, udp({}));
  assert.equal(far.take().length, 1);
  assert.equal(world.counter(Counter.FlowsEvicted), 1);
  const record = only(world.records);
  assert.deepEqual([record.account, record.reason], ['acme', CloseReason.Limit]);
  assert.deepEqual(world.drops, {});
});

test('tunnel_closed: flows of a closed tunnel end with their reason', (t) => {
  const { world, client, server } = setUp(t);
  const second = world.tunnel('wg', ['10.0.0.0/24']);
  world.send(client, udp({}));
  world.send(second, udp({ source: '10.0.0.2' }));
  client.close();
  assert.equal(only(world.records).reason, CloseReason.ClientClosed);
  server.close();
  assert.equal(world.records[1]?.reason, CloseReason.OriginClosed);
  assert.equal(world.pipeline.table.count, 0);
  world.send(second, udp({ source: '10.0.0.2' }));
  assert.equal(world.pipeline.summaries({})[0]?.state, 'open', 'the way is still configured');
  assert.deepEqual(world.drops, { tunnel_closed: 1 });
});

test('queue_full: what the tunnel answers is counted, and the flow lives', (t) => {
  const { world, client, server } = setUp(t);
  server.answer = DropReason.QueueFull;
  world.send(client, udp({}));
  assert.deepEqual(world.drops, { queue_full: 1 });
  assert.equal(world.pipeline.table.count, 1);
});

test('network_unknown never happens here: a way out into another network is no way out', (t) => {
  const { world, client } = setUp(t);
  const foreign = world.tunnel('far', [], { vnet: 'staging' });
  world.ways.set('office', () => ({ kind: 'tunnel', tunnel: foreign }));
  world.send(client, udp({}));
  assert.deepEqual(world.drops, { no_route: 1 });
  assert.deepEqual(foreign.take(), []);
  assert.match(world.pipeline.summaries({})[0]?.rule ?? '', /of another network/);
});
