/**
 * PROXY headers between Rampart and programs that it did not write, on a host of their own so that ports are
 * free.
 *
 *   curl --haproxy-protocol ──────────────┐
 *   curl ──► HAProxy (v1, v2, TLS TLVs) ──┼─► :9000 rampart ──► origin, or
 *   curl ──► nginx (stream, v1) ──────────┘                 ├─► HAProxy accept-proxy
 *                                                           ├─► nginx listen proxy_protocol
 *                                                           └─► rampart
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { Origin } from '#testing/origins.ts';
import { lacksPrograms } from '#testing/program.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { until } from '#testing/until.ts';

const skip = lacksHosts() || lacksPrograms('curl', 'haproxy', 'nginx', 'socat', 'openssl');
const HOST = 'machine';

const CONFIG = `
on_ramps:
  - name: web
    type: tcp
    listen: 127.0.0.1:9000
    upgrade: http
    proxy_protocol: { trust: [127.0.0.1/32] }
  - name: echo
    type: tcp
    listen: 127.0.0.1:9001
    upgrade: stream
    proxy_protocol: { trust: [127.0.0.1/32] }
  - { name: plain-v1, type: tcp, listen: 127.0.0.1:9011, upgrade: http }
  - { name: plain-v2, type: tcp, listen: 127.0.0.1:9012, upgrade: http }
  - { name: plain-nginx, type: tcp, listen: 127.0.0.1:9013, upgrade: stream }
  - name: chain-in
    type: tcp
    listen: 127.0.0.1:9014
    upgrade: stream
    context: { account: acme, vnet: lab, user: ada, groups: [staff] }
  - name: chain-out
    type: tcp
    listen: 127.0.0.1:9015
    upgrade: stream
    context: { account: nobody }
    proxy_protocol: { trust: [127.0.0.1/32], context: true }
off_ramps:
  - { name: origin, type: http, origins: ["127.0.0.1:8000"] }
  - { name: echoes, type: sockets, target: "127.0.0.1:8001" }
  - { name: haproxy-v1, type: http, origins: ["127.0.0.1:8100"], proxy_protocol: v1 }
  - { name: haproxy-v2, type: http, origins: ["127.0.0.1:8100"], proxy_protocol: v2 }
  - { name: nginx, type: sockets, target: "127.0.0.1:8200", proxy_protocol: v2 }
  - { name: next, type: sockets, target: "127.0.0.1:9015", proxy_protocol: v2-context }
routes:
  - { on_ramp: web, via: origin }
  - { on_ramp: echo, via: echoes }
  - { on_ramp: plain-v1, via: haproxy-v1 }
  - { on_ramp: plain-v2, via: haproxy-v2 }
  - { on_ramp: plain-nginx, via: nginx }
  - { on_ramp: chain-in, via: next }
  - { on_ramp: chain-out, via: echoes }
hooks: ./hooks.ts
limits: { introduction: 300ms }
telemetry: { records: true }
`;

const HOOKS = `
export default {
  stream({ source, facts }) {
    if (facts !== null) console.log('facts', JSON.stringify({ source, ...facts }));
    return undefined;
  },
};
`;

let folder: string;
let hosts: Hosts;
let rampart: RampartProcess;

function haproxyConfig(): string {
  const server = (name: string, options: string): string =>
    `  server ${name} 127.0.0.1:9000 send-proxy-v2 proxy-v2-options ${options}\n`;
  const addresses = '%[src]:%[src_port] > %[dst]:%[dst_port]';
  return `
global
  maxconn 200
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
listen v1
  bind 127.0.0.1:7001
  server up 127.0.0.1:9000 send-proxy
listen v2
  bind 127.0.0.1:7002
${server('up', 'crc32c,unique-id,authority')}  unique-id-format %{+X}o%ci-%cp
listen tls
  bind 127.0.0.1:7003 ssl crt ${folder}/both.pem ca-file ${folder}/cert.pem verify optional alpn http/1.1
${server('up', 'ssl,cert-cn,ssl-cipher,cert-sig,cert-key,crc32c,authority')}
frontend told
  bind 127.0.0.1:8100 accept-proxy
  http-request return status 200 content-type text/plain lf-string "${addresses}\\n"
`;
}

function nginxConfig(): string {
  return `
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid ${folder}/nginx.pid; error_log ${folder}/nginx.err; user root;
events { worker_connections 100; }
http { access_log off;
  server { listen 127.0.0.1:8200 proxy_protocol;
    location / {
      return 200 "$proxy_protocol_addr:$proxy_protocol_port > $proxy_protocol_server_port\\n"; } } }
stream { server { listen 127.0.0.1:7100; proxy_pass 127.0.0.1:9000; proxy_protocol on; } }
`;
}

before(async () => {
  if (skip) return;
  folder = mkdtempSync(join(tmpdir(), 'rampart-proxy-'));
  hosts = await Hosts.open([HOST]);
  const subject = ['-subj', '/CN=ada', '-addext', 'subjectAltName=DNS:www.test'];
  const files = ['-keyout', `${folder}/key.pem`, '-out', `${folder}/cert.pem`];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  await run('openssl', ['req', '-x509', ...key, ...subject, ...files]);
  await run('sh', ['-c', `cat ${folder}/cert.pem ${folder}/key.pem > ${folder}/both.pem`]);
  writeFileSync(join(folder, 'haproxy.cfg'), haproxyConfig());
  writeFileSync(join(folder, 'nginx.conf'), nginxConfig());
  hosts.start(HOST, 'haproxy', ['-db', '-f', join(folder, 'haproxy.cfg')]);
  hosts.start(HOST, 'nginx', ['-c', join(folder, 'nginx.conf'), '-e', join(folder, 'nginx.err')]);
  await Origin.start('origin', ['http@8000', 'echo@8001'], { hosts, on: HOST });
  rampart = await RampartProcess.start({ config: CONFIG, files: { 'hooks.ts': HOOKS }, hosts, on: HOST });
  for (const port of [7001, 7002, 7100, 8100, 8200]) {
    await until(`port ${port} is open`, async () => {
      return (await hosts.run(HOST, 'socat', ['-u', '/dev/null', `TCP:127.0.0.1:${port}`])).code === 0;
    });
  }
});

after(async () => {
  if (skip) return;
  await rampart.stop();
  await hosts.close();
  rmSync(folder, { recursive: true });
});

async function run(command: string, args: readonly string[], input?: string | Uint8Array): Promise<string> {
  const result = await hosts.run(HOST, command, args, input === undefined ? {} : { input });
  return result.output;
}

async function curl(...args: readonly string[]): Promise<string> {
  return await run('curl', ['-s', '-m', '5', '--interface', '127.0.0.5', ...args]);
}

/** The client that an origin behind Rampart is told by X-Forwarded-For. */
async function forwardedFor(...args: readonly string[]): Promise<unknown> {
  const fields = JSON.parse(await curl(...args)) as Record<string, string>;
  return fields['x-forwarded-for'];
}

