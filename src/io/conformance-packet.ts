/** The conformance suite's part on packets: SEQPACKET and UDP. */
import assert from 'node:assert/strict';

import type { SocketAddress } from '#base/ip.ts';

import { type Bench, Collector, type DeclareTest } from './conformance.ts';
import { Errno, type Fd } from './io.ts';
import {
  layoutMessage,
  MessageFlag,
  messageFlags,
  messageNameLength,
  setMessageNameLength,
  setPointer,
  setVector,
} from './message.ts';
import { readSocketAddress, SOCKADDR_BYTES, writeSocketAddress } from './socket-address.ts';

/** Declares the tests. */
export function packetTests(test: DeclareTest): void {
  seqpacketTests(test);
  datagramTests(test);
}

function seqpacketTests(test: DeclareTest): void {
  test('keeps the boundaries of SEQPACKET messages', async (bench) => {
    const { io } = bench;
    const [left, right] = pair(bench, 'seqpacket');
    for (const text of ['one', 'three', 'x']) {
      const offset = bench.slot(text);
      assert.equal(
        (await bench.run((c, tag) => io.write(left, offset, text.length, c, tag))).result,
        text.length,
      );
    }
    for (const text of ['one', 'three', 'x']) {
      const offset = bench.slot();
      assert.equal((await bench.run((c, tag) => io.read(right, offset, 4096, c, tag))).result, text.length);
      assert.equal(bench.text(offset, text.length), text);
    }
    bench.close(left);
    assert.equal((await bench.run((c, tag) => io.read(right, bench.slot(), 4096, c, tag))).result, 0);
  });

  test('completes a packet write with EAGAIN when the queue is full, and reads free it', async (bench) => {
    const { io } = bench;
    const [left, right] = pair(bench, 'seqpacket');
    const offset = bench.slot();
    let queued = 0;
    for (; queued < 100_000; queued++) {
      const { result } = await bench.run((c, tag) => io.write(left, offset, 1000, c, tag));
      if (result === -Errno.EAGAIN) break;
      assert.equal(result, 1000);
    }
    assert.ok(queued > 0 && queued < 100_000, `${queued} packets were queued`);
    const vectors = bench.slot();
    io.arena.view.setBigUint64(vectors, BigInt(io.arena.address + offset), true);
    io.arena.view.setBigUint64(vectors + 8, 1000n, true);
    const vectored = await bench.run((c, tag) => io.writev(left, vectors, 1, c, tag));
    assert.equal(vectored.result, -Errno.EAGAIN);
    assert.equal(io.tryWrite(left, offset, 1000), -Errno.EAGAIN);
    for (let i = 0; i < queued; i++) assert.equal(io.tryRead(right, offset, 4096), 1000);
    assert.equal(io.tryRead(right, offset, 4096), -Errno.EAGAIN);
    assert.equal((await bench.run((c, tag) => io.write(left, offset, 1000, c, tag))).result, 1000);
  });

  test('completes reads that were started ahead in the order of the packets', async (bench) => {
    const { io } = bench;
    const [left, right] = pair(bench, 'seqpacket');
    const collector = new Collector();
    for (let i = 0; i < 16; i++) io.read(right, bench.slot(), 100, collector, i);
    await bench.turn();
    for (let i = 0; i < 16; i++) {
      const source = bench.slot('p'.repeat(i + 1));
      assert.equal((await bench.run((c, tag) => io.write(left, source, i + 1, c, tag))).result, i + 1);
    }
    for (let i = 0; i < 16; i++) assert.equal((await collector.next()).result, i + 1);
  });

  test('cancels a read and a write that broke', async (bench) => {
    const { io } = bench;
    const [left, right] = pair(bench, 'seqpacket');
    const read = bench.started((c, tag) => io.read(left, bench.slot(), 100, c, tag));
    await bench.turn();
    io.cancel(read.id);
    assert.equal((await read.done).result, -Errno.ECANCELED);
    bench.close(right);
    const write = await bench.run((c, tag) => io.write(left, bench.slot(), 10, c, tag));
    assert.equal(write.result, -Errno.EPIPE);
  });

  test('accepts SEQPACKET connections', async (bench) => {
    const { io } = bench;
    const address = { family: 'unix', path: `@rampart-seq-${process.pid}` } as const;
    const listener = bench.keep(io.listen(address, { type: 'seqpacket' }));
    const accepted = bench.started((c, tag) => io.accept(listener, c, tag));
    const client = bench.keep(io.socket('unix-seqpacket'));
    assert.equal((await bench.run((c, tag) => io.connect(client, address, c, tag))).result, 0);
    const server = bench.keep((await accepted.done).result);
    const offset = bench.slot('packet');
    assert.equal((await bench.run((c, tag) => io.write(client, offset, 6, c, tag))).result, 6);
    assert.equal((await bench.run((c, tag) => io.write(client, offset, 3, c, tag))).result, 3);
    const target = bench.slot();
    assert.equal((await bench.run((c, tag) => io.read(server, target, 100, c, tag))).result, 6);
    assert.equal((await bench.run((c, tag) => io.read(server, target, 100, c, tag))).result, 3);
  });
}

function pair(bench: Bench, type: 'seqpacket' | 'dgram'): [Fd, Fd] {
  const [left, right] = bench.io.socketPair(type);
  return [bench.keep(left), bench.keep(right)];
}

