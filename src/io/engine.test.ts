import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { describe, it } from 'node:test';

import { openEngine, ringRefusal } from './engine.ts';

const ENGINE = JSON.stringify(new URL('./engine.ts', import.meta.url).href);
const KINDS = ['uring', 'epoll'] as const;
/** Why the tests that need the ring are skipped. */
const NO_RING = ringRefusal() ?? false;

describe('choice of engine', () => {
  it('prefers the ring, says so, and obeys an override', { skip: NO_RING }, () => {
    const lines: string[] = [];
    const first = openEngine({ log: (line) => lines.push(line) });
    assert.equal(first.kind, 'uring');
    first.stop();
    const second = openEngine({ kind: 'epoll', log: (line) => lines.push(line) });
    assert.equal(second.kind, 'epoll');
    second.stop();
    assert.deepEqual(lines, ['io engine uring', 'io engine epoll, as asked for']);
  });

  it('falls back to epoll and says why where the ring is refused', () => {
    const lines: string[] = [];
    const io = openEngine({ ringEntries: 0, log: (line) => lines.push(line) });
    assert.equal(io.kind, 'epoll');
    io.stop();
    assert.match(lines[0] as string, /^io engine epoll: .*5\.19/);
  });

  it('refuses an override that cannot be met', () => {
    assert.throws(() => openEngine({ kind: 'uring', ringEntries: 0 }), { code: 'RAMP_IO_UNSUPPORTED' });
  });

  it('reads RAMPART_IO and refuses what it does not know', { skip: NO_RING }, async () => {
    const program = `
      import { openEngine, ringRefusal } from ${ENGINE};
      try { const io = openEngine(); console.log(io.kind); io.stop(); }
      catch (error) { console.log(error.code, error.message); }`;
    assert.equal((await run(program, { RAMPART_IO: 'epoll' })).output, 'epoll\n');
    assert.equal((await run(program, { RAMPART_IO: 'uring' })).output, 'uring\n');
    assert.match((await run(program, { RAMPART_IO: 'kqueue' })).output, /^RAMP_IO_UNSUPPORTED .*kqueue/);
  });
});

