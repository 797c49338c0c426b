import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { Collector } from './conformance.ts';
import { openEngine, ringRefusal } from './engine.ts';
import { Errno, type Fd, type Io } from './io.ts';
import { type Relay, RelayHub, type RelayOwner, type RelaySide } from './relay.ts';

for (const kind of ['uring', 'epoll'] as const) {
  const skip = (kind === 'uring' && ringRefusal()) || false;
  describe(`relay on ${kind}`, { timeout: 30_000, skip }, () => {
    it('moves small messages both ways', async () => {
      await withRelay(kind, async ({ io, client, server, owner, relay }) => {
        for (let i = 0; i < 20; i++) {
          await sendText(io, client, `request ${i}`);
          assert.equal(await receiveText(io, server), `request ${i}`);
          await sendText(io, server, `response ${i}`);
          assert.equal(await receiveText(io, client), `response ${i}`);
        }
        assert.equal(relay.bytesForth, 190);
        assert.equal(relay.bytesBack, 210);
        io.close(client);
        io.close(server);
        await owner.ended;
      });
    });

    it('moves megabytes unchanged both ways at once, through slow readers', async () => {
      await withRelay(kind, async ({ io, client, server, owner, relay }) => {
        const length = 6 * 1024 * 1024;
        const results = await Promise.all([
          sendPattern(io, client, length, 1),
          sendPattern(io, server, length, 2),
          receivePattern(io, server, length, 1),
          receivePattern(io, client, length, 2),
        ]);
        assert.deepEqual(results, [length, length, length, length]);
        assert.equal(relay.bytesForth, length);
        assert.equal(relay.bytesBack, length);
        io.close(client);
        io.close(server);
        assert.deepEqual((await owner.ended).errno, 0);
      });
    });

    it('passes a half-close on and lets the other way go on', async () => {
      await withRelay(kind, async ({ io, client, server, owner }) => {
        await sendText(io, client, 'question');
        io.shutdownWrite(client);
        assert.equal(await receiveText(io, server), 'question');
        assert.equal(await receiveText(io, server), '');
        await sendText(io, server, 'long answer');
        assert.equal(await receiveText(io, client), 'long answer');
        io.close(server);
        assert.equal(await receiveText(io, client), '');
        assert.deepEqual(await owner.ended, { side: 0, errno: 0 });
        io.close(client);
      });
    });

    it('passes a reset on as a reset and tells whose it was', async () => {
      await withRelay(kind, async ({ io, client, server, owner }) => {
        await sendText(io, server, 'x');
        assert.equal(await receiveText(io, client), 'x');
        io.setOption(server, 'linger-zero', 1);
        io.close(server);
        assert.deepEqual(await owner.ended, { side: 1, errno: Errno.ECONNRESET });
        assert.equal(await receiveResult(io, client), -Errno.ECONNRESET);
        io.close(client);
      });
    });

    it('notices a reset of a side that had ended its stream', async () => {
      await withRelay(kind, async ({ io, client, server, owner }) => {
        io.shutdownWrite(client);
        assert.equal(await receiveText(io, server), '');
        io.setOption(client, 'linger-zero', 1);
        io.close(client);
        assert.equal((await owner.ended).side, 0);
        let result = 1;
        for (let i = 0; i < 100 && result === 1; i++) {
          await turn();
          result = io.trySend(server, buffer(io), 1);
        }
        assert.equal(result, -Errno.EPIPE);
        io.close(server);
      });
    });

    it('sends a prefix first, from a slot that it gives back', async () => {
      const io = openEngine({ kind });
      const hub = new RelayHub(io);
      const pool = io.arena.pool(4096, 2);
      const [client, a] = await tcpPair(io);
      const [b, server] = await tcpPair(io);
      const offset = pool.acquire();
      new TextEncoder().encodeInto('prefix', io.arena.bytes.subarray(offset + 100));
      const owner = new Owner();
      hub.start(a, b, owner, { fromA: { pool, offset: offset + 100, length: 6 } });
      await sendText(io, client, ' and more');
      let got = '';
      while (got.length < 15) got += await receiveText(io, server);
      assert.equal(got, 'prefix and more');
      assert.equal(pool.inUse, 0);
      io.close(client);
      io.close(server);
      assert.equal((await owner.ended).errno, 0);
      await endEngine(io, hub);
    });

    it('gives both descriptors back usable when it is detached', async () => {
      await withRelay(kind, async ({ io, client, server, relay }) => {
        await sendText(io, client, 'before');
        assert.equal(await receiveText(io, server), 'before');
        while (!relay.detach()) await turn();
        await sendText(io, client, 'after');
        assert.equal(await receiveText(io, relay.a), 'after');
        await sendText(io, relay.b, 'direct');
        assert.equal(await receiveText(io, server), 'direct');
        for (const fd of [client, server, relay.a, relay.b]) io.close(fd);
      });
    });

    it('refuses to be detached with bytes in flight', async () => {
      await withRelay(kind, async ({ io, client, server, relay }) => {
        const length = 32 * 1024 * 1024;
        const offset = io.arena.reserve(length);
        const sending = new Collector();
        io.send(client, offset, length, sending, 0);
        // Nobody reads, so everything fills up.
        let stalled = -1;
        for (let quiet = 0; quiet < 50; quiet++) {
          if (relay.bytesForth !== stalled) quiet = 0;
          stalled = relay.bytesForth;
          await turn();
        }
        assert.equal(relay.detach(), false);
        relay.close();
        assert.ok(relay.over);
        assert.ok((await sending.next()).result < 0);
        io.close(client);
        io.close(server);
      });
    });

    it('holds no pipe and no slot while idle, and many relays share few pipes', async () => {
      const io = openEngine({ kind });
      const hub = new RelayHub(io);
      const ends: Fd[] = [];
      const owners: Owner[] = [];
      for (let i = 0; i < 30; i++) {
        const [client, a] = await tcpPair(io);
        const [b, server] = await tcpPair(io);
        ends.push(client, server);
        const owner = new Owner();
        owners.push(owner);
        hub.start(a, b, owner);
      }
      for (let i = 0; i < ends.length; i += 2) {
        const length = 200_000;
        await Promise.all([
          sendPattern(io, ends[i] as Fd, length, i),
          receivePattern(io, ends[i + 1] as Fd, length, i),
        ]);
      }
      assert.equal(hub.slots.inUse, 0);
      // 30 relays with two sockets each, and their peers; the rest are pipes.
      assert.ok(io.audit().descriptors - 120 <= 8, `${io.audit().descriptors - 120} descriptors of pipes`);
      for (const fd of ends) io.close(fd);
      await Promise.all(owners.map(({ ended }) => ended));
      await endEngine(io, hub);
    });
  });
}

