import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer, type RequestListener } from 'node:http';
import type { Server, Socket } from 'node:net';
import { describe, it } from 'node:test';

import { CloseReason } from '#contract/record.ts';
import { Counter } from '#proxy/stats.ts';

import { ENGINES, eventually, listening, rawOrigin, Rig, type RigOptions } from './http-test-rig.ts';

const GET = 'GET / HTTP/1.1\r\nHost: h\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

/** Runs `test` with a proxy in front of `origin`, and checks afterwards that nothing leaked. */
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

/** Answers every request of a raw connection with `answers` in turn. */
function scripted(...answers: string[]): Promise<Server> {
  return rawOrigin((socket, text) => {
    const count = text.split('\r\n\r\n').length - 1;
    const state = socket as Socket & { answered?: number };
    state.answered ??= 0;
    while (state.answered < count)
      socket.write(answers[state.answered++ % answers.length] as string, 'latin1');
  });
}

const body = (text: string) => text.slice(text.indexOf('\r\n\r\n') + 4);

assert.ok(ENGINES.length > 0, 'no io engine runs here');

for (const kind of ENGINES) {
  describe(`HTTP engine on ${kind}: messages`, { timeout: 60_000 }, () => {
    it('serves many requests on one connection by one upstream connection', async () => {
      await withRig(
        (_, response) => response.end('hi'),
        { kind },
        async (rig) => {
          const client = rig.client();
          for (let i = 0; i < 50; i++) {
            const text = await client.send(GET).response();
            assert.match(text, /^HTTP\/1\.1 200 OK\r\n/);
            assert.equal(body(text), 'hi');
          }
          assert.equal(rig.counter(Counter.UpstreamConnects), 1);
          assert.equal(rig.counter(Counter.UpstreamReused), 49);
          assert.equal(rig.counter(Counter.RequestsIn), 50);
          client.destroy();
          await eventually(() => rig.records.length === 1, 'a record');
          assert.equal(rig.records[0]?.reason, CloseReason.ClientClosed);
          assert.equal(rig.records[0]?.layer, 'http');
          assert.equal(rig.records[0]?.bytesUp, 50 * GET.length);
        },
      );
    });

    it('answers pipelined requests in order, however they are cut', async () => {
      await withRig(
        (request, response) => response.end(request.url),
        { kind },
        async (rig) => {
          const requests = ['/a', '/bb', '/c']
            .map((path) => `POST ${path} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz`)
            .join('');
          for (const step of [requests.length, 7, 61]) {
            const client = rig.client();
            for (let at = 0; at < requests.length; at += step) {
              client.send(requests.slice(at, at + step));
              await new Promise(setImmediate);
            }
            for (const path of ['/a', '/bb', '/c']) assert.equal(body(await client.response()), path);
            client.destroy();
          }
        },
      );
    });

    it('moves large bodies of both framings both ways unchanged', async () => {
      const echo: RequestListener = (request, response) => {
        if (request.url === '/length') {
          response.setHeader('Content-Length', request.headers['x-length'] as string);
        }
        request.pipe(response);
      };
      await withRig(echo, { kind }, async (rig) => {
        const payload = Buffer.alloc(3_000_003, 'abcdefghijklmnopq');
        const digest = createHash('sha256').update(payload).digest('hex');
        for (const path of ['/length', '/chunked']) {
          for (const up of ['length', 'chunked']) {
            const response = await fetch(`http://127.0.0.1:${rig.port}${path}`, {
              method: 'POST',
              headers: { 'x-length': String(payload.length), connection: 'close' },
              body: up === 'length' ? payload : new Blob([payload]).stream(),
              duplex: 'half',
            } as RequestInit);
            const received = Buffer.from(await response.arrayBuffer());
            assert.equal(received.length, payload.length, `${path} ${up}`);
            assert.equal(createHash('sha256').update(received).digest('hex'), digest);
          }
        }
      });
    });

    it(
      're-frames chunked bodies and passes trailers on, without extensions ' +
        'and without dangerous ones (rows 7, 8)',
      async () => {
        let seen = '';
        const origin = rawOrigin((socket, text) => {
          seen = text;
          if (!text.endsWith('\r\n\r\n') || !text.includes('\r\n0\r\n')) return;
          socket.write(
            'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-B\r\n\r\n' +
              '3;x=y\r\nabc\r\n0\r\nX-B: 2\r\nSet-Cookie: c\r\n\r\n',
          );
        });
        await withRig(origin, { kind }, async (rig) => {
          const client = rig.client();
          client.send('POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n');
          client.send('0\r\nX-A: 1\r\nAuthorization: no\r\nContent-Length: 9\r\n\r\n');
          const text = await client.until(
            (received) => received.endsWith('\r\n\r\n') && received.includes('X-B: 2'),
          );
          assert.match(seen, /\r\n\r\n0005\r\nhello\r\n0\r\nX-A: 1\r\n\r\n$/);
          assert.match(text, /Transfer-Encoding: chunked/);
          assert.match(text, /\r\n\r\n0003\r\nabc\r\n0\r\nX-B: 2\r\n\r\n$/);
          client.destroy();
        });
      },
    );

    it('gives HEAD, 204 and 304 no body and keeps the connection (row 19)', async () => {
      const origin = scripted(
        'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n',
        'HTTP/1.1 204 No Content\r\n\r\n',
        'HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\nETag: "a"\r\n\r\n',
        OK,
      );
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client().send(GET.replace('GET', 'HEAD'));
        const head = await client.until((text) => text.endsWith('\r\n\r\n'));
        assert.match(head, /Content-Length: 10/);
        const none = await client.send(GET).until((text) => text.endsWith('\r\n\r\n'));
        assert.match(none, /^HTTP\/1.1 204/);
        assert.doesNotMatch(none, /Content-Length/);
        const unmodified = await client.send(GET).until((text) => text.endsWith('\r\n\r\n'));
        assert.match(unmodified, /^HTTP\/1.1 304[\s\S]*Content-Length: 10/);
        assert.equal(body(await client.send(GET).response()), 'ok');
        assert.equal(rig.counter(Counter.UpstreamConnects), 1);
        client.destroy();
      });
    });

    it('forwards interim responses as they come, and none to HTTP/1.0 (row 17)', async () => {
      const origin = scripted(
        `HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\n${OK}`,
      );
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client().send(GET);
        const text = await client.until((received) => received.endsWith('ok'));
        assert.match(
          text,
          /^HTTP\/1.1 103 [\s\S]*Link: a[\s\S]*HTTP\/1.1 103 [\s\S]*Link: b[\s\S]*HTTP\/1.1 200 /,
        );
        client.destroy();
        const old = rig.client().send('GET / HTTP/1.0\r\n\r\n');
        const rest = await old.rest();
        assert.match(rest, /^HTTP\/1.1 200 /);
        assert.match(rest, /Connection: close/);
      });
    });

    it('sends an HTTP/1.0 client raw bytes until the end where the length is not known', async () => {
      const origin = scripted(
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n',
      );
      await withRig(origin, { kind }, async (rig) => {
        const text = await rig.client().send('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n').rest();
        assert.equal(body(text), 'abcdef');
        assert.doesNotMatch(text, /chunked/);
      });
    });

    it('keeps an HTTP/1.0 client connected that asks for it, and names the origin as host', async () => {
      let host = '';
      const answer: RequestListener = (request, response) => {
        host = request.headers.host as string;
        response.end('ok');
      };
      await withRig(answer, { kind }, async (rig) => {
        const client = rig.client();
        for (let i = 0; i < 2; i++) {
          const text = await client.send('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n').response();
          assert.match(text, /Connection: keep-alive/);
        }
        assert.equal(host, `127.0.0.1:${rig.originPort}`);
        client.destroy();
      });
    });

    it('turns a body that ends with the connection into chunks', async () => {
      const origin = rawOrigin((socket) => socket.end('HTTP/1.1 200 OK\r\n\r\nuntil the end'));
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client();
        for (let i = 0; i < 2; i++) {
          const text = await client.send(GET).until((received) => received.endsWith('0\r\n\r\n'));
          assert.match(text, /Transfer-Encoding: chunked[\s\S]*until the end/);
        }
        assert.equal(rig.counter(Counter.UpstreamConnects), 2);
        client.destroy();
      });
    });

    it('takes a head that comes byte by byte, with the body behind it', async () => {
      const echo: RequestListener = (request, response) => request.pipe(response);
      await withRig(echo, { kind }, async (rig) => {
        const client = rig.client();
        const text = 'POST /slow HTTP/1.1\r\nHost: h\r\nX-Long: 1234567890\r\nContent-Length: 4\r\n\r\nbody';
        for (const char of text) {
          client.send(char);
          await new Promise(setImmediate);
        }
        const received = await client.until((t) => t.endsWith('0\r\n\r\n'));
        assert.match(received, /bo[\s\S]*dy/);
        assert.equal(rig.worker.streams.inUse, 0);
        client.destroy();
      });
    });

    it('takes a large head with a large body right behind it', async () => {
      const echo: RequestListener = (request, response) => request.pipe(response);
      await withRig(echo, { kind }, async (rig) => {
        const payload = 'p'.repeat(200_000);
        const field = `X-Large: ${'v'.repeat(15_000)}`;
        const head =
          `POST / HTTP/1.1\r\nHost: h\r\n${field}\r\nContent-Length: ` +
          `${payload.length}\r\nConnection: close\r\n\r\n`;
        const client = rig.client();
        client.send(head.slice(0, 14_000));
        await new Promise((resolve) => setTimeout(resolve, 30));
        const text = await client.send(head.slice(14_000) + payload).rest();
        assert.equal(text.split('p').length - 1 >= payload.length, true);
      });
    });
  });

  describe(`HTTP engine on ${kind}: what is refused`, { timeout: 60_000 }, () => {
    it('answers malformed requests with their fault, closes, and does not bother the origin', async () => {
      let requests = 0;
      const count: RequestListener = (_, response) => {
        requests++;
        response.end();
      };
      await withRig(count, { kind }, async (rig) => {
        const cases: readonly [text: string, status: number, reason: string][] = [
          [
            'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
            400,
            'content_length_with_transfer_encoding',
          ],
          ['GET / HTTP/1.1\r\n\r\n', 400, 'host_missing'],
          ['GET / HTTP/3.0\r\nHost: h\r\n\r\n', 505, 'version_unsupported'],
          [`GET / HTTP/1.1\r\nHost: h\r\nX: ${'a'.repeat(20_000)}\r\n\r\n`, 431, 'head_too_long'],
          [`GET /${'a'.repeat(9000)} HTTP/1.1\r\nHost: h\r\n\r\n`, 414, 'target_too_long'],
          ['\x16\x03\x01\x02\x00\x01\x00\x01', 400, 'method_invalid'],
          [
            'POST / HTTP/1.1\r\nHost: h\r\nExpect: magic\r\nContent-Length: 1\r\n\r\n',
            417,
            'expectation_unknown',
          ],
          ['CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n', 405, 'method_refused'],
        ];
        for (const [text, status, reason] of cases) {
          const received = await rig.client().send(text).end().rest();
          assert.match(received, new RegExp(`^HTTP/1.1 ${status} `), text.slice(0, 60));
          assert.match(received, new RegExp(`Rampart-Reason: ${reason}\r\n`));
        }
        assert.equal(requests, 0);
        assert.equal(rig.counter(Counter.RequestsMalformed), cases.length - 1);
      });
    });

    it('answers 400 when the body turns out malformed, and lets go of the upstream', async () => {
      let aborted = false;
      const origin: RequestListener = (request) => {
        request.on('error', () => {});
        request.on('close', () => {
          aborted = !request.complete;
        });
      };
      await withRig(origin, { kind }, async (rig) => {
        const client = rig.client();
        client.send('POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n');
        await eventually(() => rig.counter(Counter.UpstreamConnects) === 1, 'a connection');
        client.send('zz\r\n');
        const text = await client.rest();
        assert.match(text, /^HTTP\/1.1 400 [\s\S]*chunk_size_invalid/);
        await eventually(() => aborted, 'the origin sees the abort');
      });
    });

    it('answers 502 for a malformed response (rows 1, 3)', async () => {
      for (const answer of [
        'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
        'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok',
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n',
        'ICY 200 OK\r\n\r\n',
        `HTTP/1.1 200 OK\r\nX: ${'a'.repeat(20_000)}\r\n\r\n`,
        'HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n',
      ]) {
        await withRig(scripted(answer), { kind }, async (rig) => {
          const client = rig.client();
          const text = await client.send(GET).response();
          assert.match(text, /^HTTP\/1.1 502 /, answer.slice(0, 60));
          // The client did nothing wrong: its connection goes on.
          assert.match(await client.send(GET).response(), /^HTTP\/1.1 502 /);
          assert.equal(rig.counter(Counter.ResponsesMalformed), 2);
          client.destroy();
        });
      }
    });

    it('answers 502 when the origin is not there', async () => {
      const server = await listening(createServer());
      const rig = new Rig(server, {
        kind,
        plan: (request) => rig.planTo(request, { host: '127.0.0.1', port: 1 }),
      });
      const text = await rig.client().send(GET.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')).rest();
      assert.match(text, /^HTTP\/1.1 502 [\s\S]*origin_unreachable/);
      await rig.close();
    });

    it('answers 403 when the dialer refuses, with its reason', async () => {
      const plan = () => ({ refused: true, reason: 'no route' }) as const;
      await withRig(
        (_, response) => response.end(),
        { kind, plan },
        async (rig) => {
          const client = rig.client();
          assert.match(await client.send(GET).response(), /^HTTP\/1.1 403 [\s\S]*Rampart-Reason: no route/);
          client.destroy();
        },
      );
    });

    it('answers loops with 508 and Max-Forwards 0 by itself (row 33)', async () => {
      await withRig(
        (_, response) => response.end(),
        { kind },
        async (rig) => {
          const client = rig.client();
          assert.match(
            await client.send('GET / HTTP/1.1\r\nHost: h\r\nVia: 1.1 rampart\r\n\r\n').response(),
            / 508 /,
          );
          const text = 'OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n';
          assert.match(await client.send(text).response(), /^HTTP\/1.1 200 /);
          assert.equal(rig.counter(Counter.UpstreamConnects), 0);
          client.destroy();
        },
      );
    });

    it('does not lose a refusal when the client is still sending (row 25)', async () => {
      const hooks = { request: () => ({ action: 'block', reason: 'no uploads' }) as const };
      await withRig(
        (_, response) => response.end(),
        { kind, hooks },
        async (rig) => {
          for (let i = 0; i < 5; i++) {
            const client = rig.client();
            client.send('POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n');
            client.send('x'.repeat(400_000));
            await client.until((text) => text.includes('no uploads\n'));
            assert.equal(client.error, null);
            client.destroy();
          }
        },
      );
    });
  });
}
