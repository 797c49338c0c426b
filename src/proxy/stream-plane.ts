import { formatSocketAddress, parseIp } from '#base/ip.ts';
import {
  isListenerOnRamp,
  type ProxyHeaderConfig,
  type SocksOnRamp,
  type StreamListenerConfig,
  type TcpOnRamp,
} from '#config/on-ramps.ts';
import type { RouteConfig } from '#config/routes.ts';
import type { RampStatus } from '#contract/agent.ts';
import type { Context, Endpoint, FlowProtocol } from '#contract/context.ts';
import { CloseReason } from '#contract/record.ts';
import { LayeredIo } from '#io/layered.ts';
import { IpProtocol } from '#packet/parse.ts';

import type { FlowTuple } from './flow/flow-table.ts';
import { isContextRefusal, makeContext } from './hooks/context.ts';
import { type DecidedRoute, SocksServer } from './onramp/socks-server.ts';
import { RuledGuard } from './onramp/target-guard.ts';
import { type ProxyHeaderOptions, TcpListener } from './onramp/tcp-listener.ts';
import { UdpListener } from './onramp/udp-listener.ts';
import { userContext, Users } from './onramp/users.ts';
import { OffRampDialer } from './offramp/dialer.ts';
import type { StreamOffRamp } from './offramp/offramp.ts';
import { OriginOffRamp } from './offramp/origin-off-ramp.ts';
import { SocketSessions } from './offramp/session.ts';
import { SocketOffRamp } from './offramp/socket-off-ramp.ts';
import { type Assembly, configContext } from './assembly.ts';
import type { InboundStream, NetworkId, StreamHandler } from './proxy-contract.ts';
import { HttpEngine } from './upgrade/http.ts';
import { TlsPlane } from './tls-plane.ts';
import { StreamDispatcher } from './upgrade/stream.ts';

/** Streams, sessions and HTTP: everything above layer 3, with the plain listeners that lead into it. */
export class StreamPlane {
  readonly http: HttpEngine;
  readonly dispatcher: StreamDispatcher;
  readonly sessions: SocketSessions;
  readonly dialer: OffRampDialer;
  readonly #assembly: Assembly;
  readonly #offRamps = new Map<string, StreamOffRamp>();
  /** Null where nothing has to do with TLS. */
  readonly #tls: TlsPlane | null;
  /** What streams come to first: the TLS gate, or the dispatcher itself. */
  readonly #entry: StreamHandler;
  readonly #tcp: TcpListener[] = [];
  readonly #udp: UdpListener[] = [];
  readonly #servers: SocksServer[] = [];

  constructor(assembly: Assembly) {
    this.#assembly = assembly;
    const { worker, hooks } = assembly;
    this.#tls = worker.io instanceof LayeredIo ? new TlsPlane(assembly) : null;
    this.#openOffRamps();
    this.dialer = new OffRampDialer(worker, {
      offRamps: this.#offRamps,
      route: (network, context, destination) =>
        this.route(network, context, { destination, protocol: 'tcp' })?.via ?? null,
      egress: hooks.egress,
    });
    this.http = new HttpEngine(worker, { dialer: this.dialer, hooks, accessLog: assembly.access });
    this.dispatcher = new StreamDispatcher(worker, {
      dialer: this.dialer,
      hook: hooks.stream,
      http: this.http,
    });
    this.#entry = this.#tls?.gate(this.dispatcher, this.dialer) ?? this.dispatcher;
    const session = hooks.session;
    this.sessions = new SocketSessions(worker, {
      dialer: this.dialer,
      hook: session === null ? null : (request) => session(request),
    });
  }

  /** The TLS gate, the HTTP engine and the stream dispatcher as one: what the stack hands its streams to. */
  get handler(): StreamHandler {
    return this.#entry;
  }

  /** Reads certificates. Rejects with `RampartError` RAMP_CERTIFICATE. */
  async open(): Promise<void> {
    await this.#tls?.open();
  }

