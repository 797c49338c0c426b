import { CloseReason } from '#contract/record.ts';
import { type Completion, Errno, type Fd, type OperationId } from '#io/io.ts';
import type { Relay, RelayOwner, RelaySide } from '#io/relay.ts';
import type { StreamInfo, StreamVerdict } from '#proxy/hooks/hooks.ts';
import type {
  Dialer,
  DialPlan,
  DialRefusal,
  InboundStream,
  StreamHandler,
  Worker,
} from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import { sniffHttp } from './sniff.ts';

/** Calls the application's `stream` hook with its time budget; rejects when it failed. */
export type StreamFunction = (
  info: StreamInfo,
) => StreamVerdict | undefined | Promise<StreamVerdict | undefined>;

/** What a dispatcher is made of. */
export interface StreamDispatcherOptions {
  readonly dialer: Dialer;
  /** Null when there is no `stream` hook. */
  readonly hook: StreamFunction | null;
  /** Takes the streams that are HTTP. */
  readonly http: StreamHandler;
}

/**
 * Takes every TCP stream that came in, asks the `stream` hook or looks at the first bytes, and carries it: to HTTP, or by
 * splice to its target. One record per stream that stays a stream; HTTP writes its own.
 *
 * ```
 *  onStream ─► hook? ─► (peek) ─┬─ http ──► HttpEngine
 *                               ├─ splice ► plan ► connect ► Relay ► record
 *                               └─ reject ► reset ► record
 * ```
 */
export class StreamDispatcher implements StreamHandler {
  readonly worker: Worker;
  readonly options: StreamDispatcherOptions;
  readonly #open = new Set<StreamCarrier>();

  constructor(worker: Worker, options: StreamDispatcherOptions) {
    this.worker = worker;
    this.options = options;
  }

  /** Streams that are being decided about or spliced now. */
  get count(): number {
    return this.#open.size;
  }

  onStream(stream: InboundStream, prefixOffset: number, prefixLength: number): void {
    const { counters } = this.worker.stats;
    counters[Counter.StreamsOpened] = (counters[Counter.StreamsOpened] as number) + 1;
    if (stream.wish === 'http' && this.options.hook === null) {
      this.options.http.onStream(stream, prefixOffset, prefixLength);
      return;
    }
    const carrier = new StreamCarrier(this, stream, prefixOffset, prefixLength);
    this.#open.add(carrier);
    carrier.begin();
  }

