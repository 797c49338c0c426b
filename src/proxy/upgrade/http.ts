/**
 * The HTTP/1.1 engine: takes client streams and carries their requests to upstreams, with keep-alive on both
 * sides.
 *
 * ```
 *  InboundStream ─► HttpConnection ─► HttpExchange ─┬─ request hook ─┬─ answer, redirect, block ─► client
 *                     (one client)     (one request)│                └─ forward
 *                                                   ├─ Dialer.plan ─► UpstreamPool ─► UpstreamConnection
 *                                                   ├─ BodyPump up:    client ─► upstream
 *                                                   └─ BodyPump down:  upstream ─► (response hook) ─► client
 * ```
 * Files: http-socket.ts (a descriptor and its input), http-connection.ts (a client), http-exchange.ts (a
 * request and its response) with http-exchange-phase.ts and http-exchange-clock.ts (limits of time),
 * http-kept-head.ts (where the head stays), http-fields.ts (what hooks see), http-heads.ts (what is written),
 * http-answer.ts (answers made here), http-upstream-pool.ts, http-retry.ts, http-body-pump.ts, http-tunnel.ts
 * (after 101).
 *
 * Without hooks a request allocates nothing: exchanges are reused, heads are offsets, bytes move between
 * slots. Time limits are watched by one sweep over all connections, not by a timer for each.
 */
import { hash } from 'node:crypto';
import { hostname } from 'node:os';

import { assert } from '#base/assert.ts';
import { CloseReason } from '#contract/record.ts';
import type { TraceStage } from '#contract/trace.ts';
import type { SlotPool } from '#io/arena.ts';
import type { Completion, Fd, Io } from '#io/io.ts';
import { isLayered } from '#io/layered.ts';
import type { AccessLog } from '#proxy/access-log/access-log.ts';
import type { HookRunner } from '#proxy/hooks/runner.ts';
import type { Dialer, InboundStream, StreamHandler, Worker } from '#proxy/proxy-contract.ts';
import { HttpDate } from '#protocol/http/date.ts';
import {
  newRequestForward,
  newResponseForward,
  type RequestForward,
  type ResponseForward,
  viaLine,
} from '#protocol/http/forward.ts';
import { type HeadOptions, STRICT_HEAD_OPTIONS } from '#protocol/http/message-head.ts';
import { latin1Bytes } from '#protocol/http/octets.ts';

import { HttpConnection } from './http-connection.ts';
import { HttpExchange } from './http-exchange.ts';
import type { HttpSocket } from './http-socket.ts';
import type { HttpTunnel } from './http-tunnel.ts';
import { UpstreamPool, type UpstreamWorld } from './http-upstream-pool.ts';

/** What an engine is made of. */
export interface HttpEngineOptions {
  readonly dialer: Dialer;
  /** The application's hooks; members are null where it has none. */
  readonly hooks: Pick<HookRunner, 'request' | 'response'>;
  /**
   * This node's pseudonym in Via; must differ between nodes that may stand in one chain. Default `rampart`.
   */
  readonly via?: string;
  /** Add X-Forwarded-For, -Proto and -Host. Default true. */
  readonly addForwarded?: boolean;
  /** Clients are proxies of ours, whose X-Forwarded-* and Forwarded are believed. Default false. */
  readonly trustForwarded?: boolean;
  /** Gets a line for each request, and makes trace contexts. Absent or null: neither. */
  readonly accessLog?: AccessLog | null;
  /** Leniencies for both sides; limits come from `Worker.limits`. */
  readonly leniencies?: Partial<HeadOptions>;
}

const PSEUDONYM = `rampart-${hash('sha256', `${hostname()} ${process.pid}`).slice(0, 8)}`;
/** Exchanges kept for reuse: more than ever run at once in one turn only hold memory. */
const SPARE_EXCHANGES_MAX = 1024;
/** Bounds of the sweep's period: a limit is kept to within a quarter of itself, or half a second. */
const SWEEP_MS_MIN = 5;
const SWEEP_MS_MAX = 500;
/** How long receives that found no slot wait for one. */
const STARVED_MS = 10;

