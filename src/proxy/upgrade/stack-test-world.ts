/**
 * For tests of the stack: a real pipeline with real namespaces around it, and programs that move checked
 * data.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';

import { RampartError } from '#base/error.ts';
import type { RouteConfig } from '#config/routes.ts';
import { CloseReason, type FlowRecord } from '#contract/record.ts';
import type { Fd } from '#io/io.ts';
import { openPrivateNamespace, type NamespaceOptions, type PrivateNamespace } from '#io/namespace.ts';
import type { PacketDeviceOptions } from '#io/packet-device.ts';
import type { RelayOwner } from '#io/relay.ts';
import { Networks } from '#proxy/flow/networks.ts';
import type { WayOut, WaysOut } from '#proxy/flow/packet-upgrade.ts';
import { FlowPipeline } from '#proxy/flow/pipeline.ts';
import { Routes } from '#proxy/flow/routes.ts';
import type { InboundStream, IpTunnel, Limits, StreamHandler, Worker } from '#proxy/proxy-contract.ts';
import type { Admitted } from '#proxy/tunnel/admission.ts';
import { DeviceTunnel } from '#proxy/tunnel/device-tunnel.ts';
import { openTestHost, type TestHost, until } from '#proxy/tunnel/test-host.ts';

import { Stack } from './stack.ts';
import { StackConnector } from './stack-connect.ts';
import { openStackNamespace, type StackNamespace } from './stack-namespace.ts';

/** Relays each stream to a server of this process; keeps what it was given. */
export class RelayHandler implements StreamHandler, RelayOwner {
  readonly streams: InboundStream[] = [];
  ended = 0;
  /** Positive errno of each relay that broke. */
  readonly errors: number[] = [];
  /** Port of the server. */
  port = 0;
  /** What happens to the next stream; default is the relay. */
  take: ((stream: InboundStream) => boolean) | null = null;
  readonly #worker: Worker;

  constructor(worker: Worker) {
    this.#worker = worker;
  }

  onStream(stream: InboundStream): void {
    this.streams.push(stream);
    if (this.take?.(stream) === true) return;
    const { io, relays } = this.#worker;
    const server = io.socket('tcp4');
    const connected = (_tag: number, result: number): void => {
      if (result === 0) relays.start(stream.fd, server, this);
      else for (const fd of [stream.fd, server]) io.close(fd);
    };
    const address = { family: 4, address: '127.0.0.1', port: this.port } as const;
    io.connect(server, address, { onCompletion: connected }, 0);
  }

  onRelayEnd(_relay: unknown, _side: number, errno: number): void {
    this.ended++;
    if (errno !== 0) this.errors.push(errno);
  }
}

/** Everything that a stack test has. */
export interface StackWorld {
  readonly host: TestHost;
  readonly networks: Networks;
  readonly pipeline: FlowPipeline;
  readonly stack: Stack;
  readonly place: StackNamespace;
  /** Puts another stack in the place of the first, for packets and for the end. */
  use(stack: Stack): void;
  readonly connector: StackConnector;
  readonly handler: RelayHandler;
  readonly records: FlowRecord[];
  /** Off-ramps by name: tunnels are added by tests; every other name is the sockets'. */
  readonly ways: Map<string, WayOut>;
  readonly namespaces: PrivateNamespace[];
  /** Run after the tunnels are closed and before the namespaces are. */
  readonly closings: (() => Promise<void>)[];
}

/** How the world is made. */
export interface StackWorldOptions {
  readonly limits?: Partial<Limits>;
  readonly namespace?: NamespaceOptions;
  readonly device?: PacketDeviceOptions;
}

