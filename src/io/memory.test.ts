import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RampartError } from '#base/error.ts';

import { ioConformance } from './conformance.ts';
import { CompletionFlag, Errno, type Completion, type Fd, type IoAudit } from './io.ts';
import { MemoryEngine, type MemoryEngineOptions } from './memory.ts';
import { MemoryWorld } from './memory-world.ts';

for (const seed of [1, 2, 3]) {
  ioConformance({
    name: `memory, seed ${seed}`,
    real: false,
    open: () => new MemoryEngine(new MemoryWorld({ seed })),
    elapse: (io, ms) => {
      (io as MemoryEngine).world.advance(ms);
    },
  });
}

ioConformance({
  name: 'memory, time by itself',
  real: false,
  open: () => new MemoryEngine(new MemoryWorld({ autoAdvance: true })),
});

const AT_REST: IoAudit = Object.freeze({ descriptors: 0, operations: 0, timers: 0, slots: 0, mappings: 1 });
const ADDRESS = Object.freeze({ family: 4, address: '10.0.0.1', port: 7 } as const);

/**
 * An echo server that gives everything back whatever fails: the smallest program with all the duties that an
 * operation's end brings.
 */
class EchoServer implements Completion {
  readonly #io: MemoryEngine;
  readonly #listener: Fd;
  readonly #sessions = new Set<EchoSession>();
  readonly #accept: number;

  constructor(io: MemoryEngine) {
    this.#io = io;
    this.#listener = io.listen(ADDRESS);
    this.#accept = io.accept(this.#listener, this, 0);
  }

  onCompletion(_tag: number, result: number, flags: number): void {
    if (result >= 0) this.#sessions.add(new EchoSession(this.#io, result, (s) => this.#sessions.delete(s)));
    else if ((flags & CompletionFlag.More) === 0) this.#io.close(this.#listener);
  }

  stop(): void {
    this.#io.cancel(this.#accept);
    for (const session of this.#sessions) session.stop();
  }
}

const RECEIVED = 1;
const SENT = 2;

class EchoSession implements Completion {
  readonly #io: MemoryEngine;
  readonly #fd: Fd;
  readonly #slot: number;
  readonly #onEnd: (session: EchoSession) => void;
  #operation = 0;
  #underWay = 0;
  #over = false;

  constructor(io: MemoryEngine, fd: Fd, onEnd: (session: EchoSession) => void) {
    this.#io = io;
    this.#fd = fd;
    this.#onEnd = onEnd;
    this.#slot = poolOf(io).acquire();
    this.#receive();
  }

  #receive(): void {
    this.#underWay++;
    this.#operation = this.#io.recv(this.#fd, this.#slot, 1000, this, RECEIVED);
  }

  onCompletion(tag: number, result: number): void {
    this.#underWay--;
    if (result <= 0) {
      this.#end();
    } else if (tag === RECEIVED) {
      this.#underWay++;
      this.#operation = this.#io.send(this.#fd, this.#slot, result, this, SENT);
    } else {
      this.#receive();
    }
  }

  stop(): void {
    this.#io.cancel(this.#operation);
  }

