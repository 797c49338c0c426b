/**
 * For tests of this folder and of those above it: a tunnel host over a real engine, and a sink that keeps
 * what came.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';

import type { IpPrefix } from '#base/ip.ts';
import { parsePrefix } from '#base/ip.ts';
import { limitsConfig } from '#config/limits.ts';
import type { FlowRecord } from '#contract/record.ts';
import type { SlotPool } from '#io/arena.ts';
import { openEngine } from '#io/engine.ts';
import type { Io } from '#io/io.ts';
import { RelayHub } from '#io/relay.ts';
import { PACKET_SLOT_BYTES } from '#packet/virtio-header.ts';
import {
  type IpTunnel,
  type Limits,
  type PacketSink,
  STREAM_SLOT_BYTES,
  type Worker,
} from '#proxy/proxy-contract.ts';
import { createStats } from '#proxy/stats.ts';

import { Admission, type NetworkFunction, type TunnelFunction } from './admission.ts';
import type { TunnelEvent, TunnelHost } from './tunnel-host.ts';
import { TunnelRegistry } from './tunnel-registry.ts';

/** Keeps a copy of each packet and gives its slot back. */
export class RecordingSink implements PacketSink {
  readonly packets: { readonly tunnel: IpTunnel; readonly bytes: Uint8Array }[] = [];
  readonly closed: IpTunnel[] = [];
  batches = 0;
  readonly #io: Io;
  readonly #pool: SlotPool;

  constructor(io: Io, pool: SlotPool) {
    this.#io = io;
    this.#pool = pool;
  }

  onPacket(tunnel: IpTunnel, offset: number, length: number): void {
    this.packets.push({ tunnel, bytes: this.#io.arena.bytes.slice(offset, offset + length) });
    this.#pool.release(offset);
  }

  onBatchEnd(): void {
    this.batches++;
  }

  onTunnelClosed(tunnel: IpTunnel): void {
    this.closed.push(tunnel);
  }
}

/** A host with everything that a test looks at. */
export interface TestHost extends TunnelHost {
  readonly io: Io;
  readonly events: TunnelEvent[];
  readonly anySource: readonly IpPrefix[];
  /** Has `cleanup` run by `stop`, the latest first. */
  defer(cleanup: () => void | Promise<void>): void;
  /**
   * Runs what was deferred and ends the engine. @throws Error when a descriptor, operation, timer or slot
   * is left behind.
   */
  stop(): Promise<void>;
}

/**
 * Opens an engine of its own. Accounts and vnets get numbers when the name of the vnet does not begin with
 * `no`.
 */
export function openTestHost(
  options: {
    readonly hook?: TunnelFunction;
    readonly sink?: (worker: Worker) => PacketSink;
    readonly slots?: number;
    readonly limits?: Partial<Limits>;
    readonly networkOf?: NetworkFunction;
    readonly onRecord?: (record: FlowRecord) => void;
  } = {},
): TestHost & { readonly recorded: RecordingSink } {
  const io = openEngine({ arenaBytes: 256 << 20 });
  const packets = io.arena.pool(PACKET_SLOT_BYTES, options.slots ?? 256);
  const relays = new RelayHub(io, { slotCount: 4 });
  let flows = 0;
  const worker: Worker = {
    io,
    packets,
    streams: io.arena.pool(STREAM_SLOT_BYTES, 64),
    relays,
    records: { record: options.onRecord ?? (() => {}), nextFlowNumber: () => ++flows },
    stats: createStats(),
    tracer: { enabled: false, emit: () => {}, packet: () => {} },
    limits: { ...limitsConfig({}), contextBytesMax: 1024, flowsMax: 4096, ...options.limits },
  };
  const networks = new Map<string, number>();
  const networkOf = (account: string, vnet: string): number => {
    const key = JSON.stringify([account, vnet]);
    if (!networks.has(key) && !vnet.startsWith('no')) networks.set(key, networks.size + 1);
    return networks.get(key) ?? 0;
  };
  const recorded = new RecordingSink(io, packets);
  const events: TunnelEvent[] = [];
  const cleanups: (() => void | Promise<void>)[] = [];
  return {
    io,
    worker,
    recorded,
    sink: options.sink?.(worker) ?? recorded,
    registry: new TunnelRegistry(),
    admission: new Admission({
      hook: options.hook ?? null,
      networkOf: options.networkOf ?? networkOf,
      contextBytesMax: worker.limits.contextBytesMax,
    }),
    log: (event) => events.push(event),
    events,
    anySource: [parsePrefix('0.0.0.0/0') as IpPrefix, parsePrefix('::/0') as IpPrefix],
    defer: (cleanup) => {
      cleanups.push(cleanup);
    },
    stop: async () => {
      try {
        for (const cleanup of cleanups.reverse()) await cleanup();
        relays.close();
        await until('nothing is left behind', () => leftBehind(io) === 0);
      } catch (error) {
        throw new Error(JSON.stringify(io.audit()), { cause: error });
      } finally {
        io.stop();
      }
    },
  };
}

/** Waits until `condition` holds, turn by turn. @throws Error after 5 seconds, naming `what`. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await nextTurn();
  }
}

function leftBehind(io: Io): number {
  const { descriptors, operations, timers, slots } = io.audit();
  return descriptors + operations + timers + slots;
}
