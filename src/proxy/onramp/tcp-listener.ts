import { assert } from '#base/assert.ts';
import type { IpPrefix, SocketAddress } from '#base/ip.ts';
import type { Context, Endpoint } from '#contract/context.ts';
import { CloseReason } from '#contract/record.ts';
import { type Completion, CompletionFlag, Errno, type Fd, type OperationId } from '#io/io.ts';
import type { ProxyContext, ProxyHeader } from '#protocol/proxy-protocol/header.ts';
import type {
  FlowWatcher,
  InboundStream,
  NetworkId,
  StreamFacts,
  StreamHandler,
  TargetGuard,
  Worker,
} from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import { socketEndpoint } from './endpoint.ts';
import { recordUnopened } from './stream-record.ts';
import { isTrusted, type ProxyClient, type ProxyHeaderOwner, ProxyHeaderReader } from './proxy-header.ts';

/** How a listener's streams enter. */
export interface TcpListenerOptions {
  readonly name: string;
  readonly listen: SocketAddress;
  readonly context: Context;
  readonly network: NetworkId;
  readonly wish: InboundStream['wish'];
  /** Off-ramp of the config's route for this on-ramp; null when routes by destination decide. */
  readonly route: string | null;
  readonly rule: string;
  /** A listening descriptor that a previous process or the service manager handed over. */
  readonly inherited?: Fd;
  /** Connections begin with a PROXY header. */
  readonly proxyHeader?: ProxyHeaderOptions;
  /** Most connections at once, beyond which they wait in the kernel's queue; of one address: are closed. */
  readonly connectionsMax?: number | undefined;
  readonly connectionsPerAddressMax?: number | undefined;
  /** Connections to any address are taken (TPROXY); the destination is the one that the client meant. */
  readonly transparent?: boolean;
  /** Goes with every stream. */
  readonly guard?: TargetGuard;
}

/** What a listener does with PROXY headers. */
export interface ProxyHeaderOptions {
  /** Peers that are believed; others are refused. */
  readonly trust: readonly IpPrefix[];
  /**
   * Makes a context of what the node in front says; null when that is no context. Absent: it is not believed.
   */
  readonly context?: (
    spec: ProxyContext,
  ) => { readonly context: Context; readonly network: NetworkId } | null;
}

const TAG_ACCEPT = 0;
const TAG_RETRY = 1;

/**
 * How long accepting pauses after a failed accept. A full descriptor table fails every accept at once:
 * without a pause the loop would spin.
 */
const ACCEPT_PAUSE_MS = 100;

/**
 * Accepts TCP or Unix streams and hands them on.
 *
 * ```
 *  accept ─► room? ─► (PROXY header) ─► handler
 *               └ no: accepting stops, clients wait in the kernel's queue until a stream has ended
 * ```
 */
export class TcpListener implements Completion, FlowWatcher, ProxyHeaderOwner {
  readonly fd: Fd;
  readonly name: string;
  readonly #worker: Worker;
  readonly #options: TcpListenerOptions;
  readonly #handler: StreamHandler;
  readonly #local: Endpoint;
  readonly #counts: boolean;
  /** Flows that are open, with the address that they count for. Empty unless connections are counted. */
  readonly #open = new Map<number, string>();
  readonly #perAddress = new Map<string, number>();
  /** Connections that were accepted in the same batch as the last one that had room. */
  readonly #waiting: Fd[] = [];
  readonly #introductions = new Map<Fd, ProxyHeaderReader>();
  #operation: OperationId = 0;
  #accepting = false;
  #closed = false;
  #timer = 0;

  /** @throws RampartError RAMP_LISTEN when the address cannot be bound. */
  constructor(worker: Worker, options: TcpListenerOptions, handler: StreamHandler) {
    this.name = options.name;
    this.#worker = worker;
    this.#options = options;
    this.#handler = handler;
    this.#counts = options.connectionsMax !== undefined || options.connectionsPerAddressMax !== undefined;
    const transparent = options.transparent ?? false;
    this.fd = options.inherited ?? worker.io.listen(options.listen, { transparent });
    this.#local = socketEndpoint(worker.io.localAddress(this.fd));
    this.#arm();
  }

