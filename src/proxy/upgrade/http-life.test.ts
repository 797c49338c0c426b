import assert from 'node:assert/strict';
import { createServer, type RequestListener } from 'node:http';
import type { Server, Socket } from 'node:net';
import { describe, it } from 'node:test';

import { CloseReason } from '#contract/record.ts';
import { Counter } from '#proxy/stats.ts';

import { ENGINES, eventually, listening, rawOrigin, Rig, type RigOptions } from './http-test-rig.ts';

const GET = 'GET / HTTP/1.1\r\nHost: h\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const POST_HEAD = 'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n';

async function withRig(
  origin: Promise<Server> | RequestListener,
  options: RigOptions,
  test: (rig: Rig) => Promise<void>,
): Promise<void> {
  const server = typeof origin === 'function' ? await listening(createServer(origin)) : await origin;
  const rig = new Rig(server, options);
  try {
    await test(rig);
  } finally {
    await rig.close();
  }
}

/** An origin whose n-th connection is served by the n-th function. */
function byConnection(...serve: ((socket: Socket, text: string) => void)[]): Promise<Server> {
  const order = new Map<Socket, number>();
  return rawOrigin((socket, text) => {
    if (!order.has(socket)) order.set(socket, order.size);
    const index = Math.min(order.get(socket) as number, serve.length - 1);
    (serve[index] as (socket: Socket, text: string) => void)(socket, text);
  });
}

const heads = (text: string) => text.split('\r\n\r\n').length - 1;

