/**
 * For tests and the micro-benchmark of this folder: a pipeline over the memory engine, with tunnels that keep
 * what they were given and an upgrade that keeps what it was delivered.
 */
import { DropReason, dropReasonName } from '#base/drop-reason.ts';
import { parsePrefix } from '#base/ip.ts';
import { describeRoute, type RouteConfig } from '#config/routes.ts';
import type { Context, Identity } from '#contract/context.ts';
import type { CloseReason, FlowRecord } from '#contract/record.ts';
import type { TraceEvent } from '#contract/trace.ts';
import { MemoryEngine } from '#io/memory.ts';
import { MemoryWorld } from '#io/memory-world.ts';
import { RelayHub } from '#io/relay.ts';
import { bytesOf } from '#packet/copy.ts';
import { clearVirtioHeader, PACKET_HEADROOM, PACKET_SLOT_BYTES } from '#packet/virtio-header.ts';
import type { IpTunnel, Limits, Worker } from '#proxy/proxy-contract.ts';
import { createStats } from '#proxy/stats.ts';

import type { FlowHooks } from './decide.ts';
import type { FlowIndex } from './flow-table.ts';
import { Networks } from './networks.ts';
import type { FlowHost, PacketUpgrade, WayOut } from './packet-upgrade.ts';
import { FlowPipeline, type PipelineParts } from './pipeline.ts';
import { Routes } from './routes.ts';

/** The limits of a test world; short tables show their edges. */
export const TEST_LIMITS = {
  flowsMax: 4096,
  flowsPerAccountMax: 4096,
  tcpHandshakeMs: 30_000,
  tcpIdleMs: 7_440_000,
  tcpClosingMs: 240_000,
  udpIdleMs: 300_000,
  icmpIdleMs: 60_000,
  otherIdleMs: 600_000,
  reassemblyBytesMax: 1 << 20,
};

/** A packet that a tunnel was to send, with the virtio header before it. */
export interface SentPacket {
  readonly bytes: Uint8Array;
  readonly virtio: Uint8Array;
}

/** Keeps what it is given. */
export class TestTunnel implements IpTunnel {
  readonly index: number;
  readonly name: string;
  readonly context: Context;
  readonly network: number;
  mtu = 1500;
  offload = false;
  /** What `send` answers. */
  answer: DropReason = DropReason.None;
  readonly sent: SentPacket[] = [];
  /** False: packets are counted and forgotten, for benchmarks. */
  keeps = true;
  sentCount = 0;
  readonly #world: FlowWorld;

  constructor(world: FlowWorld, context: Context) {
    this.#world = world;
    this.index = world.tunnels.length;
    this.name = `${context.onRamp}-${this.index}`;
    this.context = context;
    this.network = world.networks.intern(context.account, context.vnet);
    world.tunnels.push(this);
  }

  send(offset: number, length: number): DropReason {
    const { packets } = this.#world.worker;
    this.sentCount++;
    if (this.keeps) {
      const bytes = bytesOf(this.#world.io.arena.view);
      const virtio = bytes.slice(offset - 10, offset);
      this.sent.push({ bytes: bytes.slice(offset, offset + length), virtio });
    }
    packets.release(offset);
    return this.answer;
  }

  /** Packets since the last call. */
  take(): Uint8Array[] {
    return this.sent.splice(0).map(({ bytes }) => bytes);
  }

  close(): void {
    this.#world.tunnels[this.index] = null;
    this.#world.pipeline.onTunnelClosed(this);
  }

  describe(): null {
    return null;
  }
}

/** Keeps what it is delivered. */
export class TestUpgrade implements PacketUpgrade {
  readonly delivered: {
    readonly flow: FlowIndex;
    readonly handle: number;
    readonly direction: number;
    readonly bytes: Uint8Array;
  }[] = [];
  readonly errors: { readonly flow: FlowIndex; readonly quotedPort: number }[] = [];
  readonly ended: { readonly handle: number; readonly reason: CloseReason }[] = [];
  opened = 0;
  flushed = 0;
  /** What `open` answers instead of a handle. */
  refusal: DropReason = DropReason.None;
  /** Whether it writes the records of its flows. */
  records = true;
  readonly #world: FlowWorld;

  constructor(world: FlowWorld) {
    this.#world = world;
  }

  open(): number {
    return this.refusal === DropReason.None ? 100 + this.opened++ : -this.refusal;
  }

