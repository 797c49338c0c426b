import { RampartError } from '#base/error.ts';
import type { RouteConfig } from '#config/routes.ts';
import type { Context } from '#contract/context.ts';
import { CloseReason } from '#contract/record.ts';
import { certificateHolder } from '#crypto/certificate.ts';
import type { Fd } from '#io/io.ts';
import type { TlsInside, TlsVerdict } from '#proxy/hooks/hooks.ts';
import type {
  DialPlan,
  DialRefusal,
  InboundStream,
  SecureUpgrade,
  StreamFacts,
  Worker,
} from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';
import { InspectedUpstream, type Inspector } from '#proxy/tls/inspector.ts';
import { connectTls } from '#proxy/tls/tls-client.ts';
import { TlsStream, type TlsStreamOwner } from '#proxy/tls/tls-stream.ts';
import { ACCESS_DENIED, plainAlert, UNRECOGNIZED_NAME } from '#protocol/tls/alert.ts';
import type { ClientHello } from '#protocol/tls/client-hello.ts';
import type { TlsServerContext } from '#protocol/tls/tls-context.ts';
import { TlsSession } from '#protocol/tls/tls-session.ts';

import { type Arrival, FirstBytesReader } from './first-bytes.ts';
import { decideByConfig, type TlsGate, type TlsOnRamp, wishInside } from './tls-gate.ts';

/** Alerts by which a client learns what was wrong (RFC 8446 section 6.2). */
const HANDSHAKE_FAILURE = 40;
const DECODE_ERROR = 50;

/** How the plaintext, or what is passed, goes on. */
type Inside = Pick<InboundStream, 'wish' | 'route' | 'rule' | 'target'>;

/** One stream from its first bytes until it is passed on or refused. */
export class TlsArrival implements TlsStreamOwner {
  readonly #gate: TlsGate;
  readonly #worker: Worker;
  readonly #stream: InboundStream;
  readonly #onRamp: TlsOnRamp | null;
  readonly #first: FirstBytesReader;
  readonly #startedAt = Date.now();
  readonly #deadline: number;
  #rule: string;
  #ended = false;
  #handshake: TlsStream | null = null;
  #upstream: InspectedUpstream | null = null;
  #via: string | null = null;
  /** How the plaintext goes on. */
  #inside: Inside | null = null;
  #hello: ClientHello | null = null;

  constructor(
    gate: TlsGate,
    from: { readonly stream: InboundStream; readonly onRamp: TlsOnRamp | null },
    prefix: { readonly prefixOffset: number; readonly prefixLength: number },
  ) {
    const { worker } = gate;
    this.#gate = gate;
    this.#worker = worker;
    this.#stream = from.stream;
    this.#onRamp = from.onRamp;
    this.#rule = from.stream.rule;
    this.#first = new FirstBytesReader(worker, from.stream.fd, prefix.prefixOffset, prefix.prefixLength);
    this.#deadline = worker.io.now() + worker.limits.tlsHandshakeMs;
  }

