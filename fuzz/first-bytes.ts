/**
 * Fuzzes what reads the first bytes of connections: `node fuzz/first-bytes.ts`. What must hold for any bytes:
 * an answer and no exception, nothing read behind the given end, and the same answer when the bytes come in
 * pieces.
 */
import assert from 'node:assert/strict';

import { detectProtocol } from '#protocol/detect/detect.ts';
import { parseProxyHeader } from '#protocol/proxy-protocol/proxy-protocol.ts';
import { writeProxyV1, writeProxyV2 } from '#protocol/proxy-protocol/write.ts';
import {
  parseSocksCredentials,
  parseSocksDatagram,
  parseSocksGreeting,
  parseSocksRequest,
} from '#protocol/socks/socks.ts';
import { parseClientHello } from '#protocol/tls/client-hello.ts';

import { type Chance, type FuzzTarget, fuzzMain } from './fuzz.ts';

/** Answers a number for faults, 0 being "incomplete", or an object. */
type Parser = (bytes: Uint8Array, offset: number, length: number) => object | number;

/**
 * Checks a parser on some bytes. `fixed` says that a fault may not change when more bytes come, as it must
 * not for a parser whose answer ends a connection.
 */
function checkParser(parser: Parser, bytes: Uint8Array, chance: Chance): void {
  const before = chance.below(4);
  const room = new Uint8Array(before + bytes.length + 8);
  room.set(bytes, before);
  const answer = parser(room, before, bytes.length);
  // Other bytes behind the end change nothing.
  room.fill(0xa5, before + bytes.length);
  assert.deepEqual(parser(room, before, bytes.length), answer);
  const shorter = parser(room, before, chance.below(bytes.length + 1));
  if (typeof shorter === 'object') assert.deepEqual(answer, shorter, 'more bytes changed a whole message');
  else if (shorter !== 0) assert.equal(answer, shorter, 'more bytes changed a fault');
}

function clientHello(chance: Chance): Uint8Array {
  const extensions: number[] = [];
  const types = [0, 10, 13, 16, 35, 42, 43, 51, 0xfe0d, 41];
  for (const type of types) {
    if (chance.oneIn(2)) continue;
    const data = extensionData(type, chance);
    extensions.push(...u16(type), ...u16(data.length), ...data);
  }
  const suites = Array.from({ length: 2 * chance.between(1, 9) }, () => chance.below(256));
  const session = chance.bytes(chance.pick([0, 32]));
  const body = [
    3,
    3,
    ...chance.bytes(32),
    session.length,
    ...session,
    ...u16(suites.length),
    ...suites,
    1,
    0,
  ];
  body.push(...u16(extensions.length), ...extensions);
  const message = [1, 0, ...u16(body.length), ...body];
  const out: number[] = [];
  for (let at = 0; at < message.length; ) {
    const size = chance.oneIn(2) ? message.length - at : chance.between(1, 60);
    const fragment = message.slice(at, at + size);
    out.push(22, 3, 1, ...u16(fragment.length), ...fragment);
    at += size;
  }
  return Uint8Array.from(out);
}

function extensionData(type: number, chance: Chance): number[] {
  switch (type) {
    case 0:
      return [0, 9, 0, 0, 6, ...Buffer.from('a.test')];
    case 16:
      return [0, 3, 2, 0x68, 0x32];
    case 43:
      return [4, 3, 4, 3, 3];
    case 51:
      return [0, 5, 0, 29, 0, 1, chance.below(256)];
    case 10:
    case 13:
      return [0, 2, 0, 29];
    default:
      return [...chance.bytes(chance.below(20))];
  }
}

function proxyHeader(chance: Chance): Uint8Array {
  const announcement = {
    source: chance.pick([
      { address: '192.0.2.1', port: chance.below(65536) },
      { address: '2001:db8::1', port: 7 },
    ]),
    destination: { address: chance.pick(['198.51.100.1', '::1', 'name.test']), port: 443 },
    alpn: chance.pick(['h2', null]),
    authority: chance.pick(['a.test', null]),
    uniqueId: chance.bytes(chance.below(10)),
    context: chance.pick([null, { account: 'a' }]),
    checksum: chance.oneIn(4),
  };
  return chance.oneIn(3) ? writeProxyV1(announcement) : writeProxyV2(announcement);
}

function u16(value: number): [number, number] {
  return [value >>> 8, value & 0xff];
}

const BEGINNINGS: readonly (string | number[])[] = [
  'GET / HTTP/1.1\r\n',
  'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  'SSH-2.0-x\r\n',
  [0x16, 3, 1, 2, 0, 1, 0],
  [0, 29, 1, 2, 1, 32, 0, 1, 0, 0, 0, 0, 0, 1, 3, 119],
  [3, 0, 0, 43, 38, 0xe0],
  [0x10, 16, 0, 4, 0x4d, 0x51, 0x54, 0x54, 4],
  [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f],
];

function detectParser(bytes: Uint8Array, offset: number, length: number): number {
  const names = ['more', 'tls', 'http1', 'http2', 'ssh', 'dns', 'rdp', 'mqtt', 'postgresql', 'other'];
  return names.indexOf(detectProtocol(bytes, offset, length));
}

const SOCKS: readonly (readonly [Parser, string])[] = [
  [parseSocksGreeting, '\x05\x02\x00\x02'],
  [parseSocksCredentials, '\x01\x03ada\x06secret'],
  [parseSocksRequest, '\x05\x01\x00\x03\x06a.test\x01\xbb'],
  [parseSocksRequest, '\x05\x03\x00\x01\x0a\x00\x00\x01\x00\x35'],
  [parseSocksDatagram, '\x00\x00\x00\x01\x0a\x00\x00\x01\x00\x35hello'],
];

/** All targets of this file. */
export const FIRST_BYTES_TARGETS: Readonly<Record<string, FuzzTarget>> = {
  'client-hello': (chance) => checkParser(parseClientHello, chance.mutate(clientHello(chance)), chance),
  'proxy-header': (chance) => checkParser(parseProxyHeader, chance.mutate(proxyHeader(chance)), chance),
  socks: (chance) => {
    const [parser, bytes] = chance.pick(SOCKS);
    checkParser(parser, chance.mutate(Uint8Array.from(Buffer.from(bytes, 'latin1'))), chance);
  },
  detect: (chance) => {
    const bytes = chance.pick(BEGINNINGS);
    checkParser(detectParser, chance.mutate(Uint8Array.from(Buffer.from(bytes as string))), chance);
  },
};

if (import.meta.main) fuzzMain(FIRST_BYTES_TARGETS);
