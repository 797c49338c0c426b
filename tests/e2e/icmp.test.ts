/**
 * ICMP as hosts use it, in both families: echo end to end, time exceeded, unreachable, packet too big.
 *
 *   client 100.64.0.2 ──tun (1500)── rampart ──tun (1400)── server 10.10.0.10
 *      fd64::2                        │    └──sockets────── loopback, where nobody listens (10.20.0.0/24)
 *   test 10.3.0.9, fd03::9 ──SEQPACKET (65535)
 *   test 10.4.0.9, fd04::9 ──SEQPACKET (1300), for what has to be seen in the packets
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { TcpFlag } from '#packet/parse.ts';
import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { Origin } from '#testing/origins.ts';
import { PeerEngine, type SeqpacketPeer } from '#testing/packet-peer.ts';
import { echoRequest, seen, type SeenPacket, tcpPacket, udpPacket } from '#testing/packets.ts';
import { lacksPrograms } from '#testing/program.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll, until } from '#testing/until.ts';

const skip = lacksHosts() || lacksPrograms('ping', 'socat', 'curl');
const CLIENT = '[100.64.0.2/32, "fd64::2/128"]';
const folder = mkdtempSync(join(tmpdir(), 'rampart-icmp-'));
const wide = join(folder, 'wide.sock');
const narrow = join(folder, 'narrow.sock');
let hosts: Hosts;
let rampart: RampartProcess;
let engine: PeerEngine;

function config(closedPort: number): string {
  return `
on_ramps:
  - name: client
    type: tun
    namespace: client
    device: rampart
    addresses: ${CLIENT}
    device_routes: [10.0.0.0/8, "fd00::/8"]
    context: { account: acme, vnet: icmp }
    sources: ${CLIENT}
  - { name: wide, type: ip-tunnel, listen: "unix:${wide}" }
  - { name: narrow, type: ip-tunnel, listen: "unix:${narrow}", mtu: 1300 }
off_ramps:
  - name: server
    type: tun
    namespace: server
    device: rampart
    mtu: 1400
    addresses: [10.10.0.10/24, "fd10::10/64"]
    device_routes: [100.64.0.0/24, "fd64::/64", 10.3.0.0/24, "fd03::/64"]
  - { name: to-wide, type: on-ramp, on_ramp: wide }
  - { name: to-narrow, type: on-ramp, on_ramp: narrow }
  - { name: closed, type: sockets, target: "127.0.0.1:${closedPort}" }
routes:
  - { account: acme, vnet: icmp, to: 10.10.0.0/24, via: server }
  - { account: acme, vnet: icmp, to: "fd10::/64", via: server }
  - account: acme
    vnet: icmp
    to: 10.10.0.0/24
    protocol: tcp
    ports: [8080]
    via: server
    upgrade: stream
  - { account: acme, vnet: icmp, to: 10.20.0.0/24, via: closed }
  - { account: acme, vnet: icmp, to: 10.3.0.0/24, via: to-wide }
  - { account: acme, vnet: icmp, to: "fd03::/64", via: to-wide }
  - { account: acme, vnet: icmp, to: 10.4.0.0/24, via: to-narrow }
  - { account: acme, vnet: icmp, to: "fd04::/64", via: to-narrow }
`;
}

before(async () => {
  if (skip) return;
  hosts = await Hosts.open(['client', 'server']);
  // A port that was free a moment ago, and at which nobody listens.
  const gone = await Origin.start('gone', ['greeting@0']);
  await gone.stop();
  rampart = await RampartProcess.start({ config: config(gone.ports.greeting), hosts });
  await Origin.start('server', ['http@80', 'datagrams@53'], { hosts, on: 'server' });
  engine = new PeerEngine();
});

after(async () => {
  if (skip) return;
  engine?.stop();
  await closeAll(rampart, hosts);
  rmSync(folder, { recursive: true, force: true });
});

async function ping(...args: readonly string[]): Promise<string> {
  const { output, errors } = await hosts.run('client', 'ping', ['-n', '-W', '10', ...args]);
  return output + errors;
}

/** A tunnel of the test, allowed to send from two addresses. */
function connect(path: string, ...sources: readonly string[]): Promise<SeqpacketPeer> {
  return engine.connect(path, { account: 'acme', vnet: 'icmp', sources });
}

async function next(peer: SeqpacketPeer): Promise<SeenPacket> {
  return seen(await until('a packet comes', () => peer.received.shift()));
}

