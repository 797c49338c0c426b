/**
 * One of two processes of `hand-over.test.ts`: a packet pipeline between SEQPACKET tunnels and a relay
 * between sockets, put together from the parts that a whole node is made of.
 *
 *   hand-over-node.ts old TUNNELS HANDOVER TARGET   accepts tunnels at a path, and streams, relayed to a port
 *   hand-over-node.ts new HANDOVER                  waits, takes over everything, refuses every new flow
 *
 * SIGUSR2 makes the old one hand its flows, tunnels and streams over, and end.
 */
import { DropReason } from '#base/drop-reason.ts';
import { type Fd, type Io, PollMask } from '#io/io.ts';
import type { Relay } from '#io/relay.ts';
import { describeRoute, type RouteConfig } from '#config/routes.ts';
import type { FlowState, FlowStateHeader } from '#proxy/flow/flow-snapshot.ts';
import { Networks } from '#proxy/flow/networks.ts';
import { FlowPipeline } from '#proxy/flow/pipeline.ts';
import { Routes } from '#proxy/flow/routes.ts';
import { isInPrefixes } from '#proxy/flow/sources.ts';
import type { Worker } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';
import type { Admitted } from '#proxy/tunnel/admission.ts';
import { SeqpacketListener } from '#proxy/tunnel/seqpacket-listener.ts';
import { SeqpacketTunnel } from '#proxy/tunnel/seqpacket-tunnel.ts';
import { openTestHost } from '#proxy/tunnel/test-host.ts';
import type { TunnelState } from '#proxy/tunnel/tunnel-registry.ts';

/**
 * The first message of a hand-over; tunnels' descriptors come with it in this order, then those of streams.
 */
interface Announcement {
  readonly flows: FlowStateHeader;
  /** Bytes of each buffer; those that have any follow, a message each. */
  readonly buffers: readonly number[];
  readonly tunnels: readonly TunnelState[];
  /** Pairs of descriptors behind the tunnels'. */
  readonly streams: number;
}

const TRAFFIC = {
  account: 'acme',
  vnet: 'prod',
  onRamp: null,
  to: null,
  protocol: null,
  ports: null,
} as const;
const ROUTE: RouteConfig = {
  index: 0,
  rule: describeRoute(TRAFFIC),
  ...TRAFFIC,
  via: 'back',
  upgrade: 'none',
};

const [role, ...rest] = process.argv.slice(2);
const networks = new Networks();
const routes = new Routes(networks);
const host = openTestHost({
  sink: makePipeline,
  networkOf: (account, vnet) => networks.intern(account, vnet),
});
const pipeline = host.sink as FlowPipeline;
const { io } = host;
const relays = new Set<Relay>();
const owner = { onRelayEnd: (relay: Relay): void => void relays.delete(relay) };

if (role === 'old') beOld(rest as [string, string, string]);
else beNew(rest[0] as string);

function makePipeline(worker: Worker): FlowPipeline {
  const made = new FlowPipeline(worker, {
    networks,
    routes,
    ways: {
      find: (_via, network, view, tuple) => {
        const at = tuple.addressOffset + (tuple.version === 4 ? 4 : 16);
        for (const tunnel of host.registry.open()) {
          const isBehind = isInPrefixes(tunnel.context.sources, view, at, tuple.version);
          if (isBehind && tunnel.network === network) return { kind: 'tunnel', tunnel };
        }
        return null;
      },
    },
    hooks: {
      flow:
        role === 'new' ? () => ({ action: 'drop' as const, reason: 'this process opens no flows' }) : null,
      egressNow: null,
    },
    tunnels: { get: (index) => host.registry.get(index) },
    seed: [11, 22, 33, role === 'new' ? 55 : 44],
  });
  made.attachUpgrades({ tcp: null, udp: null, icmp: null });
  return made;
}

/** Lives until it is told to hand over. */
function beOld([tunnels, handOver, target]: [string, string, string]): void {
  routes.replace([ROUTE]);
  const listen = { family: 'unix', path: tunnels } as const;
  const listener = new SeqpacketListener(host, { name: 'programs', sources: [], listen, mtu: 1500 });
  const door = io.listen({ family: 4, address: '127.0.0.1', port: 0 });
  io.accept(door, { onCompletion: (_tag, fd) => relayTo(fd, Number(target)) }, 0);
  process.on('SIGUSR2', () => {
    // What comes from here on waits in the sockets.
    listener.close({ keep: true });
    void handEverythingOver(handOver);
  });
  const address = io.localAddress(door);
  console.log(`ready ${address.family === 'unix' ? '' : address.port}`);
}

