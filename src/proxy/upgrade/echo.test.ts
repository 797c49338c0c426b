import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { parseIp } from '#base/ip.ts';
import { echoSupport } from '#io/echo-socket.ts';
import { openPrivateNamespace, type PrivateNamespace } from '#io/namespace.ts';
import { threadModeError } from '#io/namespace-thread.ts';
import { writeAddress } from '#packet/address.ts';
import { PacketEndpoints, writeIpHeader } from '#packet/build.ts';
import { verifyTransportChecksum, writeTransportChecksum } from '#packet/checksum.ts';
import { ParsedPacket, parsePacket } from '#packet/parse.ts';
import { PACKET_HEADROOM } from '#packet/virtio-header.ts';
import type { FlowIndex } from '#proxy/flow/flow-table.ts';
import type { IpTunnel } from '#proxy/proxy-contract.ts';
import type { Admitted } from '#proxy/tunnel/admission.ts';
import { until } from '#proxy/tunnel/test-host.ts';

import { EchoUpgrade } from './echo.ts';
import { openStackWorld, type StackWorld } from './stack-test-world.ts';

const lacksThread = threadModeError();
const lacksEcho = echoSupport() === 'none' ? 'needs a ping or raw socket' : false;
const options = { skip: lacksThread === null ? lacksEcho : lacksThread.message, timeout: 30_000 };

/** Opens its sockets in a namespace of their own, so that nothing outside is pinged. */
class EchoInside extends EchoUpgrade {
  #namespace: PrivateNamespace | null = null;

  use(namespace: PrivateNamespace): void {
    this.#namespace = namespace;
  }

  override open(flow: FlowIndex): number {
    return (this.#namespace as PrivateNamespace).run(() => super.open(flow));
  }
}

/** A client that is nothing but a tunnel: what is sent to it is kept. */
class Client {
  readonly tunnel: IpTunnel;
  readonly received: Uint8Array[] = [];
  readonly #world: StackWorld;

  constructor(world: StackWorld, vnet: string) {
    this.#world = world;
    const { registry, admission, worker, io } = world.host;
    const spec = { account: 'acme', vnet, sources: ['10.0.0.0/8', 'fd00::/8'] };
    const admitted = admission.ofSpec(spec, { name: 'client', sources: [] }) as Admitted;
    const index = registry.reserve();
    this.tunnel = {
      ...admitted,
      index,
      name: 'client',
      mtu: 1500,
      offload: false,
      send: (offset, length) => {
        this.received.push(io.arena.bytes.slice(offset, offset + length));
        worker.packets.release(offset);
        return DropReason.None;
      },
      close: () => {
        world.pipeline.onTunnelClosed(this.tunnel);
        registry.release(index);
      },
      describe: () => null,
    };
    registry.attach(this.tunnel);
  }

  /** Sends an echo request. */
  ping(to: string, ids: { identifier: number; sequence: number; type?: number }, data = 56): void {
    const { worker, io } = this.#world.host;
    const { view } = io.arena;
    const target = parseIp(to) as Uint8Array;
    const version = target.length === 4 ? 4 : 6;
    const source = parseIp(version === 4 ? '10.0.0.2' : 'fd00::2') as Uint8Array;
    const endpoints = new PacketEndpoints();
    endpoints.view = new DataView(new ArrayBuffer(32));
    endpoints.version = version;
    endpoints.destinationOffset = 16;
    writeAddress(endpoints.view, 0, source);
    writeAddress(endpoints.view, 16, target);
    const to_ = worker.packets.acquire() + PACKET_HEADROOM;
    const at = writeIpHeader(view, to_, 8 + data, version === 4 ? 1 : 58, endpoints);
    view.setUint16(at, (ids.type ?? (version === 4 ? 8 : 128)) << 8);
    view.setUint16(at + 2, 0);
    view.setUint16(at + 4, ids.identifier);
    view.setUint16(at + 6, ids.sequence);
    for (let i = 0; i < data; i++) view.setUint8(at + 8 + i, i & 0xff);
    const packet = new ParsedPacket();
    assert.equal(parsePacket(view, to_, at + 8 + data - to_, packet), 0);
    writeTransportChecksum(view, packet);
    this.#world.pipeline.onPacket(this.tunnel, to_, packet.totalLength);
  }

