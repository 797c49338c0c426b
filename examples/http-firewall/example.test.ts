/**
 * The example as a user runs it, on a host of its own so that its ports are free.
 *
 *   curl ──► :8080 rampart ──► :9000 application.ts        all on host `machine`
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { lacksPrograms } from '#testing/program.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll } from '#testing/until.ts';

const skip = lacksHosts() || lacksPrograms('curl');
let hosts: Hosts;
let rampart: RampartProcess;

before(async () => {
  if (skip) return;
  hosts = await Hosts.open(['machine']);
  const application = hosts.startScript('machine', join(import.meta.dirname, 'application.ts'), []);
  await application.says(/ready/);
  const file = join(import.meta.dirname, 'rampart.yaml');
  rampart = await RampartProcess.start({ file, hosts, on: 'machine' });
});

after(async () => {
  if (skip) return;
  await closeAll(rampart, hosts);
});

/** Head and body of one answer. */
async function curl(path: string, ...args: readonly string[]): Promise<string> {
  const line = ['-sSi', '-m', '10', ...args, `http://127.0.0.1:8080${path}`];
  const result = await hosts.run('machine', 'curl', line);
  assert.equal(result.code, 0, result.errors);
  return result.output;
}

test('a request goes through, and the answer has one field less and one more', { skip }, async () => {
  const answer = await curl('/hello?you');
  assert.match(answer, /^HTTP\/1\.1 200 /);
  assert.match(answer, /you asked for GET \/hello\?you\n$/);
  assert.match(answer, /^x-content-type-options: nosniff\r$/im);
  assert.doesNotMatch(answer, /x-powered-by/i);
});

test('what a rule forbids is answered with its reason', { skip }, async () => {
  assert.match(await curl('/admin/users'), /^HTTP\/1\.1 403 [\s\S]*admin pages are not public/);
  assert.match(await curl('/', '-X', 'TRACE'), /^HTTP\/1\.1 405 [\s\S]*TRACE is not used here/);
  assert.match(await curl('/', '-A', 'sqlmap/1.8'), /^HTTP\/1\.1 403 /);
});

test('an old address is redirected', { skip }, async () => {
  assert.match(await curl('/old'), /^HTTP\/1\.1 308 [\s\S]*^location: \/new\r$/im);
});

test('a hook answers by itself', { skip }, async () => {
  assert.match(await curl('/health'), /^HTTP\/1\.1 200 [\s\S]*\r\n\r\nok\n$/);
});

test('a card number is masked, though it comes in two pieces', { skip }, async () => {
  assert.match(await curl('/orders'), /paid by \*{4} \*{4} \*{4} 1234, thank you\n$/);
});
