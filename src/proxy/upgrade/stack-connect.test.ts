import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { Errno, type Fd } from '#io/io.ts';
import { namespaceSupport } from '#io/namespace.ts';
import type { InboundStream, IpTunnel } from '#proxy/proxy-contract.ts';
import { until } from '#proxy/tunnel/test-host.ts';

import type { StackConnectSpec } from './stack-connect.ts';
import {
  addClient,
  BULK_BYTES,
  DOWN_DIGEST,
  openStackWorld,
  rejection,
  runBulk,
  SERVER_PROGRAM,
  serveNode,
  type StackWorld,
  type StackWorldOptions,
} from './stack-test-world.ts';

const support = await namespaceSupport();
const options = { skip: support.device === 'none' ? support.message : false, timeout: 60_000 };

/*
 *   client ── tun0 ═ tunnel ─ pipeline ─ stack ─ stream ─ stack ─ pipeline ─ tunnel ═ tun0 ── private host
 *   10.0.0.2                   (upgrade)                  (downgrade)                         10.20.0.5 :8080
 */
async function start(t: TestContext, how: { offload: boolean; world?: StackWorldOptions }) {
  const world = await openStackWorld(how.world);
  t.after(() => world.host.stop());
  const far = await addClient(world, {
    addresses: ['10.20.0.5/32', 'fd00:20::5/128'],
    offload: how.offload,
  });
  world.ways.set('office', { kind: 'tunnel', tunnel: far.tunnel });
  await serveNode(world, far.namespace, SERVER_PROGRAM);
  return { world, far };
}

function specFor(tunnel: IpTunnel, to: string, port: number, flow = 1000): StackConnectSpec {
  const address = to.includes(':') ? 'fd00::77' : '10.0.0.77';
  return {
    context: tunnel.context,
    network: tunnel.network,
    source: { address, port: 0 },
    target: { address: to, port },
    via: 'office',
    flow,
    rule: 'test',
  };
}

/** Has every stream leave through the office's tunnel, to where its client wanted to go. */
function leaveByOffice(world: StackWorld, tunnel: IpTunnel): string[] {
  const failures: string[] = [];
  world.handler.take = (stream: InboundStream) => {
    const { address, port } = stream.destination;
    world.connector.connect(specFor(tunnel, address, port, stream.flow)).then(
      (fd) => world.host.worker.relays.start(stream.fd, fd, world.handler),
      (error: Error) => {
        failures.push(error.message);
        world.host.io.close(stream.fd);
      },
    );
    return true;
  };
  return failures;
}

for (const address of ['10.20.0.5', 'fd00:20::5']) {
  for (const offload of [true, false]) {
    const how = offload ? 'in super-packets' : 'in packets of its MTU';
    test(
      `a stream to ${address} leaves as packets by a tunnel, ${how}, and its data come back`,
      options,
      async (t) => {
        const { world, far } = await start(t, { offload });
        const failures = leaveByOffice(world, far.tunnel);
        const near = await addClient(world);
        const result = await runBulk(near.namespace, address, 8080);
        assert.deepEqual(failures, []);
        assert.equal(result.received, result.sent, result.line);
        assert.deepEqual([result.downBytes, result.downDigest], [BULK_BYTES, DOWN_DIGEST]);
        await until('the relay ended', () => world.handler.ended === 1);
        assert.deepEqual(world.handler.errors, []);
      },
    );
  }
}

test('many streams to one target leave by ports of their own', options, async (t) => {
  const { world, far } = await start(t, { offload: true });
  const { io } = world.host;
  const specs = Array.from({ length: 200 }, (_, at) => specFor(far.tunnel, '10.20.0.5', 8080, at + 1));
  const sockets = await Promise.all(specs.map((spec) => world.connector.connect(spec)));
  const ports = new Set<number>();
  const { table } = world.pipeline;
  for (let flow = 0; flow < table.slots; flow++) if (table.isLive(flow)) ports.add(table.sourcePort(flow));
  assert.equal(ports.size, 200);
  for (const fd of sockets) io.close(fd);
});

test(
  'a target that refuses, is silent, or has no tunnel is an error of its kind, and leaves nothing',
  options,
  async (t) => {
    const { world, far } = await start(t, { offload: true, world: { limits: { connectMs: 300 } } });
    const { connector, pipeline, stack, ways } = world;
    const refused = await rejection(connector.connect(specFor(far.tunnel, '10.20.0.5', 81)));
    assert.deepEqual([refused.code, refused.errno], ['RAMP_CONNECT', Errno.ECONNREFUSED]);
    const refused6 = await rejection(connector.connect(specFor(far.tunnel, 'fd00:20::5', 81)));
    assert.deepEqual([refused6.code, refused6.errno], ['RAMP_CONNECT', Errno.ECONNREFUSED]);
    ways.set('office', { kind: 'tunnel', tunnel: silentTunnel(world, far.tunnel) });
    const silent = await rejection(connector.connect(specFor(far.tunnel, '10.20.0.9', 80)));
    assert.equal(silent.code, 'RAMP_TIMEOUT');
    assert.deepEqual([silent.side, silent.retry], ['upstream', 'yes']);
    ways.set('office', { kind: 'upgrade' });
    const nowhere = await rejection(connector.connect(specFor(far.tunnel, '10.20.0.5', 8080)));
    assert.equal(nowhere.code, 'RAMP_CONNECT');
    assert.match(nowhere.message, /no_route/);
    assert.deepEqual([pipeline.table.count, stack.flows], [0, 0]);
  },
);

/** The same tunnel with everything that is sent lost. */
function silentTunnel(world: StackWorld, tunnel: IpTunnel): IpTunnel {
  const { index, name, mtu, context, network, offload } = tunnel;
  const send = (offset: number): 0 => {
    world.host.worker.packets.release(offset);
    return 0;
  };
  const lossy = { index, name, mtu, context, network, offload, send, close: () => {}, describe: () => null };
  const { registry } = world.host;
  const { get } = registry;
  registry.get = (which) => (which === index ? lossy : get.call(registry, which));
  return lossy;
}

test('a connection ends when its tunnel does', options, async (t) => {
  const { world, far } = await start(t, { offload: true });
  const fd: Fd = await world.connector.connect(specFor(far.tunnel, '10.20.0.5', 8080));
  far.tunnel.close();
  const { io } = world.host;
  await until('the socket is reset', () => io.tryRecv(fd, io.arena.reserve(64), 64) === -Errno.ECONNRESET);
  io.close(fd);
  assert.equal(world.stack.flows, 0);
});