for (const kind of ENGINES) {
  describe(`HTTP engine on ${kind}: expectations and upgrades`, { timeout: 60_000 }, () => {
    it('passes Expect and 100 Continue on, and the body after it (row 18)', async () => {
      const origin = rawOrigin((socket, text) => {
        if (heads(text) === 1 && text.endsWith('\r\n\r\n')) {
          assert.match(text, /Expect: 100-continue/);
          socket.write('HTTP/1.1 100 Continue\r\n\r\n');
        } else if (text.endsWith('hello')) socket.write(OK);
      });
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client().send(`${POST_HEAD}Expect: 100-continue\r\n\r\n`);
        const interim = await client.until((text) => text.endsWith('\r\n\r\n'));
        assert.match(interim, /^HTTP\/1.1 100 Continue\r\n/);
        assert.match(await client.send('hello').response(), /^HTTP\/1.1 200 /);
        assert.match(await client.send(`${POST_HEAD}\r\nhello`).response(), /^HTTP\/1.1 200 /);
        client.destroy();
      });
    });

    it(
      'says 100 by itself when the upstream does not in time, ' + 'and swallows a later one (row 18)',
      async () => {
        const origin = rawOrigin((socket, text) => {
          if (text.endsWith('hello')) socket.write(`HTTP/1.1 100 Continue\r\n\r\n${OK}`);
        });
        await withRig(origin, { kind, limits: { continueMs: 20 } }, async (rig) => {
          const client = rig.client().send(`${POST_HEAD}Expect: 100-continue\r\n\r\n`);
          await client.until((text) => text.endsWith('100 Continue\r\n\r\n'));
          assert.match(await client.send('hello').response(), /^HTTP\/1.1 200 /);
          client.destroy();
        });
      },
    );

    it(
      'closes after a final status that came in place of 100: the ' + 'body is not the next request (row 18)',
      async () => {
        const origin = rawOrigin((socket) => socket.write('HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n'));
        await withRig(origin, { kind }, async (rig) => {
          const client = rig.client().send(`${POST_HEAD}Expect: 100-continue\r\n\r\n`);
          const text = await client.until((received) => received.endsWith('\r\n\r\n'));
          assert.match(text, /^HTTP\/1.1 403 [\s\S]*Connection: close/);
          assert.equal(await client.send(GET).rest(), '');
          assert.equal(rig.engine.upstreams.idleCount, 0);
        });
      },
    );

    it('becomes a tunnel after 101 and keeps early bytes of both sides (row 14)', async () => {
      const origin = rawOrigin((socket, text) => {
        const end = text.indexOf('\r\n\r\n') + 4;
        if (end < 4) return;
        const state = socket as Socket & { switched?: number };
        if (state.switched === undefined) {
          assert.match(text, /Upgrade: websocket\r\nConnection: Upgrade\r\n/);
          socket.write('HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nfrom origin|');
          state.switched = end;
        }
        if (text.length > state.switched) socket.write(text.slice(state.switched).toUpperCase());
        state.switched = text.length;
      });
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client();
        client.send('GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly|');
        const text = await client.until((received) => received.includes('EARLY|'));
        assert.match(
          text,
          /^HTTP\/1.1 101 [\s\S]*Upgrade: websocket\r\nConnection: Upgrade\r\n[\s\S]*from origin\|EARLY\|$/,
        );
        await client.send('GET / HTTP/1.1').until((received) => received === 'GET / HTTP/1.1');
        client.send('x'.repeat(300_000));
        await client.until((received) => received.length === 300_000);
        client.end();
        await client.rest();
        await eventually(() => rig.records.length === 1, 'a record');
        assert.ok((rig.records[0]?.bytesUp as number) > 300_000);
        assert.equal(rig.engine.upstreams.idleCount, 0);
      });
    });

    it(
      'stays HTTP when the upstream does not switch: what ' + 'follows is the next request (row 14)',
      async () => {
        const paths: (string | undefined)[] = [];
        const answer: RequestListener = (request, response) => {
          paths.push(request.url);
          response.end('plain');
        };
        await withRig(answer, { kind }, async (rig) => {
          const client = rig.client();
          client.send('GET /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n');
          client.send('GET /b HTTP/1.1\r\nHost: h\r\n\r\n');
          assert.match(await client.response(), /^HTTP\/1.1 200 /);
          assert.match(await client.response(), /^HTTP\/1.1 200 /);
          assert.deepEqual(paths, ['/a', '/b']);
          client.destroy();
        });
      },
    );

    it('drops h2c and its settings (row 15)', async () => {
      let seen = '';
      const origin = rawOrigin((socket, text) => {
        seen = text;
        socket.write(OK);
      });
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client();
        client.send(
          'GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n' +
            'Upgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n',
        );
        await client.response();
        assert.doesNotMatch(seen, /upgrade|h2c|settings/i);
        client.destroy();
      });
    });
  });

  describe(`HTTP engine on ${kind}: ends and failures`, { timeout: 60_000 }, () => {
    it('answers a client that has half-closed, then closes (row 23)', async () => {
      const slow: RequestListener = (_, response) => setTimeout(() => response.end('late'), 50);
      await withRig(slow, { kind }, async (rig) => {
        const text = await rig.client().send(GET).end().rest();
        assert.match(text, /^HTTP\/1.1 200 [\s\S]*late$/);
        await eventually(() => rig.engine.count === 0, 'the connection is closed');
      });
    });

    it('aborts the upstream when the client resets (row 44)', async () => {
      let asked = false;
      let closed = false;
      const origin = rawOrigin((socket) => {
        asked = true;
        socket.on('close', () => {
          closed = true;
        });
      });
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client().send(GET);
        await eventually(() => asked, 'the request');
        client.socket.resetAndDestroy();
        await eventually(() => closed, 'the upstream is closed');
        assert.equal(rig.counter(Counter.ClientAborts), 1);
        assert.equal(rig.engine.upstreams.idleCount, 0);
      });
    });

    it('notices a client that resets while its request is being decided about', async () => {
      let decide = () => {};
      const request = () =>
        new Promise<undefined>((resolve) => {
          decide = () => resolve(undefined);
        });
      await withRig(
        (_, response) => response.end(),
        { kind, hooks: { request } },
        async (rig) => {
          const client = rig.client().send(GET);
          await eventually(() => rig.counter(Counter.HookCalls) === 1, 'the hook is called');
          client.socket.resetAndDestroy();
          await eventually(() => rig.engine.count === 0, 'the connection is closed');
          decide();
          await new Promise(setImmediate);
          assert.equal(rig.counter(Counter.UpstreamConnects), 0);
        },
      );
    });

    it('aborts the upstream when the client ends inside a body', async () => {
      let closed = false;
      const origin = rawOrigin((socket) => socket.on('close', () => (closed = true)));
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client().send(`${POST_HEAD}\r\nhe`);
        await eventually(() => rig.counter(Counter.UpstreamConnects) === 1, 'a connection');
        client.destroy();
        await eventually(() => closed, 'the upstream is closed');
      });
    });

    it('never ends a truncated response as if it were complete (row 24)', async () => {
      for (const answer of [
        'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc',
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n',
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nab',
      ]) {
        await withRig(
          rawOrigin((socket) => socket.end(answer)),
          { kind },
          async (rig) => {
            const text = await rig.client().send(GET).rest(true);
            assert.match(text, /abc/);
            assert.doesNotMatch(text, /0\r\n\r\n$/);
            assert.equal(rig.counter(Counter.UpstreamAborts), 1);
          },
        );
      }
    });

    it(
      'resets an HTTP/1.0 client whose body would end with the connection, ' +
        'when the upstream breaks off (row 24)',
      async () => {
        const origin = rawOrigin((socket) => {
          socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n', () =>
            socket.end(),
          );
        });
        await withRig(origin, { kind }, async (rig) => {
          const client = rig.client().send('GET / HTTP/1.0\r\n\r\n');
          await client.rest(true);
          assert.equal((client.error as NodeJS.ErrnoException).code, 'ECONNRESET');
        });
      },
    );

    it('passes a malformed response body on as an abort', async () => {
      const origin = rawOrigin((socket) =>
        socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n'),
      );
      await withRig(origin, { kind }, async (rig) => {
        const text = await rig.client().send(GET).rest(true);
        assert.doesNotMatch(text, /0\r\n\r\n$/);
        assert.equal(rig.counter(Counter.ResponsesMalformed), 1);
      });
    });

    it('answers 502 when the upstream closes without an answer', async () => {
      await withRig(
        rawOrigin((socket) => socket.end()),
        { kind },
        async (rig) => {
          const client = rig.client();
          assert.match(await client.send(GET).response(), /^HTTP\/1.1 502 [\s\S]*origin_closed/);
          assert.match(await client.send(`${POST_HEAD}\r\nhello`).response(), /^HTTP\/1.1 502 /);
          client.destroy();
        },
      );
    });

    it('never uses an upstream connection again on which more came than was asked for (row 20)', async () => {
      const forged = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged';
      const origin = byConnection(
        (socket, text) => socket.write(heads(text) === 1 ? OK + forged : forged),
        (socket) => socket.write(OK),
      );
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client();
        assert.match(await client.send(GET).response(), /ok$/);
        assert.match(await client.send(GET).response(), /ok$/);
        assert.equal(rig.counter(Counter.UpstreamConnects), 2);
        client.destroy();
      });
    });

    it('drops an idle upstream connection on which something comes late (row 20)', async () => {
      const sockets: Socket[] = [];
      const origin = rawOrigin((socket) => {
        if (!sockets.includes(socket)) sockets.push(socket);
        socket.write(OK);
      });
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client();
        assert.match(await client.send(GET).response(), /ok$/);
        await eventually(() => rig.engine.upstreams.idleCount === 1, 'idle');
        sockets[0]?.write(OK);
        await eventually(() => rig.engine.upstreams.idleCount === 0, 'poisoned');
        assert.match(await client.send(GET).response(), /ok$/);
        assert.equal(sockets.length, 2);
        client.destroy();
      });
    });

    it(
      'sends an idempotent request again when a used connection ' + 'closes without an answer (row 21)',
      async () => {
        let requests = 0;
        const origin = byConnection(
          (socket, text) => {
            requests++;
            if (heads(text) === 1) socket.write(OK);
            else socket.end();
          },
          (socket) => {
            requests++;
            socket.write(OK);
          },
        );
        await withRig(origin, { kind }, async (rig) => {
          const client = rig.client();
          assert.match(await client.send(GET).response(), /ok$/);
          assert.match(await client.send(GET).response(), /ok$/);
          assert.equal(requests, 3);
          assert.equal(rig.counter(Counter.UpstreamRetries), 1);
          client.destroy();
        });
      },
    );

    it('does not send POST again, nor what came back in part (row 21)', async () => {
      const post = byConnection((socket, text) => {
        if (heads(text) === 1) socket.write(OK);
        else socket.end();
      });
      await withRig(post, { kind }, async (rig) => {
        const client = rig.client();
        assert.match(await client.send(GET).response(), /ok$/);
        assert.match(
          await client.send('POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n').response(),
          / 502 /,
        );
        assert.equal(rig.counter(Counter.UpstreamRetries), 0);
        client.destroy();
      });
      const partly = byConnection((socket, text) => {
        if (heads(text) === 1) socket.write(OK);
        else socket.end('HTTP/1.1 200');
      });
      await withRig(partly, { kind }, async (rig) => {
        const client = rig.client();
        assert.match(await client.send(GET).response(), /ok$/);
        assert.match(await client.send(GET).response(), / 502 /);
        assert.equal(rig.counter(Counter.UpstreamRetries), 0);
        client.destroy();
      });
    });

    it('does not pool a connection whose response said close, or whose request was cut short', async () => {
      const origin = rawOrigin((socket) =>
        socket.write('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok'),
      );
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client();
        assert.match(await client.send(GET).response(), /ok$/);
        assert.equal(rig.engine.upstreams.idleCount, 0);
        client.destroy();
        const cut = rig.client().send('POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nstart');
        const text = await cut.response();
        assert.match(text, /Connection: close/);
        assert.equal(rig.engine.upstreams.idleCount, 0);
        cut.destroy();
      });
    });

    it('keeps connections of different plans apart (row 22)', async () => {
      let flip = 0;
      const options: RigOptions = {
        kind,
        plan: (request) => {
          const plan = rig.planTo(request, { host: '127.0.0.1', port: rig.originPort });
          return { ...plan, key: `${plan.key} ${flip++ % 2}`, reusable: false };
        },
      };
      const rig = new Rig(await listening(createServer((_, response) => response.end('ok'))), options);
      const client = rig.client();
      for (let i = 0; i < 6; i++) await client.send(GET).response();
      assert.equal(rig.counter(Counter.UpstreamConnects), 2);
      client.destroy();
      await rig.close();
    });

    it('waits for a slow reader with few buffers, and loses nothing', async () => {
      // More than the kernel's buffers hold for one connection.
      const size = 16_000_000;
      const answer: RequestListener = (_, response) => response.end(Buffer.alloc(size, 'z'));
      await withRig(answer, { kind, slots: 12 }, async (rig) => {
        const clients = Array.from({ length: 4 }, () => rig.client());
        for (const client of clients) {
          client.socket.pause();
          client.send(GET.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
        }
        await eventually(() => rig.worker.streams.inUse >= 4, 'all are held up');
        for (const client of clients) client.socket.resume();
        for (const text of await Promise.all(clients.map((client) => client.rest()))) {
          assert.equal(text.length - text.indexOf('\r\n\r\n') - 4, size);
        }
      });
    });

    it('serves more exchanges than there are buffers, one after the other', async () => {
      const echo: RequestListener = (request, response) => {
        const parts: Buffer[] = [];
        request.on('data', (chunk: Buffer) => parts.push(chunk));
        request.on('end', () => response.end(Buffer.concat(parts)));
      };
      await withRig(echo, { kind, slots: 5 }, async (rig) => {
        const payload = 'p'.repeat(100_000);
        const head = 'POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n';
        const clients = Array.from({ length: 10 }, (_, i) =>
          i % 2 === 0
            ? rig.client().send(`${head}Content-Length: ${payload.length}\r\n\r\n${payload}`)
            : rig.client().send(`${head}Transfer-Encoding: chunked\r\n\r\n186a0\r\n${payload}\r\n0\r\n\r\n`),
        );
        const texts = await Promise.all(clients.map((client) => client.rest(true)));
        for (const text of texts) assert.ok(text.endsWith(payload), text.slice(0, 200));
      });
    });

    it('finishes running requests and takes no more while draining (row 30)', async () => {
      const slow: RequestListener = (_, response) => setTimeout(() => response.end('late'), 50);
      await withRig(slow, { kind }, async (rig) => {
        const idle = rig.client();
        await eventually(() => rig.engine.count === 1, 'connected');
        const busy = rig.client().send(GET);
        await eventually(() => rig.counter(Counter.UpstreamConnects) === 1, 'a request');
        rig.engine.drain();
        assert.equal(await idle.rest(), '');
        assert.match(await busy.rest(), /Connection: close[\s\S]*late$/);
        assert.equal(rig.records[0]?.reason, CloseReason.Shutdown);
      });
    });
  });

  describe(`HTTP engine on ${kind}: handing over`, { timeout: 60_000 }, () => {
    it('gives idle connections away alive, and finishes running ones', async () => {
      const slow: RequestListener = (request, response) =>
        request.url === '/slow' ? setTimeout(() => response.end('late'), 50) : response.end('ok');
      await withRig(slow, { kind }, async (rig) => {
        const idle = rig.client();
        await idle.send(GET).response();
        const busy = rig.client().send(GET.replace('/', '/slow'));
        await eventually(() => rig.counter(Counter.RequestsIn) === 2, 'a request');
        const streams = await rig.engine.handOver();
        assert.equal(streams.length, 1);
        assert.match(await busy.rest(), /Connection: close[\s\S]*late$/);
        // Another engine would be in another process; the descriptor is as good here.
        rig.engine.draining = false;
        for (const stream of streams) rig.engine.onStream(stream, -1, 0);
        assert.match(await idle.send(GET).response(), /ok$/);
        idle.destroy();
      });
    });

    it('keeps a connection whose next request came first', async () => {
      await withRig(
        (_, response) => response.end('ok'),
        { kind },
        async (rig) => {
          const client = rig.client();
          await client.send(GET).response();
          client.send(GET);
          // Whichever comes first, the request or the cancellation: it is answered once, here or by the next
          // engine.
          const streams = await rig.engine.handOver();
          rig.engine.draining = false;
          for (const stream of streams) rig.engine.onStream(stream, -1, 0);
          assert.match(await client.response(), /ok$/);
          client.destroy();
        },
      );
    });
  });

  describe(`HTTP engine on ${kind}: limits of time`, { timeout: 60_000 }, () => {
    it('answers 408 to a head that takes too long, however it drips (row 26)', async () => {
      await withRig(
        (_, response) => response.end(),
        { kind, limits: { headMs: 60 } },
        async (rig) => {
          const client = rig.client();
          let at = 0;
          const drip = setInterval(
            () => client.send('GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaa'[at++] ?? 'a'),
            5,
          );
          const text = await client.until((received) => received.includes('\r\n\r\n'));
          clearInterval(drip);
          assert.match(text, /^HTTP\/1.1 408 /);
          assert.equal(rig.counter(Counter.ClientTimeouts), 1);
          client.destroy();
        },
      );
    });

    it('closes an idle connection, and one that never says anything', async () => {
      const limits = { keepAliveMs: 40, headMs: 40 };
      await withRig(
        (_, response) => response.end('ok'),
        { kind, limits },
        async (rig) => {
          assert.equal(await rig.client().rest(), '');
          assert.match(await rig.client().send(GET).rest(), /ok$/);
          assert.ok(rig.records.every((record) => record.reason === CloseReason.ClientIdle));
        },
      );
    });

    it('answers 408 when a body stops or trickles (row 26)', async () => {
      await withRig(
        rawOrigin(() => {}),
        { kind, limits: { bodyIdleMs: 60 } },
        async (rig) => {
          const text = await rig
            .client()
            .send('POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\nx')
            .rest();
          assert.match(text, /^HTTP\/1.1 408 /);
          const client = rig.client().send('POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n');
          const drip = setInterval(() => client.send('x'), 5);
          await client.until((received) => received.startsWith('HTTP/1.1 408 '));
          clearInterval(drip);
          client.destroy();
        },
      );
    });

    it('answers 504 when the upstream says nothing', async () => {
      await withRig(
        rawOrigin(() => {}),
        { kind, limits: { responseMs: 40 } },
        async (rig) => {
          const client = rig.client();
          assert.match(await client.send(GET).response(), /^HTTP\/1.1 504 [\s\S]*response_timeout/);
          assert.equal(rig.counter(Counter.UpstreamTimeouts), 1);
          client.destroy();
        },
      );
    });

    it('breaks off when the upstream stops inside a body', async () => {
      const origin = rawOrigin((socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc'));
      await withRig(origin, { kind, limits: { bodyIdleMs: 40 } }, async (rig) => {
        assert.match(await rig.client().send(GET).rest(true), /abc$/);
        assert.equal(rig.counter(Counter.UpstreamTimeouts), 1);
      });
    });

    it('breaks off when the client stops reading', async () => {
      const origin: RequestListener = (_, response) => response.end(Buffer.alloc(30_000_000));
      await withRig(origin, { kind, limits: { bodyIdleMs: 100 } }, async (rig) => {
        const client = rig.client();
        client.socket.pause();
        client.send(GET);
        await eventually(() => rig.counter(Counter.ClientTimeouts) === 1, 'a timeout');
        client.destroy();
      });
    });

    it('closes upstream connections that are idle for too long', async () => {
      await withRig(
        (_, response) => response.end(),
        { kind, limits: { upstreamIdleMs: 30 } },
        async (rig) => {
          const client = rig.client();
          await client.send(GET).response();
          await eventually(() => rig.engine.upstreams.idleCount === 0, 'expired');
          client.destroy();
        },
      );
    });
  });
}