/** Opens the world; `world.host.stop` closes it all. */
export async function openStackWorld(options: StackWorldOptions = {}): Promise<StackWorld> {
  const networks = new Networks();
  const routes = new Routes(networks);
  const ways = new Map<string, WayOut>();
  const records: FlowRecord[] = [];
  const waysOut: WaysOut = { find: (via) => ways.get(via) ?? { kind: 'upgrade' } };
  let pipeline: FlowPipeline | null = null;
  const host = openTestHost({
    slots: 1024,
    ...(options.limits === undefined ? {} : { limits: options.limits }),
    networkOf: (account, vnet) => networks.intern(account, vnet),
    onRecord: (record) => records.push(record),
    sink: (worker) => {
      pipeline = new FlowPipeline(worker, {
        networks,
        routes,
        ways: waysOut,
        hooks: { flow: null, egressNow: null },
        tunnels: { get: (index) => host.registry.get(index) },
        seed: [1, 2, 3, 4],
      });
      return pipeline;
    },
  });
  const flows = pipeline as unknown as FlowPipeline;
  routes.replace([everything()]);
  const place = await openStackNamespace(options);
  const handler = new RelayHandler(host.worker);
  const { registry: tunnels } = host;
  const stack = new Stack(host.worker, { place, host: flows, tunnels, streams: handler });
  let used = stack;
  const { namespace } = place;
  const connector = new StackConnector(host.worker, { stack, host: flows, namespace });
  flows.attachUpgrades({ tcp: stack, udp: null, icmp: null });
  const namespaces: PrivateNamespace[] = [];
  const closings: (() => Promise<void>)[] = [];
  host.defer(async () => {
    for (const tunnel of [...host.registry.open()]) tunnel.close();
    flows.close(CloseReason.Shutdown);
    await used.close();
    for (const close of closings) await close();
    for (const each of namespaces) await each.close();
  });
  return {
    host,
    networks,
    pipeline: flows,
    stack,
    place,
    use: (next) => {
      used = next;
      flows.attachUpgrades({ tcp: next, udp: null, icmp: null });
    },
    connector,
    handler,
    records,
    ways,
    namespaces,
    closings,
  };
}

/** Every flow of every network leaves by sockets. */
function everything(): RouteConfig {
  return {
    index: 0,
    rule: 'everything',
    account: null,
    vnet: null,
    onRamp: null,
    to: null,
    protocol: null,
    ports: null,
    via: 'sockets',
    upgrade: 'stream',
  };
}

/** Where a client of the world is. */
export interface ClientOptions {
  readonly vnet?: string;
  readonly mtu?: number;
  readonly addresses?: readonly string[];
  readonly kind?: PacketDeviceOptions['kind'];
  readonly offload?: boolean;
  readonly namespace?: NamespaceOptions;
}

/** A namespace with a device that is a tunnel of the world. Everything in it is routed into the device. */
export async function addClient(
  world: StackWorld,
  options: ClientOptions = {},
): Promise<{ readonly namespace: PrivateNamespace; readonly tunnel: IpTunnel }> {
  const { host } = world;
  const namespace = await openPrivateNamespace(options.namespace);
  world.namespaces.push(namespace);
  const { kind = 'auto', offload = true } = options;
  const device = await namespace.openPacketDevice({
    name: 'tun0',
    mtu: options.mtu ?? 1500,
    kind,
    offload,
  });
  const addresses = options.addresses ?? ['10.0.0.2/32', 'fd00::2/128'];
  await namespace.configure({
    addresses: addresses.map((address) => ({ device: 'tun0', address })),
    routes: ['0.0.0.0/0', '::/0'].map((destination) => ({ destination, device: 'tun0' })),
  });
  const name = `client ${world.namespaces.length}`;
  const spec = { account: 'acme', vnet: options.vnet ?? 'prod', sources: ['0.0.0.0/0', '::/0'] };
  const admitted = host.admission.ofSpec(spec, { name, sources: [] }) as Admitted;
  world.closings.push(() => namespace.closePacketDevice(device));
  return { namespace, tunnel: new DeviceTunnel(host, { ...admitted, name, device }) };
}

/** Bytes that the server sends down, and the client up. */
export const BULK_BYTES = 24 << 20;

const CHUNK = Buffer.alloc(1 << 16, 'the quick brown fox jumps over the lazy dog, ');

/** Digest of the data that go down. */
export const DOWN_DIGEST = ((): string => {
  const hash = createHash('sha256');
  for (let sent = 0; sent < BULK_BYTES; sent += CHUNK.length) hash.update(CHUNK);
  return hash.digest('hex');
})();

