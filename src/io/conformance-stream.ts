/** The conformance suite's part on streams: connections, buffers, splicing. */
import assert from 'node:assert/strict';

import { type Bench, Collector, type DeclareTest } from './conformance.ts';
import { CompletionFlag, Errno, type Fd, PollMask } from './io.ts';

/** Declares the tests. */
export function streamTests(test: DeclareTest): void {
  connectTests(test);
  transferTests(test);
  pooledTests(test);
  endTests(test);
  spliceTests(test);
}

function connectTests(test: DeclareTest): void {
  test('connects over IPv4, IPv6 and a Unix socket', async (bench) => {
    const { io } = bench;
    const addresses = [
      { family: 4, address: '127.0.0.1', port: 0 },
      { family: 6, address: '::1', port: 0 },
      { family: 'unix', path: `@rampart-test-${process.pid}` },
    ] as const;
    const kinds = ['tcp4', 'tcp6', 'unix-stream'] as const;
    for (const [index, address] of addresses.entries()) {
      const listener = bench.listen(address);
      const accepted = new Collector();
      io.accept(listener, accepted, 0);
      const client = bench.keep(io.socket(kinds[index] as (typeof kinds)[number]));
      const target = io.localAddress(listener);
      assert.equal((await bench.run((c, tag) => io.connect(client, target, c, tag))).result, 0);
      const { result, flags } = await accepted.next();
      assert.equal(flags, CompletionFlag.More);
      const server = bench.keep(result);
      await bench.send(client, 'hello');
      assert.equal(await bench.receive(server), 'hello');
      if (address.family !== 'unix') assert.deepEqual(io.remoteAddress(server), io.localAddress(client));
    }
  });

  test('accepts many connections by one operation', async (bench) => {
    const { io } = bench;
    const listener = bench.listen();
    const accepted = new Collector();
    io.accept(listener, accepted, 0);
    const address = io.localAddress(listener);
    for (let i = 0; i < 20; i++) {
      const client = bench.keep(io.socket('tcp4'));
      assert.equal((await bench.run((c, tag) => io.connect(client, address, c, tag))).result, 0);
      const { result, flags } = await accepted.next();
      assert.ok(result >= 0);
      assert.equal(flags, CompletionFlag.More);
      bench.keep(result);
    }
  });

  test('completes a refused connect with ECONNREFUSED', async (bench) => {
    const { io } = bench;
    const listener = io.listen({ family: 4, address: '127.0.0.1', port: 0 });
    const address = io.localAddress(listener);
    io.close(listener);
    const client = bench.keep(io.socket('tcp4'));
    const { result } = await bench.run((c, tag) => io.connect(client, address, c, tag));
    assert.equal(result, -Errno.ECONNREFUSED);
  });

  test('cancels a connect that waits', async (bench) => {
    const { io } = bench;
    // Nobody accepts, so connections beyond the queue get no answer.
    const listener = bench.keep(io.listen({ family: 4, address: '127.0.0.1', port: 0 }, { backlog: 0 }));
    const address = io.localAddress(listener);
    const waiting = [];
    for (let i = 0; i < 4; i++) {
      const client = bench.keep(io.socket('tcp4'));
      waiting.push(bench.started((c, tag) => io.connect(client, address, c, tag)));
    }
    await bench.turn();
    await bench.turn();
    for (const { id } of waiting) io.cancel(id);
    const results = await Promise.all(waiting.map(async ({ done }) => (await done).result));
    for (const result of results) assert.ok(result === 0 || result === -Errno.ECANCELED, `${result}`);
    if (bench.real) assert.ok(results.includes(-Errno.ECANCELED));
  });

  test('refuses to listen where somebody listens, and says the address', (bench) => {
    const { io } = bench;
    const listener = bench.listen();
    const address = io.localAddress(listener);
    assert.throws(() => io.listen(address), { code: 'RAMP_LISTEN', errno: Errno.EADDRINUSE });
  });

  test('frees a listening address at once when it is closed while accepting', async (bench) => {
    const { io } = bench;
    const listener = io.listen({ family: 4, address: '127.0.0.1', port: 0 });
    const address = io.localAddress(listener);
    const accepted = new Collector();
    io.accept(listener, accepted, 0);
    await bench.turn();
    io.close(listener);
    bench.keep(io.listen(address));
    assert.deepEqual(await accepted.next(), { result: -Errno.ECANCELED, flags: 0 });
  });

  test('cancels an accept and a recv, each completing exactly once', async (bench) => {
    const { io } = bench;
    const listener = bench.listen();
    const accepted = new Collector();
    const accept = io.accept(listener, accepted, 0);
    const [client] = await bench.tcpPair();
    const offset = bench.slot();
    const received = bench.started((c, tag) => io.recv(client, offset, 100, c, tag));
    await bench.turn();
    io.cancel(accept);
    io.cancel(received.id);
    io.cancel(received.id);
    assert.deepEqual(await accepted.next(), { result: -Errno.ECANCELED, flags: 0 });
    assert.equal((await received.done).result, -Errno.ECANCELED);
    io.cancel(received.id);
    await bench.turn();
    assert.equal(accepted.outcomes.length, 0);
  });
}

