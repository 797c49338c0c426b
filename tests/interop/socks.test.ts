/**
 * SOCKS 5 as curl speaks it, on a host of its own so that ports are free.
 *
 *   curl --socks5 ──► :1080 (anybody), :1081 (users) rampart ──► origin on 10.1.1.1, or nothing
 */
import assert from 'node:assert/strict';
import { randomBytes, scryptSync } from 'node:crypto';
import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, before, test } from 'node:test';

import { parseSocksDatagram, writeSocksDatagramHeader } from '#protocol/socks/socks.ts';
import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { Origin } from '#testing/origins.ts';
import { lacksPrograms } from '#testing/program.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { Hopeless, until } from '#testing/until.ts';

const skip = lacksHosts() || lacksPrograms('curl', 'socat', 'ip');
const HOST = 'machine';

function passwordHash(password: string): string {
  const salt = randomBytes(16);
  const hash = scryptSync(password, salt, 32, { N: 1024, r: 8, p: 1 });
  return `scrypt:10:${salt.toString('base64')}:${hash.toString('base64')}`;
}

const CONFIG = `
on_ramps:
  - { name: open, type: socks5, listen: "127.0.0.1:1080", allow: { addresses: [10.1.1.1/32] } }
  - name: users
    type: socks5
    listen: 127.0.0.1:1081
    allow: { addresses: [10.1.1.1/32], ports: [8000, 8009] }
    users: [{ name: ada, password_hash: "${passwordHash('love lace')}", groups: [staff] }]
  - name: sniffing
    type: socks5
    listen: 127.0.0.1:1082
    allow: { addresses: [10.1.1.1/32] }
    upgrade: sniff
off_ramps:
  - { name: out, type: sockets }
routes:
  - { on_ramp: open, via: out }
  - { on_ramp: users, via: out }
  - { on_ramp: sniffing, via: out }
limits: { connect: 2s, sniff: 500ms }
telemetry: { records: true }
`;

let hosts: Hosts;
let rampart: RampartProcess;

before(async () => {
  if (skip) return;
  hosts = await Hosts.open([HOST]);
  // The origin's address is this host's own, which the config allows by name.
  await hosts.sh(HOST, 'ip addr add 10.1.1.1/32 dev lo');
  await hosts.sh(HOST, 'ip route add unreachable 10.9.9.9/32');
  const services = ['http@8000', 'echo@8001', 'datagrams@8002', 'greeting@8003'] as const;
  await Origin.start('origin', services, { hosts, on: HOST });
  rampart = await RampartProcess.start({ config: CONFIG, hosts, on: HOST });
});

after(async () => {
  if (skip) return;
  await rampart.stop();
  await hosts.close();
});

interface Outcome {
  readonly code: number | null;
  readonly output: string;
  readonly errors: string;
}

async function curl(...args: readonly string[]): Promise<Outcome> {
  return await hosts.run(HOST, 'curl', ['-sS', '-m', '9', ...args]);
}

/** CURLE_PROXY: the SOCKS server said no; the text has the code. */
const CURLE_PROXY = 97;

test('CONNECT to an address and to a name', { skip }, async () => {
  const byAddress = await curl('--socks5', '127.0.0.1:1080', 'http://10.1.1.1:8000/hello');
  assert.match(byAddress.output, /origin GET \/hello/);
  // The name is resolved where the stream leaves: this one is an address in disguise for some resolvers.
  const literal = await curl('--socks5-hostname', '127.0.0.1:1080', 'http://10.1.1.1:8000/name');
  assert.match(literal.output, /origin GET \/name/);
});

test('large bodies come through whole', { skip }, async () => {
  const { output } = await curl(
    ...['--socks5', '127.0.0.1:1080', '-o', '/dev/null', '-w', '%{size_download}'],
    'http://10.1.1.1:8000/bytes/5000000',
  );
  assert.equal(output, '5000000');
});

test('every failure has its own reply', { skip }, async () => {
  const cases = [
    ['http://10.1.1.1:9/', /\(5\)/], // nobody listens: connection refused
    ['http://10.9.9.9:80/', /\(4\)/], // host unreachable
    ['http://127.0.0.1:8000/', /\(2\)/], // loopback: not allowed
    ['http://169.254.169.254/', /\(2\)/], // cloud metadata
    ['http://[::ffff:127.0.0.1]:8000/', /\(2\)/], // loopback in other clothes
    ['http://localhost:8000/', /\(2\)/], // loopback by name
    ['http://no.such.host.invalid/', /\(4\)/],
  ] as const;
  for (const [url, reply] of cases) {
    const { code, errors } = await curl('--socks5-hostname', '127.0.0.1:1080', url);
    assert.equal(code, CURLE_PROXY, `${url}: ${errors}`);
    assert.match(errors, reply, url);
  }
});

test('names and passwords are asked for, and the user is in the record', { skip }, async () => {
  const url = 'http://10.1.1.1:8000/hello';
  const right = ['--proxy-user', 'ada:love lace', '--socks5', '127.0.0.1:1081'];
  for (let i = 0; i < 2; i++) assert.match((await curl(...right, url)).output, /origin GET/);
  for (const who of ['ada:wrong', 'bob:love lace']) {
    const { code, errors } = await curl('--proxy-user', who, '--socks5', '127.0.0.1:1081', url);
    assert.equal(code, CURLE_PROXY, errors);
  }
  assert.equal((await curl('--socks5', '127.0.0.1:1081', url)).code, CURLE_PROXY);
  const forbidden = await curl(...right, 'http://10.1.1.1:8001/');
  assert.match(forbidden.errors, /\(2\)/, 'a port that is not allowed');
  await until(
    'records tell',
    () => /wrong name or password/.test(rampart.log) && /\bada\b/.test(rampart.log),
  );
});