  #end(): void {
    assert.ok(!this.#over && this.#underWay === 0);
    this.#over = true;
    this.#io.close(this.#fd);
    poolOf(this.#io).release(this.#slot);
    this.#onEnd(this);
  }
}

const pools = new WeakMap<MemoryEngine, ReturnType<MemoryEngine['arena']['pool']>>();

function poolOf(io: MemoryEngine): ReturnType<MemoryEngine['arena']['pool']> {
  let pool = pools.get(io);
  if (pool === undefined) {
    pool = io.arena.pool(1024, 64);
    pools.set(io, pool);
  }
  return pool;
}

function operation(start: (completion: Completion) => void): Promise<number> {
  return new Promise((resolve) => start({ onCompletion: (_tag, result) => resolve(result) }));
}

/**
 * Connects, sends `text` three times and expects it back each time; null when something failed on the way.
 */
async function echoClient(io: MemoryEngine, text: string): Promise<string | null> {
  const fd = io.socket('tcp4');
  const slot = poolOf(io).acquire();
  try {
    if ((await operation((c) => io.connect(fd, ADDRESS, c, 0))) < 0) return null;
    let heard = '';
    for (let round = 0; round < 3; round++) {
      Buffer.from(io.arena.bytes.buffer).write(text, slot);
      if ((await operation((c) => io.send(fd, slot, text.length, c, 0))) < 0) return null;
      for (let left = text.length; left > 0; ) {
        const result = await operation((c) => io.recv(fd, slot, left, c, 0));
        if (result <= 0) return null;
        heard += Buffer.from(io.arena.bytes.buffer, slot, result).toString();
        left -= result;
      }
    }
    return heard;
  } finally {
    io.close(fd);
    poolOf(io).release(slot);
  }
}

/** Runs `work` against simulated time until it ends. */
async function simulate<T>(world: MemoryWorld, work: Promise<T>): Promise<T> {
  let isOver = false;
  const watched = work.finally(() => {
    isOver = true;
  });
  watched.catch(() => {});
  for (let i = 0; i < 200 && !isOver; i++) await world.advance(100);
  assert.ok(isOver, 'the program came to its end');
  return watched;
}

/**
 * One run of server and three clients; `prepare` arranges what fails. What the clients heard, and the
 * number of points passed.
 */
async function echoRun(
  prepare: (io: MemoryEngine) => void,
  options: MemoryEngineOptions & { seed?: number } = {},
): Promise<{ heard: (string | null)[]; points: number }> {
  const world = new MemoryWorld({ seed: options.seed ?? 1 });
  const io = new MemoryEngine(world, options);
  poolOf(io);
  prepare(io);
  const heard: (string | null)[] = [];
  try {
    const server = new EchoServer(io);
    const clients = ['alpha', 'beta', 'gamma'].map((text) =>
      echoClient(io, text).catch((error) => {
        assert.ok(error instanceof RampartError, String(error));
        return null;
      }),
    );
    heard.push(...(await simulate(world, Promise.all(clients))));
    server.stop();
    await world.settle();
  } catch (error) {
    // The listener could not be opened: that, too, leaves nothing behind.
    if (!(error instanceof RampartError)) throw error;
  }
  await world.advance(1000);
  assert.deepEqual(io.audit(), AT_REST);
  const points = io.faults.count;
  io.stop();
  return { heard, points };
}

test('an echo answers every client', async () => {
  const { heard } = await echoRun(() => {});
  assert.deepEqual(heard, ['alphaalphaalpha', 'betabetabeta', 'gammagammagamma']);
});

test('an echo answers every client when transfers are cut short at random', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const { heard } = await echoRun(() => {}, { shortTransfers: true, seed });
    assert.deepEqual(heard, ['alphaalphaalpha', 'betabetabeta', 'gammagammagamma'], `seed ${seed}`);
  }
});

test('whichever operation fails, nothing leaks and the others go on', async () => {
  const { points } = await echoRun(() => {});
  assert.ok(points > 30, `the run has ${points} points`);
  for (const errno of [Errno.ECONNRESET, Errno.EMFILE]) {
    for (let n = 1; n <= points; n++) {
      const { heard } = await echoRun((io) => io.faults.failAt(n, errno));
      const unharmed = heard.filter((text) => text !== null).length;
      // A failing listener harms all; anything else one connection, at its own and at the server's end.
      if (n > 1 && heard.length > 0) assert.ok(unharmed >= 2 || n === 2, `point ${n}: ${heard}`);
    }
  }
});

test('without descriptors accepting pauses and goes on when there are some again', async () => {
  // Listener, three clients and one accepted connection fit; the second waits until the first is closed.
  const { heard } = await echoRun(() => {}, { descriptorsMax: 5 });
  assert.deepEqual(heard, ['alphaalphaalpha', 'betabetabeta', 'gammagammagamma']);
});

