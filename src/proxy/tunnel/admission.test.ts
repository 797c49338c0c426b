import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { parsePrefix } from '#base/ip.ts';
import type { TunnelVerdict } from '#proxy/hooks/hooks.ts';

import {
  Admission,
  type Admitted,
  isRefusal,
  type Refusal,
  specOf,
  type TunnelFunction,
} from './admission.ts';

const onRamp = { name: 'edge', sources: [parsePrefix('10.0.0.0/8')!] };
const networkOf = (account: string, vnet: string): number => (account === 'acme' && vnet === 'prod' ? 3 : 0);

function admit(blob: string | Uint8Array, hook: TunnelFunction | null = null) {
  const admission = new Admission({ hook, networkOf, contextBytesMax: 512 });
  return admission.admit(typeof blob === 'string' ? Buffer.from(blob) : blob, onRamp);
}

function accepted(answer: Admitted | Refusal | Promise<Admitted | Refusal>): Admitted {
  assert.ok(!(answer instanceof Promise));
  assert.ok(!isRefusal(answer), JSON.stringify(answer));
  return answer;
}

function refused(answer: Admitted | Refusal | Promise<Admitted | Refusal>): Refusal {
  assert.ok(!(answer instanceof Promise));
  assert.ok(isRefusal(answer), 'was let in');
  return answer;
}

test('a JSON context names account, vnet, identity, labels and sources', () => {
  const blob = {
    account: 'acme',
    vnet: 'prod',
    user: 'ann',
    device: 'd1',
    groups: ['staff'],
    labels: { site: 'kiel' },
    sources: ['100.64.0.7', 'fd00::/64'],
  };
  const { context, network } = accepted(admit(JSON.stringify(blob)));
  assert.equal(network, 3);
  assert.deepEqual(context.identity, { user: 'ann', device: 'd1', groups: ['staff'] });
  assert.equal(context.onRamp, 'edge');
  assert.deepEqual({ ...context.labels }, { site: 'kiel' });
  assert.deepEqual(JSON.parse(JSON.stringify(specOf(context))), {
    ...blob,
    sources: ['100.64.0.7/32', 'fd00::/64'],
  });
});

test("without sources the on-ramp's own apply, with an empty list none do", () => {
  assert.deepEqual(accepted(admit('{"account":"acme","vnet":"prod"}')).context.sources, onRamp.sources);
  assert.deepEqual(accepted(admit('{"account":"acme","vnet":"prod","sources":[]}')).context.sources, []);
  assert.equal(accepted(admit('{"account":"acme","vnet":"prod"}')).context.identity, null);
});

test('what is not exactly a context is refused with its fault', () => {
  const faults: [blob: string | Uint8Array, text: RegExp, drop?: number][] = [
    ['', /empty/],
    ['{"account":"acme","vnet":"prod"', /truncated/],
    ['x', /not JSON/],
    [Uint8Array.of(0x22, 0xff, 0x22), /not JSON/],
    ['[]', /not an object/],
    ['null', /not an object/],
    ['{"vnet":"prod"}', /no account/],
    ['{"account":"acme"}', /no vnet/],
    ['{"account":"","vnet":"prod"}', /account is not a name/],
    ['{"account":"acme","vnet":"prod","sources":["10.0.0.1/33"]}', /not a prefix/],
    ['{"account":"acme","vnet":"prod","groups":[1]}', /groups are not/],
    ['{"account":"acme","vnet":"dev"}', /no network dev of account acme/, DropReason.NetworkUnknown],
    [`{"account":"acme","vnet":"${'p'.repeat(600)}"}`, /expected at most 512/, DropReason.ContextTooLong],
  ];
  for (const [blob, text, drop] of faults) {
    const answer = refused(admit(blob));
    assert.match(answer.refused, text);
    assert.equal(answer.drop, drop ?? DropReason.BadContext);
  }
});

test("the application's hook reads any format, may wait, and may leave it to JSON", async () => {
  const hook: TunnelFunction = ({ blob, json, onRamp: name }) => {
    const text = Buffer.from(blob).toString();
    if (json !== undefined) return undefined;
    assert.equal(name, 'edge');
    const verdict: TunnelVerdict = {
      action: 'accept',
      context: { account: 'acme', vnet: 'prod', extension: { text } },
    };
    return text === 'later' ? Promise.resolve(verdict) : verdict;
  };
  assert.deepEqual(accepted(admit('now', hook)).context.extension, { text: 'now' });
  const late = await admit('later', hook);
  assert.ok(!isRefusal(late));
  assert.equal(accepted(admit('{"account":"acme","vnet":"prod"}', hook)).network, 3);
});

test('the application part of a context is not taken from a peer', () => {
  const { context } = accepted(admit('{"account":"acme","vnet":"prod","extension":{"admin":true}}'));
  assert.equal(context.extension, undefined);
});

test('a hook that refuses, throws, rejects or names no context is a refusal', async () => {
  assert.match(refused(admit('x', () => ({ action: 'refuse', reason: 'late' }))).refused, /refused: late/);
  const failing: TunnelFunction[] = [
    () => {
      throw new Error('boom');
    },
    () => Promise.reject(new Error('boom')),
    () => ({ action: 'maybe' }) as unknown as TunnelVerdict,
    async () => ({ action: 'maybe' }) as unknown as TunnelVerdict,
    async () => null as unknown as TunnelVerdict,
    () => ({ action: 'accept' }) as unknown as TunnelVerdict,
  ];
  for (const hook of failing) {
    const answer = await admit('x', hook);
    assert.ok(isRefusal(answer));
    const expected: number[] = [DropReason.HookFailed, DropReason.BadContext];
    assert.ok(expected.includes(answer.drop), String(answer.drop));
  }
});
