import { assert } from '#base/assert.ts';
import { CloseReason, type FlowRecord } from '#contract/record.ts';
import { Errno } from '#io/io.ts';
import type { ClientText } from '#proxy/access-log/access-entry.ts';
import type { DialPlan, InboundStream } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';
import { forwardedLines } from '#protocol/http/forward.ts';
import { latin1Bytes } from '#protocol/http/octets.ts';

import type { HttpEngine } from './http.ts';
import type { HttpExchange } from './http-exchange.ts';
import { HttpSocket } from './http-socket.ts';
import type { UpstreamGroup } from './http-upstream-pool.ts';

const HTTP = latin1Bytes('http');
const HTTPS = latin1Bytes('https');
/**
 * How long the rest of a client's bytes is read and dropped behind our last answer (RFC 9112 section 9.6).
 */
const LINGER_MS = 2000;
/** Bytes dropped at most meanwhile: enough for what was under way, not for an upload that goes on. */
const LINGER_BYTES_MAX = 1024 * 1024;

/**
 * One client connection. It is idle, or has one exchange; requests that come meanwhile wait in the kernel or
 * in the one input slot, so answers leave in the order of the requests (RFC 9112 section 9.3.2).
 *
 * ```
 *  idle ──first byte──► exchange ──► idle …          until Connection: close, FIN, a fault, a limit
 *                          └──────► lingering ──► closed
 * ```
 */
export class HttpConnection extends HttpSocket {
  readonly engine: HttpEngine;
  readonly stream: InboundStream;
  /** The client came by TLS, to this node or to a proxy in front that is believed. */
  readonly isSecure: boolean;
  /** Address of the client as X-Forwarded-For has it. */
  readonly clientAddress: Uint8Array;
  readonly protocol: Uint8Array;
  /** Both as field lines. */
  readonly forwardedLines: Uint8Array;
  exchange: HttpExchange | null = null;
  /** The plan of the last request, when equal requests get equal plans; with the group of its key. */
  plan: DialPlan | null = null;
  group: UpstreamGroup | null = null;
  /** Requests begun. */
  requests = 0;
  /** Monotonic milliseconds since which it is idle or lingering. */
  since: number;
  lingering = false;
  offRamp: string | null = null;
  /** What names the client in the access log, once a request has come. */
  clientText: ClientText | null = null;
  readonly #startedAt = Date.now();
  #onGiven: ((stream: InboundStream | null) => void) | null = null;
  #lingeredBytes = 0;
  /** Bytes on connections that a tunnel took over: added by the tunnel when it ends. */
  bytesUp = 0;
  bytesDown = 0;

  constructor(engine: HttpEngine, stream: InboundStream) {
    super(engine, stream.fd);
    this.engine = engine;
    this.stream = stream;
    this.isSecure = stream.facts?.tls?.encrypted === true;
    this.clientAddress = latin1Bytes(stream.source.address);
    this.protocol = this.isSecure ? HTTPS : HTTP;
    this.forwardedLines = forwardedLines(this.clientAddress, this.protocol);
    this.since = engine.io.now();
  }

  /** Begins with `prefixLength` bytes that were read already, or with waiting for the first. */
  begin(prefixOffset: number, prefixLength: number): void {
    if (prefixOffset < 0) {
      this.receive();
      return;
    }
    if (prefixLength === 0) {
      this.engine.streams.release(prefixOffset);
      this.receive();
      return;
    }
    this.adopt(prefixOffset, prefixLength);
    this.onInput();
  }

  /** No request has begun, and nothing of one is here. */
  get isIdle(): boolean {
    return this.exchange === null && !this.lingering && !this.closed && this.inSlot < 0 && !this.sending;
  }

  /**
   * Lets go of an idle connection: its stream with the descriptor still open, or null when a request or the
   * end came first. No record is written: the stream goes on elsewhere.
   */
  giveAway(): Promise<InboundStream | null> {
    assert(this.isIdle && this.receiving);
    this.cancelReceive();
    return new Promise((resolve) => {
      this.#onGiven = resolve;
    });
  }

