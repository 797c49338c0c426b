import { assert } from '#base/assert.ts';
import type { MessageHead } from '#protocol/http/message-head.ts';

import { AbuseCost, AbuseScore } from './abuse-score.ts';
import { ControlQueue } from './control-queue.ts';
import { Http2Fault, http2FaultFact } from './fault.ts';
import {
  readUint31,
  readUint32,
  SHORT_FRAME_BYTES,
  writeFrameHeader,
  writeSettings,
  writeWindowUpdate,
} from './frame.ts';
import { FrameReader, type FrameSink } from './frame-reader.ts';
import { HeadKind, HeadReader, isAnswerable } from './head-reader.ts';
import { BLOCK_BYTES_MAX, HpackDecoder } from './hpack-decoder.ts';
import { HpackEncoder } from './hpack-encoder.ts';
import {
  ErrorCode,
  FRAME_BYTES_MAX,
  FRAME_BYTES_MIN,
  FRAME_HEADER_BYTES,
  FrameFlag,
  FrameType,
  PREFACE,
  Setting,
  WINDOW_DEFAULT,
  WINDOW_MAX,
} from './http2.ts';
import { HeadStep, Http2Stream } from './stream.ts';
import { canReceive, canSend, nextStreamState, StreamEvent, StreamState } from './stream-state.ts';

/** What a connection is made with. Each limit has its default and its reason here. */
export interface Http2Options {
  readonly isServer: boolean;
  /**
   * Streams that the peer may have open at once, those whose work goes on after a reset included. Default
   * 128.
   */
  readonly streamsMax?: number;
  /**
   * Window of each stream, octets: what one stream may keep here unread. Default 65,535, the least of the
   * RFC.
   */
  readonly streamWindow?: number;
  /** Window of the connection: what all streams together may keep here unread. Default 1 MiB. */
  readonly connectionWindow?: number;
  /** A field block on the wire, octets, CONTINUATION included. Default 16 KiB. */
  readonly blockBytesMax?: number;
  /** Told to the peer as SETTINGS_MAX_HEADER_LIST_SIZE. Default 16 KiB. */
  readonly headBytesMax?: number;
  /** The peer has to acknowledge our SETTINGS within this time, milliseconds. Default 10,000. */
  readonly settingsMs?: number;
  /** A field block has to be complete within this time, milliseconds. Default 10,000. */
  readonly blockMs?: number;
  /** Code strings by Huffman where that is shorter. Default true. */
  readonly huffman?: boolean;
}

/** Where a head that is coming goes. Filled by the owner. */
export interface HeadPlace {
  head: MessageHead | null;
  /** Its text is written to `bytes[at..limit)`, which must not hold the input. */
  bytes: Uint8Array;
  at: number;
  limit: number;
}

/** What the owner of a connection hears. It may call the connection from inside of these. */
export interface Http2Owner {
  /**
   * A head is coming on `stream`. False when there is no room: a request is then refused, a response reset.
   */
  openHead(stream: Http2Stream, kind: HeadKind, place: HeadPlace): boolean;
  /**
   * The head is here, in the place that was opened for it. `fault` is 0, or the negated fault of a head that
   * is to be answered with a status (`isAnswerable`) and of which nothing else is valid. `ends`: no content
   * or trailers follow.
   */
  onHead(stream: Http2Stream, kind: HeadKind, fault: number, ends: boolean): void;
  /** Nobody needs the place that was opened: the head was malformed. */
  closeHead(stream: Http2Stream, kind: HeadKind): void;
  /** Content. The owner calls `consumed` for every octet, when it is done with it. */
  onData(stream: Http2Stream, bytes: Uint8Array, start: number, length: number): void;
  /** The peer's message is complete. */
  onEnd(stream: Http2Stream): void;
  /**
   * The stream is dead: reset by the peer, or (with a `fault`) by this side; `isUnprocessed` says that the
   * peer promises not to have acted on it (RFC 9113 section 8.7). The owner lets go of it by `release`.
   */
  onReset(stream: Http2Stream, errorCode: number, fault: number, isUnprocessed: boolean): void;
  /** The window of a stream has opened, or with null that of the connection or of all streams. */
  onWindow(stream: Http2Stream | null): void;
  /** The peer wants no more streams; or its SETTINGS have come, by which more may be possible. */
  onPeerChange(): void;
}

const STREAMS_MAX_DEFAULT = 128;
const CONNECTION_WINDOW_DEFAULT = 1024 * 1024;
const HEAD_BYTES_DEFAULT = 16 * 1024;
const TIMEOUT_MS_DEFAULT = 10_000;
/** CONTINUATION frames of one block: with frames of the usual size two are enough for any that is allowed. */
const CONTINUATIONS_MAX = 16;
/** Streams that the peer's frames may still come for after we have reset them. */
const RESETS_REMEMBERED = 64;
/** WINDOW_UPDATE frames that are free for each frame sent, and at first. */
const UPDATES_PER_FRAME = 4;
const UPDATES_MAX = 1000;
/** Spare stream objects kept by a connection. */
const SPARE_MAX = 32;
const DRAIN_PING = Uint8Array.from([0x64, 0x72, 0x61, 0x69, 0x6e, 0, 0, 0]);
const NO_BYTES = new Uint8Array(0);

/**
 * One HTTP/2 connection of either role. Input goes in by `handleBytes`, time by `handleTimeout`; heads and
 * content are written by the methods below into output of the caller's, and everything else by
 * `pollTransmit`.
 *
 * Order matters in the output: a head is encoded against the table as the peer will have it, so it must be
 * sent in the order in which it was written.
 */
