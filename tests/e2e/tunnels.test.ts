/**
 * What goes over an IP tunnel beside packets: the context that Rampart sends first, and what becomes of a
 * tunnel whose far end goes away and comes back.
 *
 *   test 10.0.0.5 ──SEQPACKET── rampart ─┬─SEQPACKET── test 10.0.1.80
 *                                        └─GUE──────── test 10.0.2.80
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { GuePeer, PeerEngine, type SeqpacketPeer } from '#testing/packet-peer.ts';
import { seen, udpPacket } from '#testing/packets.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll, until } from '#testing/until.ts';

const folder = mkdtempSync(join(tmpdir(), 'rampart-tunnels-'));
const near = join(folder, 'near.sock');
const far = join(folder, 'far.sock');
/** The connections that Rampart made to the far end, in turn. */
const accepted: SeqpacketPeer[] = [];
let engine: PeerEngine;
let gue: GuePeer;
let rampart: RampartProcess;
let client: SeqpacketPeer;

before(async () => {
  engine = new PeerEngine();
  engine.listen(far, (peer) => accepted.push(peer));
  gue = await GuePeer.open();
  rampart = await RampartProcess.start({
    config: `
on_ramps:
  - { name: near, type: ip-tunnel, listen: "unix:${near}" }
off_ramps:
  - name: far
    type: ip-tunnel
    connect: unix:${far}
    context: { account: acme, vnet: prod, user: gateway, labels: { site: kiel } }
    sources: [10.0.1.0/24]
  - { name: elsewhere, type: gue, remote: "127.0.0.1:${gue.port}" }
  - { name: back, type: on-ramp, on_ramp: near }
routes:
  - { account: acme, vnet: prod, to: 10.0.1.0/24, via: far }
  - { account: acme, vnet: prod, to: 10.0.2.0/24, via: elsewhere }
  - { account: acme, vnet: prod, to: 10.0.0.0/24, via: back }
`,
  });
  client = await engine.connect(near, { account: 'acme', vnet: 'prod', sources: ['10.0.0.0/24'] });
});

after(async () => {
  engine.stop();
  gue.close();
  await closeAll(rampart);
  rmSync(folder, { recursive: true, force: true });
});

function datagram(source: string, destination: string): Uint8Array {
  return udpPacket({ source, destination, sourcePort: 1000, destinationPort: 53 }, 'x');
}

test('message 0 says whose the tunnel is, and leaves it to the far side what may come from it', async () => {
  const first = await until('the context comes', () => accepted[0]?.received.shift());
  assert.deepEqual(JSON.parse(Buffer.from(first).toString()), {
    account: 'acme',
    vnet: 'prod',
    user: 'gateway',
    labels: { site: 'kiel' },
  });
});

test('packets go over as they are, one a message', async () => {
  const packet = datagram('10.0.0.5', '10.0.1.80');
  client.send(packet);
  const came = seen(await until('it arrives', () => accepted[0]?.received.shift()));
  assert.equal(came.ttl, 63);
  assert.deepEqual(came.payload, seen(packet).payload);
});

test('the far side opens flows from its sources, and from nowhere else', async () => {
  accepted[0]?.send(datagram('10.0.1.80', '10.0.0.5'));
  assert.equal(seen(await until('it arrives', () => client.received.shift())).source, '10.0.1.80');
  const before = await rampart.drops('spoofed_source');
  accepted[0]?.send(datagram('10.0.9.80', '10.0.0.5'));
  await until('it is dropped', async () => (await rampart.drops('spoofed_source')) > before);
});

test('every datagram of GUE brings account and vnet', async () => {
  const arrived = new Promise<string>((resolve) => {
    gue.onPacket = (_packet, context) => resolve(Buffer.from(context).toString());
  });
  client.send(datagram('10.0.0.5', '10.0.2.80'));
  assert.equal(await arrived, '{"account":"acme","vnet":"prod"}');
});

test('a far end that goes away is connected to again, with its context', async () => {
  accepted[0]?.close();
  const first = await until('the context comes again', () => accepted[1]?.received.shift());
  assert.equal((JSON.parse(Buffer.from(first).toString()) as { account: string }).account, 'acme');
  await until('packets go over again', () => {
    client.send(datagram('10.0.0.5', '10.0.1.80'));
    return accepted[1]?.received.shift();
  });
});
