import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { ParsedPacket } from '#packet/parse.ts';

import {
  EVICTION_IDLE_MS_MIN,
  FlowAction,
  type FlowIndex,
  type FlowLimits,
  type FlowOpening,
  FlowTable,
  HAS_ROOM,
} from './flow-table.ts';
import { TcpBit } from './tcp-state.ts';

const LIMITS: FlowLimits = {
  flowsMax: 256,
  flowsPerAccountMax: 256,
  tcpHandshakeMs: 30_000,
  tcpIdleMs: 7_440_000,
  tcpClosingMs: 240_000,
  udpIdleMs: 300_000,
  icmpIdleMs: 60_000,
  otherIdleMs: 600_000,
};

const view = new DataView(new ArrayBuffer(64));

/** A tuple as numbers; `hosts` are put into the last words of the addresses. */
interface Tuple {
  readonly network: number;
  readonly version: number;
  readonly protocol: number;
  readonly source: number;
  readonly destination: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

function packetOf(tuple: Tuple, reversed = false): ParsedPacket {
  const packet = new ParsedPacket();
  const length = tuple.version === 4 ? 4 : 16;
  for (let i = 0; i < 32; i += 4) view.setInt32(i, 0x20010db8);
  view.setInt32(length - 4, reversed ? tuple.destination : tuple.source);
  view.setInt32(2 * length - 4, reversed ? tuple.source : tuple.destination);
  packet.version = tuple.version;
  packet.protocol = tuple.protocol;
  packet.addressOffset = 0;
  packet.sourcePort = reversed ? tuple.destinationPort : tuple.sourcePort;
  packet.destinationPort = reversed ? tuple.sourcePort : tuple.destinationPort;
  return packet;
}

function opening(over: Partial<FlowOpening> = {}): FlowOpening {
  const defaults = {
    network: 1,
    account: 1,
    ingress: 1,
    tcpState: 0,
    route: 0,
    number: 1,
    now: 0,
    createdAt: 0,
  };
  return { ...defaults, ...over };
}

const UDP: Tuple = {
  network: 1,
  version: 4,
  protocol: 17,
  source: 0x0a000001,
  destination: 0x0a000002,
  sourcePort: 1000,
  destinationPort: 53,
};

/** Opens a flow of an account as the pipeline does; −reason when it is refused. */
function open(table: FlowTable<string>, over: Partial<FlowOpening>, tuple: Tuple): FlowIndex {
  const start = opening({ network: tuple.network, ...over });
  const room = table.room(start.account, start.now);
  if (room < HAS_ROOM) return room;
  if (room >= 0) table.remove(room);
  return table.insert(start, view, packetOf(tuple));
}

function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return ((state >>> 8) * below) >>> 24;
  };
}

test('a table of random flows answers as a map does, in both directions, over thousands of changes', () => {
  const table = new FlowTable<string>({ ...LIMITS, flowsMax: 64, flowsPerAccountMax: 64 }, [1, 2]);
  const next = random(20260101);
  const key = (tuple: Tuple): string => Object.values(tuple).join();
  const mirrored = (tuple: Tuple): Tuple => ({
    ...tuple,
    source: tuple.destination,
    destination: tuple.source,
    sourcePort: tuple.destinationPort,
    destinationPort: tuple.sourcePort,
  });
  const model = new Map<string, FlowIndex>();
  const tuples = new Map<FlowIndex, Tuple>();
  const randomTuple = (): Tuple => ({
    network: 1 + next(3),
    version: next(2) === 0 ? 4 : 6,
    protocol: next(2) === 0 ? 6 : 17,
    source: next(4),
    destination: -1 - next(4),
    sourcePort: 1 + next(3),
    destinationPort: 65535 - next(3),
  });
  for (let step = 0; step < 20_000; step++) {
    const tuple = next(2) === 0 ? randomTuple() : mirrored(randomTuple());
    const up = model.get(key(tuple));
    const down = model.get(key(mirrored(tuple)));
    const expected = up !== undefined ? up * 2 : down !== undefined ? down * 2 + 1 : -1;
    assert.equal(table.lookup(tuple.network, view, packetOf(tuple)), expected);
    if (expected >= 0 && next(2) === 0) {
      const flow = expected >> 1;
      table.remove(flow);
      model.delete(key(tuples.get(flow) as Tuple));
      tuples.delete(flow);
    } else if (expected < 0 && table.count < 64) {
      const flow = table.insert(opening({ network: tuple.network }), view, packetOf(tuple));
      model.set(key(tuple), flow);
      tuples.set(flow, tuple);
    }
    assert.equal(table.count, model.size);
  }
  for (const [flow, tuple] of tuples) {
    assert.equal(table.network(flow), tuple.network);
    assert.equal(table.version(flow), tuple.version);
    assert.equal(table.sourcePort(flow), tuple.sourcePort);
    table.writeAddresses(flow, view, 0);
    assert.equal(view.getInt32(tuple.version === 4 ? 4 : 28), tuple.destination);
  }
});

