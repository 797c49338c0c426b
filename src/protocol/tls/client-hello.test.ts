import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { after, before, test } from 'node:test';

import { lacksPrograms, runProgram } from '#testing/program.ts';

import {
  CLIENT_HELLO_BYTES_MAX,
  type ClientHello,
  ClientHelloFault,
  ExtensionType,
  highestVersion,
  isGrease,
  parseClientHello,
} from './client-hello.ts';

// --- hellos of programs that this project did not write ---------------------------------------------------

const server = createServer();
/** What the client that is connected next says first, until it has said a whole hello. */
let arrived: (bytes: Buffer) => void = () => {};

before(async () => {
  server.on('connection', (socket: Socket) => {
    const chunks: Buffer[] = [];
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      const all = Buffer.concat(chunks);
      if (parseClientHello(all, 0, all.length) === ClientHelloFault.Incomplete) return;
      arrived(all);
      socket.destroy();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});

after(() => server.close());

/** The hello of a program that is started with the port to connect to. */
async function helloOf(command: string, args: (port: number) => readonly string[]): Promise<Buffer> {
  const hello = new Promise<Buffer>((resolve) => {
    arrived = resolve;
  });
  const ran = runProgram(command, args((server.address() as AddressInfo).port));
  const bytes = await hello;
  await ran;
  return bytes;
}

function parsed(bytes: Uint8Array): ClientHello {
  const result = parseClientHello(bytes, 0, bytes.length);
  assert.ok(typeof result !== 'number', `fault ${result}`);
  return result;
}

test("reads curl's hello", { skip: lacksPrograms('curl') }, async () => {
  const bytes = await helloOf('curl', (port) => [
    '-sk',
    '--http2',
    '--connect-to',
    `Www.Example.test:443:127.0.0.1:${port}`,
    'https://Www.Example.test/',
  ]);
  const hello = parsed(bytes);
  assert.equal(hello.serverName, 'www.example.test');
  assert.deepEqual(hello.alpn, ['h2', 'http/1.1']);
  assert.equal(highestVersion(hello), 0x0304);
  assert.equal(hello.streamBytes, bytes.length);
  assert.ok(hello.cipherSuites.includes(0x1301) && hello.keyShares.length > 0);
});

test('reads a hello that OpenSSL cut into records', { skip: lacksPrograms('openssl') }, async () => {
  const names = Array.from({ length: 60 }, (_, index) => `protocol-number-${index}`);
  const bytes = await helloOf('openssl', (port) => [
    's_client',
    ...['-connect', `127.0.0.1:${port}`, '-servername', 'a.test', '-alpn', names.join(',')],
    ...['-max_send_frag', '512'],
  ]);
  const hello = parsed(bytes);
  assert.ok(hello.recordCount >= 2, `${hello.recordCount} records`);
  assert.equal(hello.serverName, 'a.test');
  assert.deepEqual(hello.alpn, names);
});

test('reads a hello of TLS 1.2 without a name', { skip: lacksPrograms('openssl') }, async () => {
  const hello = parsed(
    await helloOf('openssl', (port) => [
      's_client',
      ...['-connect', `127.0.0.1:${port}`, '-noservername', '-tls1_2'],
    ]),
  );
  assert.equal(hello.serverName, null);
  assert.deepEqual([hello.alpn, hello.versions, hello.keyShares], [[], [], []]);
  assert.equal(highestVersion(hello), 0x0303);
});

// --- made-up hellos ---------------------------------------------------------------------------------------

function u16(value: number): number[] {
  return [value >>> 8, value & 0xff];
}

function vector16(bytes: readonly number[]): number[] {
  return [...u16(bytes.length), ...bytes];
}

function ascii(text: string): number[] {
  return [...Buffer.from(text, 'latin1')];
}

function extension(type: number, data: readonly number[]): number[] {
  return [...u16(type), ...vector16(data)];
}

function serverName(name: string): number[] {
  return extension(ExtensionType.ServerName, vector16([0, ...vector16(ascii(name))]));
}

/** The handshake message with these extensions; null leaves the block out. */
function message(extensions: readonly number[] | null): number[] {
  const body = [3, 3, ...new Array<number>(32).fill(7), 2, 1, 2, ...vector16([0x13, 1, 0x1a, 0x1a]), 1, 0];
  if (extensions !== null) body.push(...vector16(extensions));
  return [1, 0, ...u16(body.length), ...body];
}

/** A message in records of at most `size` bytes. */
function records(bytes: readonly number[], size = 16_384): Uint8Array {
  const out: number[] = [];
  for (let at = 0; at < bytes.length; at += size) {
    out.push(22, 3, 1, ...vector16(bytes.slice(at, at + size)));
  }
  return Uint8Array.from(out);
}

function fault(bytes: Uint8Array): unknown {
  const result = parseClientHello(bytes, 0, bytes.length);
  return typeof result === 'number' ? result : 'hello';
}

test('a hello means the same however it is cut into records, down to single bytes', () => {
  const whole = message([
    ...serverName('api.example.test.'),
    ...extension(ExtensionType.Alpn, vector16([2, ...ascii('h2')])),
  ]);
  const once = parsed(records(whole));
  assert.equal(once.serverName, 'api.example.test');
  for (const size of [1, 2, 3, 4, 5, 40, whole.length - 1]) {
    const { streamBytes, recordCount, ...facts } = parsed(records(whole, size));
    assert.deepEqual({ ...facts, streamBytes: once.streamBytes, recordCount: 1 }, once, `${size}`);
    assert.equal(recordCount, Math.ceil(whole.length / size));
    assert.equal(streamBytes, whole.length + 5 * recordCount);
  }
});

test('every beginning of a hello is incomplete, and bytes behind it are left alone', () => {
  for (const size of [16_384, 7]) {
    const bytes = records(message(serverName('a.test')), size);
    for (let length = 0; length < bytes.length; length++) {
      assert.equal(parseClientHello(bytes, 0, length), ClientHelloFault.Incomplete, `${length}`);
    }
    const more = Uint8Array.from([9, ...bytes, 20, 3, 3, 0, 1, 1]);
    const hello = parseClientHello(more, 1, more.length - 1);
    assert.ok(typeof hello !== 'number' && hello.streamBytes === bytes.length);
  }
});

test('the block of extensions may be absent, and nothing may stand behind it', () => {
  assert.deepEqual(parsed(records(message(null))).extensions, []);
  const longer = message([]);
  longer.push(0);
  longer[3] = (longer[3] as number) + 1;
  assert.equal(fault(records(longer)), ClientHelloFault.Malformed);
});

test('says what else the bytes are', () => {
  assert.equal(fault(Buffer.from('GET / HTTP/1.1')), ClientHelloFault.NotTls);
  assert.equal(fault(Uint8Array.of(22, 2, 0)), ClientHelloFault.NotTls);
  assert.equal(fault(Uint8Array.of(22, 3, 1, 0, 0)), ClientHelloFault.BadRecord);
  assert.equal(fault(Uint8Array.of(22, 3, 1, 0x40, 1)), ClientHelloFault.BadRecord);
  assert.equal(fault(Uint8Array.of(22, 3, 1, 0, 4, 2, 0, 0, 0)), ClientHelloFault.NotClientHello);
  assert.equal(fault(Uint8Array.of(22, 3, 1, 0, 1, 2)), ClientHelloFault.NotClientHello);
  assert.equal(fault(Uint8Array.of(22, 3, 1, 0, 4, 1, 1, 0, 0)), ClientHelloFault.TooLong);
  // Another record type before the message is whole: an alert.
  const first = records(message(null), 20).slice(0, 25);
  assert.equal(fault(Uint8Array.from([...first, 21, 3, 1, 0, 2, 1, 0])), ClientHelloFault.BadRecord);
  // A second message in the same record.
  assert.equal(fault(records([...message(null), 1, 0, 0, 0])), ClientHelloFault.Malformed);
});

test('a message that never ends is given up at the limit', () => {
  const length = CLIENT_HELLO_BYTES_MAX - 4;
  const endless = records([1, 0, ...u16(length), ...new Array<number>(length).fill(0)], 1000);
  assert.equal(fault(endless), ClientHelloFault.Malformed);
  assert.equal(fault(endless.slice(0, -1)), ClientHelloFault.Incomplete);
  assert.equal(fault(records([1, 0, ...u16(length + 1)], 1)), ClientHelloFault.TooLong);
});

test('refuses what could be read in two ways', () => {
  const twice = [...serverName('a.test'), ...serverName('b.test')];
  assert.equal(fault(records(message(twice))), ClientHelloFault.DuplicateExtension);
  const names = [0, ...vector16(ascii('a.test')), 0, ...vector16(ascii('b.test'))];
  assert.equal(fault(records(message(extension(0, vector16(names))))), ClientHelloFault.Malformed);
  const behind = extension(0, [...vector16([0, ...vector16(ascii('a.test'))]), 0]);
  assert.equal(fault(records(message(behind))), ClientHelloFault.Malformed);
  const notLast = [...extension(ExtensionType.PreSharedKey, [0]), ...serverName('a.test')];
  assert.equal(fault(records(message(notLast))), ClientHelloFault.Malformed);
});

test('refuses server names that are no host names', () => {
  for (const name of [
    'a b',
    'a\0.test',
    'a..test',
    '.',
    '::1',
    'a/b',
    'é.test',
    '-a',
    `${'a'.repeat(64)}.test`,
  ]) {
    assert.equal(fault(records(message(serverName(name)))), ClientHelloFault.BadServerName, name);
  }
  assert.equal(fault(records(message(serverName('')))), ClientHelloFault.Malformed);
  assert.equal(parsed(records(message(serverName('_x.A-b.test')))).serverName, '_x.a-b.test');
});

test('lists that need elements have some', () => {
  for (const [type, data] of [
    [ExtensionType.Alpn, [0, 0]],
    [ExtensionType.Alpn, [0, 1, 0]],
    [ExtensionType.SupportedVersions, [0]],
    [ExtensionType.SupportedVersions, [3, 3, 4, 3]],
    [ExtensionType.SupportedGroups, [0, 0]],
    [ExtensionType.KeyShare, [0, 4, 0, 29, 0, 0]],
    [ExtensionType.ServerName, []],
  ] as const) {
    assert.equal(
      fault(records(message(extension(type, data)))),
      ClientHelloFault.Malformed,
      `${type} ${data}`,
    );
  }
});

test('knows the values that mean nothing', () => {
  assert.ok(isGrease(0x0a0a) && isGrease(0xfafa));
  assert.ok(!isGrease(0x0a1a) && !isGrease(0x1301) && !isGrease(0x0304));
  const hello = parsed(records(message(extension(ExtensionType.SupportedVersions, [4, 0x7a, 0x7a, 3, 3]))));
  assert.equal(highestVersion(hello), 0x0303);
});
