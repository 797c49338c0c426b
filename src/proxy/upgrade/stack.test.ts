import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { namespaceSupport } from '#io/namespace.ts';
import { until } from '#proxy/tunnel/test-host.ts';

import {
  addClient,
  BULK_BYTES,
  DOWN_DIGEST,
  openStackWorld,
  runBulk,
  startServer,
  type StackWorld,
  type StackWorldOptions,
} from './stack-test-world.ts';

const support = await namespaceSupport();
const skip = support.device === 'none' ? support.message : false;
const options = { skip, timeout: 60_000 };

async function start(t: TestContext, with_: StackWorldOptions = {}): Promise<StackWorld> {
  const world = await openStackWorld(with_);
  t.after(() => world.host.stop());
  return world;
}

for (const address of ['203.0.113.9', '2001:db8::9']) {
  for (const offload of [true, false]) {
    const how = offload ? 'in super-packets' : 'in packets of its MTU';
    test(
      `a flow to ${address} that comes ${how} is a stream with the client's own destination`,
      options,
      async (t) => {
        const world = await start(t);
        await startServer(world);
        const { namespace } = await addClient(world, { offload });
        const result = await runBulk(namespace, address, 8080);
        assert.equal(result.received, result.sent, result.line);
        assert.deepEqual([result.downBytes, result.downDigest], [BULK_BYTES, DOWN_DIGEST]);
        const [stream] = world.handler.streams;
        assert.deepEqual(stream?.destination, { address, port: 8080 });
        assert.equal(stream?.source.address, address.includes(':') ? 'fd00::2' : '10.0.0.2');
        assert.equal(stream?.context.vnet, 'prod');
        assert.equal(stream?.route, 'sockets');
        await until('the flow said goodbye', () => world.handler.ended === 1);
        assert.deepEqual(world.handler.errors, []);
      },
    );
  }
}
