/** The conformance suite's part on readiness, time, descriptors and the life of an engine. */
import assert from 'node:assert/strict';

import { Collector, type DeclareTest } from './conformance.ts';
import { CompletionFlag, Errno, PollMask } from './io.ts';

/** Declares the tests. */
export function lifeTests(test: DeclareTest): void {
  pollTests(test);
  timerTests(test);
  descriptorTests(test);
  deliveryTests(test);
}

function pollTests(test: DeclareTest): void {
  test('polls once: at once when ready, else when it becomes so', async (bench) => {
    const { io } = bench;
    const [left, right] = io.socketPair('stream');
    bench.keep(left);
    bench.keep(right);
    const writable = await bench.run((c, tag) => io.poll(left, PollMask.Out, false, c, tag));
    assert.equal(writable.result & PollMask.Out, PollMask.Out);
    assert.equal(writable.flags, 0);
    const readable = bench.started((c, tag) => io.poll(left, PollMask.In, false, c, tag));
    await bench.turn();
    assert.equal(io.trySend(right, bench.slot('x'), 1), 1);
    assert.equal((await readable.done).result & PollMask.In, PollMask.In);
    const again = await bench.run((c, tag) => io.poll(left, PollMask.In, false, c, tag));
    assert.equal(again.result & PollMask.In, PollMask.In);
  });

  test('polls many times until cancelled', async (bench) => {
    const { io } = bench;
    const [left, right] = io.socketPair('stream');
    bench.keep(left);
    bench.keep(right);
    const source = bench.slot('x');
    const target = bench.slot();
    const events = new Collector();
    const poll = io.poll(left, PollMask.In, true, events, 0);
    for (let i = 0; i < 5; i++) {
      await bench.turn();
      assert.equal(io.trySend(right, source, 1), 1);
      const { result, flags } = await events.next();
      assert.equal(result & PollMask.In, PollMask.In);
      assert.equal(flags, CompletionFlag.More);
      assert.equal(io.tryRecv(left, target, 10), 1);
      events.outcomes.length = 0;
    }
    io.cancel(poll);
    assert.deepEqual(await events.next(), { result: -Errno.ECANCELED, flags: 0 });
  });

  test('reports a hang-up to a poll', async (bench) => {
    const { io } = bench;
    const [left, right] = io.socketPair('stream');
    bench.keep(left);
    bench.keep(right);
    const polled = bench.started((c, tag) => io.poll(left, PollMask.In, false, c, tag));
    await bench.turn();
    bench.close(right);
    assert.notEqual((await polled.done).result & (PollMask.HangUp | PollMask.In), 0);
  });

  test('cancels a poll', async (bench) => {
    const { io } = bench;
    const [left, right] = io.socketPair('stream');
    bench.keep(left);
    bench.keep(right);
    const polled = bench.started((c, tag) => io.poll(left, PollMask.In, false, c, tag));
    io.cancel(polled.id);
    assert.equal((await polled.done).result, -Errno.ECANCELED);
  });
}

function timerTests(test: DeclareTest): void {
  test('fires timers in the order of their deadlines, not before them', async (bench) => {
    const { io } = bench;
    const fired: number[] = [];
    const start = io.now();
    const early: number[] = [];
    let wake: () => void = () => {};
    const all = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const completion = {
      onCompletion(tag: number, result: number, flags: number): void {
        assert.equal(result, 0);
        assert.equal(flags, 0);
        if (io.refreshNow() - start < tag) early.push(tag);
        fired.push(tag);
        if (fired.length === 4) wake();
      },
    };
    for (const delay of [30, 5, 100, 10]) io.timer(delay, completion, delay);
    bench.elapse(101);
    await all;
    assert.deepEqual(fired, [5, 10, 30, 100]);
    assert.deepEqual(early, []);
  });

  test('does not fire a cancelled timer, and ignores stale ids', async (bench) => {
    const { io } = bench;
    const collector = new Collector();
    const cancelled = io.timer(5, collector, 0);
    io.cancelTimer(cancelled);
    io.cancelTimer(cancelled);
    const fired = bench.run((c, tag) => io.timer(15, c, tag));
    bench.elapse(20);
    assert.equal((await fired).result, 0);
    assert.equal(collector.outcomes.length, 0);
    assert.equal(io.audit().timers, 0);
  });

  test('cancels one timer from another that is due at the same time', async (bench) => {
    const { io } = bench;
    const collector = new Collector();
    const ids: number[] = [];
    let count = 0;
    const completion = {
      onCompletion(tag: number): void {
        count++;
        io.cancelTimer(ids[1 - tag] as number);
        collector.onCompletion(tag, 0, 0);
      },
    };
    ids.push(io.timer(5, completion, 0), io.timer(5, completion, 1));
    bench.elapse(10);
    await collector.next();
    const later = bench.run((c, tag) => io.timer(10, c, tag));
    bench.elapse(20);
    await later;
    assert.equal(count, 1);
  });

  test('counts armed timers', (bench) => {
    const { io } = bench;
    const ids = Array.from({ length: 1000 }, (_, i) => io.timer(1000 + i * 100, new Collector(), i));
    assert.equal(io.audit().timers, 1000);
    for (const id of ids) io.cancelTimer(id);
    assert.equal(io.audit().timers, 0);
  });
}