/** The facts that the stream hook saw last. */
function lastFacts(): Record<string, unknown> {
  const line = rampart.log.split('\n').findLast((text) => text.startsWith('facts '));
  return JSON.parse((line ?? 'facts null').slice(6)) as Record<string, unknown>;
}

test("HAProxy's headers of both versions tell the client", { skip }, async () => {
  assert.equal(await forwardedFor('http://127.0.0.1:7001/fields'), '127.0.0.5');
  assert.equal(await forwardedFor('http://127.0.0.1:7002/fields'), '127.0.0.5');
  const { uniqueId, source } = lastFacts();
  assert.equal((source as { address: string }).address, '127.0.0.5');
  assert.match(Buffer.from(Object.values(uniqueId as object)).toString(), /^7F000005-/);
});

test("nginx's header tells the client", { skip }, async () => {
  assert.equal(await forwardedFor('http://127.0.0.1:7100/fields'), '127.0.0.5');
});

test("curl's own header is read, with its request behind it in one segment", { skip }, async () => {
  const answer = await run('curl', ['-s', '-m', '5', '--haproxy-protocol', 'http://127.0.0.1:9000/fields']);
  assert.equal((JSON.parse(answer) as Record<string, string>)['x-forwarded-for'], '127.0.0.1');
});

test('what HAProxy knows of TLS reaches the hook', { skip }, async () => {
  const certificate = ['--cert', `${folder}/both.pem`, '--cacert', `${folder}/cert.pem`];
  const place = ['--connect-to', 'www.test:443:127.0.0.1:7003', 'https://www.test/fields'];
  assert.equal(await forwardedFor(...certificate, ...place), '127.0.0.5');
  const { serverName, tls } = lastFacts();
  assert.equal(serverName, 'www.test');
  const { cipher, signatureAlgorithm, keyAlgorithm, ...rest } = tls as Record<string, unknown>;
  assert.deepEqual(rest, {
    encrypted: true,
    clientCertificate: 'connection',
    verified: true,
    version: 'TLSv1.3',
    commonName: 'ada',
  });
  assert.match(`${cipher} ${signatureAlgorithm} ${keyAlgorithm}`, /^TLS_\w+ [\w-]+ EC256$/);
});

