import { assert } from '#base/assert.ts';

import {
  GOAWAY_FRAME_BYTES,
  PING_FRAME_BYTES,
  SHORT_FRAME_BYTES,
  writeGoaway,
  writePing,
  writeRstStream,
  writeSettingsAck,
} from './frame.ts';
import { FRAME_HEADER_BYTES } from './http2.ts';

/** PINGs that wait for their answer: a peer that sends more than these without reading is flooding. */
const PINGS_MAX = 16;

/** Short frames that wait to be sent: answers, resets, GOAWAY. In the order in which `write` writes them. */
export class ControlQueue {
  #settingsAcks = 0;
  readonly #pings = new Uint8Array(8 * PINGS_MAX);
  #pingCount = 0;
  #ownPing: Uint8Array | null = null;
  /** Pairs of stream and error code. */
  readonly #resets: number[] = [];
  /** Pairs of last stream and error code: at most the two steps of a drain and a fault. */
  readonly #goaways: number[] = [];

  /** Something waits. */
  get isWaiting(): boolean {
    return (
      this.#settingsAcks > 0 ||
      this.#pingCount > 0 ||
      this.#ownPing !== null ||
      this.#resets.length > 0 ||
      this.#goaways.length > 0
    );
  }

  acknowledgeSettings(): void {
    this.#settingsAcks++;
  }

  /** Answers a PING with its eight octets. False when too many wait already. */
  answerPing(bytes: Uint8Array, start: number): boolean {
    if (this.#pingCount === PINGS_MAX) return false;
    for (let i = 0; i < 8; i++) this.#pings[8 * this.#pingCount + i] = bytes[start + i] as number;
    this.#pingCount++;
    return true;
  }

  /** A PING of our own. */
  ping(opaque: Uint8Array): void {
    assert(opaque.length === 8);
    this.#ownPing = opaque;
  }

  reset(streamId: number, errorCode: number): void {
    this.#resets.push(streamId, errorCode);
  }

  goaway(lastStreamId: number, errorCode: number): void {
    this.#goaways.push(lastStreamId, errorCode);
  }

  /** Writes what fits before `limit`; the offset behind it. What did not fit waits for the next call. */
  write(out: Uint8Array, at: number, limit: number): number {
    let position = at;
    while (this.#settingsAcks > 0 && limit - position >= FRAME_HEADER_BYTES) {
      position = writeSettingsAck(out, position);
      this.#settingsAcks--;
    }
    let answered = 0;
    while (answered < this.#pingCount && limit - position >= PING_FRAME_BYTES) {
      position = writePing(out, position, this.#pings, 8 * answered, true);
      answered++;
    }
    if (answered > 0) {
      this.#pings.copyWithin(0, 8 * answered, 8 * this.#pingCount);
      this.#pingCount -= answered;
    }
    let sent = 0;
    while (sent < this.#resets.length && limit - position >= SHORT_FRAME_BYTES) {
      const streamId = this.#resets[sent] as number;
      position = writeRstStream(out, position, streamId, this.#resets[sent + 1] as number);
      sent += 2;
    }
    if (sent > 0) this.#resets.splice(0, sent);
    while (this.#goaways.length > 0 && limit - position >= GOAWAY_FRAME_BYTES) {
      const [lastStreamId, errorCode] = this.#goaways.splice(0, 2) as [number, number];
      position = writeGoaway(out, position, lastStreamId, errorCode);
    }
    if (this.#ownPing !== null && limit - position >= PING_FRAME_BYTES) {
      position = writePing(out, position, this.#ownPing, 0, false);
      this.#ownPing = null;
    }
    return position;
  }
}
