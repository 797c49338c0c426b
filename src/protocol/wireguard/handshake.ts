/**
 * The handshake: Noise IKpsk2 (Noise revision 34) as section 5.4 of the whitepaper writes it out. What is
 * proved by one message is a value that the next step needs, so no step can be left out or repeated:
 *
 * ```
 *   initiator                                          responder
 *   initiate() ── Initiation ─────────────────────────► readInitiation()
 *       │                                                   │ ClaimedInitiation: somebody knows our key
 *       ▼                                                   ▼ verify()
 *   ExpectResponse                                      VerifiedInitiation: it has the static key it claims
 *       │ accept()  ◄──────────────────── Response ──── respond()
 *       ▼                                                   ▼
 *   TransportKeys                                       TransportKeys, unconfirmed until a transport
 *                                                       message comes that they open
 * ```
 *
 * Ephemeral secrets come in as arguments and are used once.
 */
import { assert } from '#base/assert.ts';
import { open, seal } from '#crypto/aead.ts';
import { blake2s } from '#crypto/blake2s.ts';
import { kdf1, kdf2, kdf3 } from '#crypto/hkdf.ts';
import { type KeyPair, keyPairOf, sharedSecret } from '#crypto/x25519.ts';

import {
  INITIATION_EPHEMERAL,
  INITIATION_STATIC,
  INITIATION_TIMESTAMP,
  MAC1_FROM_END,
  RESPONSE_EPHEMERAL,
  RESPONSE_NOTHING,
  RESPONSE_RECEIVER,
  SENDER,
} from './message.ts';
import {
  CONSTRUCTION,
  IDENTIFIER,
  INITIATION_LENGTH,
  MessageType,
  RESPONSE_LENGTH,
} from './specification.ts';

const encoder = new TextEncoder();
const FIRST_CHAINING_KEY = blake2s(encoder.encode(CONSTRUCTION));
const FIRST_HASH = blake2s(FIRST_CHAINING_KEY, encoder.encode(IDENTIFIER));
const NOTHING = new Uint8Array(0);
/** All keys of a handshake seal one message each, so its nonce is zero. */
const NONCE = new Uint8Array(12);

/** What a handshake ends in. */
export interface TransportKeys {
  /** Sixteen words: the key for sending, then the key for receiving. Whoever drops it fills it with zeros. */
  readonly keys: Int32Array;
  /** The index that the peer wants to be addressed by, signed. */
  readonly remoteIndex: number;
}

/** What both sides know of each other before: computed once, kept with the peer. */
export interface KnownPeer {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 32 bytes, zeros when there is none. */
  readonly presharedKey: Uint8Array;
  /** The shared secret of the two static keys. */
  readonly staticSecret: Uint8Array;
}

/** Chance for one message: who sends it and its ephemeral key. */
export interface MessageChance {
  /** The index that answers are to be addressed to, signed. */
  readonly sender: number;
  /** 32 secret bytes, never used before. */
  readonly ephemeralSecret: Uint8Array;
}

// --- initiator ---------------------------------------------------------------------------------------------

/** The message, with MACs still to be written, and what awaits its answer; the caller's. */
export interface Initiated {
  readonly message: Uint8Array;
  readonly expect: ExpectResponse;
}

/** Begins a handshake with `peer`; `timestamp` is a TAI64N label, later than the last one. */
export function initiate(
  own: KeyPair,
  peer: KnownPeer,
  chance: MessageChance & { readonly timestamp: Uint8Array },
): Initiated | null {
  const ephemeral = keyPairOf(chance.ephemeralSecret);
  const secret = sharedSecret(ephemeral.privateKey, peer.publicKey);
  if (secret === null) return null;
  const message = newMessage(MessageType.Initiation, INITIATION_LENGTH, chance.sender);
  let hash = blake2s(FIRST_HASH, peer.publicKey);
  message.set(ephemeral.publicKey, INITIATION_EPHEMERAL);
  let chainingKey = kdf1(FIRST_CHAINING_KEY, ephemeral.publicKey);
  hash = blake2s(hash, ephemeral.publicKey);

  let key: Uint8Array;
  [chainingKey, key] = kdf2(chainingKey, secret);
  const sealedStatic = seal({ key, nonce: NONCE, associated: hash, data: own.publicKey });
  message.set(sealedStatic, INITIATION_STATIC);
  hash = blake2s(hash, sealedStatic);

  [chainingKey, key] = kdf2(chainingKey, peer.staticSecret);
  const sealedTimestamp = seal({ key, nonce: NONCE, associated: hash, data: chance.timestamp });
  message.set(sealedTimestamp, INITIATION_TIMESTAMP);
  hash = blake2s(hash, sealedTimestamp);
  return { message, expect: new ExpectResponse(ephemeral, chainingKey, hash) };
}