  /** Adds an off-ramp that the IP plane has opened. */
  addOffRamp(offRamp: StreamOffRamp): void {
    this.#offRamps.set(offRamp.name, offRamp);
  }

  /** The config's route of a stream or session; null when none matches. */
  route(
    network: NetworkId,
    context: Context,
    flow: { readonly destination: Endpoint; readonly protocol: FlowProtocol },
  ): RouteConfig | null {
    const address = parseIp(flow.destination.address) ?? UNSPECIFIED;
    const bytes = new Uint8Array(address.length * 2);
    bytes.set(address, address.length);
    const tuple: FlowTuple = {
      version: address.length === 4 ? 4 : 6,
      protocol: flow.protocol === 'udp' ? IpProtocol.Udp : IpProtocol.Tcp,
      addressOffset: 0,
      sourcePort: 0,
      destinationPort: flow.destination.port,
    };
    const view = new DataView(bytes.buffer);
    return this.#assembly.routes.find(network, context.onRamp, view, tuple)?.config ?? null;
  }

  /** Opens the plain listeners. @throws RampartError RAMP_LISTEN */
  listen(): void {
    const { config, worker, networks } = this.#assembly;
    for (const onRamp of config.onRamps) {
      if (!isListenerOnRamp(onRamp)) continue;
      const context = configContext(onRamp.context, onRamp.name);
      const network = networks.intern(context.account, context.vnet);
      const { name } = onRamp;
      if (onRamp.type === 'tcp') this.#tcp.push(this.#openTcp(onRamp, context, network));
      else if (onRamp.type === 'socks5') this.#tcp.push(this.#openSocks(onRamp, context, network));
      else {
        const destination = { address: onRamp.listen.address, port: onRamp.listen.port };
        const route = this.route(network, context, { destination, protocol: 'udp' });
        const options = { name, listen: onRamp.listen, context, network };
        const decided = { route: route?.via ?? null, rule: route?.rule ?? 'no route' };
        this.#udp.push(new UdpListener(worker, { ...options, ...decided }, this.sessions));
      }
    }
  }

  /** What the control socket tells of the listeners. */
  status(): RampStatus[] {
    return [
      ...this.#tcp.map((each) => listenerStatus(each, this.#typeOf(each.name))),
      ...this.#udp.map((each) => listenerStatus(each, 'udp')),
    ];
  }