test('the same seed gives the same order, another seed another', async () => {
  const orderOf = async (seed: number): Promise<string> => {
    const world = new MemoryWorld({ seed });
    const io = new MemoryEngine(world);
    const slot = io.arena.reserve(64);
    const order: number[] = [];
    const completion: Completion = { onCompletion: (tag) => order.push(tag) };
    for (let i = 0; i < 12; i++) {
      const [left, right] = io.socketPair('stream');
      io.send(left, slot, 1, completion, i);
      io.recv(right, slot, 1, completion, 100 + i);
    }
    await world.settle();
    return order.join(' ');
  };
  const first = await orderOf(5);
  assert.equal(await orderOf(5), first);
  assert.notEqual(await orderOf(6), first);
});

test('two engines of one world reach each other and pass descriptors', async () => {
  const world = new MemoryWorld();
  const server = new MemoryEngine(world);
  const client = new MemoryEngine(world);
  const listener = server.listen({ family: 'unix', path: '/run/test' }, { type: 'seqpacket' });
  const accepted = operation((c) => server.accept(listener, c, 0));
  const fd = client.socket('unix-seqpacket');
  const path = { family: 'unix', path: '/run/test' } as const;
  assert.equal(await operation((c) => client.connect(fd, path, c, 0)), 0);
  const [reader, writer] = client.pipe();
  client.sendDescriptors(fd, Buffer.from('take this'), [reader]);
  client.close(reader);
  const connection = await accepted;
  const message = server.recvDescriptors(connection);
  assert.equal(Buffer.from(message?.bytes ?? []).toString(), 'take this');
  const slot = client.arena.reserve(16);
  client.arena.bytes.set(Buffer.from('piped'), slot);
  assert.equal(client.tryWrite(writer, slot, 5), 5);
  const passed = message?.descriptors[0] as Fd;
  const target = server.arena.reserve(16);
  assert.equal(server.tryRead(passed, target, 16), 5);
  assert.equal(Buffer.from(server.arena.bytes.slice(target, target + 5)).toString(), 'piped');
  client.close(writer);
  assert.equal(server.tryRead(passed, target, 16), 0);
  for (const open of [passed, connection, listener]) server.close(open);
  client.close(fd);
  await world.settle();
  assert.deepEqual(server.audit(), AT_REST);
  assert.deepEqual(client.audit(), AT_REST);
});

test('descriptors in a message that nobody takes are closed with the socket', async () => {
  const world = new MemoryWorld();
  const io = new MemoryEngine(world);
  const [left, right] = io.socketPair('stream');
  const [reader, writer] = io.pipe();
  io.sendDescriptors(left, Buffer.from('x'), [reader]);
  io.close(reader);
  const slot = io.arena.reserve(16);
  assert.equal(io.tryWrite(writer, slot, 1), 1);
  io.close(right);
  io.close(left);
  assert.equal(io.tryWrite(writer, slot, 1), -Errno.EPIPE);
  io.close(writer);
  assert.deepEqual(io.audit(), AT_REST);
});

test('packets cross a device pair whole, and a full device refuses at once', async () => {
  const world = new MemoryWorld();
  const io = new MemoryEngine(world);
  const [inside, outside] = io.devicePair();
  const slot = io.arena.reserve(2048);
  let written = 0;
  while ((await operation((c) => io.write(inside, slot, 1400, c, 0))) === 1400) written++;
  assert.equal(await operation((c) => io.write(inside, slot, 1400, c, 0)), -Errno.EAGAIN);
  for (let i = 0; i < written; i++) {
    assert.equal(await operation((c) => io.read(outside, slot, 2048, c, 0)), 1400);
  }
  assert.equal(io.tryRead(outside, slot, 2048), -Errno.EAGAIN);
  io.close(inside);
  io.close(outside);
  assert.deepEqual(io.audit(), AT_REST);
});

