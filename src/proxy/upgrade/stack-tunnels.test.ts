/**
 * Real TCP through connected and unconnected IP tunnels: the client's end is another engine that pumps
 * packets between a TUN and the tunnel, as a tunnel terminator does.
 *
 * ```
 *   client ── tun0 ═ pump ── SEQPACKET or GUE ──► pipeline ─► stack ─► server
 * ```
 */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import type { SocketAddress } from '#base/ip.ts';
import { DropReason } from '#base/drop-reason.ts';
import { namespaceSupport, openPrivateNamespace, type PrivateNamespace } from '#io/namespace.ts';
import type { IpTunnel, PacketSink } from '#proxy/proxy-contract.ts';
import type { Admitted } from '#proxy/tunnel/admission.ts';
import { DeviceTunnel } from '#proxy/tunnel/device-tunnel.ts';
import { GuePort } from '#proxy/tunnel/gue-port.ts';
import { SeqpacketListener } from '#proxy/tunnel/seqpacket-listener.ts';
import { SeqpacketTunnel } from '#proxy/tunnel/seqpacket-tunnel.ts';
import { openTestHost, type TestHost, until } from '#proxy/tunnel/test-host.ts';

import {
  BULK_BYTES,
  DOWN_DIGEST,
  openStackWorld,
  runBulk,
  serveNode,
  startServer,
  type StackWorld,
} from './stack-test-world.ts';

const support = await namespaceSupport();
// The pump does not cut super-packets, so its device must not make any.
const skip = support.device === 'tun' ? false : `needs a TUN without offload: ${support.message}`;
const options = { skip, timeout: 60_000 };
const MTU = 1380;

/** Gives what comes by one end to the other. */
class PumpSink implements PacketSink {
  ends: IpTunnel[] = [];

  onPacket(tunnel: IpTunnel, offset: number, length: number): void {
    (this.ends[0] === tunnel ? this.ends[1] : this.ends[0])?.send(offset, length);
  }

  onBatchEnd(): void {}
  onTunnelClosed(): void {}
}

/** A client namespace and the engine that pumps its packets. */
async function openPump(
  world: StackWorld,
): Promise<{ host: TestHost; sink: PumpSink; namespace: PrivateNamespace }> {
  const sink = new PumpSink();
  const host = openTestHost({ sink: () => sink });
  const namespace = await openPrivateNamespace();
  const device = await namespace.openPacketDevice({ name: 'tun0', mtu: MTU, offload: false, kind: 'auto' });
  await namespace.configure({
    addresses: ['10.0.0.2/32', 'fd00::2/128'].map((address) => ({ device: 'tun0', address })),
    routes: ['0.0.0.0/0', '::/0'].map((destination) => ({ destination, device: 'tun0' })),
  });
  const admitted = host.admission.ofSpec({ account: 'acme', vnet: 'prod' }, { name: 'pump', sources: [] });
  sink.ends.push(new DeviceTunnel(host, { ...(admitted as Admitted), name: 'pump', device }));
  host.defer(async () => {
    for (const tunnel of [...host.registry.open()]) tunnel.close();
    await namespace.closePacketDevice(device);
    await namespace.close();
  });
  world.host.defer(() => host.stop());
  return { host, sink, namespace };
}

function contextBlob(sources: readonly string[]): Uint8Array {
  return Buffer.from(JSON.stringify({ account: 'acme', vnet: 'prod', sources }));
}

type Connect = (
  world: StackWorld,
  pump: { host: TestHost; sink: PumpSink },
  blob: Uint8Array,
) => Promise<void>;

const connectSeqpacket: Connect = async (world, pump, blob) => {
  const path = join(mkdtempSync(join(tmpdir(), 'rampart-pump-')), 'tunnel.sock');
  const listen = { family: 'unix', path } as const;
  const listener = new SeqpacketListener(world.host, { name: 'edge', sources: [], listen, mtu: MTU });
  world.host.defer(() => listener.close());
  const admitted = pump.host.admission.ofSpec(
    { account: 'acme', vnet: 'prod' },
    { name: 'out', sources: [] },
  );
  const dial = { address: listen, blob };
  const tunnel = new SeqpacketTunnel(pump.host, {
    ...(admitted as Admitted),
    name: 'out',
    mtu: MTU,
    fd: -1,
    dial,
  });
  pump.sink.ends.push(tunnel);
  await until('the tunnel is open', () => tunnel.isOpen && world.host.registry.count > 0);
};

const connectGue: Connect = async (world, pump, blob) => {
  const any = { name: 'gue', sources: [], mtu: MTU };
  const port = new GuePort(world.host, { ...any, listen: { family: 4, address: '127.0.0.1', port: 0 } });
  world.host.defer(() => port.close());
  const near = new GuePort(pump.host, { ...any, listen: { family: 4, address: '127.0.0.1', port: 0 } });
  pump.host.defer(() => near.close());
  const admitted = pump.host.admission.ofSpec(
    { account: 'acme', vnet: 'prod' },
    { name: 'out', sources: [] },
  );
  const remote = port.address as SocketAddress & { family: 4 };
  pump.sink.ends.push(near.openPeer({ ...(admitted as Admitted), name: 'out', remote, blob }));
};

async function start(t: TestContext, connect: Connect, sources: readonly string[]) {
  const world = await openStackWorld();
  t.after(() => world.host.stop());
  await startServer(world);
  const pump = await openPump(world);
  await connect(world, pump, contextBlob(sources));
  return { world, pump };
}

const kinds: readonly (readonly [string, Connect])[] = [
  ['SEQPACKET', connectSeqpacket],
  ['GUE', connectGue],
];

for (const [kind, connect] of kinds) {
  for (const address of ['203.0.113.9', '2001:db8::9']) {
    test(`bulk TCP to ${address} through a ${kind} tunnel becomes a stream`, options, async (t) => {
      const { world, pump } = await start(t, connect, ['10.0.0.0/8', 'fd00::/16']);
      const result = await runBulk(pump.namespace, address, 8080);
      assert.equal(result.received, result.sent, result.line);
      assert.deepEqual([result.downBytes, result.downDigest], [BULK_BYTES, DOWN_DIGEST]);
      assert.equal(world.handler.streams[0]?.context.account, 'acme');
      await until('the relay ended', () => world.handler.ended === 1);
    });
  }

  test(`sources that a ${kind} tunnel's context does not name open nothing`, options, async (t) => {
    const { world, pump } = await start(t, connect, ['10.9.0.0/16']);
    const ask = `console.log('ready'); require('node:net').connect(80, '203.0.113.9').on('error', () => {});`;
    await serveNode(world, pump.namespace, ask);
    const { drops } = world.host.worker.stats;
    await until('its SYN is dropped', () => (drops[DropReason.SpoofedSource] as number) > 0);
    assert.equal(world.handler.streams.length, 0);
    assert.equal(world.pipeline.table.count, 0);
  });
}
