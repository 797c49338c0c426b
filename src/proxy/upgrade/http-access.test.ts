/** Lines of the access log as whole requests leave them, and trace contexts on their way. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';

import { RampartError } from '#base/error.ts';
import { AccessLog } from '#proxy/access-log/access-log.ts';
import { LineFormat } from '#proxy/access-log/line-format.ts';
import { LogFile } from '#proxy/access-log/log-file.ts';
import { createStats } from '#proxy/stats.ts';

import { ENGINES, listening, Rig, type RigOptions } from './http-test-rig.ts';

type Line = Readonly<Record<string, string | number | null>>;

/** Runs `test` behind a proxy with a log, and gives the lines and what the origin was asked. */
async function logged(
  kind: RigOptions['kind'],
  test: (rig: Rig) => Promise<void>,
): Promise<{ lines: Line[]; asked: IncomingHttpHeaders[] }> {
  const folder = mkdtempSync(join(tmpdir(), 'rampart-http-access-'));
  const path = join(folder, 'access.log');
  const onLost = (_lines: number, error: Error): never => assert.fail(error);
  const accessLog = new AccessLog({
    file: LogFile.open({ path, rotateBytes: null, keep: 0, onLost }),
    format: LineFormat.json(),
    createTrace: true,
    stats: createStats(),
  });
  const asked: IncomingHttpHeaders[] = [];
  const origin = createServer((request, response) => {
    asked.push(request.headers);
    request.resume().on('end', () => response.end('hello'));
  });
  const rig = new Rig(await listening(origin), { kind, engine: { accessLog } });
  try {
    await test(rig);
    await rig.close();
    await accessLog.close();
    const text = readFileSync(path, 'utf8');
    const lines = text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Line);
    return { lines, asked };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const CLOSE = 'Connection: close\r\n\r\n';

for (const kind of ENGINES) {
  describe(`access log of HTTP on ${kind}`, { timeout: 60_000 }, () => {
    it('has one line for each request of a connection, with its times', async () => {
      const { lines } = await logged(kind, async (rig) => {
        const client = rig.client();
        client.send('GET /one HTTP/1.1\r\nHost: a.example\r\n\r\n');
        client.send(`POST /two HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n${CLOSE}abc`);
        await client.rest();
      });
      assert.equal(lines.length, 2);
      const [first, second] = lines as [Line, Line];
      const { method, authority, path, version, status, bytes_up, bytes_down, end } = first;
      assert.deepEqual(
        { method, authority, path, version, status, bytes_up, bytes_down, end },
        {
          method: 'GET',
          authority: 'a.example',
          path: '/one',
          version: '1.1',
          status: 200,
          bytes_up: 0,
          bytes_down: 5,
          end: 'ok',
        },
      );
      assert.deepEqual(
        [second.method, second.path, second.bytes_up, second.bytes_down],
        ['POST', '/two', 3, 5],
      );
      assert.equal(second.connect_ms, 0, 'the connection was kept');
      for (const line of lines) {
        const parts = [line.request_ms, line.queue_ms, line.connect_ms, line.response_ms].map(Number);
        assert.ok(
          parts.every((ms) => ms >= 0),
          'every step came to pass',
        );
        assert.ok(Number(line.total_ms) + parts.length >= parts.reduce((sum, ms) => sum + ms), 'parts of it');
      }
    });

    it('tells what this node answered itself, of a malformed head without its parts', async () => {
      const { lines, asked } = await logged(kind, async (rig) => {
        await rig.client().send(`CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n${CLOSE}`).rest();
        await rig.client().send('GET / HTTP/1.1\r\nHost: a\r\nBad Field: 1\r\n\r\n').rest();
      });
      assert.equal(asked.length, 0);
      assert.deepEqual(
        lines.map(({ method, status, end }) => [method, status, end]),
        [
          ['CONNECT', 405, 'answered'],
          ['', 400, 'answered'],
        ],
      );
      for (const { response_ms, connect_ms, bytes_up } of lines) {
        assert.deepEqual([response_ms, connect_ms, bytes_up], [null, null, 0]);
      }
    });

    it('answers 503 when the origins have all the connections that they may', async () => {
      const { lines } = await logged(kind, async (rig) => {
        rig.connect = () => Promise.reject(new RampartError('RAMP_LIMIT', 'full', { side: 'upstream' }));
        const answer = await rig.client().send(`GET / HTTP/1.1\r\nHost: a\r\n${CLOSE}`).rest();
        assert.match(answer, /^HTTP\/1\.1 503 /);
      });
      const [line] = lines as [Line];
      assert.deepEqual([line.status, line.end, line.connect_ms], [503, 'answered', null]);
    });

    it('a connection without a request has the line of a stream', async () => {
      const { lines } = await logged(kind, async (rig) => {
        await rig.client().end().rest();
      });
      assert.deepEqual(
        lines.map(({ kind, end, status }) => [kind, end, status]),
        [['stream', 'client_closed', null]],
      );
    });

    it('a request without a trace gets one, and one that came stays', async () => {
      const came = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00';
      const { lines, asked } = await logged(kind, async (rig) => {
        await rig.client().send(`GET / HTTP/1.1\r\nHost: a\r\n${CLOSE}`).rest();
        await rig.client().send(`GET / HTTP/1.1\r\nHost: a\r\ntraceparent: ${came}\r\n${CLOSE}`).rest();
      });
      assert.match(String(asked[0]?.traceparent), /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
      assert.equal(String(asked[0]?.traceparent).slice(3, 35), lines[0]?.trace);
      assert.equal(asked[1]?.traceparent, came);
      assert.equal(lines[1]?.trace, came.slice(3, 35));
    });
  });
}
