import type { Context, Endpoint, Target } from '#contract/context.ts';
import {
  parseSocksCredentials,
  parseSocksGreeting,
  parseSocksRequest,
  SocksCommand,
  SocksFault,
  SocksMethod,
  SocksReply,
  type SocksRequest,
  writeSocksMethod,
  writeSocksReply,
  writeSocksStatus,
} from '#protocol/socks/socks.ts';
import type { UserConfig } from '#config/users.ts';
import type {
  InboundStream,
  SessionOpener,
  StreamAnswer,
  StreamHandler,
  StreamRefusal,
  TargetGuard,
  Worker,
} from '#proxy/proxy-contract.ts';

import { farewell } from './farewell.ts';
import { Introduction, type IntroductionLoss } from './introduction.ts';
import { sendNow } from './send-now.ts';
import { SocksAssociation } from './socks-association.ts';
import { reasonOfLoss, recordUnopened } from './stream-record.ts';
import type { Users } from './users.ts';

/** What a route says of a stream or session to a destination. */
export interface DecidedRoute {
  readonly via: string | null;
  readonly rule: string;
  readonly wish: InboundStream['wish'];
}

/** How a SOCKS server works. */
export interface SocksServerOptions {
  /** Null: nobody has to say who they are. */
  readonly users: Users | null;
  readonly guard: TargetGuard;
  /** UDP ASSOCIATE is served. */
  readonly udp: boolean;
  readonly route: (context: Context, destination: Endpoint, protocol: 'tcp' | 'udp') => DecidedRoute;
  /** The context of a user, made of the on-ramp's. */
  readonly contextOf: (base: Context, user: UserConfig) => Context;
  readonly sessions: SessionOpener;
  /** Takes the streams to their targets. */
  readonly streams: StreamHandler;
}

/** Serves SOCKS 5 on the connections of a listener. Names are not resolved here: the off-ramp does. */
export class SocksServer implements StreamHandler {
  readonly worker: Worker;
  readonly options: SocksServerOptions;
  readonly #open = new Set<SocksClient | SocksAssociation>();

  constructor(worker: Worker, options: SocksServerOptions) {
    this.worker = worker;
    this.options = options;
  }

  onStream(stream: InboundStream, prefixOffset: number, prefixLength: number): void {
    const client = new SocksClient(this, stream, prefixOffset, prefixLength);
    this.#open.add(client);
    client.begin();
  }