test('equal tuples of two networks are two flows', () => {
  const table = new FlowTable<string>(LIMITS, [3, 4]);
  const first = open(table, {}, UDP);
  assert.equal(table.lookup(2, view, packetOf(UDP)), -1);
  const second = open(table, { account: 2 }, { ...UDP, network: 2 });
  assert.notEqual(first, second);
  assert.equal(table.lookup(1, view, packetOf(UDP)), first * 2);
  assert.equal(table.lookup(2, view, packetOf(UDP, true)), second * 2 + 1);
});

test('what is written for a flow is read back and leaves its neighbours alone', () => {
  const table = new FlowTable<string>(LIMITS, [5, 6]);
  const a = open(table, { ingress: 65535, number: 7, createdAt: 1.7e12, route: 3 }, UDP);
  const b = open(table, { ingress: 2 }, { ...UDP, sourcePort: 1001 });
  table.decide(a, FlowAction.Reject, 26);
  table.setTcpState(a, 0xff);
  table.setEgress(a, 65534);
  table.setHandle(a, 12);
  table.touch(a, 1, 1500, 10);
  assert.deepEqual(
    [table.action(a), table.detail(a), table.tcpState(a), table.ingress(a), table.egress(a), table.handle(a)],
    [FlowAction.Reject, 26, 0xff, 65535, 65534, 12],
  );
  assert.deepEqual([...table.counters.subarray(a * 4, a * 4 + 4)], [0, 0, 1, 1500]);
  assert.deepEqual([table.numberOf(a), table.createdAt(a), table.route(a)], [7, 1.7e12, 3]);
  assert.deepEqual([table.action(b), table.ingress(b), table.egress(b), table.handle(b)], [0, 2, 0, -1]);
  table.decide(a, FlowAction.Drop);
  assert.deepEqual([table.action(a), table.detail(a), table.tcpState(a)], [FlowAction.Drop, 0, 0xff]);
});

test('a reused slot starts with nothing of the flow before', () => {
  const table = new FlowTable<string>(LIMITS, [7, 8]);
  const flow = open(table, { ingress: 9, route: 4 }, UDP);
  table.touch(flow, 0, 100, 5);
  table.setHandle(flow, 3);
  table.cold[flow] = 'mine';
  table.remove(flow);
  assert.equal(table.isLive(flow), false);
  assert.equal(table.cold[flow], null);
  assert.equal(open(table, { ingress: 1 }, { ...UDP, version: 6 }), flow);
  assert.deepEqual([...table.counters.subarray(flow * 4, flow * 4 + 4)], [0, 0, 0, 0]);
  assert.deepEqual([table.handle(flow), table.action(flow), table.route(flow)], [-1, 0, 0]);
});

