import assert from 'node:assert/strict';
import { test } from 'node:test';

import { twinEcho, twinPacket, twinTcp, twinUdp } from '#packet/twin.ts';

import { FlowWorld, testRoute, type TestTunnel } from './test-world.ts';

/** Repeatable chance. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return ((state >>> 8) * below) >>> 24;
  };
}

interface Pair {
  readonly id: number;
  readonly account: string;
  readonly vnet: string;
  readonly client: TestTunnel;
  readonly server: TestTunnel;
}

/** Networks that all use 10.0.0.0/24 for their clients and 10.10.0.0/24 for their servers. */
function build(world: FlowWorld, count: number): Pair[] {
  const pairs: Pair[] = [];
  for (let id = 0; id < count; id++) {
    // Two vnets in each account.
    const name = { account: `account-${id >> 1}`, vnet: (id & 1) === 0 ? 'production' : 'staging' };
    const client = world.tunnel('wg', ['10.0.0.0/24', 'fd00::/64'], name);
    const server = world.tunnel('office', ['10.10.0.0/24', 'fd10::/64'], name);
    pairs.push({ id, ...name, client, server });
  }
  const byNetwork = new Map(pairs.map((pair) => [pair.client.network, pair]));
  world.ways.set('office', (network) => {
    const pair = byNetwork.get(network);
    return pair === undefined ? null : { kind: 'tunnel', tunnel: pair.server };
  });
  world.ways.set('home', (network) => {
    const pair = byNetwork.get(network);
    return pair === undefined ? null : { kind: 'tunnel', tunnel: pair.client };
  });
  world.routes.replace(
    pairs.flatMap(({ account, vnet }) => [
      testRoute('10.10.0.0/24', 'office', { account, vnet }),
      testRoute('fd10::/64', 'office', { account, vnet }),
      testRoute('10.0.0.0/24', 'home', { account, vnet }),
    ]),
  );
  return pairs;
}

/** The mark of a network: its number, in the last four bytes of every packet. */
function mark(id: number): Uint8Array {
  return Uint8Array.from([0x4d, 0x41, id >> 8, id & 0xff]);
}

function checkArrivals(pairs: readonly Pair[]): number {
  let arrived = 0;
  for (const { id, client, server } of pairs) {
    for (const tunnel of [client, server]) {
      for (const bytes of tunnel.take()) {
        const end = bytes.subarray(bytes.length - 4);
        // ICMP errors of the proxy itself quote the packet whole, so they end with its mark too.
        assert.deepEqual([...end], [...mark(id)], `${tunnel.name} got a packet of another network`);
        arrived++;
      }
    }
  }
  return arrived;
}

test('1,000 networks with equal addresses on both sides never see a packet of each other', () => {
  const world = new FlowWorld({ limits: { flowsMax: 1 << 16, flowsPerAccountMax: 1 << 16 } });
  const pairs = build(world, 1000);
  const next = random(2026);
  const flags = [2, 18, 16, 24, 17, 4] as const;
  let arrived = 0;
  for (let step = 0; step < 30_000; step++) {
    const pair = pairs[next(pairs.length)] as Pair;
    const payload = mark(pair.id);
    const isUp = next(2) === 0;
    const v6 = next(4) === 0;
    // Few hosts and ports, so that nearly every tuple exists in nearly every network at once.
    const near = v6 ? `fd00::${1 + next(2)}` : `10.0.0.${1 + next(2)}`;
    const far = v6 ? `fd10::${1 + next(2)}` : `10.10.0.${1 + next(2)}`;
    const ports = [1000 + next(2), 80] as const;
    const [sourcePort, destinationPort] = isUp ? ports : [ports[1], ports[0]];
    const kind = next(3);
    const protocol = kind === 0 ? 6 : kind === 1 ? 17 : v6 ? 58 : 1;
    const transport =
      kind === 0
        ? twinTcp({ sourcePort, destinationPort, flags: flags[next(flags.length)] as number, payload })
        : kind === 1
          ? twinUdp(sourcePort, destinationPort, payload)
          : twinEcho((isUp ? [8, 128] : [0, 129])[v6 ? 1 : 0] as number, 7, payload);
    const [source, destination] = isUp ? [near, far] : [far, near];
    const ttl = next(20) === 0 ? 1 : 64;
    world.send(
      isUp ? pair.client : pair.server,
      twinPacket({ source, destination, protocol, transport, ttl }),
    );
    if (step % 1000 === 999) arrived += checkArrivals(pairs);
  }
  assert.ok(arrived > 15_000, `${arrived} packets arrived`);
  const { table } = world.pipeline;
  assert.ok(table.count > 2000);
  for (let flow = 0; flow < table.slots; flow++) {
    if (!table.isLive(flow)) continue;
    const { context } = world.pipeline.coldInfo(flow);
    const network = world.networks.find(context.account, context.vnet);
    assert.equal(table.network(flow), network);
    for (const index of [table.ingress(flow), table.egress(flow)]) {
      if (index !== 0) assert.equal(world.tunnels[index]?.network, network);
    }
  }
  assert.equal(world.leaked, 0);
});

test('closing one network’s tunnels and routes leaves the same flows of all others alone', () => {
  const world = new FlowWorld();
  const pairs = build(world, 20);
  const packet = (id: number): Uint8Array =>
    twinPacket({
      source: '10.0.0.1',
      destination: '10.10.0.1',
      protocol: 17,
      transport: twinUdp(1000, 53, mark(id)),
    });
  for (const { id, client } of pairs) world.send(client, packet(id));
  assert.equal(world.pipeline.table.count, 20);
  const [gone] = pairs as [Pair, ...Pair[]];
  gone.client.close();
  assert.equal(world.pipeline.table.count, 19);
  const others = pairs.slice(1);
  world.pipeline.routesRemoved(
    world.routes.replace(
      others.map(({ account, vnet }) => testRoute('10.10.0.0/24', 'office', { account, vnet })),
    ),
  );
  assert.equal(world.pipeline.table.count, 19);
  assert.deepEqual(
    world.records.map(({ account, vnet }) => [account, vnet]),
    [[gone.account, gone.vnet]],
  );
  for (const { id, client } of others) world.send(client, packet(id));
  checkArrivals(pairs);
});
