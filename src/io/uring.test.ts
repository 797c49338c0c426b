import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { ioConformance } from './conformance.ts';
import { openEngine, ringRefusal } from './engine.ts';
import { type Completion, PollMask } from './io.ts';

const skip = ringRefusal() ?? false;

ioConformance({
  name: 'uring',
  real: true,
  open: () => openEngine({ kind: 'uring' }),
  skip,
});

describe('uring with tiny rings', { skip, timeout: 10_000 }, () => {
  it('loses nothing when the submission ring is full and the completion ring overflows', async () => {
    const io = openEngine({ kind: 'uring', ringEntries: 4 });
    const [left, right] = io.socketPair('stream');
    const seen = new Uint8Array(1000);
    let wake: () => void = () => {};
    let count = 0;
    const completion: Completion = {
      onCompletion(tag, result) {
        assert.equal(result & PollMask.Out, PollMask.Out);
        seen[tag] = (seen[tag] as number) + 1;
        if (++count === seen.length) wake();
      },
    };
    const all = new Promise<void>((resolve) => {
      wake = resolve;
    });
    for (let tag = 0; tag < seen.length; tag++) io.poll(left, PollMask.Out, false, completion, tag);
    await all;
    assert.ok(seen.every((times) => times === 1));
    io.close(left);
    io.close(right);
    io.stop();
  });

  it('connects many sockets whose addresses share the few entries', async () => {
    const io = openEngine({ kind: 'uring', ringEntries: 4 });
    const listeners = Array.from({ length: 5 }, () =>
      io.listen({ family: 4, address: '127.0.0.1', port: 0 }),
    );
    const results: number[] = [];
    let wake: () => void = () => {};
    const all = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const completion: Completion = {
      onCompletion(_tag, result) {
        if (results.push(result) === 50) wake();
      },
    };
    const sockets = Array.from({ length: 50 }, () => io.socket('tcp4'));
    sockets.forEach((fd, index) => {
      io.connect(fd, io.localAddress(listeners[index % 5] as number), completion, index);
    });
    await all;
    assert.deepEqual(new Set(results), new Set([0]));
    sockets.forEach((fd, index) => {
      assert.deepEqual(io.remoteAddress(fd), io.localAddress(listeners[index % 5] as number));
    });
    for (const fd of [...sockets, ...listeners]) io.close(fd);
    io.stop();
  });
});
