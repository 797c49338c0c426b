import assert from 'node:assert/strict';
import type { NetworkInterfaceInfo } from 'node:os';
import { test } from 'node:test';

import { type IpPrefix, parseIp, parsePrefix } from '#base/ip.ts';

import { RuledGuard } from './target-guard.ts';

const OWN = [{ address: '192.0.2.10' }, { address: 'fe80::1%eth0' }, { address: '2001:db8::10' }];

function guard(allowed: readonly string[] = [], ports = [{ first: 1, last: 65535 }]): RuledGuard {
  const addresses = allowed.map((text) => parsePrefix(text) as IpPrefix);
  const interfaces = () => ({ eth0: OWN as NetworkInterfaceInfo[] });
  return new RuledGuard({ onRamp: 'test', addresses, ports }, () => 1, interfaces);
}

function refuse(rules: RuledGuard, address: string, port = 80): string | null {
  return rules.refuse(parseIp(address) as Uint8Array, port);
}

test('special addresses are refused in all their clothes', () => {
  for (const address of [
    '127.0.0.1',
    '127.255.0.9',
    '0.0.0.0',
    '0.1.2.3',
    '169.254.169.254',
    '100.100.100.200',
    '224.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    '::127.0.0.1',
    '::ffff:127.0.0.1',
    '::ffff:169.254.169.254',
    '64:ff9b::7f00:1',
    '64:ff9b::a9fe:a9fe',
    '64:ff9b::',
    '2002:7f00:1::',
    'fe80::5',
    'fd00:ec2::254',
    'ff02::1',
  ]) {
    assert.notEqual(refuse(guard(), address), null, address);
  }
});

test("this host's own addresses are refused", () => {
  for (const address of ['192.0.2.10', '::ffff:192.0.2.10', '2001:db8::10', '64:ff9b::c000:20a']) {
    assert.match(refuse(guard(), address) ?? '', /this host itself/, address);
  }
});

test('all other addresses are allowed, private ones too', () => {
  for (const address of [
    '192.0.2.11',
    '10.0.0.1',
    '100.64.0.1',
    '2001:db8::11',
    'fd00::1',
    '64:ff9b::a00:1',
  ]) {
    assert.equal(refuse(guard(), address), null, address);
  }
});

test('what is allowed by name is allowed, and nothing beside it', () => {
  const rules = guard(['127.0.0.1/32', '192.0.2.10/32', '::1/128']);
  for (const address of ['127.0.0.1', '::ffff:127.0.0.1', '192.0.2.10', '::1']) {
    assert.equal(refuse(rules, address), null, address);
  }
  assert.notEqual(refuse(rules, '127.0.0.2'), null);
});

test('ports are ranges', () => {
  const rules = guard(
    [],
    [
      { first: 80, last: 80 },
      { first: 1024, last: 65535 },
    ],
  );
  assert.equal(refuse(rules, '10.0.0.1', 80), null);
  assert.equal(refuse(rules, '10.0.0.1', 65535), null);
  assert.match(refuse(rules, '10.0.0.1', 25) ?? '', /port 25/);
  assert.match(refuse(rules, '10.0.0.1', 1023) ?? '', /port 1023/);
});