/** An initiation has been sent: a response is awaited, and nothing else continues it. */
export class ExpectResponse {
  readonly #ephemeral: KeyPair;
  readonly #chainingKey: Uint8Array;
  readonly #hash: Uint8Array;

  constructor(ephemeral: KeyPair, chainingKey: Uint8Array, hash: Uint8Array) {
    this.#ephemeral = ephemeral;
    this.#chainingKey = chainingKey;
    this.#hash = hash;
  }

  /**
   * Keys from the response of `peer`, whose form and MAC1 have been checked; null when it is not authentic,
   * and then this goes on awaiting the right one.
   */
  accept(own: KeyPair, peer: KnownPeer, message: Uint8Array): TransportKeys | null {
    assert(message.length === RESPONSE_LENGTH && message[0] === MessageType.Response);
    const ephemeral = message.subarray(RESPONSE_EPHEMERAL, RESPONSE_NOTHING);
    const nothing = message.subarray(RESPONSE_NOTHING, RESPONSE_LENGTH - MAC1_FROM_END);
    const ephemeralSecret = sharedSecret(this.#ephemeral.privateKey, ephemeral);
    if (ephemeralSecret === null) return null;
    const staticSecret = sharedSecret(own.privateKey, ephemeral);
    if (staticSecret === null) return null;
    let chainingKey = kdf1(this.#chainingKey, ephemeral);
    const hash = blake2s(this.#hash, ephemeral);
    chainingKey = kdf1(chainingKey, ephemeralSecret);
    chainingKey = kdf1(chainingKey, staticSecret);
    const [last, mixed, key] = kdf3(chainingKey, peer.presharedKey);
    const opened = open({ key, nonce: NONCE, associated: blake2s(hash, mixed), data: nothing });
    if (opened === null) return null;
    const [send, receive] = kdf2(last, NOTHING);
    return { keys: joinKeys(send, receive), remoteIndex: viewOf(message).getInt32(SENDER, true) };
  }

  /** Erases what can be erased; for handshakes that are given up. */
  erase(): void {
    this.#chainingKey.fill(0);
    this.#hash.fill(0);
  }
}

// --- responder ---------------------------------------------------------------------------------------------

/** Reads an initiation whose form and MAC1 have been checked; null when it was not made for `own`. */
export function readInitiation(own: KeyPair, message: Uint8Array): ClaimedInitiation | null {
  assert(message.length === INITIATION_LENGTH && message[0] === MessageType.Initiation);
  const ephemeral = message.slice(INITIATION_EPHEMERAL, INITIATION_STATIC);
  const sealedStatic = message.subarray(INITIATION_STATIC, INITIATION_TIMESTAMP);
  const secret = sharedSecret(own.privateKey, ephemeral);
  if (secret === null) return null;
  const hash = blake2s(blake2s(FIRST_HASH, own.publicKey), ephemeral);
  const [chainingKey, key] = kdf2(kdf1(FIRST_CHAINING_KEY, ephemeral), secret);
  const publicKey = open({ key, nonce: NONCE, associated: hash, data: sealedStatic });
  if (publicKey === null) return null;
  const sealedTimestamp = message.slice(INITIATION_TIMESTAMP, INITIATION_LENGTH - MAC1_FROM_END);
  const remoteIndex = viewOf(message).getInt32(SENDER, true);
  const state = { chainingKey, hash: blake2s(hash, sealedStatic), ephemeral, remoteIndex };
  return new ClaimedInitiation(publicKey, sealedTimestamp, state);
}

/** What a responder carries from step to step. */
interface ResponderState {
  readonly chainingKey: Uint8Array;
  readonly hash: Uint8Array;
  /** The initiator's. */
  readonly ephemeral: Uint8Array;
  readonly remoteIndex: number;
}

/** Somebody who knows this side's public key says who it is; that is not proved yet. */
export class ClaimedInitiation {
  /** The static key that the initiator claims to have; for looking up the peer. */
  readonly publicKey: Uint8Array;
  readonly #sealedTimestamp: Uint8Array;
  readonly #state: ResponderState;

  constructor(publicKey: Uint8Array, sealedTimestamp: Uint8Array, state: ResponderState) {
    this.publicKey = publicKey;
    this.#sealedTimestamp = sealedTimestamp;
    this.#state = state;
  }

  /** Proves that the initiator has the static key of `peer`; null when it has not. */
  verify(peer: KnownPeer): VerifiedInitiation | null {
    const { hash } = this.#state;
    const [chainingKey, key] = kdf2(this.#state.chainingKey, peer.staticSecret);
    const timestamp = open({ key, nonce: NONCE, associated: hash, data: this.#sealedTimestamp });
    if (timestamp === null) return null;
    const state = { ...this.#state, chainingKey, hash: blake2s(hash, this.#sealedTimestamp) };
    return new VerifiedInitiation(peer, timestamp, state);
  }
}

/** The initiation was made by the peer, though perhaps long ago: the caller compares timestamps. */
export class VerifiedInitiation {
  /** TAI64N label. */
  readonly timestamp: Uint8Array;
  readonly #peer: KnownPeer;
  readonly #state: ResponderState;

  constructor(peer: KnownPeer, timestamp: Uint8Array, state: ResponderState) {
    this.#peer = peer;
    this.timestamp = timestamp;
    this.#state = state;
  }

  /** Answers; MACs are still to be written. Null when the initiator's ephemeral key is of low order. */
  respond(chance: MessageChance): { readonly message: Uint8Array; readonly transport: TransportKeys } | null {
    const ephemeral = keyPairOf(chance.ephemeralSecret);
    const ephemeralSecret = sharedSecret(ephemeral.privateKey, this.#state.ephemeral);
    const staticSecret = sharedSecret(ephemeral.privateKey, this.#peer.publicKey);
    if (ephemeralSecret === null || staticSecret === null) return null;
    const message = newMessage(MessageType.Response, RESPONSE_LENGTH, chance.sender);
    viewOf(message).setInt32(RESPONSE_RECEIVER, this.#state.remoteIndex, true);
    message.set(ephemeral.publicKey, RESPONSE_EPHEMERAL);
    let chainingKey = kdf1(this.#state.chainingKey, ephemeral.publicKey);
    const hash = blake2s(this.#state.hash, ephemeral.publicKey);
    chainingKey = kdf1(chainingKey, ephemeralSecret);
    chainingKey = kdf1(chainingKey, staticSecret);
    const [last, mixed, key] = kdf3(chainingKey, this.#peer.presharedKey);
    const associated = blake2s(hash, mixed);
    message.set(seal({ key, nonce: NONCE, associated, data: NOTHING }), RESPONSE_NOTHING);
    const [receive, send] = kdf2(last, NOTHING);
    return { message, transport: { keys: joinKeys(send, receive), remoteIndex: this.#state.remoteIndex } };
  }
}

// --- parts -------------------------------------------------------------------------------------------------

function newMessage(type: number, length: number, sender: number): Uint8Array {
  const message = new Uint8Array(length);
  message[0] = type;
  viewOf(message).setInt32(SENDER, sender, true);
  return message;
}

function joinKeys(send: Uint8Array, receive: Uint8Array): Int32Array {
  const keys = new Int32Array(16);
  const bytes = new Uint8Array(keys.buffer);
  bytes.set(send);
  bytes.set(receive, 32);
  send.fill(0);
  receive.fill(0);
  return keys;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