export class Http2Connection implements FrameSink {
  readonly isServer: boolean;
  /** Open streams by id; those that are closed and not released too. */
  readonly streams = new Map<number, Http2Stream>();
  readonly encoder: HpackEncoder;
  /** Octets of content that may be sent on the connection. */
  sendWindow = WINDOW_DEFAULT;
  /** What the peer allows: streams of ours at once, and extended CONNECT. */
  peerStreamsMax: number = 100;
  peerAllowsConnect = false;
  /** The peer's first SETTINGS have come. */
  peerSettled = false;
  /** The peer sent GOAWAY: no more streams can be opened. */
  peerGoingAway = false;
  /** Where the last write ended. */
  outAt = 0;
  readonly #owner: Http2Owner;
  readonly #options: Required<Omit<Http2Options, 'isServer'>>;
  readonly #reader: FrameReader;
  readonly #decoder = new HpackDecoder();
  readonly #headReader: HeadReader;
  readonly #control = new ControlQueue();
  readonly #score = new AbuseScore();
  readonly #place: HeadPlace = { head: null, bytes: NO_BYTES, at: 0, limit: 0 };
  readonly #spare: Http2Stream[] = [];
  #now = 0;
  #fatal = 0;
  #prefaceLeft: number;
  #greeted = false;
  #greetedAt = 0;
  #settingsAcked = false;
  #peerWindow = WINDOW_DEFAULT;
  #receiveWindow = WINDOW_DEFAULT;
  #returnable = 0;
  readonly #returning: Http2Stream[] = [];
  /** Highest stream that the peer opened, and next one of ours. */
  #lastPeerId = 0;
  #nextId = 1;
  /** Last stream that GOAWAY of ours promises to serve. */
  #goawayLast = WINDOW_MAX;
  #draining = false;
  #updatesFree = UPDATES_MAX / 4;
  /** A frame of ours went out since the last PING: the next one is no flood. */
  #sentSincePing = true;
  readonly #resetIds = new Int32Array(RESETS_REMEMBERED);
  #resetCount = 0;
  // The field block that is coming.
  #blockStream = 0;
  #blockFlags = 0;
  #block: Uint8Array = NO_BYTES;
  #blockLength = 0;
  #blockFrames = 0;
  #blockAt = 0;
  #blockSelfDependent = false;
  // The DATA frame that is coming; the stream is null when its content is dropped.
  #dataStream: Http2Stream | null = null;
  #dataEnds = false;