  #typeOf(onRamp: string): string {
    return this.#assembly.config.onRamps.find(({ name }) => name === onRamp)?.type ?? 'tcp';
  }

  /** Takes nothing new, and waits until what is under way has ended by itself, at most `graceMs`. */
  async drain(graceMs: number): Promise<void> {
    for (const listener of this.#tcp) listener.close();
    this.http.drain();
    const until = performance.now() + graceMs;
    this.#tls?.refuseAll();
    while (this.http.count + this.dispatcher.count > 0 && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, DRAIN_POLL_MS));
    }
  }

  /** Ends everything. */
  close(): void {
    for (const listener of [...this.#tcp, ...this.#udp]) listener.close();
    for (const server of this.#servers) server.close();
    for (const offRamp of this.#offRamps.values()) offRamp.close?.();
    this.dispatcher.closeAll(CloseReason.Shutdown);
    this.http.closeAll(CloseReason.Shutdown);
    this.sessions.closeAll(CloseReason.Shutdown);
    this.#tls?.refuseAll();
    this.#tls?.close();
  }

  #openTcp(onRamp: TcpOnRamp, context: Context, network: NetworkId): TcpListener {
    const { listen, upgrade } = onRamp;
    const destination = listen.family === 'unix' ? { address: '::', port: 0 } : listen;
    const route = this.route(network, context, { destination, protocol: 'tcp' });
    const wish = upgrade ?? (route === null || route.upgrade === 'none' ? 'stream' : route.upgrade);
    const decided = { wish, route: route?.via ?? null, rule: route?.rule ?? 'no route' };
    const options = { ...this.#listenerOptions(onRamp), context, network, ...decided };
    return new TcpListener(this.#assembly.worker, options, this.handler);
  }

  #openSocks(onRamp: SocksOnRamp, context: Context, network: NetworkId): TcpListener {
    const { worker } = this.#assembly;
    const { users, allow, name, udp, upgrade } = onRamp;
    const server = new SocksServer(worker, {
      users: users === null ? null : new Users(users),
      guard: new RuledGuard({ onRamp: name, ...allow }, () => worker.io.now()),
      udp,
      route: (of, destination, protocol) => this.#decide(of, { destination, protocol }, upgrade),
      contextOf: userContext,
      sessions: this.sessions,
      streams: this.handler,
    });
    this.#servers.push(server);
    const options = { ...this.#listenerOptions(onRamp), context, network };
    const later = { wish: 'stream', route: null, rule: `on-ramp ${name}` } as const;
    return new TcpListener(worker, { ...options, ...later }, server);
  }

  /** What the config's routes say of a target that a client named. */
  #decide(
    context: Context,
    flow: { readonly destination: Endpoint; readonly protocol: 'tcp' | 'udp' },
    upgrade: InboundStream['wish'] | null,
  ): DecidedRoute {
    const network = this.#assembly.networks.intern(context.account, context.vnet);
    const route = this.route(network, context, flow);
    const wish = upgrade ?? (route === null || route.upgrade === 'none' ? 'stream' : route.upgrade);
    return { via: route?.via ?? null, rule: route?.rule ?? 'no route', wish };
  }

  /** What the config says of every listener for streams. */
  #listenerOptions(onRamp: StreamListenerConfig) {
    const { name, listen, proxyHeader, connectionsMax, connectionsPerAddressMax } = onRamp;
    return {
      name,
      listen,
      connectionsMax: connectionsMax ?? undefined,
      connectionsPerAddressMax: connectionsPerAddressMax ?? undefined,
      ...(proxyHeader === null ? {} : { proxyHeader: this.#proxyHeaderOptions(name, proxyHeader) }),
    };
  }

  #proxyHeaderOptions(onRamp: string, { trust, context: believed }: ProxyHeaderConfig): ProxyHeaderOptions {
    if (!believed) return { trust };
    const { networks } = this.#assembly;
    const context: ProxyHeaderOptions['context'] = (spec) => {
      const made = makeContext(spec, onRamp);
      if (isContextRefusal(made)) return null;
      return { context: made, network: networks.intern(made.account, made.vnet) };
    };
    return { trust, context };
  }

  #openOffRamps(): void {
    const { config, worker } = this.#assembly;
    for (const offRamp of config.offRamps) {
      const { name } = offRamp;
      if (offRamp.type === 'sockets') {
        const { source, target, proxyHeader, tls } = offRamp;
        const secure = tls === null ? null : (this.#tls?.client(name, { config: tls, alpn: [] }) ?? null);
        const options = { name, source, origin: target, proxyHeader, secure };
        this.#offRamps.set(name, new SocketOffRamp(worker, options));
      } else if (offRamp.type === 'http') {
        const { origins, upstream, proxyHeader, tls } = offRamp;
        const secure = tls === null ? null : (this.#tls?.client(name, { config: tls, alpn: HTTP_1 }) ?? null);
        const options = { name, origins, upstream, proxyHeader, secure };
        this.#offRamps.set(name, new OriginOffRamp(worker, options));
      }
    }
  }
}

/** How often a drain looks whether it is over. */
const DRAIN_POLL_MS = 10;

/** Protocols that requests are sent to origins by. */
const HTTP_1: readonly string[] = Object.freeze(['http/1.1']);

const UNSPECIFIED = new Uint8Array(16);

function listenerStatus(listener: TcpListener | UdpListener, type: string): RampStatus {
  return { name: listener.name, type, where: formatSocketAddress(listener.address), trouble: '' };
}
