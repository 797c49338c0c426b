import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CloseReason } from '#contract/record.ts';
import { TcpFlag } from '#packet/parse.ts';

import { REFUSAL_MS } from './flow-table.ts';
import { icmpError, only, parse, setUp, udp, up } from './test-packets.ts';

const { Rst } = TcpFlag;

test('hook_rejected: drop is silent, reject answers as asked; the record has the reason', async (t) => {
  const answers = new Map([
    [81, { action: 'drop', reason: 'quiet' }],
    [82, { action: 'reject', with: 'reset' }],
    [83, { action: 'reject', with: 'prohibited' }],
    [84, { action: 'reject', with: 'unreachable' }],
  ] as const);
  let calls = 0;
  const { world, client, server } = setUp(t, {
    hooks: {
      flow: ({ source }) => {
        calls++;
        return answers.get(source.port as 81);
      },
    },
  });
  for (const port of answers.keys()) world.send(client, up({ port }));
  const [reset, prohibited, unreachable] = client.take() as [Uint8Array, Uint8Array, Uint8Array];
  assert.equal(parse(reset).packet.tcpFlags & Rst, Rst);
  assert.deepEqual([icmpError(prohibited).code, icmpError(unreachable).code], [13, 1]);
  assert.deepEqual(server.take(), []);
  world.send(client, up({ port: 81 }));
  assert.equal(calls, 4, 'the refusal is remembered');
  assert.deepEqual(world.drops, { hook_rejected: 5 });
  await world.clock.advance(REFUSAL_MS + 5000);
  assert.equal(world.records.length, 4);
  assert.ok(world.records.every(({ reason }) => reason === CloseReason.Policy));
  assert.ok(world.records.some(({ rule }) => rule.includes('quiet')));
  world.send(client, up({ port: 81 }));
  assert.equal(calls, 5, 'and asked again later');
});

test('hook_failed: a hook that throws ends its flow and no other', (t) => {
  const { world, client, server } = setUp(t, {
    hooks: {
      flow: ({ source }) => {
        if (source.port === 4001) throw new Error('oops');
        return undefined;
      },
    },
  });
  world.send(client, up({ port: 4000 }));
  world.send(client, up({ port: 4001 }));
  world.send(client, up({ port: 4002 }));
  assert.equal(server.take().length, 2);
  assert.deepEqual(world.drops, { hook_failed: 1 });
  assert.match(world.pipeline.summaries({ port: 4001 })[0]?.rule ?? '', /flow hook failed: oops/);
});

test('policy: the egress hook may block a flow or lead it elsewhere, and not change addresses', (t) => {
  const { world, client, server } = setUp(t, {
    hooks: {
      egressNow: ({ layer, target, via }) => {
        assert.deepEqual([layer, via], ['ip', 'office']);
        if (target.port === 1) return { action: 'block', reason: 'no telnet' };
        if (target.port === 2) return { action: 'direct', via: 'branch' };
        if (target.port === 3) return { action: 'direct', to: { host: '10.10.0.11', port: 3 } };
        return undefined;
      },
    },
  });
  const branch = world.tunnel('branch', []);
  world.leadTo('branch', branch);
  for (const port of [1, 2, 3, 4]) world.send(client, udp({ ports: [4000, port] }));
  assert.deepEqual(world.drops, { policy: 1, hook_failed: 1 });
  assert.deepEqual([branch.take().length, server.take().length], [1, 1]);
});

test('policy: an off-ramp that rejects answers as it says', (t) => {
  const { world, client } = setUp(t);
  world.ways.set('office', () => ({ kind: 'reject', with: 'reset' }));
  world.send(client, up());
  assert.equal(parse(only(client.take())).packet.tcpFlags & Rst, Rst);
  assert.deepEqual(world.drops, { policy: 1 });
});