/** A server of this process that answers with the digest of what it got, then the bulk. */
export async function startServer(world: StackWorld): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const hash = createHash('sha256');
    socket.on('error', () => {});
    socket.on('data', (data) => hash.update(data));
    socket.on('end', () => {
      socket.write(hash.digest('hex'));
      let sent = 0;
      const more = (): void => {
        while (sent < BULK_BYTES) {
          sent += CHUNK.length;
          if (!socket.write(CHUNK)) {
            socket.once('drain', more);
            return;
          }
        }
        socket.end();
      };
      more();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  world.handler.port = (server.address() as AddressInfo).port;
  world.host.defer(async () => {
    server.close();
    await once(server, 'close');
  });
  return server;
}

/**
 * Sends the bulk to ADDRESS PORT, and prints the digest of what it sent, what the server says it got, the
 * number of bytes that came down and their digest.
 */
const CLIENT_PROGRAM = `
const { connect } = require('node:net'); const { createHash } = require('node:crypto');
const up = createHash('sha256'), down = createHash('sha256');
let head = Buffer.alloc(0), count = 0, left = ${BULK_BYTES >> 16};
const socket = connect({ host: process.argv[1], port: +process.argv[2], allowHalfOpen: true });
socket.on('error', (error) => { console.log(error.code); process.exit(0); });
socket.on('data', (data) => {
  const missing = 64 - head.length;
  head = Buffer.concat([head, data.subarray(0, missing)]);
  count += data.subarray(missing).length;
  down.update(data.subarray(missing));
});
socket.on('end', () => console.log(up.digest('hex'), head.toString(), count, down.digest('hex')));
const more = () => {
  while (left > 0) {
    const data = Buffer.alloc(65536, left--);
    up.update(data);
    if (!socket.write(data)) { socket.once('drain', more); return; }
  }
  socket.end();
};
socket.on('connect', more);`;

/** The same server as `startServer` has, as a program: on PORT of every address. */
export const SERVER_PROGRAM = `
const { createServer } = require('node:net'); const { createHash } = require('node:crypto');
const chunk = Buffer.alloc(1 << 16, 'the quick brown fox jumps over the lazy dog, ');
createServer({ allowHalfOpen: true }, (socket) => {
  const hash = createHash('sha256'); let sent = 0;
  socket.on('error', () => {});
  socket.on('data', (data) => hash.update(data));
  const more = () => {
    while (sent < ${BULK_BYTES}) {
      sent += chunk.length;
      if (!socket.write(chunk)) { socket.once('drain', more); return; }
    }
    socket.end();
  };
  socket.on('end', () => { socket.write(hash.digest('hex')); more(); });
}).listen(8080, '::', () => console.log('ready'));`;

/** What the client program found. */
export interface BulkResult {
  readonly sent: string;
  readonly received: string;
  readonly downBytes: number;
  readonly downDigest: string;
  /** The line as it was printed: an error's code when there was no connection. */
  readonly line: string;
}

/** Runs the client in a namespace. */
export async function runBulk(namespace: PrivateNamespace, to: string, port: number): Promise<BulkResult> {
  const line = await runNode(namespace, CLIENT_PROGRAM, [to, String(port)]);
  const [sent = '', received = '', bytes = '', downDigest = ''] = line.split(' ');
  return { sent, received, downBytes: Number(bytes), downDigest, line };
}

/** Runs a Node program in a namespace and returns what it printed. */
export async function runNode(
  namespace: PrivateNamespace,
  program: string,
  args: readonly string[] = [],
): Promise<string> {
  return await runProgram(namespace, process.execPath, ['-e', program, ...args]);
}

/** Runs any program in a namespace and returns what it printed. */
export async function runProgram(
  namespace: PrivateNamespace,
  command: string,
  args: readonly string[],
): Promise<string> {
  const child = namespace.spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout?.on('data', (data) => {
    output += data;
  });
  await once(child, 'close');
  return output.trim();
}

/** Starts a Node program that serves, and waits until it has printed `ready`. Ends with the world. */
export async function serveNode(
  world: StackWorld,
  namespace: PrivateNamespace,
  program: string,
): Promise<void> {
  const child = namespace.spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  let output = '';
  child.stdout?.on('data', (data) => {
    output += data;
  });
  world.host.defer(async () => {
    child.kill();
    await ended;
  });
  await until('the server is ready', () => output.includes('ready'));
}

/** The code of the error that a promise rejects with. */
export async function rejection(promise: Promise<unknown>): Promise<RampartError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof RampartError) return error;
    throw error;
  }
  throw new Error('it did not reject');
}

/** Closes a descriptor so that the peer sees a reset. */
export function resetSocket(worker: Worker, fd: Fd): void {
  worker.io.setOption(fd, 'linger-zero', 1);
  worker.io.close(fd);
}
