/**
 * Ciphers and message authentication of the OpenSSL inside Node, for messages that are too many or too small
 * for `node:crypto`: ChaCha20-Poly1305 in place (RFC 8439 section 2.8), keyed BLAKE2s (RFC 7693), HMAC over
 * BLAKE2s, and single blocks of the ChaCha20 key stream.
 *
 * One context of each kind serves all keys of the thread: giving a key with every message costs a few
 * nanoseconds, and nothing of OpenSSL's has to be freed when a session ends. Keys, nonces and tags pass
 * through a small block of memory of this file, whose addresses are BigInts made once.
 *
 * All functions have two to six pointer arguments and an int result, as `libc.ts` explains. `node:crypto` has
 * no keyed BLAKE2s: `createHash` takes a key and ignores it.
 */
import { getRawPointer } from 'node:ffi';

import { assert } from '#base/assert.ts';

import { big, nativeFunction, nativePointerFunction, reserveMemory } from './libc.ts';

const cipherContextNew = nativePointerFunction('EVP_CIPHER_CTX_new', 2);
const chacha20Poly1305 = nativePointerFunction('EVP_chacha20_poly1305', 2);
const chacha20 = nativePointerFunction('EVP_chacha20', 2);
const encryptInit = nativeFunction('EVP_EncryptInit_ex', 5);
const encryptUpdate = nativeFunction('EVP_EncryptUpdate', 5);
const encryptFinal = nativeFunction('EVP_EncryptFinal_ex', 3);
const decryptInit = nativeFunction('EVP_DecryptInit_ex', 5);
const decryptUpdate = nativeFunction('EVP_DecryptUpdate', 5);
const decryptFinal = nativeFunction('EVP_DecryptFinal_ex', 3);
const cipherControl = nativeFunction('EVP_CIPHER_CTX_ctrl', 4);
const macFetch = nativePointerFunction('EVP_MAC_fetch', 3);
const macContextNew = nativePointerFunction('EVP_MAC_CTX_new', 2);
const macSetParams = nativeFunction('EVP_MAC_CTX_set_params', 2);
const macInit = nativeFunction('EVP_MAC_init', 4);
const macUpdate = nativeFunction('EVP_MAC_update', 3);
const macFinal = nativeFunction('EVP_MAC_final', 4);

/** Numbers of `evp.h` and `core.h`, which are part of OpenSSL's ABI. */
const CTRL_AEAD_GET_TAG = 0x10n;
const CTRL_AEAD_SET_TAG = 0x11n;
const PARAM_UNSIGNED_INTEGER = 2;
const PARAM_UTF8_STRING = 4;
const PARAM_BYTES = 40;

// --- memory of one thread ----------------------------------------------------------------------------------

const KEY = 0;
const NONCE = 64;
const TAG = 96;
const LENGTH = 128;
const PARAMS = 192;
const NAMES = 512;
const OUTPUT = 1024;
const INPUT = 1536;
/** Longest message and longest associated data of the calls that copy. */
const INPUT_BYTES_MAX = 2048;
const ASSOCIATED = INPUT + INPUT_BYTES_MAX + 64;
const memory = reserveMemory(8192);
const view = new DataView(memory.memory);
const bytes = new Uint8Array(memory.memory);
const keyWords = new Int32Array(memory.memory, KEY, 8);
const tagWords = new Int32Array(memory.memory, TAG, 4);
const keyAddress = big(memory.address + KEY);
const nonceAddress = big(memory.address + NONCE);
const tagAddress = big(memory.address + TAG);
const lengthAddress = big(memory.address + LENGTH);
const outputAddress = big(memory.address + OUTPUT);
const inputAddress = big(memory.address + INPUT);
const associatedAddress = big(memory.address + ASSOCIATED);

/** Writes a C string and returns its address. */
function cString(text: string, at: number): bigint {
  bytes.set(new TextEncoder().encode(`${text}\0`), at);
  return big(memory.address + at);
}

function made(pointer: bigint, what: string): bigint {
  if (pointer === 0n) throw new Error(`OpenSSL has no ${what}`);
  return pointer;
}