  begin(): void {
    if (this.#stream.answer?.opened() === false) this.end(CloseReason.ClientClosed);
    else this.#look();
  }

  /** Ends the stream, unless it has gone on; a record is written. */
  end(reason: CloseReason, alert = -1): void {
    if (this.#ended) return;
    this.#finish();
    this.#upstream?.close();
    if (this.#handshake !== null) this.#handshake.destroy();
    else this.#close(alert);
    this.#record(reason);
  }

  // --- the hello -------------------------------------------------------------------------------------------

  #look(): void {
    this.#first.detect((found, arrival) => {
      if (this.#ended) return;
      if (found.hello !== null) this.#decide(found.hello);
      else if (arrival === 'broken') this.end(CloseReason.ClientError);
      else if (arrival === 'quiet' && this.#mayStillCome(found.protocol)) this.#look();
      else if (found.protocol === 'tls') this.#refuseHello(arrival);
      else this.#withoutTls();
    });
  }

  /** A client that is slow to begin is waited for where it must speak TLS. */
  #mayStillCome(protocol: string): boolean {
    if (this.#worker.io.now() >= this.#deadline) return false;
    if (protocol === 'tls') return true;
    return this.#onRamp !== null && !this.#onRamp.config.plain && this.#first.length < 6;
  }

  #refuseHello(arrival: Arrival): void {
    const what = arrival === 'bytes' ? 'a malformed TLS hello' : 'half a TLS hello';
    this.#rule = `${this.#rule}, refused: ${what}`;
    this.#count(Counter.TlsAcceptErrors);
    this.end(CloseReason.ClientTlsError, DECODE_ERROR);
  }

  #withoutTls(): void {
    if (this.#onRamp === null || this.#onRamp.config.plain) {
      this.#goOn(this.#plainStream(), this.#stream.fd);
      return;
    }
    this.#rule = `${this.#rule}, refused: no TLS`;
    this.end(this.#first.ended ? CloseReason.ClientClosed : CloseReason.ClientTlsError);
  }

  #decide(hello: ClientHello): void {
    this.#hello = hello;
    const { context, source, destination } = this.#stream;
    const { hook, routes } = this.#gate.options;
    const { serverName, alpn } = hello;
    const found = routes.find(context, { serverName, alpn });
    const { action, route } = decideByConfig(this.#onRamp, hello, found);
    if (hook === null) {
      this.#apply({ action }, route);
      return;
    }
    const info = {
      ...{ context, source, destination, serverName, alpn, hello },
      route: route?.via ?? this.#stream.route,
      byConfig: action,
    };
    try {
      const verdict = hook(info);
      if (verdict instanceof Promise) {
        verdict.then(
          (later) => this.#apply(later ?? { action }, route),
          () => this.#hookFailed(),
        );
      } else this.#apply(verdict ?? { action }, route);
    } catch {
      this.#hookFailed();
    }
  }

  #hookFailed(): void {
    this.#rule = 'tls hook failed';
    this.end(CloseReason.Policy, HANDSHAKE_FAILURE);
  }

  #apply(verdict: TlsVerdict, route: RouteConfig | null): void {
    if (this.#ended) return;
    const name = this.#hello?.serverName ?? 'no name';
    this.#trace(`TLS for ${name}: ${verdict.action}`);
    if (verdict.action === 'reject') {
      const why = verdict.reason === undefined ? '' : ` (${verdict.reason})`;
      this.#rule = `TLS for ${name}: reject${why}`;
      this.end(CloseReason.Policy, ACCESS_DENIED);
      return;
    }
    const upgrade: TlsInside | undefined = verdict.action === 'pass' ? 'stream' : verdict.upgrade;
    this.#inside = {
      wish: wishInside(this.#stream, { upgrade, route }),
      route: verdict.via ?? route?.via ?? this.#stream.route,
      rule: route?.rule ?? this.#stream.rule,
      ...(verdict.to === undefined ? {} : { target: verdict.to }),
    };
    this.#rule = this.#inside.rule;
    if (verdict.action === 'pass') this.#pass();
    else if (verdict.action === 'terminate') this.#terminate();
    else this.#inspect();
  }

  // --- pass ------------------------------------------------------------------------------------------------

