import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import type { SocketAddress } from '#base/ip.ts';
import { PACKET_HEADROOM } from '#packet/virtio-header.ts';
import { makeGueHeader } from '#protocol/gue/gue.ts';
import { Counter } from '#proxy/stats.ts';

import { type Admitted, isRefusal } from './admission.ts';
import { GuePort, type GuePortOptions } from './gue-port.ts';
import type { GueTunnel } from './gue-tunnel.ts';
import { openTestHost, type TestHost, until } from './test-host.ts';

type InetAddress = SocketAddress & { readonly family: 4 | 6 };
const CONTEXT = '{"account":"acme","vnet":"prod","sources":["10.0.0.0/8"]}';

function start(t: TestContext, options: Parameters<typeof openTestHost>[0] = {}) {
  const host = openTestHost(options);
  t.after(() => host.stop());
  return host;
}

function openPort(host: TestHost, options: Partial<GuePortOptions> = {}): GuePort {
  const port = new GuePort(host, {
    name: 'gue',
    sources: [],
    listen: { family: 6, address: '::', port: 0 },
    mtu: 1400,
    ...options,
  });
  host.defer(() => port.close());
  return port;
}

/** A tunnel of the config from `near` to the port `far`. */
function openPeer(host: TestHost, near: GuePort, far: GuePort, blob = CONTEXT): GueTunnel {
  const admitted = host.admission.ofSpec({ account: 'acme', vnet: 'prod' }, { name: 'out', sources: [] });
  assert.ok(!isRefusal(admitted));
  const { port } = far.address as InetAddress;
  const remote = { family: 4, address: '127.0.0.1', port } as const;
  return near.openPeer({ ...(admitted as Admitted), name: 'out', remote, blob: Buffer.from(blob) });
}

/** An IPv4 packet as far as GUE looks at it, in a slot of its own. */
function packet(host: TestHost, length: number, fill: number): number {
  const offset = host.worker.packets.acquire() + PACKET_HEADROOM;
  host.io.arena.bytes.fill(fill, offset, offset + length);
  host.io.arena.bytes[offset] = 0x45;
  return offset;
}

/** A sender that is nothing but a socket. */
async function plainSocket(t: TestContext): Promise<Socket> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.after(() => socket.close());
  return socket;
}

function datagram(context: string, packetBytes: Uint8Array, protocol = 4): Uint8Array {
  const header = makeGueHeader(Buffer.from(context));
  header[1] = protocol;
  return Buffer.concat([header, packetBytes]);
}

