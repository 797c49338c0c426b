import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { CapturedPacket, TraceWatcher } from '#contract/agent.ts';
import type { TraceEvent } from '#contract/trace.ts';

import type { CapturePoint } from './proxy-contract.ts';
import { Counter, createStats } from './stats.ts';
import { TraceHub } from './trace.ts';

const EVENT: TraceEvent = {
  at: 1,
  flow: 1,
  stage: 'flow',
  account: 'acme',
  vnet: 'production',
  tuple: '10.0.0.1:4000 > 10.10.0.10:80 tcp',
  text: 'new flow',
};

const LAPTOP: CapturePoint = {
  name: 'laptop',
  context: {
    account: 'acme',
    vnet: 'production',
    identity: null,
    onRamp: 'laptop',
    labels: {},
    sources: [],
    extension: undefined,
  },
};

function world() {
  const stats = createStats();
  const memory = new Uint8Array(8192);
  const hub = new TraceHub({ memory, stats, wallClock: () => 1000.5 });
  return { stats, memory, hub };
}

class Collector implements TraceWatcher {
  readonly events: boolean;
  readonly packets: boolean;
  readonly gotEvents: TraceEvent[] = [];
  readonly gotPackets: CapturedPacket[] = [];
  lost = 0;
  calls = 0;
  ready = true;

  constructor(wants: { events?: boolean; packets?: boolean }) {
    this.events = wants.events ?? false;
    this.packets = wants.packets ?? false;
  }

  take(events: readonly TraceEvent[], packets: readonly CapturedPacket[], lost: number): boolean {
    this.calls++;
    this.gotEvents.push(...events);
    this.gotPackets.push(...packets);
    this.lost += lost;
    return this.ready;
  }
}

test('while nobody watches it is off and keeps nothing for a later watcher', () => {
  const { hub } = world();
  assert.equal(hub.enabled, false);
  hub.emit(EVENT);
  const late = new Collector({ events: true });
  const watch = hub.watch(late);
  assert.equal(hub.enabled, true);
  hub.flush();
  assert.equal(late.calls, 0);
  watch.stop();
  assert.equal(hub.enabled, false);
});

test('events reach every watcher in one batch per turn of the loop', async () => {
  const { hub } = world();
  const one = new Collector({ events: true });
  const two = new Collector({ events: true });
  hub.watch(one);
  hub.watch(two);
  hub.emit(EVENT);
  hub.emit({ ...EVENT, flow: 2 });
  assert.equal(one.calls, 0);
  await new Promise(setImmediate);
  assert.deepEqual(
    one.gotEvents.map(({ flow }) => flow),
    [1, 2],
  );
  assert.equal(one.calls, 1);
  assert.equal(two.gotEvents.length, 2);
});

test('a slow watcher loses the oldest events, is told how many, and delays no other', () => {
  const { hub, stats } = world();
  const slow = new Collector({ events: true });
  slow.ready = false;
  const quick = new Collector({ events: true });
  const watch = hub.watch(slow);
  hub.watch(quick);
  hub.emit(EVENT);
  hub.flush();
  for (let flow = 0; flow < 5000; flow++) {
    hub.emit({ ...EVENT, flow });
    if (flow % 1000 === 0) hub.flush();
  }
  hub.flush();
  assert.equal(slow.calls, 1);
  assert.equal(quick.gotEvents.length, 5001);
  assert.equal(quick.lost, 0);
  slow.ready = true;
  watch.resume();
  hub.flush();
  assert.equal(slow.lost, 5000 - 4096);
  assert.equal(slow.gotEvents.length, 1 + 4096);
  assert.equal(slow.gotEvents.at(-1)?.flow, 4999);
  assert.equal(stats.counters[Counter.TraceDropped], 5000 - 4096);
});

test('a packet is copied, cut at the capture length and says how long it was', () => {
  const { hub, memory } = world();
  const watcher = new Collector({ packets: true });
  hub.watch(watcher);
  memory[100] = 0x45;
  hub.packet('in', LAPTOP, 100, 40);
  memory[100] = 0;
  hub.packet('out', LAPTOP, 0, 5000);
  hub.emit(EVENT);
  hub.flush();
  const [first, second] = watcher.gotPackets;
  assert.equal(first?.bytes[0], 0x45);
  assert.equal(first?.bytes.length, 40);
  assert.equal(`${first?.account}/${first?.vnet} ${first?.tunnel}`, 'acme/production laptop');
  assert.equal(first?.at, 1_000_500);
  assert.equal(second?.bytes.length, 2048);
  assert.equal(second?.length, 5000);
  assert.equal(watcher.gotEvents.length, 0);
});
