/**
 * The example as a user runs it, on a host of its own so that its ports are free; the files that the README
 * lets a user make are made beside a copy of it.
 *
 *   curl ──► :8443 rampart ──► :9443 nginx for app.example and bank.example        all on host `machine`
 */
import assert from 'node:assert/strict';
import { copyFileSync, cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { TestAuthority } from '#testing/certificates.ts';
import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { lacksPrograms } from '#testing/program.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll, until } from '#testing/until.ts';

const skip = lacksHosts() || lacksPrograms('curl', 'openssl', 'nginx');
let hosts: Hosts;
let rampart: RampartProcess;
let servers: TestAuthority;
let gateway: TestAuthority;
let folder: string;

before(async () => {
  if (skip) return;
  folder = mkdtempSync(join(tmpdir(), 'rampart-inspection-'));
  servers = new TestAuthority('servers');
  gateway = new TestAuthority('gateway');
  for (const file of ['rampart.yaml', 'hooks.ts'])
    cpSync(join(import.meta.dirname, file), join(folder, file));
  copyFileSync(gateway.certificateFile, join(folder, 'authority.pem'));
  copyFileSync(gateway.keyFile, join(folder, 'authority-key.pem'));
  copyFileSync(servers.certificateFile, join(folder, 'servers.pem'));
  hosts = await Hosts.open(['machine']);
  startNginx();
  rampart = await RampartProcess.start({ file: join(folder, 'rampart.yaml'), hosts, on: 'machine' });
  await until('nginx answers', async () => {
    return (await get('bank.example', servers, ['https://bank.example/'])).includes('this is bank.example');
  });
});

after(async () => {
  if (skip) return;
  await closeAll(rampart, hosts);
  servers.close();
  gateway.close();
  rmSync(folder, { recursive: true, force: true });
});

function startNginx(): void {
  const known = servers.issue({ name: 'app.example', alternatives: 'DNS:app.example,DNS:bank.example' });
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${folder}/${kind};`,
  );
  const text = `daemon off; master_process off; pid ${folder}/pid; user root; events {}
http { access_log off; ${temporary.join(' ')} server { listen 127.0.0.1:9443 ssl;
  ssl_certificate ${known.certificateFile}; ssl_certificate_key ${known.keyFile};
  location / { return 200 "this is $host, inspected: $http_x_inspected\\n"; } } }`;
  writeFileSync(join(folder, 'nginx.conf'), text);
  hosts.start('machine', 'nginx', ['-c', join(folder, 'nginx.conf'), '-e', join(folder, 'error.log')]);
}

async function get(name: string, trusted: TestAuthority, more: readonly string[] = []): Promise<string> {
  const result = await hosts.run('machine', 'curl', [
    ...['-sS', '--max-time', '5', '--cacert', trusted.certificateFile],
    ...['--connect-to', `${name}:443:127.0.0.1:8443`, ...more],
  ]);
  return result.output + result.errors;
}

const app = 'https://app.example/';

test('a request inside TLS is read and changed, under a certificate of the gateway', { skip }, async () => {
  assert.match(await get('app.example', gateway, [app]), /this is app.example, inspected: yes/);
});

test('an upload is refused by what is inside', { skip }, async () => {
  const upload = ['-T', join(folder, 'hooks.ts'), `${app}upload`];
  assert.match(await get('app.example', gateway, upload), /uploads are not allowed/);
});

test('a name on the bypass list keeps its own certificate, and is not read', { skip }, async () => {
  const answer = await get('bank.example', servers, ['https://bank.example/']);
  assert.match(answer, /this is bank.example, inspected: \n/);
});

test('a server whose certificate is for another name is never shown to the client', { skip }, async () => {
  assert.match(await get('evil.example', gateway, ['https://evil.example/']), /alert handshake failure/);
});
