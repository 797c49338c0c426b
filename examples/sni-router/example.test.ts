/**
 * The example as a user runs it, on a host of its own so that its ports are free.
 *
 *   curl ──► :8443 rampart ─┬─► :9443 openssl s_server for shop.example        all on host `machine`
 *                           └─► :9444 openssl s_server for *.team.example
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { TestAuthority } from '#testing/certificates.ts';
import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { lacksPrograms } from '#testing/program.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll, until } from '#testing/until.ts';

const skip = lacksHosts() || lacksPrograms('curl', 'openssl');
let hosts: Hosts;
let rampart: RampartProcess;
let authority: TestAuthority;

before(async () => {
  if (skip) return;
  authority = new TestAuthority();
  hosts = await Hosts.open(['machine']);
  serve(9443, 'shop.example');
  serve(9444, '*.team.example');
  const file = join(import.meta.dirname, 'rampart.yaml');
  rampart = await RampartProcess.start({ file, hosts, on: 'machine' });
  await until('both servers answer', async () => {
    const answers = [await get('shop.example'), await get('a.team.example')];
    return answers.every((answer) => answer.includes('s_server'));
  });
});

after(async () => {
  if (skip) return;
  await closeAll(rampart, hosts);
  authority.close();
});

function serve(port: number, name: string): void {
  const { certificateFile, keyFile } = authority.issue({ name });
  hosts.start('machine', 'openssl', [
    ...['s_server', '-accept', String(port), '-www', '-cert', certificateFile, '-key', keyFile],
  ]);
}

async function get(name: string, more: readonly string[] = []): Promise<string> {
  const result = await hosts.run('machine', 'curl', [
    ...['-sS', '--max-time', '5', '--cacert', authority.certificateFile, ...more],
    ...['--connect-to', `${name}:443:127.0.0.1:8443`, `https://${name}/`],
  ]);
  return result.output + result.errors;
}

test('each name reaches the server that has its certificate', { skip }, async () => {
  // curl verifies the names, so a wrong server would fail here.
  assert.match(await get('shop.example'), /-accept 9443|s_server/);
  assert.match(await get('b.team.example'), /s_server/);
});

test('a name that no route has ends with an alert', { skip }, async () => {
  assert.match(await get('x.example'), /alert access denied/);
});

test('the hook keeps out a client without TLS 1.3', { skip }, async () => {
  assert.match(await get('shop.example', ['--tls-max', '1.2']), /alert access denied/);
});