test('the context travels in every datagram, and answers go back to whom it came from', async (t) => {
  const near = start(t);
  const far = start(t);
  const nearPort = openPort(near);
  const farPort = openPort(far);
  const out = openPeer(near, nearPort, farPort);
  for (const fill of [1, 2, 3]) {
    assert.equal(out.send(packet(near, 100 + fill, fill), 100 + fill), DropReason.None);
  }
  await until('three packets came', () => far.recorded.packets.length === 3);
  assert.deepEqual(
    far.recorded.packets.map(({ bytes }) => [bytes.length, bytes[0], bytes[1]]),
    [
      [101, 0x45, 1],
      [102, 0x45, 2],
      [103, 0x45, 3],
    ],
  );
  const [tunnel] = [...far.registry.open()] as [GueTunnel];
  assert.equal(farPort.tunnelCount, 1);
  assert.match(tunnel.name, /^gue#1 \[::ffff:127\.0\.0\.1\]:|^gue#1 \[::ffff:7f00:1\]:/);
  assert.equal(tunnel.context.account, 'acme');
  assert.equal(tunnel.send(packet(far, 60, 9), 60), DropReason.None);
  await until('the answer came', () => near.recorded.packets.length === 1);
  assert.equal(near.recorded.packets[0]?.tunnel, out);
  assert.equal(near.recorded.packets[0]?.bytes[59], 9);
  assert.equal(nearPort.tunnelCount, 1, 'the answer belongs to the tunnel of the config');
  assert.equal(near.worker.packets.inUse + far.worker.packets.inUse, 0);
});

test('runs of equal packets, with a shorter last one, arrive whole and in order', async (t) => {
  const near = start(t);
  const far = start(t);
  const out = openPeer(near, openPort(near), openPort(far));
  const lengths = [...Array(150).fill(1400), 900, ...Array(70).fill(1300), 1400, 40];
  for (const [at, length] of lengths.entries()) out.send(packet(near, length, at & 0xff), length);
  await until('all came', () => far.recorded.packets.length === lengths.length);
  for (const [at, { bytes }] of far.recorded.packets.entries()) {
    assert.equal(bytes.length, lengths[at]);
    assert.equal(bytes.at(-1), at & 0xff);
  }
  const figures = near.registry.figures(out.index);
  assert.deepEqual([figures.packetsOut, figures.dropsOut], [lengths.length, 0]);
});

test('a refused context is asked about once, until the refusal is forgotten', async (t) => {
  let asked = 0;
  const near = start(t);
  const far = start(t, {
    hook: () => {
      asked++;
      return { action: 'refuse', reason: 'unknown branch' };
    },
  });
  const farPort = openPort(far, { refusalMs: 50 });
  const out = openPeer(near, openPort(near), farPort, 'who');
  const send = async (count: number): Promise<void> => {
    const { drops } = far.worker.stats;
    const dropped = () =>
      (drops[DropReason.BadContext] as number) + (drops[DropReason.HookRejected] as number);
    const before = dropped();
    for (let i = 0; i < count; i++) out.send(packet(near, 50, i), 50);
    await until('they are dropped', () => dropped() === before + count);
  };
  await send(20);
  assert.equal(asked, 1);
  assert.equal(far.worker.stats.counters[Counter.TunnelsRefused], 1);
  assert.match(far.events.at(-1)?.text ?? '', /unknown branch/);
  await until('it is forgotten', () => {
    out.send(packet(near, 50, 0), 50);
    return asked === 2;
  });
  assert.equal(far.recorded.packets.length, 0);
  assert.equal(farPort.tunnelCount, 0);
});

test('packets that come while the hook thinks are held, but not without bound', async (t) => {
  const near = start(t);
  const answers: (() => void)[] = [];
  const far = start(t, {
    hook: () =>
      new Promise((resolve) => {
        answers.push(() => resolve({ action: 'accept', context: { account: 'acme', vnet: 'prod' } }));
      }),
  });
  const out = openPeer(near, openPort(near), openPort(far), 'who');
  for (let fill = 0; fill < 40; fill++) out.send(packet(near, 50, fill), 50);
  await until('the rest is dropped', () => far.worker.stats.drops[DropReason.NoBuffer] === 24);
  assert.equal(far.worker.packets.inUse, 16);
  assert.equal(answers.length, 1);
  answers[0]?.();
  await until('the held ones came', () => far.recorded.packets.length === 16);
  assert.deepEqual(
    far.recorded.packets.map(({ bytes }) => bytes[1]),
    Array.from({ length: 16 }, (_, fill) => fill),
  );
});

test('a port that closes while the hook thinks gives back what it held', async (t) => {
  const near = start(t);
  let answer: (() => void) | null = null;
  const far = start(t, {
    hook: () =>
      new Promise((resolve) => {
        answer = () => resolve({ action: 'refuse', reason: 'late' });
      }),
  });
  const farPort = openPort(far);
  const out = openPeer(near, openPort(near), farPort, 'who');
  out.send(packet(near, 50, 1), 50);
  await until('the hook was asked', () => answer !== null);
  farPort.close();
  assert.equal(far.worker.packets.inUse, 0);
  (answer as unknown as () => void)();
});

test('a port that is closed by what a packet leads to drops the rest of the batch', async (t) => {
  const near = start(t);
  let came = 0;
  let port: GuePort | null = null;
  const far = start(t, {
    sink: (worker) => ({
      onPacket: (_tunnel, offset) => {
        worker.packets.release(offset);
        came++;
        port?.close();
      },
      onBatchEnd: () => {},
      onTunnelClosed: () => {},
    }),
  });
  port = openPort(far);
  const out = openPeer(near, openPort(near), port);
  for (let fill = 0; fill < 30; fill++) out.send(packet(near, 50, fill), 50);
  await until('one came', () => came > 0);
  await until('the socket is closed', () => far.io.audit().descriptors === 0);
  assert.equal(came, 1);
  assert.equal(port.tunnelCount + far.registry.count + far.worker.packets.inUse, 0);
});

test('datagrams that are no GUE of ours are dropped with a reason', async (t) => {
  const host = start(t);
  const port = openPort(host);
  const { port: number } = port.address as InetAddress;
  const socket = await plainSocket(t);
  const inner = new Uint8Array(40).fill(0x45);
  const good = datagram(CONTEXT, inner);
  const cases: [name: string, bytes: Uint8Array, reason: number][] = [
    ['short', Uint8Array.of(0, 4), DropReason.BadEncapsulation],
    ['other variant', with0(good, 0x40 | (good[0] as number)), DropReason.BadEncapsulation],
    ['control message', with0(good, 0x20 | (good[0] as number)), DropReason.BadEncapsulation],
    ['header longer than the datagram', good.slice(0, 20), DropReason.BadEncapsulation],
    ['IPv6 by name, IPv4 inside', datagram(CONTEXT, inner, 41), DropReason.BadEncapsulation],
    ['private data of another form', with4(good, 9), DropReason.BadContext],
    ['no context', datagram('', inner), DropReason.BadContext],
    ['a context that is no JSON', datagram('{', inner), DropReason.BadContext],
    ['a network that is not here', datagram('{"account":"a","vnet":"no"}', inner), DropReason.NetworkUnknown],
  ];
  for (const [name, bytes, reason] of cases) {
    const { drops } = host.worker.stats;
    const before = drops[reason] as number;
    socket.send(bytes, number, '127.0.0.1');
    await until(`${name} is dropped`, () => drops[reason] === before + 1);
  }
  assert.equal(host.worker.packets.inUse, 0);
  assert.equal(host.recorded.packets.length, 0);
  socket.send(good, number, '127.0.0.1');
  await until('a good one still comes', () => host.recorded.packets.length === 1);
});

function with0(bytes: Uint8Array, first: number): Uint8Array {
  return Uint8Array.from(bytes, (byte, at) => (at === 0 ? first : byte));
}

function with4(bytes: Uint8Array, fifth: number): Uint8Array {
  return Uint8Array.from(bytes, (byte, at) => (at === 4 ? fifth : byte));
}

test('the pair that was not used for longest makes room for a new one', async (t) => {
  const host = start(t);
  const port = openPort(host, { contextsMax: 2 });
  const { port: number } = port.address as InetAddress;
  const socket = await plainSocket(t);
  const inner = new Uint8Array(40).fill(0x45);
  for (const [at, user] of ['ann', 'bob', 'ann', 'cid'].entries()) {
    const context = JSON.stringify({ account: 'acme', vnet: 'prod', user });
    socket.send(datagram(context, inner), number, '127.0.0.1');
    await until('it came', () => host.recorded.packets.length === at + 1);
  }
  assert.deepEqual(
    host.recorded.closed.map(({ context }) => context.identity?.user),
    ['bob'],
  );
  assert.equal(port.tunnelCount, 2);
  port.close();
  assert.equal(host.recorded.closed.length, 3);
  assert.equal(host.registry.count, 0);
});

test('a port that accepts nobody takes packets of its configured tunnels only', async (t) => {
  const near = start(t);
  const far = start(t);
  const farPort = openPort(far, { accept: false });
  const nearPort = openPort(near);
  const back = openPeer(far, farPort, nearPort);
  const out = openPeer(near, nearPort, farPort);
  out.send(packet(near, 50, 1), 50);
  await until('it came', () => far.recorded.packets.length === 1);
  assert.equal(far.recorded.packets[0]?.tunnel, back);
  const stranger = openPeer(near, nearPort, farPort, `${CONTEXT} `);
  stranger.send(packet(near, 50, 1), 50);
  await until('it is dropped', () => far.worker.stats.drops[DropReason.BadContext] === 1);
});

test('a remote that is gone costs its packets only', async (t) => {
  const near = start(t);
  const far = start(t);
  const nearPort = openPort(near);
  const farPort = openPort(far);
  const gone = openPort(far);
  const lost = openPeer(near, nearPort, gone);
  const out = openPeer(near, nearPort, farPort);
  gone.close();
  for (let i = 0; i < 5; i++) {
    lost.send(packet(near, 50, 1), 50);
    out.send(packet(near, 50, 2), 50);
    await until('it came', () => far.recorded.packets.length > i);
  }
  assert.equal(near.worker.packets.inUse, 0);
});

test('a context that does not fit into a datagram is an error when the tunnel is configured', (t) => {
  const host = start(t);
  const port = openPort(host);
  assert.throws(() => openPeer(host, port, port, 'x'.repeat(123)), { code: 'RAMP_CONTEXT' });
  assert.equal(host.registry.count, 0);
});
