import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';
import type { SlotPool } from '#io/arena.ts';
import {
  type Completion,
  CompletionFlag,
  Errno,
  type Fd,
  type OperationId,
  PollMask,
  type SocketOption,
  type TimerId,
} from '#io/io.ts';
import type { LayeredStream } from '#io/layered.ts';
import { TlsOutcome, type TlsSession, tlsOutput, tlsOutputLength } from '#protocol/tls/tls-session.ts';

import { PLAIN_BYTES_MAX, RECORD_SLOT_BYTES, type TlsHub } from './tls-hub.ts';

/** Hears of the end of a handshake, once. */
export interface TlsStreamOwner {
  /**
   * `error` null: the plaintext is `stream.fd`, which the callee owns. Else the connection is closed, and the
   * error says why.
   */
  onHandshake(stream: TlsStream, error: RampartError | null): void;
}

/** Bytes that were received before the session began, in a slot of `hub.streams` that the stream takes. */
export interface TlsPrefix {
  readonly offset: number;
  readonly length: number;
}

const TAG_RECV = 0;
const TAG_SEND = 1;
const TAG_POLL = 2;
const TAG_HANDSHAKE_TIMEOUT = 3;
const TAG_LINGER_TIMEOUT = 4;

/** How long a stream that was closed may take to send what it had accepted. */
const LINGER_MS = 10_000;
/**
 * Alerts, tickets and key updates that wait behind what is being sent. A peer that makes more of them than it
 * reads is cut off (RFC 8446 section 4.6.3 lets it ask for a key update at any time).
 */
const QUEUED_BYTES_MAX = 64 * 1024;
/** Whole flights of a handshake may be as long as `TLS_OUTPUT_BYTES`. */
const HANDSHAKE_QUEUED_BYTES_MAX = 1024 * 1024;

/**
 * One TLS connection upon a raw descriptor. Input is shown to the session in the slot that it was received in
 * and decrypted straight into the reader's; output is encrypted straight into the slot that is sent. An idle
 * one holds no slot.
 *
 * ```
 *  Handshaking ─► Open ─► closed (drains what it accepted) ─► gone
 *       └────────► gone
 * ```
 * The end of the raw stream without close_notify is an error (−ECONNRESET), for it may have been cut (RFC
 * 8446 section 6.1); broken records are −EPROTO.
 */
export class TlsStream implements Completion, LayeredStream {
  readonly raw: Fd;
  readonly session: TlsSession;
  /** The plaintext's descriptor; −1 before the handshake is over. */
  fd: Fd = -1;
  /** Ciphertext, bytes. */
  bytesIn = 0;
  bytesOut = 0;
  readonly #hub: TlsHub;
  readonly #owner: TlsStreamOwner;
  #handshaking = true;
  #handshakeTimer: TimerId = 0;
  /** Closed by its user; it may still be sending. */
  #closed = false;
  /** The raw descriptor is closed and the session freed. */
  #gone = false;
  #resetWanted = false;
  /** `onTurn` will be called. */
  #scheduled = false;
  #scheduledWithSlots = false;

  // Input.
  #inSlot = -1;
  /** The session may have plaintext without more input. */
  #more = false;
  #receiving = false;
  #receiveOperation: OperationId = 0;
  /** The peer ended its side by close_notify. */
  #ended = false;
  /** Positive errno for all further receives; 0 while all is well. */
  #fault = 0;
  #delivering = false;
  #reader: Completion | null = null;
  #readerTag = 0;
  /** Null: into `#readOffset`. */
  #readPool: SlotPool | null = null;
  #readOffset = 0;
  #readLength = 0;
  #readCancelled = false;

  // Output.
  #sending = false;
  #sendSlot = -1;
  #sendOperation: OperationId = 0;
  /** What the session itself has to say, behind what is being sent. */
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #writer: Completion | null = null;
  #writerTag = 0;
  #writeOffset = 0;
  #writeLeft = 0;
  #writeTotal = 0;
  #shutdownWanted = false;
  #shutdownSent = false;
  #lingerTimer: TimerId = 0;

