/**
 * Authenticated encryption: ChaCha20-Poly1305 (RFC 8439), in place for packets and by copies for messages of
 * handshakes, and XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03). All of it is OpenSSL's.
 */
import { assert } from '#base/assert.ts';
import { AeadMemory, chacha20Block, openSmall, type SmallMessage, sealSmall } from '#io/ffi/openssl-evp.ts';

/** Bytes of the tag behind every sealed message. */
export const AEAD_TAG_LENGTH = 16;
/** Bytes of a key. */
export const AEAD_KEY_LENGTH = 32;
/** Bytes of the nonce of XChaCha20-Poly1305. */
export const XCHACHA_NONCE_LENGTH = 24;

/**
 * ChaCha20-Poly1305 for packets that lie in one memory, which must not be moved, resized or detached. Keys
 * are eight words of an `Int32Array` (their 32 bytes as they are in memory), nonces are four zero bytes and a
 * counter of 64 bits, little-endian. Nothing is allocated per packet.
 */
export class PacketCipher {
  readonly #memory: AeadMemory;

  constructor(area: DataView) {
    this.#memory = new AeadMemory(area);
  }

  /**
   * Seals the `length` bytes at `at` in place and writes the tag behind them: `length + 16` bytes are used.
   * The key stands at `keyAt`; `counter` is an integer below 2^53, never used twice with a key.
   */
  seal(key: Int32Array, keyAt: number, counter: number, at: number, length: number): void {
    this.#memory.seal(key, keyAt, counter, at, length);
  }

  /**
   * Opens the `length` bytes at `at` in place, whose tag stands behind them. False when they are not
   * authentic: they are garbage then.
   */
  open(key: Int32Array, keyAt: number, counter: number, at: number, length: number): boolean {
    return this.#memory.open(key, keyAt, counter, at, length);
  }
}

/**
 * Seals a small message: `data` (at most 2048 bytes) under `key` with a 12-byte `nonce`, bound to
 * `associated`. Returns ciphertext and tag, the caller's.
 */
export function seal(message: SmallMessage): Uint8Array {
  return sealSmall(message);
}

/** What the sealed `data` says, the caller's; null when it is not authentic. */
export function open(message: SmallMessage): Uint8Array | null {
  return openSmall(message);
}

/** `seal` by XChaCha20-Poly1305: `nonce` has 24 bytes and may be random. */
export function sealExtended(message: SmallMessage): Uint8Array {
  return sealSmall(shortened(message));
}

/** `open` by XChaCha20-Poly1305. */
export function openExtended(message: SmallMessage): Uint8Array | null {
  return openSmall(shortened(message));
}

/** The ChaCha20-Poly1305 message that an XChaCha20-Poly1305 message is (section 2.3 of the draft). */
function shortened(message: SmallMessage): SmallMessage {
  assert(message.nonce.length === XCHACHA_NONCE_LENGTH);
  const nonce = new Uint8Array(12);
  nonce.set(message.nonce.subarray(16), 4);
  return { ...message, key: hchacha20(message.key, message.nonce.subarray(0, 16)), nonce };
}

/** "expand 32-byte k" as four words: the first row of the state of ChaCha20. */
const FIRST_ROW = Object.freeze([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]);

/**
 * HChaCha20 (section 2.2 of the draft): the first and last row of ChaCha20's state after its rounds. OpenSSL
 * gives a block of key stream, which is that state plus the one before the rounds, whose first and last row
 * are known: they are subtracted. `input` has 16 bytes; the result 32, the caller's.
 */
export function hchacha20(key: Uint8Array, input: Uint8Array): Uint8Array {
  const block = chacha20Block(key, input);
  const words = new DataView(block.buffer);
  const given = new DataView(input.buffer, input.byteOffset, 16);
  const result = new Uint8Array(32);
  const into = new DataView(result.buffer);
  for (let i = 0; i < 4; i++) {
    into.setInt32(4 * i, words.getInt32(4 * i, true) - (FIRST_ROW[i] as number), true);
    into.setInt32(16 + 4 * i, words.getInt32(48 + 4 * i, true) - given.getInt32(4 * i, true), true);
  }
  block.fill(0);
  return result;
}