  #pass(): void {
    this.#count(Counter.TlsPassed);
    const facts = this.#facts({ alpn: null, tls: null });
    this.#goOn({ ...this.#plainStream(), ...this.#inside, facts }, this.#stream.fd);
  }

  /** The stream as it came; the client was told already that it may send. */
  #plainStream(): InboundStream {
    const { answer: _told, ...stream } = this.#stream;
    return stream;
  }

  /** Hands the stream with its first bytes on. */
  #goOn(stream: InboundStream, fd: Fd): void {
    this.#first.settle(() => {
      if (this.#ended) return;
      this.#finish();
      const { offset, length } = this.#first.take();
      this.#gate.options.next.onStream({ ...stream, fd }, offset, length);
    });
  }

  // --- terminate -------------------------------------------------------------------------------------------

  #terminate(): void {
    const certificates = this.#onRamp?.certificates;
    const { serverName } = this.#hello as ClientHello;
    const named = serverName === null ? undefined : certificates?.find(serverName);
    const context = named ?? certificates?.first ?? null;
    if (context === null) {
      this.#rule = `${this.#rule}, refused: there is no certificate`;
      this.#count(Counter.TlsAcceptErrors);
      this.end(CloseReason.ClientTlsError, UNRECOGNIZED_NAME);
    } else this.#shakeHands(context);
  }

  #shakeHands(context: TlsServerContext): void {
    const { alpn } = this.#hello as ClientHello;
    let session: TlsSession;
    try {
      session = TlsSession.server(context, alpn);
    } catch {
      this.end(CloseReason.Limit);
      return;
    }
    this.#first.settle(() => {
      if (this.#ended) {
        session.free();
        return;
      }
      const prefix = this.#first.take();
      const { hub } = this.#gate.options;
      this.#handshake = new TlsStream(hub, this.#stream.fd, { session, owner: this, prefix });
    });
  }

  onHandshake(stream: TlsStream, error: RampartError | null): void {
    if (this.#ended) {
      if (error === null) this.#gate.options.hub.layers.close(stream.fd);
      return;
    }
    if (error !== null) {
      this.#handshake = null;
      this.#finish();
      this.#upstream?.close();
      this.#count(Counter.TlsAcceptErrors);
      this.#trace(error.message);
      this.#rule = `${this.#rule}, ${error.message}`;
      this.#record(CloseReason.ClientTlsError);
      return;
    }
    this.#count(Counter.TlsAccepted);
    const { agreement } = stream.session;
    const context = this.#identify(stream);
    const facts = this.#facts({
      alpn: agreement.alpn === '' ? null : agreement.alpn,
      tls: {
        encrypted: true,
        clientCertificate: context === null ? 'none' : 'connection',
        verified: context !== null,
        version: `TLSv${agreement.version}`,
        commonName: context?.name ?? null,
        cipher: agreement.cipher,
        signatureAlgorithm: null,
        keyAlgorithm: null,
      },
    });
    this.#trace(`TLS ${agreement.version} ${agreement.cipher} ${agreement.alpn}`);
    this.#finish();
    const secure: { secure?: SecureUpgrade } = this.#upstream === null ? {} : { secure: this.#upstream };
    const changed = context === null ? {} : { context: context.context };
    const inside = { ...this.#plainStream(), ...this.#inside, ...changed, ...secure, facts, fd: stream.fd };
    this.#gate.options.next.onStream(inside, -1, 0);
  }

  /** The context with the identity of the client's certificate; null when it showed none. */
  #identify(stream: TlsStream): { readonly context: Context; readonly name: string } | null {
    const clients = this.#onRamp?.config.clients ?? null;
    const der = clients === null ? null : stream.session.peerCertificate;
    if (clients === null || der === null) return null;
    const { context } = this.#stream;
    const holder = certificateHolder(der, clients.user);
    // Nothing of what the config says of clients without certificate holds for one with.
    const identity = { ...(holder.name === '' ? {} : { user: holder.name }), groups: holder.units };
    return { context: { ...context, identity }, name: certificateHolder(der, 'common_name').name };
  }

  // --- inspect ---------------------------------------------------------------------------------------------

  #inspect(): void {
    const inspector = this.#onRamp?.inspector ?? null;
    if (inspector === null) {
      this.#rule = `${this.#rule}, refused: the on-ramp has no authority to inspect with`;
      this.end(CloseReason.Policy, HANDSHAKE_FAILURE);
      return;
    }
    this.#reach(inspector).catch((error: unknown) => {
      const text = error instanceof Error ? error.message : String(error);
      const untrusted = error instanceof RampartError && error.code === 'RAMP_TLS';
      this.#trace(text);
      this.#rule = `${this.#rule}, ${text}`;
      if (untrusted) this.#count(Counter.TlsConnectErrors);
      const reason = untrusted ? CloseReason.OriginTlsError : CloseReason.OriginUnreachable;
      this.end(isRefusal(error) ? CloseReason.Policy : reason, HANDSHAKE_FAILURE);
    });
  }

  /** Verifies the server first: a client is never shown a certificate for a name that did not verify. */
  async #reach(inspector: Inspector): Promise<void> {
    const { dialer, hub } = this.#gate.options;
    const { serverName, alpn } = this.#hello as ClientHello;
    const { context, network, flow, source, destination, facts, guard } = this.#stream;
    const inside = this.#inside as Inside;
    const plan: DialPlan | DialRefusal = await dialer.plan({
      ...(facts === undefined ? {} : { facts }),
      ...(guard === undefined ? {} : { guard }),
      ...{ context, network, flow, source, destination },
      layer: inside.wish === 'http' ? 'http' : 'tcp',
      target: inside.target ?? null,
      via: inside.route,
    });
    if ('refused' in plan)
      throw new RampartError('RAMP_CONNECT', `refused: ${plan.reason}`, { side: 'config' });
    if (plan.secure !== undefined) {
      const text = `the off-ramp ${plan.via} has TLS of its own; expected one without for inspected streams`;
      throw new RampartError('RAMP_CONNECT', text, { side: 'config' });
    }
    this.#via = plan.via;
    const name = serverName ?? plan.target.host;
    const spoken = alpn.filter((protocol) => protocol === 'http/1.1');
    // A client that speaks only what is not understood here is still carried, as a stream.
    const offered = spoken.length > 0 || alpn.length === 0 ? spoken : alpn;
    const peer = { name, checkName: true, alpn: offered, pins: [] };
    const fd = await dialer.connect(plan);
    const stream = await connectTls(hub, fd, { context: inspector.upstream, peer });
    const upstream = new InspectedUpstream(hub, inspector, { onRamp: context.onRamp, name, stream, plan });
    this.#upstream = upstream;
    this.#count(Counter.TlsConnected);
    const minted = await inspector.contextFor(name, upstream.alpn);
    if (this.#ended) {
      upstream.close();
      return;
    }
    this.#count(Counter.TlsInspected);
    if (spoken.length === 0 && alpn.length > 0) this.#inside = { ...inside, wish: 'stream' };
    this.#shakeHands(minted);
  }

  // --- the end ---------------------------------------------------------------------------------------------

  #finish(): void {
    this.#ended = true;
    this.#gate.ended(this);
  }

  /** Closes the client's side, with an alert where there is something to say. */
  #close(alert: number): void {
    const { io, streams } = this.#worker;
    const { fd } = this.#stream;
    this.#first.drop();
    if (alert >= 0) {
      const slot = streams.acquire();
      if (slot >= 0) {
        const bytes = plainAlert(alert);
        io.arena.bytes.set(bytes, slot);
        io.trySend(fd, slot, bytes.length);
        streams.release(slot);
      }
    }
    io.close(fd);
  }

  #facts(known: Pick<StreamFacts, 'alpn' | 'tls'>): StreamFacts {
    const before = this.#stream.facts;
    return {
      serverName: this.#hello?.serverName ?? null,
      uniqueId: before?.uniqueId ?? null,
      alpn: known.alpn ?? before?.alpn ?? null,
      tls: known.tls ?? before?.tls ?? null,
    };
  }

  #count(counter: number): void {
    const { counters } = this.#worker.stats;
    counters[counter] = (counters[counter] as number) + 1;
  }

  #record(reason: CloseReason): void {
    const { context, flow, source, destination } = this.#stream;
    this.#count(Counter.StreamsOpened);
    this.#count(Counter.StreamsClosed);
    this.#worker.records.record({
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
      bytesUp: this.#first.length,
      bytesDown: 0,
      packetsUp: 0,
      packetsDown: 0,
    });
  }

  #trace(text: string): void {
    const { tracer, io } = this.#worker;
    if (!tracer.enabled) return;
    const { context, flow, source, destination } = this.#stream;
    tracer.emit({
      at: io.refreshNow(),
      flow,
      stage: 'stream',
      account: context.account,
      vnet: context.vnet,
      tuple: `${source.address}:${source.port} > ${destination.address}:${destination.port} tcp`,
      text,
    });
  }
}

function isRefusal(error: unknown): boolean {
  return error instanceof RampartError && error.side === 'config';
}
