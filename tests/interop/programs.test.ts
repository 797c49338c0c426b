/**
 * Programs that this project did not write, through every layer: curl with its odd habits, wrk, iperf3, ping.
 *
 *   client 100.64.0.2 ──tun── rampart ─┬─ :5201 as packets, :5202 as a stream ── tun ── server 10.10.0.10
 *                                      ├─ 10.20.0.0/24 as HTTP ──► origin on loopback
 *   test ──TCP listener web────────────┘
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { Origin } from '#testing/origins.ts';
import { lacksPrograms, type ProgramResult, runProgram } from '#testing/program.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll } from '#testing/until.ts';

const noHosts = lacksHosts();
let hosts: Hosts | undefined;
let origin: Origin;
let rampart: RampartProcess;
/** Of the plain listener. */
let web: string;

function packets(): string {
  return noHosts
    ? ''
    : `
  - name: client
    type: tun
    namespace: client
    device: rampart
    addresses: [100.64.0.2/32, "fd64::2/128"]
    device_routes: [10.10.0.0/24, 10.20.0.0/24, "fd10::/64"]
    context: { account: acme, vnet: programs }
    sources: [100.64.0.2/32, "fd64::2/128"]`;
}

function config(): string {
  const server = `
  - name: server
    type: tun
    namespace: server
    device: rampart
    addresses: [10.10.0.10/24, "fd10::10/64"]
    device_routes: [100.64.0.0/24, "fd64::/64"]`;
  const routes = `
  - { account: acme, vnet: programs, to: 10.10.0.0/24, via: server }
  - { account: acme, vnet: programs, to: "fd10::/64", via: server }
  - { account: acme, vnet: programs, to: 10.20.0.0/24, protocol: tcp, via: origin }
  - account: acme
    vnet: programs
    to: 10.10.0.0/24
    protocol: tcp
    ports: [5202]
    via: server
    upgrade: stream`;
  return `
on_ramps:
  - { name: web, type: tcp, listen: "127.0.0.1:0", upgrade: http }${packets()}
off_ramps:
  - { name: origin, type: http, origins: ["127.0.0.1:${origin.ports.http}"] }${noHosts ? '' : server}
routes:
  - { on_ramp: web, via: origin }${noHosts ? '' : routes}
`;
}

before(async () => {
  if (!noHosts) hosts = await Hosts.open(['client', 'server']);
  origin = await Origin.start('origin', ['http@0']);
  rampart = await RampartProcess.start({ config: config(), ...(hosts === undefined ? {} : { hosts }) });
  web = `http://127.0.0.1:${await rampart.port('web')}`;
});

after(async () => {
  await closeAll(rampart, origin, hosts);
});

describe('curl', { skip: lacksPrograms('curl') }, () => {
  async function curl(...args: readonly string[]): Promise<string> {
    const result = await runProgram('curl', ['-sS', '-m', '15', ...args]);
    assert.equal(result.code, 0, result.errors);
    return result.output;
  }

  test('a body in chunks arrives as it was sent', async () => {
    const sent = await curl(
      '-H',
      'Transfer-Encoding: chunked',
      '--data-binary',
      'twelve bytes',
      `${web}/echo`,
    );
    assert.equal(sent, 'twelve bytes');
  });

  test('a client that waits for 100 (Continue) gets it', async () => {
    const body = 'x'.repeat(5000);
    const answer = await curl('-i', '-H', 'Expect: 100-continue', '--data-binary', body, `${web}/echo`);
    assert.match(answer, /^HTTP\/1\.1 100 Continue\r\n(?:.+\r\n)*\r\nHTTP\/1\.1 200 OK\r\n/);
    assert.ok(answer.endsWith(body));
  });

  test('HEAD has the length and no body, also of a large answer', async () => {
    const head = await curl('-I', `${web}/bytes/1000000`);
    assert.match(head, /^content-length: 1000000\r$/im);
  });

  test('answers without a body end at once', async () => {
    for (const status of ['204', '304']) {
      assert.match(await curl('-i', `${web}/status/${status}`), new RegExp(`^HTTP/1\\.1 ${status} `));
    }
  });

  test('one connection carries many requests, of several methods', async () => {
    const urls = Array.from({ length: 20 }, (_, i) => `${web}/${i}`);
    const ports = await curl(
      '-o',
      '/dev/null',
      '-w',
      '%{local_port}\n',
      ...urls.flatMap((url, i) => [...(i === 0 ? [] : ['-o', '/dev/null']), url]),
    );
    assert.equal(new Set(ports.trim().split('\n')).size, 1);
  });

  test('HTTP/1.0 is answered and closed', async () => {
    assert.match(await curl('-i', '-0', `${web}/old`), /\r\n\r\norigin GET \/old\n$/);
  });

  test('paths and methods come through as they were written', async () => {
    const path = '/a/../b%2f%00;x=1?y=%20&z';
    assert.equal(await curl('--path-as-is', `${web}${path}`), `origin GET ${path}\n`);
    assert.equal(await curl('-X', 'PROPFIND', `${web}/dav`), 'origin PROPFIND /dav\n');
  });

  test('what is for this hop only does not go on', async () => {
    const hop = ['-H', 'Connection: X-Hop', '-H', 'X-Hop: 1', '-H', 'Keep-Alive: 5', '-H', 'X-End: 2'];
    const fields = JSON.parse(await curl(...hop, `${web}/fields`)) as Record<string, string>;
    assert.equal(fields['x-hop'], undefined);
    assert.equal(fields['keep-alive'], undefined);
    assert.equal(fields['x-end'], '2');
    assert.ok(fields.via !== undefined && fields['x-forwarded-for'] === '127.0.0.1', JSON.stringify(fields));
  });

  test('a large upload and a large download come through whole', async () => {
    const size = await curl('-o', '/dev/null', '-w', '%{size_download}', `${web}/bytes/20000000`);
    assert.equal(size, '20000000');
    const body = await runProgram('curl', ['-sS', '-m', '15', '--data-binary', '@-', `${web}/sha256`], {
      input: new Uint8Array(5_000_000),
    });
    assert.match(body.output, /^[0-9a-f]{64}\n$/);
  });
});