test('HAProxy and nginx read what an off-ramp sends', { skip }, async () => {
  assert.match(await curl('http://127.0.0.1:9011/'), /^127\.0\.0\.5:\d+ > 127\.0\.0\.1:9011$/m);
  assert.match(await curl('http://127.0.0.1:9012/'), /^127\.0\.0\.5:\d+ > 127\.0\.0\.1:9012$/m);
  assert.match(await curl('http://127.0.0.1:9013/'), /^127\.0\.0\.5:\d+ > 9013$/m);
});

test('a connection that was announced serves no other client', { skip }, async () => {
  for (const client of ['127.0.0.6', '127.0.0.7', '127.0.0.6']) {
    const answer = await run('curl', ['-s', '-m', '5', '--interface', client, 'http://127.0.0.1:9012/']);
    assert.ok(answer.startsWith(`${client}:`), answer);
  }
});

test('the context goes with the connection to the next Rampart', { skip }, async () => {
  const words = 'over two nodes';
  assert.equal(await run('socat', ['-t', '2', '-', 'TCP:127.0.0.1:9014'], words), words);
  await until('both records are in the log', () => /on_ramp"?[=:]"?chain-out/.test(rampart.log));
  const line = rampart.log.split('\n').find((text) => text.includes('chain-out') && text.includes('ended'));
  assert.match(line ?? '', /acme/);
  assert.match(line ?? '', /lab/);
  assert.match(line ?? '', /ada/);
});

test('no header, a wrong one, a late one or a stranger: nothing reaches the origin', { skip }, async () => {
  const before = (await rampart.stats()).counters.streams_opened;
  for (const bytes of [
    'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
    'PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\nhello',
    `\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f${'\x01'.repeat(12)}\x04\0\x01hello`,
  ]) {
    const bytesOut = Buffer.from(bytes, 'latin1');
    assert.equal(await run('socat', ['-t', '2', '-', 'TCP:127.0.0.1:9001'], bytesOut), '');
  }
  // Silence, until the limit of 300 ms.
  assert.equal(await run('socat', ['-t', '9', '-,ignoreeof', 'TCP:127.0.0.1:9001'], ''), '');
  const stranger = 'TCP:127.0.0.1:9001,bind=127.0.0.9';
  const honest = 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nhello';
  assert.equal(await run('socat', ['-t', '2', '-', stranger], honest), '');
  assert.equal((await rampart.stats()).counters.streams_opened, before);
  assert.equal(await run('socat', ['-t', '2', '-', 'TCP:127.0.0.1:9001'], honest), 'hello');
});