  // Readiness.
  #poller: Completion | null = null;
  #pollTag = 0;
  #writerBlocked = false;
  #readStarved = false;

  /** Begins the handshake; takes the raw descriptor, the session and the prefix over. */
  constructor(
    hub: TlsHub,
    raw: Fd,
    options: { session: TlsSession; owner: TlsStreamOwner; prefix?: TlsPrefix },
  ) {
    this.#hub = hub;
    this.raw = raw;
    this.session = options.session;
    this.#owner = options.owner;
    hub.open.add(this);
    this.#handshakeTimer = hub.io.timer(hub.handshakeMs, this, TAG_HANDSHAKE_TIMEOUT);
    const { prefix } = options;
    if (prefix !== undefined && prefix.length > 0) {
      this.#inSlot = prefix.offset;
      this.bytesIn += prefix.length;
      this.session.feed(hub.io.arena.address + prefix.offset, prefix.length);
      this.#schedule();
    } else if (options.session.isServer) this.#receive();
    else this.#schedule();
  }

  /** Ends it at once by a reset. */
  destroy(): void {
    if (this.#gone) return;
    if (this.#handshaking) {
      this.#failHandshake(
        new RampartError('RAMP_TLS', 'TLS failed: the node is stopping', { side: this.#side }),
      );
      return;
    }
    this.#closed = true;
    this.#resetWanted = true;
    this.#finish();
  }

  // --- completions of the engine below ---------------------------------------------------------------------

  onCompletion(tag: number, result: number, flags: number): void {
    if (tag === TAG_RECV) this.#onReceived(result, flags);
    else if (tag === TAG_SEND) this.#onSent(result);
    else if (tag === TAG_POLL) this.#onPolled(result, flags);
    else if (tag === TAG_HANDSHAKE_TIMEOUT) this.#onHandshakeTimeout();
    else if (!this.#gone) {
      this.#resetWanted = true;
      this.#finish();
    }
  }

  /** What was put off: called by the hub. */
  onTurn(): void {
    this.#scheduled = false;
    this.#scheduledWithSlots = false;
    if (this.#gone || this.#closed) {
      if (this.#reader !== null && !this.#receiving) this.#completeRead(-Errno.ECANCELED, 0);
      if (this.#writer !== null && !this.#sending) this.#completeWrite(-Errno.ECANCELED);
      if (!this.#gone && !this.#sending) this.#pumpOut();
      return;
    }
    if (!this.#sending) this.#pumpOut();
    if (this.#gone) return;
    if (this.#handshaking) {
      this.#shakeHands();
      return;
    }
    this.#deliver();
    this.#tellPoller();
  }

  // --- the handshake ---------------------------------------------------------------------------------------

  get #side(): 'downstream' | 'upstream' {
    return this.session.isServer ? 'downstream' : 'upstream';
  }

  #shakeHands(): void {
    if (this.#receiving) return;
    const result = this.session.handshake();
    const error = result === TlsOutcome.Failed ? this.session.error(this.#side) : null;
    this.#sendOutput();
    if (error !== null) {
      this.#failHandshake(error);
      return;
    }
    if (result === TlsOutcome.WantsInput) {
      this.#dropInput();
      this.#receive();
      return;
    }
    if (result !== 0) {
      this.#failHandshake(this.#cutError());
      return;
    }
    this.#hub.io.cancelTimer(this.#handshakeTimer);
    this.#handshaking = false;
    // What came behind the last flight is the peer's first data.
    if (this.#inSlot >= 0 && this.session.unread > 0) this.#more = true;
    else this.#dropInput();
    this.fd = this.#hub.layers.register(this);
    this.#owner.onHandshake(this, null);
  }

  #onHandshakeTimeout(): void {
    if (!this.#handshaking || this.#gone) return;
    const text = `TLS failed: the handshake took longer than ${this.#hub.handshakeMs} ms`;
    this.#failHandshake(new RampartError('RAMP_TIMEOUT', text, { side: this.#side, retry: 'yes' }));
  }

  #cutError(): RampartError {
    const text = 'TLS failed: the peer closed the connection during the handshake';
    return new RampartError('RAMP_TLS', text, { side: this.#side, retry: 'yes' });
  }

  /** An alert that is on its way still goes out. */
  #failHandshake(error: RampartError): void {
    this.#handshaking = false;
    this.#shutdownSent = true;
    this.#closed = true;
    this.#hub.io.cancelTimer(this.#handshakeTimer);
    this.#owner.onHandshake(this, error);
    this.#endWhenSent();
  }

  // --- receiving -------------------------------------------------------------------------------------------

  recv(offset: number, length: number, completion: Completion, tag: number): void {
    this.#readPool = null;
    this.#readOffset = offset;
    this.#readLength = length;
    this.#beginRead(completion, tag);
  }

  recvPooled(pool: SlotPool, completion: Completion, tag: number): void {
    this.#readPool = pool;
    this.#beginRead(completion, tag);
  }

  #beginRead(completion: Completion, tag: number): void {
    assert(this.#reader === null && !this.#closed, 'two receives on one stream');
    this.#reader = completion;
    this.#readerTag = tag;
    this.#readCancelled = false;
    // Nothing completes synchronously: what is here already is delivered by the loop that runs, or a later
    // turn.
    if (this.#delivering) return;
    if (this.#hasNews) this.#schedule();
    else this.#receive();
  }

  cancelRecv(): void {
    if (this.#reader === null) return;
    if (this.#receiving) this.#hub.io.cancel(this.#receiveOperation);
    else {
      this.#readCancelled = true;
      this.#schedule();
    }
  }

  get #hasNews(): boolean {
    return this.#more || this.#ended || this.#fault !== 0;
  }

  #receive(): void {
    if (this.#receiving) return;
    this.#receiving = true;
    const { io, streams } = this.#hub;
    this.#receiveOperation = io.recvPooled(this.raw, streams, this, TAG_RECV);
  }

  #onReceived(result: number, flags: number): void {
    this.#receiving = false;
    const { io, streams } = this.#hub;
    if (result > 0) {
      const slot = streams.offsetOf(flags >>> 16);
      if (this.#gone || this.#closed) streams.release(slot);
      else {
        this.bytesIn += result;
        this.#inSlot = slot;
        this.#more = !this.#handshaking;
        this.session.feed(io.arena.address + slot, result);
      }
    }
    if (this.#gone || this.#closed) {
      if (this.#reader !== null) this.#completeRead(-Errno.ECANCELED, 0);
      return;
    }
    if (this.#handshaking) this.#onHandshakeBytes(result);
    else if (result === -Errno.ECANCELED || result === -Errno.ENOBUFS) {
      if (this.#reader !== null) this.#completeRead(result, 0);
    } else {
      if (result === 0) this.#fault = Errno.ECONNRESET;
      else if (result < 0) this.#fault = -result;
      this.#deliver();
    }
  }

  #onHandshakeBytes(result: number): void {
    if (result > 0) this.#shakeHands();
    else if (result === -Errno.ENOBUFS) this.#scheduleWithSlots();
    else this.#failHandshake(this.#cutError());
  }

  /** Gives the reader what is here, as long as it asks for more; else waits for input. */
  #deliver(): void {
    if (this.#delivering) return;
    this.#delivering = true;
    while (this.#reader !== null && !this.#closed && !this.#receiving) {
      if (this.#readCancelled) this.#completeRead(-Errno.ECANCELED, 0);
      else if (this.#more) this.#deliverSome();
      else if (this.#ended) this.#completeRead(0, 0);
      else if (this.#fault !== 0) this.#completeRead(-this.#fault, 0);
      else this.#receive();
    }
    this.#delivering = false;
  }

  #deliverSome(): void {
    const pool = this.#readPool;
    if (pool === null) {
      const length = this.#fill(this.#readOffset, this.#readLength);
      if (length > 0) this.#completeRead(length, 0);
      return;
    }
    const slot = pool.acquire();
    if (slot < 0) {
      this.#completeRead(-Errno.ENOBUFS, 0);
      return;
    }
    const length = this.#fill(slot, pool.slotBytes);
    if (length > 0) this.#completeRead(length, pool.indexOf(slot) << 16);
    else pool.release(slot);
  }

  #completeRead(result: number, flags: number): void {
    const reader = this.#reader as Completion;
    this.#reader = null;
    reader.onCompletion(this.#readerTag, result, flags);
  }

  /** Decrypts what is here: bytes at arena offset `offset`, 0 when there are none. */
  #fill(offset: number, length: number): number {
    const base = this.#hub.io.arena.address + offset;
    let total = 0;
    while (this.#more && total < length) {
      const room = length - total;
      const result = this.session.read(base + total, room);
      if (tlsOutputLength() > 0) this.#sendOutput();
      if (result > 0) {
        total += result;
        // A full reader says nothing about what is left.
        if (result < room && this.session.unread === 0) this.#dropInput();
        continue;
      }
      if (result === TlsOutcome.Ended) this.#ended = true;
      else if (result === TlsOutcome.Failed) {
        this.session.error(this.#side);
        this.#fault = Errno.EPROTO;
      }
      this.#dropInput();
    }
    return total;
  }

  #dropInput(): void {
    this.#more = false;
    if (this.#inSlot < 0) return;
    this.#hub.streams.release(this.#inSlot);
    this.#inSlot = -1;
  }

  tryRecv(offset: number, length: number): number {
    const { io, streams } = this.#hub;
    let total = this.#fill(offset, length);
    while (total < length && !this.#ended && this.#fault === 0) {
      const slot = streams.acquire();
      if (slot < 0) {
        // The reader hears again when there may be one.
        this.#readStarved = true;
        this.#scheduleWithSlots();
        break;
      }
      const result = io.tryRecv(this.raw, slot, streams.slotBytes);
      if (result <= 0) {
        streams.release(slot);
        if (result === 0) this.#fault = Errno.ECONNRESET;
        else if (result !== -Errno.EAGAIN && result !== -Errno.EINTR) this.#fault = -result;
        if (result !== -Errno.EINTR) break;
        continue;
      }
      this.bytesIn += result;
      this.#inSlot = slot;
      this.#more = true;
      this.session.feed(io.arena.address + slot, result);
      total += this.#fill(offset + total, length - total);
    }
    if (total > 0) return total;
    if (this.#ended) return 0;
    return this.#fault !== 0 ? -this.#fault : -Errno.EAGAIN;
  }

  // --- sending ---------------------------------------------------------------------------------------------

  send(offset: number, length: number, completion: Completion, tag: number): void {
    assert(this.#writer === null && !this.#closed, 'two sends on one stream');
    this.#writer = completion;
    this.#writerTag = tag;
    this.#writeOffset = offset;
    this.#writeLeft = length;
    this.#writeTotal = length;
    if (!this.#sending) this.#pumpOut();
  }

  cancelSend(): void {
    if (this.#writer !== null && this.#sending) this.#hub.io.cancel(this.#sendOperation);
  }

  /** The next thing that goes out. Nothing is being sent. */
  #pumpOut(): void {
    if (this.#gone) return;
    if (this.#queue.length > 0) this.#sendQueued();
    else if (this.#writeLeft > 0 && !this.#closed) this.#sendPlain();
    else if (this.#shutdownWanted && !this.#shutdownSent && this.#writer === null) this.#sendShutdown();
    else if (this.#closed) this.#finish();
  }

  #sendQueued(): void {
    const { io, records } = this.#hub;
    const slot = records.acquire();
    if (slot < 0) {
      this.#scheduleWithSlots();
      return;
    }
    const first = this.#queue[0] as Uint8Array;
    const length = Math.min(first.length, RECORD_SLOT_BYTES);
    io.arena.bytes.set(first.subarray(0, length), slot);
    if (length === first.length) this.#queue.shift();
    else this.#queue[0] = first.subarray(length);
    this.#queuedBytes -= length;
    this.#sendRecords(slot, slot, length);
  }

  #sendPlain(): void {
    const length = Math.min(this.#writeLeft, PLAIN_BYTES_MAX);
    const slot = this.#hub.records.acquire();
    if (slot < 0) {
      this.#scheduleWithSlots();
      return;
    }
    const encrypted = this.#encrypt(this.#writeOffset, length, slot);
    if (encrypted < 0) {
      this.#hub.records.release(slot);
      this.#fault = Errno.EPROTO;
      this.#writeLeft = 0;
      this.#failWriterLater();
      return;
    }
    this.#writeOffset += length;
    this.#writeLeft -= length;
    this.#sendRecords(slot, slot, encrypted);
  }

  /** The writer learns of it as of any other failure: in a completion of its own. */
  #failWriterLater(): void {
    setImmediate(() => {
      if (this.#writer !== null) this.#completeWrite(-Errno.EPIPE);
    });
  }

  #encrypt(offset: number, length: number, slot: number): number {
    const { address } = this.#hub.io.arena;
    const to = { address: address + slot, room: RECORD_SLOT_BYTES };
    return this.session.write(address + offset, length, to);
  }

  #sendRecords(slot: number, start: number, length: number): void {
    this.#sending = true;
    this.#sendSlot = slot;
    this.bytesOut += length;
    this.#sendOperation = this.#hub.io.send(this.raw, start, length, this, TAG_SEND);
  }

  /** Sends what the session wrote in its last call, behind what is being sent. */
  #sendOutput(): void {
    const length = tlsOutputLength();
    if (length === 0 || this.#gone) return;
    this.#queue.push(tlsOutput.slice(0, length));
    this.#queuedBytes += length;
    if (this.#queuedBytes > (this.#handshaking ? HANDSHAKE_QUEUED_BYTES_MAX : QUEUED_BYTES_MAX)) {
      this.#fault = Errno.EPROTO;
      this.#queue = [];
      this.#queuedBytes = 0;
    }
    if (!this.#sending) this.#pumpOut();
  }

  #onSent(result: number): void {
    this.#sending = false;
    this.#hub.records.release(this.#sendSlot);
    this.#sendSlot = -1;
    if (result < 0) {
      this.#queue = [];
      this.#queuedBytes = 0;
      this.#writeLeft = 0;
      this.#shutdownSent = true;
      if (this.#writer !== null) this.#completeWrite(result);
    } else if (this.#writer !== null && this.#queue.length === 0) {
      if (this.#closed) this.#completeWrite(-Errno.ECANCELED);
      else if (this.#writeLeft === 0) this.#completeWrite(this.#writeTotal);
    }
    if (this.#gone) return;
    if (!this.#sending) {
      if (this.#shutdownSent && this.#shutdownWanted && this.#queue.length === 0 && !this.#closed) {
        this.#hub.io.shutdownWrite(this.raw);
        this.#shutdownWanted = false;
      } else this.#pumpOut();
    }
    if (!this.#closed) this.#tellPoller();
  }

  #completeWrite(result: number): void {
    const writer = this.#writer as Completion;
    this.#writer = null;
    this.#writeLeft = 0;
    writer.onCompletion(this.#writerTag, result, 0);
  }

  trySend(offset: number, length: number): number {
    if (this.#sending || this.#queue.length > 0) {
      this.#writerBlocked = true;
      return -Errno.EAGAIN;
    }
    const { io, records } = this.#hub;
    const slot = records.acquire();
    if (slot < 0) {
      this.#writerBlocked = true;
      this.#scheduleWithSlots();
      return -Errno.EAGAIN;
    }
    const plain = Math.min(length, PLAIN_BYTES_MAX);
    const encrypted = this.#encrypt(offset, plain, slot);
    const result = encrypted < 0 ? -Errno.EPIPE : io.trySend(this.raw, slot, encrypted);
    if (result === encrypted || (result < 0 && result !== -Errno.EAGAIN && result !== -Errno.EINTR)) {
      records.release(slot);
      if (result < 0) return result;
      this.bytesOut += encrypted;
      return plain;
    }
    // Encrypted is accepted: records cannot be taken back. The rest goes out by itself.
    const sent = Math.max(result, 0);
    this.bytesOut += sent;
    this.#sendRecords(slot, slot + sent, encrypted - sent);
    return plain;
  }

  // --- readiness -------------------------------------------------------------------------------------------

  poll(mask: number, multishot: boolean, completion: Completion, tag: number): OperationId {
    this.#poller = completion;
    this.#pollTag = tag;
    if (this.#hasNews) this.#schedule();
    return this.#hub.io.poll(this.raw, mask, multishot, this, TAG_POLL);
  }

  #onPolled(result: number, flags: number): void {
    const poller = this.#poller;
    if ((flags & CompletionFlag.More) === 0) this.#poller = null;
    poller?.onCompletion(this.#pollTag, result, flags);
  }

  /** What happens inside makes no edge on the descriptor below. */
  #tellPoller(): void {
    if (this.#poller === null) return;
    let mask = 0;
    if (this.#hasNews || this.#readStarved) mask |= PollMask.In;
    if (this.#ended || this.#fault !== 0) mask |= PollMask.ReadHangUp;
    if (this.#writerBlocked && !this.#sending && this.#queue.length === 0) mask |= PollMask.Out;
    if (mask === 0) return;
    this.#readStarved = false;
    if ((mask & PollMask.Out) !== 0) this.#writerBlocked = false;
    this.#poller.onCompletion(this.#pollTag, mask, CompletionFlag.More);
  }

  // --- the end ---------------------------------------------------------------------------------------------

  setOption(option: SocketOption, value: number): void {
    if (option === 'linger-zero') this.#resetWanted = value !== 0;
    else this.#hub.io.setOption(this.raw, option, value);
  }

  shutdownWrite(): void {
    this.#shutdownWanted = true;
    if (!this.#sending) this.#pumpOut();
  }

  #sendShutdown(): void {
    this.#shutdownSent = true;
    this.session.shutdown();
    if (tlsOutputLength() > 0) this.#sendOutput();
    else if (this.#closed) this.#finish();
    else this.#hub.io.shutdownWrite(this.raw);
  }

  close(): void {
    this.#closed = true;
    if (this.#reader !== null) {
      if (this.#receiving) this.#hub.io.cancel(this.#receiveOperation);
      else this.#schedule();
    }
    if (this.#resetWanted) this.#finish();
    else {
      this.#shutdownWanted = true;
      this.#endWhenSent();
    }
  }

  /** Closes when everything that was accepted is in the kernel's hands, or the time for it is over. */
  #endWhenSent(): void {
    if (this.#gone) return;
    this.#lingerTimer = this.#hub.io.timer(LINGER_MS, this, TAG_LINGER_TIMEOUT);
    if (!this.#sending) this.#pumpOut();
  }

  #finish(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#dropInput();
    const { io } = this.#hub;
    io.cancelTimer(this.#handshakeTimer);
    io.cancelTimer(this.#lingerTimer);
    if (this.#resetWanted) {
      try {
        io.setOption(this.raw, 'linger-zero', 1);
      } catch {
        // The socket is dead already; closing is all that is left.
      }
    }
    io.close(this.raw);
    this.session.free();
    this.#hub.open.delete(this);
    if ((this.#reader !== null && !this.#receiving) || (this.#writer !== null && !this.#sending)) {
      this.#schedule();
    }
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#hub.runLater(this);
  }

  #scheduleWithSlots(): void {
    if (this.#scheduledWithSlots) return;
    this.#scheduledWithSlots = true;
    this.#hub.runWithSlots(this);
  }
}
