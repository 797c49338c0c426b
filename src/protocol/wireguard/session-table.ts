import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';

import type { Chance } from './chance.ts';
import type { ExpectResponse, TransportKeys } from './handshake.ts';
import { INDEX_TRIES_MAX } from './limits.ts';
import type { Peer, PendingHandshake } from './peer.ts';
import { Session, type SessionOrigin } from './session.ts';

/** Low bits that all indices of one table have. */
export interface IndexMark {
  /** How many, 0 to 15. */
  readonly bits: number;
  /** Below 2^`bits`. */
  readonly value: number;
}

/**
 * Everything that peers address by an index: sessions, and initiations that await their answer. Indices are
 * random, so that nobody who does not see a peer's datagrams can guess one.
 */
export class SessionTable {
  readonly #chance: Chance;
  readonly #mark: IndexMark;
  readonly #sessions = new Map<number, Session>();
  readonly #pending = new Map<number, PendingHandshake>();

  constructor(chance: Chance, mark: IndexMark) {
    assert(mark.bits >= 0 && mark.bits < 16 && mark.value >= 0 && mark.value < 2 ** mark.bits);
    this.#chance = chance;
    this.#mark = mark;
  }

  /** Indices in use. */
  get size(): number {
    return this.#sessions.size + this.#pending.size;
  }

  /** The session that is addressed by `index`. */
  session(index: number): Session | undefined {
    return this.#sessions.get(index);
  }

  /** The initiation that is answered by `index`. */
  pending(index: number): PendingHandshake | undefined {
    return this.#pending.get(index);
  }

  /** An index that is free, signed. @throws RAMP_INTERNAL when chance gives none. */
  newIndex(): number {
    const { bits, value } = this.#mark;
    for (let tries = 0; tries < INDEX_TRIES_MAX; tries++) {
      const index = (this.#chance.word() & (-1 << bits)) | value;
      if (!this.#sessions.has(index) && !this.#pending.has(index)) return index;
    }
    throw new RampartError('RAMP_INTERNAL', 'no free index was found; the source of chance is broken');
  }

  /** Adds a session under its own index. */
  open(origin: SessionOrigin, transport: TransportKeys): Session {
    assert(!this.#sessions.has(origin.localIndex));
    const session = new Session(origin, transport);
    this.#sessions.set(origin.localIndex, session);
    return session;
  }

  /** Notes that `peer` has been sent an initiation; the one before is forgotten. */
  await(peer: Peer, localIndex: number, expect: ExpectResponse): void {
    this.forgetPending(peer);
    peer.pending = { peer, localIndex, expect };
    this.#pending.set(localIndex, peer.pending);
  }

  /** Packets of `session` that are on their way may still come; what was kept for that before is dropped. */
  retire(peer: Peer, session: Session | null): void {
    this.drop(peer.previous);
    peer.previous = session;
  }

  /** Erases a session, if there is one. */
  drop(session: Session | null): void {
    if (session === null) return;
    this.#sessions.delete(session.localIndex);
    session.erase();
  }

  /** Erases what awaits a response of `peer`, if there is such. */
  forgetPending(peer: Peer): void {
    if (peer.pending === null) return;
    this.#pending.delete(peer.pending.localIndex);
    peer.pending.expect.erase();
    peer.pending = null;
  }

  /** Erases everything of `peer`. */
  forget(peer: Peer): void {
    this.drop(peer.current);
    this.drop(peer.previous);
    this.drop(peer.next);
    this.forgetPending(peer);
    peer.current = null;
    peer.previous = null;
    peer.next = null;
  }
}