function relayTo(client: Fd, port: number): void {
  if (client < 0) return;
  const upstream = io.socket('tcp4');
  const connected = (_tag: number, code: number): void => {
    if (code === 0) relays.add(host.worker.relays.start(client, upstream, owner));
  };
  io.connect(upstream, { family: 4, address: '127.0.0.1', port }, { onCompletion: connected }, 0);
}

async function handEverythingOver(path: string): Promise<void> {
  const streams: Fd[] = [];
  for (const relay of relays) {
    while (!relay.detach()) await turn();
    streams.push(relay.a, relay.b);
  }
  const tunnels = host.registry.describe();
  const { header, buffers } = pipeline.snapshot();
  const to = io.socket('unix-seqpacket');
  await new Promise<void>((resolve) => {
    io.connect(to, { family: 'unix', path }, { onCompletion: () => resolve() }, 0);
  });
  const first: Announcement = {
    flows: header,
    buffers: buffers.map(({ length }) => length),
    tunnels,
    streams: streams.length / 2,
  };
  io.sendDescriptors(to, Buffer.from(JSON.stringify(first)), [...tunnels.map(({ fd }) => fd), ...streams]);
  for (const buffer of buffers) if (buffer.length > 0) io.sendDescriptors(to, buffer, []);
  // Its copies of the descriptors go with the process; nobody is told, and nothing is shut down.
  process.exit(0);
}

/** Waits for another process's state. */
function beNew(path: string): void {
  const listener = io.listen({ family: 'unix', path }, { type: 'seqpacket' });
  io.accept(listener, { onCompletion: (_tag, from) => void (from >= 0 && takeOver(from)) }, 0);
  console.log('ready');
}

async function takeOver(from: Fd): Promise<void> {
  const { bytes, descriptors } = await receive(io, from);
  const first = JSON.parse(Buffer.from(bytes).toString()) as Announcement;
  const buffers: Uint8Array[] = [];
  for (const length of first.buffers) {
    buffers.push(length === 0 ? new Uint8Array(0) : (await receive(io, from)).bytes);
  }
  networks.adopt(first.flows.networks);
  routes.adopt(first.flows.routes);
  routes.replace([ROUTE]);
  for (const [i, state] of first.tunnels.entries()) adoptTunnel(state, descriptors[i] as Fd);
  const state: FlowState = { header: first.flows, buffers };
  pipeline.restore(state);
  const streams = descriptors.slice(first.tunnels.length);
  for (let i = 0; i < first.streams; i++) {
    relays.add(host.worker.relays.start(streams[2 * i] as Fd, streams[2 * i + 1] as Fd, owner));
  }
  console.log(
    `took over ${pipeline.table.count} flows, ${first.tunnels.length} tunnels, ${first.streams} streams`,
  );
  process.on('SIGUSR2', report);
}

function adoptTunnel(state: TunnelState, fd: Fd): void {
  const { context, mtu } = state.state as { context: { account: string; vnet: string }; mtu: number };
  const admitted = host.admission.ofSpec(context, { name: 'programs', sources: [] }) as Admitted;
  new SeqpacketTunnel(host, { ...admitted, name: state.name, mtu, fd }, state);
}

/** What came of it, for the test. */
function report(): void {
  const { counters, drops } = host.worker.stats;
  const flows = pipeline.summaries({}).map(({ flow, packets }) => ({ flow, packets }));
  const refused = drops[DropReason.HookRejected];
  console.log(`report ${JSON.stringify({ flows, refused, opened: counters[Counter.FlowsOpened] })}`);
}

async function receive(engine: Io, from: Fd): Promise<{ bytes: Uint8Array; descriptors: readonly Fd[] }> {
  for (;;) {
    const message = engine.recvDescriptors(from);
    if (message !== null) return message;
    await new Promise<void>((resolve) => {
      engine.poll(from, PollMask.In, false, { onCompletion: () => resolve() }, 0);
    });
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
