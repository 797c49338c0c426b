import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  formatIp,
  formatPrefix,
  formatSocketAddress,
  parseIp,
  parsePrefix,
  parseSocketAddress,
  prefixContains,
  unmapIp,
} from './ip.ts';

test('IPv6 text is written in the form of RFC 5952', () => {
  const cases = [
    ['2001:0db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['::ffff:192.0.2.1', '::ffff:c000:201'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ];
  for (const [given, expected] of cases) {
    assert.equal(formatIp(parseIp(given as string) as Uint8Array), expected);
  }
});

test('what is not an address is null', () => {
  for (const text of ['', '1.2.3', '01.2.3.4', '1.2.3.4.5', 'fe80::1%eth0', ':::', 'x', '1.2.3.256']) {
    assert.equal(parseIp(text), null, text);
  }
});

test('prefixes mask their host bits and know what they contain', () => {
  const prefix = parsePrefix('10.1.2.3/20');
  assert.ok(prefix);
  assert.equal(formatPrefix(prefix), '10.1.0.0/20');
  assert.ok(prefixContains(prefix, parseIp('10.1.15.255') as Uint8Array));
  assert.ok(!prefixContains(prefix, parseIp('10.1.16.0') as Uint8Array));
  assert.ok(!prefixContains(prefix, parseIp('::a01:1') as Uint8Array));
  const all = parsePrefix('::/0');
  assert.ok(all && prefixContains(all, parseIp('ff02::1') as Uint8Array));
});

test('malformed prefixes are null', () => {
  for (const text of ['10.0.0.0/33', '10.0.0.0/-1', '10.0.0.0/08', '::/129', '10.0.0.0/', '/8']) {
    assert.equal(parsePrefix(text), null, text);
  }
});

test('socket addresses are read and written back', () => {
  for (const text of ['10.0.0.1:80', '[fd00::1]:443', 'unix:/run/x.sock', 'unix:@abstract']) {
    const address = parseSocketAddress(text);
    assert.ok(address, text);
    assert.equal(formatSocketAddress(address), text);
  }
  assert.deepEqual(parseSocketAddress(':8080'), { family: 6, address: '::', port: 8080 });
  for (const text of ['10.0.0.1', '10.0.0.1:70000', '[10.0.0.1]:1', 'fd00::1:80', 'host:80', 'unix:']) {
    assert.equal(parseSocketAddress(text), null, text);
  }
});

test('an IPv4-mapped address gives its four bytes and no other address changes', () => {
  assert.equal(formatIp(unmapIp(parseIp('::ffff:10.0.0.1') as Uint8Array)), '10.0.0.1');
  assert.equal(formatIp(unmapIp(parseIp('1::ffff:a00:1') as Uint8Array)), '1::ffff:a00:1');
});