for (const kind of KINDS) {
  const open = `
    import { openEngine, ringRefusal } from ${ENGINE};
    const io = openEngine({ kind: '${kind}' });
    const loopback = { family: 4, address: '127.0.0.1', port: 0 };`;

  describe(`process with ${kind}`, { timeout: 30_000, skip: kind === 'uring' && NO_RING }, () => {
    it('ends by itself when nothing is under way', async () => {
      const { code, output } = await run(`${open} console.log('opened');`);
      assert.deepEqual({ code, output }, { code: 0, output: 'opened\n' });
    });

    it('lives for a timer and for an operation, then ends', async () => {
      const { code, output } = await run(`${open}
        io.timer(30, { onCompletion() {
          console.log('timer');
          const [left, right] = io.socketPair('stream');
          const offset = io.arena.reserve(10);
          io.recv(left, offset, 10, { onCompletion(tag, result) { console.log('received', result); } }, 0);
          setTimeout(() => io.trySend(right, offset, 3), 30);
        } }, 0);`);
      assert.deepEqual({ code, output }, { code: 0, output: 'timer\nreceived 3\n' });
    });

    it('does not live for what is under way after unref', async () => {
      const { code, output } = await run(`${open}
        io.accept(io.listen(loopback), { onCompletion() {} }, 0);
        io.timer(60_000, { onCompletion() {} }, 0);
        io.unref();
        console.log('unref');`);
      assert.deepEqual({ code, output }, { code: 0, output: 'unref\n' });
    });

    it('ends by process.exit and in a worker with everything under way', async () => {
      const { code, output } = await run(`${open}
        import { Worker, isMainThread } from 'node:worker_threads';
        io.accept(io.listen(loopback), { onCompletion() {} }, 0);
        io.timer(60_000, { onCompletion() {} }, 0);
        if (isMainThread) {
          const source = new URL(import.meta.url);
          new Worker(source).on('exit', (code) => { console.log('worker', code); process.exit(7); });
        } else setImmediate(() => process.exit(5));`);
      assert.deepEqual({ code, output }, { code: 7, output: 'worker 5\n' });
    });

    it('reports an error of a completion as uncaught, and goes on', async () => {
      const { code, output } = await run(`${open}
        process.on('uncaughtException', (error) => console.log('uncaught', error.message));
        const [left, right] = io.socketPair('stream');
        const offset = io.arena.reserve(10);
        const fail = (what, next) => ({ onCompletion() { next(); throw new Error(what); } });
        const afterwards = { onCompletion() { console.log('still here'); } };
        const timer = fail('timer', () => io.timer(1, afterwards, 0));
        io.poll(left, 4, false, fail('poll', () => io.timer(1, timer, 0)), 0);`);
      assert.deepEqual({ code, output }, { code: 0, output: 'uncaught poll\nuncaught timer\nstill here\n' });
    });

    it('reports an error of a promise job that a completion started', async () => {
      const { code, output } = await run(`${open}
        process.on('unhandledRejection', (error) => console.log('unhandled', error.message));
        const afterwards = { onCompletion() { console.log('still here'); } };
        const fail = async () => { await null; io.timer(1, afterwards, 0); throw new Error('async'); };
        io.timer(1, { onCompletion() { fail(); } }, 0);`);
      assert.deepEqual({ code, output }, { code: 0, output: 'unhandled async\nstill here\n' });
    });

    it('surfaces a shortage of descriptors while accepting, and goes on when there are some', async () => {
      const { code, output } = await run(
        `${open}
        const listener = io.listen(loopback);
        const client = io.socket('tcp4');
        const pipes = [];
        try { for (;;) pipes.push(...io.pipe()); } catch (error) { console.log(error.code); }
        // A pipe needs two descriptors, so one may be left.
        try { pipes.push(io.socket('tcp4')); } catch {}
        let failures = 0;
        io.accept(listener, { onCompletion(tag, result, flags) {
          if (result < 0) {
            if (failures++ > 0) return;
            console.log('accept', result, flags);
            for (const fd of pipes) io.close(fd);
          } else { console.log('accepted', flags); io.unref(); }
        } }, 0);
        const address = io.localAddress(listener);
        io.connect(client, address, { onCompletion(tag, result) { console.log('connect', result); } }, 0);`,
        {},
        100,
      );
      const lines = output.trim().split('\n');
      assert.equal(lines[0], 'RAMP_NO_DESCRIPTORS');
      assert.deepEqual(lines.slice(1).toSorted(), ['accept -24 1', 'accepted 1', 'connect 0']);
      assert.equal(code, 0);
    });

    it('uses no processor time while idle, whatever is armed', async () => {
      const { output } = await run(`${open}
        for (let i = 0; i < 1000; i++) io.timer(50_000 + i, { onCompletion() {} }, 0);
        io.accept(io.listen(loopback), { onCompletion() {} }, 0);
        setTimeout(() => {
          const loops = performance.nodeTiming.uvMetricsInfo.loopCount;
          setTimeout(() => {
            console.log(performance.nodeTiming.uvMetricsInfo.loopCount - loops);
            process.exit(0);
          }, 300);
        }, 50);`);
      assert.ok(Number(output) <= 10, `${output.trim()} turns in 300 ms`);
    });
  });
}

/** Runs a module in a Node of its own, with at most `descriptors` open files. */
function run(
  program: string,
  environment: Record<string, string> = {},
  descriptors = 1024,
): Promise<{ code: number | null; output: string }> {
  const url = `data:text/javascript,${encodeURIComponent(program)}`;
  const flags = '--disable-warning=ExperimentalWarning';
  const script = `ulimit -n ${descriptors}; exec "$0" ${flags} --import "$1" -e ''`;
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', script, process.execPath, url], {
      env: { ...process.env, NODE_OPTIONS: '', RAMPART_IO: '', ...environment },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, output }));
  });
}
