import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { IpTunnel } from '#proxy/proxy-contract.ts';

import { TunnelFigure, TunnelRegistry, TUNNELS_MAX } from './tunnel-registry.ts';

/** A tunnel that only has an index and a state. */
function tunnelOf(index: number): IpTunnel {
  const state = { kind: 'device', fd: 7, state: { mtu: 1500 } };
  return { index, name: `t${index}`, describe: () => state } as unknown as IpTunnel;
}

test('a freed index rests while there are fresh ones', () => {
  const registry = new TunnelRegistry();
  const first = registry.reserve();
  registry.attach(tunnelOf(first));
  registry.release(first);
  const seen = new Set<number>();
  for (let i = 0; i < 255; i++) {
    const index = registry.reserve();
    seen.add(index);
    registry.release(index);
  }
  assert.ok(!seen.has(first) && !seen.has(0));
  assert.equal(registry.count, 0);
});

test('the number of tunnels is limited, and a released index can be had again', () => {
  const registry = new TunnelRegistry();
  for (let i = 0; i < TUNNELS_MAX; i++) registry.reserve();
  assert.throws(() => registry.reserve(), { code: 'RAMP_LIMIT' });
  registry.release(77);
  assert.equal(registry.reserve(), 77);
});

test('the figures of a tunnel start at zero for the next one with its index', () => {
  const registry = new TunnelRegistry();
  const index = registry.reserve();
  registry.countIn(index, 100);
  registry.countOut(index, 40);
  registry.countDrop(index, TunnelFigure.DropsOut);
  assert.deepEqual(registry.figures(index), {
    packetsIn: 1,
    bytesIn: 100,
    packetsOut: 1,
    bytesOut: 40,
    dropsIn: 0,
    dropsOut: 1,
  });
  registry.release(index);
  for (let i = 1; i < TUNNELS_MAX; i++) registry.reserve();
  assert.equal(registry.reserve(), index);
  assert.equal(registry.figures(index).bytesIn, 0);
});

test('adopted tunnels keep index and figures, and new ones stay clear of them', () => {
  const before = new TunnelRegistry();
  const indexes = [before.reserve(), before.reserve(), before.reserve()] as const;
  for (const index of indexes) before.attach(tunnelOf(index));
  before.countIn(indexes[2], 9);
  before.release(indexes[0]);
  const states = JSON.parse(JSON.stringify(before.describe())) as ReturnType<typeof before.describe>;
  assert.deepEqual(
    states.map((state) => state.index),
    [indexes[1], indexes[2]],
  );
  const after = new TunnelRegistry();
  for (const state of states) {
    assert.equal(after.reserve(state), state.index);
    after.attach(tunnelOf(state.index));
  }
  assert.equal(after.figures(indexes[2]).bytesIn, 9);
  assert.ok(!indexes.slice(1).includes(after.reserve()));
  assert.throws(() => after.reserve(states[0]), /adopted twice/);
});