interface Stage {
  readonly io: Io;
  readonly client: Fd;
  readonly server: Fd;
  readonly owner: Owner;
  readonly relay: Relay;
}

/** client ── a (relay) b ── server */
async function withRelay(kind: 'uring' | 'epoll', body: (stage: Stage) => Promise<void>): Promise<void> {
  const io = openEngine({ kind });
  const hub = new RelayHub(io);
  const [client, a] = await tcpPair(io);
  const [b, server] = await tcpPair(io);
  const owner = new Owner();
  const relay = hub.start(a, b, owner);
  await body({ io, client, server, owner, relay });
  await endEngine(io, hub);
}

async function endEngine(io: Io, hub: RelayHub): Promise<void> {
  hub.close();
  for (let i = 0; i < 200 && io.audit().operations + io.audit().descriptors > 0; i++) await turn();
  assert.deepEqual(
    { ...io.audit(), mappings: 0 },
    {
      descriptors: 0,
      operations: 0,
      timers: 0,
      slots: 0,
      mappings: 0,
    },
  );
  io.stop();
}

class Owner implements RelayOwner {
  readonly ended: Promise<{ side: RelaySide; errno: number }>;
  #resolve: (end: { side: RelaySide; errno: number }) => void = () => {};
  #calls = 0;

  constructor() {
    this.ended = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  onRelayEnd(_relay: Relay, side: RelaySide, errno: number): void {
    assert.equal(++this.#calls, 1);
    this.#resolve({ side, errno });
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

async function tcpPair(io: Io): Promise<[Fd, Fd]> {
  const listener = io.listen({ family: 4, address: '127.0.0.1', port: 0 });
  const accepted = new Collector();
  io.accept(listener, accepted, 0);
  const client = io.socket('tcp4');
  const connected = new Collector();
  io.connect(client, io.localAddress(listener), connected, 0);
  assert.equal((await connected.next()).result, 0);
  const { result } = await accepted.next();
  io.close(listener);
  return [client, result];
}

const buffers = new WeakMap<Io, number>();

function buffer(io: Io): number {
  const known = buffers.get(io) ?? io.arena.reserve(65_536 * 4);
  buffers.set(io, known);
  return known;
}

async function sendText(io: Io, fd: Fd, text: string): Promise<void> {
  const offset = buffer(io);
  new TextEncoder().encodeInto(text, io.arena.bytes.subarray(offset));
  const sent = new Collector();
  io.send(fd, offset, text.length, sent, 0);
  assert.equal((await sent.next()).result, text.length);
}

async function receiveResult(io: Io, fd: Fd): Promise<number> {
  const received = new Collector();
  io.recv(fd, buffer(io) + 65_536, 65_536, received, 0);
  return (await received.next()).result;
}

async function receiveText(io: Io, fd: Fd): Promise<string> {
  const result = await receiveResult(io, fd);
  assert.ok(result >= 0, `recv completed with ${result}`);
  const offset = buffer(io) + 65_536;
  return new TextDecoder().decode(io.arena.bytes.slice(offset, offset + result));
}

async function sendPattern(io: Io, fd: Fd, length: number, seed: number): Promise<number> {
  const offset = io.arena.reserve(length);
  for (let i = 0; i < length; i++) io.arena.bytes[offset + i] = patternAt(i, seed);
  const sent = new Collector();
  io.send(fd, offset, length, sent, 0);
  return (await sent.next()).result;
}

async function receivePattern(io: Io, fd: Fd, length: number, seed: number): Promise<number> {
  const offset = io.arena.reserve(100_000);
  let position = 0;
  while (position < length) {
    const received = new Collector();
    io.recv(fd, offset, 100_000, received, 0);
    const { result } = await received.next();
    if (result <= 0) return position;
    for (let i = 0; i < result; i++) {
      if (io.arena.bytes[offset + i] !== patternAt(position + i, seed)) return -1;
    }
    position += result;
    if (position % 7 === 0) await turn();
  }
  return position;
}

function patternAt(index: number, seed: number): number {
  return (index * 31 + (index >>> 9) + seed * 101) & 0xff;
}
