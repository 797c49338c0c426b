import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Limits } from '#proxy/proxy-contract.ts';

import { Await, Due, ExchangeClock } from './http-exchange-clock.ts';

const LIMITS = { headMs: 10, bodyIdleMs: 100, continueMs: 20, responseMs: 200 } as Limits;

function begun(): ExchangeClock {
  const clock = new ExchangeClock();
  clock.begin(1000);
  return clock;
}

test('a head has one total time, whatever comes meanwhile', () => {
  const clock = begun();
  clock.clientAt = 1009;
  assert.equal(clock.due(1009, LIMITS, Await.RequestHead), Due.Nothing);
  assert.equal(clock.due(1010, LIMITS, Await.RequestHead), Due.ClientSlow);
});

test('a body is silent when a window brings too few bytes', () => {
  const clock = begun();
  clock.bodyBytes = 255;
  assert.equal(clock.due(1099, LIMITS, Await.RequestBody), Due.Nothing);
  assert.equal(clock.due(1100, LIMITS, Await.RequestBody), Due.ClientSlow);
  clock.bodyBytes = 256;
  assert.equal(clock.due(1100, LIMITS, Await.RequestBody), Due.Nothing);
  assert.equal(clock.bodyBytes, 0);
  assert.equal(clock.due(1200, LIMITS, Await.RequestBody), Due.ClientSlow);
});

test('the time of a body does not run while the upstream has no room for it', () => {
  const clock = begun();
  clock.upstreamAt = 1900;
  assert.equal(clock.due(1950, LIMITS, Await.UpstreamTakes), Due.Nothing);
  assert.equal(clock.due(1990, LIMITS, Await.RequestBody), Due.Nothing);
  assert.equal(clock.due(2000, LIMITS, Await.UpstreamTakes), Due.UpstreamSlow);
});

test('each side that takes or sends nothing is found', () => {
  assert.equal(begun().due(1099, LIMITS, Await.ClientTakes), Due.Nothing);
  assert.equal(begun().due(1100, LIMITS, Await.ClientTakes), Due.ClientStalled);
  assert.equal(begun().due(1100, LIMITS, Await.ResponseBody), Due.UpstreamSlow);
  assert.equal(begun().due(1199, LIMITS, Await.ResponseHead), Due.Nothing);
  assert.equal(begun().due(1200, LIMITS, Await.ResponseHead), Due.UpstreamSlow);
});

test('a client that waits for 100 is told so in time', () => {
  assert.equal(begun().due(1019, LIMITS, Await.Continue), Due.Nothing);
  assert.equal(begun().due(1020, LIMITS, Await.Continue), Due.Continue);
});

test('a half-closed client is taken for gone when nothing comes for it in five seconds', () => {
  const clock = begun();
  const patient = { ...LIMITS, responseMs: 60_000 };
  clock.halfClosedAt = 1500;
  assert.equal(clock.due(6499, patient, Await.ResponseHead), Due.Nothing);
  assert.equal(clock.due(6500, patient, Await.ResponseHead), Due.ClientGone);
});