  #given(stream: InboundStream | null): void {
    this.#onGiven?.(stream);
    this.#onGiven = null;
  }

  protected override onInput(): void {
    this.#given(null);
    if (this.lingering) {
      this.#dropLingering();
      return;
    }
    if (this.exchange === null) {
      this.exchange = this.engine.takeExchange(this);
      this.requests++;
    }
    this.exchange.onClientInput();
  }

  protected override onEnd(errno: number): void {
    if (this.#onGiven !== null && errno === Errno.ECANCELED) {
      this.engine.forget(this);
      this.detach();
      this.#given(this.stream);
      return;
    }
    this.#given(null);
    if (this.lingering) this.finish(CloseReason.ClientClosed);
    else if (this.exchange !== null) this.exchange.onClientEnd(errno);
    else this.finish(errno === 0 ? CloseReason.ClientClosed : CloseReason.ClientError);
  }

  protected override onSent(errno: number): void {
    if (this.exchange !== null) this.exchange.onClientSent(errno);
    else if (errno !== 0) this.finish(CloseReason.ClientError);
  }

  /** The exchange is over and the connection stays: the next request may be here already. */
  next(): void {
    this.exchange = null;
    this.since = this.engine.io.now();
    if (this.inSlot >= 0) this.onInput();
    else if (this.ended) this.finish(CloseReason.ClientClosed);
    else this.receive();
  }

  /**
   * The last answer is on its way: says so with FIN and reads on for a while, because closing with unread
   * input would make the kernel send RST, and the client lose the answer.
   */
  linger(): void {
    this.exchange = null;
    this.lingering = true;
    this.since = this.engine.io.now();
    this.engine.io.shutdownWrite(this.fd);
    if (this.ended) {
      this.finish(CloseReason.ClientClosed);
      return;
    }
    this.#dropLingering();
  }

  /** Ends the connection; with `abort` by RST. One record is written. */
  finish(reason: CloseReason, abort = false): void {
    if (this.closed) return;
    this.#given(null);
    if (abort) this.reset();
    else this.close();
    this.engine.forget(this);
    this.record(reason);
  }

  /** Writes the record of this stream. Exactly once: by `finish`, or by the tunnel that took it over. */
  record(reason: CloseReason): void {
    const { context, flow, source, destination, rule } = this.stream;
    const bytesUp = this.bytesIn + this.bytesUp;
    const bytesDown = this.bytesOut + this.bytesDown;
    const { counters } = this.engine.worker.stats;
    counters[Counter.StreamBytesUp] = (counters[Counter.StreamBytesUp] as number) + bytesUp;
    counters[Counter.StreamBytesDown] = (counters[Counter.StreamBytesDown] as number) + bytesDown;
    const record: FlowRecord = {
      flow,
      account: context.account,
      vnet: context.vnet,
      identity: context.identity,
      onRamp: context.onRamp,
      offRamp: this.offRamp,
      layer: 'http',
      protocol: 'tcp',
      source,
      destination,
      rule,
      reason,
      startedAt: this.#startedAt,
      endedAt: Date.now(),
      bytesUp,
      bytesDown,
      packetsUp: 0,
      packetsDown: 0,
    };
    this.engine.worker.records.record(record);
    // What its requests did stands in their lines: not what came without one, or behind an upgrade.
    const tunnelled = this.bytesUp + this.bytesDown > 0;
    if (this.requests === 0 || tunnelled) this.engine.options.accessLog?.ended(record);
  }

  /** Looks whether a limit of time is reached. */
  sweep(now: number): void {
    if (this.lingering) {
      if (now - this.since >= LINGER_MS) this.finish(CloseReason.ClientIdle);
    } else if (this.exchange !== null) this.exchange.sweep(now);
    else {
      const { limits } = this.engine.worker;
      const limit = this.requests === 0 ? limits.headMs : limits.keepAliveMs;
      if (now - this.since >= limit) this.finish(CloseReason.ClientIdle);
    }
  }

  #dropLingering(): void {
    this.#lingeredBytes += this.available;
    while (this.inSlot >= 0) this.dropInput();
    if (this.#lingeredBytes > LINGER_BYTES_MAX) this.finish(CloseReason.Limit);
    else this.receive();
  }
}
