/**
 * The example as a user runs it; the SEQPACKET and the GUE tunnel are made by the test.
 *
 *   left 10.1.0.2 ──tun── rampart ──tun── right 10.2.0.2
 *   test 10.3.0.9 ──SEQPACKET─┘└──GUE── test 10.4.0.9
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { Origin } from '#testing/origins.ts';
import { GuePeer, PeerEngine } from '#testing/packet-peer.ts';
import { echoRequest, seen, udpPacket } from '#testing/packets.ts';
import { lacksPrograms, NODE_FLAGS, Program, runProgram } from '#testing/program.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll, until } from '#testing/until.ts';

const skip = lacksHosts() || lacksPrograms('ping', 'curl');
const socketPath = join('/tmp', `rampart-ip-router-${process.pid}.sock`);
let hosts: Hosts;
let rampart: RampartProcess;
let engine: PeerEngine;

before(async () => {
  if (skip) return;
  hosts = await Hosts.open(['left', 'right']);
  // A path and a port of its own: others may run the example on this machine at the same time.
  const config = readFileSync(join(import.meta.dirname, 'rampart.yaml'), 'utf8')
    .replace('/tmp/rampart-ip-router.sock', socketPath)
    .replace('127.0.0.1:6080', '127.0.0.1:0');
  const files = { 'hooks.ts': readFileSync(join(import.meta.dirname, 'hooks.ts'), 'utf8') };
  rampart = await RampartProcess.start({ config, files, hosts });
  await Origin.start('right', ['http@80', 'greeting@23'], { hosts, on: 'right' });
  engine = new PeerEngine();
});

after(async () => {
  if (skip) return;
  await closeAll(() => engine?.stop(), rampart, hosts);
});

test('the hosts reach each other by both families', { skip }, async () => {
  for (const address of ['10.2.0.2', 'fd02::2']) {
    const { code, output } = await hosts.run('left', 'ping', ['-c', '2', '-i', '0.2', '-W', '5', address]);
    assert.equal(code, 0, output);
  }
  const { output } = await hosts.run('left', 'curl', ['-sS', '-m', '10', 'http://10.2.0.2/x']);
  assert.equal(output, 'right GET /x\n');
});

test('a packet that is too old is answered by ICMP', { skip }, async () => {
  const { output } = await hosts.run('left', 'ping', ['-c', '1', '-t', '1', '-W', '5', '10.2.0.2']);
  assert.match(output, /Time to live exceeded/);
});

test('a packet that is too long for the way out is answered with its MTU', { skip }, async () => {
  const ping = ['-c', '1', '-W', '5', '-M', 'do', '-s', '1450', '10.2.0.2'];
  const { output } = await hosts.run('left', 'ping', ping);
  assert.match(output, /mtu ?= ?1400/);
});

test('telnet is reset by the flow hook, though somebody listens', { skip }, async () => {
  const { code, errors } = await hosts.run('left', 'curl', ['-sS', '-m', '10', 'telnet://10.2.0.2:23']);
  assert.equal(code, 7, errors);
});

test('a program on a SEQPACKET socket reaches a host and is reached', { skip }, async () => {
  const context = { account: 'acme', vnet: 'office', user: 'test', sources: ['10.3.0.9/32'] };
  const peer = await engine.connect(socketPath, context);
  peer.send(echoRequest({ source: '10.3.0.9', destination: '10.2.0.2' }, { identifier: 7, sequence: 1 }));
  const reply = await until('the reply comes', () => peer.received.shift());
  assert.deepEqual([seen(reply).source, seen(reply).icmpType, seen(reply).ttl], ['10.2.0.2', 0, 63]);
  peer.close();
});

test('a tunnel of another network is refused by the tunnel hook', { skip }, async () => {
  const peer = await engine.connect(socketPath, {
    account: 'other',
    vnet: 'office',
    sources: ['10.3.0.0/24'],
  });
  await until('the connection is closed', () => peer.isClosed);
});

test('a node over GUE reaches a program on a SEQPACKET socket', { skip }, async () => {
  const program = await engine.connect(socketPath, {
    account: 'acme',
    vnet: 'office',
    sources: ['10.3.0.8/32'],
  });
  const node = await GuePeer.open({ port: await rampart.port('nodes') });
  const path = { source: '10.4.0.9', destination: '10.3.0.8', sourcePort: 4000, destinationPort: 53 };
  const context = '{"account":"acme","vnet":"office","sources":["10.4.0.9/32"]}';
  const packet = await until('the datagram arrives', () => {
    node.send(udpPacket(path, 'hello'), context);
    return program.received.shift();
  });
  assert.equal(Buffer.from(seen(packet).payload).toString(), 'hello');
  node.close();
  program.close();
});

test('the client of the guide joins and answers pings', {
  skip: skip || lacksPrograms('python3'),
}, async () => {
  const client = hosts.start('left', 'python3', [join(import.meta.dirname, 'client.py'), socketPath]);
  await client.says(/joined/);
  const ping = ['-c', '2', '-i', '0.2', '-W', '5', '10.3.0.5'];
  const { code, output } = await hosts.run('left', 'ping', ping);
  assert.equal(code, 0, output);
  await client.stop('SIGKILL');
});

test('the node of the guide joins over GUE and answers pings', { skip }, async () => {
  const port = String(await rampart.port('nodes'));
  const file = join(import.meta.dirname, 'node.ts');
  const node = new Program(process.execPath, [...NODE_FLAGS, file, '127.0.0.1', port]);
  await node.says(/joined/);
  const ping = ['-c', '2', '-i', '0.2', '-W', '5', '10.4.0.7'];
  await until('pings are answered', async () => (await hosts.run('left', 'ping', ping)).code === 0);
  await node.stop('SIGKILL');
});

test('the config of the example has no mistake', async () => {
  const args = [join(import.meta.dirname, '../../src/cli/main.ts'), 'check'];
  const { code, errors } = await runProgram(process.execPath, [
    ...args,
    join(import.meta.dirname, 'rampart.yaml'),
  ]);
  assert.equal(code, 0, errors);
});