test('a connection attempt fails, or stays without an answer, as the world says', async () => {
  const world = new MemoryWorld({
    reach: (remote) => (remote.family === 4 && remote.address === '10.9.9.9' ? 'hang' : -Errno.EHOSTUNREACH),
  });
  const io = new MemoryEngine(world);
  const fd = io.socket('tcp4');
  const to = (address: string) => ({ family: 4, address, port: 80 }) as const;
  assert.equal(await operation((c) => io.connect(fd, to('10.1.1.1'), c, 0)), -Errno.EHOSTUNREACH);
  let result = 1;
  const id = io.connect(fd, to('10.9.9.9'), { onCompletion: (_tag, value) => (result = value) }, 0);
  await world.advance(60_000);
  assert.equal(result, 1);
  io.cancel(id);
  await world.settle();
  assert.equal(result, -Errno.ECANCELED);
  io.close(fd);
  assert.deepEqual(io.audit(), AT_REST);
});

test('an hour of timers takes no time and fires each at its moment', async () => {
  const world = new MemoryWorld();
  const io = new MemoryEngine(world);
  const fired: number[] = [];
  const completion: Completion = {
    onCompletion(tag) {
      assert.equal(io.now(), tag);
      fired.push(tag);
      if (tag < 3_600_000) io.timer(60_000, completion, tag + 60_000);
    },
  };
  io.timer(60_000, completion, 60_000);
  await world.advance(3_599_999);
  assert.equal(fired.length, 59);
  await world.advance(1);
  assert.equal(fired.length, 60);
  assert.deepEqual(io.audit(), AT_REST);
});

test('UDP keeps addresses, ports and segments', async () => {
  const world = new MemoryWorld();
  const io = new MemoryEngine(world);
  const server = io.socket('udp4');
  io.bind(server, { family: 4, address: '10.0.0.53', port: 53 });
  const client = io.socket('udp4');
  const remote = io.localAddress(server);
  assert.equal(await operation((c) => io.connect(client, remote, c, 0)), 0);
  io.setOption(client, 'udp-segment', 100);
  const slot = io.arena.reserve(1024);
  const message = io.arena.reserve(64);
  const vector = io.arena.reserve(16);
  const name = io.arena.reserve(128);
  const { view } = io.arena;
  view.setBigUint64(vector, BigInt(slot), true);
  view.setBigUint64(vector + 8, 250n, true);
  view.setBigUint64(message + 16, BigInt(vector), true);
  view.setBigUint64(message + 24, 1n, true);
  assert.equal(await operation((c) => io.sendmsg(client, message, 0, c, 0)), 250);
  view.setBigUint64(message, BigInt(name), true);
  for (const length of [100, 100, 50]) {
    view.setUint32(message + 8, 128, true);
    assert.equal(await operation((c) => io.recvmsg(server, message, 0, c, 0)), length);
    const local = io.localAddress(client);
    assert.ok(local.family === 4);
    assert.equal(view.getUint16(name + 2), local.port);
  }
  // Back to where it came from.
  view.setUint32(message + 8, 16, true);
  assert.equal(await operation((c) => io.sendmsg(server, message, 0, c, 0)), 250);
  assert.equal(await operation((c) => io.recv(client, slot, 1024, c, 0)), 250);
  io.close(server);
  assert.equal(await operation((c) => io.send(client, slot, 10, c, 0)), 10);
  assert.equal(await operation((c) => io.recv(client, slot, 10, c, 0)), -Errno.ECONNREFUSED);
  io.close(client);
  assert.deepEqual(io.audit(), AT_REST);
});

