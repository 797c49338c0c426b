import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { parseIp, parsePrefix } from '#base/ip.ts';

import { matches, type RouteQuery, RouteTable } from './route-table.ts';
import type { RouteConfig } from './routes.ts';

function route(index: number, members: Partial<RouteConfig> & { prefix?: string }): RouteConfig {
  const { prefix, ...rest } = members;
  const account = rest.account === undefined ? 'acme' : rest.account;
  return {
    index,
    rule: `route ${index}`,
    vnet: account === null ? null : 'production',
    onRamp: null,
    to: prefix === undefined ? null : parsePrefix(prefix),
    protocol: null,
    ports: null,
    via: `v${index}`,
    upgrade: 'none',
    ...rest,
    account,
  };
}

function query(address: string, members: Partial<RouteQuery> = {}): RouteQuery {
  return {
    account: 'acme',
    vnet: 'production',
    onRamp: 'laptop',
    protocol: 6,
    address: parseIp(address) as Uint8Array,
    port: 80,
    ...members,
  };
}

test('the longest prefix wins, whatever the order in the file', () => {
  const routes = [
    route(0, { prefix: '0.0.0.0/0' }),
    route(1, { prefix: '10.10.0.0/24' }),
    route(2, { prefix: '10.0.0.0/8' }),
    route(3, {}),
  ];
  const table = new RouteTable(routes);
  assert.equal(table.find(query('10.10.0.1'))?.via, 'v1');
  assert.equal(table.find(query('10.11.0.1'))?.via, 'v2');
  assert.equal(table.find(query('192.0.2.1'))?.via, 'v0');
  assert.equal(table.find(query('fd00::1'))?.via, 'v3');
});

test('of equal prefixes, ports win over protocol over neither, then the on-ramp', () => {
  const prefix = '10.0.0.0/8';
  const table = new RouteTable([
    route(0, { prefix }),
    route(1, { prefix, protocol: 'tcp' }),
    route(2, { prefix, protocol: 'tcp', ports: [{ first: 80, last: 89 }] }),
    route(3, { prefix, onRamp: 'laptop' }),
    route(4, { prefix, protocol: 'icmp' }),
  ]);
  assert.equal(table.find(query('10.0.0.1', { port: 85 }))?.via, 'v2');
  assert.equal(table.find(query('10.0.0.1', { port: 90 }))?.via, 'v1');
  assert.equal(table.find(query('10.0.0.1', { protocol: 17 }))?.via, 'v3');
  assert.equal(table.find(query('10.0.0.1', { protocol: 17, onRamp: 'other' }))?.via, 'v0');
  assert.equal(table.find(query('10.0.0.1', { protocol: 1, port: 0 }))?.via, 'v4');
  assert.equal(table.find(query('10.0.0.1', { protocol: 58, port: 0 }))?.via, 'v4');
});

test('a network sees its own routes and those of any network, never those of another', () => {
  const table = new RouteTable([
    route(0, { prefix: '10.0.0.0/8' }),
    route(1, { prefix: '10.0.0.0/8', vnet: 'staging' }),
    route(2, { prefix: '10.0.0.0/8', account: 'other', vnet: 'production' }),
    route(3, { account: null, onRamp: 'web' }),
  ]);
  assert.equal(table.find(query('10.0.0.1'))?.via, 'v0');
  assert.equal(table.find(query('10.0.0.1', { vnet: 'staging' }))?.via, 'v1');
  assert.equal(table.find(query('10.0.0.1', { account: 'other' }))?.via, 'v2');
  assert.equal(table.find(query('10.0.0.1', { account: 'unknown' })), null);
  assert.equal(table.find(query('10.0.0.1', { account: 'unknown', onRamp: 'web' }))?.via, 'v3');
  assert.equal(table.find(query('192.0.2.1', { onRamp: 'web' }))?.via, 'v3');
  assert.equal(table.find(query('192.0.2.1')), null);
});

test('it agrees with looking at all routes one by one', () => {
  const vnet = fc.constantFrom('production', 'staging', 'lab');
  const anyRoute = fc.record({
    vnet,
    any: fc.boolean(),
    length: fc.integer({ min: 0, max: 32 }),
    second: fc.integer({ min: 0, max: 3 }),
    protocol: fc.constantFrom('tcp', 'udp', null),
    first: fc.integer({ min: 1, max: 4 }),
    hasPorts: fc.boolean(),
    onRamp: fc.constantFrom('laptop', 'web', null),
  });
  const anyQuery = fc.record({
    vnet,
    second: fc.integer({ min: 0, max: 3 }),
    last: fc.integer({ min: 0, max: 3 }),
    protocol: fc.constantFrom(6, 17, 1),
    port: fc.integer({ min: 1, max: 6 }),
    onRamp: fc.constantFrom('laptop', 'web', 'other'),
  });
  const property = fc.property(fc.array(anyRoute, { maxLength: 12 }), anyQuery, (specs, asked) => {
    const routes = specs.map((spec, index) =>
      route(index, {
        prefix: `10.${spec.second}.0.0/${spec.length}`,
        account: spec.any ? null : 'acme',
        vnet: spec.any ? null : spec.vnet,
        onRamp: spec.any ? 'web' : spec.onRamp,
        protocol: spec.protocol as 'tcp' | 'udp' | null,
        ports: spec.hasPorts ? [{ first: spec.first, last: spec.first + 1 }] : null,
      }),
    );
    const wanted = query(`10.${asked.second}.0.${asked.last}`, asked);
    assert.equal(new RouteTable(routes).find(wanted), bestOf(routes, wanted));
  });
  fc.assert(property, { numRuns: 500 });
});

/** The rule in its simplest form: of those that match, the one that no other beats. */
function bestOf(routes: readonly RouteConfig[], wanted: RouteQuery): RouteConfig | null {
  let best: RouteConfig | null = null;
  for (const candidate of routes) {
    if (matches(candidate, wanted) && (best === null || beats(candidate, best))) best = candidate;
  }
  return best;
}

function beats(a: RouteConfig, b: RouteConfig): boolean {
  const rank = (r: RouteConfig) => [
    r.to?.length ?? -1,
    r.ports !== null ? 1 : 0,
    r.protocol !== null ? 1 : 0,
    r.onRamp !== null ? 1 : 0,
    r.account !== null ? 1 : 0,
  ];
  const one = rank(a);
  const two = rank(b);
  for (const [place, value] of one.entries()) {
    if (value !== two[place]) return value > (two[place] as number);
  }
  return false;
}
