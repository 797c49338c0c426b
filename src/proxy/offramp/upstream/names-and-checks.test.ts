/** Happy eyeballs, names and checks in virtual time, and the HTTP probe against a real server. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';

import { DnsCache, type Lookup, type ResolvedAddress } from './dns-cache.ts';
import { interleave, race } from './happy-eyeballs.ts';
import { CheckState, HealthChecks, probeHttp } from './health-check.ts';

/** Time that moves when told to. */
class Clock {
  now = 0;
  readonly #timers = new Set<{ at: number; callback: () => void }>();

  readonly after = (ms: number, callback: () => void): (() => void) => {
    const timer = { at: this.now + ms, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  get waiting(): number {
    return this.#timers.size;
  }

  async forward(ms: number): Promise<void> {
    const end = this.now + ms;
    for (;;) {
      await settled();
      const due = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.now = due.at;
      due.callback();
    }
    this.now = end;
    await settled();
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A race in which the test says how each attempt ends. */
function racing(names: readonly string[]) {
  const clock = new Clock();
  const begun: string[] = [];
  const discarded: string[] = [];
  const attempts = new Map<string, PromiseWithResolvers<string>>();
  const result = race(names, {
    attempt(name) {
      begun.push(`${name}@${clock.now}`);
      const attempt = Promise.withResolvers<string>();
      attempts.set(name, attempt);
      return attempt.promise;
    },
    discard: (name) => void discarded.push(name),
    after: clock.after,
  });
  result.catch(() => {});
  const end = (name: string) => attempts.get(name) as PromiseWithResolvers<string>;
  return { clock, begun, discarded, result, end };
}

test('families take turns, beginning with that of the first address', () => {
  const order = (families: readonly (4 | 6)[]) =>
    interleave(families.map((family, index) => ({ family, index }))).map(({ index }) => index);
  assert.deepEqual(order([6, 6, 6, 4, 4]), [0, 3, 1, 4, 2]);
  assert.deepEqual(order([4, 6]), [0, 1]);
  assert.deepEqual(order([]), []);
});

test('a silent address holds up the next one for 250 ms only, and loses when it comes late', async () => {
  const { clock, begun, discarded, result, end } = racing(['six', 'four', 'more']);
  await clock.forward(249);
  assert.deepEqual(begun, ['six@0']);
  await clock.forward(2);
  assert.deepEqual(begun, ['six@0', 'four@250']);
  end('four').resolve('four');
  assert.equal(await result, 'four');
  end('six').resolve('six');
  await clock.forward(1000);
  assert.deepEqual(discarded, ['six']);
  assert.deepEqual(begun.length, 2);
  assert.equal(clock.waiting, 0);
});

test('a failed address is followed at once, and the last failure is told when all have failed', async () => {
  const { clock, begun, result, end } = racing(['a', 'b']);
  await clock.forward(10);
  end('a').reject(new Error('a is dead'));
  await clock.forward(0);
  assert.deepEqual(begun, ['a@0', 'b@10']);
  end('b').reject(new Error('b is dead'));
  await assert.rejects(result, /b is dead/);
});

test('an address that was given up on still wins when the others fail', async () => {
  const { clock, result, end } = racing(['slow', 'dead']);
  await clock.forward(250);
  end('dead').reject(new Error('dead'));
  await clock.forward(1);
  end('slow').resolve('slow');
  assert.equal(await result, 'slow');
});

test('a name is asked for again when its records have expired, once for all who ask', async () => {
  let asked = 0;
  let now = 0;
  const lookup: Lookup = async () => [{ address: `10.0.0.${++asked}`, family: 4 }];
  const cache = new DnsCache({ lookup, ttlMs: async () => 10_000, now: () => now });
  const both = await Promise.all([cache.resolve('a.example'), cache.resolve('a.example')]);
  assert.deepEqual([both[0][0]?.address, both[1][0]?.address, asked], ['10.0.0.1', '10.0.0.1', 1]);
  await settled();
  now = 9999;
  await cache.resolve('a.example');
  assert.equal(asked, 1);
  now = 10_000;
  assert.equal((await cache.resolve('a.example'))[0]?.address, '10.0.0.2');
});

test('a TTL of zero is no question each time, and one of a week no week', async () => {
  for (const [ttl, held] of [
    [0, 1000],
    [604_800_000, 60_000],
    [null, 5000],
  ] as const) {
    let asked = 0;
    let now = 0;
    const lookup: Lookup = async () => [{ address: `10.0.0.${++asked}`, family: 4 }];
    const cache = new DnsCache({ lookup, ttlMs: async () => ttl, now: () => now });
    await cache.resolve('a');
    await settled();
    now = held - 1;
    await cache.resolve('a');
    assert.equal(asked, 1);
    now = held;
    await cache.resolve('a');
    assert.equal(asked, 2);
  }
});

test('old addresses serve for a while when the resolver fails, else the failure is told', async () => {
  let now = 0;
  let works = true;
  const lookup: Lookup = async (): Promise<ResolvedAddress[]> => {
    if (!works) throw new Error('no resolver');
    return [{ address: '10.0.0.1', family: 4 }];
  };
  const ttlMs = (): Promise<number> => Promise.reject(new Error('no server'));
  const cache = new DnsCache({ lookup, ttlMs, now: () => now });
  await cache.resolve('a');
  works = false;
  now = 100_000;
  assert.equal((await cache.resolve('a'))[0]?.address, '10.0.0.1');
  await assert.rejects(cache.resolve('b'), /no resolver/);
  now = 400_000;
  await assert.rejects(cache.resolve('a'), /no resolver/);
});

test('an origin falls after failures in a row and rises after successes in a row', () => {
  const state = new CheckState({ rise: 2, fall: 3 });
  const seen = [0, 0, 1, 0, 0, 0, 1, 0, 1, 1].map((good) => (state.onAnswer(good === 1) ? 1 : 0));
  assert.deepEqual(seen, [1, 1, 1, 1, 1, 0, 0, 0, 0, 1]);
});

test('every origin is asked in its own rhythm, one question at a time, until the end', async () => {
  const clock = new Clock();
  const asked: number[] = [];
  const answers: boolean[] = [];
  const hanging = Promise.withResolvers<void>();
  const checks = new HealthChecks({
    config: { path: null, intervalMs: 1000, timeoutMs: 100, rise: 1, fall: 1 },
    targets: [
      { host: 'a', port: 1 },
      { host: 'b', port: 2 },
    ],
    probe(target) {
      asked.push(target.port);
      return target.port === 1 ? Promise.reject(new Error('down')) : hanging.promise;
    },
    onAnswer: (index, up) => {
      answers[index] = up;
    },
    after: clock.after,
    random: () => 0.5,
  });
  await clock.forward(3600);
  assert.deepEqual(asked, [1, 2, 1, 1, 1]);
  hanging.resolve();
  await clock.forward(1000);
  assert.deepEqual(asked, [1, 2, 1, 1, 1, 1, 2]);
  assert.deepEqual(answers, [false, true]);
  checks.close();
  await clock.forward(5000);
  assert.equal(asked.length, 7);
});

test('an HTTP probe takes what is below 400, and no silence', async () => {
  const server = createServer((request, response) => {
    if (request.url === '/silent') return;
    response.statusCode = request.url === '/good' ? 204 : 503;
    response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const target = { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
  const config = { intervalMs: 1000, rise: 1, fall: 1 };
  try {
    await probeHttp(target, { ...config, path: '/good', timeoutMs: 10_000 });
    await assert.rejects(probeHttp(target, { ...config, path: '/bad', timeoutMs: 10_000 }), /503/);
    await assert.rejects(probeHttp(target, { ...config, path: '/silent', timeoutMs: 20 }));
  } finally {
    server.closeAllConnections();
    server.close();
  }
  await assert.rejects(probeHttp(target, { ...config, path: '/good', timeoutMs: 10_000 }));
});
