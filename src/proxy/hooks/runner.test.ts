import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RampartError } from '#base/error.ts';
import { type LimitsConfig, limitsConfig } from '#config/limits.ts';
import type { FlowRecord } from '#contract/record.ts';
import type { Limits } from '#proxy/proxy-contract.ts';
import { Counter, createStats } from '#proxy/stats.ts';

import type { EgressInfo, FlowInfo, Hooks, RequestInfo, StreamInfo, TunnelInfo } from './hooks.ts';
import { HookRunner } from './runner.ts';

const FLOW = {} as FlowInfo;
const STREAM = {} as StreamInfo;
const REQUEST = {} as RequestInfo;
const EGRESS = {} as EgressInfo;

// The config's limits are the data plane's: this fails to compile when one has a name that the other lacks.
const LIMITS: Limits = limitsConfig({}) satisfies LimitsConfig;

/** Hooks as a careless, untyped application could write them. */
function runner(hooks: Record<string, unknown>, hookMs = LIMITS.hookMs) {
  const stats = createStats();
  const failures: string[] = [];
  const run = new HookRunner(hooks as Hooks, {
    stats,
    limits: { hookMs },
    offRamps: new Set(['origin', 'sockets']),
    onFailure: (hook, error) => failures.push(`${hook}: ${error.message}`),
  });
  return { run, counters: stats.counters, failures };
}

function isHookFailure(pattern: RegExp) {
  return (error: unknown) =>
    error instanceof RampartError && error.code === 'RAMP_HOOK_FAILED' && pattern.test(error.message);
}

test('an absent hook is null, so that it costs nothing', () => {
  const { run } = runner({});
  for (const hook of [
    run.tunnel,
    run.flow,
    run.stream,
    run.session,
    run.request,
    run.response,
    run.egress,
    run.end,
  ]) {
    assert.equal(hook, null);
  }
});

test('a verdict at once stays at once, a promise is passed on as one', async () => {
  const { run, counters } = runner({
    flow: () => ({ action: 'upgrade', to: 'http' }),
    stream: async () => ({ action: 'splice', via: 'sockets' }),
    request: () => undefined,
  });
  assert.deepEqual(run.flow?.(FLOW), { action: 'upgrade', to: 'http' });
  const later = run.stream?.(STREAM);
  assert.ok(later instanceof Promise);
  assert.deepEqual(await later, { action: 'splice', via: 'sockets' });
  assert.equal(run.request?.(REQUEST), undefined);
  assert.equal(counters[Counter.HookCalls], 3);
  assert.equal(counters[Counter.HookErrors], 0);
});

test('a hook is called on its own object', () => {
  const hooks = { limit: 7, flow: (): unknown => undefined };
  hooks.flow = function (this: { limit: number }) {
    return { action: 'drop', reason: String(this.limit) };
  };
  assert.deepEqual(runner(hooks).run.flow?.(FLOW), { action: 'drop', reason: '7' });
});

test('a hook that throws fails its one flow and is counted and reported once', async () => {
  const { run, counters, failures } = runner({
    flow: () => {
      throw new Error('no database');
    },
    stream: () => Promise.reject(new Error('no network')),
  });
  assert.throws(() => run.flow?.(FLOW), isHookFailure(/the flow hook threw: no database/));
  await assert.rejects(async () => run.stream?.(STREAM), isHookFailure(/the stream hook threw: no network/));
  assert.equal(counters[Counter.HookErrors], 2);
  assert.deepEqual(failures, [
    'flow: the flow hook threw: no database',
    'stream: the stream hook threw: no network',
  ]);
});

test('a hook that overruns its time fails, and its late answer changes nothing', async () => {
  const gate = Promise.withResolvers<unknown>();
  const { run, counters, failures } = runner({ stream: () => gate.promise }, 1);
  await assert.rejects(
    async () => run.stream?.(STREAM),
    isHookFailure(/did not answer within 1ms \(limits\.hook\)/),
  );
  assert.equal(counters[Counter.HookTimeouts], 1);
  gate.resolve({ action: 'nonsense' });
  await gate.promise;
  assert.equal(failures.length, 1);
});

test('a promise where a verdict is due at once fails, and its rejection ends nothing', async () => {
  const { run } = runner({
    flow: () => Promise.reject(new Error('late')),
    egress: async () => ({ action: 'direct' }),
  });
  assert.throws(() => run.flow?.(FLOW), isHookFailure(/flow hook answered with a promise/));
  assert.throws(() => run.egressNow?.(EGRESS), isHookFailure(/egress hook answered with a promise/));
  assert.deepEqual(await run.egress?.(EGRESS), { action: 'direct' });
});