function transferTests(test: DeclareTest): void {
  test('completes a recv that waits when data come, and one that finds data', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    const offset = bench.slot();
    const waiting = bench.started((c, tag) => io.recv(server, offset, 100, c, tag));
    await bench.turn();
    await bench.send(client, 'first');
    assert.equal((await waiting.done).result, 5);
    assert.equal(bench.text(offset, 5), 'first');
    await bench.send(client, 'second');
    assert.equal(await bench.receive(server), 'second');
  });

  test('sends everything through a reader that is slow', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    const length = 8 * 1024 * 1024;
    const big = io.arena.reserve(length);
    for (let i = 0; i < length; i += 4096) io.arena.view.setUint32(big + i, i);
    const sent = bench.started((c, tag) => io.send(client, big, length, c, tag));
    const target = io.arena.reserve(65_536);
    let position = 0;
    while (position < length) {
      const { result } = await bench.run((c, tag) => io.recv(server, target, 65_536, c, tag));
      assert.ok(result > 0, `recv completed with ${result}`);
      for (let at = Math.ceil(position / 4096) * 4096; at + 4 <= position + result; at += 4096) {
        assert.equal(io.arena.view.getUint32(target + at - position), at);
      }
      position += result;
      if (position < 500_000) await bench.turn();
    }
    assert.equal((await sent.done).result, length);
    assert.equal(position, length);
  });

  test('answers try calls at once, with EAGAIN when there is nothing', async (bench) => {
    const { io } = bench;
    const [client, server] = io.socketPair('stream');
    bench.keep(client);
    bench.keep(server);
    const offset = bench.slot('abcdef');
    assert.equal(io.tryRecv(server, offset, 100), -Errno.EAGAIN);
    assert.equal(io.tryRead(server, offset, 100), -Errno.EAGAIN);
    assert.equal(io.trySend(client, offset, 6), 6);
    const target = bench.slot();
    assert.equal(io.tryRecv(server, target, 4), 4);
    assert.equal(bench.text(target, 4), 'abcd');
    assert.equal(io.tryWrite(client, offset, 2), 2);
    assert.equal(io.tryRead(server, target, 100), 4);
    assert.equal(bench.text(target, 4), 'efab');
  });

  test('gathers and scatters with vectors', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    const first = bench.slot('hello ');
    const second = bench.slot('world');
    const vectors = bench.slot();
    writeVector(bench, vectors, first, 6);
    writeVector(bench, vectors + 16, second, 5);
    assert.equal((await bench.run((c, tag) => io.writev(client, vectors, 2, c, tag))).result, 11);
    writeVector(bench, vectors, second, 3);
    writeVector(bench, vectors + 16, first, 100);
    assert.equal((await bench.run((c, tag) => io.readv(server, vectors, 2, c, tag))).result, 11);
    assert.equal(bench.text(second, 3) + bench.text(first, 8), 'hello world');
  });

  test('reads and writes a pipe, waiting for either end', async (bench) => {
    const { io } = bench;
    const [reader, writer] = io.pipe();
    bench.keep(reader);
    bench.keep(writer);
    const target = bench.slot();
    const waiting = bench.started((c, tag) => io.read(reader, target, 100, c, tag));
    await bench.turn();
    const source = bench.slot('through');
    assert.equal((await bench.run((c, tag) => io.write(writer, source, 7, c, tag))).result, 7);
    assert.equal((await waiting.done).result, 7);
    assert.equal(bench.text(target, 7), 'through');
    bench.close(writer);
    assert.equal((await bench.run((c, tag) => io.read(reader, target, 100, c, tag))).result, 0);
  });
}