  /** Ends all greetings and associations under way. Streams that have begun are their handler's. */
  close(): void {
    for (const each of [...this.#open]) each.abort();
    this.#open.clear();
  }

  /** @internal */
  opened(association: SocksAssociation): void {
    this.#open.add(association);
  }

  /** @internal */
  over(each: SocksClient | SocksAssociation): void {
    this.#open.delete(each);
  }
}

/**
 * One client until its stream begins.
 *
 * ```
 *  Greeting ─┬────────────────────────────► Request ─┬─► CONNECT: the stream's, with an answer to give
 *            └─► Credentials ─► Verifying ─►────┘    └─► UDP ASSOCIATE: an association
 * ```
 */
const Phase = Object.freeze({ Greeting: 0, Credentials: 1, Verifying: 2, Request: 3 } as const);

class SocksClient extends Introduction {
  readonly #server: SocksServer;
  readonly #stream: InboundStream;
  readonly #startedAt = Date.now();
  #phase: number = Phase.Greeting;
  #context: Context;
  #trouble = 'no SOCKS request';

  constructor(server: SocksServer, stream: InboundStream, prefixOffset: number, prefixLength: number) {
    super(server.worker, stream.fd, prefixOffset, prefixLength);
    this.#server = server;
    this.#stream = stream;
    this.#context = stream.context;
  }

  protected override onBytes(): void {
    switch (this.#phase) {
      case Phase.Greeting:
        this.#onGreeting();
        break;
      case Phase.Credentials:
        this.#onCredentials();
        break;
      case Phase.Request:
        this.#onRequest();
        break;
      default:
      // While a password is verified, bytes wait.
    }
  }

  protected override onLost(loss: IntroductionLoss): void {
    this.#server.over(this);
    const rule = `${this.#stream.rule}: ${this.#trouble}`;
    const stream = { ...this.#stream, context: this.#context };
    recordUnopened(this.worker, stream, { rule, reason: reasonOfLoss(loss), startedAt: this.#startedAt });
  }

  #onGreeting(): void {
    const greeting = parseSocksGreeting(this.worker.io.arena.bytes, this.at, this.length);
    if (greeting === SocksFault.Incomplete) {
      this.more();
      return;
    }
    if (typeof greeting === 'number') {
      this.#trouble = 'no greeting of SOCKS 5';
      this.lose('refused');
      return;
    }
    const wanted = this.#server.options.users === null ? SocksMethod.None : SocksMethod.Password;
    if (!greeting.methods.includes(wanted)) {
      this.#trouble = 'the client offers no method of authentication that is accepted';
      this.refuse(writeSocksMethod(SocksMethod.NoneAcceptable));
      return;
    }
    this.consume(greeting.length);
    this.#phase = wanted === SocksMethod.None ? Phase.Request : Phase.Credentials;
    this.#sayAndGoOn(writeSocksMethod(wanted));
  }

  #onCredentials(): void {
    const credentials = parseSocksCredentials(this.worker.io.arena.bytes, this.at, this.length);
    if (credentials === SocksFault.Incomplete) {
      this.more();
      return;
    }
    if (typeof credentials === 'number') {
      this.#trouble = 'malformed credentials';
      this.refuse(writeSocksStatus(false));
      return;
    }
    this.consume(credentials.length);
    this.#phase = Phase.Verifying;
    const users = this.#server.options.users as Users;
    const user = users.verify(credentials.user, credentials.password);
    if (user instanceof Promise) void user.then((found) => this.#onVerified(found));
    else this.#onVerified(user);
  }

  #onVerified(user: UserConfig | null): void {
    if (this.isOver) return;
    if (user === null) {
      this.#trouble = 'wrong name or password';
      this.refuse(writeSocksStatus(false));
      return;
    }
    this.#context = this.#server.options.contextOf(this.#stream.context, user);
    this.#phase = Phase.Request;
    this.#sayAndGoOn(writeSocksStatus(true));
  }

  #onRequest(): void {
    const request = parseSocksRequest(this.worker.io.arena.bytes, this.at, this.length);
    if (request === SocksFault.Incomplete) {
      this.more();
      return;
    }
    if (typeof request === 'number') {
      this.#trouble = 'a malformed request';
      const isType = request === SocksFault.AddressType;
      this.refuse(writeSocksReply(isType ? SocksReply.AddressTypeNotSupported : SocksReply.GeneralFailure));
      return;
    }
    this.consume(request.length);
    const { udp } = this.#server.options;
    if (request.command === SocksCommand.Connect) this.#connect(request.target);
    else if (request.command === SocksCommand.UdpAssociate && udp) this.#associate(request);
    else {
      this.#trouble = `command ${request.command} is not served`;
      this.refuse(writeSocksReply(SocksReply.CommandNotSupported));
    }
  }

  #connect({ host, port }: Target): void {
    const { options } = this.#server;
    const destination = { address: host, port };
    const { via, rule, wish } = options.route(this.#context, destination, 'tcp');
    const { prefixOffset, prefixLength } = this.handOn();
    this.#server.over(this);
    const stream: InboundStream = {
      ...this.#stream,
      context: this.#context,
      destination,
      route: via,
      rule,
      wish,
      guard: options.guard,
      answer: new SocksAnswer(this.worker, this.fd),
    };
    options.streams.onStream(stream, prefixOffset, prefixLength);
  }

  #associate(request: SocksRequest): void {
    const stream = { ...this.#stream, context: this.#context };
    let association: SocksAssociation;
    try {
      association = new SocksAssociation(this.#server, stream, request.target);
    } catch {
      this.#trouble = 'no socket for datagrams';
      this.refuse(writeSocksReply(SocksReply.GeneralFailure));
      return;
    }
    const { prefixOffset } = this.handOn();
    if (prefixOffset >= 0) this.worker.streams.release(prefixOffset);
    this.#server.over(this);
    this.#server.opened(association);
    association.begin();
  }

  #sayAndGoOn(bytes: Uint8Array): void {
    if (!this.say(bytes)) this.lose('error');
    else if (this.length > 0) this.onBytes();
    else this.more();
  }
}

const REPLIES: Readonly<Record<StreamRefusal, SocksReply>> = Object.freeze({
  policy: SocksReply.NotAllowed,
  'no-network': SocksReply.NetworkUnreachable,
  'no-host': SocksReply.HostUnreachable,
  refused: SocksReply.ConnectionRefused,
  timeout: SocksReply.TtlExpired,
  failed: SocksReply.GeneralFailure,
});

/** The reply to CONNECT, when it is known how the connecting went. */
class SocksAnswer implements StreamAnswer {
  readonly #worker: Worker;
  readonly #fd: number;

  constructor(worker: Worker, fd: number) {
    this.#worker = worker;
    this.#fd = fd;
  }

  opened(): boolean {
    return sendNow(this.#worker, this.#fd, writeSocksReply(SocksReply.Succeeded));
  }

  refused(refusal: StreamRefusal): void {
    farewell(this.#worker, this.#fd, writeSocksReply(REPLIES[refusal]));
  }
}
