/**
 * The flow table by itself: what a flow costs in memory, and how many packets a second find their flow, at
 * several sizes. Plain numbers; `bench` prints them.
 */
import { twinBytes, twinPacket, twinTcp } from '#packet/twin.ts';
import { clearVirtioHeader, PACKET_HEADROOM } from '#packet/virtio-header.ts';
import { FlowAction, FlowTable, type FlowTuple } from '#proxy/flow/flow-table.ts';
import { FlowWorld, testRoute } from '#proxy/flow/test-world.ts';

/** Figures at one number of flows. */
export interface FlowTableFigures {
  readonly flows: number;
  /** Growth of the process's resident memory for one live IPv4 flow; the whole table's, divided. */
  readonly bytesPerFlow: number;
  /** Lookups of known flows in random order, both directions, by one core. */
  readonly lookupsPerSecond: number;
  /** The same with what each packet of a known flow does besides: counters, last-seen, action. */
  readonly hitsPerSecond: number;
  readonly insertsPerSecond: number;
}

const LIMITS = {
  tcpHandshakeMs: 30_000,
  tcpIdleMs: 7_440_000,
  tcpClosingMs: 240_000,
  udpIdleMs: 300_000,
  icmpIdleMs: 60_000,
  otherIdleMs: 600_000,
};

/**
 * Different packets that lookups draw from: more than the caches hold, so that memory is part of what is
 * measured.
 */
const PACKETS_MAX = 1 << 18;

/** Runs for about a second per size. */
export async function benchFlowTable(
  sizes: readonly number[] = [1, 100_000, 1_000_000],
): Promise<readonly FlowTableFigures[]> {
  const figures: FlowTableFigures[] = [];
  for (const flows of sizes) {
    figures.push(measure(flows));
    // The next size starts from a loop turn of its own, so that the collector can run between.
    await new Promise((resolve) => setImmediate(resolve));
  }
  return figures;
}

function measure(flows: number): FlowTableFigures {
  const residentBefore = process.memoryUsage.rss();
  const capacity = Math.max(flows, 16);
  const limits = { ...LIMITS, flowsMax: capacity, flowsPerAccountMax: capacity };
  const table = new FlowTable<null>(limits, [0x1234567, 0x89abcde]);
  const view = new DataView(new ArrayBuffer(8 * Math.min(flows, PACKETS_MAX)));
  const packet = { version: 4, protocol: 6, addressOffset: 0, sourcePort: 0, destinationPort: 443 };
  const scratch = new DataView(new ArrayBuffer(8));
  const start = {
    network: 1,
    account: 1,
    ingress: 1,
    tcpState: 4,
    route: 1,
    number: 1,
    now: 1,
    createdAt: 1,
  };

  const insertStart = performance.now();
  for (let i = 0; i < flows; i++) {
    setTuple(scratch, 0, packet, i);
    start.number = i;
    start.network = 1 + (i & 1023);
    const flow = table.insert(start, scratch, packet);
    table.decide(flow, FlowAction.Forward);
    table.touch(flow, 0, 40, 1);
    table.cold[flow] = null;
  }
  const insertMs = performance.now() - insertStart;
  const resident = process.memoryUsage.rss() - residentBefore - view.byteLength;

  const order = shuffled(flows);
  const lookupMs = timeLookups(table, view, order, false);
  const hitMs = timeLookups(table, view, order, true);
  return {
    flows,
    bytesPerFlow: Math.round(resident / flows),
    lookupsPerSecond: Math.round((LOOKUPS / lookupMs) * 1000),
    hitsPerSecond: Math.round((LOOKUPS / hitMs) * 1000),
    insertsPerSecond: Math.round((flows / insertMs) * 1000),
  };
}

const LOOKUPS = 2_000_000;

/** The tuple of flow `i`: 10.x.y.z to 192.168.1.1, ports spread. */
function setTuple(
  view: DataView,
  offset: number,
  packet: FlowTuple & { sourcePort: number },
  i: number,
): void {
  view.setInt32(offset, 0x0a000000 | (i >>> 4));
  view.setInt32(offset + 4, 0xc0a80101 | 0);
  packet.sourcePort = 1024 + (i & 15) * 4099;
}

function shuffled(flows: number): Int32Array {
  const order = new Int32Array(Math.min(flows, PACKETS_MAX));
  let state = 1;
  for (let i = 0; i < order.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    order[i] = Math.floor(((state >>> 0) / 2 ** 32) * flows);
  }
  return order;
}

function timeLookups(table: FlowTable<null>, view: DataView, order: Int32Array, hit: boolean): number {
  const packet = { version: 4, protocol: 6, addressOffset: 0, sourcePort: 0, destinationPort: 443 };
  const ports = new Int32Array(order.length);
  for (let at = 0; at < order.length; at++) {
    setTuple(view, at * 8, packet, order[at] as number);
    ports[at] = packet.sourcePort;
  }
  let found = 0;
  let at = 0;
  const start = performance.now();
  for (let i = 0; i < LOOKUPS; i++) {
    packet.addressOffset = at * 8;
    packet.sourcePort = ports[at] as number;
    const answer = table.lookup(1 + ((order[at] as number) & 1023), view, packet as never);
    if (answer >= 0) {
      found++;
      if (hit && table.action(answer >> 1) === FlowAction.Forward)
        table.touch(answer >> 1, answer & 1, 1500, i);
    }
    if (++at === order.length) at = 0;
  }
  const elapsed = performance.now() - start;
  if (found !== LOOKUPS) throw new Error(`${LOOKUPS - found} lookups did not find their flow`);
  return elapsed;
}

/** What the pipeline costs by itself, without any system call. */
export interface ForwardFigures {
  /** From `onPacket` to `send` for a packet of a known flow, 64 bytes of TCP. */
  readonly nanosecondsPerPacket: number;
  /** Garbage: must be 0 but for noise. */
  readonly heapBytesPerPacket: number;
}

const FORWARDED = 1_000_000;

/** Forwards packets of one flow between tunnels that only count. Runs for about a second. */
export async function benchForward(): Promise<ForwardFigures> {
  const world = new FlowWorld();
  const client = world.tunnel('client', ['10.0.0.0/24']);
  const server = world.tunnel('server', []);
  client.keeps = false;
  server.keeps = false;
  world.leadTo('server', server);
  world.routes.replace([testRoute('10.10.0.0/24', 'server')]);
  const transport = twinTcp({ flags: 0x10, payload: twinBytes(24) });
  const packet = twinPacket({ source: '10.0.0.1', destination: '10.10.0.1', protocol: 6, transport });
  const run = (count: number, forward: boolean): number => {
    const { packets } = world.worker;
    const { bytes, view } = world.io.arena;
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      const offset = packets.acquire() + PACKET_HEADROOM;
      clearVirtioHeader(view, offset);
      bytes.set(packet, offset);
      if (forward) world.pipeline.onPacket(client, offset, packet.length);
      else packets.release(offset);
    }
    return performance.now() - start;
  };
  run(FORWARDED / 4, true);
  run(FORWARDED / 4, false);
  const heap = process.memoryUsage().heapUsed;
  const spent = run(FORWARDED, true);
  const grown = process.memoryUsage().heapUsed - heap;
  const preparing = run(FORWARDED, false);
  if (server.sentCount !== FORWARDED * 1.25) throw new Error('not every packet was forwarded');
  return {
    nanosecondsPerPacket: Math.round(((spent - preparing) * 1e6) / FORWARDED),
    heapBytesPerPacket: Math.max(0, Math.round(grown / FORWARDED)),
  };
}
