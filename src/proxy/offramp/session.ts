import { DropReason } from '#base/drop-reason.ts';
import { parseIp } from '#base/ip.ts';
import type { Context, Endpoint } from '#contract/context.ts';
import { CloseReason } from '#contract/record.ts';
import { type Completion, Errno, type Fd, PollMask } from '#io/io.ts';
import { udpHeadersLength } from '#packet/build.ts';
import { PACKET_HEADROOM } from '#packet/virtio-header.ts';
import type { SessionVerdict } from '#proxy/hooks/hooks.ts';
import type {
  Dialer,
  DialPlan,
  DialRefusal,
  Session,
  SessionClient,
  SessionOpener,
  SessionRequest,
  Worker,
} from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import { type Resolver, systemResolver } from './socket-off-ramp.ts';

/** Calls the application's `session` hook; null when there is none. */
export type SessionFunction = (request: SessionRequest) => SessionVerdict | undefined;

/** Datagrams kept while a name is resolved or a hook thinks; more are dropped, as a full queue drops them. */
const WAITING_MAX = 8;

/** Datagrams read from one socket before others get their turn. */
const READ_BATCH = 32;

/**
 * Opens UDP sessions with a connected socket each: the kernel then reports a dead target, and no stranger
 * gets in.
 */
export class SocketSessions implements SessionOpener {
  readonly #worker: Worker;
  readonly #dialer: Dialer;
  readonly #hook: SessionFunction | null;
  readonly #resolver: Resolver;
  readonly #open = new Set<SocketSession>();

  constructor(
    worker: Worker,
    options: { dialer: Dialer; hook: SessionFunction | null; resolver?: Resolver },
  ) {
    this.#worker = worker;
    this.#dialer = options.dialer;
    this.#hook = options.hook;
    this.#resolver = options.resolver ?? systemResolver;
  }

  /** Sessions that are open now. */
  get count(): number {
    return this.#open.size;
  }

