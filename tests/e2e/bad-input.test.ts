/**
 * Bad input of every kind, from packets that lie to peers that vanish: each is counted under its reason or
 * answered with its status, nothing dies, nothing leaks, and what is healthy at the same time goes on.
 *
 *   test 10.0.0.5, fd00::5 ──SEQPACKET──┐          ┌──SEQPACKET (1400)── test 10.0.1.80, fd01::80
 *   test 10.0.0.6 ──GUE─────────────────┤ rampart  ├──sockets, UDP────── origin (10.0.2.0/24)
 *   test ──TCP listener web─────────────┤          ├──HTTP────────────── origin
 *   test ──TCP listener plain───────────┘          └──sockets, TCP────── origin
 */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { namespaceSupport } from '#io/namespace.ts';
import { Origin } from '#testing/origins.ts';
import { GuePeer, PeerEngine, type SeqpacketPeer } from '#testing/packet-peer.ts';
import { repairIpv4Header, reversed, seen, udpPacket } from '#testing/packets.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { TinyTcp } from '#testing/tiny-tcp.ts';
import { closeAll, Hopeless, until, within } from '#testing/until.ts';

import { BAD_PACKETS } from './bad-input-packets.ts';

const support = await namespaceSupport();
const skip = support.device === 'none' ? support.message : false;
const folder = mkdtempSync(join(tmpdir(), 'rampart-bad-'));
const programs = join(folder, 'programs.sock');
const serverPath = join(folder, 'server.sock');
const CONTEXT = { account: 'acme', vnet: 'prod', sources: ['10.0.0.0/24', '127.0.0.0/8', 'fd00::/64'] };

let engine: PeerEngine;
let origin: Origin;
let rampart: RampartProcess;
let bad: SeqpacketPeer;
/** The far end of the off-ramp `server`: echoes datagrams while it reads. */
let server: SeqpacketPeer | undefined;
let healthy: Healthy;

function config(name: string): string {
  return `
on_ramps:
  - { name: programs, type: ip-tunnel, listen: "unix:${programs}${name}" }
  - { name: nodes, type: gue, listen: "127.0.0.1:0" }
  - { name: web, type: tcp, listen: "127.0.0.1:0", context: { account: acme, vnet: prod }, upgrade: http }
  - { name: plain, type: tcp, listen: "127.0.0.1:0", context: { account: acme, vnet: prod }, upgrade: stream }
off_ramps:
  - { name: greeting, type: sockets, target: "127.0.0.1:${origin.ports.greeting}" }
  - name: server
    type: ip-tunnel
    connect: unix:${serverPath}
    mtu: 1400
    context: { account: acme, vnet: prod }
  - { name: origin, type: http, origins: ["127.0.0.1:${origin.ports.http}"] }
  - { name: datagrams, type: sockets, target: "127.0.0.1:${origin.ports.datagrams}" }
  - { name: echo, type: sockets, target: "127.0.0.1:${origin.ports.echo}" }
  - { name: closed, type: reject, with: prohibited }
routes:
  - { account: acme, vnet: prod, to: 10.0.1.0/24, via: server }
  - { account: acme, vnet: prod, to: "fd01::/64", via: server }
  - { account: acme, vnet: prod, to: 10.0.2.0/24, via: datagrams }
  - { account: acme, vnet: prod, to: 10.0.3.0/24, protocol: tcp, via: greeting }
  - { account: acme, vnet: prod, to: 10.0.9.0/24, via: closed }
  - { account: acme, vnet: prod, to: 169.254.0.0/16, via: server }
  - { on_ramp: web, via: origin }
  - { on_ramp: plain, via: echo }
hooks: ${join(import.meta.dirname, 'bad-input-hooks.ts')}
`;
}

/** A flow and a stream of requests that must never be disturbed. */
class Healthy {
  packets = 0;
  requests = 0;
  readonly failures: string[] = [];
  readonly #rampart: RampartProcess;
  #peer: SeqpacketPeer | undefined;
  #stopped = false;