function writeVector(bench: Bench, at: number, offset: number, length: number): void {
  const { arena } = bench.io;
  arena.view.setBigUint64(at, BigInt(arena.address + offset), true);
  arena.view.setBigUint64(at + 8, BigInt(length), true);
}

function pooledTests(test: DeclareTest): void {
  test('takes a slot for a pooled receive only when data come', async (bench) => {
    const { io, pool } = bench;
    const [client, server] = await bench.tcpPair();
    const received = bench.started((c, tag) => io.recvPooled(server, pool, c, tag));
    await bench.turn();
    assert.equal(pool.inUse, 0);
    assert.equal(pool.available, pool.count);
    assert.equal(io.trySend(client, bench.slot('pooled'), 6), 6);
    const { result, flags } = await received.done;
    assert.equal(result, 6);
    const offset = pool.offsetOf(flags >>> 16);
    assert.equal(bench.text(offset, 6), 'pooled');
    assert.equal(pool.inUse, 2);
    pool.release(offset);
  });

  test('takes no slot at the end of the stream or when cancelled', async (bench) => {
    const { io, pool } = bench;
    const [client, server] = await bench.tcpPair();
    const cancelled = bench.started((c, tag) => io.recvPooled(server, pool, c, tag));
    await bench.turn();
    io.cancel(cancelled.id);
    assert.equal((await cancelled.done).result, -Errno.ECANCELED);
    io.shutdownWrite(client);
    assert.equal((await bench.run((c, tag) => io.recvPooled(server, pool, c, tag))).result, 0);
    assert.equal(pool.inUse, 0);
  });

  test('completes a pooled receive with ENOBUFS when the pool is empty, and loses no data', async (bench) => {
    const { io } = bench;
    const small = io.arena.pool(4096, 2);
    const [client, server] = await bench.tcpPair();
    // A receive that went well has let the engine prepare slots; they are still to be had.
    await bench.send(client, 'x');
    const first = await bench.run((c, tag) => io.recvPooled(server, small, c, tag));
    assert.equal(first.result, 1);
    small.release(small.offsetOf(first.flags >>> 16));
    const held = [small.acquire(), small.acquire()];
    assert.ok(
      held.every((offset) => offset >= 0),
      'all slots can be acquired',
    );
    assert.equal(small.acquire(), -1);
    await bench.send(client, 'kept');
    const empty = await bench.run((c, tag) => io.recvPooled(server, small, c, tag));
    assert.equal(empty.result, -Errno.ENOBUFS);
    for (const offset of held) small.release(offset);
    const later = await bench.run((c, tag) => io.recvPooled(server, small, c, tag));
    assert.equal(later.result, 4);
    assert.equal(bench.text(small.offsetOf(later.flags >>> 16), 4), 'kept');
    small.release(small.offsetOf(later.flags >>> 16));
  });

  test('serves more pooled receives than the pool has slots, as slots come back', async (bench) => {
    const { io } = bench;
    const small = io.arena.pool(4096, 4);
    const pairs: [Fd, Fd][] = [];
    for (let i = 0; i < 12; i++) pairs.push(await bench.tcpPair());
    const letter = bench.slot('q');
    let received = 0;
    for (let round = 0; round < 3; round++) {
      const waiting = pairs.map(([, server]) => drainPooled(bench, small, server));
      await bench.turn();
      for (const [client] of pairs) assert.equal(io.trySend(client, letter, 1), 1);
      for (const count of await Promise.all(waiting)) received += count;
      assert.equal(small.inUse, 0);
    }
    assert.equal(received, 36);
  });
}

