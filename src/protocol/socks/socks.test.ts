import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  parseSocksCredentials,
  parseSocksDatagram,
  parseSocksGreeting,
  parseSocksRequest,
  SOCKS_DATAGRAM_HEADER_MAX,
  SocksFault,
  SocksReply,
  writeSocksDatagramHeader,
  writeSocksReply,
} from './socks.ts';

type Parser = (bytes: Uint8Array, at: number, length: number) => object | number;

function parse(parser: Parser, ...bytes: readonly (number | string)[]): object | number {
  const flat = bytes.flatMap((part) =>
    typeof part === 'string' ? [...Buffer.from(part, 'latin1')] : [part],
  );
  for (let length = 0; length < flat.length; length++) {
    const answer = parser(Uint8Array.from(flat), 0, length);
    assert.ok(typeof answer === 'number', `${length} of ${flat.length} bytes were enough`);
  }
  return parser(Uint8Array.of(9, ...flat), 1, flat.length);
}

test('reads greetings byte by byte', () => {
  assert.deepEqual(parse(parseSocksGreeting, 5, 2, 0, 2), { methods: [0, 2], length: 4 });
  assert.equal(parse(parseSocksGreeting, 4), SocksFault.Malformed);
  assert.equal(parse(parseSocksGreeting, 5, 0), SocksFault.Malformed);
});

test('reads names and passwords of up to 255 bytes', () => {
  const long = 'x'.repeat(255);
  assert.deepEqual(parse(parseSocksCredentials, 1, 255, long, 255, long), {
    user: long,
    password: long,
    length: 513,
  });
  assert.equal(parse(parseSocksCredentials, 5), SocksFault.Malformed);
  assert.equal(parse(parseSocksCredentials, 1, 0), SocksFault.Malformed);
  assert.equal(parse(parseSocksCredentials, 1, 1, 'a', 0), SocksFault.Malformed);
  assert.equal(parse(parseSocksCredentials, 1, 1, 0xff, 1, 'a'), SocksFault.Malformed);
});

test('reads requests with each type of address', () => {
  const request = (host: string, length: number, port = 443) => ({
    command: 1,
    target: { host, port },
    length,
  });
  assert.deepEqual(parse(parseSocksRequest, 5, 1, 0, 1, 10, 0, 0, 1, 1, 0xbb), request('10.0.0.1', 10));
  const six = [0x20, 1, 0x0d, 0xb8, ...new Array<number>(11).fill(0), 1];
  assert.deepEqual(parse(parseSocksRequest, 5, 1, 0, 4, ...six, 1, 0xbb), request('2001:db8::1', 22));
  const mapped = [...new Array<number>(10).fill(0), 0xff, 0xff, 127, 0, 0, 1];
  assert.deepEqual(parse(parseSocksRequest, 5, 1, 0, 4, ...mapped, 1, 0xbb), request('127.0.0.1', 22));
  assert.deepEqual(parse(parseSocksRequest, 5, 1, 0, 3, 9, 'App.Test.', 1, 0xbb), request('app.test', 16));
  assert.deepEqual(parse(parseSocksRequest, 5, 1, 0, 3, 3, '::1', 1, 0xbb), request('::1', 10));
});

test('refuses addresses that cannot be connected to', () => {
  for (const name of ['', 'a b', 'a\0b', 'a..b', '.', 'a/b', 'é', `${'a'.repeat(254)}`]) {
    const answer = parse(parseSocksRequest, 5, 1, 0, 3, Buffer.byteLength(name, 'latin1'), name, 1, 0xbb);
    assert.equal(answer, SocksFault.BadAddress, name);
  }
  assert.equal(parse(parseSocksRequest, 5, 1, 0, 1, 10, 0, 0, 1, 0, 0), SocksFault.BadAddress, 'port 0');
  assert.equal(parse(parseSocksRequest, 5, 1, 0, 2), SocksFault.AddressType);
  const associate = parse(parseSocksRequest, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0);
  assert.ok(typeof associate === 'object');
});

test('datagrams carry an address each, and their headers are read back', () => {
  for (const target of [
    { host: '192.0.2.1', port: 53 },
    { host: '2001:db8::1', port: 53 },
    { host: `${'a'.repeat(60)}.test`, port: 65535 },
  ]) {
    const header = writeSocksDatagramHeader(target);
    const packet = Uint8Array.of(...header, 1, 2, 3);
    const read = parseSocksDatagram(packet, 0, packet.length);
    assert.deepEqual(read, { fragment: 0, target, length: header.length });
    assert.ok(header.length <= SOCKS_DATAGRAM_HEADER_MAX);
  }
  assert.equal(parseSocksDatagram(Uint8Array.of(0, 1, 0, 1), 0, 4), SocksFault.Malformed);
  assert.equal(parseSocksDatagram(Uint8Array.of(0, 0, 0, 1, 1, 2), 0, 6), SocksFault.Incomplete);
});

test('replies have the form of RFC 1928 section 6', () => {
  assert.deepEqual([...writeSocksReply(SocksReply.ConnectionRefused)], [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
  const bound = writeSocksReply(SocksReply.Succeeded, { host: '127.0.0.1', port: 1080 });
  assert.deepEqual([...bound], [5, 0, 0, 1, 127, 0, 0, 1, 4, 56]);
});