  constructor(process: RampartProcess) {
    this.#rampart = process;
  }

  async start(): Promise<void> {
    const peer = await engine.connect(programs, {
      account: 'acme',
      vnet: 'prod',
      sources: ['10.0.0.200/32'],
    });
    this.#peer = peer;
    peer.onPacket = (packet) => {
      if (seen(packet).source === '10.0.1.80') this.packets++;
    };
    void this.#ask(await this.#rampart.port('web'));
  }

  /** Waits until both have gone on since the call. @throws AssertionError when one was disturbed. */
  async goesOn(): Promise<void> {
    const { packets, requests } = this;
    await until('packets of the healthy tunnel are answered', () => this.packets > packets);
    await until('requests of the healthy client are answered', () => {
      if (this.failures.length > 0) throw new Hopeless(this.failures.join('\n'));
      return this.requests > requests;
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#peer?.close();
  }

  async #ask(port: number): Promise<void> {
    const path = { source: '10.0.0.200', destination: '10.0.1.80', sourcePort: 7000, destinationPort: 53 };
    while (!this.#stopped) {
      this.#peer?.send(udpPacket(path, 'healthy'));
      try {
        const response = await fetch(`http://127.0.0.1:${port}/healthy`, {
          signal: AbortSignal.timeout(15_000),
        });
        const text = await response.text();
        if (text === 'origin GET /healthy\n') this.requests++;
        else this.failures.push(`${response.status} ${text}`);
      } catch (error) {
        if (!this.#stopped) this.failures.push(String((error as Error).cause ?? error));
      }
      await nextTurn();
    }
  }
}

before(async () => {
  if (skip) return;
  engine = new PeerEngine();
  origin = await Origin.start('origin', ['http@0', 'datagrams@0', 'echo@0', 'greeting@0']);
  engine.listen(serverPath, (peer) => {
    // The first is of the Rampart that all tests share.
    server ??= peer;
    peer.onPacket = (packet) => answer(peer, packet);
  });
  rampart = await RampartProcess.start({
    config: `${config('')}limits: { head: 400ms, hook: 300ms, tcp_closing: 1s, upstream_idle: 1s }\n`,
  });
  await until('the off-ramp has connected', () => server !== undefined);
  bad = await engine.connect(programs, CONTEXT);
  healthy = new Healthy(rampart);
  await healthy.start();
  await healthy.goesOn();
});

after(async () => {
  if (skip) return;
  healthy?.stop();
  engine?.stop();
  await closeAll(rampart, origin);
  rmSync(folder, { recursive: true, force: true });
});

/** The server of the packets: message 0 is the context, everything else a datagram that is sent back. */
function answer(peer: SeqpacketPeer, packet: Uint8Array): void {
  if (packet[0] === 0x7b) return;
  const { protocol, payload, ...path } = seen(packet);
  if (protocol === 17) peer.send(udpPacket(reversed(path), payload));
}

/** Does something, and waits until one more is counted. */
async function isCounted(counter: () => Promise<number>, act: () => unknown): Promise<void> {
  const before = await counter();
  await act();
  await until('it is counted', async () => (await counter()) > before);
}

const dropped = (reason: string) => (): Promise<number> => rampart.drops(reason);
const counted = (name: string) => async (): Promise<number> => (await rampart.stats()).counters[name] ?? 0;

for (const { about, reason, packets } of BAD_PACKETS) {
  test(`${about} is dropped as ${reason}`, { skip }, async () => {
    await isCounted(dropped(reason), () => {
      for (const packet of packets) assert.ok(bad.send(packet));
    });
    await healthy.goesOn();
  });
}

test('a tunnel whose context is no context is refused', { skip }, async () => {
  for (const context of [
    'not JSON',
    '{"account":"acme"',
    '{"account":"acme"}',
    '[]',
    '{"account":1,"vnet":"x"}',
  ]) {
    await isCounted(dropped('bad_context'), async () => {
      const peer = await engine.connect(programs, Buffer.from(context));
      await until('it is closed', () => peer.isClosed);
    });
  }
  await healthy.goesOn();
});

test('a context that is too long is refused', { skip }, async () => {
  await isCounted(dropped('context_too_long'), async () => {
    const labels = { filler: 'x'.repeat(6000) };
    const peer = await engine.connect(programs, Buffer.from(JSON.stringify({ ...CONTEXT, labels })));
    await until('it is closed', () => peer.isClosed);
  });
});

test('a tunnel at which the hook throws is refused', { skip }, async () => {
  await isCounted(dropped('hook_failed'), async () => {
    const peer = await engine.connect(programs, { account: 'acme', vnet: 'throws' });
    await until('it is closed', () => peer.isClosed);
  });
});

test('datagrams that are no GUE, or bring no context, are dropped', { skip }, async () => {
  const gue = await GuePeer.open({ port: await rampart.port('nodes') });
  await isCounted(dropped('bad_encapsulation'), () => gue.sendDatagram(Buffer.from('what is this?')));
  await isCounted(dropped('bad_encapsulation'), () => gue.sendDatagram(Uint8Array.of(0, 4)));
  await isCounted(dropped('bad_context'), () => {
    // Private data of another form than a context.
    const packet = udpPacket({ source: '10.0.0.6', destination: '10.0.1.80', destinationPort: 53 }, 'x');
    gue.sendDatagram(Uint8Array.of(1, 4, 0, 0, 9, 9, 9, 9, ...packet));
  });
  await isCounted(dropped('bad_context'), () => {
    const packet = udpPacket({ source: '10.0.0.6', destination: '10.0.1.80', destinationPort: 53 }, 'x');
    gue.send(packet, 'not JSON');
  });
  gue.close();
  await healthy.goesOn();
});

test('a session that the hook refuses is told so, and stays refused', { skip }, async () => {
  const path = { source: '10.0.0.5', destination: '10.0.2.80', sourcePort: 3, destinationPort: 669 };
  bad.received.length = 0;
  await isCounted(dropped('policy'), () => bad.send(udpPacket(path, 'x')));
  const refusal = await until('it is answered', () =>
    bad.received.map(seen).find(({ protocol }) => protocol === 1),
  );
  assert.deepEqual([refusal.icmpType, refusal.icmpCode], [3, 13]);
  const flows = await rampart.flows();
  assert.match(
    flows.find(({ destination }) => destination.port === 669)?.rule ?? '',
    /refused by the session/,
  );
  const before = await rampart.drops('policy');
  for (let i = 0; i < 10; i++) bad.send(udpPacket(path, 'x'));
  await until('the others are dropped as well', async () => (await rampart.drops('policy')) === before + 10);
  await healthy.goesOn();
});

test('a message longer than any packet is dropped', { skip }, async () => {
  await isCounted(dropped('packet_too_long'), () => assert.ok(bad.send(new Uint8Array(66_000).fill(0x45))));
  await healthy.goesOn();
});

test('a queue that nobody empties is full, and only for those who send into it', { skip }, async () => {
  const deaf = await engine.connect(programs, { ...CONTEXT, sources: ['10.0.0.50/32'] });
  deaf.pause();
  await isCounted(dropped('queue_full'), async () => {
    const path = { source: '10.0.0.50', destination: '10.0.1.80', sourcePort: 9, destinationPort: 53 };
    const packet = udpPacket(path, new Uint8Array(1300));
    for (let i = 0; i < 20_000 && (await rampart.drops('queue_full')) === 0; i += 200) {
      // Its answers are not read, so they pile up on their way back.
      for (let n = 0; n < 200; n++) deaf.send(packet);
      await nextTurn();
    }
  });
  await healthy.goesOn();
  deaf.close();
});

test('a tunnel that vanishes takes only its own flows along', { skip }, async () => {
  const path = { source: '10.0.0.60', destination: '10.0.1.80', sourcePort: 1, destinationPort: 53 };
  const vanishing = await engine.connect(programs, { ...CONTEXT, sources: ['10.0.0.60/32'] });
  vanishing.send(udpPacket(path, 'x'));
  const has = async (): Promise<boolean> =>
    (await rampart.flows()).some((flow) => flow.source.address === path.source);
  await until('its flow is there', has);
  vanishing.close();
  await until('its flow is gone', async () => !(await has()));
  await healthy.goesOn();
});

/** A raw connection to a listener; everything that comes is kept. */
async function open(
  onRamp: string,
): Promise<{ socket: Socket; text: () => string; closed: Promise<unknown> }> {
  const socket = connect({ host: '127.0.0.1', port: await rampart.port(onRamp), allowHalfOpen: true });
  let text = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    text += chunk;
  });
  socket.on('error', () => {});
  socket.on('end', () => socket.end());
  const closed = once(socket, 'close');
  await once(socket, 'connect');
  return { socket, text: () => text, closed };
}