  /** Ends all streams that are not HTTP. */
  closeAll(reason: CloseReason): void {
    for (const carrier of [...this.#open]) carrier.abort(reason);
  }

  /** @internal */
  ended(carrier: StreamCarrier): void {
    this.#open.delete(carrier);
  }
}

const TAG_PEEK = 0;
const TAG_PEEK_TIMEOUT = 1;
const TAG_IDLE = 2;

/** One stream from its arrival to its end. */
class StreamCarrier implements Completion, RelayOwner {
  readonly #dispatcher: StreamDispatcher;
  readonly #worker: Worker;
  readonly #stream: InboundStream;
  readonly #startedAt = Date.now();
  #prefixOffset: number;
  #prefixLength: number;
  #peekOperation: OperationId = 0;
  #peekTimer = 0;
  #peeking: ((eof: boolean) => void) | null = null;
  #clientGone = false;
  #via: string | null = null;
  /** What decided, for the record. */
  #rule: string;
  #upstream: Fd = -1;
  #relay: Relay | null = null;
  #idleTimer = 0;
  #ended = false;

  constructor(
    dispatcher: StreamDispatcher,
    stream: InboundStream,
    prefixOffset: number,
    prefixLength: number,
  ) {
    this.#dispatcher = dispatcher;
    this.#worker = dispatcher.worker;
    this.#stream = stream;
    this.#rule = stream.rule;
    this.#prefixOffset = prefixOffset;
    this.#prefixLength = prefixLength;
  }

  begin(): void {
    const { hook } = this.#dispatcher.options;
    if (hook === null) {
      this.#byWish();
      return;
    }
    const { context, source, destination, route } = this.#stream;
    const info: StreamInfo = { context, source, destination, route, peek: (limit) => this.#peekBytes(limit) };
    try {
      const verdict = hook(info);
      if (verdict instanceof Promise) {
        verdict.then(
          (later) => this.#decide(later),
          () => this.abort(CloseReason.Policy),
        );
      } else this.#decide(verdict);
    } catch {
      this.abort(CloseReason.Policy);
    }
  }

  /** Ends the stream with a reset to both sides. */
  abort(reason: CloseReason): void {
    if (this.#ended) return;
    if (this.#relay !== null) {
      const relay = this.#relay;
      this.#finish(reason, relay);
      relay.close();
      return;
    }
    this.#reset();
    this.#finish(reason, null);
  }

  onCompletion(tag: number, result: number, flags: number): void {
    if (tag === TAG_IDLE) this.#onIdle();
    else if (tag === TAG_PEEK_TIMEOUT) this.#worker.io.cancel(this.#peekOperation);
    else this.#onPeeked(result, flags);
  }

  onRelayEnd(relay: Relay, side: RelaySide, errno: number): void {
    if (this.#ended) return;
    const client = side === 0;
    const reason =
      errno === 0
        ? client
          ? CloseReason.ClientClosed
          : CloseReason.OriginClosed
        : client
          ? CloseReason.ClientError
          : CloseReason.OriginError;
    this.#finish(reason, relay);
  }

  #decide(verdict: StreamVerdict | undefined): void {
    if (this.#ended) return;
    if (verdict === undefined) {
      this.#byWish();
      return;
    }
    switch (verdict.action) {
      case 'reject':
        this.#rule = `stream hook: reject (${verdict.reason ?? 'no reason given'})`;
        this.#trace('verdict', this.#rule);
        this.abort(CloseReason.Policy);
        return;
      case 'http':
        this.#toHttp();
        return;
      case 'sniff':
        this.#sniff(verdict);
        return;
      case 'splice':
        this.#splice(verdict);
        return;
      default:
        verdict satisfies never;
    }
  }

  #byWish(): void {
    if (this.#stream.wish === 'http') this.#toHttp();
    else if (this.#stream.wish === 'sniff') this.#sniff({});
    else this.#splice({});
  }

  #toHttp(): void {
    this.#ended = true;
    this.#dispatcher.ended(this);
    this.#trace('upgrade', 'stream is HTTP/1.1');
    const { counters } = this.#worker.stats;
    counters[Counter.StreamsClosed] = (counters[Counter.StreamsClosed] as number) + 1;
    this.#dispatcher.options.http.onStream(this.#stream, this.#prefixOffset, this.#prefixLength);
  }

  #sniff(where: { to?: { host: string; port: number }; via?: string }): void {
    const found = sniffHttp(this.#worker.io.arena.bytes, this.#prefixOffset, Math.max(this.#prefixLength, 0));
    if (found === 'http') this.#toHttp();
    else if (found === 'other' || this.#clientGone || this.#prefixLength > 64) this.#splice(where);
    else {
      this.#peek((quiet) => {
        if (quiet) this.#splice(where);
        else this.#sniff(where);
      });
    }
  }

  /** Reads more of the client's first bytes; `then(true)` when there will be none in time. */
  #peek(then: (quiet: boolean) => void): void {
    const { io, streams, limits } = this.#worker;
    this.#peeking = then;
    this.#peekTimer = io.timer(limits.sniffMs, this, TAG_PEEK_TIMEOUT);
    const { fd } = this.#stream;
    if (this.#prefixOffset < 0) this.#peekOperation = io.recvPooled(fd, streams, this, TAG_PEEK);
    else {
      const at = this.#prefixOffset + this.#prefixLength;
      const room = streams.slotBytes - this.#prefixLength;
      this.#peekOperation = io.recv(fd, at, room, this, TAG_PEEK);
    }
  }

  #onPeeked(result: number, flags: number): void {
    const { io, streams } = this.#worker;
    io.cancelTimer(this.#peekTimer);
    const then = this.#peeking as (quiet: boolean) => void;
    this.#peeking = null;
    if (result > 0) {
      if (this.#prefixOffset < 0) this.#prefixOffset = streams.offsetOf(flags >>> 16);
      this.#prefixLength += result;
    } else if (result === 0) this.#clientGone = true;
    if (this.#ended) {
      this.#releasePrefix();
      return;
    }
    if (result < 0 && result !== -Errno.ECANCELED && result !== -Errno.ENOBUFS) {
      this.abort(CloseReason.ClientError);
      return;
    }
    then(result <= 0);
  }

  async #peekBytes(limit = 4096): Promise<Uint8Array> {
    if (this.#prefixLength === 0 && !this.#clientGone) {
      await new Promise<void>((resolve) => this.#peek(() => resolve()));
    }
    if (this.#prefixOffset < 0) return new Uint8Array(0);
    const end = this.#prefixOffset + Math.min(this.#prefixLength, limit);
    return this.#worker.io.arena.bytes.slice(this.#prefixOffset, end);
  }

  #splice(where: { to?: { host: string; port: number }; via?: string }): void {
    const { context, network, flow, source, destination, route, facts, guard } = this.#stream;
    const plan = this.#dispatcher.options.dialer.plan({
      ...(facts === undefined ? {} : { facts }),
      ...(guard === undefined ? {} : { guard }),
      context,
      network,
      flow,
      layer: 'tcp',
      source,
      target: where.to ?? null,
      destination,
      via: where.via ?? route,
    });
    if (plan instanceof Promise) {
      plan.then(
        (decided) => this.#onPlan(decided),
        () => this.abort(CloseReason.Policy),
      );
    } else this.#onPlan(plan);
  }

  #onPlan(plan: DialPlan | DialRefusal): void {
    if (this.#ended) return;
    if ('refused' in plan) {
      this.#rule = `${this.#rule}, refused: ${plan.reason}`;
      this.#trace('verdict', `stream refused: ${plan.reason}`);
      this.abort(CloseReason.Policy);
      return;
    }
    this.#via = plan.via;
    this.#trace('connect', `connecting to ${plan.target.host}:${plan.target.port} by ${plan.via}`);
    this.#dispatcher.options.dialer.connect(plan).then(
      (fd) => this.#onConnected(fd),
      (error) => {
        this.#trace('connect', (error as Error).message);
        this.abort(CloseReason.OriginUnreachable);
      },
    );
  }

  #onConnected(fd: Fd): void {
    const { io, limits, relays, streams } = this.#worker;
    if (this.#ended) {
      io.close(fd);
      return;
    }
    this.#upstream = fd;
    const fromA = { offset: this.#prefixOffset, length: this.#prefixLength, pool: streams };
    this.#prefixOffset = -1;
    const options = fromA.offset >= 0 ? { fromA } : {};
    this.#relay = relays.start(this.#stream.fd, fd, this, options);
    this.#idleTimer = io.timer(limits.streamIdleMs, this, TAG_IDLE);
  }

  #onIdle(): void {
    const { io, limits } = this.#worker;
    const relay = this.#relay as Relay;
    const remaining = relay.lastActivity + limits.streamIdleMs - io.now();
    if (remaining > 0) this.#idleTimer = io.timer(remaining, this, TAG_IDLE);
    else this.abort(CloseReason.ClientIdle);
  }

  /** Closes with RST, so that the peer learns that this was no orderly end. */
  #reset(): void {
    const { io } = this.#worker;
    for (const fd of [this.#stream.fd, this.#upstream]) {
      if (fd < 0) continue;
      try {
        io.setOption(fd, 'linger-zero', 1);
      } catch {
        // The socket is dead already; closing is all that is left.
      }
      io.close(fd);
    }
  }

  #releasePrefix(): void {
    if (this.#prefixOffset < 0) return;
    this.#worker.streams.release(this.#prefixOffset);
    this.#prefixOffset = -1;
  }

  #finish(reason: CloseReason, relay: Relay | null): void {
    this.#ended = true;
    const { io, stats, records } = this.#worker;
    if (this.#peeking === null) this.#releasePrefix();
    io.cancelTimer(this.#idleTimer);
    io.cancelTimer(this.#peekTimer);
    this.#dispatcher.ended(this);
    const bytesUp = relay?.bytesForth ?? 0;
    const bytesDown = relay?.bytesBack ?? 0;
    const { counters } = stats;
    counters[Counter.StreamsClosed] = (counters[Counter.StreamsClosed] as number) + 1;
    counters[Counter.StreamBytesUp] = (counters[Counter.StreamBytesUp] as number) + bytesUp;
    counters[Counter.StreamBytesDown] = (counters[Counter.StreamBytesDown] as number) + bytesDown;
    const { context, flow, source, destination } = this.#stream;
    records.record({
      flow,
      account: context.account,
      vnet: context.vnet,
      identity: context.identity,
      onRamp: context.onRamp,
      offRamp: this.#via,
      layer: 'tcp',
      protocol: 'tcp',
      source,
      destination,
      rule: this.#rule,
      reason,
      startedAt: this.#startedAt,
      endedAt: Date.now(),
      bytesUp,
      bytesDown,
      packetsUp: 0,
      packetsDown: 0,
    });
  }

  #trace(stage: 'verdict' | 'upgrade' | 'connect', text: string): void {
    const { tracer, io } = this.#worker;
    if (!tracer.enabled) return;
    const { context, flow, source, destination } = this.#stream;
    tracer.emit({
      at: io.refreshNow(),
      flow,
      stage,
      account: context.account,
      vnet: context.vnet,
      tuple: `${source.address}:${source.port} > ${destination.address}:${destination.port} tcp`,
      text,
    });
  }
}
