import assert from 'node:assert/strict';
import { createCipheriv, createHmac, randomBytes } from 'node:crypto';
import { test } from 'node:test';

import { hchacha20, open, openExtended, PacketCipher, seal, sealExtended } from './aead.ts';
import { blake2s, checkBlake2sMac, hmacBlake2s, writeBlake2sMac } from './blake2s.ts';
import { kdf1, kdf2, kdf3 } from './hkdf.ts';
import { keyPairOf, sharedSecret } from './x25519.ts';

const hex = (text: string): Uint8Array => Uint8Array.fromHex(text.replaceAll(/\s/g, ''));
const text = (bytes: Uint8Array | null): string => (bytes === null ? 'null' : bytes.toHex());
const range = (from: number, count: number): Uint8Array =>
  Uint8Array.from({ length: count }, (_, index) => from + index);

const SUNSCREEN = new TextEncoder().encode(
  "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, " +
    'sunscreen would be it.',
);

test('ChaCha20-Poly1305 has the vector of RFC 8439 section 2.8.2', () => {
  const message = {
    key: range(0x80, 32),
    nonce: hex('070000004041424344454647'),
    associated: hex('50515253c0c1c2c3c4c5c6c7'),
    data: SUNSCREEN,
  };
  const sealed = seal(message);
  assert.equal(text(sealed.subarray(0, 16)), 'd31a8d34648e60db7b86afbc53ef7ec2');
  assert.equal(text(sealed.subarray(-16)), '1ae10b594f09e26a7e902ecbd0600691');
  assert.equal(text(open({ ...message, data: sealed })), text(SUNSCREEN));
});

test('XChaCha20-Poly1305 has the vectors of draft-irtf-cfrg-xchacha-03', () => {
  const key = hchacha20(range(0, 32), hex('000000090000004a0000000031415927'));
  assert.equal(text(key), '82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc');
  const message = {
    key: range(0x80, 32),
    nonce: range(0x40, 24),
    associated: hex('50515253c0c1c2c3c4c5c6c7'),
    data: SUNSCREEN,
  };
  const sealed = sealExtended(message);
  assert.equal(text(sealed.subarray(0, 16)), 'bd6d179d3e83d43b9576579493c0e939');
  assert.equal(text(sealed.subarray(-16)), 'c0875924c1c7987947deafd8780acf49');
  assert.equal(text(openExtended({ ...message, data: sealed })), text(SUNSCREEN));
});

test('a changed bit anywhere makes a small message unauthentic', () => {
  const message = { key: range(1, 32), nonce: range(2, 12), associated: range(3, 20), data: range(4, 40) };
  const sealed = seal(message);
  for (let at = 0; at < sealed.length; at++) {
    const changed = sealed.slice();
    changed[at] = (changed[at] as number) ^ 1;
    assert.equal(open({ ...message, data: changed }), null);
  }
  for (const part of ['key', 'nonce', 'associated'] as const) {
    const changed = message[part].slice();
    changed[0] = (changed[0] as number) ^ 0x80;
    assert.equal(open({ ...message, [part]: changed, data: sealed }), null, part);
  }
  assert.equal(open({ ...message, data: sealed.subarray(0, 15) }), null);
});

test('packets sealed in place are what node:crypto makes, at every length and counter', () => {
  const area = new DataView(new ArrayBuffer(4096));
  const bytes = new Uint8Array(area.buffer);
  const memory = new PacketCipher(area);
  const key = randomBytes(32);
  const words = new Int32Array(24);
  new Uint8Array(words.buffer).set(key, 40);
  for (const counter of [0, 1, 0xffffffff, 2 ** 32, 2 ** 53 - 1]) {
    for (const length of [0, 1, 15, 16, 17, 64, 1420, 2000]) {
      const plain = randomBytes(length);
      bytes.fill(0xee).set(plain, 100);
      memory.seal(words, 10, counter, 100, length);
      const nonce = Buffer.alloc(12);
      nonce.writeBigUInt64LE(BigInt(counter), 4);
      const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 });
      const expected = Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
      assert.equal(text(bytes.subarray(100, 116 + length)), expected.toString('hex'));
      assert.ok(bytes[99] === 0xee && bytes[116 + length] === 0xee, 'nothing outside is written');
      const sealed = bytes.slice(100, 116 + length);
      assert.ok(memory.open(words, 10, counter, 100, length));
      assert.equal(text(bytes.subarray(100, 100 + length)), plain.toString('hex'));
      bytes.set(sealed, 100);
      bytes[100 + length] = (bytes[100 + length] as number) ^ 4;
      assert.ok(!memory.open(words, 10, counter, 100, length));
    }
  }
});