const MALFORMED: readonly (readonly [about: string, request: string, status: number])[] = [
  [
    'two lengths that differ',
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx',
    400,
  ],
  [
    'a length beside chunks',
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    400,
  ],
  ['a name with a space', 'GET / HTTP/1.1\r\nHost : a\r\n\r\n', 400],
  ['no host', 'GET / HTTP/1.1\r\n\r\n', 400],
  ['a line that is no request', 'hello\r\n\r\n', 400],
  ['a head that is too long', `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(40_000)}\r\n\r\n`, 431],
];

for (const [about, request, status] of MALFORMED) {
  test(`a request with ${about} is answered ${status}`, { skip }, async () => {
    await isCounted(counted('requests_malformed'), async () => {
      const { socket, text, closed } = await open('web');
      socket.write(request);
      await closed;
      assert.match(text(), new RegExp(`^HTTP/1\\.1 ${status} `));
    });
    await healthy.goesOn();
  });
}

test('a client that is slow with its head is answered 408', { skip }, async () => {
  await isCounted(counted('client_timeouts'), async () => {
    const { socket, text, closed } = await open('web');
    socket.write('GET / HTTP/1.1\r\nHost');
    await closed;
    assert.match(text(), /^HTTP\/1\.1 408 /);
  });
  await healthy.goesOn();
});

