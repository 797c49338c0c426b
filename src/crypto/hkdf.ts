/**
 * HKDF (RFC 5869) over HMAC-BLAKE2s as Noise uses it: a chaining key of 32 bytes and input give one, two or
 * three keys of 32 bytes, each the caller's (Noise revision 34, section 4.3).
 */
import { assert } from '#base/assert.ts';

import { hmacBlake2s } from './blake2s.ts';

/** The first key alone: the next chaining key. */
export function kdf1(chainingKey: Uint8Array, input: Uint8Array): Uint8Array {
  assert(chainingKey.length === 32);
  return hmacBlake2s(hmacBlake2s(chainingKey, input), ONE);
}

/** Two keys. */
export function kdf2(chainingKey: Uint8Array, input: Uint8Array): [first: Uint8Array, second: Uint8Array] {
  assert(chainingKey.length === 32);
  const secret = hmacBlake2s(chainingKey, input);
  const first = hmacBlake2s(secret, ONE);
  const second = expand(secret, first, 2);
  secret.fill(0);
  return [first, second];
}

/** Three keys. */
export function kdf3(
  chainingKey: Uint8Array,
  input: Uint8Array,
): [first: Uint8Array, second: Uint8Array, third: Uint8Array] {
  assert(chainingKey.length === 32);
  const secret = hmacBlake2s(chainingKey, input);
  const first = hmacBlake2s(secret, ONE);
  const second = expand(secret, first, 2);
  const third = expand(secret, second, 3);
  secret.fill(0);
  return [first, second, third];
}

const ONE = Uint8Array.of(1);

function expand(secret: Uint8Array, before: Uint8Array, counter: number): Uint8Array {
  const input = new Uint8Array(33);
  input.set(before);
  input[32] = counter;
  return hmacBlake2s(secret, input);
}
