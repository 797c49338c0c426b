import assert from 'node:assert/strict';
import { randomBytes, scryptSync } from 'node:crypto';
import { test } from 'node:test';

import { parsePasswordHash, type UserConfig } from '#config/users.ts';

import { Users } from './users.ts';

function user(name: string, password: string): UserConfig {
  const salt = randomBytes(16);
  const hash = scryptSync(password, salt, 32, { N: 1024, r: 8, p: 1 });
  const text = `scrypt:10:${salt.toString('base64')}:${hash.toString('base64')}`;
  const parsed = parsePasswordHash(text);
  assert.ok(parsed !== null);
  return { name, hash: parsed, groups: [] };
}

test('a right password is right, then at once; a wrong one never is', async () => {
  const users = new Users([user('ada', 'secret'), user('bob', 'other')]);
  assert.equal((await users.verify('ada', 'secret'))?.name, 'ada');
  const again = users.verify('ada', 'secret');
  assert.ok(!(again instanceof Promise) && again?.name === 'ada');
  assert.equal(await users.verify('ada', 'other'), null);
  assert.equal(await users.verify('bob', 'secret'), null);
  assert.equal(await users.verify('nobody', 'secret'), null);
  assert.equal(await users.verify('ada\0secret', ''), null);
});

test('verifications at once are limited', async () => {
  const users = new Users([user('ada', 'secret')]);
  const tries = Array.from({ length: 40 }, (_, index) => users.verify('ada', `guess ${index}`));
  assert.equal(tries.filter((answer) => answer instanceof Promise).length, 16);
  for (const answer of tries) assert.equal(await answer, null);
  assert.equal((await users.verify('ada', 'secret'))?.name, 'ada');
});

test('hashes that are none are refused', () => {
  const good = `scrypt:14:${'A'.repeat(22)}==:${'B'.repeat(43)}=`;
  assert.notEqual(parsePasswordHash(good), null);
  for (const text of [
    'secret',
    '',
    'scrypt:9:AAAAAAAA:BBBB',
    good.replace('14', '30'),
    good.replace('scrypt', 'md5'),
  ]) {
    assert.equal(parsePasswordHash(text), null, text);
  }
});
