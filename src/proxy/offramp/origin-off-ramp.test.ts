/** Origins of one service as real listeners, dialled by the real engine. */
import assert from 'node:assert/strict';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { test } from 'node:test';

import { RampartError } from '#base/error.ts';
import { limitsConfig } from '#config/limits.ts';
import { DEFAULT_UPSTREAM, type UpstreamConfig } from '#config/upstream.ts';
import type { Target } from '#contract/context.ts';
import { openEngine } from '#io/engine.ts';
import type { Fd, Io } from '#io/io.ts';
import type { DialPlan, DialRequest, Worker } from '#proxy/proxy-contract.ts';
import { createStats } from '#proxy/stats.ts';

import { OffRampDialer } from './dialer.ts';
import { OriginOffRamp } from './origin-off-ramp.ts';

/** Two origins, the dialer over them, and what was opened. */
class World {
  readonly io: Io = openEngine({});
  readonly servers: Server[] = [];
  readonly accepted = [0, 0];
  readonly #open: Fd[] = [];
  offRamp!: OriginOffRamp;
  dialer!: OffRampDialer;

  static async open(upstream: Partial<UpstreamConfig>): Promise<World> {
    const world = new World();
    const origins: Target[] = [];
    for (const index of [0, 1]) {
      const server = createServer((socket) => {
        world.accepted[index] = (world.accepted[index] as number) + 1;
        socket.on('error', () => {});
        socket.resume();
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      world.servers.push(server);
      origins.push({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
    }
    const worker = {
      io: world.io,
      stats: createStats(),
      limits: limitsConfig({}),
      tracer: { enabled: false },
    } as unknown as Worker;
    const config = { ...DEFAULT_UPSTREAM, ...upstream };
    world.offRamp = new OriginOffRamp(worker, { name: 'web', origins, upstream: config, random: () => 0 });
    const offRamps = new Map([['web', world.offRamp]]);
    world.dialer = new OffRampDialer(worker, { offRamps, route: () => 'web', egress: null });
    return world;
  }

  plan(source = '10.0.0.1'): DialPlan {
    const request = {
      context: { account: 'a', vnet: 'v', identity: null, labels: {} },
      network: 1,
      flow: 1,
      layer: 'http',
      source: { address: source, port: 1 },
      destination: { address: '192.0.2.1', port: 80 },
      target: null,
      via: null,
    } as unknown as DialRequest;
    return this.dialer.plan(request) as DialPlan;
  }

  async connect(plan = this.plan()): Promise<Fd> {
    const fd = await this.dialer.connect(plan);
    this.#open.push(fd);
    return fd;
  }

  async shut(index: number): Promise<void> {
    const server = this.servers[index] as Server;
    await new Promise((resolve) => server.close(resolve));
  }

  get connections(): number[] {
    return this.offRamp.balancer.origins.map(({ connections }) => connections);
  }

  async close(): Promise<void> {
    this.offRamp.close();
    for (const fd of this.#open) this.io.close(fd);
    for (const server of this.servers) if (server.listening) server.close();
    this.io.flush();
    await new Promise((resolve) => setImmediate(resolve));
    this.io.stop();
  }
}

async function within(
  upstream: Partial<UpstreamConfig>,
  run: (world: World) => Promise<void>,
): Promise<void> {
  const world = await World.open(upstream);
  try {
    await run(world);
  } finally {
    await world.close();
  }
}

test('connections go to each origin in turn, and are counted until they are closed', async () => {
  await within({}, async (world) => {
    const first = await world.connect();
    await world.connect();
    await world.connect();
    assert.deepEqual(world.connections, [2, 1]);
    world.dialer.closed(first);
    world.dialer.closed(first);
    assert.deepEqual(world.connections, [1, 1]);
  });
});

test('an origin that cannot be reached is passed over, and ejected after some failures', async () => {
  await within({ failuresMax: 2 }, async (world) => {
    await world.shut(0);
    for (let i = 0; i < 5; i++) await world.connect();
    assert.deepEqual(world.connections, [0, 5]);
    const [bad] = world.offRamp.balancer.origins;
    assert.equal(bad?.ejections, 1);
  });
});

test('answers of 500 eject an origin that takes every connection', async () => {
  await within({ failuresMax: 3 }, async (world) => {
    const fds = [await world.connect(), await world.connect()];
    for (let i = 0; i < 3; i++) world.dialer.answered(fds[0] as Fd, 503);
    world.dialer.answered(fds[1] as Fd, 200);
    for (let i = 0; i < 4; i++) await world.connect();
    assert.deepEqual(world.connections, [1, 5]);
  });
});

test('equal requests of one client have plans for each origin in turn, made once', async () => {
  await within({}, async (world) => {
    const first = world.plan();
    const spread = [first.spread?.(), first.spread?.(), first.spread?.(), first.spread?.()] as DialPlan[];
    assert.deepEqual(
      spread.map(({ target }) => target === first.target),
      [false, true, false, true],
    );
    assert.equal(spread[0], spread[2]);
    assert.notEqual(spread[0]?.key, spread[1]?.key);
    await world.connect(spread[0]);
    await world.connect(spread[0]);
    assert.deepEqual(world.connections, [0, 2]);
  });
});

test('with source-hash a client keeps its origin, and pools are apart by origin', async () => {
  await within({ balance: 'source-hash' }, async (world) => {
    const plans = Array.from({ length: 40 }, (_, i) => world.plan(`10.0.0.${i}`));
    assert.equal(new Set(plans.map(({ target }) => target.port)).size, 2);
    assert.equal(new Set(plans.map(({ key }) => key)).size, 2);
    for (const plan of plans.slice(0, 4)) {
      await world.connect(plan);
      await world.connect(world.plan(`10.0.0.${plans.indexOf(plan)}`));
    }
    for (const count of world.connections) assert.equal(count % 2, 0, 'both of one client went to the same');
  });
});

test('beyond the limit of connections a request fails at once, until one is closed', async () => {
  await within({ connectionsMax: 1 }, async (world) => {
    const fd = await world.connect();
    await world.connect();
    await assert.rejects(world.connect(), isLimit);
    world.dialer.closed(fd);
    await world.connect();
  });
});

test('beyond the limit of pending connects a request fails at once', async () => {
  await within({ pendingMax: 1 }, async (world) => {
    const first = world.connect();
    await assert.rejects(world.connect(), isLimit);
    await first;
    await world.connect();
  });
});

test('a check finds a dead origin before any connection does', { timeout: 30_000 }, async () => {
  const check = { path: null, intervalMs: 5, timeoutMs: 5000, rise: 1, fall: 2 };
  await within({ check }, async (world) => {
    await world.shut(0);
    const [dead, alive] = world.offRamp.balancer.origins;
    while (dead?.up) await new Promise((resolve) => setImmediate(resolve));
    for (let i = 0; i < 3; i++) await world.connect();
    assert.deepEqual(world.connections, [0, 3]);
    assert.equal(alive?.up, true);
  });
});

test('when no origin can be reached the last failure is told', async () => {
  await within({}, async (world) => {
    await world.shut(0);
    await world.shut(1);
    await assert.rejects(
      world.connect(),
      (error) => error instanceof RampartError && error.code === 'RAMP_CONNECT',
    );
    assert.deepEqual(world.connections, [0, 0]);
  });
});

function isLimit(error: unknown): boolean {
  return error instanceof RampartError && error.code === 'RAMP_LIMIT';
}