function succeeded(outcome: number): void {
  assert(outcome === 1, 'OpenSSL refused an operation that cannot fail');
}

// --- ChaCha20-Poly1305 -------------------------------------------------------------------------------------

const encryption = made(cipherContextNew(0n, 0n), 'memory');
const decryption = made(cipherContextNew(0n, 0n), 'memory');
const cipher = made(chacha20Poly1305(0n, 0n), 'ChaCha20-Poly1305');
succeeded(encryptInit(encryption, cipher, 0n, keyAddress, nonceAddress));
succeeded(decryptInit(decryption, cipher, 0n, keyAddress, nonceAddress));

/** Key and nonce of the next message; the nonce is four zero bytes and `counter`, little-endian. */
function prepare(key: Int32Array, keyAt: number, counter: number): void {
  for (let i = 0; i < 8; i++) keyWords[i] = key[keyAt + i] as number;
  const high = Math.floor(counter / 0x1_0000_0000);
  view.setInt32(NONCE, 0);
  view.setInt32(NONCE + 4, (counter - high * 0x1_0000_0000) | 0, true);
  view.setInt32(NONCE + 8, high, true);
}

/** Bytes of a Poly1305 tag. */
export const AEAD_TAG_LENGTH = 16;

/** Memory that messages are sealed and opened in. It must not be moved, resized or detached. */
export class AeadMemory {
  readonly #view: DataView;
  readonly #address: number;

  constructor(area: DataView) {
    this.#view = area;
    this.#address = Number(getRawPointer(area));
  }

