import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { namespaceSupport, openPrivateNamespace, type PrivateNamespace } from '#io/namespace.ts';
import { PACKET_HEADROOM } from '#packet/virtio-header.ts';
import type { IpTunnel, PacketSink, Worker } from '#proxy/proxy-contract.ts';

import type { Admitted } from './admission.ts';
import { DeviceTunnel } from './device-tunnel.ts';
import { openTestHost, type TestHost, until } from './test-host.ts';

const support = await namespaceSupport();
const skip = support.device === 'none' ? support.message : false;
const skipTun = support.device === 'tun' ? false : `needs a TUN: ${support.message}`;

/**
 * Gives each packet to the other tunnel.
 *
 * ```
 *   namespace 1: 10.0.1.1 ── tun0 ═══ tunnel ── this process ── tunnel ═══ tun0 ── 10.0.2.1 :namespace 2
 * ```
 */
class CrossoverSink implements PacketSink {
  readonly ends: DeviceTunnel[] = [];
  readonly closed: IpTunnel[] = [];
  largest = 0;

  onPacket(tunnel: IpTunnel, offset: number, length: number): void {
    this.largest = Math.max(this.largest, length);
    (this.ends[0] === tunnel ? this.ends[1] : this.ends[0])?.send(offset, length);
  }

  onBatchEnd(): void {}

  onTunnelClosed(tunnel: IpTunnel): void {
    this.closed.push(tunnel);
  }
}

async function world(t: TestContext, kind: 'tun' | 'packet-socket') {
  const sink = new CrossoverSink();
  const host = openTestHost({ sink: (_worker: Worker) => sink });
  const namespaces: PrivateNamespace[] = [];
  for (const number of [1, 2]) {
    const namespace = await openPrivateNamespace();
    namespaces.push(namespace);
    const device = await namespace.openPacketDevice({ name: 'tun0', mtu: 1500, kind });
    const routes = [
      { destination: '0.0.0.0/0', device: 'tun0' },
      { destination: '::/0', device: 'tun0' },
    ];
    const addresses = [
      { device: 'tun0', address: `10.0.${number}.1/32` },
      { device: 'tun0', address: `fd00::${number}/128` },
    ];
    await namespace.configure({ addresses, routes });
    sink.ends.push(openTunnel(host, `t${number}`, device, () => namespace.closePacketDevice(device)));
  }
  t.after(async () => {
    for (const end of sink.ends) end.close();
    for (const namespace of namespaces) await namespace.close();
    await host.stop();
  });
  return { sink, host, namespaces: namespaces as [PrivateNamespace, PrivateNamespace] };
}

function openTunnel(
  host: TestHost,
  name: string,
  device: ConstructorParameters<typeof DeviceTunnel>[1]['device'],
  onClosed: () => void,
): DeviceTunnel {
  const spec = { account: 'acme', vnet: 'prod' };
  const admitted = host.admission.ofSpec(spec, { name, sources: host.anySource }) as Admitted;
  return new DeviceTunnel(host, { ...admitted, name, device, onClosed });
}

/** Copies standard input to a listener's first client, and hashes what it receives. */
const SERVER = `
const { createServer } = require('node:net'); const { createHash } = require('node:crypto');
const server = createServer({ allowHalfOpen: true }, (socket) => {
  const hash = createHash('sha256'); socket.on('data', (data) => hash.update(data));
  socket.on('end', () => { socket.end(hash.digest('hex')); server.close(); });
}).listen(80, '::', () => console.log('ready'));`;

/** Sends 32 MiB, prints the digest that comes back and its own. */
const CLIENT = `
const { connect } = require('node:net'); const { createHash } = require('node:crypto');
const hash = createHash('sha256'); const socket = connect(80, process.argv[1]);
let left = 512; let answer = '';
socket.on('data', (data) => { answer += data; });
socket.on('close', () => console.log(answer, hash.digest('hex')));
const more = () => {
  while (left > 0) {
    const data = Buffer.alloc(65536, left--);
    hash.update(data);
    if (!socket.write(data)) { socket.once('drain', more); return; }
  }
  socket.end();
};
more();`;

async function run(namespace: PrivateNamespace, args: readonly string[], readyLine?: string) {
  const child = namespace.spawn(process.execPath, ['-e', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  let output = '';
  child.stdout?.on('data', (data) => {
    output += data;
  });
  if (readyLine === undefined) await ended;
  else await until(`it says ${readyLine}`, () => output.includes(readyLine));
  return { ended, output };
}

for (const kind of ['tun', 'packet-socket'] as const) {
  for (const address of ['10.0.2.1', 'fd00::2']) {
    const options = { skip: kind === 'tun' ? skipTun : skip, timeout: 30_000 };
    test(
      `bulk TCP to ${address} goes through two ${kind} tunnels unharmed, in super-packets`,
      options,
      async (t) => {
        const { sink, namespaces, host } = await world(t, kind);
        const server = await run(namespaces[1], [SERVER], 'ready');
        const { output } = await run(namespaces[0], [CLIENT, address]);
        const [theirs, ours] = output.trim().split(' ');
        assert.equal(theirs, ours);
        assert.ok(sink.largest > 1500, `largest was ${sink.largest}`);
        const figures = host.registry.figures((sink.ends[0] as DeviceTunnel).index);
        assert.ok(figures.bytesIn > 32 << 20);
        assert.equal(figures.dropsIn + figures.dropsOut, 0);
        await server.ended;
      },
    );
  }
}

test('a device that is deleted ends its tunnel once', { skip: skipTun }, async (t) => {
  const { sink, host, namespaces } = await world(t, 'tun');
  const [first] = sink.ends as [DeviceTunnel];
  const ip = namespaces[0].spawn('ip', ['link', 'delete', 'tun0'], { stdio: 'inherit' });
  await until('the tunnel is closed', () => sink.closed.length > 0);
  assert.deepEqual(sink.closed, [first]);
  const slot = host.worker.packets.acquire();
  assert.equal(first.send(slot + PACKET_HEADROOM, 40), DropReason.TunnelClosed);
  assert.equal(host.worker.packets.inUse, 0);
  assert.equal(first.describe(), null);
  assert.match(host.events.at(-1)?.text ?? '', /failed with errno/);
  if (ip.exitCode === null) await once(ip, 'close');
});
