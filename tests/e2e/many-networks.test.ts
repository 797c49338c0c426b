/**
 * A thousand networks that all use 10.0.0.0/24, each with the same client, the same server and the same ports
 * at the same time: nothing crosses, neither as packets nor as TCP streams of a thousand equal five-tuples.
 *
 *   test: 10.0.0.5 ×1000 ──SEQPACKET── ┌─────────┐ ──GUE, packets── test: 10.0.0.80 ×1000
 *   test: 10.0.0.6 ×1000 ──GUE──────── │ rampart │ ──sockets─────── test: 127.1.0.0/16, one for each network
 *                                      └─────────┘
 *
 * The test is all hosts: it makes every packet by hand, and knows by context (or by address) in which network
 * it is.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { namespaceSupport } from '#io/namespace.ts';
import { GuePeer, PeerEngine, type SeqpacketPeer } from '#testing/packet-peer.ts';
import {
  echoRequest,
  type PacketPath,
  reversed,
  seen,
  type SeenPacket,
  udpPacket,
} from '#testing/packets.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { TinyTcp } from '#testing/tiny-tcp.ts';
import { closeAll, until } from '#testing/until.ts';

const ACCOUNTS = 20;
const VNETS = 50;
const SERVER = '10.0.0.80';
/**
 * Connections that are being made at one time; Rampart closes more than 256 that have not sent their context.
 */
const CONNECTING_MAX = 100;
const ANSWERS_MS = 40_000;

/** One of the thousand. */
interface Network {
  readonly number: number;
  readonly name: string;
  /** What its tunnels send as their context. */
  readonly context: string;
  peer: SeqpacketPeer | null;
}

const networks: Network[] = Array.from({ length: ACCOUNTS * VNETS }, (_, number) => {
  const account = `a${Math.floor(number / VNETS)}`;
  const vnet = `v${number % VNETS}`;
  const context = JSON.stringify({ account, vnet, sources: ['10.0.0.0/24'] });
  return { number, name: `${account}/${vnet}`, context, peer: null };
});
const byContext = new Map(networks.map((network) => [network.context, network]));

// The stack that lifts flows to streams is a namespace.
const support = await namespaceSupport();
const skip = support.device === 'none' ? support.message : false;
const folder = mkdtempSync(join(tmpdir(), 'rampart-many-'));
let engine: PeerEngine;
let rampart: RampartProcess;
let server: Server;
let gueIn: GuePeer;
let gueOut: GuePeer;
/** What reached a network that it was not for, in words. */
const foreign: string[] = [];

before(async () => {
  if (skip) return;
  engine = new PeerEngine();
  server = await openServer();
  gueOut = await GuePeer.open();
  const { port } = server.address() as AddressInfo;
  const socket = join(folder, 'rampart.sock');
  const config = `
on_ramps:
  - { name: programs, type: ip-tunnel, listen: "unix:${socket}" }
  - { name: nodes, type: gue, listen: "127.0.0.1:0" }
off_ramps:
  - { name: packets, type: gue, remote: "127.0.0.1:${gueOut.port}" }
  - { name: streams, type: sockets }
routes:
  - { on_ramp: programs, to: 10.0.0.0/24, via: packets }
  - { on_ramp: nodes, to: 10.0.0.0/24, via: packets }
  - { on_ramp: programs, to: 10.0.0.0/24, protocol: tcp, via: streams }
  - { on_ramp: nodes, to: 10.0.0.0/24, protocol: tcp, via: streams }
hooks: ${join(import.meta.dirname, 'many-networks-hooks.ts')}
app: { port: ${port}, vnets: ${VNETS} }
limits: { tcp_closing: 1s, udp_idle: 2s, icmp_idle: 2s }
`;
  rampart = await RampartProcess.start({ config });
  gueIn = await GuePeer.open({ port: await rampart.port('nodes') });
  gueOut.onPacket = serve;
  await connectAll(socket);
});

after(async () => {
  if (skip) return;
  gueIn?.close();
  gueOut?.close();
  server?.close();
  engine?.stop();
  await closeAll(rampart);
  rmSync(folder, { recursive: true, force: true });
});

/**
 * Answers each connection with the network whose address it came to, and notices what was for another one. It
 * answers nobody before all thousand have asked: so all are open at once.
 */
function openServer(): Promise<Server> {
  let waiting: (() => void)[] = [];
  const opened = createServer({ allowHalfOpen: true }, (socket) => {
    const [, , high, low] = (socket.localAddress ?? '').split('.').map(Number);
    const network = networks[((high as number) << 8) | (low as number)] as Network;
    socket.on('error', () => socket.destroy());
    socket.once('data', (chunk: Buffer) => {
      const asked = chunk.toString('latin1');
      if (asked !== `for ${network.name}\n`) foreign.push(`server of ${network.name} got "${asked}"`);
      waiting.push(() => socket.end(`from ${network.name}\n`));
      if (waiting.length < networks.length) return;
      for (const answer of waiting) answer();
      waiting = [];
    });
  });
  return new Promise((resolve) => {
    opened.listen({ host: '0.0.0.0', port: 0, backlog: 4096 }, () => resolve(opened));
  });
}

