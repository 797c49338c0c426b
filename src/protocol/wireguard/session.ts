import type { TransportKeys } from './handshake.ts';
import { REJECT_AFTER_MESSAGES } from './limits.ts';
import type { Peer } from './peer.ts';
import { ReplayWindow } from './replay-window.ts';
import { REJECT_AFTER_TIME } from './specification.ts';

/** Places of the two keys in `Session.keys`. */
export const SEND_KEY = 0;
export const RECEIVE_KEY = 8;

/** Who made a session, and when. */
export interface SessionOrigin {
  readonly peer: Peer;
  /** The index that the peer addresses this session by, signed. */
  readonly localIndex: number;
  /** This side began the handshake. */
  readonly isInitiator: boolean;
  /** ms. */
  readonly createdAt: number;
}

/** Keys and counters for packets both ways, from one handshake. */
export class Session {
  readonly peer: Peer;
  readonly localIndex: number;
  readonly remoteIndex: number;
  readonly isInitiator: boolean;
  readonly createdAt: number;
  /** Sixteen words; zeros after `erase`. */
  readonly keys: Int32Array;
  /** Counters that have been received. */
  readonly window = new ReplayWindow();
  /** The counter of the next packet that is sent. */
  sendCounter = 0;

  constructor(origin: SessionOrigin, transport: TransportKeys) {
    this.peer = origin.peer;
    this.localIndex = origin.localIndex;
    this.isInitiator = origin.isInitiator;
    this.createdAt = origin.createdAt;
    this.keys = transport.keys;
    this.remoteIndex = transport.remoteIndex;
  }

  /** Neither sent by nor received by from here on. */
  isExpired(now: number): boolean {
    return now - this.createdAt >= REJECT_AFTER_TIME;
  }

  /** May seal one more packet. */
  canSend(now: number): boolean {
    return !this.isExpired(now) && this.sendCounter < REJECT_AFTER_MESSAGES;
  }

  /** Nothing can be opened or sealed by it any more. */
  erase(): void {
    this.keys.fill(0);
  }
}
