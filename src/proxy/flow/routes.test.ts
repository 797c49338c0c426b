import assert from 'node:assert/strict';
import { test } from 'node:test';

import { formatPrefix, type IpPrefix, parseIp, parsePrefix } from '#base/ip.ts';
import { RouteTable } from '#config/route-table.ts';
import { describeRoute, type RouteConfig, sameMatch } from '#config/routes.ts';
import { ParsedPacket } from '#packet/parse.ts';

import { Networks } from './networks.ts';
import { Routes } from './routes.ts';

function route(index: number, over: Partial<RouteConfig>): RouteConfig {
  const match = { account: 'acme', vnet: 'production', onRamp: null, to: null, protocol: null, ports: null };
  const config = { ...match, ...over };
  return { index, rule: describeRoute(config), via: 'out', upgrade: 'none', ...config };
}

const view = new DataView(new ArrayBuffer(64));

function packetTo(address: string, protocol: number, port: number): ParsedPacket {
  const bytes = parseIp(address) as Uint8Array;
  const packet = new ParsedPacket();
  packet.version = bytes.length === 4 ? 4 : 6;
  packet.protocol = protocol;
  packet.destinationPort = port;
  packet.addressOffset = 0;
  for (const [at, byte] of bytes.entries()) view.setUint8(bytes.length + at, byte);
  return packet;
}

const to = (text: string): IpPrefix => parsePrefix(text) as IpPrefix;

test('the longest prefix wins, and a longer one that does not match leaves the flow to the shorter', () => {
  const networks = new Networks();
  const routes = new Routes(networks);
  const network = networks.intern('acme', 'production');
  routes.replace([
    route(0, { to: to('10.0.0.0/8'), via: 'wide' }),
    route(1, { to: to('10.1.0.0/16'), protocol: 'tcp', ports: [{ first: 80, last: 81 }], via: 'web' }),
    route(2, { to: to('10.1.0.0/16'), protocol: 'tcp', via: 'tcp' }),
    route(3, { to: to('fd00::/8'), via: 'six' }),
  ]);
  const via = (address: string, protocol: number, port: number): string | null =>
    routes.find(network, 'any', view, packetTo(address, protocol, port))?.config.via ?? null;
  assert.equal(via('10.1.2.3', 6, 80), 'web');
  assert.equal(via('10.1.2.3', 6, 82), 'tcp');
  assert.equal(via('10.1.2.3', 17, 80), 'wide');
  assert.equal(via('10.2.0.0', 6, 80), 'wide');
  assert.equal(via('10.255.255.255', 1, 0), 'wide');
  assert.equal(via('11.0.0.0', 6, 80), null);
  assert.equal(via('9.255.255.255', 6, 80), null);
  assert.equal(via('fdff:ffff::1', 17, 1), 'six');
  assert.equal(via('fe00::1', 17, 1), null);
});

test('random routes of several networks give the answers of the linear table', () => {
  let state = 4711;
  const next = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return ((state >>> 8) * below) >>> 24;
  };
  const pick = <T>(items: readonly T[]): T => items[next(items.length)] as T;
  const address = (): string =>
    next(2) === 0
      ? `10.${next(2)}.${pick([0, 1, 128, 255])}.${pick([0, 1, 127, 128, 255])}`
      : `fd00:${next(2)}::${pick(['0', '1', '8000:0', 'ffff:ffff'])}`;
  const prefix = (): IpPrefix => {
    const base = address();
    const length = base.includes(':')
      ? pick([0, 8, 32, 33, 96, 97, 127, 128])
      : pick([0, 8, 16, 17, 24, 25, 31, 32]);
    return to(`${base}/${length}`);
  };
  for (let round = 0; round < 60; round++) {
    const configs: RouteConfig[] = [];
    for (let i = 0; i < 40; i++) {
      const anywhere = next(5) === 0;
      const protocol = pick([null, null, 'tcp', 'udp', 'icmp'] as const);
      const first = 1 + next(4);
      const candidate = route(i, {
        account: anywhere ? null : pick(['acme', 'globex']),
        vnet: anywhere ? null : pick(['production', 'staging']),
        onRamp: anywhere || next(3) === 0 ? pick(['wg', 'tun']) : null,
        to: next(6) === 0 ? null : prefix(),
        protocol,
        ports: protocol !== 'icmp' && next(3) === 0 ? [{ first, last: first + next(3) }] : null,
        via: `out-${i}`,
      });
      if (!configs.some((other) => sameMatch(other, candidate))) configs.push(candidate);
    }
    const twin = new RouteTable(configs);
    const networks = new Networks();
    const lonely = networks.intern('hooli', 'nothing-of-its-own');
    const routes = new Routes(networks);
    routes.replace(configs);
    for (let i = 0; i < 200; i++) {
      const account = pick(['acme', 'globex', 'hooli']);
      const vnet = account === 'hooli' ? 'nothing-of-its-own' : pick(['production', 'staging']);
      const network = account === 'hooli' ? lonely : networks.intern(account, vnet);
      const query = {
        account,
        vnet,
        onRamp: pick(['wg', 'tun', 'gue']),
        protocol: pick([1, 6, 17, 58]),
        port: next(6),
      };
      const destination = address();
      const expected = twin.find({ ...query, address: parseIp(destination) as Uint8Array });
      const found = routes.find(
        network,
        query.onRamp,
        view,
        packetTo(destination, query.protocol, query.port),
      );
      assert.equal(found?.config.via, expected?.via, `${account}/${vnet} ${destination}`);
    }
  }
});

test('replacing tells which routes are gone and lets the others keep their numbers', () => {
  const networks = new Networks();
  const routes = new Routes(networks);
  const [a, b, c] = ['10.0.0.0/24', '10.0.1.0/24', '10.0.2.0/24'].map((text, at) =>
    route(at, { to: to(text) }),
  ) as [RouteConfig, RouteConfig, RouteConfig];
  assert.deepEqual(routes.replace([a, b]), []);
  const network = networks.find('acme', 'production');
  const numberOf = (address: string): number =>
    routes.find(network, 'x', view, packetTo(address, 6, 1))?.number ?? 0;
  const [first, second] = [numberOf('10.0.0.1'), numberOf('10.0.1.1')];
  assert.deepEqual(routes.replace([{ ...b, index: 0 }, c]), [first]);
  assert.equal(numberOf('10.0.1.1'), second);
  assert.equal(numberOf('10.0.0.1'), 0);
  assert.equal(routes.get(first), null);
  assert.ok(routes.isLive(second));
  const elsewhere = { ...b, via: 'other' };
  assert.deepEqual(routes.replace([elsewhere, c]), [second], 'a route that leads elsewhere is another route');
});

test('a new process gives routes their numbers again and finds those that are gone', () => {
  const old = new Routes(new Networks());
  const configs = ['10.0.0.0/24', '10.0.1.0/24'].map((text, at) => route(at, { to: to(text) }));
  old.replace(configs);
  const networks = new Networks();
  const fresh = new Routes(networks);
  fresh.adopt(JSON.parse(JSON.stringify(old.describe())));
  fresh.replace([configs[1] as RouteConfig]);
  const network = networks.find('acme', 'production');
  const kept = old.describe().find(([identity]) => identity.includes(formatPrefix(to('10.0.1.0/24'))));
  assert.equal(fresh.find(network, 'x', view, packetTo('10.0.1.9', 6, 1))?.number, kept?.[1]);
  assert.deepEqual([1, 2].map((number) => fresh.isLive(number)).sort(), [false, true]);
});