  open(request: SessionRequest, client: SessionClient): Session | DialRefusal {
    const verdict = this.#hook === null ? undefined : this.#hook(request);
    if (verdict?.action === 'reject') return { refused: true, reason: verdict.reason ?? 'refused by a hook' };
    const plan = this.#dialer.plan({
      context: request.context,
      network: request.network,
      flow: request.flow,
      layer: 'udp',
      source: request.source,
      target: verdict?.to ?? null,
      destination: request.destination,
      via: verdict?.via ?? request.route,
    });
    if (!(plan instanceof Promise) && 'refused' in plan) return plan;
    const session = new SocketSession(this.#worker, request, client, (ended) => this.#open.delete(ended));
    this.#open.add(session);
    session.start(plan, this.#resolver);
    return session;
  }

  /** Ends all sessions. */
  closeAll(reason: CloseReason): void {
    for (const session of [...this.#open]) session.close(reason);
  }
}

const TAG_CONNECT = 0;
const TAG_READABLE = 1;
const TAG_IDLE = 2;

/** One session: a connected UDP socket of its own. */
class SocketSession implements Session, Completion {
  readonly #worker: Worker;
  readonly #request: SessionRequest;
  readonly #client: SessionClient;
  readonly #onEnd: (session: SocketSession) => void;
  readonly #startedAt = Date.now();
  #fd: Fd = -1;
  #connected = false;
  #polling = false;
  #ended = false;
  #offRamp: string | null = null;
  #timer: number;
  #lastActivity: number;
  /** Slots of datagrams that wait for the socket: payload offset and length in turn. */
  readonly #waiting: number[] = [];
  #bytesUp = 0;
  #bytesDown = 0;
  #packetsUp = 0;
  #packetsDown = 0;

  constructor(
    worker: Worker,
    request: SessionRequest,
    client: SessionClient,
    onEnd: (session: SocketSession) => void,
  ) {
    this.#worker = worker;
    this.#request = request;
    this.#client = client;
    this.#onEnd = onEnd;
    this.#lastActivity = worker.io.now();
    this.#timer = worker.io.timer(worker.limits.udpIdleMs, this, TAG_IDLE);
    this.#count(Counter.SessionsOpened);
  }

  start(plan: DialPlan | Promise<DialPlan | DialRefusal>, resolver: Resolver): void {
    if (plan instanceof Promise) {
      plan.then(
        (decided) =>
          'refused' in decided ? this.#end(CloseReason.Policy) : this.#connect(decided, resolver),
        () => this.#end(CloseReason.Policy),
      );
      return;
    }
    this.#connect(plan, resolver);
  }

  send(payload: number, length: number): boolean {
    if (this.#ended) return false;
    this.#lastActivity = this.#worker.io.now();
    if (!this.#connected) return this.#keep(payload, length);
    const sent = this.#worker.io.trySend(this.#fd, payload, length);
    if (sent >= 0) {
      this.#bytesUp += length;
      this.#packetsUp++;
      return true;
    }
    this.#drop(sent === -Errno.EAGAIN ? DropReason.QueueFull : DropReason.SendFailed);
    return false;
  }

  close(reason: CloseReason): void {
    this.#finish(reason);
  }

  onCompletion(tag: number, result: number): void {
    if (tag === TAG_IDLE) this.#onIdle();
    else if (tag === TAG_CONNECT) this.#onConnected(result);
    else {
      this.#polling = false;
      if (!this.#ended) this.#onReadable();
    }
  }

  #connect(plan: DialPlan, resolver: Resolver): void {
    if (this.#ended) return;
    this.#offRamp = plan.via;
    const { host, port } = plan.target;
    const literal = parseIp(host);
    if (literal !== null) {
      this.#connectTo(host, literal.length === 4 ? 4 : 6, port, plan.source);
      return;
    }
    resolver(host).then(
      ([first]) => {
        if (this.#ended) return;
        if (first === undefined) this.#end(CloseReason.OriginUnreachable);
        else this.#connectTo(first.address, first.family, port, plan.source);
      },
      () => this.#end(CloseReason.OriginUnreachable),
    );
  }

  #connectTo(address: string, family: 4 | 6, port: number, source: Endpoint | null): void {
    const { io } = this.#worker;
    if (this.#request.guard?.refuse(parseIp(address) as Uint8Array, port)) {
      queueMicrotask(() => this.#end(CloseReason.Policy));
      return;
    }
    try {
      this.#fd = io.socket(family === 4 ? 'udp4' : 'udp6');
      if (source !== null) io.bind(this.#fd, { family, address: source.address, port: 0 });
    } catch {
      // Never while the session is being opened: its client does not have it yet.
      queueMicrotask(() => this.#end(CloseReason.OriginUnroutable));
      return;
    }
    io.connect(this.#fd, { family, address, port }, this, TAG_CONNECT);
  }

  #onConnected(result: number): void {
    if (this.#ended) return;
    if (result < 0) {
      this.#end(CloseReason.OriginUnroutable);
      return;
    }
    this.#connected = true;
    const waiting = this.#waiting.splice(0);
    for (let i = 0; i < waiting.length; i += 2) {
      this.send(waiting[i] as number, waiting[i + 1] as number);
      this.#worker.packets.release(waiting[i] as number);
    }
    this.#poll();
  }

  #onReadable(): void {
    const { io, packets } = this.#worker;
    const before = PACKET_HEADROOM + udpHeadersLength(6);
    for (let i = 0; i < READ_BATCH; i++) {
      const slot = packets.acquire();
      if (slot < 0) {
        this.#drop(DropReason.NoBuffer);
        break;
      }
      const length = io.tryRecv(this.#fd, slot + before, packets.slotBytes - before);
      if (length < 0) {
        packets.release(slot);
        if (length === -Errno.ECONNREFUSED) {
          // The target answered "port unreachable" (RFC 1122 section 4.1.3.3).
          this.#end(CloseReason.OriginUnreachable);
          return;
        }
        break;
      }
      this.#lastActivity = io.now();
      this.#bytesDown += length;
      this.#packetsDown++;
      this.#client.onDatagram(slot + before, length);
      if (this.#ended) return;
    }
    this.#poll();
  }

  #poll(): void {
    if (this.#polling) return;
    this.#polling = true;
    this.#worker.io.poll(this.#fd, PollMask.In, false, this, TAG_READABLE);
  }

  /** Keeps a copy of the datagram until the socket is connected. */
  #keep(payload: number, length: number): boolean {
    const { io, packets } = this.#worker;
    const slot = this.#waiting.length < 2 * WAITING_MAX ? packets.acquire() : -1;
    if (slot < 0) {
      this.#drop(DropReason.QueueFull);
      return false;
    }
    io.arena.bytes.copyWithin(slot, payload, payload + length);
    this.#waiting.push(slot, length);
    return true;
  }

  #onIdle(): void {
    const { io, limits } = this.#worker;
    const remaining = this.#lastActivity + limits.udpIdleMs - io.now();
    if (remaining <= 0) this.#end(CloseReason.ClientIdle);
    else this.#timer = io.timer(remaining, this, TAG_IDLE);
  }

  #end(reason: CloseReason): void {
    if (this.#finish(reason)) this.#client.onSessionEnd(reason);
  }

  #finish(reason: CloseReason): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    const { io, packets, records } = this.#worker;
    io.cancelTimer(this.#timer);
    for (let i = 0; i < this.#waiting.length; i += 2) packets.release(this.#waiting[i] as number);
    this.#waiting.length = 0;
    if (this.#fd >= 0) io.close(this.#fd);
    this.#onEnd(this);
    this.#count(Counter.SessionsClosed);
    const { context, flow, source, destination, rule }: SessionRequest & { context: Context } = this.#request;
    records.record({
      flow,
      account: context.account,
      vnet: context.vnet,
      identity: context.identity,
      onRamp: context.onRamp,
      offRamp: this.#offRamp,
      layer: 'udp',
      protocol: 'udp',
      source,
      destination,
      rule,
      reason,
      startedAt: this.#startedAt,
      endedAt: Date.now(),
      bytesUp: this.#bytesUp,
      bytesDown: this.#bytesDown,
      packetsUp: this.#packetsUp,
      packetsDown: this.#packetsDown,
    });
    return true;
  }

  #drop(reason: DropReason): void {
    const { drops } = this.#worker.stats;
    drops[reason] = (drops[reason] as number) + 1;
  }

  #count(counter: number): void {
    const { counters } = this.#worker.stats;
    counters[counter] = (counters[counter] as number) + 1;
  }
}
