/**
 * The example as a user runs it; the gateway is a host of its own, so that its port is free.
 *
 *   client 100.64.0.2 ──tun── gateway: rampart ──► 127.0.0.1:9000 origin
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { Origin } from '#testing/origins.ts';
import { lacksPrograms } from '#testing/program.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll } from '#testing/until.ts';

const skip = lacksHosts() || lacksPrograms('curl', 'ping');
let hosts: Hosts;
let rampart: RampartProcess;

before(async () => {
  if (skip) return;
  hosts = await Hosts.open(['client', 'gateway']);
  await Origin.start('web', ['http@9000'], { hosts, on: 'gateway' });
  const file = join(import.meta.dirname, 'rampart.yaml');
  rampart = await RampartProcess.start({ file, hosts, on: 'gateway' });
});

after(async () => {
  if (skip) return;
  await closeAll(rampart, hosts);
});

/** Head and body of one answer. */
async function curl(url: string, ...args: readonly string[]): Promise<string> {
  const result = await hosts.run('client', 'curl', ['-sSi', '-m', '10', ...args, url]);
  assert.equal(result.code, 0, result.errors);
  return result.output;
}

test('packets of the client become a request that knows its user', { skip }, async () => {
  for (const host of ['10.20.0.1', '10.20.77.3', '[fd20::5]']) {
    const answer = await curl(`http://${host}/fields`);
    assert.match(answer, /^HTTP\/1\.1 200 /);
    assert.match(answer, /"x-user":"ada"/);
  }
});

test('rules at layer 7 hold', { skip }, async () => {
  assert.match(
    await curl('http://10.20.0.1/x', '-X', 'DELETE'),
    /^HTTP\/1\.1 403 [\s\S]*for the group writers/,
  );
  assert.match(
    await curl('http://10.20.0.1/', '-H', 'Host: payroll.example'),
    /^HTTP\/1\.1 403 [\s\S]*payroll/,
  );
  assert.match(await curl('http://10.20.0.1/latest'), /^HTTP\/1\.1 302 [\s\S]*^location: \/v2\/\r$/im);
});

test('a large body comes through whole', { skip }, async () => {
  const args = ['-sS', '-m', '30', '-o', '/dev/null', '-w', '%{size_download}'];
  const { output } = await hosts.run('client', 'curl', [...args, 'http://10.20.0.1/bytes/5000000']);
  assert.equal(output, '5000000');
});

test('anything but web is refused at its first packet', { skip }, async () => {
  const { code } = await hosts.run('client', 'curl', ['-sS', '-m', '10', 'http://10.20.0.1:5432/']);
  assert.equal(code, 7);
  const ping = await hosts.run('client', 'ping', ['-c', '1', '-W', '5', '10.20.0.1']);
  assert.match(ping.output, /filtered|prohibited/i);
});
