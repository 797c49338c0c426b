import assert from 'node:assert/strict';
import { test } from 'node:test';

import { AccountShares } from './account-shares.ts';

test('the largest account is right after every one of many random changes', () => {
  const shares = new AccountShares(1000);
  const twin = new Map<number, number>();
  let state = 1;
  for (let step = 0; step < 20_000; step++) {
    state = (Math.imul(state, 1103515245) + 12345) | 0;
    const account = 1 + ((state >>> 16) % 90);
    const count = twin.get(account) ?? 0;
    if ((state & 0x1000) === 0 && count < 30) {
      shares.add(account);
      twin.set(account, count + 1);
    } else if (count > 0) {
      shares.remove(account);
      twin.set(account, count - 1);
    }
    const max = Math.max(0, ...twin.values());
    assert.equal(shares.countMax, max);
    if (max > 0) assert.equal(twin.get(shares.largest), max);
    else assert.equal(shares.largest, 0);
    assert.equal(shares.count(account), twin.get(account) ?? 0);
  }
});

test('an account without flows cannot lose one', () => {
  const shares = new AccountShares(4);
  shares.add(3);
  shares.remove(3);
  assert.throws(() => shares.remove(3), /no flow/);
});
