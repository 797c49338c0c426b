import assert from 'node:assert/strict';
import { createServer, type RequestListener } from 'node:http';
import { describe, it } from 'node:test';

import type { BodyTransform, Hooks } from '#proxy/hooks/hooks.ts';
import { Counter } from '#proxy/stats.ts';

import { ENGINES, listening, Rig, type RigOptions } from './http-test-rig.ts';

const GET = 'GET /path?q=1 HTTP/1.1\r\nHost: Host.Example\r\nX-Old: 1\r\n\r\n';

/** Tells what it was asked, as JSON. */
const mirror: RequestListener = (request, response) => {
  let text = '';
  request.on('data', (chunk) => {
    text += chunk;
  });
  request.on('end', () => {
    response.setHeader('X-Origin', 'yes');
    response.end(
      JSON.stringify({ method: request.method, url: request.url, headers: request.headers, text }),
    );
  });
};

async function withHooks(
  kind: RigOptions['kind'],
  hooks: Hooks,
  test: (rig: Rig) => Promise<void>,
  origin: RequestListener = mirror,
): Promise<void> {
  const rig = new Rig(await listening(createServer(origin)), { kind, hooks });
  try {
    await test(rig);
  } finally {
    await rig.close();
  }
}

/** Sends `text` on a connection of its own and gives status line, fields and body of the answer. */
async function exchange(rig: Rig, text: string): Promise<{ head: string; body: string }> {
  const received = await rig.client().send(text.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')).rest();
  const end = received.indexOf('\r\n\r\n');
  return { head: received.slice(0, end + 2), body: received.slice(end + 4) };
}

/** The data of a chunked body. */
function unchunk(text: string): string {
  let rest = text;
  let data = '';
  for (;;) {
    const length = Number.parseInt(rest, 16);
    const start = rest.indexOf('\r\n') + 2;
    if (length === 0) return data;
    data += rest.slice(start, start + length);
    rest = rest.slice(start + length + 2);
  }
}

const upper: BodyTransform = (chunk) =>
  chunk === null ? null : Buffer.from(Buffer.from(chunk).toString('latin1').toUpperCase());

for (const kind of ENGINES) {
  describe(`HTTP hooks on ${kind}`, { timeout: 60_000 }, () => {
    it('see the request as it is forwarded', async () => {
      let seen: unknown;
      const hooks: Hooks = {
        request(info) {
          const { method, scheme, authority, path, source, context } = info;
          const fields = [...info.fields.entries()];
          seen = {
            method,
            scheme,
            authority,
            path,
            fields,
            address: source.address,
            account: context.account,
          };
          assert.equal(info.fields.get('x-OLD'), '1');
          assert.equal(info.fields.has('x-new'), false);
          return undefined;
        },
      };
      await withHooks(kind, hooks, async (rig) => {
        const { body } = await exchange(rig, GET);
        assert.equal(JSON.parse(body).url, '/path?q=1');
        assert.deepEqual(seen, {
          method: 'GET',
          scheme: 'http',
          authority: 'host.example',
          path: '/path?q=1',
          fields: [
            ['host', 'Host.Example'],
            ['x-old', '1'],
            ['connection', 'close'],
          ],
          address: '127.0.0.1',
          account: 'acme',
        });
      });
    });

    for (const later of [false, true]) {
      const soon = <T>(value: T): T | Promise<T> =>
        later ? new Promise((resolve) => setTimeout(() => resolve(value), 5)) : value;
      const when = later ? 'later' : 'at once';

      it(`rewrite method, path, host and fields, ${when}`, async () => {
        const hooks: Hooks = {
          request(info) {
            info.fields.set('X-New', 'a');
            info.fields.append('X-New', 'b');
            info.fields.delete('x-old');
            assert.deepEqual(info.fields.getAll('x-new'), ['a', 'b']);
            assert.equal(info.fields.get('x-old'), undefined);
            return soon({
              action: 'forward',
              method: 'PUT',
              path: '/other',
              authority: 'else.example',
            } as const);
          },
        };
        await withHooks(kind, hooks, async (rig) => {
          const seen = JSON.parse((await exchange(rig, GET)).body);
          assert.equal(seen.method, 'PUT');
          assert.equal(seen.url, '/other');
          assert.equal(seen.headers.host, 'else.example');
          assert.equal(seen.headers['x-new'], 'a, b');
          assert.equal(seen.headers['x-old'], undefined);
        });
      });

      it(`answer, redirect and block, ${when}, and the connection goes on`, async () => {
        const hooks: Hooks = {
          request(info) {
            if (info.path === '/answer')
              return soon({
                action: 'answer',
                status: 201,
                fields: { 'X-By': 'hook' },
                body: 'made here',
              } as const);
            if (info.path === '/empty') return soon({ action: 'answer', status: 204 } as const);
            if (info.path === '/redirect')
              return soon({ action: 'redirect', location: '/x', status: 308 } as const);
            if (info.path === '/block') return soon({ action: 'block', reason: 'not for you' } as const);
            return soon(undefined);
          },
        };
        await withHooks(kind, hooks, async (rig) => {
          const client = rig.client();
          const ask = (path: string, method = 'GET') =>
            client.send(`${method} ${path} HTTP/1.1\r\nHost: h\r\n\r\n`);
          assert.match(
            await ask('/answer').response(),
            /^HTTP\/1.1 201 Created[\s\S]*X-By: hook[\s\S]*\r\n\r\nmade here$/,
          );
          assert.match(await ask('/empty').response(), /^HTTP\/1.1 204 No Content\r\n/);
          assert.match(await ask('/redirect').response(), /^HTTP\/1.1 308 [\s\S]*Location: \/x\r\n/);
          assert.match(
            await ask('/block').response(),
            /^HTTP\/1.1 403 [\s\S]*Rampart-Reason: not for you\r\n[\s\S]*403 Forbidden: not for you\n$/,
          );
          ask('/answer', 'HEAD');
          const head = await client.until((text) => text.endsWith('\r\n\r\n'));
          assert.match(head, /Content-Length: 9\r\n/);
          assert.match(await ask('/through').response(), /^HTTP\/1.1 200 [\s\S]*X-Origin: yes/);
          assert.equal(rig.counter(Counter.UpstreamConnects), 1);
          assert.equal(rig.counter(Counter.RequestsRefused), 1);
          assert.equal(rig.counter(Counter.RequestsAnswered), 4);
          client.destroy();
        });
      });

      it(`transform bodies as streams, both ways, ${when}`, async () => {
        const hooks: Hooks = {
          request: () => ({
            action: 'forward',
            transformBody: (chunk) =>
              soon(chunk === null ? Buffer.from('-end') : (upper(chunk) as Uint8Array)),
          }),
          response(info) {
            info.fields.delete('X-Origin');
            assert.equal(info.request.path, '/path?q=1');
            return soon({
              action: 'forward',
              status: 203,
              transformBody: (chunk: Uint8Array | null) =>
                soon(chunk && Buffer.concat([chunk, Buffer.from('!')])),
            } as const);
          },
        };
        await withHooks(kind, hooks, async (rig) => {
          const post = GET.replace('GET', 'POST').replace('X-Old: 1', 'Content-Length: 5');
          const { head, body } = await exchange(rig, `${post}hello`);
          assert.match(head, /^HTTP\/1.1 203 /);
          assert.match(head, /Transfer-Encoding: chunked/);
          assert.doesNotMatch(head, /X-Origin|Content-Length/);
          const text = unchunk(body);
          assert.match(text, /!$/);
          assert.equal(JSON.parse(text.replaceAll('!', '')).text, 'HELLO-end');
        });
      });

      it(`transform megabytes, ${when}, and let others be served meanwhile`, async () => {
        const hooks: Hooks = {
          response: () => ({ action: 'forward', transformBody: (chunk) => soon(upper(chunk) as Uint8Array) }),
        };
        const origin: RequestListener = (_, response) => response.end('a'.repeat(500_000));
        await withHooks(
          kind,
          hooks,
          async (rig) => {
            const bodies = await Promise.all([1, 2, 3].map(() => exchange(rig, GET)));
            for (const { body } of bodies) assert.equal(unchunk(body), 'A'.repeat(500_000));
          },
          origin,
        );
      });

      it(`block a response, ${when}`, async () => {
        const hooks: Hooks = {
          response: () => soon({ action: 'block', reason: 'leaks', status: 451 } as const),
        };
        await withHooks(kind, hooks, async (rig) => {
          const { head, body } = await exchange(rig, GET);
          assert.match(head, /^HTTP\/1.1 451 [\s\S]*Rampart-Reason: leaks/);
          assert.doesNotMatch(body, /path/);
        });
      });
    }

    it('read the request in the response hook, and share its state', async () => {
      const seen: unknown[] = [];
      const hooks: Hooks = {
        request(info) {
          info.state = { number: 7 };
          return undefined;
        },
        response(info) {
          seen.push(
            info.status,
            info.request.state,
            info.request.fields.get('x-old'),
            info.fields.get('x-origin'),
          );
          return undefined;
        },
      };
      await withHooks(kind, hooks, async (rig) => {
        await exchange(rig, GET);
        assert.deepEqual(seen, [200, { number: 7 }, '1', 'yes']);
      });
    });

    it('send a request elsewhere', async () => {
      const other = await listening(createServer((_, response) => response.end('other')));
      const { port } = other.address() as { port: number };
      const hooks: Hooks = {
        request: (info) =>
          info.path === '/other' ? { action: 'forward', to: { host: '127.0.0.1', port } } : undefined,
      };
      await withHooks(kind, hooks, async (rig) => {
        const client = rig.client();
        for (const path of ['/', '/other', '/', '/other']) {
          const text = await client.send(`GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`).response();
          assert.equal(text.endsWith('other'), path === '/other');
        }
        assert.equal(rig.counter(Counter.UpstreamConnects), 2);
        client.destroy();
      });
      other.closeAllConnections();
      other.close();
    });

    it('that fail end their request with 500 and nothing else', async () => {
      const failing: Hooks['request'][] = [
        () => {
          throw new Error('broken');
        },
        async () => {
          throw new Error('broken');
        },
        () => ({ action: 'dance' }) as never,
        (info) => {
          info.fields.set('X', 'a\r\nSmuggled: 1');
          return undefined;
        },
        (info) => {
          info.fields.set('Content-Length', '1');
          return undefined;
        },
      ];
      for (const request of failing) {
        await withHooks(kind, { request } as Hooks, async (rig) => {
          const { head } = await exchange(rig, GET);
          assert.match(head, /^HTTP\/1.1 500 [\s\S]*hook_failed/);
          assert.equal(rig.counter(Counter.UpstreamConnects), 0);
        });
      }
    });

    it('whose transform fails never let a body look complete', async () => {
      for (const later of [false, true]) {
        const transformBody: BodyTransform = (chunk) => {
          if (chunk !== null) return chunk;
          if (later) return Promise.reject(new Error('broken'));
          throw new Error('broken');
        };
        await withHooks(kind, { response: () => ({ action: 'forward', transformBody }) }, async (rig) => {
          const text = await rig.client().send(GET).rest(true);
          assert.doesNotMatch(text, /0\r\n\r\n$/);
          assert.equal(rig.counter(Counter.HookErrors), 1);
        });
      }
    });

    it('cannot make a request a CONNECT', async () => {
      const request = () => ({ action: 'forward', method: 'CONNECT' }) as const;
      await withHooks(kind, { request }, async (rig) => {
        assert.match((await exchange(rig, GET)).head, /^HTTP\/1.1 500 /);
      });
    });
  });
}
