/** X25519 (RFC 7748) by `node:crypto`. */
import { createPrivateKey, createPublicKey, diffieHellman, type KeyObject } from 'node:crypto';

import { assert } from '#base/assert.ts';

/** Bytes of private keys, public keys and shared secrets. */
export const X25519_LENGTH = 32;

/** A private key, made ready once and used many times, with its public key. */
export interface KeyPair {
  readonly privateKey: KeyObject;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
}

/** PKCS #8 and SubjectPublicKeyInfo of X25519 (RFC 8410) up to the key itself. */
const PRIVATE_PREFIX = Uint8Array.fromHex('302e020100300506032b656e04220420');
const PUBLIC_PREFIX = Uint8Array.fromHex('302a300506032b656e032100');

/** The key pair of 32 secret bytes, which are copied; any bytes will do (RFC 7748 section 5). */
export function keyPairOf(secret: Uint8Array): KeyPair {
  assert(secret.length === X25519_LENGTH);
  const encoded = Buffer.concat([PRIVATE_PREFIX, secret]);
  const privateKey = createPrivateKey({ key: encoded, format: 'der', type: 'pkcs8' });
  encoded.fill(0);
  const exported = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  return { privateKey, publicKey: Uint8Array.from(exported.subarray(PUBLIC_PREFIX.length)) };
}

/**
 * The shared secret of a private key and a peer's 32-byte public key, the caller's; null when it would be all
 * zeros, as with a public key of low order (RFC 7748 section 6.1).
 */
export function sharedSecret(privateKey: KeyObject, publicKey: Uint8Array): Uint8Array | null {
  assert(publicKey.length === X25519_LENGTH);
  const encoded = Buffer.concat([PUBLIC_PREFIX, publicKey]);
  try {
    return diffieHellman({
      privateKey,
      publicKey: createPublicKey({ key: encoded, format: 'der', type: 'spki' }),
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_OSSL_FAILED_DURING_DERIVATION') return null;
    throw error;
  }
}