  /** Where it listens; the port is the kernel's choice when the config said 0. */
  get address(): SocketAddress {
    return this.#worker.io.localAddress(this.fd);
  }

  /** Connections that count towards its limits now. */
  get count(): number {
    return this.#open.size + this.#introductions.size;
  }

  /** Stops accepting; with `keep` the descriptor stays open for a new process. */
  close(keep = false): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#accepting) this.#worker.io.cancel(this.#operation);
    this.#worker.io.cancelTimer(this.#timer);
    for (const introduction of this.#introductions.values()) introduction.abort();
    for (const fd of this.#waiting.splice(0)) this.#worker.io.close(fd);
    if (!keep) this.#worker.io.close(this.fd);
  }

  onCompletion(tag: number, result: number, flags: number): void {
    if (tag === TAG_RETRY) {
      if (!this.#closed) this.#arm();
      return;
    }
    if ((flags & CompletionFlag.More) === 0) this.#accepting = false;
    if (result >= 0) this.#onAccepted(result);
    else this.#onFailed(-result);
  }

  /** A stream that came in here is over. */
  flowOver(flow: number): void {
    const address = this.#open.get(flow);
    if (address === undefined) return;
    this.#open.delete(flow);
    const left = (this.#perAddress.get(address) as number) - 1;
    if (left > 0) this.#perAddress.set(address, left);
    else this.#perAddress.delete(address);
    this.#goOn();
  }

  onProxyHeader(client: ProxyClient, header: ProxyHeader, prefixOffset: number, prefixLength: number): void {
    this.#introductions.delete(client.fd);
    const { proxyHeader } = this.#options;
    let { context, network } = this.#options;
    if (header.context !== null && proxyHeader?.context !== undefined) {
      const made = proxyHeader.context(header.context);
      if (made === null) {
        this.#refuse(client, 'the PROXY header carries a context that is none');
        if (prefixOffset >= 0) this.#worker.streams.release(prefixOffset);
        this.#worker.io.close(client.fd);
        this.#goOn();
        return;
      }
      ({ context, network } = made);
    }
    const source = header.source ?? client.peer;
    const destination = header.destination ?? this.#local;
    const facts = header.command === 'local' ? null : factsOf(header);
    const from = { fd: client.fd, source, destination, context, network, facts };
    this.#enter(from, prefixOffset, prefixLength);
  }

  onProxyHeaderLost(client: ProxyClient, why: string): void {
    this.#introductions.delete(client.fd);
    this.#refuse(client, why);
    this.#goOn();
  }

  #arm(): void {
    assert(!this.#accepting);
    this.#accepting = true;
    this.#operation = this.#worker.io.accept(this.fd, this, TAG_ACCEPT);
  }

  #onAccepted(fd: Fd): void {
    if (this.#closed) {
      this.#worker.io.close(fd);
      return;
    }
    if (this.#isFull) {
      this.#waiting.push(fd);
      return;
    }
    this.#admit(fd);
    if (this.#isFull) this.#pause();
    else if (!this.#accepting) this.#arm();
  }

  get #isFull(): boolean {
    const { connectionsMax } = this.#options;
    return connectionsMax !== undefined && this.count >= connectionsMax;
  }

  /** What waits in the kernel's queue costs no descriptor here. */
  #pause(): void {
    if (this.#accepting) this.#worker.io.cancel(this.#operation);
  }

  /** There may be room again. */
  #goOn(): void {
    if (this.#closed) return;
    while (this.#waiting.length > 0 && !this.#isFull) this.#admit(this.#waiting.shift() as Fd);
    if (!this.#accepting && !this.#isFull) {
      this.#worker.io.cancelTimer(this.#timer);
      this.#arm();
    }
  }

  #admit(fd: Fd): void {
    const { io } = this.#worker;
    const { listen, proxyHeader, transparent, context, network } = this.#options;
    let peer: Endpoint;
    let destination = this.#local;
    try {
      peer = socketEndpoint(io.remoteAddress(fd));
      if (transparent) destination = socketEndpoint(io.localAddress(fd));
    } catch {
      // The peer reset the connection before it was looked at.
      io.close(fd);
      return;
    }
    if (listen.family !== 'unix') io.setOption(fd, 'no-delay', 1);
    if (proxyHeader === undefined) {
      this.#enter({ fd, source: peer, destination, context, network, facts: null }, -1, 0);
      return;
    }
    const client = { fd, peer };
    if (!isTrusted(proxyHeader.trust, peer)) {
      this.#refuse(client, 'it is not on the trust list for PROXY headers');
      io.close(fd);
      return;
    }
    const reader = new ProxyHeaderReader(this.#worker, client, this);
    this.#introductions.set(fd, reader);
    reader.begin();
  }

  #enter(
    from: Pick<InboundStream, 'fd' | 'source' | 'destination' | 'context' | 'network'> & {
      readonly facts: StreamFacts | null;
    },
    prefixOffset: number,
    prefixLength: number,
  ): void {
    const { wish, route, rule, guard } = this.#options;
    const { facts, ...rest } = from;
    const flow = this.#worker.records.nextFlowNumber();
    const known = { ...(facts === null ? {} : { facts }), ...(guard === undefined ? {} : { guard }) };
    const stream: InboundStream = { ...rest, flow, route, wish, rule, ...known };
    if (this.#counts && !this.#countIn(stream)) {
      if (prefixOffset >= 0) this.#worker.streams.release(prefixOffset);
      return;
    }
    this.#handler.onStream(stream, prefixOffset, prefixLength);
  }

  /** Counts a stream; false when its address has as many as it may: then it is closed. */
  #countIn(stream: InboundStream): boolean {
    const { address } = stream.source;
    const { connectionsPerAddressMax } = this.#options;
    const now = this.#perAddress.get(address) ?? 0;
    if (connectionsPerAddressMax !== undefined && now >= connectionsPerAddressMax) {
      this.#worker.io.close(stream.fd);
      this.#countRefused();
      const rule = `${this.name}: connections_per_address_max`;
      recordUnopened(this.#worker, stream, { rule, reason: CloseReason.Limit, startedAt: Date.now() });
      return false;
    }
    this.#open.set(stream.flow, address);
    this.#perAddress.set(address, now + 1);
    this.#worker.records.watch?.(stream.flow, this);
    return true;
  }

  #refuse(client: ProxyClient, why: string): void {
    this.#countRefused();
    const { tracer, io } = this.#worker;
    if (!tracer.enabled) return;
    const { context } = this.#options;
    tracer.emit({
      at: io.refreshNow(),
      flow: 0,
      stage: 'drop',
      account: context.account,
      vnet: context.vnet,
      tuple: `${client.peer.address}:${client.peer.port} > ${this.#local.address}:${this.#local.port} tcp`,
      text: `${this.name} refused a connection: ${why}`,
    });
  }

  #countRefused(): void {
    const { counters } = this.#worker.stats;
    counters[Counter.StreamsRefused] = (counters[Counter.StreamsRefused] as number) + 1;
  }

  #onFailed(errno: number): void {
    if (this.#closed) return;
    if (errno === Errno.ECANCELED) {
      // Accepting was stopped because it was full; there may be room again by this time.
      this.#goOn();
      return;
    }
    const { counters } = this.#worker.stats;
    counters[Counter.AcceptErrors] = (counters[Counter.AcceptErrors] as number) + 1;
    if (this.#accepting) return;
    this.#timer = this.#worker.io.timer(ACCEPT_PAUSE_MS, this, TAG_RETRY);
  }
}

function factsOf(header: ProxyHeader): StreamFacts {
  const { authority, alpn, uniqueId, tls } = header;
  return { serverName: authority, alpn, uniqueId, tls };
}