test('wrk finds no error in a burst', { skip: lacksPrograms('wrk') }, async () => {
  const { code, output } = await runProgram('wrk', ['-t1', '-c64', '-d2s', `${web}/burst`]);
  assert.equal(code, 0);
  assert.doesNotMatch(output, /Socket errors|Non-2xx/);
  assert.ok(Number(/(\d+) requests in/.exec(output)?.[1]) > 100, output);
  const { counters } = await rampart.stats();
  assert.equal(counters.responses_malformed, 0);
  assert.equal(counters.upstream_connect_errors, 0);
});

test('wrk finds no error in a burst of packets', { skip: noHosts || lacksPrograms('wrk') }, async () => {
  const result = await (hosts as Hosts).run('client', 'wrk', [
    '-t1',
    '-c64',
    '-d2s',
    'http://10.20.0.1/burst',
  ]);
  assert.doesNotMatch(result.output, /Socket errors|Non-2xx/);
  assert.ok(Number(/(\d+) requests in/.exec(result.output)?.[1]) > 100, result.output);
});

describe('iperf3', { skip: noHosts || lacksPrograms('iperf3') }, () => {
  /** One run against a server of its own, which ends with it. */
  async function iperf(port: number, ...args: readonly string[]): Promise<Record<string, { bytes: number }>> {
    const place = hosts as Hosts;
    const server = place.start('server', 'iperf3', ['-s', '-1', '-p', String(port), '--forceflush']);
    await server.says(/Server listening/);
    const address = args.includes('-6') ? 'fd10::10' : '10.10.0.10';
    const line = ['-c', address, '-p', String(port), '-J', '-t', '1', ...args];
    const client: ProgramResult = await place.run('client', 'iperf3', line);
    await server.stop('SIGKILL');
    const parsed = JSON.parse(client.output) as { error?: string; end: Record<string, { bytes: number }> };
    assert.equal(parsed.error, undefined);
    return parsed.end;
  }

  for (const [how, port] of [
    ['as packets', 5201],
    ['as a stream', 5202],
  ] as const) {
    test(`TCP flows both ways ${how}`, async () => {
      for (const args of [[], ['-R'], ['-P', '4']]) {
        const { sum_received } = await iperf(port, ...args);
        assert.ok((sum_received?.bytes ?? 0) > 1_000_000);
      }
    });
  }

  test('TCP flows by IPv6', async () => {
    const { sum_received } = await iperf(5201, '-6');
    assert.ok((sum_received?.bytes ?? 0) > 1_000_000);
  });

  test('UDP arrives', async () => {
    const end = (await iperf(5201, '-u', '-b', '20M')) as Record<string, { bytes: number; packets?: number }>;
    assert.ok((end.sum?.packets ?? 0) > 100);
  });
});

test('ping of every size comes back', { skip: noHosts || lacksPrograms('ping') }, async () => {
  for (const size of ['0', '56', '1472', '8000', '60000']) {
    const ping = ['-c', '2', '-i', '0.2', '-W', '10', '-s', size, '10.10.0.10'];
    const { output } = await (hosts as Hosts).run('client', 'ping', ping);
    assert.match(output, /2 received/, output);
  }
});