/** Receives until data came, trying again when the pool was empty; returns the number of bytes. */
async function drainPooled(bench: Bench, pool: Bench['pool'], fd: Fd): Promise<number> {
  for (let tries = 0; tries < 1000; tries++) {
    const { result, flags } = await bench.run((c, tag) => bench.io.recvPooled(fd, pool, c, tag));
    if (result === -Errno.ENOBUFS) {
      await bench.turn();
      continue;
    }
    pool.release(pool.offsetOf(flags >>> 16));
    return result;
  }
  throw new Error('the pool stayed empty');
}

function endTests(test: DeclareTest): void {
  test('passes the end of a stream on, while the other way goes on', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    await bench.send(client, 'last');
    io.shutdownWrite(client);
    assert.equal(await bench.receive(server), 'last');
    assert.equal(await bench.receive(server), '');
    await bench.send(server, 'answer');
    assert.equal(await bench.receive(client), 'answer');
  });

  test('finds the end of a stream that came together with the last data', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    await bench.send(client, 'first');
    assert.equal(await bench.receive(server), 'first');
    assert.equal(io.trySend(client, bench.slot('last'), 4), 4);
    bench.close(client);
    await bench.turn();
    assert.equal(await bench.receive(server), 'last');
    assert.equal(await bench.receive(server), '');
  });

  test('completes a recv with ECONNRESET and a send with an error after a reset', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    const offset = bench.slot('x');
    const received = bench.started((c, tag) => io.recv(server, offset, 100, c, tag));
    await bench.turn();
    io.setOption(client, 'linger-zero', 1);
    bench.close(client);
    assert.equal((await received.done).result, -Errno.ECONNRESET);
    const { result } = await bench.run((c, tag) => io.send(server, offset, 1, c, tag));
    assert.equal(result, -Errno.EPIPE);
  });

  test('completes what is under way with ECANCELED when the descriptor is closed', async (bench) => {
    const { io, pool } = bench;
    const [client, server] = await bench.tcpPair();
    const length = 16 * 1024 * 1024;
    const offset = io.arena.reserve(length);
    const sent = bench.started((c, tag) => io.send(client, offset, length, c, tag));
    const received = bench.started((c, tag) => io.recv(client, bench.slot(), 10, c, tag));
    const pooled = bench.started((c, tag) => io.recvPooled(client, pool, c, tag));
    const polled = bench.started((c, tag) => io.poll(client, PollMask.In, false, c, tag));
    const many = bench.started((c, tag) => io.poll(client, PollMask.In, true, c, tag));
    await bench.turn();
    bench.close(client);
    for (const { done } of [sent, received, pooled, polled, many]) {
      assert.equal((await done).result, -Errno.ECANCELED);
    }
    for (let left = length; left > 0; ) {
      const { result } = await bench.run((c, tag) => io.recv(server, offset, 65_536, c, tag));
      if (result <= 0) break;
      left -= result;
      assert.ok(left > 0, 'less than everything was sent');
    }
  });

  test('cancels a send that waits for room, and a write to a full pipe', async (bench) => {
    const { io } = bench;
    const [client] = await bench.tcpPair();
    const length = 16 * 1024 * 1024;
    const offset = io.arena.reserve(length);
    const sent = bench.started((c, tag) => io.send(client, offset, length, c, tag));
    const [reader, writer] = io.pipe();
    bench.keep(reader);
    bench.keep(writer);
    while (io.tryWrite(writer, offset, 4096) > 0);
    const written = bench.started((c, tag) => io.write(writer, offset, 4096, c, tag));
    await bench.turn();
    await bench.turn();
    io.cancel(sent.id);
    io.cancel(written.id);
    assert.equal((await sent.done).result, -Errno.ECANCELED);
    assert.equal((await written.done).result, -Errno.ECANCELED);
  });

  test('never confuses operations of a closed descriptor with those of its successor', async (bench) => {
    const { io } = bench;
    for (let round = 0; round < 50; round++) {
      const [left, right] = io.socketPair('stream');
      const target = bench.pool.acquire();
      const source = bench.pool.acquire();
      bench.write(source, 'y');
      const orphan = bench.started((c, tag) => io.recv(left, target, 10, c, tag));
      if (round % 2 === 0) await bench.turn();
      io.close(left);
      io.close(right);
      const [nextLeft, nextRight] = io.socketPair('stream');
      const received = bench.started((c, tag) => io.recv(nextLeft, source, 10, c, tag));
      assert.equal(io.trySend(nextRight, source, 1), 1);
      assert.equal((await received.done).result, 1);
      // The end of the stream may have come before the cancelling.
      assert.ok((await orphan.done).result <= 0);
      io.close(nextLeft);
      io.close(nextRight);
      bench.pool.release(target);
      bench.pool.release(source);
    }
  });
}

