/** BLAKE2s (RFC 7693) and HMAC over it, by OpenSSL. */
import { hash } from 'node:crypto';

import { blake2sMacBytes, blake2sMacEquals, hmacBlake2sBytes } from '#io/ffi/openssl-evp.ts';

/** Bytes of an unkeyed hash. */
export const BLAKE2S_LENGTH = 32;
/** Bytes of a keyed hash as `writeBlake2sMac` and `checkBlake2sMac` make and check it. */
export const BLAKE2S_MAC_LENGTH = 16;

/** Unkeyed BLAKE2s-256 of `parts` joined: 32 bytes, the caller's. */
export function blake2s(...parts: readonly Uint8Array[]): Uint8Array {
  return hash('blake2s256', parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts), 'buffer');
}

/** HMAC-BLAKE2s-256 (RFC 2104): 32 bytes, the caller's. `key` has at most 64 bytes, `data` 2048. */
export function hmacBlake2s(key: Uint8Array, data: Uint8Array): Uint8Array {
  return hmacBlake2sBytes(key, data);
}

/** Where the input of a keyed hash begins and ends, and where the hash stands or goes. */
export interface MacPlace {
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

/**
 * Writes keyed BLAKE2s with 16 bytes of output, over `bytes[from … to)` of at most 2048 bytes, at `at`. `key`
 * has 1 to 32 bytes.
 */
export function writeBlake2sMac(key: Uint8Array, bytes: Uint8Array, place: MacPlace): void {
  blake2sMacBytes(key, bytes, place);
}

/** True when the 16 bytes at `at` are the keyed hash that `writeBlake2sMac` writes; in constant time. */
export function checkBlake2sMac(key: Uint8Array, bytes: Uint8Array, place: MacPlace): boolean {
  return blake2sMacEquals(key, bytes, place);
}
