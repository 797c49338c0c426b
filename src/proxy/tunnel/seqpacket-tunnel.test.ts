import assert from 'node:assert/strict';
import { mkdtempSync, existsSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import type { Fd, Io } from '#io/io.ts';
import { Errno } from '#io/io.ts';
import { PACKET_HEADROOM, PACKET_LENGTH_MAX } from '#packet/virtio-header.ts';
import { Counter } from '#proxy/stats.ts';

import { isRefusal, type Admitted } from './admission.ts';
import { CANDIDATES_MAX, SeqpacketListener } from './seqpacket-listener.ts';
import { SeqpacketTunnel } from './seqpacket-tunnel.ts';
import { openTestHost, type TestHost, until } from './test-host.ts';

const CONTEXT = JSON.stringify({ account: 'acme', vnet: 'prod', sources: ['10.0.0.0/8'] });

function socketPath(): string {
  return join(mkdtempSync(join(tmpdir(), 'rampart-seqpacket-')), 'tunnel.sock');
}

function listen(host: TestHost, path: string, contextMs?: number): SeqpacketListener {
  return new SeqpacketListener(host, {
    name: 'edge',
    sources: [],
    listen: { family: 'unix', path },
    mtu: 1500,
    ...(contextMs === undefined ? {} : { contextMs }),
  });
}

/** A peer that is nothing but a socket. */
class Peer {
  readonly fd: Fd;
  readonly #io: Io;
  readonly #scratch: number;

  constructor(io: Io, path: string) {
    this.#io = io;
    this.#scratch = io.arena.reserve(1 << 17, 4096);
    this.fd = io.socket('unix-seqpacket');
    io.connect(this.fd, { family: 'unix', path }, this, 0);
  }

  onCompletion(_tag: number, result: number): void {
    assert.equal(result, 0);
  }

  send(bytes: string | Uint8Array): number {
    const data = Buffer.from(bytes);
    this.#io.arena.bytes.set(data, this.#scratch);
    return this.#io.trySend(this.fd, this.#scratch, data.length);
  }

  /** One message, null when there is none, 'closed' at the end. */
  receive(): Uint8Array | 'closed' | null {
    const length = this.#io.tryRecv(this.fd, this.#scratch, 1 << 17);
    if (length === -Errno.EAGAIN) return null;
    if (length <= 0) return 'closed';
    return this.#io.arena.bytes.slice(this.#scratch, this.#scratch + length);
  }

  close(): void {
    this.#io.close(this.fd);
  }
}

function start(t: TestContext, options: Parameters<typeof openTestHost>[0] = {}) {
  const host = openTestHost(options);
  t.after(() => host.stop());
  return host;
}

async function connected(host: TestHost, path: string, blob: string | Uint8Array = CONTEXT): Promise<Peer> {
  const peer = new Peer(host.io, path);
  await until('the context can be sent', () => peer.send(blob) > 0);
  return peer;
}

async function opened(host: TestHost): Promise<SeqpacketTunnel> {
  await until('a tunnel is open', () => host.registry.count > 0);
  return [...host.registry.open()][0] as SeqpacketTunnel;
}

/** A packet in a slot of its own. */
function packet(host: TestHost, length: number, fill: number): number {
  const offset = host.worker.packets.acquire() + PACKET_HEADROOM;
  host.io.arena.bytes.fill(fill, offset, offset + length);
  return offset;
}

test('the first message is the context, each later one a packet, both ways', async (t) => {
  const host = start(t);
  const path = socketPath();
  const listener = listen(host, path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const peer = await connected(host, path);
  for (const fill of [1, 2, 3]) assert.equal(peer.send(new Uint8Array(100 + fill).fill(fill)), 100 + fill);
  await until('three packets came', () => host.recorded.packets.length === 3);
  const tunnel = await opened(host);
  assert.deepEqual(
    host.recorded.packets.map(({ bytes }) => [bytes.length, bytes[0]]),
    [
      [101, 1],
      [102, 2],
      [103, 3],
    ],
  );
  assert.equal(tunnel.name, 'edge#1');
  assert.equal(tunnel.context.account, 'acme');
  assert.ok(host.recorded.batches > 0);
  assert.equal(tunnel.send(packet(host, 77, 9), 77), DropReason.None);
  assert.deepEqual(peer.receive(), new Uint8Array(77).fill(9));
  assert.deepEqual(host.registry.figures(tunnel.index), {
    packetsIn: 3,
    bytesIn: 306,
    packetsOut: 1,
    bytesOut: 77,
    dropsIn: 0,
    dropsOut: 0,
  });
  peer.close();
  await until('the tunnel is closed', () => host.recorded.closed.length === 1);
  assert.equal(host.registry.count, 0);
  assert.match(host.events.at(-1)?.text ?? '', /the peer closed/);
  assert.equal(tunnel.send(packet(host, 77, 9), 77), DropReason.TunnelClosed);
  listener.close();
  assert.ok(!existsSync(path));
});

test('contexts that are broken, too long, late or of no network here are refused', async (t) => {
  const host = start(t);
  const path = socketPath();
  const listener = listen(host, path, 30);
  const cases: [blob: string | null, drop: number, text: RegExp][] = [
    ['{"account":"acme"', DropReason.BadContext, /truncated/],
    [CONTEXT.padEnd(1025), DropReason.ContextTooLong, /contextBytesMax|context_bytes_max/],
    ['{"account":"acme","vnet":"none"}', DropReason.NetworkUnknown, /no network none/],
    [null, DropReason.BadContext, /within 30 ms/],
  ];
  for (const [at, [blob, drop, text]] of cases.entries()) {
    const before = host.worker.stats.drops[drop] as number;
    const peer = blob === null ? new Peer(host.io, path) : await connected(host, path, blob);
    await until('it is refused', () => host.worker.stats.counters[Counter.TunnelsRefused] === at + 1);
    assert.equal(host.worker.stats.drops[drop], before + 1);
    const last = host.events.at(-1);
    assert.equal(last?.event, 'refused');
    assert.match(last?.text ?? '', text);
    await until('the peer sees it', () => peer.receive() === 'closed');
    peer.close();
  }
  const silent = new Peer(host.io, path);
  await until('it is accepted', () => host.io.audit().descriptors >= 3);
  silent.close();
  const refused = cases.length + 1;
  await until('its end is seen', () => host.worker.stats.counters[Counter.TunnelsRefused] === refused);
  assert.equal(host.events.filter(({ event }) => event === 'refused').length, refused);
  assert.equal(host.registry.count, 0);
  listener.close();
});

test('packets that come while the hook thinks wait for it, in order', async (t) => {
  let answer: (() => void) | null = null;
  const host = start(t, {
    hook: ({ blob }) =>
      new Promise((resolve) => {
        assert.equal(Buffer.from(blob).toString(), 'me');
        answer = () => resolve({ action: 'accept', context: { account: 'acme', vnet: 'prod' } });
      }),
  });
  const path = socketPath();
  const listener = listen(host, path);
  const peer = await connected(host, path, 'me');
  for (let fill = 0; fill < 20; fill++) assert.equal(peer.send(new Uint8Array(40).fill(fill)), 40);
  await until('the hook was asked', () => answer !== null);
  assert.equal(host.recorded.packets.length, 0);
  (answer as unknown as () => void)();
  await until('all packets came', () => host.recorded.packets.length === 20);
  assert.deepEqual(
    host.recorded.packets.map(({ bytes }) => bytes[0]),
    Array.from({ length: 20 }, (_, fill) => fill),
  );
  peer.close();
  await until('the tunnel is closed', () => host.recorded.closed.length === 1);
  listener.close();
});

test('a peer that goes away while the hook thinks leaves nothing behind', async (t) => {
  let answer: (() => void) | null = null;
  const host = start(t, {
    hook: () =>
      new Promise((resolve) => {
        answer = () => resolve({ action: 'refuse', reason: 'too late' });
      }),
  });
  const path = socketPath();
  const listener = listen(host, path);
  const peer = await connected(host, path, 'me');
  await until('the hook was asked', () => answer !== null);
  peer.close();
  listener.close();
  (answer as unknown as () => void)();
  await until('everything is closed', () => host.io.audit().descriptors === 0);
  assert.equal(host.registry.count, 0);
});

test('a message longer than any packet is dropped and counted, the next one is taken', async (t) => {
  const host = start(t);
  const path = socketPath();
  const listener = listen(host, path);
  const peer = await connected(host, path);
  await opened(host);
  for (const length of [PACKET_LENGTH_MAX, PACKET_LENGTH_MAX + 1, 90000, 40]) {
    await until('it is sent', () => peer.send(new Uint8Array(length).fill(5)) === length);
  }
  await until('the last came', () => host.recorded.packets.at(-1)?.bytes.length === 40);
  assert.deepEqual(
    host.recorded.packets.map(({ bytes }) => bytes.length),
    [PACKET_LENGTH_MAX, 40],
  );
  assert.equal(host.worker.stats.drops[DropReason.PacketTooLong], 2);
  peer.close();
  await until('the tunnel is closed', () => host.registry.count === 0);
  listener.close();
});

test('a peer that does not read loses packets and holds no slot', async (t) => {
  const host = start(t, { slots: 8 });
  const path = socketPath();
  const listener = listen(host, path);
  const peer = await connected(host, path);
  const tunnel = await opened(host);
  let sent = 0;
  while (tunnel.send(packet(host, 1400, 1), 1400) === DropReason.None) sent++;
  assert.ok(sent > 16 && sent < 100_000);
  assert.equal(tunnel.send(packet(host, 1400, 1), 1400), DropReason.QueueFull);
  assert.equal(host.worker.packets.inUse, 0);
  assert.equal(host.registry.figures(tunnel.index).dropsOut, 2);
  assert.ok(peer.receive() instanceof Uint8Array);
  await until('there is room again', () => {
    peer.receive();
    return tunnel.send(packet(host, 1400, 1), 1400) === DropReason.None;
  });
  tunnel.close();
  tunnel.close();
  assert.equal(host.recorded.closed.length, 1);
  peer.close();
  listener.close();
});

test('an empty pool of slots delays packets and loses none', async (t) => {
  const host = start(t, { slots: 4 });
  const path = socketPath();
  const listener = listen(host, path);
  const peer = await connected(host, path);
  await opened(host);
  const taken = [0, 1, 2, 3].map(() => host.worker.packets.acquire());
  for (let fill = 0; fill < 10; fill++) peer.send(new Uint8Array(60).fill(fill));
  let turns = 0;
  await until('some turns went by', () => ++turns > 20);
  assert.equal(host.recorded.packets.length, 0);
  for (const slot of taken) host.worker.packets.release(slot);
  await until('all came', () => host.recorded.packets.length === 10);
  peer.close();
  await until('the tunnel is closed', () => host.registry.count === 0);
  listener.close();
});

test('connections without a context are limited in number', async (t) => {
  const host = start(t);
  const path = socketPath();
  const listener = listen(host, path);
  const peers = Array.from({ length: CANDIDATES_MAX + 3 }, () => new Peer(host.io, path));
  await until('three are refused', () => host.worker.stats.counters[Counter.TunnelsRefused] === 3);
  listener.close();
  for (const peer of peers) peer.close();
});

test('an outgoing tunnel says who it is, and connects again when the peer comes back', async (t) => {
  const near = start(t);
  const far = start(t);
  const path = socketPath();
  const admitted = near.admission.ofSpec({ account: 'acme', vnet: 'prod' }, { name: 'out', sources: [] });
  assert.ok(!isRefusal(admitted));
  let listener = listen(far, path);
  const tunnel = new SeqpacketTunnel(near, {
    ...(admitted as Admitted),
    name: 'out',
    mtu: 1500,
    fd: -1,
    dial: { address: { family: 'unix', path }, blob: Buffer.from(CONTEXT) },
  });
  assert.equal(tunnel.send(packet(near, 50, 1), 50), DropReason.TunnelClosed);
  for (const round of [1, 2]) {
    await until('it is connected', () => tunnel.isOpen);
    assert.equal(tunnel.send(packet(near, 50, round), 50), DropReason.None);
    await until('the packet is there', () => far.recorded.packets.length === round);
    assert.equal(far.recorded.packets.at(-1)?.bytes[0], round);
    const other = await opened(far);
    assert.equal(other.send(packet(far, 60, round), 60), DropReason.None);
    await until('the answer is there', () => near.recorded.packets.length === round);
    listener.close({ tunnels: true });
    await until('its end is seen', () => !tunnel.isOpen);
    if (round === 1) listener = listen(far, path);
  }
  assert.equal(near.recorded.closed.length, 0, 'flows outlive a reconnect');
  tunnel.close();
  assert.equal(near.recorded.closed.length, 1);
});

test('a new process goes on with a tunnel by descriptor and state', async (t) => {
  const before = start(t);
  const after = start(t);
  const path = socketPath();
  const listener = listen(before, path);
  const peer = await connected(before, path);
  const tunnel = await opened(before);
  peer.send(new Uint8Array(30));
  await until('a packet came', () => before.recorded.packets.length === 1);
  const [state] = JSON.parse(JSON.stringify(before.registry.describe()));
  const fd = after.io.duplicate(state.fd);
  tunnel.close();
  const admitted = after.admission.ofSpec(state.state.context, { name: 'edge', sources: [] }) as Admitted;
  const { mtu } = state.state;
  const adopted = new SeqpacketTunnel(after, { ...admitted, name: state.name, mtu, fd }, state);
  assert.equal(adopted.index, tunnel.index);
  assert.equal(peer.send(new Uint8Array(31)), 31);
  await until('the next packet came', () => after.recorded.packets.length === 1);
  assert.equal(after.registry.figures(adopted.index).packetsIn, 2);
  assert.deepEqual(JSON.stringify(adopted.context), JSON.stringify(tunnel.context));
  adopted.close();
  peer.close();
  listener.close();
});