test('a stream that is looked at becomes requests, one that is not goes on', { skip }, async () => {
  const { output } = await curl('--socks5', '127.0.0.1:1082', 'http://10.1.1.1:8000/fields');
  assert.match((JSON.parse(output) as Record<string, string>).via ?? '', /rampart/);
  const greeting = await curl('--socks5', '127.0.0.1:1082', '--http0.9', 'telnet://10.1.1.1:8003');
  assert.match(greeting.output, /origin greets/);
});

// --- byte by byte, with sockets of the test itself, where it runs ----------------------------------------

const LOCAL_CONFIG = `
on_ramps: [{ name: socks, type: socks5, listen: "127.0.0.1:0", allow: { addresses: [127.0.0.1/32] } }]
off_ramps: [{ name: out, type: sockets }]
routes: [{ on_ramp: socks, via: out }]
`;

let origin: Origin;
let local: RampartProcess;
let port: number;

before(async () => {
  origin = await Origin.start('origin', ['echo@0', 'datagrams@0']);
  local = await RampartProcess.start({ config: LOCAL_CONFIG });
  port = await local.port('socks');
});

after(async () => {
  await local.stop();
  await origin.stop();
});

/** A connection that collects what it hears. */
class Client {
  readonly socket: Socket = connect(port, '127.0.0.1');
  ended = false;
  #heard: Buffer = Buffer.alloc(0);

  constructor(bytes: Uint8Array = new Uint8Array(0)) {
    this.socket.setNoDelay(true);
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.ended = true;
    });
    this.socket.on('data', (chunk: Buffer) => {
      this.#heard = Buffer.concat([this.#heard, chunk]);
    });
    this.socket.write(bytes);
  }

  /** The next `length` bytes. */
  async read(length: number): Promise<Buffer> {
    await until(`${length} bytes have come`, () => {
      if (this.ended && this.#heard.length < length) throw new Hopeless('the connection ended');
      return this.#heard.length >= length;
    });
    const bytes = this.#heard.subarray(0, length);
    this.#heard = this.#heard.subarray(length);
    return bytes;
  }
}

test('a greeting in single bytes, and data sent ahead of the reply', async () => {
  const { echo } = origin.ports;
  const client = new Client();
  const request = [5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, echo >>> 8, echo & 0xff];
  for (const byte of [...request, ...Buffer.from('ahead')]) {
    client.socket.write(Uint8Array.of(byte));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual([...(await client.read(2))], [5, 0]);
  assert.deepEqual([...(await client.read(10))].slice(0, 4), [5, 0, 0, 1]);
  assert.equal((await client.read(5)).toString(), 'ahead');
  client.socket.destroy();
});

test('BIND, an unknown type of address and SOCKS 4 are refused', async () => {
  for (const [bytes, reply] of [
    [[5, 1, 0, 5, 2, 0, 1, 127, 0, 0, 1, 31, 65], 7],
    [[5, 1, 0, 5, 1, 0, 9, 127, 0, 0, 1, 31, 65], 8],
  ] as const) {
    const client = new Client(Uint8Array.from(bytes));
    assert.equal((await client.read(12))[3], reply);
    client.socket.end();
    await until('it is closed', () => client.ended);
  }
  const four = new Client(Uint8Array.of(4, 1, 0, 80, 10, 1, 1, 1, 0));
  await assert.rejects(four.read(1), /ended/);
});

/** An association: its TCP connection, a socket for datagrams, and where to send to. */
async function associate(): Promise<{ control: Socket; udp: DatagramSocket; relay: number }> {
  const control = new Client(Uint8Array.of(5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0));
  const reply = (await control.read(12)).subarray(2);
  assert.deepEqual([...reply.subarray(0, 8)], [5, 0, 0, 1, 127, 0, 0, 1]);
  const udp = createSocket('udp4').bind(0, '127.0.0.1');
  await once(udp, 'listening');
  return { control: control.socket, udp, relay: reply.readUInt16BE(8) };
}

function datagram(host: string, port: number, text: string): Uint8Array {
  return Buffer.concat([writeSocksDatagramHeader({ host, port }), Buffer.from(text)]);
}

test('UDP ASSOCIATE carries datagrams both ways, and ends with its TCP connection', async () => {
  const { datagrams } = origin.ports;
  const before = local.descriptors;
  const { control, udp, relay } = await associate();
  const { control: other, udp: stranger } = await associate();
  for (const text of ['one', 'two', 'three']) {
    const answered = once(udp, 'message');
    udp.send(datagram('127.0.0.1', datagrams, text), relay, '127.0.0.1');
    const [bytes] = (await answered) as [Buffer];
    const header = parseSocksDatagram(bytes, 0, bytes.length);
    assert.ok(typeof header === 'object');
    assert.deepEqual(header.target, { host: '127.0.0.1', port: datagrams });
    assert.equal(bytes.toString('utf8', header.length), `origin heard: ${text}`);
    // The association's first datagram has fixed its port: what another socket sends is not the client's.
    stranger.send(datagram('127.0.0.1', datagrams, 'stranger'), relay, '127.0.0.1');
  }
  const fragment = datagram('127.0.0.1', datagrams, 'fragment');
  fragment[2] = 1;
  udp.send(fragment, relay, '127.0.0.1');
  udp.send(datagram('127.0.0.2', datagrams, 'loopback that is not allowed'), relay, '127.0.0.1');
  await until('strangers are counted', async () => (await local.drops('spoofed_source')) === 3);
  await until('fragments are counted', async () => (await local.drops('bad_encapsulation')) === 1);
  control.destroy();
  other.destroy();
  await local.descriptorsBackTo(before, 1);
  udp.close();
  stranger.close();
});
