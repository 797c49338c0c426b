/**
 * What protects the costly part of handshakes (whitepaper section 5.4.4 and 5.4.7). MAC1 shows that a sender
 * knows whom it is talking to; it costs one hash to check and nothing happens before. MAC2, demanded under
 * load, shows that a sender receives what is sent to its address: it is made with a cookie, which is a MAC of
 * that address under a secret that changes every two minutes.
 */
import { assert } from '#base/assert.ts';
import { openExtended, sealExtended, XCHACHA_NONCE_LENGTH } from '#crypto/aead.ts';
import { blake2s, checkBlake2sMac, writeBlake2sMac } from '#crypto/blake2s.ts';

import { cookieInput } from './endpoint.ts';
import {
  COOKIE_NONCE,
  COOKIE_RECEIVER,
  COOKIE_SEALED,
  MAC1_FROM_END,
  MAC2_FROM_END,
  MAC_LENGTH,
  SENDER,
} from './message.ts';
import {
  COOKIE_REPLY_LENGTH,
  COOKIE_SECRET_TIME,
  LABEL_COOKIE,
  LABEL_MAC1,
  MessageType,
} from './specification.ts';

/** Fills bytes with chance that nobody can foresee; comes from outside. */
export type RandomFill = (into: Uint8Array) => void;

const encoder = new TextEncoder();
const LABEL_MAC1_BYTES = encoder.encode(LABEL_MAC1);
const LABEL_COOKIE_BYTES = encoder.encode(LABEL_COOKIE);

/** The key of MAC1 of messages to who has `publicKey`; 32 bytes, the caller's. */
export function mac1Key(publicKey: Uint8Array): Uint8Array {
  return blake2s(LABEL_MAC1_BYTES, publicKey);
}

/** The key that cookies of who has `publicKey` are sealed with; 32 bytes, the caller's. */
export function cookieKey(publicKey: Uint8Array): Uint8Array {
  return blake2s(LABEL_COOKIE_BYTES, publicKey);
}

/** Checks MACs and makes cookies: the side that receives handshakes. One for each private key. */
export class CookieJar {
  readonly #mac1Key: Uint8Array;
  readonly #cookieKey: Uint8Array;
  readonly #random: RandomFill;
  readonly #secret = new Uint8Array(32);
  #secretAt = Number.NEGATIVE_INFINITY;

  /** `publicKey` is this side's own. */
  constructor(publicKey: Uint8Array, random: RandomFill) {
    this.#mac1Key = mac1Key(publicKey);
    this.#cookieKey = cookieKey(publicKey);
    this.#random = random;
  }

  /** True when MAC1 of the message `bytes[at … at + length)` is right. */
  hasMac1(bytes: Uint8Array, at: number, length: number): boolean {
    const macAt = at + length - MAC1_FROM_END;
    return checkBlake2sMac(this.#mac1Key, bytes, { from: at, to: macAt, at: macAt });
  }

  /** True when MAC2 of the message is made with the cookie of the endpoint at `from`. */
  hasMac2(view: DataView, bytes: Uint8Array, place: CookiePlace): boolean {
    if (place.now - this.#secretAt >= COOKIE_SECRET_TIME) return false;
    const macAt = place.at + place.length - MAC2_FROM_END;
    const cookie = this.#cookie(view, place.from);
    return checkBlake2sMac(cookie, bytes, { from: place.at, to: macAt, at: macAt });
  }

  /** The answer to a message whose MAC1 is right: a cookie for its sender. The caller's. */
  reply(view: DataView, bytes: Uint8Array, place: CookiePlace): Uint8Array {
    if (place.now - this.#secretAt >= COOKIE_SECRET_TIME) {
      this.#random(this.#secret);
      this.#secretAt = place.now;
    }
    const reply = new Uint8Array(COOKIE_REPLY_LENGTH);
    reply[0] = MessageType.CookieReply;
    reply.set(bytes.subarray(place.at + SENDER, place.at + SENDER + 4), COOKIE_RECEIVER);
    const nonce = reply.subarray(COOKIE_NONCE, COOKIE_NONCE + XCHACHA_NONCE_LENGTH);
    this.#random(nonce);
    const macAt = place.at + place.length - MAC1_FROM_END;
    const associated = bytes.subarray(macAt, macAt + MAC_LENGTH);
    const data = this.#cookie(view, place.from);
    reply.set(sealExtended({ key: this.#cookieKey, nonce, associated, data }), COOKIE_SEALED);
    return reply;
  }

  #cookie(view: DataView, from: number): Uint8Array {
    const room = new Uint8Array(18 + MAC_LENGTH);
    room.set(cookieInput(view, from));
    writeBlake2sMac(this.#secret, room, { from: 0, to: 18, at: 18 });
    return room.subarray(18);
  }
}

/** A message at `at`, from the endpoint at `from`, at the time `now`. */
export interface CookiePlace {
  readonly at: number;
  readonly length: number;
  readonly from: number;
  readonly now: number;
}

/** Writes MACs and keeps the peer's cookie: the side that sends handshakes. One for each peer. */
export class MacWriter {
  readonly #mac1Key: Uint8Array;
  readonly #publicKey: Uint8Array;
  #cookie: Uint8Array | null = null;
  #cookieAt = 0;
  /** MAC1 of the message that was sent last: what a cookie reply must be bound to. */
  #lastMac1: Uint8Array | null = null;

  /** `publicKey` is the peer's. */
  constructor(publicKey: Uint8Array) {
    this.#publicKey = publicKey;
    this.#mac1Key = mac1Key(publicKey);
  }

  /** Writes both MACs at the end of `message`; MAC2 stays zero without a fresh cookie. */
  write(message: Uint8Array, now: number): void {
    const mac1At = message.length - MAC1_FROM_END;
    writeBlake2sMac(this.#mac1Key, message, { from: 0, to: mac1At, at: mac1At });
    this.#lastMac1 = message.slice(mac1At, mac1At + MAC_LENGTH);
    if (this.#cookie === null || now - this.#cookieAt >= COOKIE_SECRET_TIME) return;
    const mac2At = message.length - MAC2_FROM_END;
    writeBlake2sMac(this.#cookie, message, { from: 0, to: mac2At, at: mac2At });
  }

  /** Takes the cookie of a reply to the last message. False when it is no authentic answer to it. */
  take(reply: Uint8Array, now: number): boolean {
    assert(reply.length === COOKIE_REPLY_LENGTH);
    if (this.#lastMac1 === null) return false;
    const cookie = openExtended({
      key: cookieKey(this.#publicKey),
      nonce: reply.subarray(COOKIE_NONCE, COOKIE_NONCE + XCHACHA_NONCE_LENGTH),
      associated: this.#lastMac1,
      data: reply.subarray(COOKIE_SEALED),
    });
    if (cookie === null) return false;
    this.#cookie = cookie;
    this.#cookieAt = now;
    this.#lastMac1 = null;
    return true;
  }
}
