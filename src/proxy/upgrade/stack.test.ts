import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { test, type TestContext } from 'node:test';

import { CloseReason } from '#contract/record.ts';
import { Errno } from '#io/io.ts';
import { namespaceSupport, openPrivateNamespace, type PrivateNamespace } from '#io/namespace.ts';
import { RouteSocket } from '#io/netlink.ts';
import { Counter } from '#proxy/stats.ts';
import { until } from '#proxy/tunnel/test-host.ts';

import { Stack } from './stack.ts';
import {
  addClient,
  BULK_BYTES,
  DOWN_DIGEST,
  openStackWorld,
  resetSocket,
  runBulk,
  runNode,
  serveNode,
  startServer,
  type StackWorld,
  type StackWorldOptions,
} from './stack-test-world.ts';

const support = await namespaceSupport();
const skip = support.device === 'none' ? support.message : false;
const lacksThread = support.mode === 'thread' ? false : 'needs root to connect two namespaces';
const options = { skip, timeout: 60_000 };

async function start(t: TestContext, with_: StackWorldOptions = {}): Promise<StackWorld> {
  const world = await openStackWorld(with_);
  t.after(() => world.host.stop());
  return world;
}

for (const address of ['203.0.113.9', '2001:db8::9']) {
  for (const offload of [true, false]) {
    const how = offload ? 'in super-packets' : 'in packets of its MTU';
    test(
      `a flow to ${address} that comes ${how} is a stream with the client's own destination`,
      options,
      async (t) => {
        const world = await start(t);
        await startServer(world);
        const { namespace } = await addClient(world, { offload });
        const result = await runBulk(namespace, address, 8080);
        assert.equal(result.received, result.sent, result.line);
        assert.deepEqual([result.downBytes, result.downDigest], [BULK_BYTES, DOWN_DIGEST]);
        const [stream] = world.handler.streams;
        assert.deepEqual(stream?.destination, { address, port: 8080 });
        assert.equal(stream?.source.address, address.includes(':') ? 'fd00::2' : '10.0.0.2');
        assert.equal(stream?.context.vnet, 'prod');
        assert.equal(stream?.route, 'sockets');
        await until('the flow said goodbye', () => world.handler.ended === 1);
        assert.deepEqual(world.handler.errors, []);
      },
    );
  }
}

test('two networks with the same addresses do not meet in the stack', options, async (t) => {
  const world = await start(t);
  const server = (name: string) => answeringServer(world, name);
  const ports = new Map([
    ['prod', await server('prod')],
    ['staging', await server('staging')],
  ]);
  world.handler.take = (stream) => {
    world.handler.port = ports.get(stream.context.vnet) as number;
    return false;
  };
  const clients = [await addClient(world, { vnet: 'prod' }), await addClient(world, { vnet: 'staging' })];
  const ask = `
    const net = require('node:net'); let left = 40; const seen = {};
    const ask = (port) => {
      const socket = net.connect({ host: '10.10.0.10', port: 80, localPort: port }); let text = '';
      socket.on('data', (data) => { text += data; });
      socket.on('error', (error) => { text += error.code; });
      socket.on('close', () => {
        seen[text] = (seen[text] ?? 0) + 1;
        if (--left === 0) console.log(JSON.stringify(seen));
      });
    };
    for (let port = 20000; port < 20040; port++) ask(port);`;
  const [first, second] = await Promise.all(clients.map(({ namespace }) => runNode(namespace, ask)));
  assert.deepEqual(JSON.parse(first as string), { prod: 40 });
  assert.deepEqual(JSON.parse(second as string), { staging: 40 });
});

/** A server that says `text` to everybody and ends. */
async function answeringServer(world: StackWorld, text: string): Promise<number> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.end(text);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  world.host.defer(async () => {
    server.close();
    await once(server, 'close');
  });
  return (server.address() as AddressInfo).port;
}

test('a thousand flows at once keep their data apart', options, async (t) => {
  const world = await start(t);
  const echo = createServer((socket) => socket.on('error', () => {}).pipe(socket));
  echo.listen(0, '127.0.0.1', 2048);
  await once(echo, 'listening');
  world.handler.port = (echo.address() as AddressInfo).port;
  const { namespace } = await addClient(world);
  const program = `
    const net = require('node:net'); const count = 1000; const sockets = [];
    let open = 0, right = 0, closed = 0;
    const start = () => { for (const [socket, words] of sockets) socket.end(words); };
    for (let i = 0; i < count; i++) {
      const low = 1 + (i % 250);
      const address = i % 2 === 0 ? '10.10.' + (i >> 8) + '.' + low : 'fd00:1::' + (i + 1).toString(16);
      const text = ('flow ' + i + ' ').repeat(500); let back = '';
      const socket = net.connect(80, address, () => { if (++open === count) start(); });
      sockets.push([socket, text]);
      socket.on('data', (data) => { back += data; });
      socket.on('error', (error) => console.log(error.code));
      socket.on('close', () => {
        if (back === text) right++;
        if (++closed === count) console.log(open, right);
      });
    }`;
  assert.equal(await runNode(namespace, program), '1000 1000');
  await until('all relays ended', () => world.handler.ended === 1000);
  echo.close();
  assert.equal(world.handler.streams.length, 1000);
  assert.equal(new Set(world.handler.streams.map(({ flow }) => flow)).size, 1000);
});