/** A forwarded head that is kept for a retry has at most this size; longer ones are not sent again. */
const RETRY_BYTES = 2048;
const RETRY_COUNT = 1024;

const TAG_SWEEP = 0;
const TAG_STARVED = 1;

/**
 * Serves HTTP/1.1 on client streams. One for each worker; it owns the descriptors that it is given, and the
 * upstream connections that it has the dialer open.
 */
export class HttpEngine implements StreamHandler, UpstreamWorld, Completion {
  readonly worker: Worker;
  readonly io: Io;
  readonly streams: SlotPool;
  readonly options: HttpEngineOptions;
  readonly headOptions: HeadOptions;
  readonly upstreams: UpstreamPool;
  readonly via: Uint8Array;
  readonly viaLine: Uint8Array;
  /** Forwarded heads that may have to be sent again. When none is free, a request is just not retried. */
  readonly retries: SlotPool;
  /** Filled by an exchange just before it writes a head, and of no meaning afterwards. */
  readonly requestForward: RequestForward = newRequestForward();
  readonly responseForward: ResponseForward = newResponseForward();
  readonly tunnels = new Set<HttpTunnel>();
  /** No new request is taken on a connection after the one that is running. */
  draining = false;
  readonly #connections = new Set<HttpConnection>();
  readonly #spare: HttpExchange[] = [];
  readonly #date = new HttpDate();
  readonly #starved: HttpSocket[] = [];
  readonly #waiting: { readonly exchange: HttpExchange; readonly serial: number }[] = [];
  readonly #sweepMs: number;
  #sweepTimer = 0;
  #sweeping = false;
  #dateTurn = -1;

  constructor(worker: Worker, options: HttpEngineOptions) {
    this.worker = worker;
    this.io = worker.io;
    this.streams = worker.streams;
    this.options = options;
    const { limits } = worker;
    assert(limits.headBytesMax + 2048 <= worker.streams.slotBytes, 'a head does not fit a stream slot');
    this.headOptions = Object.freeze({
      ...STRICT_HEAD_OPTIONS,
      ...options.leniencies,
      headBytesMax: limits.headBytesMax,
      targetBytesMax: Math.min(STRICT_HEAD_OPTIONS.targetBytesMax, limits.headBytesMax),
      fieldsMax: limits.headFieldsMax,
    });
    this.upstreams = new UpstreamPool(limits.upstreamIdleMax);
    this.retries = worker.io.arena.pool(RETRY_BYTES, RETRY_COUNT);
    this.via = latin1Bytes(options.via ?? PSEUDONYM);
    this.viaLine = viaLine(this.via);
    const { headMs, bodyIdleMs, responseMs, continueMs } = limits;
    const shortest = Math.min(
      headMs,
      bodyIdleMs,
      responseMs,
      limits.keepAliveMs,
      continueMs,
      limits.upstreamIdleMs,
    );
    this.#sweepMs = Math.max(SWEEP_MS_MIN, Math.min(SWEEP_MS_MAX, Math.floor(shortest / 4)));
  }

  /** Client connections that are open, tunnels included. */
  get count(): number {
    return this.#connections.size + this.tunnels.size;
  }