test('when the table is full the account with most flows loses its most idle one', () => {
  const table = new FlowTable<string>({ ...LIMITS, flowsMax: 16 }, [9, 10]);
  const big: FlowIndex[] = [];
  for (let i = 0; i < 12; i++) big.push(open(table, { account: 1 }, { ...UDP, sourcePort: 1000 + i }));
  for (let i = 0; i < 4; i++) open(table, { account: 2 }, { ...UDP, network: 2, sourcePort: 2000 + i });
  for (const flow of big) table.touch(flow, 0, 1, flow === big[5] ? 10 : 9000);
  const victim = table.room(2, 10_000);
  assert.equal(victim, big[5]);
  assert.equal(table.account(victim), 1);
});

test('an account below its fair share never loses a flow, whatever the others do', () => {
  const next = random(7);
  const table = new FlowTable<string>({ ...LIMITS, flowsMax: 120, flowsPerAccountMax: 120 }, [11, 12]);
  const small: FlowIndex[] = [];
  for (let i = 0; i < 10; i++) small.push(open(table, { account: 1 }, { ...UDP, sourcePort: 100 + i }));
  let evicted = 0;
  for (let i = 0; i < 5000; i++) {
    const account = 2 + next(5);
    const tuple = { ...UDP, network: account, sourcePort: 1 + (i % 60_000), destination: i };
    const before = table.count;
    const share = table.capacity / 6;
    const room = table.room(account, i * 50);
    if (room >= 0) {
      evicted++;
      assert.ok(table.countOf(table.account(room)) >= share, 'the victim has its fair share at least');
      table.remove(room);
    }
    if (room >= HAS_ROOM)
      table.insert(opening({ account, network: account, now: i * 50 }), view, packetOf(tuple));
    assert.ok(table.count >= before);
  }
  assert.ok(evicted > 1000);
  for (const flow of small) assert.equal(table.account(flow), 1);
  assert.equal(table.countOf(1), 10);
});

test('an account at its limit trades an idle flow for a new one, and is refused while all are active', () => {
  const table = new FlowTable<string>({ ...LIMITS, flowsPerAccountMax: 4 }, [13, 14]);
  for (let i = 0; i < 4; i++) open(table, { now: 5000 }, { ...UDP, sourcePort: 1 + i });
  const other = open(table, { account: 2, network: 2 }, { ...UDP, network: 2 });
  assert.equal(table.room(1, 5000), -DropReason.AccountFlowLimit);
  const victim = table.room(1, 5000 + EVICTION_IDLE_MS_MIN);
  assert.equal(table.account(victim), 1);
  assert.notEqual(victim, other);
});

test('the largest account cannot push out its own active flows when the table is full', () => {
  const table = new FlowTable<string>({ ...LIMITS, flowsMax: 16 }, [15, 16]);
  for (let i = 0; i < 16; i++) open(table, { now: 100 }, { ...UDP, sourcePort: 1 + i });
  assert.equal(table.room(1, 100), -DropReason.FlowTableFull);
  assert.ok(table.room(2, 100) >= 0);
});

test('flows expire after the silence that protocol and state allow, with bounded work per call', () => {
  const table = new FlowTable<string>(LIMITS, [17, 18]);
  const tcp = { ...UDP, protocol: 6 };
  const established = TcpBit.SynUp | TcpBit.SynDown | TcpBit.Established;
  const cases: readonly [number, number, number][] = [
    [6, TcpBit.SynUp, LIMITS.tcpHandshakeMs],
    [6, established, LIMITS.tcpIdleMs],
    [6, established | TcpBit.FinUp, LIMITS.tcpIdleMs],
    [6, established | TcpBit.FinUp | TcpBit.FinDown, LIMITS.tcpClosingMs],
    [6, established | TcpBit.RstDown, 10_000],
    [17, 0, LIMITS.udpIdleMs],
    [1, 0, LIMITS.icmpIdleMs],
    [47, 0, LIMITS.otherIdleMs],
  ];
  const flows = cases.map(([protocol, tcpState], at) =>
    open(table, { tcpState }, { ...tcp, protocol, sourcePort: 1 + at }),
  );
  for (const [at, [, , timeout]] of cases.entries()) {
    const expired: FlowIndex[] = [];
    table.expire(timeout - 1, 100, { onExpired: (flow) => expired.push(flow) });
    assert.ok(!expired.includes(flows[at] as number), `case ${at} lives until its time`);
    expired.length = 0;
    table.expire(timeout, 100, { onExpired: (flow) => expired.push(flow) });
    assert.ok(expired.includes(flows[at] as number), `case ${at} ends in time`);
  }
  let seen = 0;
  table.expire(1e9, 3, { onExpired: () => seen++ });
  assert.ok(seen <= 3);
  seen = 0;
  for (let i = 0; i < 3; i++) table.expire(1e9, 3, { onExpired: () => seen++ });
  assert.ok(seen >= flows.length, 'a few calls go once round');
});

