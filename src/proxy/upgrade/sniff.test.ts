import assert from 'node:assert/strict';
import { test } from 'node:test';

import { sniffHttp } from './sniff.ts';

function sniff(text: string): string {
  const bytes = Buffer.from(`..${text}`, 'latin1');
  return sniffHttp(bytes, 2, bytes.length - 2);
}

test('request lines of every target form are HTTP', () => {
  for (const line of [
    'GET / HTTP/1.1\r\n',
    'OPTIONS * HTTP/1.1',
    'GET http://a/ HTTP/1.1',
    'CONNECT [::1]:443 HTTP/1.1',
    'M-SEARCH * HTTP/1.1',
    'POST /x',
  ]) {
    assert.equal(sniff(line), 'http', line);
  }
});

test('other protocols are not HTTP', () => {
  for (const line of [
    'SSH-2.0-OpenSSH_9.2\r\n',
    '\x16\x03\x01\x02\x00\x01\x00',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'get / HTTP/1.1',
    ' GET / HTTP/1.1',
    '\r\n',
    'GET  / HTTP/1.1',
    'AVERYLONGWORDTHATISNOMETHODATALL / ',
  ]) {
    assert.equal(sniff(line), 'other', line);
  }
});

test('every proper beginning of a request line asks for more', () => {
  const line = 'DELETE /';
  for (let length = 0; length < line.length; length++) assert.equal(sniff(line.slice(0, length)), 'unknown');
  assert.equal(sniff(line), 'http');
});