  /**
   * Seals the `length` bytes at `at` in place; the tag is written behind them, so `length + 16` bytes are
   * used. `key` holds eight words at `keyAt`; `counter` is an integer from 0 to 2^53 − 1 and must never be
   * used twice with a key.
   */
  seal(key: Int32Array, keyAt: number, counter: number, at: number, length: number): void {
    assert(at >= 0 && length >= 0 && at + length + AEAD_TAG_LENGTH <= this.#view.byteLength);
    prepare(key, keyAt, counter);
    const data = BigInt(this.#address + at);
    const count = big(length);
    let done = encryptInit(encryption, 0n, 0n, keyAddress, nonceAddress);
    if (length > 0) done &= encryptUpdate(encryption, data, lengthAddress, data, count);
    done &= encryptFinal(encryption, outputAddress, lengthAddress);
    done &= cipherControl(encryption, CTRL_AEAD_GET_TAG, 16n, tagAddress);
    succeeded(done);
    // Addresses of memory are in this machine's order, so words are copied as they are.
    this.#view.setInt32(at + length, tagWords[0] as number, true);
    this.#view.setInt32(at + length + 4, tagWords[1] as number, true);
    this.#view.setInt32(at + length + 8, tagWords[2] as number, true);
    this.#view.setInt32(at + length + 12, tagWords[3] as number, true);
  }

  /**
   * Opens the `length` bytes at `at` in place, whose tag stands behind them. False when they are not
   * authentic: the bytes are garbage then. Arguments as for `seal`.
   */
  open(key: Int32Array, keyAt: number, counter: number, at: number, length: number): boolean {
    assert(at >= 0 && length >= 0 && at + length + AEAD_TAG_LENGTH <= this.#view.byteLength);
    prepare(key, keyAt, counter);
    tagWords[0] = this.#view.getInt32(at + length, true);
    tagWords[1] = this.#view.getInt32(at + length + 4, true);
    tagWords[2] = this.#view.getInt32(at + length + 8, true);
    tagWords[3] = this.#view.getInt32(at + length + 12, true);
    const data = BigInt(this.#address + at);
    let done = decryptInit(decryption, 0n, 0n, keyAddress, nonceAddress);
    done &= cipherControl(decryption, CTRL_AEAD_SET_TAG, 16n, tagAddress);
    if (length > 0) done &= decryptUpdate(decryption, data, lengthAddress, data, big(length));
    succeeded(done);
    return decryptFinal(decryption, outputAddress, lengthAddress) === 1;
  }
}

/** A message of a handshake: small, with associated data. */
export interface SmallMessage {
  /** 32 bytes. */
  readonly key: Uint8Array;
  /** 12 bytes. */
  readonly nonce: Uint8Array;
  /** At most 2048 bytes each. */
  readonly associated: Uint8Array;
  readonly data: Uint8Array;
}

function load(message: SmallMessage): void {
  assert(message.key.length === 32 && message.nonce.length === 12);
  assert(message.associated.length <= INPUT_BYTES_MAX && message.data.length <= INPUT_BYTES_MAX);
  bytes.set(message.key, KEY);
  bytes.set(message.nonce, NONCE);
  bytes.set(message.associated, ASSOCIATED);
  bytes.set(message.data, INPUT);
}

/** The sealed message with its tag, the caller's. */
export function sealSmall(message: SmallMessage): Uint8Array {
  load(message);
  const length = message.data.length;
  let done = encryptInit(encryption, 0n, 0n, keyAddress, nonceAddress);
  const associatedLength = big(message.associated.length);
  if (message.associated.length > 0) {
    done &= encryptUpdate(encryption, 0n, lengthAddress, associatedAddress, associatedLength);
  }
  if (length > 0) done &= encryptUpdate(encryption, inputAddress, lengthAddress, inputAddress, big(length));
  done &= encryptFinal(encryption, outputAddress, lengthAddress);
  done &= cipherControl(encryption, CTRL_AEAD_GET_TAG, 16n, tagAddress);
  succeeded(done);
  const sealed = new Uint8Array(length + AEAD_TAG_LENGTH);
  sealed.set(bytes.subarray(INPUT, INPUT + length));
  sealed.set(bytes.subarray(TAG, TAG + AEAD_TAG_LENGTH), length);
  bytes.fill(0, KEY, KEY + 32).fill(0, INPUT, INPUT + length);
  return sealed;
}

/** What `data`, which ends with its tag, says; null when it is not authentic. The result is the caller's. */
export function openSmall(message: SmallMessage): Uint8Array | null {
  const length = message.data.length - AEAD_TAG_LENGTH;
  if (length < 0) return null;
  load(message);
  bytes.copyWithin(TAG, INPUT + length, INPUT + length + AEAD_TAG_LENGTH);
  let done = decryptInit(decryption, 0n, 0n, keyAddress, nonceAddress);
  done &= cipherControl(decryption, CTRL_AEAD_SET_TAG, 16n, tagAddress);
  if (message.associated.length > 0) {
    const associatedLength = big(message.associated.length);
    done &= decryptUpdate(decryption, 0n, lengthAddress, associatedAddress, associatedLength);
  }
  if (length > 0) done &= decryptUpdate(decryption, inputAddress, lengthAddress, inputAddress, big(length));
  succeeded(done);
  const authentic = decryptFinal(decryption, outputAddress, lengthAddress) === 1;
  const opened = authentic ? bytes.slice(INPUT, INPUT + length) : null;
  bytes.fill(0, KEY, KEY + 32).fill(0, INPUT, INPUT + length);
  return opened;
}

// --- ChaCha20 ----------------------------------------------------------------------------------------------

const stream = made(cipherContextNew(0n, 0n), 'memory');
succeeded(encryptInit(stream, made(chacha20(0n, 0n), 'ChaCha20'), 0n, keyAddress, nonceAddress));

/**
 * One block of 64 bytes of the ChaCha20 key stream (RFC 8439 section 2.3), the caller's. `input` has 16
 * bytes: block counter, little-endian, and nonce; `key` 32.
 */
export function chacha20Block(key: Uint8Array, input: Uint8Array): Uint8Array {
  assert(key.length === 32 && input.length === 16);
  bytes.set(key, KEY);
  bytes.set(input, NONCE);
  bytes.fill(0, INPUT, INPUT + 64);
  let done = encryptInit(stream, 0n, 0n, keyAddress, nonceAddress);
  done &= encryptUpdate(stream, inputAddress, lengthAddress, inputAddress, 64n);
  succeeded(done);
  const block = bytes.slice(INPUT, INPUT + 64);
  bytes.fill(0, KEY, KEY + 32).fill(0, INPUT, INPUT + 64);
  return block;
}

// --- message authentication --------------------------------------------------------------------------------

/** An `OSSL_PARAM` and the empty one that ends the list, at `PARAMS`; returns the list's address. */
function oneParam(name: string, type: number, dataAt: number, dataLength: number): bigint {
  bytes.fill(0, PARAMS, PARAMS + 2 * PARAM_BYTES);
  view.setBigUint64(PARAMS, cString(name, NAMES), true);
  view.setUint32(PARAMS + 8, type, true);
  view.setBigUint64(PARAMS + 16, BigInt(memory.address + dataAt), true);
  view.setBigUint64(PARAMS + 24, BigInt(dataLength), true);
  return big(memory.address + PARAMS);
}

function macContext(algorithm: string): bigint {
  const mac = made(macFetch(0n, cString(algorithm, NAMES), 0n), algorithm);
  return made(macContextNew(mac, 0n), 'memory');
}

const BLAKE2S_MAC_LENGTH = 16;
const blake2sMac = macContext('BLAKE2SMAC');
view.setBigUint64(OUTPUT, BigInt(BLAKE2S_MAC_LENGTH), true);
succeeded(macSetParams(blake2sMac, oneParam('size', PARAM_UNSIGNED_INTEGER, OUTPUT, 8)));
const hmac = macContext('HMAC');
bytes.set(new TextEncoder().encode('BLAKE2S-256'), OUTPUT);
succeeded(macSetParams(hmac, oneParam('digest', PARAM_UTF8_STRING, OUTPUT, 11)));

/** Room for a key of a MAC, which is at most 64 bytes, so that HMAC need not hash it first. */
const MAC_KEY_BYTES_MAX = 64;

function authenticate(context: bigint, key: Uint8Array, data: Uint8Array, from: number, to: number): void {
  assert(key.length <= MAC_KEY_BYTES_MAX && from >= 0 && to >= from && to <= data.length);
  const length = to - from;
  assert(length <= INPUT_BYTES_MAX);
  for (let i = 0; i < key.length; i++) bytes[KEY + i] = key[i] as number;
  for (let i = 0; i < length; i++) bytes[INPUT + i] = data[from + i] as number;
  let done = macInit(context, keyAddress, big(key.length), 0n);
  done &= macUpdate(context, inputAddress, big(length));
  done &= macFinal(context, outputAddress, lengthAddress, 64n);
  succeeded(done);
}

/** A range of bytes that is hashed, and where the hash stands or goes. */
interface MacRange {
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

/**
 * Keyed BLAKE2s with 16 bytes of output over `data[from … to)`, at most 2048 bytes, written at `at`; `key`
 * has 1 to 32 bytes.
 */
export function blake2sMacBytes(key: Uint8Array, data: Uint8Array, { from, to, at }: MacRange): void {
  assert(key.length > 0 && key.length <= 32 && at + BLAKE2S_MAC_LENGTH <= data.length);
  authenticate(blake2sMac, key, data, from, to);
  for (let i = 0; i < BLAKE2S_MAC_LENGTH; i++) data[at + i] = bytes[OUTPUT + i] as number;
}

/** True when the 16 bytes at `at` are what `blake2sMacBytes` writes there; compared in constant time. */
export function blake2sMacEquals(key: Uint8Array, data: Uint8Array, { from, to, at }: MacRange): boolean {
  assert(key.length > 0 && key.length <= 32 && at + BLAKE2S_MAC_LENGTH <= data.length);
  authenticate(blake2sMac, key, data, from, to);
  let difference = 0;
  for (let i = 0; i < BLAKE2S_MAC_LENGTH; i++) {
    difference |= (data[at + i] as number) ^ (bytes[OUTPUT + i] as number);
  }
  return difference === 0;
}

/** HMAC-BLAKE2s-256 (RFC 2104) of `data`, at most 2048 bytes; 32 bytes, the caller's. */
export function hmacBlake2sBytes(key: Uint8Array, data: Uint8Array): Uint8Array {
  authenticate(hmac, key, data, 0, data.length);
  const result = bytes.slice(OUTPUT, OUTPUT + 32);
  bytes.fill(0, KEY, KEY + MAC_KEY_BYTES_MAX).fill(0, OUTPUT, OUTPUT + 32);
  return result;
}