test('expiring flows may be removed from inside the sweep', () => {
  const table = new FlowTable<string>(LIMITS, [19, 20]);
  for (let i = 0; i < 200; i++) open(table, {}, { ...UDP, sourcePort: 1 + i });
  for (let i = 0; i < 10; i++) table.expire(1e9, 64, { onExpired: (flow) => table.remove(flow) });
  assert.equal(table.count, 0);
});

test('idle times are right when the clock passes 2^31 and 2^32 milliseconds', () => {
  for (const start of [2 ** 31 - 5, 2 ** 32 - 5]) {
    const table = new FlowTable<string>(LIMITS, [1, 1]);
    const flow = open(table, { now: start }, UDP);
    assert.equal(table.idleMs(flow, start + 10), 10);
  }
});

test('a snapshot moves all flows into a new table with another seed, and life goes on there', () => {
  const old = new FlowTable<string>(LIMITS, [21, 22]);
  const next = random(99);
  const tuples: Tuple[] = [];
  for (let i = 0; i < 200; i++) {
    tuples.push({ ...UDP, version: i % 3 === 0 ? 6 : 4, network: 1 + (i % 5), sourcePort: 1 + i });
  }
  const flows = tuples.map((tuple, i) =>
    open(old, { number: i + 1, now: 1000 + i, account: 1 + (i % 2), createdAt: i }, tuple),
  );
  for (const flow of flows) {
    old.decide(flow, FlowAction.Forward);
    old.setEgress(flow, 3);
    old.touch(flow, 0, 40, 2000);
  }
  const gone = new Set(flows.filter(() => next(4) === 0));
  for (const flow of gone) old.remove(flow);

  const { header, buffers } = old.snapshot(2500);
  const moved = JSON.parse(JSON.stringify(header)) as typeof header;
  const fresh = new FlowTable<string>(LIMITS, [777, 888]);
  fresh.restore({ header: moved, buffers: buffers.map((buffer) => buffer.slice()) }, 100);

  assert.equal(fresh.count, old.count);
  assert.equal(fresh.countOf(1), old.countOf(1));
  for (const [i, tuple] of tuples.entries()) {
    const flow = flows[i] as number;
    const expected = gone.has(flow) ? -1 : flow * 2 + 1;
    assert.equal(fresh.lookup(tuple.network, view, packetOf(tuple, true)), expected);
    if (expected < 0) continue;
    assert.equal(fresh.numberOf(flow), i + 1);
    assert.equal(fresh.egress(flow), 3);
    assert.equal(fresh.idleMs(flow, 100), 500);
    assert.equal(fresh.counters[flow * 4 + 1], 40);
  }
  const room = LIMITS.flowsMax - fresh.count;
  for (let i = 0; i < room; i++)
    open(fresh, {}, { ...UDP, version: i % 2 === 0 ? 6 : 4, sourcePort: 30_000 + i });
  assert.equal(fresh.count, LIMITS.flowsMax);
  for (const [i, tuple] of tuples.entries()) {
    const flow = flows[i] as number;
    if (gone.has(flow)) continue;
    assert.equal(fresh.lookup(tuple.network, view, packetOf(tuple)), flow * 2);
    fresh.remove(flow);
  }
});
