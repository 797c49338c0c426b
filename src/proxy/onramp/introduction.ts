import { assert } from '#base/assert.ts';
import { type Completion, Errno, type Fd } from '#io/io.ts';
import type { Worker } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import { farewell } from './farewell.ts';
import { sendNow } from './send-now.ts';

/** Why an introduction did not come to its end. */
export type IntroductionLoss = 'closed' | 'error' | 'timeout' | 'too-long' | 'refused';

const TAG_BYTES = 0;
const TAG_TIMEOUT = 1;
const TAG_STARVED = 2;

/** How long a receive that found no buffer waits for one. */
const STARVED_MS = 10;

/**
 * What a client says before its stream begins: a PROXY header, the greeting of SOCKS. Gathers its bytes in
 * one slot of `worker.streams`, from which the stream goes on; all of it within `limits.introductionMs`.
 *
 * ```
 *  begin ─► onBytes ─┬─ more ───► onBytes …        not enough yet
 *                    ├─ handOn ─► the stream's     descriptor and bytes left over have a new owner
 *                    └─ refuse ─► closed           perhaps behind an answer
 * ```
 */
export abstract class Introduction implements Completion {
  protected readonly worker: Worker;
  protected readonly fd: Fd;
  /** Arena offset of the first byte, −1 while there is none; and how many there are. */
  protected at = -1;
  protected length = 0;
  #reading = false;
  #over = false;
  #timer: number;

  /** Takes `fd` over, and the slot with `prefixLength` bytes at `prefixOffset`, −1 for none. */
  constructor(worker: Worker, fd: Fd, prefixOffset: number, prefixLength: number) {
    this.worker = worker;
    this.fd = fd;
    this.at = prefixOffset;
    this.length = prefixLength;
    this.#timer = worker.io.timer(worker.limits.introductionMs, this, TAG_TIMEOUT);
  }

  /** Starts with what is here, or with waiting. */
  begin(): void {
    if (this.length > 0) this.onBytes();
    else this.more();
  }

  /** It has ended or was handed on. */
  protected get isOver(): boolean {
    return this.#over;
  }

  /** Ends it from outside: the listener is closed. */
  abort(): void {
    if (!this.#over) this.#close();
  }

  /** Bytes have come: `length` of them lie at `at`. */
  protected abstract onBytes(): void;

  /** It is over without a stream; the descriptor is closed or about to be. */
  protected abstract onLost(loss: IntroductionLoss): void;

  /** Waits for more bytes. */
  protected more(): void {
    if (this.#over || this.#reading) return;
    const { io, streams } = this.worker;
    if (this.at < 0) io.recvPooled(this.fd, streams, this, TAG_BYTES);
    else {
      const room = streams.slotBytes - this.length;
      if (room === 0) {
        this.lose('too-long');
        return;
      }
      io.recv(this.fd, this.at + this.length, room, this, TAG_BYTES);
    }
    this.#reading = true;
  }

  /** Drops the first `count` bytes; what is left begins at the slot's start. */
  protected consume(count: number): void {
    assert(count <= this.length);
    this.length -= count;
    if (this.length > 0)
      this.worker.io.arena.bytes.copyWithin(this.at, this.at + count, this.at + count + this.length);
    else this.#releaseSlot();
  }

  /** A copy of the first `count` bytes. */
  protected copy(count: number): Uint8Array {
    return this.worker.io.arena.bytes.slice(this.at, this.at + count);
  }

  /** Sends a short answer at once. False when the client does not take it: it is gone, or floods. */
  protected say(bytes: Uint8Array): boolean {
    return sendNow(this.worker, this.fd, bytes);
  }

  /** Stops the clock: what is waited for from here on is not the client. */
  protected stopClock(): void {
    this.worker.io.cancelTimer(this.#timer);
  }

  /** Gives descriptor and bytes away: a prefix for `StreamHandler.onStream`. */
  protected handOn(): { readonly prefixOffset: number; readonly prefixLength: number } {
    assert(!this.#reading && !this.#over);
    this.#over = true;
    this.stopClock();
    const prefix = { prefixOffset: this.at, prefixLength: this.length };
    this.at = -1;
    return prefix;
  }

  /** Ends it without an answer. */
  protected lose(loss: IntroductionLoss): void {
    if (this.#over) return;
    this.#count(loss);
    this.#close();
    this.onLost(loss);
  }

  /** Ends it behind an answer, which the client gets to read. */
  protected refuse(answer: Uint8Array): void {
    if (this.#over) return;
    this.#count('refused');
    this.#over = true;
    this.stopClock();
    if (!this.#reading) this.#releaseSlot();
    farewell(this.worker, this.fd, answer);
    this.onLost('refused');
  }

  onCompletion(tag: number, result: number, flags: number): void {
    if (tag === TAG_BYTES) this.#onReceived(result, flags);
    else if (this.#over) return;
    else if (tag === TAG_STARVED) this.more();
    else this.lose('timeout');
  }

  #onReceived(result: number, flags: number): void {
    const { io, streams } = this.worker;
    this.#reading = false;
    if (result > 0) {
      if (this.at < 0) this.at = streams.offsetOf(flags >>> 16);
      this.length += result;
    }
    if (this.#over) {
      this.#releaseSlot();
      return;
    }
    if (result > 0) this.onBytes();
    else if (result === -Errno.ENOBUFS) io.timer(STARVED_MS, this, TAG_STARVED);
    else this.lose(result === 0 ? 'closed' : 'error');
  }

  #close(): void {
    this.#over = true;
    this.stopClock();
    this.worker.io.close(this.fd);
    // A receive under way still writes into the slot: its completion gives the slot back.
    if (!this.#reading) this.#releaseSlot();
  }

  #releaseSlot(): void {
    if (this.at < 0) return;
    this.worker.streams.release(this.at);
    this.at = -1;
    this.length = 0;
  }

  #count(loss: IntroductionLoss): void {
    const { counters } = this.worker.stats;
    const counter = loss === 'timeout' ? Counter.ClientTimeouts : Counter.StreamsRefused;
    counters[counter] = (counters[counter] as number) + 1;
  }
}