function datagramTests(test: DeclareTest): void {
  test('exchanges datagrams with their addresses', async (bench) => {
    const { io } = bench;
    for (const [kind, address] of [
      ['udp4', '127.0.0.1'],
      ['udp6', '::1'],
    ] as const) {
      const family = kind === 'udp4' ? 4 : 6;
      const left = bench.keep(io.socket(kind));
      const right = bench.keep(io.socket(kind));
      io.bind(left, { family, address, port: 0 });
      io.bind(right, { family, address, port: 0 });
      const incoming = new Message(bench, 100);
      const waiting = bench.started((c, tag) => io.recvmsg(right, incoming.header, 0, c, tag));
      await bench.turn();
      const outgoing = new Message(bench, 5, 'hello');
      outgoing.setName(io.localAddress(right));
      const sent = await bench.run((c, tag) => io.sendmsg(left, outgoing.header, 0, c, tag));
      assert.equal(sent.result, 5);
      assert.equal((await waiting.done).result, 5);
      assert.equal(bench.text(incoming.data, 5), 'hello');
      assert.deepEqual(incoming.name(), io.localAddress(left));
    }
  });

  test('keeps the boundaries of datagrams, and says when one was cut', async (bench) => {
    const { io } = bench;
    const [left, right] = await udpPair(bench);
    for (const text of ['one', 'three']) {
      const offset = bench.slot(text);
      assert.equal(
        (await bench.run((c, tag) => io.write(left, offset, text.length, c, tag))).result,
        text.length,
      );
    }
    const first = new Message(bench, 100);
    assert.equal((await bench.run((c, tag) => io.recvmsg(right, first.header, 0, c, tag))).result, 3);
    assert.equal(messageFlags(io.arena.view, first.header) & MessageFlag.Truncated, 0);
    const second = new Message(bench, 2);
    assert.equal((await bench.run((c, tag) => io.recvmsg(right, second.header, 0, c, tag))).result, 2);
    assert.equal(messageFlags(io.arena.view, second.header) & MessageFlag.Truncated, MessageFlag.Truncated);
  });

  test('answers try calls for messages at once', async (bench) => {
    const { io } = bench;
    const [left, right] = await udpPair(bench);
    const incoming = new Message(bench, 100);
    assert.equal(io.tryRecvmsg(right, incoming.header, 0), -Errno.EAGAIN);
    const outgoing = new Message(bench, 4, 'data');
    assert.equal(io.trySendmsg(left, outgoing.header, 0), 4);
    assert.equal(io.tryRecvmsg(right, incoming.header, 0), 4);
    assert.equal(bench.text(incoming.data, 4), 'data');
  });

  test('completes a receive with ECONNREFUSED when a connected peer is gone', async (bench) => {
    const { io } = bench;
    const [left, right] = await udpPair(bench);
    bench.close(right);
    const waiting = bench.started((c, tag) => io.recv(left, bench.slot(), 100, c, tag));
    await bench.turn();
    const offset = bench.slot('x');
    assert.equal((await bench.run((c, tag) => io.write(left, offset, 1, c, tag))).result, 1);
    assert.equal((await waiting.done).result, -Errno.ECONNREFUSED);
  });

  test('cancels a receive of a message', async (bench) => {
    const { io } = bench;
    const [left] = await udpPair(bench);
    const incoming = new Message(bench, 100);
    const waiting = bench.started((c, tag) => io.recvmsg(left, incoming.header, 0, c, tag));
    await bench.turn();
    io.cancel(waiting.id);
    assert.equal((await waiting.done).result, -Errno.ECANCELED);
  });
}

/** Two UDP sockets that are connected to each other. */
async function udpPair(bench: Bench): Promise<[Fd, Fd]> {
  const { io } = bench;
  const left = bench.keep(io.socket('udp4'));
  const right = bench.keep(io.socket('udp4'));
  for (const fd of [left, right]) io.bind(fd, { family: 4, address: '127.0.0.1', port: 0 });
  for (const [from, to] of [
    [left, right],
    [right, left],
  ] as const) {
    const address = io.localAddress(to);
    assert.equal((await bench.run((c, tag) => io.connect(from, address, c, tag))).result, 0);
  }
  return [left, right];
}

/** A message header with room for an address and one buffer, in slots of the test. */
class Message {
  readonly header: number;
  readonly data: number;
  readonly #bench: Bench;

  constructor(bench: Bench, length: number, text?: string) {
    this.#bench = bench;
    this.header = bench.slot();
    this.data = bench.slot(text ?? '');
    const { arena } = bench.io;
    layoutMessage(arena, this.header, {
      name: this.header + 128,
      nameLength: text === undefined ? SOCKADDR_BYTES : 0,
      vectors: this.header + 64,
      vectorCount: 1,
      control: 0,
      controlLength: 0,
    });
    setVector(arena, this.header + 64, this.data, length);
  }

  setName(address: SocketAddress): void {
    const { arena } = this.#bench.io;
    const length = writeSocketAddress(arena.view, this.header + 128, address);
    setPointer(arena, this.header, this.header + 128);
    setMessageNameLength(arena.view, this.header, length);
  }

  name(): SocketAddress {
    const { view } = this.#bench.io.arena;
    return readSocketAddress(view, this.header + 128, messageNameLength(view, this.header));
  }
}
