/**
 * `crypto` is what several parts need of cryptography, none of it written here: `certificate.ts` reads what a
 * certificate says, `certificate-mint.ts` makes certificates by an authority's key; `aead.ts`, `blake2s.ts`,
 * `hkdf.ts` and `x25519.ts` are what Noise handshakes and encrypted packets are made of. Primitives are
 * OpenSSL's, the copy inside Node.
 *
 * This file is the folder's front: it says what belongs here. Import the file that you need, not this one.
 */
export {};