  /** Requests under way. Looks at every connection: for metrics, not for every request. */
  get requestCount(): number {
    let count = 0;
    for (const connection of this.#connections) if (connection.exchange !== null) count++;
    return count;
  }

  onStream(stream: InboundStream, prefixOffset: number, prefixLength: number): void {
    const connection = new HttpConnection(this, stream);
    this.#connections.add(connection);
    if (!this.#sweeping) this.#startSweep();
    connection.begin(prefixOffset, prefixLength);
  }

  /** Idle connections are closed, running requests are the last of theirs. */
  drain(): void {
    this.draining = true;
    for (const connection of this.#connections) {
      if (connection.exchange === null && !connection.lingering) connection.finish(CloseReason.Shutdown);
    }
    this.upstreams.close();
  }

  /**
   * Gives idle client connections away, for another process to go on with: their descriptors stay open and
   * belong to the caller. Running requests are finished here, the last of their connections.
   */
  async handOver(): Promise<InboundStream[]> {
    this.draining = true;
    // The session of a TLS connection lives in this process and cannot move.
    const idle = [...this.#connections].filter(({ isIdle, fd }) => isIdle && !isLayered(fd));
    const given = await Promise.all(idle.map((connection) => connection.giveAway()));
    return given.filter((stream) => stream !== null);
  }

  /** Ends everything at once. */
  closeAll(reason: CloseReason): void {
    this.draining = true;
    for (const connection of [...this.#connections]) {
      connection.exchange?.abort();
      connection.finish(reason, true);
    }
    for (const tunnel of [...this.tunnels]) tunnel.abort(reason);
    this.upstreams.close();
    this.#stopSweep();
  }

  // --- for the engine's own parts --------------------------------------------------------------------------

  /** An exchange for the next request of `connection`. */
  takeExchange(connection: HttpConnection): HttpExchange {
    const exchange = this.#spare.pop() ?? new HttpExchange(this);
    exchange.begin(connection);
    return exchange;
  }

  /** Takes back an exchange that is over. */
  giveExchange(exchange: HttpExchange): void {
    if (this.#spare.length < SPARE_EXCHANGES_MAX) this.#spare.push(exchange);
  }

  /** The connection is closed, or a tunnel took it over. */
  forget(connection: HttpConnection): void {
    this.#connections.delete(connection);
  }

  starved(socket: HttpSocket): void {
    this.#retryLater();
    this.#starved.push(socket);
  }

  onUpstreamClosed(fd: Fd): void {
    this.options.dialer.closed?.(fd);
  }

  /** Calls `exchange.onSlot(serial)` a little later. */
  waitForSlot(exchange: HttpExchange, serial: number): void {
    this.#retryLater();
    this.#waiting.push({ exchange, serial });
  }

  #retryLater(): void {
    if (this.#starved.length + this.#waiting.length === 0) this.io.timer(STARVED_MS, this, TAG_STARVED);
  }

  /** Value of Date; formatted once a second, looked at once a turn. */
  date(): Uint8Array {
    const now = this.io.now();
    if (now === this.#dateTurn) return this.#date.bytes;
    this.#dateTurn = now;
    return this.#date.at(Date.now());
  }

  increment(counter: number): void {
    const { counters } = this.worker.stats;
    counters[counter] = (counters[counter] as number) + 1;
  }

  /** Emits a trace event; the caller has looked at `tracer.enabled`. */
  trace(stream: InboundStream, stage: TraceStage, text: string): void {
    const { context, flow, source, destination } = stream;
    this.worker.tracer.emit({
      at: this.io.refreshNow(),
      flow,
      stage,
      account: context.account,
      vnet: context.vnet,
      tuple: `${source.address}:${source.port} > ${destination.address}:${destination.port} http`,
      text,
    });
  }

  onCompletion(tag: number): void {
    if (tag === TAG_STARVED) {
      const sockets = this.#starved.splice(0);
      for (const { exchange, serial } of this.#waiting.splice(0)) exchange.onSlot(serial);
      for (const socket of sockets) if (socket.inSlot < 0) socket.receive();
      return;
    }
    if (tag !== TAG_SWEEP || !this.#sweeping) return;
    this.#sweeping = false;
    const now = this.io.now();
    for (const connection of this.#connections) connection.sweep(now);
    for (const tunnel of this.tunnels) tunnel.sweep(now, this.worker.limits.streamIdleMs);
    this.upstreams.expire(now - this.worker.limits.upstreamIdleMs);
    if (this.count > 0 || this.upstreams.idleCount > 0) this.#startSweep();
  }

  #startSweep(): void {
    this.#sweeping = true;
    this.#sweepTimer = this.io.timer(this.#sweepMs, this, TAG_SWEEP);
  }

  #stopSweep(): void {
    if (this.#sweeping) this.io.cancelTimer(this.#sweepTimer);
    this.#sweeping = false;
  }
}