  deliver(flow: FlowIndex, handle: number, direction: number, offset: number, length: number): DropReason {
    const bytes = bytesOf(this.#world.io.arena.view).slice(offset, offset + length);
    this.delivered.push({ flow, handle, direction, bytes });
    this.#world.worker.packets.release(offset);
    return DropReason.None;
  }

  deliverError(flow: FlowIndex, _handle: number, offset: number): DropReason {
    this.errors.push({ flow, quotedPort: this.#world.pipeline.quoted.sourcePort });
    this.#world.worker.packets.release(offset);
    return DropReason.None;
  }

  flush(): void {
    this.flushed++;
  }

  closed(_flow: FlowIndex, handle: number, reason: CloseReason): boolean {
    this.ended.push({ handle, reason });
    return this.records;
  }
}

/** Options of a test world. */
export interface FlowWorldOptions {
  readonly limits?: Partial<Limits>;
  readonly hooks?: Partial<FlowHooks>;
  readonly parts?: Partial<PipelineParts>;
  readonly slots?: number;
  readonly upgrades?: boolean;
}

/** One pipeline and everything around it. */
export class FlowWorld {
  readonly clock = new MemoryWorld({ seed: 1 });
  readonly io = new MemoryEngine(this.clock, { arenaBytes: 64 << 20 });
  readonly networks = new Networks();
  readonly routes = new Routes(this.networks);
  readonly tunnels: (TestTunnel | null)[] = [null];
  readonly ways = new Map<string, (network: number) => WayOut | null>();
  readonly records: FlowRecord[] = [];
  readonly traced: TraceEvent[] = [];
  readonly worker: Worker;
  readonly pipeline: FlowPipeline;
  readonly upgrade: TestUpgrade;
  isTracing = false;

  constructor(options: FlowWorldOptions = {}) {
    const world = this;
    let flows = 0;
    this.worker = {
      io: this.io,
      packets: this.io.arena.pool(PACKET_SLOT_BYTES, options.slots ?? 128),
      streams: this.io.arena.pool(4096, 1),
      relays: new RelayHub(this.io, { slotCount: 1 }),
      records: { record: (record) => this.records.push(record), nextFlowNumber: () => ++flows },
      stats: createStats(),
      tracer: {
        get enabled() {
          return world.isTracing;
        },
        emit: (event) => this.traced.push(event),
        packet: () => {},
      },
      limits: { ...TEST_LIMITS, ...options.limits } as Limits,
    };
    this.pipeline = new FlowPipeline(this.worker, {
      networks: this.networks,
      routes: this.routes,
      ways: { find: (via, network) => this.ways.get(via)?.(network) ?? null },
      hooks: { flow: null, egressNow: null, ...options.hooks },
      tunnels: { get: (index) => this.tunnels[index] ?? null },
      seed: [1, 2, 3, 4],
      wallClock: () => 1.7e12 + this.clock.now,
      ...options.parts,
    });
    this.upgrade = new TestUpgrade(this);
    const upgrade = options.upgrades === false ? null : this.upgrade;
    this.pipeline.attachUpgrades({ tcp: upgrade, udp: upgrade, icmp: upgrade });
  }

  /** Opens a tunnel that may send from `sources`. */
  tunnel(
    onRamp: string,
    sources: readonly string[],
    over: { readonly account?: string; readonly vnet?: string; readonly identity?: Identity } = {},
  ): TestTunnel {
    const { account = 'acme', vnet = 'production', identity = null } = over;
    const prefixes = sources.map(
      (source) => parsePrefix(source) as NonNullable<ReturnType<typeof parsePrefix>>,
    );
    const context = { account, vnet, identity, onRamp, labels: {}, sources: prefixes, extension: undefined };
    return new TestTunnel(this, context);
  }

  /** An off-ramp whose packets leave by the tunnel, for its network only. */
  leadTo(via: string, tunnel: TestTunnel): void {
    const before = this.ways.get(via);
    this.ways.set(via, (network) =>
      network === tunnel.network ? { kind: 'tunnel', tunnel } : (before?.(network) ?? null),
    );
  }

  /** One packet from a tunnel, a batch by itself. `virtio` is the header before it; absent: clear. */
  send(tunnel: TestTunnel, packet: Uint8Array, virtio?: Uint8Array): void {
    this.#put(tunnel, packet, virtio);
    this.pipeline.onBatchEnd();
  }

  /** Several packets of one batch. */
  sendBatch(tunnel: TestTunnel, packets: readonly Uint8Array[]): void {
    for (const packet of packets) this.#put(tunnel, packet);
    this.pipeline.onBatchEnd();
  }

  #put(tunnel: TestTunnel, packet: Uint8Array, virtio?: Uint8Array): void {
    const { arena } = this.io;
    const slot = this.worker.packets.acquire();
    if (slot < 0) throw new Error('the test has no slot left');
    const offset = slot + PACKET_HEADROOM;
    if (virtio === undefined) clearVirtioHeader(arena.view, offset);
    else arena.bytes.set(virtio, offset - 10);
    arena.bytes.set(packet, offset);
    this.pipeline.onPacket(tunnel, offset, packet.length);
  }

  /** Emits a packet as an upgrade does. */
  emit(flow: FlowIndex, direction: number, packet: Uint8Array, virtio?: Uint8Array): DropReason {
    const host: FlowHost = this.pipeline;
    const { arena } = this.io;
    const offset = this.worker.packets.acquire() + PACKET_HEADROOM;
    if (virtio === undefined) clearVirtioHeader(arena.view, offset);
    else arena.bytes.set(virtio, offset - 10);
    arena.bytes.set(packet, offset);
    return host.emit(flow, direction, offset, packet.length);
  }

  counter(counter: number): number {
    return this.worker.stats.counters[counter] as number;
  }

  /** Drops by name, only those that happened. */
  get drops(): Record<string, number> {
    const drops: Record<string, number> = {};
    for (const [reason, count] of this.worker.stats.drops.entries()) {
      if (count > 0) drops[dropReasonName(reason)] = count;
    }
    return drops;
  }

  /** Slots that nobody gave back: 0 at the end of every test. */
  get leaked(): number {
    return this.worker.packets.inUse;
  }
}

let routeIndex = 0;

/** A route of the account acme, vnet production, unless said otherwise. */
export function testRoute(to: string, via: string, over: Partial<RouteConfig> = {}): RouteConfig {
  const match = {
    account: 'acme',
    vnet: 'production',
    onRamp: null,
    to: parsePrefix(to),
    protocol: null,
    ports: null,
    ...over,
  };
  return { index: routeIndex++, rule: describeRoute(match), via, upgrade: 'none', ...match };
}