test('a hook that never answers ends its request alone', { skip }, async () => {
  await isCounted(counted('hook_timeouts'), async () => {
    const response = await fetch(`http://127.0.0.1:${await rampart.port('web')}/668`);
    assert.equal(response.status, 500);
  });
  await healthy.goesOn();
});

test('clients that leave in the middle leave nothing behind', { skip }, async () => {
  const before = rampart.descriptors;
  const clients = await Promise.all(
    Array.from({ length: 50 }, async (_, i) => {
      const client = await open(i % 2 === 0 ? 'web' : 'plain');
      client.socket.write('GET /bytes/100000000 HTTP/1.1\r\nHost: a\r\n\r\n');
      await until('the answer has begun', () => client.text().length > 0);
      return client;
    }),
  );
  for (const [i, { socket }] of clients.entries()) {
    if (i % 3 === 0) socket.resetAndDestroy();
    else socket.destroy();
  }
  await rampart.descriptorsBackTo(before, 40);
  await healthy.goesOn();
});

test('an origin that breaks off or talks nonsense is answered 502', { skip }, async () => {
  const nonsense = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', (chunk) => {
      if (chunk.includes('/off')) socket.destroy();
      else socket.end('SSH-2.0-OpenSSH_9.2\r\n\r\n');
    });
  });
  nonsense.listen(0, '127.0.0.1');
  await once(nonsense, 'listening');
  const { port } = nonsense.address() as AddressInfo;
  const second = await RampartProcess.start({
    config: `
on_ramps: [{ name: web, type: tcp, listen: "127.0.0.1:0", upgrade: http }]
off_ramps: [{ name: origin, type: http, origins: ["127.0.0.1:${port}"] }]
routes: [{ on_ramp: web, via: origin }]
`,
  });
  try {
    for (const path of ['off', 'nonsense']) {
      const response = await fetch(`http://127.0.0.1:${await second.port('web')}/${path}`);
      assert.equal(response.status, 502);
    }
    const { counters } = await second.stats();
    assert.equal(counters.responses_malformed, 1);
  } finally {
    nonsense.close();
    await second.stop();
  }
});

