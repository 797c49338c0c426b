/**
 * The WireGuard core against wireguard-go, on a host of its own.
 *
 *   ping ──► TUN 10.77.0.1 wireguard-go 127.0.0.1 or ::1 ◄── UDP ──► wireguard-shim.ts 10.77.0.2
 *
 * The program is `RAMPART_WIREGUARD_GO`, or `wireguard-go` in the PATH. It can be had by
 * `go install golang.zx2c4.com/wireguard@latest`.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { keyPairOf } from '#crypto/x25519.ts';
import { WireguardDrop } from '#protocol/wireguard/drop.ts';
import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { lacksPrograms, type Program } from '#testing/program.ts';
import { until } from '#testing/until.ts';

const given = process.env.RAMPART_WIREGUARD_GO;
const program = given ?? 'wireguard-go';
const skip =
  lacksHosts() ||
  (existsSync('/dev/net/tun') ? false : 'needs /dev/net/tun') ||
  (given === undefined ? lacksPrograms(program, 'wg', 'ip', 'ping') : lacksPrograms('wg', 'ip', 'ping'));
const HOST = 'machine';
/** The control sockets of all hosts share one folder, so the name is this process's own. */
const DEVICE = `wgr${process.pid}`;
const SHIM = new URL('wireguard-shim.ts', import.meta.url).pathname;

const theirs = newKeys();
const ours = newKeys();
const psk = randomBytes(32).toString('base64');

function newKeys(): { secret: string; public: string } {
  const secret = randomBytes(32);
  return { secret: secret.toString('base64'), public: keyPairOf(secret).publicKey.toBase64() };
}

let hosts: Hosts;
let daemon: Program;
let folder: string;
let port: string;

before(async () => {
  if (skip) return;
  hosts = await Hosts.open([HOST]);
  folder = mkdtempSync(join(tmpdir(), 'rampart-wg-'));
  writeFileSync(join(folder, 'key'), theirs.secret, { mode: 0o600 });
  writeFileSync(join(folder, 'psk'), psk, { mode: 0o600 });
  const log = { env: { LOG_LEVEL: 'error' } };
  daemon = hosts.start(HOST, program, ['-f', DEVICE], log);
  await until('wireguard-go answers', async () => (await hosts.run(HOST, 'wg', ['show', DEVICE])).code === 0);
  await hosts.sh(HOST, `wg set ${DEVICE} private-key ${join(folder, 'key')}`);
  await hosts.sh(HOST, `ip addr add 10.77.0.1/24 dev ${DEVICE}`);
  await hosts.sh(HOST, `ip addr add fd77::1/64 dev ${DEVICE} nodad`);
  await hosts.sh(HOST, `ip link set ${DEVICE} up`);
  port = (await hosts.sh(HOST, `wg show ${DEVICE} listen-port`)).trim();
});

after(async () => {
  if (skip) return;
  // Asked to end, it takes its control socket away.
  await daemon.stop();
  await hosts.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Makes the shim a peer of wireguard-go, and removes what was there before. */
async function setPeer(endpoint: string | null, withPsk: boolean): Promise<void> {
  await hosts.sh(HOST, `wg set ${DEVICE} peer ${ours.public} remove`);
  const secret = withPsk ? ` preshared-key ${join(folder, 'psk')}` : '';
  const where = endpoint === null ? '' : ` endpoint ${endpoint}`;
  const allowed = 'allowed-ips 10.77.0.2/32,fd77::2/128';
  await hosts.sh(HOST, `wg set ${DEVICE} peer ${ours.public}${secret}${where} ${allowed}`);
}

function startShim(...args: string[]): Program {
  return hosts.startScript(HOST, SHIM, ['--key', ours.secret, '--peer', theirs.public, ...args]);
}

async function ping(to: string, ...args: string[]): Promise<string> {
  const result = await hosts.run(HOST, 'ping', ['-c', '3', '-i', '0.05', '-W', '3', ...args, to]);
  assert.match(result.output, /3 received/, result.output + result.errors);
  return result.output;
}

for (const [name, address] of [
  ['IPv4', '127.0.0.1'],
  ['IPv6', '[::1]'],
] as const) {
  test(`wireguard-go begins, over ${name}, with a pre-shared key, and pings both families`, {
    skip,
  }, async () => {
    const shim = startShim('--psk', psk, '--listen', `${address}:0`);
    const [, shimPort] = await shim.says(/listening ([0-9]+)/);
    await setPeer(`${address}:${shimPort}`, true);
    await ping('10.77.0.2');
    await ping('fd77::2');
    await ping('10.77.0.2', '-s', '1392');
    const shown = await hosts.sh(HOST, `wg show ${DEVICE} latest-handshakes`);
    assert.match(shown, /\t[1-9][0-9]+/);
    assert.doesNotMatch(shim.output, /dropped/);
    await shim.stop();
  });
}

test('this side begins, towards a peer that does not know its endpoint', { skip }, async () => {
  await setPeer(null, false);
  const shim = startShim('--listen', '127.0.0.1:0', '--endpoint', `127.0.0.1:${port}`, '--ask');
  await shim.says(/answered/);
  assert.match(shim.output, /session/);
  await ping('10.77.0.2');
  await shim.stop();
});

test('wireguard-go follows this side to a new port, and a persistent keepalive needs no packet', {
  skip,
}, async () => {
  await setPeer(null, false);
  const keepalive = ['--endpoint', `127.0.0.1:${port}`, '--keepalive', '1'];
  const first = startShim('--listen', '127.0.0.1:0', ...keepalive);
  await first.says(/session/);
  await ping('10.77.0.2');
  await first.stop();
  const second = startShim('--listen', '127.0.0.1:0', ...keepalive);
  await second.says(/session/);
  await ping('10.77.0.2');
  await second.stop();
});

test('wireguard-go opens a cookie of this side under load and comes back with it', { skip }, async () => {
  const shim = startShim('--listen', '127.0.0.1:0', '--load');
  const [, shimPort] = await shim.says(/listening ([0-9]+)/);
  await setPeer(`127.0.0.1:${shimPort}`, false);
  // The second try comes five seconds after the first.
  await hosts.run(HOST, 'ping', ['-c', '40', '-i', '0.2', '-W', '1', '-w', '8', '10.77.0.2']);
  await shim.says(/session/);
  assert.match(shim.output, new RegExp(`^dropped ${WireguardDrop.CookieDemanded}$`, 'm'));
  await ping('10.77.0.2');
  await shim.stop();
});
