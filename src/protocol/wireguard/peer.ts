import { assert } from '#base/assert.ts';
import type { IpPrefix } from '#base/ip.ts';
import { type KeyPair, sharedSecret } from '#crypto/x25519.ts';

import { MacWriter } from './cookie.ts';
import type { Deadlined } from './deadline-heap.ts';
import { copyEndpoint, ENDPOINT_BYTES, endpointLength, isEndpoint } from './endpoint.ts';
import type { ExpectResponse, KnownPeer } from './handshake.ts';
import { ERASE_KEYS_TIME } from './limits.ts';
import type { Session } from './session.ts';
import { KEEPALIVE_TIMEOUT, REKEY_TIMEOUT } from './specification.ts';
import { TIMESTAMP_LENGTH } from './timestamp.ts';

/** A deadline that is not set. */
const NEVER = Number.POSITIVE_INFINITY;

/** An initiation that has been sent and not been answered. */
export interface PendingHandshake {
  readonly peer: Peer;
  readonly localIndex: number;
  readonly expect: ExpectResponse;
}

/** What `Peer` is made of. */
export interface PeerIdentity {
  /** This side's keys. */
  readonly own: KeyPair;
  /** 32 bytes, the peer's. */
  readonly publicKey: Uint8Array;
  /** 32 bytes, zeros for none. */
  readonly presharedKey: Uint8Array;
  /** Milliseconds between keepalives that are sent whatever happens, 0 for none. */
  readonly persistentKeepalive: number;
  /** Handed through: whose tunnel this is. */
  readonly tag: unknown;
}

/**
 * One peer: who it is, where it is, its sessions and its timers. Times are milliseconds of one monotonic
 * clock; a timer that is not set is Infinity. `WireguardInterface` alone changes it.
 *
 * Sessions live in three places, so that none is used for sending before it is confirmed and packets on the
 * way are still opened after a change:
 *
 * ```
 *   responder: respond() ─► next ──first packet opened──► current ──a newer one──► previous ──► erased
 *   initiator: accept()  ───────────────────────────────► current ──a newer one──► previous ──► erased
 * ```
 */
export class Peer implements Deadlined {
  readonly publicKey: Uint8Array;
  presharedKey: Uint8Array;
  readonly #own: KeyPair;
  #staticSecret: Uint8Array | null = null;
  readonly tag: unknown;
  readonly macs: MacWriter;
  allowedIps: readonly IpPrefix[] = [];

  /** Where datagrams go: a socket address as the kernel has it; valid when `hasEndpoint`. */
  readonly endpoint = new DataView(new ArrayBuffer(ENDPOINT_BYTES));
  hasEndpoint = false;

  current: Session | null = null;
  previous: Session | null = null;
  next: Session | null = null;
  pending: PendingHandshake | null = null;

  /** The greatest timestamp of an initiation so far. */
  readonly lastTimestamp = new Uint8Array(TIMESTAMP_LENGTH);
  lastInitiationReceivedAt = Number.NEGATIVE_INFINITY;
  lastInitiationSentAt = Number.NEGATIVE_INFINITY;
  attempts = 0;

  /** When an unanswered initiation is repeated or given up. */
  retransmitAt = NEVER;
  /** When a keepalive answers what was received. */
  keepaliveAt = NEVER;
  /** Data came while `keepaliveAt` was set: another keepalive follows. */
  keepaliveAgain = false;
  /** When silence after sending starts a handshake. */
  silenceAt = NEVER;
  persistentKeepalive: number;
  persistentAt = NEVER;
  eraseKeysAt = NEVER;
  heapAt = 0;
  heapIndex = -1;

  /** When the last handshake was completed, ms of the monotonic clock; −Infinity before the first. */
  lastHandshakeAt = Number.NEGATIVE_INFINITY;
  /** Bytes of whole datagrams, those of handshakes and keepalives included. */
  receivedBytes = 0;
  sentBytes = 0;
  isRemoved = false;

  constructor(identity: PeerIdentity) {
    assert(identity.publicKey.length === 32 && identity.presharedKey.length === 32);
    this.publicKey = identity.publicKey;
    this.presharedKey = identity.presharedKey;
    this.#own = identity.own;
    this.persistentKeepalive = identity.persistentKeepalive;
    this.tag = identity.tag;
    this.macs = new MacWriter(identity.publicKey);
  }

  /**
   * What a handshake needs to know; null when the peer's public key is of low order, so no handshake with it
   * is possible. The shared secret is computed when it is first needed and kept.
   */
  known(): KnownPeer | null {
    this.#staticSecret ??= sharedSecret(this.#own.privateKey, this.publicKey);
    if (this.#staticSecret === null) return null;
    return {
      publicKey: this.publicKey,
      presharedKey: this.presharedKey,
      staticSecret: this.#staticSecret,
    };
  }

  /** When the next of its timers is due, ms, or Infinity. */
  get deadline(): number {
    return Math.min(this.retransmitAt, this.keepaliveAt, this.silenceAt, this.persistentAt, this.eraseKeysAt);
  }

  /** The endpoint as socket calls take it, the caller's; null when there is none. */
  endpointBytes(): Uint8Array | null {
    if (!this.hasEndpoint) return null;
    return new Uint8Array(this.endpoint.buffer, 0, endpointLength(this.endpoint, 0)).slice();
  }

  /**
   * The endpoint is the address at `from`. Only after something authentic came from there, or by its owner's
   * word. True when it was another before.
   */
  moveTo(view: DataView, from: number): boolean {
    if (this.hasEndpoint && isEndpoint(this.endpoint, view, from)) return false;
    copyEndpoint(view, from, this.endpoint);
    const moved = this.hasEndpoint;
    this.hasEndpoint = true;
    return moved;
  }

  // --- timers (whitepaper section 6) -----------------------------------------------------------------------

  /** Something authentic was sent. */
  sentAnything(now: number): void {
    this.keepaliveAt = NEVER;
    this.keepaliveAgain = false;
    this.#passed(now);
  }

  /** Data were sent: an answer of some kind is expected. `jitter` in ms. */
  sentData(now: number, jitter: number): void {
    if (this.silenceAt === NEVER) this.silenceAt = now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + jitter;
  }

  /** Something authentic came. */
  receivedAnything(now: number): void {
    this.silenceAt = NEVER;
    this.#passed(now);
  }

  /** Data came: something must be sent back in time. */
  receivedData(now: number): void {
    if (this.keepaliveAt === NEVER) this.keepaliveAt = now + KEEPALIVE_TIMEOUT;
    else this.keepaliveAgain = true;
  }

  /** A handshake is complete on this side. */
  completedHandshake(now: number): void {
    this.retransmitAt = NEVER;
    this.attempts = 0;
    this.lastHandshakeAt = now;
  }

  /** There are new keys, which are erased if no newer ones follow. */
  derivedKeys(now: number): void {
    this.eraseKeysAt = now + ERASE_KEYS_TIME;
  }

  /** No timer is set. */
  stopTimers(): void {
    this.retransmitAt = NEVER;
    this.keepaliveAt = NEVER;
    this.keepaliveAgain = false;
    this.silenceAt = NEVER;
    this.persistentAt = NEVER;
    this.eraseKeysAt = NEVER;
  }

  #passed(now: number): void {
    if (this.persistentKeepalive > 0) this.persistentAt = now + this.persistentKeepalive;
  }
}