test('an any-address of IPv6 takes IPv4 too and shows it as mapped; an exact one comes first', async () => {
  const world = new MemoryWorld();
  const io = new MemoryEngine(world);
  const any = io.listen({ family: 6, address: '::', port: 80 });
  const exactRefused = () => io.listen({ family: 4, address: '10.0.0.1', port: 80 });
  assert.throws(exactRefused, { code: 'RAMP_LISTEN', errno: Errno.EADDRINUSE });
  const only6 = io.listen({ family: 6, address: '::', port: 81 }, { dualStack: false });
  const exact = io.listen({ family: 4, address: '10.0.0.1', port: 81 });
  const reach = async (address: string, port: number, listener: Fd): Promise<[Fd, Fd]> => {
    const accepted = operation((c) => io.accept(listener, c, 0));
    const client = io.socket('tcp4');
    assert.equal(await operation((c) => io.connect(client, { family: 4, address, port }, c, 0)), 0);
    return [client, await accepted];
  };
  const [client, server] = await reach('203.0.113.9', 80, any);
  assert.deepEqual(io.localAddress(server), { family: 6, address: '::ffff:cb00:7109', port: 80 });
  assert.deepEqual(io.remoteAddress(client), { family: 4, address: '203.0.113.9', port: 80 });
  const [second, secondServer] = await reach('10.0.0.1', 81, exact);
  const third = io.socket('tcp4');
  const elsewhere = { family: 4, address: '10.0.0.2', port: 81 } as const;
  assert.equal(await operation((c) => io.connect(third, elsewhere, c, 0)), -Errno.ECONNREFUSED);
  for (const fd of [any, only6, exact, client, server, second, secondServer, third]) io.close(fd);
  await world.settle();
  assert.deepEqual(io.audit(), AT_REST);
});

test('listeners that share a port all get connections', async () => {
  const world = new MemoryWorld({ seed: 3 });
  const io = new MemoryEngine(world);
  const address = { family: 4, address: '10.0.0.1', port: 80 } as const;
  const counts = [0, 0];
  const open: Fd[] = [];
  const completion: Completion = {
    onCompletion(tag, result) {
      if (result < 0) return;
      counts[tag] = (counts[tag] as number) + 1;
      open.push(result);
    },
  };
  for (const tag of [0, 1]) {
    const listener = io.listen(address, { reusePort: true });
    open.push(listener);
    io.accept(listener, completion, tag);
  }
  for (let i = 0; i < 40; i++) {
    const client = io.socket('tcp4');
    open.push(client);
    assert.equal(await operation((c) => io.connect(client, address, c, 0)), 0);
  }
  await world.settle();
  assert.ok((counts[0] as number) > 5 && (counts[1] as number) > 5, String(counts));
  for (const fd of open) io.close(fd);
  await world.settle();
  assert.deepEqual(io.audit(), AT_REST);
});

test('a full accept queue keeps later connections waiting until there is room', async () => {
  const world = new MemoryWorld();
  const io = new MemoryEngine(world);
  const address = { family: 4, address: '10.0.0.1', port: 80 } as const;
  const listener = io.listen(address, { backlog: 2 });
  const clients = [0, 1, 2].map(() => io.socket('tcp4'));
  const connected: number[] = [];
  for (const fd of clients) io.connect(fd, address, { onCompletion: (tag) => connected.push(tag) }, fd);
  await world.settle();
  assert.equal(connected.length, 2);
  const accepted: Fd[] = [];
  io.accept(listener, { onCompletion: (_tag, result) => result >= 0 && accepted.push(result) }, 0);
  await world.settle();
  assert.equal(connected.length, 3);
  assert.equal(accepted.length, 3);
  for (const fd of [listener, ...clients, ...accepted]) io.close(fd);
  await world.settle();
  assert.deepEqual(io.audit(), AT_REST);
});

test('failNext fails the next of its kind and no other', async () => {
  const io = new MemoryEngine(new MemoryWorld());
  io.faults.failNext('pipe', Errno.EMFILE);
  io.faults.failNext('recv', Errno.ECONNRESET);
  const [left, right] = io.socketPair('stream');
  assert.throws(() => io.pipe(), { code: 'RAMP_NO_DESCRIPTORS', errno: Errno.EMFILE });
  const [reader, writer] = io.pipe();
  const slot = io.arena.reserve(16);
  assert.equal(io.trySend(left, slot, 1), 1);
  assert.equal(await operation((c) => io.recv(right, slot, 1, c, 0)), -Errno.ECONNRESET);
  assert.equal(await operation((c) => io.recv(right, slot, 1, c, 0)), 1);
  for (const fd of [left, right, reader, writer]) io.close(fd);
  assert.deepEqual(io.audit(), AT_REST);
});
