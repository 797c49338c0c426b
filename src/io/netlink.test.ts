import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';

import { openPrivateNamespace, namespaceSupport } from './namespace.ts';
import { RouteSocket } from './netlink.ts';

const support = await namespaceSupport();
const skip = support.mode === 'thread' ? false : 'needs root or CAP_SYS_ADMIN';

/** Runs `work` with a route socket in a namespace of its own. */
async function inside(work: (route: RouteSocket) => void): Promise<void> {
  const namespace = await openPrivateNamespace({ mode: 'thread', stock: {} });
  try {
    namespace.run(() => {
      const route = new RouteSocket();
      try {
        work(route);
      } finally {
        route.close();
      }
    });
  } finally {
    await namespace.close();
  }
}

const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });
const hasIp = (() => {
  try {
    return ip('-V').length > 0;
  } catch {
    return false;
  }
})();
const skipIp = skip || (hasIp ? false : 'the program ip is not installed');

test('a veth pair has the names, sizes and addresses that were asked for', { skip }, async () => {
  await inside((route) => {
    const address = Uint8Array.of(2, 0, 0, 0, 0, 1);
    route.createVeth({ name: 'left', peerName: 'right', mtu: 9000, address });
    const left = route.findLink('left');
    assert.ok(left !== null);
    assert.equal(left.mtu, 9000);
    assert.deepEqual(left.address, address);
    assert.equal(route.findLink('right')?.mtu, 9000);
    route.deleteLink(left.index);
    assert.equal(route.findLink('right'), null);
  });
});

test('a link is renamed, resized and moved into another namespace', { skip }, async () => {
  const other = await openPrivateNamespace({ mode: 'thread', stock: {} });
  const { openSync, closeSync } = await import('node:fs');
  const fd = openSync(other.path, 'r');
  await inside((route) => {
    route.createVeth({ name: 'a', peerName: 'b', mtu: 1500, peerNamespaceFd: fd });
    route.changeLink(route.linkIndex('a'), { name: 'c', mtu: 1400 });
    assert.equal(route.findLink('c')?.mtu, 1400);
    assert.equal(route.findLink('b'), null);
    route.createVeth({ name: 'd', peerName: 'e', mtu: 1500 });
    route.changeLink(route.linkIndex('e'), { namespaceFd: fd });
    assert.equal(route.findLink('e'), null);
    other.run(() => {
      const there = new RouteSocket();
      assert.ok(there.findLink('b') !== null && there.findLink('e') !== null);
      there.close();
    });
  });
  closeSync(fd);
  await other.close();
});

test('ip(8) sees the routes, addresses and neighbours that were added', { skip: skipIp }, async () => {
  await inside((route) => {
    route.createVeth({ name: 'v0', peerName: 'v1', mtu: 1500 });
    const link = route.linkIndex('v0');
    route.changeLink(route.linkIndex('v1'), { up: true });
    route.changeLink(link, { noAutomaticAddress: true });
    route.changeLink(link, { up: true, noArp: true });
    route.addAddress(link, '10.1.0.1/24');
    route.addAddress(link, 'fd01::1/64');
    route.addRoute({ destination: '0.0.0.0/0', link });
    route.addRoute({ destination: '::/0', link, mtu: 1400, advertisedSegmentMax: 1300 });
    route.addRoute({ destination: '10.2.0.0/16', gateway: '10.1.0.9', source: '10.1.0.1', metric: 7 });
    route.addRoute({ destination: '10.3.0.0/16', type: 'blackhole' });
    route.addRoute({ destination: '172.16.0.0/12', type: 'local', link: 1, table: 300 });
    route.addNeighbour(link, '10.1.0.77', Uint8Array.of(2, 0, 0, 0, 0, 9));
    route.addRule(4, 'v0', 100);
    const four = ip('route', 'show');
    assert.match(four, /^default dev v0/m);
    assert.match(four, /^10\.2\.0\.0\/16 via 10\.1\.0\.9 dev v0 .*src 10\.1\.0\.1 metric 7/m);
    assert.match(four, /^blackhole 10\.3\.0\.0\/16/m);
    assert.match(ip('-6', 'route', 'show'), /^default dev v0 .*mtu 1400 advmss 1300/m);
    assert.match(ip('route', 'show', 'table', '300'), /^local 172\.16\.0\.0\/12 dev lo/m);
    assert.match(ip('neigh', 'show'), /10\.1\.0\.77 dev v0 lladdr 02:00:00:00:00:09 PERMANENT/);
    assert.match(ip('rule', 'show'), /from all iif v0 lookup 100/);
    const addresses = ip('address', 'show', 'v0');
    assert.match(addresses, /NOARP/);
    assert.match(addresses, /inet6 fd01::1\/64 scope global nodad/);
    assert.doesNotMatch(addresses, /fe80/);
    route.deleteRoute({ destination: '10.3.0.0/16', type: 'blackhole' });
    assert.doesNotMatch(ip('route', 'show'), /blackhole/);
  });
});

test('a refused request names what was tried and why it failed', { skip }, async () => {
  await inside((route) => {
    assert.throws(() => route.linkIndex('nowhere'), { code: 'RAMP_DEVICE', errno: 19, message: /nowhere/ });
    route.changeLink(1, { up: true });
    assert.throws(() => route.addRoute({ destination: '10.0.0.0/8', gateway: '192.0.2.1' }), {
      code: 'RAMP_DEVICE',
      message: /^adding route 10\.0\.0\.0\/8 failed: network is unreachable \(ENETUNREACH\)/,
    });
    assert.throws(() => route.addAddress(1, '10.0.0.0.1'), {
      code: 'RAMP_DEVICE',
      message: /not a valid address/,
    });
    assert.throws(() => route.addRoute({ destination: '10/8' }), { code: 'RAMP_DEVICE' });
    assert.throws(() => route.addRoute({ destination: '10.0.0.0/8', gateway: 'fd00::1' }), {
      code: 'RAMP_DEVICE',
      message: /fd00::1/,
    });
  });
});
