import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';

import { lacksPrograms, runProgram } from '#testing/program.ts';

import { DETECT_BYTES_MAX, detectProtocol } from './detect.ts';

function detect(bytes: Uint8Array): string {
  const padded = Buffer.concat([Buffer.from('..'), bytes, Buffer.alloc(4, 0xa5)]);
  return detectProtocol(padded, 2, bytes.length);
}

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

/** What a program says first to a server that keeps silent. */
async function firstBytes(command: string, args: (port: number) => readonly string[]): Promise<Buffer> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const said = new Promise<Buffer>((resolve) => {
    server.on('connection', (socket) => {
      socket.on('error', () => {});
      socket.once('data', (bytes: Buffer) => {
        resolve(bytes);
        socket.destroy();
      });
    });
  });
  const ran = runProgram(command, args((server.address() as AddressInfo).port));
  const bytes = await said;
  await ran;
  server.close();
  return bytes;
}

test('knows real clients', { skip: lacksPrograms('curl', 'openssl', 'ssh', 'dig') }, async () => {
  const at = (port: number): string => `127.0.0.1:${port}`;
  const clients: readonly [string, string, (port: number) => readonly string[]][] = [
    ['http1', 'curl', (port) => ['-s', `http://${at(port)}/`]],
    ['http2', 'curl', (port) => ['-s', '--http2-prior-knowledge', `http://${at(port)}/`]],
    ['tls', 'curl', (port) => ['-sk', `https://${at(port)}/`]],
    ['tls', 'openssl', (port) => ['s_client', '-connect', at(port), '-tls1_2']],
    ['postgresql', 'openssl', (port) => ['s_client', '-connect', at(port), '-starttls', 'postgres']],
    ['mqtt', 'curl', (port) => ['-s', `mqtt://${at(port)}/topic`]],
    ['ssh', 'ssh', (port) => ['-p', `${port}`, '-o', 'BatchMode=yes', '-F', 'none', '127.0.0.1']],
    [
      'dns',
      'dig',
      (port) => ['+tcp', '+tries=1', '+retry=0', '-p', `${port}`, '@127.0.0.1', 'www.example.test'],
    ],
  ];
  for (const [protocol, command, args] of clients) {
    assert.equal(detect(await firstBytes(command, args)), protocol, `${command} ${args(0).join(' ')}`);
  }
});

const SAMPLES: readonly (readonly [string, Buffer])[] = [
  ['tls', hex('16 03 01 02 00 01 00 01 fc 03 03')],
  ['http1', latin1('GET / HTTP/1.1\r\n')],
  ['http1', latin1('OPTIONS * HTTP/1.1')],
  ['http1', latin1('GET http://a/ HTTP/1.1')],
  ['http1', latin1('CONNECT [::1]:443 HTTP/1.1')],
  ['http1', latin1('M-SEARCH * HTTP/1.1')],
  ['http1', latin1('PRIX / HTTP/1.1')],
  ['http2', latin1('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0')],
  ['ssh', latin1('SSH-2.0-OpenSSH_9.2\r\n')],
  ['dns', hex('001d 1234 0120 0001 0000 0000 0001 03 777777 00 0001 0001')],
  ['rdp', hex('03 00 00 2b 26 e0 00 00 00 00 00')],
  ['mqtt', Buffer.concat([hex('10 10 00 04'), latin1('MQTT'), hex('04 02 00 3c 00 04')])],
  ['mqtt', Buffer.concat([hex('10 90 01 00 06'), latin1('MQIsdp')])],
  ['postgresql', hex('00 00 00 08 04 d2 16 2f')],
  ['postgresql', hex('00 00 00 29 00 03 00 00')],
];

test('knows a protocol as soon as it can be no other, and never changes its mind', () => {
  for (const [protocol, bytes] of SAMPLES) {
    let last = 'more';
    for (let length = 0; length <= bytes.length; length++) {
      const found = detect(bytes.subarray(0, length));
      if (last !== 'more') assert.equal(found, last, `${protocol} at ${length}`);
      last = found;
    }
    assert.equal(last, protocol);
  }
});

test('everything is decided within a few bytes', () => {
  for (const [, bytes] of SAMPLES) {
    const long = Buffer.concat([bytes, Buffer.alloc(DETECT_BYTES_MAX)]).subarray(0, DETECT_BYTES_MAX);
    assert.notEqual(detect(long), 'more');
  }
  assert.equal(detect(Buffer.alloc(DETECT_BYTES_MAX, 0x41)), 'other');
});

test('what only looks like one of them is other', () => {
  for (const bytes of [
    latin1('get / HTTP/1.1'),
    latin1('GET \x01'),
    latin1(`${'A'.repeat(30)} /`),
    latin1(' / HTTP/1.1'),
    latin1('-GET / HTTP/1.1'),
    latin1('PRI * HTTP/2.1\r\n'),
    hex('16 03 01 00 04 02'),
    hex('16 03 09'),
    hex('17 03 03'),
    hex('001d 1234 8180 0001 0000 0000 0001 03'), // a DNS response
    hex('001d 1234 0120 0002 0000 0000 0001 03'), // two questions
    hex('001d 1234 0120 0001 0000 0000 0001 c0'), // a pointer
    hex('03 00 00 2b 26 d0'),
    hex('10 ff ff ff ff'),
    hex('10 06 00 04 4d 51 54 53'),
    hex('00 00 00 08 00 02 00 00'),
    hex('05 01 00'),
  ]) {
    const answer = detect(bytes);
    assert.ok(answer === 'other' || bytes.length < 4, `${bytes.toString('hex')}: ${answer}`);
  }
  assert.equal(detect(hex('05 01 00 00')), 'more');
});
