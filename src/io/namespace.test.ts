import assert from 'node:assert/strict';
import { execFile, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, existsSync, readdirSync, readFileSync, readlinkSync, readSync, writeSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { test } from 'node:test';

import type { RampartError } from '#base/error.ts';

import { closeDescriptor, openSeqpacketPair, receiveDescriptors, sendDescriptors } from './ffi/namespace.ts';
import {
  attachNamespace,
  namespaceSupport,
  openPrivateNamespace,
  type NamespaceMode,
  type PrivateNamespace,
} from './namespace.ts';
import { RouteSocket } from './netlink.ts';
import {
  closePacketDevice,
  frameOffsetOfPacket,
  framePacketForDevice,
  openPacketDevice,
  packetOffsetOfFrame,
  unframePacketFromDevice,
  type PacketDevice,
  type PacketDeviceKind,
} from './packet-device.ts';

const isRoot = process.getuid?.() === 0;
const support = await namespaceSupport();
const skipAll = support.mode === 'none' ? support.message : false;
const helperSupport = isRoot ? await namespaceSupport({ mode: 'helper' }) : support;
const skipThread = support.mode === 'thread' ? false : 'needs root or CAP_SYS_ADMIN';
const skipHelper = helperSupport.mode === 'helper' ? false : helperSupport.message;

/** Descriptors of this process that are sockets, namespaces or devices, to see that none is left behind. */
function openDescriptors(): string[] {
  const names: string[] = [];
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      if (/^socket:|^net:|^user:|\/net\/tun/.test(target)) names.push(`${fd} ${target}`);
    } catch {
      // The descriptor with which the directory was read.
    }
  }
  return names;
}

/**
 * Carries packets from each device to the other until stopped; remembers the largest packet of each
 * direction.
 */
class Pump {
  readonly largest: [number, number] = [0, 0];
  readonly #bytes = new Uint8Array(128 + 70_000);
  readonly #view = new DataView(this.#bytes.buffer);
  #running = true;
  readonly #devices: readonly [PacketDevice, PacketDevice];

  constructor(first: PacketDevice, second: PacketDevice) {
    this.#devices = [first, second];
    this.#turn();
  }

  stop(): void {
    this.#running = false;
  }