test('a process without descriptors goes on, and takes clients again when it has some', {
  skip,
}, async () => {
  const poor = await RampartProcess.start({ config: config('poor'), descriptorsMax: 160 });
  try {
    const port = await poor.port('plain');
    const sockets = Array.from({ length: 300 }, () => {
      const socket = connect({ host: '127.0.0.1', port });
      socket.on('error', () => {});
      socket.write('x');
      return socket;
    });
    await until('accepting fails', async () => ((await poor.stats()).counters.accept_errors ?? 0) > 0);
    // UDP sessions want descriptors, too.
    const peer = await engine.connect(`${programs}poor`, null).catch(() => null);
    for (const socket of sockets) socket.destroy();
    peer?.close();
    await until('descriptors are free', () => poor.descriptors < 120);
    const web = await poor.port('web');
    const response = await until('a request goes through', async () => {
      const answered = await fetch(`http://127.0.0.1:${web}/again`, { signal: AbortSignal.timeout(5000) });
      return answered.status === 200 ? answered : null;
    });
    assert.equal(await response.text(), 'origin GET /again\n');
  } finally {
    await poor.stop();
  }
});

test('sessions that find no descriptor are refused, and nothing else is', { skip }, async () => {
  const poor = await RampartProcess.start({ config: config('poor2'), descriptorsMax: 160 });
  try {
    const peer = await engine.connect(`${programs}poor2`, CONTEXT);
    let answers = 0;
    let refusals = 0;
    peer.onPacket = (packet) => {
      if (seen(packet).protocol === 17) answers++;
      else if (seen(packet).icmpType === 3) refusals++;
    };
    const send = (sourcePort: number): void => {
      const path = { source: '10.0.0.5', destination: '10.0.2.80', sourcePort, destinationPort: 53 };
      peer.send(udpPacket(path, 'hello'));
    };
    for (let port = 1; port <= 400; port++) send(1000 + port);
    await until('some sessions are answered, some refused', () => answers > 20 && refusals > 20);
    // The process lives, and a session that is open still works.
    const before = answers;
    send(1001);
    await until('an open session goes on', () => answers > before);
    peer.close();
  } finally {
    await poor.stop();
  }
});

test('streams that find no descriptor end, and later ones do not', { skip }, async () => {
  const poor = await RampartProcess.start({ config: config('poor3'), descriptorsMax: 160 });
  try {
    const peer = await engine.connect(`${programs}poor3`, CONTEXT);
    const streams = new Map<number, TinyTcp>();
    peer.onPacket = (packet) => streams.get(seen(packet).destinationPort)?.take(packet);
    const ask = (sourcePort: number): Promise<string> => {
      const path = { source: '10.0.0.5', destination: '10.0.3.80', sourcePort, destinationPort: 9 };
      const send = (packet: Uint8Array): void => void peer.send(packet);
      const stream = new TinyTcp({ path, request: 'hello\n', sequence: sourcePort * 1000, send });
      streams.set(sourcePort, stream);
      return stream.run();
    };
    const asked = Array.from({ length: 200 }, (_, i) => ask(2000 + i));
    const settled = Promise.allSettled(asked);
    await until('some are answered', () => [...streams.values()].some(({ text }) => text !== ''));
    await until('descriptors have run out', async () => {
      const { counters } = await poor.stats();
      return (counters.accept_errors ?? 0) + (counters.upstream_connect_errors ?? 0) > 0;
    });
    for (const stream of streams.values()) stream.abort();
    await settled;
    // Those who gave up said nothing; closing the tunnel ends what is left of them.
    peer.close();
    await until('descriptors are free', () => poor.descriptors < 140);
    const again = await engine.connect(`${programs}poor3`, CONTEXT);
    again.onPacket = (packet) => streams.get(seen(packet).destinationPort)?.take(packet);
    const path = { source: '10.0.0.5', destination: '10.0.3.80', sourcePort: 9000, destinationPort: 9 };
    const send = (packet: Uint8Array): void => void again.send(packet);
    const last = new TinyTcp({ path, request: 'hello\n', sequence: 7, send });
    streams.set(9000, last);
    assert.match(await within('the last one', last.run()), /^origin greets /);
    again.close();
  } finally {
    await poor.stop();
  }
});