test('a stream that is reset resets the client, and one that is closed ends it', options, async (t) => {
  const world = await start(t);
  const { namespace } = await addClient(world);
  const ask = `
    const socket = require('node:net').connect(80, '10.10.0.10');
    socket.on('error', (error) => console.log(error.code)); socket.on('end', () => console.log('end'));
    socket.on('connect', () => socket.write('x'));`;
  world.handler.take = ({ fd }) => {
    resetSocket(world.host.worker, fd);
    return true;
  };
  assert.equal(await runNode(namespace, ask), 'ECONNRESET');
  world.handler.take = ({ fd }) => {
    world.host.io.shutdownWrite(fd);
    world.host.defer(() => world.host.io.close(fd));
    return true;
  };
  assert.equal(await runNode(namespace, ask), 'end');
});

test(
  'a flow that ends before its socket resets the socket, whether it is idle or not',
  options,
  async (t) => {
    const world = await start(t);
    await startServer(world);
    const { namespace, tunnel } = await addClient(world);
    const idle = `
    const socket = require('node:net').connect(80, '10.10.0.10', () => console.log('ready'));
    socket.on('error', () => {}); setInterval(() => {}, 1000);`;
    await serveNode(world, namespace, idle);
    await until('the stream is there', () => world.handler.streams.length === 1);
    const flow = liveFlow(world);
    world.pipeline.endFlow(flow, CloseReason.RouteRemoved);
    await until('the relay ended', () => world.handler.ended === 1);
    assert.deepEqual(world.handler.errors, [Errno.ECONNRESET]);

    const busy = `
    const socket = require('node:net').connect(80, '10.10.0.10', () => console.log('ready'));
    socket.on('error', () => {});
    const more = () => socket.write(Buffer.alloc(65536)) ? setImmediate(more) : socket.once('drain', more);
    more();`;
    await serveNode(world, namespace, busy);
    await until('the second stream is there', () => world.handler.streams.length === 2);
    tunnel.close();
    await until('the second relay ended', () => world.handler.ended === 2);
    assert.equal(world.handler.errors.length, 2);
    assert.equal(world.stack.flows, 0);
    assert.equal(world.pipeline.table.count, 0);
  },
);

function liveFlow(world: StackWorld): number {
  for (let flow = 0; ; flow++) if (world.pipeline.table.isLive(flow)) return flow;
}

test('a segment of a connection that nobody knows is answered with a reset', options, async (t) => {
  const world = await start(t);
  await startServer(world);
  const { namespace } = await addClient(world);
  const ask = `
    const socket = require('node:net').connect(80, '10.10.0.10', () => console.log('ready'));
    socket.on('error', (error) => { console.log(error.code); process.exit(0); });
    setInterval(() => socket.write('x'), 20);`;
  const outcome = runNode(namespace, ask);
  await until('the stream is there', () => world.handler.streams.length === 1);
  world.pipeline.endFlow(liveFlow(world), CloseReason.RouteRemoved);
  const lines = (await outcome).split('\n');
  assert.equal(lines[0], 'ready');
  assert.match(lines[1] ?? '', /ECONNRESET|EPIPE/);
});

test('another stack goes on with the flows of one that was detached', options, async (t) => {
  const world = await start(t);
  const echo = createServer((socket) => socket.on('error', () => {}).pipe(socket));
  echo.listen(0, '127.0.0.1');
  await once(echo, 'listening');
  world.handler.port = (echo.address() as AddressInfo).port;
  const { namespace } = await addClient(world);
  const ask = `
    const socket = require('node:net').connect(80, '10.10.0.10', () => socket.write('0')); let last = -1;
    socket.on('error', (error) => { console.log(error.code); process.exit(); });
    socket.on('data', (data) => {
      if (+data !== last + 1) console.log('lost', String(data), last);
      last = +data;
      if (last === 2000) { socket.end(); console.log('all'); } else socket.write(String(last + 1));
    });`;
  const outcome = runNode(namespace, ask);
  await until('data flows', () => world.handler.streams.length === 1);
  const { stack, place, host, handler } = world;
  const state = structuredClone(stack.detach());
  const next = new Stack(host.worker, {
    place,
    host: world.pipeline,
    tunnels: host.registry,
    streams: handler,
    state,
  });
  world.use(next);
  assert.equal(await outcome, 'all');
  assert.equal(await runNode(namespace, ask), 'all');
  assert.equal(handler.streams.length, 2);
  echo.close();
});