  #turn(): void {
    if (!this.#running) return;
    for (let i = 0; i < 64 && this.#carry(0); i++);
    for (let i = 0; i < 64 && this.#carry(1); i++);
    setImmediate(() => this.#turn());
  }

  #carry(direction: 0 | 1): boolean {
    const from = this.#devices[direction] as PacketDevice;
    const to = this.#devices[direction ^ 1] as PacketDevice;
    const packet = 128;
    const frame = frameOffsetOfPacket(packet, from);
    assert.equal(packetOffsetOfFrame(frame, from), packet);
    let read: number;
    try {
      read = readSync(from.fd, this.#bytes, frame, 65_600, null);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN');
      return false;
    }
    const length = unframePacketFromDevice(this.#view, frame, read, from);
    if (length < 0) return true;
    this.largest[direction] = Math.max(this.largest[direction] as number, length);
    const out = framePacketForDevice(this.#view, packet, length, to);
    writeSync(to.fd, this.#bytes, out, length + to.headerBytes, null);
    return true;
  }
}

/** A program that connects to argv, sends 4 MiB, reads everything and prints a digest. */
const CLIENT = `
const [host, port] = process.argv.slice(1);
const bytes = Buffer.alloc(4 << 20, 'seven and a half');
const hash = require('node:crypto').createHash('sha256');
const socket = require('node:net').connect({ host, port: Number(port) }, () => socket.end(bytes));
socket.on('data', (chunk) => hash.update(chunk));
socket.on('end', () => console.log(hash.digest('hex')));
socket.on('error', (error) => console.log(String(error)));
socket.setTimeout(20000, () => { console.log('timeout'); process.exit(1); });
`;

async function output(child: ChildProcess): Promise<string> {
  let text = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const [code] = await once(child, 'close');
  assert.equal(code, 0, text);
  return text.trim();
}

/**
 * ```
 *   program ── c0 (10.9.0.2, fd09::2) ── [client namespace] ── Pump ── [server namespace] ── p0 (10.9.0.1,
 * fd09::1) ── listener ```
 */
async function echoThroughDevices(mode: NamespaceMode, kinds: [PacketDeviceKind, PacketDeviceKind]) {
  const client = await openPrivateNamespace({ mode, stock: {} });
  const server = await openPrivateNamespace({ mode, stock: {} });
  try {
    const c0 = await client.openPacketDevice({ name: 'c0', mtu: 1500, kind: kinds[0] });
    const p0 = await server.openPacketDevice({ name: 'p0', mtu: 1500, kind: kinds[1] });
    assert.deepEqual([c0.kind, p0.kind], kinds);
    const everywhere = (device: string) => [
      { destination: '0.0.0.0/0', device },
      { destination: '::/0', device },
    ];
    await client.configure({
      addresses: [
        { device: 'c0', address: '10.9.0.2' },
        { device: 'c0', address: 'fd09::2' },
      ],
      routes: everywhere('c0'),
    });
    await server.configure({
      addresses: [
        { device: 'p0', address: '10.9.0.1' },
        { device: 'p0', address: 'fd09::1' },
      ],
      routes: everywhere('p0'),
    });
    const pump = new Pump(c0, p0);
    try {
      await echoBoth(client, server);
      assert.ok(pump.largest[0] > 9000 && pump.largest[1] > 9000, `super-packets: ${pump.largest}`);
    } finally {
      pump.stop();
    }
    await client.closePacketDevice(c0);
    await server.closePacketDevice(p0);
  } finally {
    await client.close();
    await server.close();
  }
}

async function echoBoth(client: PrivateNamespace, server: PrivateNamespace): Promise<void> {
  const expected = createHash('sha256')
    .update(Buffer.alloc(4 << 20, 'seven and a half'))
    .digest('hex');
  for (const [family, host] of [
    [4, '10.9.0.1'],
    [6, 'fd09::1'],
  ] as const) {
    const fd = await server.openListener({
      address: { family, address: family === 4 ? host : '::', port: 0 },
    });
    const listener = createServer((socket) => socket.pipe(socket)).listen({ fd });
    await once(listener, 'listening');
    const { port } = listener.address() as AddressInfo;
    const program = client.spawn(process.execPath, ['-e', CLIENT, host, String(port)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    assert.equal(await output(program), expected);
    listener.close();
    await once(listener, 'close');
  }
}

for (const mode of ['thread', 'helper'] as const) {
  const skip = mode === 'thread' ? skipThread : skipHelper;
  const device = mode === 'thread' ? support.device : helperSupport.device;
  const skipTun = skip || (device === 'tun' ? false : '/dev/net/tun is missing or forbidden');

  test(`${mode}: a program reaches a listener through two TUN devices`, { skip: skipTun }, async () => {
    const before = openDescriptors();
    await echoThroughDevices(mode, ['tun', 'tun']);
    assert.deepEqual(openDescriptors(), before);
  });

  test(`${mode}: a program reaches a listener through two packet sockets`, { skip }, async () => {
    const before = openDescriptors();
    await echoThroughDevices(mode, ['packet-socket', 'packet-socket']);
    assert.deepEqual(openDescriptors(), before);
  });

  test(`${mode}: packets of a TUN and of a packet socket are alike once canonical`, {
    skip: skipTun,
  }, async () => {
    await echoThroughDevices(mode, ['tun', 'packet-socket']);
  });

  test(`${mode}: sockets of a namespace know its addresses and not the machine's`, { skip }, async () => {
    const before = openDescriptors();
    const namespace = await openPrivateNamespace({ mode });
    await namespace.configure({ addresses: [{ device: 'lo', address: '198.18.7.1/32' }] });
    const fd = await namespace.openListener({ address: { family: 4, address: '198.18.7.1', port: 0 } });
    closeSync(fd);
    const elsewhere = openPrivateNamespace({ mode, stock: {} }).then(async (other) => {
      try {
        return await other.openListener({ address: { family: 4, address: '198.18.7.1', port: 0 } });
      } finally {
        await other.close();
      }
    });
    await assert.rejects(elsewhere, { code: 'RAMP_LISTEN', errno: 99 });
    await namespace.close();
    assert.deepEqual(openDescriptors(), before);
  });

  test(`${mode}: sockets come in batches and from the stock, which refills`, { skip }, async () => {
    const before = openDescriptors();
    const namespace = await openPrivateNamespace({ mode, stock: { tcp4: 4 } });
    const sockets = await namespace.openSockets('udp6', 200);
    assert.equal(new Set(sockets).size, 200);
    for (let round = 0; round < 20; round++) {
      let fd = namespace.openSocketNow('tcp4');
      // Any request that follows a refill is answered after it.
      if (fd < 0) [fd = -1] = await namespace.openSockets('tcp4', 1);
      assert.ok(fd >= 0);
      sockets.push(fd);
    }
    for (const fd of sockets) closeSync(fd);
    await namespace.close();
    assert.deepEqual(openDescriptors(), before);
  });

  test(`${mode}: sysctls are those of the namespace`, { skip }, async () => {
    const path = '/proc/sys/net/ipv4/tcp_no_metrics_save';
    const outside = readFileSync(path, 'utf8');
    const namespace = await openPrivateNamespace({ mode, stock: {} });
    await namespace.configure({
      sysctls: { 'net.ipv4.tcp_no_metrics_save': 1 },
      sysctlsIfPossible: { 'net.ipv4.there_is_no_such_thing': 1 },
    });
    const child = namespace.spawn('cat', [path], { stdio: ['ignore', 'pipe', 'inherit'] });
    assert.equal(await output(child), '1');
    assert.equal(readFileSync(path, 'utf8'), outside);
    await assert.rejects(namespace.configure({ sysctls: { 'kernel.hostname': 'x' } }), {
      code: 'RAMP_NAMESPACE',
    });
    await assert.rejects(namespace.configure({ sysctls: { 'net.ipv4.there_is_no_such_thing': 1 } }), {
      code: 'RAMP_NAMESPACE',
    });
    await namespace.close();
  });

  test(`${mode}: a mistake in the settings is an error with the kernel's reason`, { skip }, async () => {
    const namespace = await openPrivateNamespace({ mode, stock: {} });
    const routes = [{ destination: '10.0.0.0/8', gateway: '192.0.2.1' }];
    await assert.rejects(namespace.configure({ routes }), (error: RampartError) => {
      assert.equal(error.code, 'RAMP_DEVICE');
      assert.match(error.message, /adding route 10\.0\.0\.0\/8 failed: network is unreachable/);
      return true;
    });
    await assert.rejects(namespace.configure({ addresses: [{ device: 'x9', address: '10.0.0.1' }] }), {
      code: 'RAMP_DEVICE',
      errno: 19,
    });
    await namespace.close();
    await assert.rejects(namespace.configure({ routes }), { code: 'RAMP_NAMESPACE' });
  });

  test(`${mode}: a second process attaches by path`, { skip }, async () => {
    const before = openDescriptors();
    const namespace = await openPrivateNamespace({ mode, stock: {} });
    await namespace.configure({ addresses: [{ device: 'lo', address: '198.18.7.2/32' }] });
    const attached = await attachNamespace(namespace.path, { mode, stock: {} });
    const fd = await attached.openListener({ address: { family: 4, address: '198.18.7.2', port: 0 } });
    closeSync(fd);
    await attached.close();
    await namespace.close();
    assert.deepEqual(openDescriptors(), before);
  });
}

test('thread: the thread is back in its own namespace after work that throws', {
  skip: skipThread,
}, async () => {
  const own = readlinkSync('/proc/thread-self/ns/net');
  const namespace = await openPrivateNamespace({ mode: 'thread', stock: {} });
  assert.throws(
    () =>
      namespace.run(() => {
        assert.notEqual(readlinkSync('/proc/thread-self/ns/net'), own);
        throw new Error('on purpose');
      }),
    /on purpose/,
  );
  assert.equal(readlinkSync('/proc/thread-self/ns/net'), own);
  await namespace.close();
});

test('thread: a TUN can have several queues', { skip: skipThread }, async (t) => {
  if (support.device !== 'tun') return t.skip('/dev/net/tun is missing or forbidden');
  const namespace = await openPrivateNamespace({ mode: 'thread', stock: {} });
  namespace.run(() => {
    const device = openPacketDevice({ name: 'many', queues: 3 });
    assert.equal(device.queues.length, 3);
    closePacketDevice(device);
    const route = new RouteSocket();
    assert.equal(route.findLink('many'), null);
    route.close();
  });
  await namespace.close();
});

test('helper: the helper ends when the namespace is closed', { skip: skipHelper }, async () => {
  const namespace = await openPrivateNamespace({ mode: 'helper', stock: {} });
  assert.ok(existsSync(namespace.path));
  await namespace.close();
  assert.ok(!existsSync(namespace.path));
});

test('helper: stepping in is refused with what to do', { skip: skipHelper }, async () => {
  const namespace = await openPrivateNamespace({ mode: 'helper', stock: {} });
  assert.throws(() => namespace.run(() => 1), { code: 'RAMP_NAMESPACE' });
  await namespace.close();
});

test('helper: a missing launcher is named, with the package that has it', async () => {
  const path = process.env.PATH;
  process.env.PATH = '/nonexistent';
  const before = openDescriptors();
  try {
    const missing = await namespaceSupport({ mode: 'helper' });
    assert.equal(missing.mode, 'none');
    assert.match(missing.message, /^no private network namespace: .*unshare .*install.*util-linux/);
    assert.ok(!missing.message.includes('\n'));
  } finally {
    process.env.PATH = path;
  }
  assert.deepEqual(openDescriptors(), before);
});

test('thread: a sysctl that cannot be written is fine when it already has the value', {
  skip: skipThread,
}, async () => {
  const namespace = await openPrivateNamespace({ mode: 'thread', stock: {} });
  // Of mode 0444 in every namespace but the machine's own, so not even root writes it.
  const name = 'net.core.rmem_max';
  const value = namespace.run(() => readFileSync('/proc/sys/net/core/rmem_max', 'utf8').trim());
  await namespace.configure({ sysctls: { [name]: value } });
  await assert.rejects(namespace.configure({ sysctls: { [name]: Number(value) + 1 } }), {
    code: 'RAMP_NAMESPACE',
  });
  await namespace.close();
});

test('descriptors travel between sockets, and their loss is seen', () => {
  const pair = openSeqpacketPair();
  assert.ok(typeof pair !== 'number');
  assert.equal(sendDescriptors(pair[0], Uint8Array.of(7), [0, 1]), 1);
  const message = receiveDescriptors(pair[1]);
  assert.ok(typeof message !== 'number');
  assert.deepEqual([...message.bytes], [7]);
  assert.equal(message.descriptors.length, 2);
  assert.equal(message.truncated, false);
  assert.equal(receiveDescriptors(pair[1]), -11);
  for (const fd of [...message.descriptors, ...pair]) closeDescriptor(fd);
});

test('without the right to change links the error says what to do', {
  skip: isRoot && 'root may do everything; the last test runs this one as an ordinary user',
}, () => {
  const route = new RouteSocket();
  assert.throws(() => route.changeLink(1, { mtu: 1400 }), {
    code: 'RAMP_DEVICE',
    errno: 1,
    message: /run as root/,
  });
  route.close();
});

test('namespaces work for an ordinary user as well', {
  skip: isRoot ? skipAll : 'this is the ordinary user',
}, async (t) => {
  const setpriv = ['--reuid=65534', '--regid=65534', '--clear-groups', '--bounding-set=-all', '--'];
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', import.meta.filename];
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const { text, failed } = await new Promise<{ text: string; failed: boolean }>((resolve) => {
    const options = { env, timeout: 120_000, cwd: '/' };
    execFile('setpriv', [...setpriv, ...node], options, (error, stdout, stderr) => {
      resolve({ text: stdout + stderr, failed: error !== null });
    });
  });
  if (/EACCES|Permission denied/.test(text) && !text.includes('helper:')) {
    return t.skip('the checkout is not readable by ordinary users');
  }
  assert.ok(!failed, text);
  assert.match(text, /helper: a program reaches a listener through two packet sockets/);
});
