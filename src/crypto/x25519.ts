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

/** The key pair of 32 secret bytes, which are copied; any bytes will do (RFC 7748 section 5). */
export function keyPairOf(secret: Uint8Array): KeyPair {
  assert(secret.length === X25519_LENGTH);
  // Raw formats cost half of what DER costs.
  const privateKey = createPrivateKey({
    key: bufferOf(secret),
    format: 'raw-private',
    asymmetricKeyType: 'x25519',
  });
  const exported = createPublicKey(privateKey).export({ format: 'raw-public' });
  return { privateKey, publicKey: Uint8Array.from(exported) };
}

/**
 * The shared secret of a private key and a peer's 32-byte public key, the caller's; null when it would be all
 * zeros, as with a public key of low order (RFC 7748 section 6.1).
 */
export function sharedSecret(privateKey: KeyObject, publicKey: Uint8Array): Uint8Array | null {
  assert(publicKey.length === X25519_LENGTH);
  const key = bufferOf(publicKey);
  try {
    return diffieHellman({
      privateKey,
      publicKey: createPublicKey({ key, format: 'raw-public', asymmetricKeyType: 'x25519' }),
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_OSSL_FAILED_DURING_DERIVATION') return null;
    throw error;
  }
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
