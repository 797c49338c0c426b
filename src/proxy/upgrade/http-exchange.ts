import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';
import { CloseReason } from '#contract/record.ts';
import type { Fd } from '#io/io.ts';
import type { AccessEntry } from '#proxy/access-log/access-entry.ts';
import type { RequestVerdict, ResponseVerdict } from '#proxy/hooks/hooks.ts';
import type { DialPlan, DialRefusal } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';
import { BodyFraming, requestFraming, responseFraming } from '#protocol/http/body.ts';
import { HttpFault } from '#protocol/http/fault.ts';
import { writeRequestHead, writeResponseHead } from '#protocol/http/forward.ts';
import { parseRequestHead, parseResponseHead } from '#protocol/http/head.ts';
import { isIdempotent, Method } from '#protocol/http/http.ts';
import { HeadFlag, MessageHead } from '#protocol/http/message-head.ts';
import { CONTINUE_RESPONSE } from '#protocol/http/response.ts';

import type { HttpEngine } from './http.ts';
import { answerEntry, beginEntry, endEntry } from './http-access.ts';
import {
  type Answer,
  AnswerReason,
  connectRefusal,
  earlyAnswer,
  faultReason,
  faultRefusal,
  refusal,
  stageAnswer,
  verdictAnswer,
} from './http-answer.ts';
import { BodyPump, type PumpOwner } from './http-body-pump.ts';
import type { HttpConnection } from './http-connection.ts';
import { Await, Due, ExchangeClock } from './http-exchange-clock.ts';
import { Phase, ResponsePhase } from './http-exchange-phase.ts';
import { HookRequest, HookResponse } from './http-fields.ts';
import {
  applyRewrites,
  dialRequest,
  fillInterim,
  fillRequest,
  responseContentLength,
  targetAuthority,
} from './http-heads.ts';
import { KeptHead } from './http-kept-head.ts';
import { RetryCopy } from './http-retry.ts';
import { HttpTunnel } from './http-tunnel.ts';
import { UpstreamConnection, type UpstreamGroup, type UpstreamUser } from './http-upstream-pool.ts';

/** Interim responses to one request: an upstream that sends more is broken. */
const INTERIM_MAX = 32;
/** Tries to get a slot, some 10 ms apart, before an exchange gives up: others that wait may hold all. */
const SLOT_TRIES_MAX = 100;

/** One request and its response, from the first byte of the one to the last of the other. Reused. */
export class HttpExchange implements UpstreamUser, PumpOwner {
  readonly #engine: HttpEngine;
  readonly #request: MessageHead;
  readonly #response: MessageHead;
  readonly #up = new BodyPump();
  readonly #down = new BodyPump();
  readonly #pumps = [this.#up, this.#down] as const;
  #connection: HttpConnection | null = null;
  #upstream: UpstreamConnection | null = null;
  #phase: Phase = Phase.Free;
  #responsePhase: ResponsePhase = ResponsePhase.Awaited;
  /** Rises with every use: what was asked asynchronously for an earlier one is dropped. */
  #serial = 0;
  /** The client connection ends after this exchange. */
  #closing = false;
  #upgrading = false;
  /** A part of the response's final head has been written: nothing else may be answered. */
  #responded = false;
  /** The upstream no longer takes the request. */
  #requestBroken = false;
  #closeDelimited = false;
  #sentContinue = false;
  #interims = 0;
  readonly #clock = new ExchangeClock();
  #plan: DialPlan | null = null;
  #group: UpstreamGroup | null = null;
  readonly #retry: RetryCopy;
  readonly #head: KeptHead;
  #slotTries = 0;
  #waitsForSlot = false;
  #requestVerdict: Extract<RequestVerdict, { action: 'forward' }> | null = null;
  #responseVerdict: Extract<ResponseVerdict, { action: 'forward' }> | null = null;
  #hookRequest: HookRequest | null = null;
  #hookResponse: HookResponse | null = null;
  #upstreamMethod: Method = Method.Other;
  /** What the access log will say of the request; null when there is no log. */
  readonly #entry: AccessEntry | null;

  constructor(engine: HttpEngine) {
    this.#engine = engine;
    this.#request = new MessageHead(engine.headOptions);
    this.#response = new MessageHead(engine.headOptions);
    this.#head = new KeptHead(this.#request);
    this.#retry = new RetryCopy(engine.io, engine.retries);
    this.#entry = engine.options.accessLog?.newEntry() ?? null;
  }