test('it works without privilege, and where there is no TUN', options, async (t) => {
  const world = await start(t, { namespace: { mode: 'helper' }, device: { kind: 'packet-socket' } });
  await startServer(world);
  const { namespace } = await addClient(world, { kind: 'packet-socket' });
  for (const address of ['203.0.113.9', '2001:db8::9']) {
    const result = await runBulk(namespace, address, 8080);
    assert.equal(result.received, result.sent, result.line);
    assert.equal(result.downDigest, DOWN_DIGEST);
  }
});

test('a narrow link behind the client is found by its ICMP errors', {
  ...options,
  skip: skip || lacksThread,
}, async (t) => {
  const world = await start(t);
  await startServer(world);
  const { namespace: router } = await addClient(world);
  const middle = await openPrivateNamespace();
  const behind = await openPrivateNamespace();
  world.namespaces.push(middle, behind);
  await connectNarrowly(router, middle, behind);
  for (const address of ['203.0.113.9', '2001:db8::9']) {
    const errors = world.host.worker.stats.counters[Counter.IcmpErrorsTranslated] as number;
    const result = await runBulk(behind, address, 8080);
    assert.equal(result.received, result.sent, result.line);
    assert.equal(result.downDigest, DOWN_DIGEST);
    assert.ok((world.host.worker.stats.counters[Counter.IcmpErrorsTranslated] as number) > errors);
  }
});

/**
 * Behind the client's namespace, another one over a link that is narrower than either end knows. A veth pair
 * silently drops what is longer than its other end takes, so both ends of the narrow one have the same MTU.
 *
 * ```
 *   stack … tun0 (1500) router (1300) ── (1300) middle (1500) ── (1500) behind
 * ```
 */
async function connectNarrowly(
  router: PrivateNamespace,
  middle: PrivateNamespace,
  behind: PrivateNamespace,
): Promise<void> {
  link(router, middle, { name: 'narrow', mtu: 1300 });
  link(middle, behind, { name: 'wide', mtu: 1500 });
  const forwarding = { 'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1 };
  await router.configure({
    sysctls: forwarding,
    addresses: ['10.0.7.1/24', 'fd00:7::1/64'].map((address) => ({ device: 'narrow', address })),
    routes: [
      { destination: '10.0.8.0/24', device: 'narrow', gateway: '10.0.7.2' },
      { destination: 'fd00:8::/64', device: 'narrow', gateway: 'fd00:7::2' },
    ],
  });
  await middle.configure({
    sysctls: forwarding,
    addresses: [
      ...['10.0.7.2/24', 'fd00:7::2/64'].map((address) => ({ device: 'narrow-up', address })),
      ...['10.0.8.1/24', 'fd00:8::1/64'].map((address) => ({ device: 'wide', address })),
    ],
    routes: [
      { destination: '0.0.0.0/0', device: 'narrow-up', gateway: '10.0.7.1' },
      { destination: '::/0', device: 'narrow-up', gateway: 'fd00:7::1' },
    ],
  });
  await behind.configure({
    addresses: ['10.0.8.2/24', 'fd00:8::2/64'].map((address) => ({ device: 'wide-up', address })),
    routes: [
      { destination: '0.0.0.0/0', device: 'wide-up', gateway: '10.0.8.1' },
      { destination: '::/0', device: 'wide-up', gateway: 'fd00:8::1' },
    ],
  });
}

/** A link `name` from one namespace down to another, which calls it `name-up`. */
function link(
  from: PrivateNamespace,
  to: PrivateNamespace,
  { name, mtu }: { readonly name: string; readonly mtu: number },
): void {
  const peerName = `${name}-up`;
  const peerNamespaceFd = openSync(to.path, 'r');
  from.run(() => {
    const route = new RouteSocket();
    route.createVeth({ name, peerName, mtu, peerNamespaceFd });
    route.changeLink(route.linkIndex(name), { mtu, up: true });
    route.close();
  });
  closeSync(peerNamespaceFd);
  to.run(() => {
    const route = new RouteSocket();
    route.changeLink(route.linkIndex(peerName), { mtu, up: true });
    route.close();
  });
}
