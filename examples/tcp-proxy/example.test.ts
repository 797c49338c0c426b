/**
 * The example as a user runs it, on a host of its own so that its ports are free.
 *
 *   client ──► :6432 rampart ──► :5432 backend.ts        all on host `machine`
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { join } from 'node:path';

import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll, until } from '#testing/until.ts';
import { lacksPrograms } from '#testing/program.ts';

const skip = lacksHosts() || lacksPrograms('socat');
let hosts: Hosts;
let rampart: RampartProcess;

before(async () => {
  if (skip) return;
  hosts = await Hosts.open(['machine']);
  const backend = hosts.startScript('machine', join(import.meta.dirname, 'backend.ts'), []);
  await backend.says(/ready/);
  const file = join(import.meta.dirname, 'rampart.yaml');
  rampart = await RampartProcess.start({ file, hosts, on: 'machine' });
});

after(async () => {
  if (skip) return;
  await closeAll(rampart, hosts);
});

/** What a PostgreSQL client says first. */
function startup(user: string): Buffer {
  const words = Buffer.from(`user\0${user}\0database\0orders\0\0`);
  const head = Buffer.alloc(8);
  head.writeInt32BE(8 + words.length);
  head.writeInt32BE(196_608, 4);
  return Buffer.concat([head, words]);
}

async function say(bytes: Uint8Array): Promise<string> {
  const args = ['-t', '5', '-', 'TCP:127.0.0.1:6432'];
  return (await hosts.run('machine', 'socat', args, { input: bytes })).output;
}

test('a user who is on the list reaches the database', { skip }, async () => {
  const answer = await say(startup('ada'));
  // AuthenticationOk, then ReadyForQuery.
  assert.ok(answer.startsWith('R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I'), JSON.stringify(answer));
});

test('a user who is not is refused, and the log says why', { skip }, async () => {
  assert.equal(await say(startup('mallory')), '');
  await until('the log has the reason', () => rampart.log.includes('mallory may not use this database'));
});

test('a client that is no database client is refused', { skip }, async () => {
  assert.equal(await say(Buffer.from('GET / HTTP/1.1\r\n\r\n')), '');
});
