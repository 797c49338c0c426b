import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { formatPrefix } from '#base/ip.ts';

import {
  type ContextRefusal,
  isContextRefusal,
  makeContext,
  parseContextBlob,
  unreadableContext,
} from './context.ts';

const GOOD = {
  account: 'acme',
  vnet: 'production',
  user: 'ada',
  device: 'laptop',
  groups: ['dev'],
  labels: { site: 'berlin' },
  sources: ['100.64.0.7', 'fd00::/8'],
};

function reasonOf(spec: unknown): string {
  const outcome = makeContext(spec, 'gateways');
  assert.ok(isContextRefusal(outcome), 'it was accepted');
  assert.equal(outcome.drop, DropReason.BadContext);
  return outcome.reason;
}

test('a whole context is taken over, typed', () => {
  const context = makeContext(GOOD, 'gateways');
  assert.ok(!isContextRefusal(context));
  assert.equal(context.account, 'acme');
  assert.equal(context.vnet, 'production');
  assert.equal(context.onRamp, 'gateways');
  assert.deepEqual(context.identity, { user: 'ada', device: 'laptop', groups: ['dev'] });
  assert.equal(context.labels.site, 'berlin');
  assert.deepEqual(context.sources.map(formatPrefix), ['100.64.0.7/32', 'fd00::/8']);
});

test('account and vnet suffice; then nobody is known and no source is allowed', () => {
  const context = makeContext({ account: 'a', vnet: 'v' }, 'x');
  assert.ok(!isContextRefusal(context));
  assert.equal(context.identity, null);
  assert.equal(context.sources.length, 0);
});

test("only the application's part can be changed afterwards", () => {
  const context = makeContext(GOOD, 'gateways');
  assert.ok(!isContextRefusal(context));
  context.extension = { risk: 3 };
  assert.deepEqual(context.extension, { risk: 3 });
  assert.throws(() => {
    (context as { account: string }).account = 'other';
  }, TypeError);
  assert.throws(() => {
    (context as unknown as Record<string, unknown>).more = 1;
  }, TypeError);
  assert.throws(() => (context.sources as unknown[]).push(1), TypeError);
  assert.throws(() => (context.identity as unknown as { groups: string[] }).groups.push('admin'), TypeError);
});

test('what is missing or malformed is refused with its reason', () => {
  assert.match(reasonOf({ vnet: 'v' }), /has no account/);
  assert.match(reasonOf({ account: 'a' }), /has no vnet/);
  assert.match(reasonOf({ ...GOOD, account: '' }), /account is not a name/);
  assert.match(reasonOf({ ...GOOD, account: 'a/b' }), /account is not a name/);
  assert.match(reasonOf({ ...GOOD, vnet: 7 }), /vnet is not a name/);
  assert.match(reasonOf({ ...GOOD, user: 7 }), /user is not a text/);
  assert.match(reasonOf({ ...GOOD, user: 'a\nb' }), /user is not a text/);
  assert.match(reasonOf({ ...GOOD, groups: 'dev' }), /groups are not a list/);
  assert.match(reasonOf({ ...GOOD, groups: Array(1001).fill('g') }), /groups are not a list/);
  assert.match(reasonOf({ ...GOOD, labels: [] }), /labels are not/);
  assert.match(reasonOf({ ...GOOD, labels: { a: 'x\r\n' } }), /labels are not/);
  assert.match(reasonOf({ ...GOOD, sources: ['10.0.0.0/33'] }), /source 0 is not a prefix/);
  assert.match(reasonOf({ ...GOOD, sources: ['10.0.0.0/8', null] }), /source 1 is not a prefix/);
  assert.match(reasonOf([]), /not an object/);
  assert.match(reasonOf(undefined), /not an object/);
});

test('names of the prototype in a context reach nothing', () => {
  const context = makeContext(JSON.parse('{"account":"a","vnet":"v","labels":{"__proto__":"x"}}'), 'x');
  assert.ok(!isContextRefusal(context));
  assert.equal(Object.getPrototypeOf(context.labels), null);
  assert.equal(({} as Record<string, unknown>).x, undefined);
});

test('a blob is read as JSON, within its limit', () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  assert.deepEqual(parseContextBlob(bytes('{"a":1}'), 100), { json: { a: 1 } });
  assert.deepEqual(parseContextBlob(bytes('PSK 17'), 100), { json: undefined });
  assert.deepEqual(parseContextBlob(Uint8Array.of(0x22, 0xff, 0x22), 100), { json: undefined });
  const long = parseContextBlob(bytes(' '.repeat(101)), 100) as ContextRefusal;
  assert.equal(long.drop, DropReason.ContextTooLong);
  assert.match(long.reason, /101 bytes; expected at most 100/);
});

test('a blob that nobody can read says whether it was cut off', () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  assert.match(unreadableContext(bytes('{"account":"ac')).reason, /truncated/);
  assert.match(unreadableContext(bytes('hello')).reason, /not JSON/);
  assert.match(unreadableContext(bytes('')).reason, /empty/);
});
