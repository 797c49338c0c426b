/**
 * Fuzzes the HTTP engine on a real io engine: `node fuzz/http-engine.ts [seed] [rounds] [uring|epoll]`.
 * Clients send good and bad requests in pieces and go away as they like; origins answer well, badly, in part,
 * or not at all. What must hold: nothing throws, every client gets an answer or an end, and at rest no
 * descriptor, operation or slot is left.
 */
import type { Socket } from 'node:net';

import type { BodyTransform, Hooks } from '#proxy/hooks/hooks.ts';
import { eventually, rawOrigin, Rig } from '#proxy/upgrade/http-test-rig.ts';

const REQUESTS = [
  'GET / HTTP/1.1\r\nHost: h\r\n\r\n',
  'GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n',
  'HEAD / HTTP/1.1\r\nHost: h\r\n\r\n',
  'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789',
  'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n' +
    'hello\r\n3;a=b\r\nabc\r\n0\r\nT: 1\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n',
  'GET / HTTP/1.1\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
  `POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n${'x'.repeat(70_000)}`,
  'GET / HTTP/1.1\r\nHost: h\r\nX: half',
];

const ANSWERS = [
  'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n',
  'HTTP/1.1 204 No Content\r\n\r\n',
  'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.1 103 Early Hints\r\n\r\n',
  'HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw',
  'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok-and-more',
  'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok',
  'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nshort',
  'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel',
  'HTTP/1.1 200 OK\r\n\r\nuntil the end',
  'HTTP/1.1 2',
  'garbage',
  '',
  `HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n${'y'.repeat(90_000)}`,
];

/** A small generator (mulberry32), so that a seed is one number. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const turn = () => new Promise(setImmediate);

/** Runs `rounds` clients, eight at a time. @throws Error when something does not hold */
export async function fuzzHttpEngine(
  seed: number,
  rounds: number,
  kind: 'uring' | 'epoll',
): Promise<{ readonly answered: number }> {
  const next = random(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)] as T;
  const origin = await rawOrigin((socket) => void answer(socket, pick(ANSWERS), next()));
  const limits = {
    headMs: 80,
    bodyIdleMs: 80,
    responseMs: 80,
    keepAliveMs: 80,
    continueMs: 20,
    upstreamIdleMs: 200,
    streamIdleMs: 100,
  };
  const hooks = next() < 0.5 ? {} : randomHooks(next);
  const rig = new Rig(origin, {
    hooks,
    kind,
    limits,
    slots: next() < 0.5 ? 64 : 6,
  });
  let answered = 0;
  for (let round = 0; round < rounds; round += 8) {
    await Promise.all(Array.from({ length: 8 }, () => oneClient()));
  }
  await eventually(() => rig.engine.count === 0, 'all connections end by themselves');
  await rig.close();
  return { answered };

  async function oneClient(): Promise<void> {
    const client = rig.client();
    let text = '';
    for (let i = Math.floor(next() * 4); i >= 0; i--) text += pick(REQUESTS);
    const step = pick([text.length, 1000, 33]);
    for (let at = 0; at < text.length && at < 40 * step; at += step) {
      client.send(text.slice(at, at + step));
      await turn();
    }
    const ending = next();
    if (ending < 0.2) client.socket.resetAndDestroy();
    else if (ending < 0.4) client.destroy();
    else {
      if (ending < 0.7) client.end();
      const received = await client.rest(true);
      if (received !== '' && !received.startsWith('HTTP/1.1 ')) {
        throw new Error(`a client got ${JSON.stringify(received.slice(0, 80))}`);
      }
      if (received !== '') answered++;
    }
  }
}

/** Hooks that answer at once or later, pass on, transform, block, or fail. */
function randomHooks(next: () => number): Hooks {
  const later = async <T>(value: T): Promise<T> => {
    await turn();
    return value;
  };
  const maybe = <T>(value: T): T | Promise<T> => (next() < 0.5 ? value : later(value));
  const transformBody: BodyTransform = (chunk) => {
    if (next() < 0.05) throw new Error('broken');
    return maybe(next() < 0.2 ? null : chunk);
  };
  const forward = { action: 'forward', transformBody } as const;
  const block = { action: 'block', reason: 'no' } as const;
  return {
    request() {
      const choice = next();
      if (choice < 0.05) throw new Error('broken');
      if (choice < 0.1) return Promise.reject(new Error('broken'));
      return maybe(choice < 0.3 ? undefined : choice < 0.8 ? forward : block);
    },
    response() {
      const choice = next();
      if (choice < 0.05) throw new Error('broken');
      return maybe(choice < 0.3 ? undefined : choice < 0.8 ? forward : block);
    },
  };
}

async function answer(socket: Socket, text: string, how: number): Promise<void> {
  const cut = Math.floor(text.length * how);
  if (how < 0.3) {
    socket.write(text.slice(0, cut), 'latin1');
    await turn();
    await turn();
    if (!socket.destroyed) socket.write(text.slice(cut), 'latin1');
  } else if (text !== '') socket.write(text, 'latin1');
  if (how > 0.9) socket.end();
  else if (how > 0.85) socket.resetAndDestroy();
}

if (import.meta.main) {
  const seed = Number(process.argv[2] ?? Date.now() % 2 ** 31);
  const rounds = Number(process.argv[3] ?? 400);
  const kinds = process.argv[4] === undefined ? (['uring', 'epoll'] as const) : [process.argv[4] as 'uring'];
  for (const kind of kinds) {
    console.log(`fuzz http-engine: seed ${seed}, ${rounds} clients, ${kind}`);
    const { answered } = await fuzzHttpEngine(seed, rounds, kind);
    console.log(`fuzz http-engine: no finding, ${answered} clients were answered`);
  }
}