  constructor(options: Http2Options, owner: Http2Owner) {
    this.isServer = options.isServer;
    this.#owner = owner;
    this.#options = {
      streamsMax: options.streamsMax ?? STREAMS_MAX_DEFAULT,
      streamWindow: options.streamWindow ?? WINDOW_DEFAULT,
      connectionWindow: options.connectionWindow ?? CONNECTION_WINDOW_DEFAULT,
      blockBytesMax: options.blockBytesMax ?? HEAD_BYTES_DEFAULT,
      headBytesMax: options.headBytesMax ?? HEAD_BYTES_DEFAULT,
      settingsMs: options.settingsMs ?? TIMEOUT_MS_DEFAULT,
      blockMs: options.blockMs ?? TIMEOUT_MS_DEFAULT,
      huffman: options.huffman ?? true,
    };
    assert(this.#options.blockBytesMax <= BLOCK_BYTES_MAX, 'a field block would not fit the decoder');
    assert(this.#options.streamWindow >= WINDOW_DEFAULT && this.#options.connectionWindow >= WINDOW_DEFAULT);
    this.encoder = new HpackEncoder({ huffman: this.#options.huffman });
    this.#headReader = new HeadReader(this.#decoder);
    this.#reader = new FrameReader(this, FRAME_BYTES_MIN);
    this.#prefaceLeft = this.isServer ? PREFACE.length : 0;
  }

  // --- what it is like -------------------------------------------------------------------------------------

  /** Why the connection has to end, as a fault; 0 while it may go on. */
  get fatal(): number {
    return this.#fatal;
  }

  /** Draining or broken, and nothing is left to do but to send what waits. */
  get isFinished(): boolean {
    if (this.#fatal !== 0) return true;
    const ending = this.#goawayLast !== WINDOW_MAX || (this.peerGoingAway && !this.isServer);
    return ending && this.streams.size === 0;
  }

  /** `pollTransmit` has something to write. */
  get wantsTransmit(): boolean {
    return !this.#greeted || this.#control.isWaiting || this.#returnsDue();
  }

  /** The highest stream that the peer opened. */
  get lastPeerStreamId(): number {
    return this.#lastPeerId;
  }

  /** Content that may be sent on `stream` at once. */
  sendable(stream: Http2Stream): number {
    return Math.min(this.sendWindow, stream.sendWindow);
  }

  // --- input -----------------------------------------------------------------------------------------------

  /**
   * Takes input. Returns 0, or a negated fault: then `pollTransmit` has a GOAWAY to write, and the connection
   * is to be closed behind it.
   */
  handleBytes(bytes: Uint8Array, start: number, end: number, now: number): number {
    if (this.#fatal !== 0) return -this.#fatal;
    this.#now = now;
    let at = start;
    while (this.#prefaceLeft > 0 && at < end) {
      if (bytes[at] !== PREFACE[PREFACE.length - this.#prefaceLeft])
        return this.#die(-Http2Fault.PrefaceInvalid);
      this.#prefaceLeft--;
      at++;
    }
    const fault = this.#reader.read(bytes, at, end);
    return fault === 0 ? 0 : this.#die(fault);
  }

  /** Looks whether a limit of time is reached. Returns as `handleBytes`. */
  handleTimeout(now: number): number {
    if (this.#fatal !== 0) return -this.#fatal;
    const { settingsMs, blockMs } = this.#options;
    if (this.#greeted && !this.#settingsAcked && now - this.#greetedAt >= settingsMs) {
      return this.#die(-Http2Fault.SettingsTimeout);
    }
    if (this.#blockStream !== 0 && now - this.#blockAt >= blockMs) return this.#die(-Http2Fault.Abuse);
    return 0;
  }

  /** When `handleTimeout` has something to look at: monotonic milliseconds, or infinity. */
  pollTimeout(): number {
    const { settingsMs, blockMs } = this.#options;
    let at = Number.POSITIVE_INFINITY;
    if (this.#greeted && !this.#settingsAcked) at = this.#greetedAt + settingsMs;
    if (this.#blockStream !== 0) at = Math.min(at, this.#blockAt + blockMs);
    return at;
  }

  // --- output ----------------------------------------------------------------------------------------------

  /**
   * Writes what waits to be said: greeting, answers, resets, windows, GOAWAY. The offset behind what fitted.
   */
  pollTransmit(out: Uint8Array, at: number, limit: number, now: number): number {
    let position = at;
    if (!this.#greeted) {
      if (limit - at < 128) return at;
      position = this.#greet(out, at);
      this.#greeted = true;
      this.#greetedAt = now;
    }
    position = this.#control.write(out, position, limit);
    if (this.#fatal !== 0) return position;
    if (2 * this.#returnable >= this.#options.connectionWindow && limit - position >= SHORT_FRAME_BYTES) {
      position = writeWindowUpdate(out, position, 0, this.#returnable);
      this.#receiveWindow += this.#returnable;
      this.#returnable = 0;
    }
    while (this.#returning.length > 0 && limit - position >= SHORT_FRAME_BYTES) {
      const stream = this.#returning.pop() as Http2Stream;
      stream.returning = false;
      if (stream.released || stream.returnable === 0 || !canReceive(stream.state)) continue;
      position = writeWindowUpdate(out, position, stream.id, stream.returnable);
      stream.receiveWindow += stream.returnable;
      stream.returnable = 0;
    }
    return position;
  }

  #greet(out: Uint8Array, at: number): number {
    const { streamsMax, streamWindow, connectionWindow, headBytesMax } = this.#options;
    let position = at;
    if (!this.isServer) {
      out.set(PREFACE, at);
      position += PREFACE.length;
    }
    position = writeSettings(out, position, [
      this.isServer ? [Setting.MaxConcurrentStreams, streamsMax] : [Setting.EnablePush, 0],
      [Setting.InitialWindowSize, streamWindow],
      [Setting.MaxHeaderListSize, headBytesMax],
      ...(this.isServer ? ([[Setting.EnableConnectProtocol, 1]] as const) : []),
      [Setting.NoPriorities, 1],
    ]);
    if (connectionWindow > WINDOW_DEFAULT) {
      position = writeWindowUpdate(out, position, 0, connectionWindow - WINDOW_DEFAULT);
      this.#receiveWindow = connectionWindow;
    }
    return position;
  }

  #returnsDue(): boolean {
    return this.#returning.length > 0 || 2 * this.#returnable >= this.#options.connectionWindow;
  }

  /**
   * Where the block of a head is to be written that will begin at `at`; there must be room for `blockMax`
   * behind it.
   */
  headStart(at: number): number {
    return at + FRAME_HEADER_BYTES;
  }

  /** Octets that a head takes at most whose block takes at most `blockMax`. */
  headMax(blockMax: number): number {
    return blockMax + FRAME_HEADER_BYTES * (1 + Math.ceil(blockMax / FRAME_BYTES_MIN));
  }

  /**
   * Makes frames of the block that was written from `headStart(at)` to `end`: HEADERS, and CONTINUATION where
   * it is longer than a frame. Returns the offset behind them. `ends`: nothing follows on the stream.
   */
  finishHead(out: Uint8Array, at: number, end: number, stream: Http2Stream, ends: boolean): number {
    assert(stream.state === StreamState.Idle || canSend(stream.state), 'a head on a stream that has ended');
    let length = end - at - FRAME_HEADER_BYTES;
    let flags = ends ? FrameFlag.EndStream : 0;
    let position = end;
    if (length <= FRAME_BYTES_MIN) flags |= FrameFlag.EndHeaders;
    writeFrameHeader(out, at, Math.min(length, FRAME_BYTES_MIN), FrameType.Headers, flags, stream.id);
    let from = at + FRAME_HEADER_BYTES + FRAME_BYTES_MIN;
    length -= FRAME_BYTES_MIN;
    while (length > 0) {
      out.copyWithin(from + FRAME_HEADER_BYTES, from, position);
      position += FRAME_HEADER_BYTES;
      const part = Math.min(length, FRAME_BYTES_MIN);
      const last = part === length ? FrameFlag.EndHeaders : 0;
      writeFrameHeader(out, from, part, FrameType.Continuation, last, stream.id);
      from += FRAME_HEADER_BYTES + part;
      length -= part;
    }
    this.#move(stream, StreamEvent.SendHead);
    if (ends) this.#move(stream, StreamEvent.SendEnd);
    this.#sentFrame();
    return position;
  }

  /**
   * Writes DATA with as much of `source[start..start+length)` as windows, frame size and room before `limit`
   * allow. With `ends` the last octet carries END_STREAM; `length` 0 with `ends` writes an empty frame.
   * Returns the octets taken, or −1 when not even a frame fitted; `outAt` is the offset behind what was
   * written.
   */
  writeData(
    stream: Http2Stream,
    out: Uint8Array,
    at: number,
    limit: number,
    source: Uint8Array,
    start: number,
    length: number,
    ends: boolean,
  ): number {
    assert(canSend(stream.state), 'content on a stream that has ended');
    this.outAt = at;
    const room = limit - at - FRAME_HEADER_BYTES;
    const windows = Math.min(this.sendWindow, stream.sendWindow);
    const taken = Math.min(length, FRAME_BYTES_MIN, room, windows);
    const isLast = taken >= length && ends;
    if (room < 0 || (taken <= 0 && !(isLast && length === 0))) return -1;
    const flags = isLast ? FrameFlag.EndStream : 0;
    const payload = writeFrameHeader(out, at, taken, FrameType.Data, flags, stream.id);
    if (source === out) out.copyWithin(payload, start, start + taken);
    else for (let i = 0; i < taken; i++) out[payload + i] = source[start + i] as number;
    this.outAt = payload + taken;
    stream.sendWindow -= taken;
    this.sendWindow -= taken;
    if (isLast) this.#move(stream, StreamEvent.SendEnd);
    this.#sentFrame();
    return taken;
  }

  #sentFrame(): void {
    this.#updatesFree = Math.min(UPDATES_MAX, this.#updatesFree + UPDATES_PER_FRAME);
    this.#sentSincePing = true;
  }

  // --- streams, for the owner ------------------------------------------------------------------------------

  /** Whether a client can open one more stream. */
  get canOpen(): boolean {
    if (this.#fatal !== 0 || this.peerGoingAway || this.#draining) return false;
    return this.streams.size < this.peerStreamsMax && this.#nextId < WINDOW_MAX - 2;
  }

  /** A client's new stream. Its head must be the next one written: streams open in the order of their ids. */
  open(): Http2Stream {
    assert(!this.isServer && this.canOpen);
    const stream = this.#begin(this.#nextId);
    this.#nextId += 2;
    return stream;
  }

  /** Octets of content that the owner is done with: the peer may send as many again. */
  consumed(stream: Http2Stream, length: number): void {
    assert(!stream.released && length <= stream.unconsumed);
    stream.unconsumed -= length;
    stream.returnable += length;
    this.#returnable += length;
    if (stream.returning || 2 * stream.returnable < this.#options.streamWindow || !canReceive(stream.state))
      return;
    stream.returning = true;
    this.#returning.push(stream);
  }

  /** Ends a stream at once. Nothing when it is closed already. */
  reset(stream: Http2Stream, errorCode: number): void {
    if (stream.state === StreamState.Closed || stream.state === StreamState.Idle) {
      stream.state = StreamState.Closed;
      return;
    }
    stream.state = StreamState.Closed;
    this.#control.reset(stream.id, errorCode);
    this.#remember(stream.id);
  }

  /**
   * The owner lets go of a stream; one that is not closed is reset. Until this is called it counts against
   * the streams that the peer may have, so that work which a reset does not stop at once cannot pile up (RFC
   * 9113 section 10.5).
   */
  release(stream: Http2Stream, errorCode: number = ErrorCode.Cancel): void {
    assert(!stream.released);
    this.reset(stream, errorCode);
    // What was never read of it still has to go back to the connection's window (RFC 9113 section 6.9).
    this.#returnable += stream.unconsumed;
    stream.unconsumed = 0;
    stream.released = true;
    stream.user = null;
    this.streams.delete(stream.id);
    if (this.#dataStream === stream) this.#dataStream = null;
    if (!stream.returning && this.#spare.length < SPARE_MAX) this.#spare.push(stream);
  }

  /**
   * Begins to drain (RFC 9113 section 6.8): GOAWAY without a bound, and when the peer has answered the PING
   * behind it, GOAWAY with the last stream that is served. A client just opens no more streams.
   */
  drain(): void {
    if (this.#draining || this.#fatal !== 0) return;
    this.#draining = true;
    if (!this.isServer) {
      this.#goawayLast = 0;
      this.#control.goaway(0, ErrorCode.NoError);
      return;
    }
    this.#control.goaway(WINDOW_MAX, ErrorCode.NoError);
    this.#control.ping(DRAIN_PING);
  }

  /** Ends the connection with an error code of our own choice. */
  close(errorCode: number): void {
    if (this.#fatal !== 0) return;
    this.#fatal = Http2Fault.Abuse;
    this.#control.goaway(this.#lastPeerId, errorCode);
  }

  // --- frames ----------------------------------------------------------------------------------------------

  checkFrame(type: number, _flags: number, streamId: number, length: number): number {
    if (!this.peerSettled && type !== FrameType.Settings) return -Http2Fault.SettingsExpected;
    if (this.#blockStream !== 0) {
      const isNext = type === FrameType.Continuation && streamId === this.#blockStream;
      if (!isNext) return -Http2Fault.ContinuationExpected;
      if (length === 0 && !this.#score.spend(AbuseCost.EmptyFrame, this.#now)) return -Http2Fault.Abuse;
      return 0;
    }
    switch (type) {
      case FrameType.Data:
      case FrameType.Headers:
        return streamId === 0 ? -Http2Fault.StreamIdInvalid : 0;
      case FrameType.Continuation:
        return -Http2Fault.ContinuationUnexpected;
      case FrameType.PushPromise:
        return -Http2Fault.PushUnexpected;
      case FrameType.RstStream:
        if (streamId === 0) return -Http2Fault.StreamIdInvalid;
        return length === 4 ? 0 : -Http2Fault.FrameSizeInvalid;
      case FrameType.WindowUpdate:
        return length === 4 ? 0 : -Http2Fault.FrameSizeInvalid;
      case FrameType.Ping:
        if (streamId !== 0) return -Http2Fault.StreamIdInvalid;
        return length === 8 ? 0 : -Http2Fault.FrameSizeInvalid;
      case FrameType.Settings:
        if (streamId !== 0) return -Http2Fault.StreamIdInvalid;
        return length % 6 === 0 ? 0 : -Http2Fault.FrameSizeInvalid;
      case FrameType.Goaway:
        if (streamId !== 0) return -Http2Fault.StreamIdInvalid;
        return length >= 8 ? 0 : -Http2Fault.FrameSizeInvalid;
      case FrameType.Priority:
        return streamId === 0 ? -Http2Fault.StreamIdInvalid : 0;
      default:
        return this.#score.spend(AbuseCost.UnknownFrame, this.#now) ? 0 : -Http2Fault.Abuse;
    }
  }

  onFrame(
    type: number,
    flags: number,
    streamId: number,
    bytes: Uint8Array,
    start: number,
    length: number,
  ): number {
    switch (type) {
      case FrameType.Headers:
        return this.#onHeaders(flags, streamId, bytes, start, length);
      case FrameType.Continuation:
        return this.#onContinuation(flags, bytes, start, length);
      case FrameType.Priority:
        return this.#onPriority(streamId, bytes, start, length);
      case FrameType.RstStream:
        return this.#onRstStream(streamId, readUint32(bytes, start));
      case FrameType.Settings:
        return this.#onSettings(flags, bytes, start, length);
      case FrameType.Ping:
        return this.#onPing(flags, bytes, start);
      case FrameType.Goaway:
        return this.#onGoaway(readUint31(bytes, start));
      case FrameType.WindowUpdate:
        return this.#onWindowUpdate(streamId, readUint31(bytes, start));
      default:
        return 0;
    }
  }

  onDataBegin(flags: number, streamId: number, length: number, padding: number): number {
    this.#dataStream = null;
    this.#dataEnds = (flags & FrameFlag.EndStream) !== 0;
    this.#receiveWindow -= length;
    if (this.#receiveWindow < 0) return -Http2Fault.WindowExceeded;
    // Whatever becomes of it, the connection's window has to get it back: padding at once, content when
    // consumed.
    this.#returnable += padding;
    const content = length - padding;
    if (content === 0 && !this.#dataEnds && !this.#score.spend(AbuseCost.EmptyFrame, this.#now)) {
      return -Http2Fault.Abuse;
    }
    const stream = this.streams.get(streamId);
    if (stream === undefined) {
      this.#returnable += content;
      return this.#onDataWithoutStream(streamId);
    }
    const fault = this.#checkData(stream, length, content);
    if (fault !== 0) {
      this.#returnable += content;
      return stream.state === StreamState.Closed && this.#wasReset(streamId)
        ? 0
        : this.#failStream(stream, fault);
    }
    stream.receiveWindow -= length;
    stream.returnable += padding;
    stream.receivedLength += content;
    stream.unconsumed += content;
    this.#dataStream = stream;
    return 0;
  }

  /** What is wrong with a DATA frame for a stream that is known; a fault, or 0. */
  #checkData(stream: Http2Stream, length: number, content: number): number {
    if (!canReceive(stream.state)) return Http2Fault.StreamClosed;
    if (stream.headStep !== HeadStep.Content) return Http2Fault.HeadUnexpected;
    if (length > stream.receiveWindow) return Http2Fault.WindowExceeded;
    const total = stream.receivedLength + content;
    if (stream.expectsNoContent) return total > 0 ? Http2Fault.ContentLengthDiffers : 0;
    const { expectedLength } = stream;
    if (expectedLength < 0) return 0;
    const isWrong = total > expectedLength || (this.#dataEnds && total !== expectedLength);
    return isWrong ? Http2Fault.ContentLengthDiffers : 0;
  }

  #onDataWithoutStream(streamId: number): number {
    if (streamId > this.#goawayLast || this.#wasReset(streamId)) return 0;
    if (this.#isIdle(streamId)) return -Http2Fault.StreamIdle;
    this.#control.reset(streamId, ErrorCode.StreamClosed);
    this.#remember(streamId);
    return this.#score.spend(AbuseCost.StreamFault, this.#now) ? 0 : -Http2Fault.Abuse;
  }

  onDataPart(bytes: Uint8Array, start: number, length: number): number {
    const stream = this.#dataStream;
    // Reset in the meantime: `release` has returned what had not been consumed.
    if (stream === null) return 0;
    this.#owner.onData(stream, bytes, start, length);
    return 0;
  }

  onDataEnd(): number {
    const stream = this.#dataStream;
    this.#dataStream = null;
    if (stream === null || !this.#dataEnds || !canReceive(stream.state)) return 0;
    this.#move(stream, StreamEvent.ReceiveEnd);
    this.#owner.onEnd(stream);
    return 0;
  }

  // --- heads -----------------------------------------------------------------------------------------------

  #onHeaders(flags: number, streamId: number, bytes: Uint8Array, start: number, length: number): number {
    let at = start;
    let end = start + length;
    if ((flags & FrameFlag.Padded) !== 0) {
      if (length === 0) return -Http2Fault.FrameSizeInvalid;
      const padding = bytes[at++] as number;
      end -= padding;
      if (end < at) return -Http2Fault.PaddingInvalid;
    }
    this.#blockSelfDependent = false;
    if ((flags & FrameFlag.Priority) !== 0) {
      if (end - at < 5) return -Http2Fault.FrameSizeInvalid;
      this.#blockSelfDependent = readUint31(bytes, at) === streamId;
      at += 5;
    }
    if (end - at > this.#options.blockBytesMax) return -Http2Fault.BlockTooLong;
    if ((flags & FrameFlag.EndHeaders) !== 0) return this.#onBlock(flags, streamId, bytes, at, end);
    this.#blockStream = streamId;
    this.#blockFlags = flags;
    this.#block = bytes.slice(at, end);
    this.#blockLength = end - at;
    this.#blockFrames = 0;
    this.#blockAt = this.#now;
    return 0;
  }

  #onContinuation(flags: number, bytes: Uint8Array, start: number, length: number): number {
    const total = this.#blockLength + length;
    if (++this.#blockFrames > CONTINUATIONS_MAX || total > this.#options.blockBytesMax) {
      return -Http2Fault.BlockTooLong;
    }
    if (total > this.#block.length) {
      const grown = new Uint8Array(Math.min(2 * total, this.#options.blockBytesMax));
      grown.set(this.#block.subarray(0, this.#blockLength));
      this.#block = grown;
    }
    for (let i = 0; i < length; i++) this.#block[this.#blockLength + i] = bytes[start + i] as number;
    this.#blockLength = total;
    if ((flags & FrameFlag.EndHeaders) === 0) return 0;
    const streamId = this.#blockStream;
    const block = this.#block;
    this.#blockStream = 0;
    this.#block = NO_BYTES;
    return this.#onBlock(this.#blockFlags, streamId, block, 0, total);
  }

  /** A whole field block. It is decoded in any case: the table has to follow. */
  #onBlock(flags: number, streamId: number, bytes: Uint8Array, start: number, end: number): number {
    const ends = (flags & FrameFlag.EndStream) !== 0;
    let stream = this.streams.get(streamId);
    let fault = 0;
    if (stream === undefined) {
      if (this.#isPeerStream(streamId) && streamId > this.#lastPeerId) {
        if (streamId > this.#goawayLast) return this.#ignoreBlock(bytes, start, end);
        this.#lastPeerId = streamId;
        if (this.streams.size >= this.#options.streamsMax) {
          fault = this.#ignoreBlock(bytes, start, end);
          return fault !== 0
            ? fault
            : this.#refuse(streamId, Http2Fault.StreamRefused, AbuseCost.StreamRefused);
        }
        stream = this.#begin(streamId);
      } else {
        if (this.#isIdle(streamId))
          return this.isServer ? -Http2Fault.StreamIdInvalid : -Http2Fault.StreamIdle;
        fault = this.#ignoreBlock(bytes, start, end);
        if (fault !== 0 || this.#wasReset(streamId)) return fault;
        return -Http2Fault.StreamClosed;
      }
    } else if (!canReceive(stream.state)) {
      fault = this.#ignoreBlock(bytes, start, end);
      if (fault !== 0 || this.#wasReset(streamId)) return fault;
      return this.#failStream(stream, Http2Fault.StreamClosed);
    }
    return this.#readHead(stream, ends, bytes, start, end);
  }

  #ignoreBlock(bytes: Uint8Array, start: number, end: number): number {
    this.#headReader.ignore();
    this.#decoder.begin(NO_BYTES, 0, 0);
    return this.#decoder.decode(bytes, start, end, this.#headReader);
  }

  #readHead(stream: Http2Stream, ends: boolean, bytes: Uint8Array, start: number, end: number): number {
    const isFirst = stream.headStep === HeadStep.Awaited;
    const kind = !isFirst ? HeadKind.Trailers : this.isServer ? HeadKind.Request : HeadKind.Response;
    const place = this.#place;
    if (!this.#owner.openHead(stream, kind, place)) {
      const fault = this.#ignoreBlock(bytes, start, end);
      return fault !== 0 ? fault : this.#failStream(stream, Http2Fault.StreamRefused);
    }
    const head = place.head as MessageHead;
    this.#decoder.begin(place.bytes, place.at, place.limit);
    this.#headReader.begin(head, kind, place.at);
    if (this.#decoder.decode(bytes, start, end, this.#headReader) !== 0) {
      this.#owner.closeHead(stream, kind);
      return -Http2Fault.CompressionInvalid;
    }
    let fault = -this.#headReader.finish();
    if (stream.state === StreamState.Idle) this.#move(stream, StreamEvent.ReceiveHead);
    if (this.#blockSelfDependent) fault = Http2Fault.StreamDependsOnItself;
    if (fault === 0) fault = this.#takeHead(stream, head, kind, ends);
    if (fault !== 0 && (!isAnswerable(fault) || kind !== HeadKind.Request)) {
      this.#owner.closeHead(stream, kind);
      return this.#failStream(stream, fault);
    }
    if (kind === HeadKind.Request) stream.headStep = HeadStep.Content;
    if (ends) this.#move(stream, StreamEvent.ReceiveEnd);
    this.#owner.onHead(stream, kind, -fault, ends);
    return 0;
  }

  /** What the stream learns from a good head. A fault, or 0. */
  #takeHead(stream: Http2Stream, head: MessageHead, kind: HeadKind, ends: boolean): number {
    if (kind === HeadKind.Trailers) {
      if (!ends) return Http2Fault.TrailersInvalid;
      const { expectedLength, receivedLength } = stream;
      const differs = expectedLength >= 0 && !stream.expectsNoContent && expectedLength !== receivedLength;
      return differs ? Http2Fault.ContentLengthDiffers : 0;
    }
    if (kind === HeadKind.Response) {
      // An interim response is followed by another one (RFC 9113 section 8.1).
      if (head.status < 200) return ends ? Http2Fault.HeadUnexpected : 0;
      stream.headStep = HeadStep.Content;
      if (head.status === 204 || head.status === 304) stream.expectsNoContent = true;
    } else stream.protocol = this.#headReader.protocol;
    stream.expectedLength = head.contentLength;
    if (ends && head.contentLength > 0 && !stream.expectsNoContent) return Http2Fault.ContentLengthDiffers;
    return 0;
  }

  // --- other frames ----------------------------------------------------------------------------------------

  #onPriority(streamId: number, bytes: Uint8Array, start: number, length: number): number {
    if (!this.#score.spend(AbuseCost.Priority, this.#now)) return -Http2Fault.Abuse;
    const stream = this.streams.get(streamId);
    if (length !== 5) {
      if (stream !== undefined) return this.#failStream(stream, Http2Fault.FrameSizeInvalid);
      return this.#isIdle(streamId)
        ? -Http2Fault.FrameSizeInvalid
        : this.#refuse(streamId, Http2Fault.FrameSizeInvalid, AbuseCost.StreamFault);
    }
    if (readUint31(bytes, start) !== streamId) return 0;
    if (stream !== undefined) return this.#failStream(stream, Http2Fault.StreamDependsOnItself);
    return this.#isIdle(streamId) ? -Http2Fault.StreamDependsOnItself : 0;
  }

  #onRstStream(streamId: number, errorCode: number): number {
    const stream = this.streams.get(streamId);
    if (stream === undefined && this.#isIdle(streamId)) return -Http2Fault.StreamIdle;
    // A server that resets is not flooding its client, which opened each stream itself.
    if (this.isServer && !this.#score.spend(AbuseCost.StreamReset, this.#now)) return -Http2Fault.Abuse;
    if (stream === undefined || stream.state === StreamState.Closed) return 0;
    this.#move(stream, StreamEvent.Reset);
    if (this.#dataStream === stream) this.#dataStream = null;
    this.#owner.onReset(stream, errorCode, 0, errorCode === ErrorCode.RefusedStream);
    return 0;
  }

  #onPing(flags: number, bytes: Uint8Array, start: number): number {
    if ((flags & FrameFlag.Ack) !== 0) {
      if (this.#draining && this.isServer && this.#goawayLast === WINDOW_MAX && isDrainPing(bytes, start)) {
        this.#goawayLast = this.#lastPeerId;
        this.#control.goaway(this.#lastPeerId, ErrorCode.NoError);
      }
      return 0;
    }
    const isFree = this.#sentSincePing;
    this.#sentSincePing = false;
    if (!isFree && !this.#score.spend(AbuseCost.Ping, this.#now)) return -Http2Fault.Abuse;
    return this.#control.answerPing(bytes, start) ? 0 : -Http2Fault.Abuse;
  }

  #onGoaway(lastStreamId: number): number {
    const wasGoing = this.peerGoingAway;
    this.peerGoingAway = true;
    if (!this.isServer) {
      // RFC 9113 section 6.8: what is above was not acted on and may be sent again elsewhere.
      for (const stream of [...this.streams.values()]) {
        if (stream.id <= lastStreamId || stream.state === StreamState.Closed) continue;
        stream.state = StreamState.Closed;
        this.#owner.onReset(stream, ErrorCode.RefusedStream, 0, true);
      }
    }
    if (!wasGoing) this.#owner.onPeerChange();
    return 0;
  }

  #onWindowUpdate(streamId: number, increment: number): number {
    if (this.#updatesFree > 0) this.#updatesFree--;
    else if (!this.#score.spend(AbuseCost.WindowUpdate, this.#now)) return -Http2Fault.Abuse;
    if (streamId === 0) {
      if (increment === 0) return -Http2Fault.WindowIncrementZero;
      if (increment > WINDOW_MAX - this.sendWindow) return -Http2Fault.WindowOverflow;
      const wasShut = this.sendWindow <= 0;
      this.sendWindow += increment;
      if (wasShut) this.#owner.onWindow(null);
      return 0;
    }
    const stream = this.streams.get(streamId);
    if (stream === undefined) {
      if (this.#isIdle(streamId)) return -Http2Fault.StreamIdle;
      if (increment > 0 || this.#wasReset(streamId)) return 0;
      return this.#refuse(streamId, Http2Fault.WindowIncrementZero, AbuseCost.StreamFault);
    }
    if (stream.state === StreamState.Closed) return 0;
    if (increment === 0) return this.#failStream(stream, Http2Fault.WindowIncrementZero);
    if (increment > WINDOW_MAX - stream.sendWindow)
      return this.#failStream(stream, Http2Fault.WindowOverflow);
    const wasShut = stream.sendWindow <= 0;
    stream.sendWindow += increment;
    if (wasShut && stream.sendWindow > 0) this.#owner.onWindow(stream);
    return 0;
  }

  #onSettings(flags: number, bytes: Uint8Array, start: number, length: number): number {
    if ((flags & FrameFlag.Ack) !== 0) {
      if (length !== 0) return -Http2Fault.FrameSizeInvalid;
      if (!this.peerSettled) return -Http2Fault.SettingsExpected;
      this.#settingsAcked = true;
      return 0;
    }
    if (this.peerSettled && !this.#score.spend(AbuseCost.Settings, this.#now)) return -Http2Fault.Abuse;
    const before = this.#peerWindow;
    for (let at = start; at < start + length; at += 6) {
      const parameter = ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
      const fault = this.#applySetting(parameter, readUint32(bytes, at + 2));
      if (fault !== 0) return fault;
    }
    this.peerSettled = true;
    this.#control.acknowledgeSettings();
    this.#owner.onPeerChange();
    if (this.#peerWindow > before) this.#owner.onWindow(null);
    return 0;
  }

  #applySetting(parameter: number, value: number): number {
    switch (parameter) {
      case Setting.HeaderTableSize:
        this.encoder.setLimit(value);
        return 0;
      case Setting.EnablePush:
        // Only a client may say 1 (RFC 9113 section 6.5.2).
        return value === 0 || (value === 1 && this.isServer) ? 0 : -Http2Fault.SettingInvalid;
      case Setting.MaxConcurrentStreams:
        this.peerStreamsMax = value;
        return 0;
      case Setting.InitialWindowSize:
        return this.#applyWindow(value);
      case Setting.MaxFrameSize:
        return value >= FRAME_BYTES_MIN && value <= FRAME_BYTES_MAX ? 0 : -Http2Fault.SettingInvalid;
      case Setting.EnableConnectProtocol:
        if (value > 1 || (value === 0 && this.peerAllowsConnect)) return -Http2Fault.SettingInvalid;
        this.peerAllowsConnect = value === 1;
        return 0;
      case Setting.NoPriorities:
        return value <= 1 ? 0 : -Http2Fault.SettingInvalid;
      default:
        return 0;
    }
  }

  /** RFC 9113 section 6.9.2: open streams get the difference, by which a window can fall below zero. */
  #applyWindow(value: number): number {
    if (value > WINDOW_MAX) return -Http2Fault.WindowOverflow;
    const difference = value - this.#peerWindow;
    this.#peerWindow = value;
    for (const stream of this.streams.values()) {
      if (difference > WINDOW_MAX - stream.sendWindow) return -Http2Fault.WindowOverflow;
      stream.sendWindow += difference;
    }
    return 0;
  }

  // --- ends ------------------------------------------------------------------------------------------------

  #begin(id: number): Http2Stream {
    const stream = this.#spare.pop() ?? new Http2Stream();
    stream.begin(id, this.#peerWindow, this.#options.streamWindow);
    this.streams.set(id, stream);
    return stream;
  }

  #move(stream: Http2Stream, event: StreamEvent): void {
    const next = nextStreamState(stream.state, event);
    assert(next >= 0, 'a stream moves where it cannot');
    stream.state = next as StreamState;
  }

  /** A stream error (RFC 9113 section 5.4.2). 0, or a negated fault when the peer has made too many. */
  #failStream(stream: Http2Stream, fault: number): number {
    const { errorCode } = http2FaultFact(fault);
    const wasClosed = stream.state === StreamState.Closed;
    stream.state = StreamState.Closed;
    if (this.#dataStream === stream) this.#dataStream = null;
    this.#control.reset(stream.id, errorCode);
    this.#remember(stream.id);
    if (!wasClosed) {
      if (stream.user === null) this.release(stream);
      else this.#owner.onReset(stream, errorCode, fault, false);
    }
    return this.#score.spend(AbuseCost.StreamFault, this.#now) ? 0 : -Http2Fault.Abuse;
  }

  /** A stream error on a stream that is not kept. */
  #refuse(streamId: number, fault: number, cost: number): number {
    this.#control.reset(streamId, http2FaultFact(fault).errorCode);
    this.#remember(streamId);
    return this.#score.spend(cost, this.#now) ? 0 : -Http2Fault.Abuse;
  }

  #die(fault: number): number {
    this.#fatal = -fault;
    this.#control.goaway(this.#lastPeerId, http2FaultFact(fault).errorCode);
    return fault;
  }

  /** Streams of clients have odd numbers; a server opens none here, because push is not allowed. */
  #isPeerStream(streamId: number): boolean {
    return this.isServer && (streamId & 1) === 1;
  }

  #isIdle(streamId: number): boolean {
    if ((streamId & 1) === 0) return true;
    return this.isServer ? streamId > this.#lastPeerId : streamId >= this.#nextId;
  }

  #remember(streamId: number): void {
    this.#resetIds[this.#resetCount++ % RESETS_REMEMBERED] = streamId;
  }

  /**
   * Whether we reset it lately: what the peer sent before it knew is no fault (RFC 9113 section 5.1, closed).
   */
  #wasReset(streamId: number): boolean {
    return this.#resetIds.includes(streamId);
  }
}

function isDrainPing(bytes: Uint8Array, start: number): boolean {
  for (let i = 0; i < 8; i++) if (bytes[start + i] !== DRAIN_PING[i]) return false;
  return true;
}