test('limits of flows hold: a flood is refused, and an idle flow makes room for a new one', {
  skip,
}, async () => {
  const tight = await RampartProcess.start({
    config: `${config('tight')}limits: { flows_max: 64, flows_per_account_max: 32, packet_slots: 64 }\n`,
  });
  try {
    const peer = await engine.connect(`${programs}tight`, CONTEXT);
    for (let port = 1; port <= 500; port++) {
      const path = { source: '10.0.0.5', destination: '10.0.1.80', sourcePort: port, destinationPort: 53 };
      await until('there is room in the queue', () => peer.send(udpPacket(path, 'x')));
    }
    await until('the flood is refused', async () => (await tight.drops('account_flow_limit')) > 400);
    assert.equal((await tight.flows()).length, 32);
    let port = 1000;
    await until('a new flow takes the place of an idle one', async () => {
      const path = { source: '10.0.0.5', destination: '10.0.1.80', sourcePort: port++, destinationPort: 53 };
      peer.send(udpPacket(path, 'x'));
      return ((await tight.stats()).counters.flows_evicted ?? 0) > 0;
    });
    assert.equal((await tight.flows()).length, 32);
    peer.close();
  } finally {
    await tight.stop();
  }
});

test('fragments that never become packets take no more memory than they may', { skip }, async () => {
  const tight = await RampartProcess.start({
    config: `${config('fragments')}limits: { reassembly_bytes_max: 64KiB }\n`,
  });
  try {
    const peer = await engine.connect(`${programs}fragments`, CONTEXT);
    const first = BAD_PACKETS.find(({ reason }) => reason === 'fragment_overlap')?.packets[0] as Uint8Array;
    await until('it is counted', async () => {
      for (let id = 1; id <= 50; id++) {
        const packet = Uint8Array.from(first);
        new DataView(packet.buffer).setUint16(4, id);
        peer.send(repairIpv4Header(packet));
      }
      return (await tight.drops('reassembly_full')) > 0;
    });
    peer.close();
  } finally {
    await tight.stop();
  }
});

test('packets for a way out that has gone are dropped as tunnel_closed', { skip }, async () => {
  await healthy.goesOn();
  healthy.stop();
  server?.close();
  await isCounted(dropped('tunnel_closed'), async () => {
    const path = { source: '10.0.0.5', destination: '10.0.1.80', sourcePort: 77, destinationPort: 53 };
    for (let i = 0; i < 20; i++) bad.send(udpPacket(path, 'x'));
  });
  // The off-ramp connects again by itself, and then the same flow is answered.
  bad.received.length = 0;
  await until('answers come again', () => {
    const path = { source: '10.0.0.5', destination: '10.0.1.80', sourcePort: 77, destinationPort: 53 };
    bad.send(udpPacket(path, 'x'));
    return bad.received.some((packet) => seen(packet).protocol === 17);
  });
});

test('the UDP port of GUE takes garbage of any length', { skip }, async () => {
  const socket = createSocket('udp4');
  const port = await rampart.port('nodes');
  for (let length = 0; length < 200; length++) {
    socket.send(Buffer.alloc(length, length), port, '127.0.0.1', () => {});
    if (length % 20 === 0) await nextTurn();
  }
  assert.equal((await (await rampart.agent()).ask('status')).draining, false);
  socket.close();
});
