import { RampartError } from '#base/error.ts';
import { CloseReason } from '#contract/record.ts';
import { type Completion, Errno, type Fd } from '#io/io.ts';
import type { Relay, RelayOwner, RelaySide } from '#io/relay.ts';
import type { FirstBytes, StreamInfo, StreamVerdict } from '#proxy/hooks/hooks.ts';
import type {
  Dialer,
  DialPlan,
  DialRefusal,
  InboundStream,
  StreamHandler,
  StreamRefusal,
  Worker,
} from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import { FirstBytesReader } from './first-bytes.ts';

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
 * Takes every TCP stream that came in, asks the `stream` hook or looks at the first bytes, and carries it: to
 * HTTP, or by splice to its target. One record per stream that stays a stream; HTTP writes its own.
 *
 * ```
 *  onStream ─► hook? ─► (first bytes) ─┬─ http ──► HttpEngine
 *                                      ├─ splice ► plan ► connect ► Relay ► record
 *                                      └─ reject ► reset ► record
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
    if (stream.wish === 'http' && this.options.hook === null && stream.answer === undefined) {
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

/** One stream from its arrival to its end. */
class StreamCarrier implements Completion, RelayOwner {
  readonly #dispatcher: StreamDispatcher;
  readonly #worker: Worker;
  readonly #stream: InboundStream;
  readonly #startedAt = Date.now();
  readonly #first: FirstBytesReader;
  /** The client was told that it may send, or need not be told. */
  #answered: boolean;
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
    this.#first = new FirstBytesReader(this.#worker, stream.fd, prefixOffset, prefixLength);
    this.#answered = stream.answer === undefined;
  }

  begin(): void {
    const { hook } = this.#dispatcher.options;
    if (hook === null) {
      this.#byWish();
      return;
    }
    const { context, source, destination, route } = this.#stream;
    const info: StreamInfo = {
      context,
      source,
      destination,
      route,
      facts: this.#stream.facts ?? null,
      peek: (limit) => this.#peekBytes(limit),
      detect: () => this.#detect(),
    };
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

  /** Ends the stream with a reset to both sides; a client that waits for an answer gets it. */
  abort(reason: CloseReason, refusal: StreamRefusal = refusalOf(reason)): void {
    if (this.#ended) return;
    if (this.#relay !== null) {
      const relay = this.#relay;
      this.#finish(reason, relay);
      relay.close();
      return;
    }
    this.#first.drop();
    if (this.#answered) this.#reset(this.#stream.fd);
    else this.#stream.answer?.refused(refusal);
    if (this.#upstream >= 0) this.#reset(this.#upstream);
    this.#finish(reason, null);
  }

  /** The idle time is over. */
  onCompletion(): void {
    this.#onIdle();
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
    if (!this.#tellOpened()) return;
    this.#first.settle(() => {
      if (this.#ended) return;
      this.#ended = true;
      this.#dispatcher.ended(this);
      this.#trace('upgrade', 'stream is HTTP/1.1');
      const { counters } = this.#worker.stats;
      counters[Counter.StreamsClosed] = (counters[Counter.StreamsClosed] as number) + 1;
      const { offset, length } = this.#first.take();
      this.#dispatcher.options.http.onStream(this.#stream, offset, length);
    });
  }

  #sniff(where: { to?: { host: string; port: number }; via?: string }): void {
    if (!this.#tellOpened()) return;
    this.#first.detect((found, arrival) => {
      if (this.#ended) return;
      this.#traceFound(found);
      if (arrival === 'broken') this.abort(CloseReason.ClientError);
      else if (found.protocol === 'http1') this.#toHttp();
      else this.#splice(where);
    });
  }

  /** Lets the client send; false when it is gone, and with it the stream. */
  #tellOpened(): boolean {
    if (this.#answered) return true;
    this.#answered = true;
    if (this.#stream.answer?.opened() !== false) return true;
    this.abort(CloseReason.ClientClosed);
    return false;
  }

  async #peekBytes(limit = 4096): Promise<Uint8Array> {
    const first = this.#first;
    if (this.#ended || !this.#tellOpened()) return new Uint8Array(0);
    if (first.length === 0) await new Promise<void>((resolve) => first.more(() => resolve()));
    if (first.at < 0) return new Uint8Array(0);
    return this.#worker.io.arena.bytes.slice(first.at, first.at + Math.min(first.length, limit));
  }

  async #detect(): Promise<FirstBytes> {
    if (!this.#ended) this.#tellOpened();
    const found = await new Promise<FirstBytes>((resolve) => this.#first.detect(resolve));
    this.#traceFound(found);
    return found;
  }

  #traceFound({ protocol, serverName }: FirstBytes): void {
    this.#trace('stream', `the client speaks ${protocol}${serverName === null ? '' : ` to ${serverName}`}`);
  }

  #splice(where: { to?: { host: string; port: number }; via?: string }): void {
    const { context, network, flow, source, destination, route, facts, guard, secure } = this.#stream;
    const plan = this.#dispatcher.options.dialer.plan({
      ...(facts === undefined ? {} : { facts }),
      ...(guard === undefined ? {} : { guard }),
      ...(secure === undefined || where.to !== undefined || where.via !== undefined ? {} : { secure }),
      context,
      network,
      flow,
      layer: 'tcp',
      source,
      target: where.to ?? this.#stream.target ?? null,
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
      (error: unknown) => this.#onNotConnected(error),
    );
  }

  #onNotConnected(error: unknown): void {
    const text = (error as Error).message;
    const errno = error instanceof RampartError ? error.errno : 0;
    this.#trace('connect', text);
    if (errno === Errno.EACCES) {
      this.#rule = `${this.#rule}, refused: ${text}`;
      this.abort(CloseReason.Policy);
    } else this.abort(CloseReason.OriginUnreachable, REFUSALS[errno] ?? 'failed');
  }

  #onConnected(fd: Fd): void {
    if (this.#ended) {
      this.#worker.io.close(fd);
      this.#dispatcher.options.dialer.closed?.(fd);
      return;
    }
    this.#upstream = fd;
    if (this.#tellOpened()) this.#first.settle(() => this.#relayTo(fd));
  }

  #relayTo(fd: Fd): void {
    if (this.#ended) return;
    const { io, limits, relays, streams } = this.#worker;
    const { offset, length } = this.#first.take();
    const options = offset >= 0 ? { fromA: { offset, length, pool: streams } } : {};
    this.#relay = relays.start(this.#stream.fd, fd, this, options);
    this.#idleTimer = io.timer(limits.streamIdleMs, this, 0);
  }

  #onIdle(): void {
    const { io, limits } = this.#worker;
    const relay = this.#relay as Relay;
    const remaining = relay.lastActivity + limits.streamIdleMs - io.now();
    if (remaining > 0) this.#idleTimer = io.timer(remaining, this, 0);
    else this.abort(CloseReason.ClientIdle);
  }

  /** Closes with RST, so that the peer learns that this was no orderly end. */
  #reset(fd: Fd): void {
    const { io } = this.#worker;
    try {
      io.setOption(fd, 'linger-zero', 1);
    } catch {
      // The socket is dead already; closing is all that is left.
    }
    io.close(fd);
  }

  #finish(reason: CloseReason, relay: Relay | null): void {
    this.#ended = true;
    const { io, stats, records } = this.#worker;
    io.cancelTimer(this.#idleTimer);
    this.#dispatcher.ended(this);
    if (this.#upstream >= 0) this.#dispatcher.options.dialer.closed?.(this.#upstream);
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

  #trace(stage: 'verdict' | 'upgrade' | 'connect' | 'stream', text: string): void {
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

/** What a client is told about a connect that failed with an errno. */
const REFUSALS: Readonly<Record<number, StreamRefusal>> = Object.freeze({
  [Errno.ECONNREFUSED]: 'refused',
  [Errno.ETIMEDOUT]: 'timeout',
  [Errno.EHOSTUNREACH]: 'no-host',
  [Errno.ENETUNREACH]: 'no-network',
});

function refusalOf(reason: CloseReason): StreamRefusal {
  return reason === CloseReason.Policy || reason === CloseReason.RouteRemoved ? 'policy' : 'failed';
}
