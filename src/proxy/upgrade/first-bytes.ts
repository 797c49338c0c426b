import { type Completion, Errno, type Fd, type OperationId } from '#io/io.ts';
import { detectProtocol } from '#protocol/detect/detect.ts';
import { type ClientHello, ClientHelloFault, parseClientHello } from '#protocol/tls/client-hello.ts';
import type { FirstBytes } from '#proxy/hooks/hooks.ts';
import type { Worker } from '#proxy/proxy-contract.ts';

/**
 * How a wait for more bytes ended: they came, none came in time, the client has ended, or its side is broken.
 */
export type Arrival = 'bytes' | 'quiet' | 'ended' | 'broken';

const TAG_BYTES = 0;
const TAG_TIMEOUT = 1;

/**
 * The bytes that a client has sent before its stream is carried on: read, looked at, never consumed. They lie
 * in one slot of `worker.streams`, from which the stream goes on.
 */
export class FirstBytesReader implements Completion {
  /** Arena offset of the first byte, −1 while there is none; and how many there are. */
  at: number;
  length: number;
  /** The client has ended its side. */
  ended = false;
  readonly #worker: Worker;
  readonly #fd: Fd;
  #operation: OperationId = 0;
  #timer = 0;
  /** Everybody who waits for more; one receive serves them all. Empty when none is under way. */
  #waiting: ((arrival: Arrival) => void)[] = [];
  #settled: (() => void) | null = null;
  #reading = false;
  #dropped = false;
  /** Monotonic milliseconds after which no more is waited for; 0 before the first wait. */
  #deadline = 0;

  constructor(worker: Worker, fd: Fd, prefixOffset: number, prefixLength: number) {
    this.#worker = worker;
    this.#fd = fd;
    this.at = prefixOffset;
    this.length = prefixLength;
    if (prefixLength === 0) this.#release();
  }

  /** Waits for more bytes, at most `limits.sniffMs`. `then` may be called at once. */
  more(then: (arrival: Arrival) => void): void {
    const { io, streams, limits } = this.#worker;
    if (this.#deadline === 0) this.#deadline = io.now() + limits.introductionMs;
    // A client that drips bytes is waited for no longer than one that drips a greeting.
    if (this.ended || this.length === streams.slotBytes || io.now() > this.#deadline) {
      then(this.ended ? 'ended' : 'quiet');
      return;
    }
    this.#waiting.push(then);
    if (this.#reading) return;
    this.#reading = true;
    this.#timer = io.timer(limits.sniffMs, this, TAG_TIMEOUT);
    if (this.at < 0) this.#operation = io.recvPooled(this.#fd, streams, this, TAG_BYTES);
    else {
      const room = streams.slotBytes - this.length;
      this.#operation = io.recv(this.#fd, this.at + this.length, room, this, TAG_BYTES);
    }
  }

  /** Finds out what the client speaks. `then` may be called at once. */
  detect(then: (found: FirstBytes, arrival: Arrival) => void): void {
    const found = this.look();
    if (found !== null) then(found, 'bytes');
    else {
      this.more((arrival) => {
        if (arrival === 'bytes') this.detect(then);
        else then(this.look() ?? this.#lastLook(), arrival);
      });
    }
  }

  /** What the bytes that are here are; null when more are needed to tell. */
  look(): FirstBytes | null {
    const { bytes } = this.#worker.io.arena;
    if (this.length === 0) return null;
    const protocol = detectProtocol(bytes, this.at, this.length);
    if (protocol === 'more') return null;
    if (protocol !== 'tls') return { ...NOTHING, protocol };
    const hello = parseClientHello(bytes, this.at, this.length);
    if (hello === ClientHelloFault.Incomplete) return null;
    return typeof hello === 'number' ? { ...NOTHING, protocol } : ofHello(hello);
  }

  /** Calls `then` when no receive is under way any more, so that another may read from the descriptor. */
  settle(then: () => void): void {
    if (!this.#reading) {
      then();
      return;
    }
    this.#settled = then;
    this.#worker.io.cancel(this.#operation);
  }

  /** Gives slot and bytes away. Only after `settle`. */
  take(): { readonly offset: number; readonly length: number } {
    const taken = { offset: this.at, length: this.length };
    this.at = -1;
    this.length = 0;
    return taken;
  }

  /** Gives the bytes up; those who wait are not called. The descriptor is the caller's to close. */
  drop(): void {
    this.#dropped = true;
    this.#waiting = [];
    this.#worker.io.cancelTimer(this.#timer);
    // A receive under way still writes into the slot: its completion gives the slot back.
    if (!this.#reading) this.#release();
  }

  onCompletion(tag: number, result: number, flags: number): void {
    const { io, streams } = this.#worker;
    if (tag === TAG_TIMEOUT) {
      io.cancel(this.#operation);
      return;
    }
    this.#reading = false;
    io.cancelTimer(this.#timer);
    if (result > 0) {
      if (this.at < 0) this.at = streams.offsetOf(flags >>> 16);
      this.length += result;
    } else if (result === 0) this.ended = true;
    if (this.#dropped) {
      this.#release();
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    const arrival = arrivalOf(result);
    for (const then of waiting) then(arrival);
    const settled = this.#settled;
    this.#settled = null;
    if (settled !== null && !this.#dropped) settled();
  }

  /** No more bytes will come in time, and what is here was not enough to tell. */
  #lastLook(): FirstBytes {
    if (this.length === 0) return { ...NOTHING, protocol: this.ended ? 'other' : 'server-first' };
    const { bytes } = this.#worker.io.arena;
    const protocol = detectProtocol(bytes, this.at, this.length);
    return { ...NOTHING, protocol: protocol === 'more' ? 'other' : protocol };
  }

  #release(): void {
    if (this.at < 0) return;
    this.#worker.streams.release(this.at);
    this.at = -1;
    this.length = 0;
  }
}

const NOTHING: Omit<FirstBytes, 'protocol'> = Object.freeze({
  serverName: null,
  alpn: Object.freeze([]),
  hello: null,
});

function ofHello(hello: ClientHello): FirstBytes {
  return { protocol: 'tls', serverName: hello.serverName, alpn: hello.alpn, hello };
}

/** Without a free buffer the stream goes on unseen: it is better carried than refused. */
function arrivalOf(result: number): Arrival {
  if (result > 0) return 'bytes';
  if (result === 0) return 'ended';
  return result === -Errno.ECANCELED || result === -Errno.ENOBUFS ? 'quiet' : 'broken';
}