  /** Begins for the next request of `connection`, whose first bytes are here. */
  begin(connection: HttpConnection): void {
    assert(this.#phase === Phase.Free);
    this.#serial++;
    this.#connection = connection;
    this.#phase = Phase.Head;
    this.#responsePhase = ResponsePhase.Awaited;
    this.#closing = false;
    this.#upgrading = false;
    this.#responded = false;
    this.#requestBroken = false;
    this.#closeDelimited = false;
    this.#sentContinue = false;
    this.#interims = 0;
    this.#slotTries = 0;
    this.#waitsForSlot = false;
    this.#clock.begin(this.#engine.io.now());
    this.#request.invalidate();
    this.#response.invalidate();
    if (this.#entry !== null) beginEntry(this.#entry, connection, this.#clock.clientAt);
  }

  // --- the client's side -----------------------------------------------------------------------------------

  /** The client's input has grown. */
  onClientInput(): void {
    this.#clock.clientAt = this.#engine.io.now();
    if (this.#phase === Phase.Head) this.#parseRequest();
    else if (this.#phase === Phase.Forwarding) this.#runUp();
    else if (this.#phase === Phase.Tunneling) this.#openTunnel();
    // Else it waits: the next request's turn comes behind this one's answer.
  }

  /** The client ended its side (0), or is gone. */
  onClientEnd(errno: number): void {
    const connection = this.#connection as HttpConnection;
    if (this.#phase === Phase.Tunneling && !connection.ended) {
      if (connection.closed) return;
      this.#openTunnel();
      return;
    }
    const complete = this.#phase > Phase.Head && (this.#phase === Phase.Answering || this.#up.reader.done);
    if (errno !== 0 || !complete) {
      if (this.#phase !== Phase.Head) this.#engine.increment(Counter.ClientAborts);
      this.#abortBoth(errno === 0 ? CloseReason.ClientClosed : CloseReason.ClientError);
      return;
    }
    if (this.#phase === Phase.Tunneling) {
      this.#openTunnel();
      return;
    }
    this.#closing = true;
    this.#clock.halfClosedAt = this.#engine.io.now();
  }

  /** A send to the client is over. */
  onClientSent(errno: number): void {
    if (errno !== 0) {
      this.#engine.increment(Counter.ClientAborts);
      this.#abortBoth(CloseReason.ClientError);
      return;
    }
    this.#clock.clientAt = this.#engine.io.now();
    if (this.#responsePhase === ResponsePhase.Blocked) this.#continueBlocked();
    else if (this.#phase === Phase.Tunneling) this.#openTunnel();
    else this.#runDown();
  }

  #parseRequest(): void {
    const connection = this.#connection as HttpConnection;
    const { bytes } = this.#engine.io.arena;
    for (;;) {
      const length = parseRequestHead(bytes, connection.inAt, connection.inEnd, this.#request);
      if (length < 0) {
        this.#engine.increment(Counter.RequestsMalformed);
        this.#closing = true;
        this.#answer(faultRefusal(length));
        return;
      }
      if (length > 0) {
        // The head stays where it is until it has been written on; only then is its slot given back.
        connection.inAt += length;
        break;
      }
      if (!connection.park(this.#request)) {
        if (!connection.closed) connection.receive();
        return;
      }
    }
    this.#engine.increment(Counter.RequestsIn);
    this.#clock.stepAt = this.#engine.io.now();
    this.#entry?.onHead(this.#request, this.#clock.stepAt);
    if (this.#engine.worker.tracer.enabled) this.#traceRequest();
    this.#decide();
  }

  // --- deciding --------------------------------------------------------------------------------------------

  #decide(): void {
    const request = this.#request;
    const { hooks } = this.#engine.options;
    if (!request.persistent) this.#closing = true;
    const early = earlyAnswer(request, this.#engine.via);
    if (early !== null) {
      this.#answer(early);
      return;
    }
    this.#upstreamMethod = request.method;
    if (hooks.request === null && hooks.response === null) {
      this.#chooseUpstream(null);
      return;
    }
    this.#hookRequest = new HookRequest((this.#connection as HttpConnection).stream, request);
    if (hooks.request === null) this.#chooseUpstream(null);
    else this.#askRequestHook(hooks.request);
  }

  #askRequestHook(hook: NonNullable<HttpEngine['options']['hooks']['request']>): void {
    try {
      this.#when(hook(this.#hookRequest as HookRequest), (verdict) => this.#applyRequest(verdict));
    } catch (error) {
      this.#failedHook(error);
    }
  }

  #applyRequest(verdict: RequestVerdict | undefined): void {
    if (verdict === undefined) this.#chooseUpstream(null);
    else if (verdict.action === 'forward') this.#chooseUpstream(verdict);
    else {
      this.#engine.increment(verdict.action === 'block' ? Counter.RequestsRefused : Counter.RequestsAnswered);
      this.#answer(verdictAnswer(verdict));
    }
  }

  /**
   * Goes on with what is here or comes later. What comes when the exchange is over is dropped; what is thrown
   * or rejected is the hook's failure.
   */
  #when<T>(answer: T | Promise<T>, step: (value: T) => void): void {
    if (!(answer instanceof Promise)) {
      step(answer);
      return;
    }
    if (this.#phase === Phase.Head) this.#phase = Phase.Deciding;
    if (this.#phase !== Phase.Forwarding) this.#head.watch(this.#connection as HttpConnection);
    const serial = this.#serial;
    answer
      .then((value) => {
        if (serial === this.#serial) step(value);
      })
      .catch((error: unknown) => {
        if (serial === this.#serial) this.#failedHook(error);
        else if (!(error instanceof RampartError)) throw error;
      });
  }

  /** A hook threw, or gave what cannot be written. Anything else is a fault of this program and ends it. */
  #failedHook(error: unknown): void {
    if (!(error instanceof RampartError)) throw error;
    if (this.#responded) this.#abortBoth(CloseReason.Policy);
    else this.#answer(refusal(500, AnswerReason.HookFailed));
  }

  #chooseUpstream(verdict: Extract<RequestVerdict, { action: 'forward' }> | null): void {
    const connection = this.#connection as HttpConnection;
    this.#requestVerdict = verdict;
    const ownWay = verdict?.to !== undefined || verdict?.via !== undefined;
    if (!ownWay && connection.plan !== null) {
      const plan = connection.plan.spread?.() ?? connection.plan;
      this.#plan = plan;
      this.#group = plan === connection.plan ? connection.group : this.#engine.upstreams.group(plan.key);
      this.#connect();
      return;
    }
    const plan = this.#engine.options.dialer.plan(dialRequest(connection.stream, verdict, ownWay));
    this.#when(plan, (decided) => this.#applyPlan(decided, ownWay));
  }

  #applyPlan(plan: DialPlan | DialRefusal, ownWay: boolean): void {
    if ('refused' in plan) {
      this.#engine.increment(Counter.RequestsRefused);
      this.#answer(refusal(403, plan.reason));
      return;
    }
    const connection = this.#connection as HttpConnection;
    this.#plan = plan;
    this.#group = this.#engine.upstreams.group(plan.key);
    connection.offRamp = plan.via;
    if (plan.reusable && !ownWay) {
      connection.plan = plan;
      connection.group = this.#group;
    }
    this.#connect();
  }

  // --- connecting ------------------------------------------------------------------------------------------

  #connect(): void {
    const plan = this.#plan as DialPlan;
    if (this.#group?.dropped !== false) {
      this.#group = this.#engine.upstreams.group(plan.key);
      const connection = this.#connection as HttpConnection;
      if (connection.plan === plan) connection.group = this.#group;
    }
    const group = this.#group;
    group.usedAt = this.#engine.io.now();
    const idle = group.take();
    if (idle !== null) {
      this.#engine.increment(Counter.UpstreamReused);
      this.#forward(idle);
    } else this.#dial(plan, group);
  }

  #dial(plan: DialPlan, group: UpstreamGroup): void {
    this.#phase = Phase.Connecting;
    this.#entry?.onDial(this.#engine.io.now());
    this.#head.watch(this.#connection as HttpConnection);
    if (this.#engine.worker.tracer.enabled) {
      this.#trace('connect', `connecting to ${plan.target.host}:${plan.target.port} by ${plan.via}`);
    }
    const serial = this.#serial;
    this.#engine.options.dialer.connect(plan).then(
      (fd) => this.#onConnected(fd, serial, group),
      (error: unknown) => {
        if (serial !== this.#serial) return;
        this.#answer(connectRefusal(error));
      },
    );
  }

  #onConnected(fd: Fd, serial: number, group: UpstreamGroup): void {
    const upstream = new UpstreamConnection(this.#engine, fd, group);
    if (serial !== this.#serial) {
      // The client is gone; the connection is as good as new.
      group.give(upstream, this.#engine.io.now());
      return;
    }
    if (this.#retry.held) {
      this.#sendAgain(upstream);
      return;
    }
    try {
      this.#forward(upstream);
    } catch (error) {
      this.#failedHook(error);
    }
  }

  // --- the request on its way up ---------------------------------------------------------------------------

  #forward(upstream: UpstreamConnection): void {
    const connection = this.#connection as HttpConnection;
    const request = this.#request;
    this.#upstream = upstream;
    upstream.user = this;
    this.#up.begin(connection, upstream, this);
    if (!connection.unshelve() || this.#up.open() < 0) {
      this.#phase = Phase.Connecting;
      this.#head.shelve(connection);
      this.#waitForSlot();
      return;
    }
    this.#phase = Phase.Forwarding;
    this.#down.begin(upstream, connection, this);
    const framing = requestFraming(request);
    const transform = this.#requestVerdict?.transformBody;
    const transforms = transform !== undefined && framing !== BodyFraming.None;
    const chunked = framing === BodyFraming.Chunked || transforms;
    if (!this.#writeRequest(upstream, chunked, framing)) return;
    upstream.requests++;
    this.#up.frame(framing, request.contentLength, chunked);
    if (transforms) this.#up.transformBy(transform);
    // A body that is here already is not waited for; else it waits for 100 (RFC 9110 section 10.1.1).
    const expects = (request.flags & HeadFlag.ExpectContinue) !== 0 && framing !== BodyFraming.None;
    this.#up.paused = expects && connection.available === 0;
    if (this.#hookRequest !== null) this.#head.copy();
    this.#head.spend(connection);
    this.#clock.stepAt = this.#engine.io.now();
    this.#clock.upstreamAt = this.#clock.stepAt;
    this.#entry?.onForward(this.#clock.stepAt);
    this.#runUp();
    upstream.receive();
  }

  /** Writes and stages the head; false when it ended in an answer. */
  #writeRequest(upstream: UpstreamConnection, chunked: boolean, framing: BodyFraming): boolean {
    const engine = this.#engine;
    const connection = this.#connection as HttpConnection;
    const request = this.#request;
    const forward = engine.requestForward;
    this.#upgrading = (request.flags & HeadFlag.UpgradeForwardable) !== 0 && framing === BodyFraming.None;
    fillRequest(forward, request, connection, framing, chunked);
    forward.upgrade = this.#upgrading;
    forward.added = this.#entry?.added ?? null;
    if (this.#requestVerdict !== null)
      this.#upstreamMethod = applyRewrites(forward, request, this.#requestVerdict);
    if (this.#hookRequest !== null && !this.#hookRequest.fields.edits.isEmpty) {
      forward.edits = this.#hookRequest.fields.edits;
    }
    if (forward.authority === null && request.authorityEnd === request.authorityStart) {
      forward.authority = targetAuthority(this.#plan as DialPlan);
    }
    const at = this.#up.open();
    const { bytes } = engine.io.arena;
    assert(at >= 0);
    const end = writeRequestHead(bytes, at, this.#up.limit, request, forward);
    if (end < 0) {
      this.#up.closeEmpty();
      this.#upstream = null;
      upstream.group.give(upstream, engine.io.now());
      this.#answer(faultRefusal(HttpFault.HeadTooLong));
      return false;
    }
    this.#up.extend(end);
    const repeatable = framing === BodyFraming.None && isIdempotent(this.#upstreamMethod);
    if (repeatable && upstream.requests > 0) this.#retry.keep(at, end);
    return true;
  }

  /** No slot is free: tries again a little later, for a bounded time. */
  #waitForSlot(): void {
    if (this.#waitsForSlot) return;
    this.#waitsForSlot = true;
    this.#engine.waitForSlot(this, this.#serial);
  }

  /** Goes on with what found no slot, unless the exchange that waited is over (`serial` is another). */
  onSlot(serial: number): void {
    if (serial !== this.#serial) return;
    this.#waitsForSlot = false;
    // Not all at once: the first that gives up may be what the others need.
    if (++this.#slotTries > SLOT_TRIES_MAX + (this.#serial % SLOT_TRIES_MAX)) {
      this.#abortBoth(CloseReason.Limit);
      return;
    }
    if (this.#phase === Phase.Connecting && this.#upstream !== null) {
      try {
        this.#forward(this.#upstream);
      } catch (error) {
        this.#failedHook(error);
      }
      return;
    }
    if (this.#responsePhase === ResponsePhase.Blocked) {
      this.#continueBlocked();
      return;
    }
    if (this.#up.stalled) this.#runUp();
    if (this.#down.stalled) this.#runDown();
  }

  #sendAgain(upstream: UpstreamConnection): void {
    const connection = this.#connection as HttpConnection;
    this.#phase = Phase.Forwarding;
    this.#upstream = upstream;
    upstream.user = this;
    upstream.requests++;
    this.#up.begin(null, upstream, this);
    this.#down.begin(upstream, connection, this);
    const at = this.#up.open();
    if (at < 0) {
      this.#abortBoth(CloseReason.Limit);
      return;
    }
    this.#up.extend(this.#retry.spend(at));
    this.#runUp();
    upstream.receive();
  }

  #runUp(): void {
    const connection = this.#connection as HttpConnection;
    const upstream = this.#upstream;
    if (upstream === null || this.#requestBroken) return;
    const before = this.#up.contentBytes;
    let fault = 0;
    try {
      fault = this.#up.run();
    } catch {
      this.#failedTransform();
      return;
    }
    this.#clock.bodyBytes += this.#up.contentBytes - before;
    if (this.#up.stalled) this.#waitForSlot();
    if (fault < 0) {
      this.#engine.increment(Counter.RequestsMalformed);
      this.#closing = true;
      if (this.#responded) this.#abortBoth(CloseReason.ClientError);
      else this.#answer(faultRefusal(fault));
      return;
    }
    // With the whole request here, a client that goes away is heard of at once.
    if (connection.inSlot < 0 && (this.#up.wantsInput || this.#up.reader.done)) connection.receive();
  }

  onUpstreamSent(errno: number): void {
    this.#clock.upstreamAt = this.#engine.io.now();
    if (errno !== 0) {
      // What the upstream said before it stopped reading may still come: a refusal of this body, for one.
      this.#requestBroken = true;
      this.#closing = true;
      this.#up.abandon();
      return;
    }
    if (this.#phase === Phase.Tunneling) this.#openTunnel();
    if (this.#phase !== Phase.Forwarding) return;
    if (!this.#up.drained) this.#runUp();
    if (this.#phase === Phase.Forwarding && this.#up.drained) {
      this.#clock.stepAt = this.#clock.upstreamAt;
      if (this.#down.drained && this.#responsePhase === ResponsePhase.Body) this.#runDown();
    }
  }

  onTransformed(pump: BodyPump, error: unknown): void {
    if (error !== null) this.#failedTransform();
    else if (pump === this.#up) this.#runUp();
    else this.#runDown();
  }

  #failedTransform(): void {
    this.#engine.increment(Counter.HookErrors);
    if (this.#responded) this.#abortBoth(CloseReason.Policy);
    else {
      this.#closing = true;
      this.#answer(refusal(500, AnswerReason.HookFailed));
    }
  }

  // --- the response on its way down ------------------------------------------------------------------------

  onUpstreamInput(): void {
    if (this.#phase === Phase.Connecting) {
      this.onUpstreamEnd(0);
      return;
    }
    this.#clock.upstreamAt = this.#engine.io.now();
    if (this.#responsePhase === ResponsePhase.Awaited) this.#parseResponse();
    else if (this.#responsePhase === ResponsePhase.Body) this.#runDown();
  }

  onUpstreamEnd(errno: number): void {
    const upstream = this.#upstream as UpstreamConnection;
    if (this.#phase === Phase.Connecting) {
      // It went while a slot was waited for: nothing was sent yet.
      this.#dropUpstream();
      this.#dial(this.#plan as DialPlan, this.#group as UpstreamGroup);
      return;
    }
    if (this.#responsePhase === ResponsePhase.Body) {
      if (errno === 0 && this.#down.reader.endOfStream() === 0) this.#runDown();
      else {
        // Row of the truncated response: whatever framing the client has, it must not look complete.
        this.#engine.increment(Counter.UpstreamAborts);
        this.#abortBoth(CloseReason.OriginError);
      }
      return;
    }
    const untouched =
      !upstream.hasParked && this.#interims === 0 && this.#responsePhase === ResponsePhase.Awaited;
    if (untouched && this.#retry.held) {
      this.#engine.increment(Counter.UpstreamRetries);
      this.#dropUpstream();
      this.#up.abandon();
      this.#dial(this.#plan as DialPlan, this.#group as UpstreamGroup);
      return;
    }
    this.#engine.increment(Counter.UpstreamAborts);
    this.#engine.options.dialer.answered?.(upstream.fd, 502);
    this.#answer(refusal(502, AnswerReason.OriginClosed));
  }

  #parseResponse(): void {
    const upstream = this.#upstream as UpstreamConnection;
    const { bytes } = this.#engine.io.arena;
    while (upstream.inSlot >= 0) {
      const length = parseResponseHead(bytes, upstream.inAt, upstream.inEnd, this.#response);
      if (length === 0) {
        if (upstream.park(this.#response)) continue;
        break;
      }
      if (length < 0) {
        this.#engine.increment(Counter.ResponsesMalformed);
        this.#answer(refusal(502, faultReason(length)));
        return;
      }
      this.#retry.forget();
      const { status } = this.#response;
      if (status >= 200 || status === 101) {
        upstream.inAt += length;
        this.#onResponseHead();
        return;
      }
      if (!this.#forwardInterim()) return;
      upstream.consumeTo(upstream.inAt + length);
    }
    if (!upstream.closed) upstream.receive();
  }

  /**
   * RFC 9110 section 15.2: every 1xx goes on as it comes, save to HTTP/1.0. False when it has to wait, or
   * failed.
   */
  #forwardInterim(): boolean {
    const connection = this.#connection as HttpConnection;
    if (++this.#interims > INTERIM_MAX) {
      this.#engine.increment(Counter.ResponsesMalformed);
      this.#answer(refusal(502, AnswerReason.OriginMalformed));
      return false;
    }
    const isContinue = this.#response.status === 100;
    const swallow = this.#request.minorVersion === 0 || (isContinue && this.#sentContinue);
    if (!swallow) {
      const forward = this.#engine.responseForward;
      fillInterim(forward, this.#engine);
      if (!this.#writeDown()) {
        this.#interims--;
        return false;
      }
      this.#down.run();
    }
    if (isContinue && this.#up.paused) {
      this.#sentContinue = true;
      this.#up.paused = false;
      this.#clock.clientAt = this.#engine.io.now();
      this.#runUp();
    }
    return this.#phase === Phase.Forwarding && !connection.closed;
  }

  /**
   * Writes the response head by `engine.responseForward`. False when it waits for room, or was answered 502.
   */
  #writeDown(): boolean {
    const down = this.#down;
    const hadStaged = down.hasStaged;
    const at = down.open();
    const { bytes } = this.#engine.io.arena;
    const { responseForward } = this.#engine;
    const end = at < 0 ? -1 : writeResponseHead(bytes, at, down.limit, this.#response, responseForward);
    if (end >= 0) {
      down.extend(end);
      return true;
    }
    if (hadStaged || at < 0) {
      this.#responsePhase = ResponsePhase.Blocked;
      if (at < 0) this.#waitForSlot();
      return false;
    }
    down.closeEmpty();
    this.#answer(refusal(502, faultReason(HttpFault.HeadTooLong)));
    return false;
  }

  /** What was staged has gone out, so that there is room for what had to wait. */
  #continueBlocked(): void {
    this.#responsePhase = ResponsePhase.Awaited;
    if (this.#response.status >= 200 || this.#response.status === 101) this.#respond();
    else this.#parseResponse();
  }

  #onResponseHead(): void {
    const { hooks } = this.#engine.options;
    const response = this.#response;
    this.#entry?.onResponse(response.status, this.#clock.upstreamAt);
    this.#engine.options.dialer.answered?.((this.#upstream as UpstreamConnection).fd, response.status);
    if (this.#engine.worker.tracer.enabled) this.#trace('response', `${response.status} ${response.reason}`);
    if (response.status === 101 && !(this.#upgrading && response.has(HeadFlag.Upgrade))) {
      this.#engine.increment(Counter.ResponsesMalformed);
      this.#answer(refusal(502, AnswerReason.UnexpectedUpgrade));
      return;
    }
    this.#responseVerdict = null;
    if (hooks.response === null) {
      this.#respond();
      return;
    }
    this.#hookResponse = new HookResponse(this.#hookRequest as HookRequest, response);
    this.#responsePhase = ResponsePhase.Deciding;
    try {
      this.#when(hooks.response(this.#hookResponse), (verdict) => this.#applyResponse(verdict));
    } catch (error) {
      this.#failedHook(error);
    }
  }

  #applyResponse(verdict: ResponseVerdict | undefined): void {
    if (verdict?.action === 'block') {
      this.#engine.increment(Counter.RequestsRefused);
      this.#answer(refusal(verdict.status ?? 403, verdict.reason));
      return;
    }
    this.#responseVerdict = verdict ?? null;
    this.#respond();
  }

  /** Writes the final head with framing of its own, and begins the body. */
  #respond(): void {
    const engine = this.#engine;
    const upstream = this.#upstream as UpstreamConnection;
    const request = this.#request;
    const response = this.#response;
    const framing = responseFraming(response, this.#upstreamMethod);
    const isTunnel = framing === BodyFraming.Tunnel;
    const hasBody = framing !== BodyFraming.None && !isTunnel;
    const transform = hasBody ? this.#responseVerdict?.transformBody : undefined;
    const isHead = request.method === Method.Head;
    const reframe = hasBody && (transform !== undefined || framing !== BodyFraming.Length);
    const chunked = reframe && !isHead && request.minorVersion === 1;
    this.#closeDelimited = reframe && !isHead && !chunked;
    // A request that is still coming cannot be followed by another one.
    if (!this.#up.reader.done || this.#closeDelimited || this.#requestBroken || engine.draining) {
      this.#closing = true;
    }
    const forward = engine.responseForward;
    forward.via = engine.via;
    forward.viaLine = engine.viaLine;
    forward.date = engine.date();
    forward.chunked = chunked;
    forward.contentLength = reframe ? -1 : responseContentLength(response, framing, isHead);
    forward.close = this.#closing && !isTunnel;
    forward.keepAlive = request.minorVersion === 0 && !this.#closing;
    forward.upgrade = isTunnel;
    forward.status = this.#responseVerdict?.status ?? 0;
    const edits = this.#hookResponse?.fields.edits;
    forward.edits = edits === undefined || edits.isEmpty ? null : edits;
    if (!this.#writeDown()) return;
    this.#responsePhase = ResponsePhase.Body;
    this.#responded = true;
    this.#down.frame(isTunnel ? BodyFraming.UntilClose : framing, response.contentLength, chunked);
    if (isHead && hasBody) this.#down.discardBody();
    else if (transform !== undefined) this.#down.transformBy(transform);
    upstream.consumeTo(upstream.inAt);
    if (isTunnel) this.#beginTunnel();
    else this.#runDown();
  }

  #runDown(): void {
    const upstream = this.#upstream;
    const connection = this.#connection as HttpConnection;
    if (this.#phase !== Phase.Forwarding && this.#phase !== Phase.Answering) return;
    let fault = 0;
    try {
      fault = this.#down.run();
    } catch {
      this.#failedTransform();
      return;
    }
    if (fault < 0) {
      this.#engine.increment(Counter.ResponsesMalformed);
      this.#abortBoth(CloseReason.OriginError);
      return;
    }
    if (this.#down.stalled) this.#waitForSlot();
    if (this.#phase === Phase.Forwarding && this.#responsePhase !== ResponsePhase.Body) return;
    if (upstream !== null && this.#down.wantsInput) upstream.receive();
    if (!this.#down.drained) return;
    if (upstream !== null) this.#releaseUpstream(upstream);
    if (!connection.sending && this.#upstream === null) this.#complete();
  }

  /**
   * The whole response is here. Its connection serves another request only if both messages ended cleanly.
   */
  #releaseUpstream(upstream: UpstreamConnection): void {
    const requestDone = this.#up.drained && !this.#requestBroken;
    // The last bytes of the request are on their way: their completion comes, and this is asked again.
    if (requestDone && upstream.sending) return;
    this.#upstream = null;
    this.#up.abandon();
    const clean =
      requestDone &&
      upstream.inSlot < 0 &&
      !upstream.ended &&
      this.#response.persistent &&
      this.#down.reader.framing !== BodyFraming.UntilClose;
    if (clean) upstream.group.give(upstream, this.#engine.io.now());
    else upstream.discard();
  }

  // --- after 101 -------------------------------------------------------------------------------------------

  #beginTunnel(): void {
    this.#phase = Phase.Tunneling;
    (this.#connection as HttpConnection).cancelReceive();
    this.#openTunnel();
  }

  /**
   * When the head and early bytes have gone down and nothing is under way, both descriptors go to the relay.
   */
  #openTunnel(): void {
    const connection = this.#connection as HttpConnection;
    const upstream = this.#upstream as UpstreamConnection;
    this.#down.run();
    if (this.#down.hasStaged || upstream.inSlot >= 0 || connection.sending || upstream.sending) return;
    if (connection.receiving) return;
    this.#upstream = null;
    if (this.#entry !== null) this.#entry.end = 'upgraded';
    this.#free();
    connection.exchange = null;
    new HttpTunnel(this.#engine.worker.relays, connection, upstream);
  }

  // --- answers of our own ----------------------------------------------------------------------------------

  /** Answers by this node itself. Only while nothing of a final response has been written. */
  #answer(answer: Answer): void {
    assert(!this.#responded && this.#phase !== Phase.Answering);
    const connection = this.#connection as HttpConnection;
    const request = this.#request;
    const engine = this.#engine;
    const requestDone = request.length > 0 && this.#requestIsHere();
    this.#dropUpstream();
    this.#up.abandon();
    this.#phase = Phase.Answering;
    this.#responsePhase = ResponsePhase.Awaited;
    // Whatever is still being asked or dialled is of no use any more.
    this.#serial++;
    this.#waitsForSlot = false;
    this.#responded = true;
    // What is left of the request cannot be told from the next one without reading it.
    if (!requestDone || engine.draining) this.#closing = true;
    if (this.#entry !== null) answerEntry(this.#entry, answer.status);
    if (engine.worker.tracer.enabled) this.#trace('response', `${answer.status} ${answer.why}`);
    const down = this.#down;
    down.begin(null, connection, this);
    const how = {
      engine,
      isHead: request.method === Method.Head,
      close: this.#closing,
      minorVersion: request.minorVersion,
    };
    if (!stageAnswer(down, answer, how)) {
      // No memory, or a hook's fields are larger than a slot: there is no way to say so.
      this.#abortBoth(CloseReason.Limit);
      return;
    }
    this.#head.drop();
    if (connection.inSlot >= 0) connection.consumeTo(connection.inAt);
    this.#runDown();
  }

  /** All bytes of the request have been read: a body was read by the pump, or there is none. */
  #requestIsHere(): boolean {
    if (this.#phase === Phase.Forwarding && this.#upstream !== null) return this.#up.reader.done;
    return requestFraming(this.#request) === BodyFraming.None;
  }

  // --- the end ---------------------------------------------------------------------------------------------

  #complete(): void {
    const connection = this.#connection as HttpConnection;
    const closing = this.#closing || this.#engine.draining;
    if (this.#entry?.end === '') this.#entry.end = 'ok';
    this.#free();
    if (closing) connection.linger();
    else connection.next();
  }

  /** Ends both sides, because one of them failed. */
  #abortBoth(reason: CloseReason): void {
    const connection = this.#connection as HttpConnection;
    const byReset = this.#closeDelimited && this.#responded;
    if (this.#entry !== null) this.#entry.end = reason;
    this.abort();
    connection.exchange = null;
    connection.finish(reason, byReset);
  }

  /** The client connection is being closed: lets go of the upstream and is free. */
  abort(): void {
    if (this.#phase === Phase.Free) return;
    this.#dropUpstream();
    this.#free();
  }

  #dropUpstream(): void {
    const upstream = this.#upstream;
    if (upstream === null) return;
    this.#upstream = null;
    upstream.discard();
  }

  #free(): void {
    this.#serial++;
    this.#phase = Phase.Free;
    this.#retry.forget();
    this.#head.drop();
    if (this.#entry?.open) endEntry(this.#entry, this.#connection as HttpConnection, this.#pumps);
    this.#up.abandon();
    this.#down.abandon();
    this.#connection = null;
    this.#plan = null;
    this.#group = null;
    this.#requestVerdict = null;
    this.#responseVerdict = null;
    this.#hookRequest = null;
    this.#hookResponse = null;
    this.#engine.giveExchange(this);
  }

  // --- time ------------------------------------------------------------------------------------------------

  /** Looks whether a limit of time is reached; `now` in monotonic milliseconds. */
  sweep(now: number): void {
    const { limits } = this.#engine.worker;
    const due = this.#clock.due(now, limits, this.#awaits());
    switch (due) {
      case Due.Nothing:
        return;
      case Due.Continue:
        this.#continueByOurselves(now);
        return;
      case Due.ClientSlow:
        this.#closing = true;
        this.#engine.increment(Counter.ClientTimeouts);
        if (this.#responded) this.#abortBoth(CloseReason.ClientIdle);
        else this.#answer(refusal(408, AnswerReason.RequestTimeout));
        return;
      case Due.ClientStalled:
        this.#engine.increment(Counter.ClientTimeouts);
        this.#abortBoth(CloseReason.ClientIdle);
        return;
      case Due.ClientGone:
        this.#engine.increment(Counter.ClientAborts);
        this.#abortBoth(CloseReason.ClientClosed);
        return;
      case Due.UpstreamSlow:
        this.#engine.increment(Counter.UpstreamTimeouts);
        this.#engine.options.dialer.answered?.((this.#upstream as UpstreamConnection).fd, 504);
        if (this.#responded) this.#abortBoth(CloseReason.OriginError);
        else this.#answer(refusal(504, AnswerReason.ResponseTimeout));
        return;
      default:
        due satisfies never;
    }
  }

  /** The `Await` bits that hold. Hooks and connecting have limits of their own. */
  #awaits(): number {
    if (this.#phase === Phase.Head) return Await.RequestHead;
    const connection = this.#connection as HttpConnection;
    let awaits = connection.sending ? Await.ClientTakes : 0;
    const upstream = this.#upstream;
    if (this.#phase !== Phase.Forwarding || upstream === null) return awaits;
    if (this.#up.paused) awaits |= Await.Continue;
    if (this.#up.wantsInput && connection.receiving) awaits |= Await.RequestBody;
    if (upstream.sending) awaits |= Await.UpstreamTakes;
    if (this.#responsePhase === ResponsePhase.Body) {
      if (this.#down.wantsInput && upstream.receiving) awaits |= Await.ResponseBody;
    } else if (this.#responsePhase === ResponsePhase.Awaited && this.#up.drained)
      awaits |= Await.ResponseHead;
    return awaits;
  }

  /**
   * RFC 9110 section 10.1.1: the client must not wait for ever; a later 100 of the upstream is then
   * swallowed.
   */
  #continueByOurselves(now: number): void {
    const at = this.#down.open();
    if (at < 0 || at + CONTINUE_RESPONSE.length > this.#down.limit) return;
    this.#engine.io.arena.bytes.set(CONTINUE_RESPONSE, at);
    this.#down.extend(at + CONTINUE_RESPONSE.length);
    this.#sentContinue = true;
    this.#up.paused = false;
    this.#clock.stepAt = now;
    this.#clock.clientAt = now;
    this.#down.run();
    this.#runUp();
  }

  // --- trace -----------------------------------------------------------------------------------------------

  #traceRequest(): void {
    this.#trace('request', `${this.#request.methodText} ${this.#request.authority}${this.#request.path}`);
  }

  #trace(stage: 'request' | 'response' | 'connect', text: string): void {
    this.#engine.trace((this.#connection as HttpConnection).stream, stage, text);
  }
}