function descriptorTests(test: DeclareTest): void {
  test('passes descriptors over a Unix socket', async (bench) => {
    const { io } = bench;
    const [left, right] = io.socketPair('seqpacket');
    bench.keep(left);
    bench.keep(right);
    assert.equal(io.recvDescriptors(right), null);
    const [near, far] = io.socketPair('stream');
    bench.keep(near);
    io.sendDescriptors(left, new TextEncoder().encode('context'), [far]);
    io.close(far);
    const message = io.recvDescriptors(right);
    assert.ok(message !== null);
    assert.equal(new TextDecoder().decode(message.bytes), 'context');
    assert.equal(message.descriptors.length, 1);
    const received = bench.keep(message.descriptors[0] as number);
    await bench.send(near, 'through it');
    assert.equal(await bench.receive(received), 'through it');
  });

  test('duplicates a descriptor: both stay usable until both are closed', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    const copy = bench.keep(io.duplicate(server));
    const waiting = bench.started((c, tag) => io.recv(server, bench.slot(), 10, c, tag));
    await bench.turn();
    bench.close(server);
    assert.equal((await waiting.done).result, -Errno.ECANCELED);
    await bench.send(client, 'still');
    assert.equal(await bench.receive(copy), 'still');
    bench.close(copy);
    assert.equal(await bench.receive(client), '');
  });

  test('counts descriptors that are open', async (bench) => {
    const { io } = bench;
    assert.equal(io.audit().descriptors, 0);
    await bench.tcpPair();
    const [reader, writer] = io.pipe(65_536);
    bench.keep(reader);
    bench.keep(writer);
    assert.equal(io.audit().descriptors, 4);
  });

  test('reports a pending socket error once', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    assert.equal(io.socketError(server), 0);
    io.setOption(client, 'linger-zero', 1);
    const polled = bench.started((c, tag) => io.poll(server, PollMask.In, false, c, tag));
    bench.close(client);
    await polled.done;
    assert.equal(io.socketError(server), Errno.ECONNRESET);
    assert.equal(io.socketError(server), 0);
  });

  test('sets the options that proxies use', async (bench) => {
    const { io } = bench;
    const [client] = await bench.tcpPair();
    for (const option of ['no-delay', 'keep-alive', 'user-timeout', 'not-sent-low-water'] as const) {
      io.setOption(client, option, 1);
    }
    io.setOption(client, 'send-buffer', 65_536);
    io.setOption(client, 'receive-buffer', 65_536);
  });
}

function deliveryTests(test: DeclareTest): void {
  test('runs promise jobs between completions and the next sleep', async (bench) => {
    const { io } = bench;
    const [left, right] = io.socketPair('stream');
    bench.keep(left);
    bench.keep(right);
    const source = bench.slot('x');
    let hops = 0;
    for (let i = 0; i < 200; i++) {
      const received = bench.run((c, tag) => io.recv(left, source, 10, c, tag));
      assert.equal(io.trySend(right, source, 1), 1);
      assert.equal((await received).result, 1);
      hops++;
    }
    assert.equal(hops, 200);
  });

  test('tells operations of one completion object apart by tag', async (bench) => {
    const { io } = bench;
    const [left, right] = io.socketPair('stream');
    bench.keep(left);
    bench.keep(right);
    const seen: number[] = [];
    let wake: () => void = () => {};
    const all = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const completion = {
      onCompletion(tag: number): void {
        seen.push(tag);
        if (seen.length === 3) wake();
      },
    };
    io.send(left, bench.slot('ab'), 2, completion, 11);
    io.recv(right, bench.slot(), 2, completion, 22);
    io.timer(1, completion, 33);
    bench.elapse(2);
    await all;
    assert.deepEqual(seen.toSorted(), [11, 22, 33]);
  });

  test('starts operations from within completions, thousands deep', async (bench) => {
    const { io } = bench;
    const [left, right] = io.socketPair('stream');
    bench.keep(left);
    bench.keep(right);
    const there = bench.slot('ping');
    const back = bench.slot();
    let exchanges = 0;
    let wake: () => void = () => {};
    const over = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const completion = {
      onCompletion(tag: number, result: number): void {
        assert.ok(result > 0);
        if (tag === 1) {
          io.send(right, back, 4, completion, 3);
        } else if (tag === 2) {
          if (++exchanges === 3000) {
            wake();
            return;
          }
          io.recv(right, back, 4, completion, 1);
          io.send(left, there, 4, completion, 3);
          io.recv(left, there, 4, completion, 2);
        }
      },
    };
    io.recv(right, back, 4, completion, 1);
    io.send(left, there, 4, completion, 3);
    io.recv(left, there, 4, completion, 2);
    await over;
    assert.equal(exchanges, 3000);
  });

  test('flush submits without waiting for the loop', async (bench) => {
    const { io } = bench;
    const [left, right] = io.socketPair('stream');
    bench.keep(left);
    bench.keep(right);
    const sent = bench.started((c, tag) => io.send(left, bench.slot('now'), 3, c, tag));
    io.flush();
    assert.equal(io.tryRecv(right, bench.slot(), 10), 3);
    assert.equal((await sent.done).result, 3);
  });

  test('stops with everything under way', async (bench) => {
    const { io } = bench;
    const [client, server] = await bench.tcpPair();
    const listener = bench.listen();
    const collector = new Collector();
    io.accept(listener, collector, 0);
    io.recv(client, bench.slot(), 10, collector, 0);
    io.recvPooled(server, bench.pool, collector, 0);
    io.poll(server, PollMask.In, true, collector, 0);
    io.timer(60_000, collector, 0);
    await bench.turn();
    bench.closeAll();
    io.stop();
    assert.equal(io.audit().operations, 0);
    assert.equal(collector.outcomes.length, 0);
  });
}