test('BLAKE2s has the vector of RFC 7693 appendix B and those of its reference, keyed ones too', () => {
  const abc = new TextEncoder().encode('abc');
  assert.equal(text(blake2s(abc)), '508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982');
  assert.equal(text(blake2s(abc.subarray(0, 1), abc.subarray(1))), text(blake2s(abc)));
  // Keyed, 16 bytes of output. They are Python's hashlib.blake2s(digest_size=16, key=…).
  const cases: [key: Uint8Array, data: Uint8Array, mac: string][] = [
    [range(0, 32), range(0, 0), '9536f9b267655743dee97b8a670f9f53'],
    [range(0, 32), range(0, 255), 'cd075928ab7e6883e697fe7fd3ac43ee'],
    [range(0, 16), range(0, 132), 'b03d1196bdcfaad40f911db86b79ac7e'],
  ];
  for (const [key, data, mac] of cases) {
    const into = new Uint8Array(data.length + 16);
    into.set(data);
    writeBlake2sMac(key, into, { from: 0, to: data.length, at: data.length });
    assert.equal(text(into.subarray(data.length)), mac);
    assert.ok(checkBlake2sMac(key, into, { from: 0, to: data.length, at: data.length }));
    into[data.length + 3] = (into[data.length + 3] as number) ^ 1;
    assert.ok(!checkBlake2sMac(key, into, { from: 0, to: data.length, at: data.length }));
  }
});

test('HMAC-BLAKE2s and the three key derivations agree with node:crypto', () => {
  const hmac = (key: Uint8Array, ...parts: Uint8Array[]): Buffer => {
    const mac = createHmac('blake2s256', key);
    for (const part of parts) mac.update(part);
    return mac.digest();
  };
  const key = randomBytes(32);
  for (const input of [new Uint8Array(0), randomBytes(32), randomBytes(300)]) {
    assert.equal(text(hmacBlake2s(key, input)), hmac(key, input).toString('hex'));
    const secret = hmac(key, input);
    const first = hmac(secret, Uint8Array.of(1));
    const second = hmac(secret, first, Uint8Array.of(2));
    const third = hmac(secret, second, Uint8Array.of(3));
    const expected = [first, second, third].map((part) => part.toString('hex'));
    assert.deepEqual([text(kdf1(key, input))], expected.slice(0, 1));
    assert.deepEqual(kdf2(key, input).map(text), expected.slice(0, 2));
    assert.deepEqual(kdf3(key, input).map(text), expected);
  }
});

test('X25519 has the vectors of RFC 7748 section 6.1', () => {
  const alice = keyPairOf(hex(ALICE));
  const bob = keyPairOf(hex(BOB));
  assert.equal(text(alice.publicKey), '8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a');
  assert.equal(text(bob.publicKey), 'de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f');
  const shared = '4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742';
  assert.equal(text(sharedSecret(alice.privateKey, bob.publicKey)), shared);
  assert.equal(text(sharedSecret(bob.privateKey, alice.publicKey)), shared);
});

test('public keys of low order give no secret', () => {
  const pair = keyPairOf(range(1, 32));
  assert.equal(sharedSecret(pair.privateKey, new Uint8Array(32)), null);
  assert.equal(sharedSecret(pair.privateKey, Uint8Array.of(1, ...new Uint8Array(31))), null);
});

const ALICE = '77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a';
const BOB = '5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb';