  /** What came back, parsed; its checksum is right. */
  answer(at: number) {
    const bytes = this.received[at] as Uint8Array;
    const view = new DataView(bytes.buffer);
    const packet = new ParsedPacket();
    assert.equal(parsePacket(view, 0, bytes.length, packet), 0);
    assert.ok(verifyTransportChecksum(view, packet));
    const { icmpType, icmpCode, transportOffset, payloadLength } = packet;
    return {
      icmpType,
      icmpCode,
      identifier: view.getUint16(transportOffset + 4),
      sequence: view.getUint16(transportOffset + 6),
      payloadLength,
      source: Buffer.from(bytes.slice(packet.addressOffset, packet.addressOffset + 4)).toString('hex'),
    };
  }
}

async function start(t: TestContext) {
  const world = await openStackWorld();
  t.after(() => world.host.stop());
  const inside = await openPrivateNamespace({ mode: 'thread' });
  world.namespaces.push(inside);
  await inside.configure({
    addresses: [
      { device: 'lo', address: '10.20.0.5/32' },
      { device: 'lo', address: 'fd00:20::5/128' },
    ],
  });
  const echo = new EchoInside(world.host.worker, { host: world.pipeline });
  echo.use(inside);
  world.pipeline.attachUpgrades({ tcp: world.stack, udp: null, icmp: echo });
  return { world, echo, inside };
}

for (const [address, reply, source] of [
  ['10.20.0.5', 0, '0a140005'],
  ['fd00:20::5', 129, 'fd000020'],
] as const) {
  test(
    `echo requests to ${address} are answered with their identifier, sequence and data`,
    options,
    async (t) => {
      const { world, echo } = await start(t);
      const client = new Client(world, 'prod');
      for (const sequence of [1, 2, 3]) client.ping(address, { identifier: 777, sequence }, 100);
      await until('three replies came', () => client.received.length === 3);
      for (const at of [0, 1, 2]) {
        const answer = client.answer(at);
        assert.deepEqual(answer, {
          icmpType: reply,
          icmpCode: 0,
          identifier: 777,
          sequence: at + 1,
          payloadLength: 100,
          source,
        });
      }
      assert.equal(echo.flows, 1);
    },
  );
}

test('equal identifiers of two networks do not meet', options, async (t) => {
  const { world, echo } = await start(t);
  const clients = [new Client(world, 'prod'), new Client(world, 'staging')] as const;
  clients[0].ping('10.20.0.5', { identifier: 5, sequence: 1 });
  clients[1].ping('10.20.0.5', { identifier: 5, sequence: 2 });
  await until('both have a reply', () => clients.every(({ received }) => received.length === 1));
  assert.deepEqual([clients[0].answer(0).sequence, clients[1].answer(0).sequence], [1, 2]);
  assert.equal(echo.flows, 2);
});

test('what cannot be reached is answered as unreachable', options, async (t) => {
  const { world } = await start(t);
  const client = new Client(world, 'prod');
  client.ping('10.99.0.1', { identifier: 5, sequence: 1 });
  await until('an answer came', () => client.received.length === 1);
  assert.deepEqual([client.answer(0).icmpType, client.answer(0).icmpCode], [3, 1]);
  assert.equal(world.host.worker.packets.inUse, 0);
});

test(
  'the largest request that fits a packet goes through, a reply that nobody asked for does not',
  options,
  async (t) => {
    const { world } = await start(t);
    const client = new Client(world, 'prod');
    client.ping('10.20.0.5', { identifier: 5, sequence: 1 }, 1472);
    await until('the reply came', () => client.received.length === 1);
    assert.equal(client.answer(0).payloadLength, 1472);
    client.ping('10.20.0.5', { identifier: 6, sequence: 1, type: 0 });
    assert.equal(world.host.worker.stats.drops[DropReason.IcmpUnrelated], 1);
  },
);

test('a host that permits no echo socket says so to the client', {
  ...options,
  skip: lacksThread?.message ?? false,
}, async (t) => {
  const { world, inside } = await start(t);
  const client = new Client(world, 'prod');
  const forbidden = new EchoUpgrade(world.host.worker, {
    host: world.pipeline,
    open: () => -1,
  });
  world.pipeline.attachUpgrades({ tcp: world.stack, udp: null, icmp: forbidden });
  client.ping('10.20.0.5', { identifier: 5, sequence: 1 });
  assert.deepEqual([client.answer(0).icmpType, client.answer(0).icmpCode], [3, 13]);
  client.ping('fd00:20::5', { identifier: 5, sequence: 1 });
  assert.deepEqual([client.answer(1).icmpType, client.answer(1).icmpCode], [1, 1]);
  assert.ok(inside);
});