/** The servers of all networks, for packets: the context says which one is meant. */
function serve(bytes: Uint8Array, context: Uint8Array): void {
  const { account, vnet } = JSON.parse(Buffer.from(context).toString()) as { account: string; vnet: string };
  const packet = seen(bytes);
  const asked = Buffer.from(packet.payload).toString('latin1');
  const name = `${account}/${vnet}`;
  if (!asked.includes(`for ${name}.`)) foreign.push(`server of ${name} got "${asked}"`);
  const answer =
    packet.icmpType === 8 ? echoReply(bytes) : udpPacket(reversed(packet), `from ${name}. ${asked}`);
  gueOut.send(answer, Buffer.from(context).toString('latin1'));
}

/** Addresses exchanged and type 0: the IP checksum stays, the ICMP checksum grows by what the type loses. */
function echoReply(request: Uint8Array): Uint8Array {
  const reply = Uint8Array.from(request);
  reply.set(request.subarray(12, 16), 16);
  reply.set(request.subarray(16, 20), 12);
  reply[20] = 0;
  const view = new DataView(reply.buffer);
  const sum = view.getUint16(22) + 0x0800;
  view.setUint16(22, (sum & 0xffff) + (sum >>> 16));
  return reply;
}

async function connectAll(socket: string): Promise<void> {
  for (let at = 0; at < networks.length; at += CONNECTING_MAX) {
    const batch = networks.slice(at, at + CONNECTING_MAX);
    await Promise.all(
      batch.map(async (network) => {
        network.peer = await engine.connect(socket, Buffer.from(network.context));
      }),
    );
    const opened = Math.min(at + CONNECTING_MAX, networks.length);
    await until(`${opened} tunnels are open`, async () => {
      const { counters } = await rampart.stats();
      return (counters.tunnels_opened ?? 0) >= opened;
    });
  }
}

/** Asks in every network at once, again where no answer came, until each has its own. */
async function askEverywhere(
  what: string,
  ask: (network: Network) => void,
  onAnswers: (take: (network: Network, answer: SeenPacket) => void) => void,
): Promise<void> {
  const answered = new Set<Network>();
  onAnswers((network, answer) => {
    const text = Buffer.from(answer.payload).toString('latin1');
    const isOwn = text.includes(`for ${network.name}.`) && answer.source === SERVER;
    if (isOwn) answered.add(network);
    else foreign.push(`client of ${network.name} got "${text}" from ${answer.source}`);
  });
  let asked = 0;
  await until(
    `${what}: every network has its answer`,
    () => {
      // Datagrams may be lost, so those without an answer ask again every now and then.
      if (asked++ % 50 === 0) for (const network of networks) if (!answered.has(network)) ask(network);
      return answered.size === networks.length;
    },
    ANSWERS_MS,
  );
  assert.deepEqual(foreign, []);
}

function bySeqpacket(take: (network: Network, answer: SeenPacket) => void): void {
  for (const network of networks) {
    (network.peer as SeqpacketPeer).onPacket = (packet) => take(network, seen(packet));
  }
}

function byGue(take: (network: Network, answer: SeenPacket) => void): void {
  gueIn.onPacket = (packet, context) => {
    take(byContext.get(Buffer.from(context).toString('latin1')) as Network, seen(packet));
  };
}

const ways = [
  {
    way: 'SEQPACKET',
    source: '10.0.0.5',
    answers: bySeqpacket,
    send: (network: Network, packet: Uint8Array): void => void network.peer?.send(packet),
  },
  {
    way: 'GUE',
    source: '10.0.0.6',
    answers: byGue,
    send: (network: Network, packet: Uint8Array): void => gueIn.send(packet, network.context),
  },
];

for (const { way, source, answers, send } of ways) {
  const udp: PacketPath = { source, destination: SERVER, sourcePort: 5000, destinationPort: 53 };

  test(`a thousand equal UDP flows over ${way} each reach their own network`, { skip }, async () => {
    const ask = (network: Network): void => send(network, udpPacket(udp, `for ${network.name}.`));
    await askEverywhere('UDP', ask, answers);
  });

  test(`a thousand equal echo requests over ${way} each reach their own network`, { skip }, async () => {
    const ask = (network: Network): void => {
      const data = Buffer.from(`for ${network.name}.`);
      send(network, echoRequest({ source, destination: SERVER }, { identifier: 77, sequence: 1, data }));
    };
    await askEverywhere('ICMP', ask, answers);
  });

  test(`a thousand equal TCP connections over ${way} each become a stream of their own`, {
    skip,
  }, async () => {
    const path = { source, destination: SERVER, sourcePort: 40_000, destinationPort: 80 };
    const streams = networks.map((network) => {
      const options = { path, request: `for ${network.name}\n`, sequence: 1_000_000 + network.number * 4096 };
      return new TinyTcp({ ...options, send: (packet) => send(network, packet) });
    });
    if (way === 'GUE') {
      gueIn.onPacket = (packet, context) => {
        const network = byContext.get(Buffer.from(context).toString('latin1')) as Network;
        streams[network.number]?.take(packet);
      };
    } else {
      for (const network of networks) {
        (network.peer as SeqpacketPeer).onPacket = (packet) => streams[network.number]?.take(packet);
      }
    }
    const late = setTimeout(() => {
      for (const stream of streams) stream.abort();
    }, ANSWERS_MS);
    const answersOfAll = await Promise.allSettled(streams.map((stream) => stream.run()));
    clearTimeout(late);
    for (const [number, answer] of answersOfAll.entries()) {
      const { name } = networks[number] as Network;
      if (answer.status === 'rejected') assert.fail(`${name}: ${(answer.reason as Error).message}`);
      assert.equal(answer.value, `from ${name}\n`);
      assert.equal(streams[number]?.foreign, null);
    }
    assert.deepEqual(foreign, []);
  });
}
