import assert from 'node:assert/strict';
import { test } from 'node:test';

import { NETWORKS_ADMITTED_MAX, Networks } from './networks.ts';

test('a pair always has the same number and no other pair has it', () => {
  const networks = new Networks();
  const seen = new Map<number, string>();
  for (const account of ['acme', 'globex', 'a', 'a/b']) {
    for (const vnet of ['production', 'staging', 'b/c', 'c']) {
      const id = networks.intern(account, vnet);
      assert.ok(id > 0 && !seen.has(id));
      seen.set(id, `${account} ${vnet}`);
      assert.equal(networks.intern(account, vnet), id);
      assert.equal(networks.find(account, vnet), id);
      assert.equal(networks.accountName(networks.accountOf(id)), account);
      assert.equal(networks.vnetName(id), vnet);
    }
  }
  assert.equal(networks.count, 16);
  assert.equal(networks.accountCount, 4);
});

test('what was never seen is 0', () => {
  const networks = new Networks();
  networks.intern('acme', 'production');
  assert.equal(networks.find('acme', 'staging'), 0);
  assert.equal(networks.find('globex', 'production'), 0);
});

test('a network without account or vnet is a broken invariant', () => {
  const networks = new Networks();
  assert.throws(() => networks.intern('', 'production'));
  assert.throws(() => networks.intern('acme', ''));
  assert.throws(() => networks.accountOf(0));
});

test('a new process gives every network the number it had', () => {
  const old = new Networks();
  const ids = ['b', 'a', 'c'].flatMap((account) => ['y', 'x'].map((vnet) => [account, vnet] as const));
  const numbers = ids.map(([account, vnet]) => old.intern(account, vnet));
  const fresh = new Networks();
  fresh.adopt(JSON.parse(JSON.stringify(old.describe())));
  for (const [at, [account, vnet]] of ids.entries()) {
    assert.equal(fresh.find(account, vnet), numbers[at]);
    assert.equal(fresh.accountOf(numbers[at] as number), old.accountOf(numbers[at] as number));
  }
});

test('names from outside make only so many networks, and known ones stay admitted', () => {
  const networks = new Networks();
  const first = networks.admit('acme', 'v0');
  for (let i = 1; i < NETWORKS_ADMITTED_MAX; i++) assert.notEqual(networks.admit('acme', `v${i}`), 0);
  assert.equal(networks.admit('acme', 'one-more'), 0);
  assert.equal(networks.admit('acme', 'v0'), first);
  assert.notEqual(networks.intern('acme', 'of-the-config'), 0);
});