for (const [family, server, header] of [
  ['IPv4', '10.10.0.10', 28],
  ['IPv6', 'fd10::10', 48],
] as const) {
  describe(`with ${family}`, { skip }, () => {
    test('an echo goes end to end, also in fragments', async () => {
      assert.match(await ping('-c', '2', '-i', '0.2', server), /2 received/);
      assert.match(await ping('-c', '2', '-i', '0.2', '-s', '4000', server), /2 received/);
    });

    test('a packet whose time is over is answered, one hop more reaches the server', async () => {
      assert.match(await ping('-c', '1', '-t', '1', server), /Time to live exceeded|Hop limit/);
      assert.match(await ping('-c', '1', '-t', '2', server), /1 received/);
    });

    test('a packet that is too big is answered with the MTU of the way out', async () => {
      const tooBig = String(1401 - header);
      assert.match(await ping('-c', '1', '-M', 'do', '-s', tooBig, server), /mtu ?[=:] ?1400/i);
      const fits = String(1400 - header);
      assert.match(await ping('-c', '1', '-M', 'do', '-s', fits, server), /1 received/);
      const route = await hosts.sh('client', `ip route get ${server}`);
      assert.match(route, /mtu 1400/);
    });

    test('a large transfer fits through the narrow way', async () => {
      const url = `http://${server.includes(':') ? `[${server}]` : server}/bytes/3000000`;
      const args = ['-sS', '-m', '20', '-o', '/dev/null', '-w', '%{size_download}', url];
      assert.equal((await hosts.run('client', 'curl', args)).output, '3000000');
    });

    test("a closed UDP port's answer reaches the client that asked", async () => {
      const protocol = server.includes(':') ? `UDP6:[${server}]:9` : `UDP4:${server}:9`;
      const result = await hosts.run('client', 'socat', ['-t', '3', '-', protocol], { input: 'x' });
      assert.match(result.errors, /Connection refused/);
    });
  });
}

test('a closed UDP port behind a session is told to the client', { skip }, async () => {
  const result = await hosts.run('client', 'socat', ['-t', '3', '-', 'UDP4:10.20.0.1:9'], { input: 'x' });
  assert.match(result.errors, /Connection refused/);
});

test('a destination without a route is unreachable at once', { skip }, async () => {
  assert.match(await ping('-c', '1', '10.99.0.1'), /Unreachable|unreachable/);
  assert.match(await ping('-c', '1', 'fd99::1'), /[Uu]nreachable|No route/);
});

for (const [family, from, to, mss] of [
  ['IPv4', '10.3.0.9', '10.4.0.9', 1260],
  ['IPv6', 'fd03::9', 'fd04::9', 1240],
] as const) {
  test(`${family} segments are clamped to the narrower side, in both directions`, { skip }, async () => {
    const near = await connect(wide, `${from}/${from.includes(':') ? 128 : 32}`);
    const far = await connect(narrow, `${to}/${to.includes(':') ? 128 : 32}`);
    const path = { source: from, destination: to, sourcePort: 4000, destinationPort: 4001 };
    const syn = { sequence: 1, flags: TcpFlag.Syn, mss: 8960 };
    const arrived = await until('the SYN arrives', () => {
      near.send(tcpPacket(path, syn));
      return far.received.shift();
    });
    assert.equal(mssOf(seen(arrived)), mss);
    const back = { source: to, destination: from, sourcePort: 4001, destinationPort: 4000 };
    const synAck = { sequence: 9, acknowledgement: 2, flags: TcpFlag.Syn | TcpFlag.Ack, mss: 8960 };
    far.send(tcpPacket(back, synAck));
    // A SYN that came before the other tunnel was there has been answered by ICMP.
    let answer = await next(near);
    while (answer.tcpFlags === 0) answer = await next(near);
    assert.equal(mssOf(answer), mss);
    near.close();
    far.close();
  });
}

/** The maximum segment size that a SYN announces, its first option. */
function mssOf(packet: SeenPacket): number {
  const at = (packet.version === 4 ? 20 : 40) + 20;
  assert.equal(packet.bytes[at], 2, 'the first option is the maximum segment size');
  return new DataView(packet.bytes.buffer).getUint16(at + 2);
}

test('an error about a packet of nobody is dropped and counted', { skip }, async () => {
  const peer = await connect(wide, '10.3.0.9/32');
  const quoted = udpPacket(
    { source: '10.10.0.10', destination: '10.3.0.9', sourcePort: 1, destinationPort: 2 },
    'x',
  );
  const before = await rampart.drops('icmp_unrelated');
  const error = echoRequest(
    { source: '10.3.0.9', destination: '10.10.0.10' },
    { identifier: 0, sequence: 0, data: quoted },
  );
  // Destination unreachable, port unreachable; the checksum is made good by difference.
  const view = new DataView(error.buffer);
  view.setUint16(20, 0x0303);
  const sum = view.getUint16(22) + 0x0800 + (~0x0303 & 0xffff);
  view.setUint16(22, (sum & 0xffff) + (sum >>> 16));
  await until('the drop is counted', async () => {
    peer.send(error);
    return (await rampart.drops('icmp_unrelated')) > before;
  });
  peer.close();
});