test('what is not a verdict of the union is refused, and says what was expected', () => {
  const cases: readonly [
    hook: 'flow' | 'session' | 'request' | 'response' | 'egress' | 'tunnel',
    unknown,
    RegExp,
  ][] = [
    ['flow', null, /is null; expected a verdict/],
    ['flow', 'drop', /is a string/],
    ['flow', {}, /has no action; expected one of drop, reject, forward, upgrade/],
    ['flow', { action: 'froward' }, /has the action "froward".*did you mean "forward"/],
    ['flow', { action: 'constructor' }, /has the action "constructor"/],
    ['flow', { action: 'forward', via: 'sokets' }, /names the off-ramp "sokets".*did you mean "sockets"/],
    ['flow', { action: 'reject', with: 'rst' }, /has a with that does not fit/],
    ['flow', { action: 'upgrade', to: 'h2' }, /expected stream or http/],
    ['session', { action: 'splice' }, /expected one of reject, relay/],
    ['session', { action: 'relay', to: { host: 'a b', port: 1 } }, /without a usable host/],
    ['session', { action: 'relay', to: { host: 'a', port: 0 } }, /without a usable port/],
    ['request', { action: 'block' }, /has no reason/],
    ['request', { action: 'block', reason: 'a\r\nb: c' }, /has a reason that does not fit/],
    ['request', { action: 'answer', status: 101 }, /has no usable status/],
    ['request', { action: 'answer', status: 200, fields: { 'a b': 'c' } }, /has the field "a b"/],
    ['request', { action: 'answer', status: 200, fields: { a: 'b\r\nc: d' } }, /value of the field a/],
    ['request', { action: 'answer', status: 200, fields: { a: 'b\u010dc' } }, /value of the field a/],
    ['request', { action: 'answer', status: 200, body: 7 }, /has a body that is a number/],
    ['request', { action: 'redirect', location: 'a\nb' }, /has a location that does not fit/],
    ['request', { action: 'redirect', location: '/', status: 200 }, /301, 302, 303, 307 or 308/],
    ['request', { action: 'forward', path: '/a b' }, /has a path that does not fit/],
    ['request', { action: 'forward', path: '/a#b' }, /has a path that does not fit/],
    ['request', { action: 'forward', method: 'GET /' }, /has a method that does not fit/],
    ['request', { action: 'forward', authority: 'a b' }, /has a authority that does not fit/],
    ['request', { action: 'forward', transformBody: true }, /has a transformBody that does not fit/],
    ['response', { action: 'forward', status: 99 }, /has a status that does not fit/],
    ['egress', { action: 'block' }, /has no reason/],
    ['tunnel', { action: 'accept' }, /has no context/],
  ];
  for (const [hook, verdict, pattern] of cases) {
    const { run } = runner({ [hook]: () => verdict });
    const call = run[hook] as (info: unknown) => unknown;
    assert.throws(() => call({} as TunnelInfo), isHookFailure(pattern), `${hook} ${JSON.stringify(verdict)}`);
  }
});

test('every verdict of the union is let through', () => {
  const cases: readonly [hook: 'flow' | 'session' | 'request' | 'response' | 'egress' | 'tunnel', unknown][] =
    [
      ['flow', { action: 'drop' }],
      ['flow', { action: 'reject', with: 'unreachable', reason: 'gone' }],
      ['flow', { action: 'forward', via: 'origin' }],
      ['session', { action: 'relay', to: { host: '10.0.0.1', port: 53 }, via: 'sockets' }],
      ['request', { action: 'forward', path: '/a?b=%20', method: 'POST', authority: 'a.example:80' }],
      ['request', { action: 'forward', path: '*' }],
      ['request', { action: 'answer', status: 204, fields: { 'x-a': '1' }, body: new Uint8Array(1) }],
      ['request', { action: 'redirect', location: 'https://a.example/', status: 308 }],
      ['request', { action: 'block', reason: 'not allowed', status: 451 }],
      ['response', { action: 'forward', status: 200, transformBody: (chunk: unknown) => chunk }],
      ['egress', { action: 'direct', source: 'fd00::1' }],
      ['tunnel', { action: 'accept', context: { account: 'a', vnet: 'b' } }],
      ['tunnel', { action: 'refuse', reason: 'unknown peer' }],
    ];
  for (const [hook, verdict] of cases) {
    const { run } = runner({ [hook]: () => verdict });
    assert.equal((run[hook] as (info: unknown) => unknown)({}), verdict);
  }
});

test('a failing end hook reaches nobody but the report', () => {
  const { run, failures, counters } = runner({
    end: () => {
      throw new Error('disk full');
    },
  });
  run.end?.({} as FlowRecord);
  assert.deepEqual(failures, ['end: the end hook threw: disk full']);
  assert.equal(counters[Counter.HookErrors], 1);
});

test('a failing start hook starts nothing', async () => {
  const { run } = runner({ start: () => Promise.reject(new Error('no licence')) });
  await assert.rejects(run.start({}, undefined), {
    code: 'RAMP_HOOKS',
    message: /start hook failed: no licence/,
  });
});
