/** The conformance suite's part on packets: SEQPACKET and UDP. */
import assert from 'node:assert/strict';

import { type Bench, Collector, type DeclareTest } from './conformance.ts';
import { Errno, type Fd } from './io.ts';

/** Declares the tests. */
export function packetTests(test: DeclareTest): void {
  seqpacketTests(test);
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
