/**
 * Large amounts arrive whole, whichever way they go, with both io engines.
 *
 *                                  ┌─ :80 :81 :82 stays packets ──── tun ─┐
 *   client 100.64.0.2 ── tun ── rampart                                   ├─ server 10.10.0.10
 *                                  ├─ :83…85 IP ► TCP stream ► IP ── tun ─┤
 *                                  └─ 10.20.0.0/16 IP ► TCP ──── sockets ─┴─ origin on 127.0.0.1
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { bulkBytes } from '#testing/bulk-bytes.ts';
import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { runLoad } from '#testing/load.ts';
import { Origin } from '#testing/origins.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll, until } from '#testing/until.ts';

const BYTES = 100_000_000;
const skip = lacksHosts();
const EXPECTED = sha256Of(BYTES);

function sha256Of(length: number): string {
  const hash = createHash('sha256');
  for (const block of bulkBytes(length)) hash.update(block);
  return hash.digest('hex');
}

function config(origin: Origin): string {
  return `
on_ramps:
  - name: client
    type: tun
    namespace: client
    device: rampart
    addresses: [100.64.0.2/32, "fd64::2/128"]
    device_routes: [10.10.0.0/24, 10.20.0.0/16, "fd10::/64"]
    context: { account: acme, vnet: bulk }
    sources: [100.64.0.2/32, "fd64::2/128"]
off_ramps:
  - name: server
    type: tun
    namespace: server
    device: rampart
    addresses: [10.10.0.10/24, "fd10::10/64"]
    device_routes: [100.64.0.0/24, "fd64::/64"]
  - { name: sink, type: sockets, target: "127.0.0.1:${origin.ports.sink}" }
  - { name: source, type: sockets, target: "127.0.0.1:${origin.ports.source}" }
  - { name: web, type: http, origins: ["127.0.0.1:${origin.ports.http}"] }
routes:
  - { account: acme, vnet: bulk, to: 10.10.0.0/24, via: server }
  - account: acme
    vnet: bulk
    to: 10.10.0.0/24
    protocol: tcp
    ports: [8001, 8002]
    via: server
    upgrade: stream
  - { account: acme, vnet: bulk, to: "fd10::/64", via: server }
  - account: acme
    vnet: bulk
    to: "fd10::/64"
    protocol: tcp
    ports: [8001, 8002]
    via: server
    upgrade: stream
  - { account: acme, vnet: bulk, to: 10.20.0.1/32, protocol: tcp, via: sink }
  - { account: acme, vnet: bulk, to: 10.20.0.2/32, protocol: tcp, via: source }
  - { account: acme, vnet: bulk, to: 10.20.0.3/32, protocol: tcp, via: web, upgrade: http }
limits: { tcp_closing: 1s, upstream_idle: 1s }
`;
}

for (const io of ['uring', 'epoll'] as const) {
  describe(`with ${io}`, { skip }, () => {
    let hosts: Hosts;
    let outside: Origin;
    let rampart: RampartProcess;
    let descriptors: number;

    before(async () => {
      hosts = await Hosts.open(['client', 'server']);
      // The same services at ports that stay packets, and at ports that are lifted to streams.
      await Origin.start('server', ['sink@7001', 'source@7002', 'http@80'], { hosts, on: 'server' });
      await Origin.start('server', ['sink@8001', 'source@8002'], { hosts, on: 'server' });
      outside = await Origin.start('outside', ['sink@0', 'source@0', 'http@0']);
      rampart = await RampartProcess.start({ config: config(outside), hosts, io });
      descriptors = rampart.descriptors;
    });

    after(async () => {
      await closeAll(rampart, outside, hosts);
    });

    /** Sends or fetches the bytes from the client and gives the hash of what arrived. */
    async function move(direction: 'up' | 'down', address: string, port: number): Promise<string> {
      const script = join(import.meta.dirname, 'bulk-client.ts');
      const client = hosts.startScript('client', script, [direction, address, String(port), String(BYTES)]);
      const { code, output, errors } = await client.ended;
      assert.equal(code, 0, errors);
      return output.trim();
    }

    const ways: readonly [string, string, number, number][] = [
      ['as packets', '10.10.0.10', 7001, 7002],
      ['as packets of IPv6', 'fd10::10', 7001, 7002],
      ['as a stream that becomes packets again', '10.10.0.10', 8001, 8002],
      ['as a stream of IPv6 that becomes packets again', 'fd10::10', 8001, 8002],
    ];
    for (const [how, address, sink, source] of ways) {
      test(`100 MB arrive whole each way ${how}`, async () => {
        assert.equal(await move('up', address, sink), EXPECTED);
        assert.equal(await move('down', address, source), EXPECTED);
      });
    }

    test('100 MB arrive whole each way as a stream that leaves by a socket', async () => {
      assert.equal(await move('up', '10.20.0.1', 9), EXPECTED);
      assert.equal(await move('down', '10.20.0.2', 9), EXPECTED);
    });

    test('100 MB arrive whole each way as HTTP', async () => {
      assert.equal(await move('up', 'http://10.20.0.3/sha256', 80), EXPECTED);
      assert.equal(await move('down', `http://10.20.0.3/bytes/${BYTES}`, 80), EXPECTED);
    });

    test('500 connections at once are all answered, and nothing is left of them', async () => {
      const targets = [
        { label: 'packets', protocol: 'http', address: '10.10.0.10', port: 80, expect: 'server' },
        { label: 'http', protocol: 'http', address: '10.20.0.3', port: 80, expect: 'outside' },
      ] as const;
      const report = await runLoad({ targets, parallel: 500, rounds: 2 }, { place: { hosts, on: 'client' } });
      assert.deepEqual(
        { right: report.right, foreign: report.foreign, failed: report.failed },
        { right: 2000, foreign: 0, failed: 0 },
        report.wrong.join('\n'),
      );
      await until('no flow is left', async () => (await rampart.flows()).length === 0);
      // The stack keeps some sockets in stock.
      await rampart.descriptorsBackTo(descriptors, 64);
    });
  });
}
