import { BodyFraming, requestFraming } from '#protocol/http/body.ts';
import type { MessageHead } from '#protocol/http/message-head.ts';

import type { HttpConnection } from './http-connection.ts';

/**
 * Where a request's head stays until it has been written on: in the connection's input; in that input's slot,
 * taken over; or in a copy outside the pool.
 */
export class KeptHead {
  readonly #head: MessageHead;
  #connection: HttpConnection | null = null;
  /** The slot that was taken over, or −1. */
  #slot = -1;

  constructor(head: MessageHead) {
    this.#head = head;
  }

  /**
   * While something else is waited for, lets the connection listen for a client that goes away: when its
   * whole request is here and nothing behind it. The slot is taken over, because a connection with input does
   * not receive.
   */
  watch(connection: HttpConnection): void {
    if (connection.inSlot < 0 || connection.available > 0) return;
    if (requestFraming(this.#head) !== BodyFraming.None) return;
    this.#connection = connection;
    this.#slot = connection.takeInput();
    if (connection.inSlot < 0) connection.receive();
  }

  /** Gives back the slot: waiting for one while holding one could be what all others do as well. */
  shelve(connection: HttpConnection): void {
    if (connection.isShelved) return;
    if (this.#slot >= 0) {
      this.copy();
      this.drop();
    } else if (this.#head.fields.bytes === connection.engine.io.arena.bytes) connection.shelve(this.#head);
  }

  /** Makes the head independent of the slot that it lies in: hooks read it later. */
  copy(): void {
    const { fields, length } = this.#head;
    this.#head.moveTo(fields.bytes.slice(fields.base, fields.base + length), 0);
  }

  /** The head has been written on: its bytes are consumed. */
  spend(connection: HttpConnection): void {
    if (this.#slot >= 0) this.drop();
    else if (connection.inSlot >= 0) connection.consumeTo(connection.inAt);
  }

  /** Gives the slot back, if there is one. */
  drop(): void {
    if (this.#slot >= 0) this.#connection?.engine.streams.release(this.#slot);
    this.#slot = -1;
    this.#connection = null;
  }
}