function spliceTests(test: DeclareTest): void {
  test('splices a stream through a pipe, waiting for data and reporting the end', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    const [near, far] = await bench.tcpPair();
    const [reader, writer] = io.pipe();
    bench.keep(reader);
    bench.keep(writer);
    assert.equal(io.trySplice(server, writer, 65_536), -Errno.EAGAIN);
    const waiting = bench.started((c, tag) => io.splice(server, writer, 65_536, c, tag));
    await bench.turn();
    await bench.send(client, 'spliced');
    assert.equal((await waiting.done).result, 7);
    assert.equal((await bench.run((c, tag) => io.splice(reader, near, 7, c, tag))).result, 7);
    assert.equal(await bench.receive(far), 'spliced');
    io.shutdownWrite(client);
    assert.equal((await bench.run((c, tag) => io.splice(server, writer, 100, c, tag))).result, 0);
  });

  test('lets a splice wait for room in its target', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    const [reader, writer] = io.pipe();
    bench.keep(reader);
    bench.keep(writer);
    const page = bench.slot();
    let filled = 0;
    for (let result = 0; result >= 0; result = io.tryWrite(writer, page, 4096)) filled += result;
    assert.ok(filled > 0);
    await bench.send(client, 'waits');
    const waiting = bench.started((c, tag) => io.splice(server, writer, 100, c, tag));
    await bench.turn();
    await bench.turn();
    assert.equal(bench.io.audit().operations, 1);
    for (let drained = 0; drained < filled; drained += 4096)
      assert.equal(io.tryRead(reader, page, 4096), 4096);
    assert.equal((await waiting.done).result, 5);
    assert.equal(io.tryRead(reader, page, 4096), 5);
    assert.equal(bench.text(page, 5), 'waits');
  });

  test('ends a splice that waits for room when its target is closed', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    const [reader, writer] = io.pipe();
    bench.keep(reader);
    bench.keep(writer);
    while (io.tryWrite(writer, bench.pool.base, 4096) > 0);
    await bench.send(client, 'stuck');
    const waiting = bench.started((c, tag) => io.splice(server, writer, 100, c, tag));
    await bench.turn();
    await bench.turn();
    bench.close(writer);
    assert.equal((await waiting.done).result, -Errno.ECANCELED);
    assert.equal(await bench.receive(server), 'stuck');
  });

  test('cancels a splice that waits', async (bench) => {
    const { io } = bench;
    const [, server] = await bench.tcpPair();
    const [reader, writer] = io.pipe();
    bench.keep(reader);
    bench.keep(writer);
    const waiting = bench.started((c, tag) => io.splice(server, writer, 100, c, tag));
    await bench.turn();
    io.cancel(waiting.id);
    assert.equal((await waiting.done).result, -Errno.ECANCELED);
  });
}
