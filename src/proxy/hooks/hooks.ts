/**
 * The public API of an application: one typed object of functions, called once per tunnel, flow, stream,
 * session and request, never per byte. Each returns a verdict from a closed union, or undefined: then the
 * config's routes decide.
 *
 * ```
 *  tunnel ─► flow ─┬─ drop · reject · forward ──────────────► (layer 3, cached in the flow table)
 *                  └─ upgrade ─┬─ (tls) ─ stream ─┬─ splice ► egress ─► end
 *                              │                  └─ http ─ request ► egress ─► response ─► end
 *                              └─ session ────────────────► egress ─► end
 * ```
 * Packet-level hooks (`flow`) are synchronous. Others are awaited only when they return a promise. A hook
 * that throws or overruns its time budget ends its flow with `hook_failed`; no other flow is touched.
 */
import type { Context, Endpoint, FlowProtocol, Target } from '#contract/context.ts';
import type { FlowRecord } from '#contract/record.ts';
import type { DetectedProtocol } from '#protocol/detect/detect.ts';
import type { ClientHello } from '#protocol/tls/client-hello.ts';
import type { StreamFacts } from '#proxy/proxy-contract.ts';

/** A value now, or later. */
export type Awaitable<T> = T | Promise<T>;

/** What the `tunnel` hook and the on-ramp make a context of. */
export interface ContextSpec<Extension = unknown> {
  readonly account: string;
  readonly vnet: string;
  readonly user?: string;
  readonly device?: string;
  readonly groups?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  /** Prefixes that the tunnel may send from, such as `100.64.0.7/32`. */
  readonly sources?: readonly string[];
  readonly extension?: Extension;
}

/** A new IP tunnel's first message. */
export interface TunnelInfo {
  readonly onRamp: string;
  /** The context blob exactly as it came. Valid only during the call. */
  readonly blob: Uint8Array;
  /** The blob parsed as JSON by the framework, or undefined when it is not JSON. */
  readonly json: unknown;
}

/** What becomes of a new tunnel. Undefined: the blob's own JSON is its context, or it is refused. */
export type TunnelVerdict<Extension = unknown> =
  | { readonly action: 'accept'; readonly context: ContextSpec<Extension> }
  | { readonly action: 'refuse'; readonly reason: string };

/** A new flow's first packet, seen before anything is sent anywhere. */
export interface FlowInfo<Extension = unknown> {
  readonly context: Context<Extension>;
  readonly protocol: FlowProtocol;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  /** Off-ramp that the config's routes would choose, null when none matches. */
  readonly route: string | null;
}

/**
 * How a refused flow is answered: TCP reset, ICMP administratively prohibited, ICMP unreachable, or nothing.
 */
export type RejectWith = 'reset' | 'prohibited' | 'unreachable';

/** What becomes of a new flow. Undefined: the route decides. */
export type FlowVerdict =
  | { readonly action: 'drop'; readonly reason?: string }
  | { readonly action: 'reject'; readonly with?: RejectWith; readonly reason?: string }
  /** Stay at layer 3: packets leave by an IP-tunnel off-ramp. */
  | { readonly action: 'forward'; readonly via?: string }
  /**
   * Become a TCP stream or a UDP session; then `stream` or `session` decides. `to: 'http'` skips the
   * sniffing.
   */
  | { readonly action: 'upgrade'; readonly to?: 'stream' | 'http' };

/** A TCP stream: upgraded from a flow, or accepted by a listener. */
export interface StreamInfo<Extension = unknown> {
  readonly context: Context<Extension>;
  readonly source: Endpoint;
  /** Where the client wanted to go; for a plain listener, the listener's own address. */
  readonly destination: Endpoint;
  readonly route: string | null;
  /** What a proxy in front (PROXY header) or TLS at this node says of the client; null when neither does. */
  readonly facts: StreamFacts | null;
  /**
   * Waits for the client's first bytes without consuming them: at most `limit` bytes, at most the sniff time
   * limit. Empty when the client says nothing first.
   */
  peek(limit?: number): Promise<Uint8Array>;
  /** Waits as `peek` does, and says what the client speaks. */
  detect(): Promise<FirstBytes>;
}

/**
 * A TLS client's first words, before anything is answered. Once per stream of an on-ramp with `tls`, and per
 * stream that is sniffed and found to be TLS.
 */
export interface TlsInfo<Extension = unknown> {
  readonly context: Context<Extension>;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  /** Off-ramp by the config's routes, those by name included; null when none matches. */
  readonly route: string | null;
  /** Name that the client asks for (SNI), lower case; null when it names none. */
  readonly serverName: string | null;
  /** Protocols that it offers by ALPN. */
  readonly alpn: readonly string[];
  readonly hello: ClientHello;
  /** What the config alone would do. */
  readonly byConfig: TlsVerdict['action'];
}

/**
 * What becomes of a TLS stream. Undefined: what the config says (`byConfig`). `to` and `via` say where it, or
 * what is inside it, leaves; absent: by the routes.
 */
export type TlsVerdict =
  /** Ends with an alert. */
  | { readonly action: 'reject'; readonly reason?: string }
  /** Moves the records on, unread. */
  | { readonly action: 'pass'; readonly to?: Target; readonly via?: string }
  /**
   * Answers with the on-ramp's certificate for the name; then `stream` or `request` decides about what is
   * inside.
   */
  | {
      readonly action: 'terminate';
      readonly to?: Target;
      readonly via?: string;
      readonly upgrade?: TlsInside;
    }
  /**
   * Verifies the server that the client wants to reach, and answers with a certificate minted for it by the
   * on-ramp's authority.
   */
  | { readonly action: 'inspect'; readonly to?: Target; readonly via?: string; readonly upgrade?: TlsInside };

/** What the plaintext of a TLS stream becomes. Absent: what the on-ramp or the route says. */
export type TlsInside = 'stream' | 'http' | 'sniff';

/** What a client's first bytes are. */
export interface FirstBytes {
  /** `server-first`: the client said nothing within the sniff time limit, as for MySQL, SMTP or FTP. */
  readonly protocol: DetectedProtocol | 'server-first';
  /** Name in the TLS ClientHello (SNI), lower case; null when there is none, or no TLS. */
  readonly serverName: string | null;
  /** Protocols that the ClientHello offers by ALPN. */
  readonly alpn: readonly string[];
  /** The whole ClientHello; null when it is no TLS, or none that can be read. */
  readonly hello: ClientHello | null;
}

/** What becomes of a TCP stream. Undefined: what the route or the `flow` hook wished. */
export type StreamVerdict =
  | { readonly action: 'reject'; readonly reason?: string }
  /** Connect to `to` (default: the destination) and move bytes. */
  | { readonly action: 'splice'; readonly to?: Target; readonly via?: string }
  /** Parse as HTTP/1.1; then `request` decides. */
  | { readonly action: 'http' }
  /** Look at the first bytes: HTTP becomes requests, everything else is spliced. */
  | { readonly action: 'sniff'; readonly to?: Target; readonly via?: string };

/** A UDP session: the datagrams of one flow. */
export interface SessionInfo<Extension = unknown> {
  readonly context: Context<Extension>;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly route: string | null;
}

/** What becomes of a UDP session. Undefined: it is relayed by its route. */
export type SessionVerdict =
  | { readonly action: 'reject'; readonly reason?: string }
  | { readonly action: 'relay'; readonly to?: Target; readonly via?: string };

/** Fields of a message, names compared without case. Changes made in a hook are what is forwarded. */
export interface Fields {
  get(name: string): string | undefined;
  getAll(name: string): readonly string[];
  has(name: string): boolean;
  /** Replaces all values. @throws RampartError when name or value is not allowed by RFC 9110 section 5. */
  set(name: string, value: string): void;
  append(name: string, value: string): void;
  delete(name: string): void;
  entries(): Iterable<readonly [name: string, value: string]>;
}

/** Turns a body's chunks into others; null at the end, whose result is sent last. May be asynchronous. */
export type BodyTransform = (chunk: Uint8Array | null) => Awaitable<Uint8Array | null>;

/** One request, framing already taken off. */
export interface RequestInfo<Extension = unknown> {
  readonly context: Context<Extension>;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly method: string;
  readonly scheme: 'http' | 'https';
  /** Host and optional port, lower case, validated. */
  readonly authority: string;
  /** Path and query exactly as they came and as they are forwarded. */
  readonly path: string;
  readonly fields: Fields;
  /** Free place for later hooks of the same exchange. */
  state: unknown;
}

/** What becomes of a request. Undefined: it is sent on as it is, with the changes made to its fields. */
export type RequestVerdict =
  /** Send on, with changes. Absent members stay as they came. */
  | {
      readonly action: 'forward';
      readonly to?: Target;
      readonly via?: string;
      readonly method?: string;
      readonly path?: string;
      readonly authority?: string;
      readonly transformBody?: BodyTransform;
    }
  | {
      readonly action: 'answer';
      readonly status: number;
      readonly fields?: Readonly<Record<string, string>>;
      readonly body?: string | Uint8Array;
    }
  | { readonly action: 'redirect'; readonly location: string; readonly status?: 301 | 302 | 303 | 307 | 308 }
  /** Answered 403 with the reason, which the log has too. */
  | { readonly action: 'block'; readonly reason: string; readonly status?: number };

/** One final response head, before it goes to the client. */
export interface ResponseInfo<Extension = unknown> {
  readonly request: RequestInfo<Extension>;
  readonly status: number;
  readonly fields: Fields;
}

/** What becomes of a response. Undefined: it goes to the client, with the changes made to its fields. */
export type ResponseVerdict =
  | { readonly action: 'forward'; readonly status?: number; readonly transformBody?: BodyTransform }
  | { readonly action: 'block'; readonly reason: string; readonly status?: number };

/** Before anything leaves: the inner, translated target and the off-ramp chosen so far. */
export interface EgressInfo<Extension = unknown> {
  readonly context: Context<Extension>;
  readonly layer: 'ip' | 'tcp' | 'udp' | 'http';
  readonly target: Target;
  readonly via: string;
}

/** Whether and where something leaves. Undefined: as chosen so far. */
export type EgressVerdict =
  | { readonly action: 'direct'; readonly to?: Target; readonly via?: string; readonly source?: string }
  | { readonly action: 'block'; readonly reason: string };

/**
 * All hooks of an application; every one is optional. `App` is the application's settings, `Extension` its
 * context part.
 */
export interface Hooks<Extension = unknown, App = unknown> {
  /**
   * Once, before any on-ramp opens. `parent` is what the previous process handed over, undefined at a first
   * start.
   */
  start?(settings: App, parent: unknown): Awaitable<void>;
  /** Once per IP tunnel (or per new context of an unconnected one). */
  tunnel?(info: TunnelInfo): Awaitable<TunnelVerdict<Extension> | undefined>;
  /** Once per flow, on its first packet; synchronous. */
  flow?(info: FlowInfo<Extension>): FlowVerdict | undefined;
  stream?(info: StreamInfo<Extension>): Awaitable<StreamVerdict | undefined>;
  /** Once per TLS client hello that somebody looks at. */
  tls?(info: TlsInfo<Extension>): Awaitable<TlsVerdict | undefined>;
  session?(info: SessionInfo<Extension>): SessionVerdict | undefined;
  request?(info: RequestInfo<Extension>): Awaitable<RequestVerdict | undefined>;
  response?(info: ResponseInfo<Extension>): Awaitable<ResponseVerdict | undefined>;
  /** Before a connection, session or forwarded flow leaves; for layer `ip` it must answer synchronously. */
  egress?(info: EgressInfo<Extension>): Awaitable<EgressVerdict | undefined>;
  /** Exactly once per flow, stream and session, when it is over. */
  end?(record: FlowRecord): void;
}

/**
 * Types a hooks file: `export default defineHooks<MyExtension, MySettings>({ … })`. A verdict outside the
 * union does not compile.
 */
export function defineHooks<Extension = unknown, App = unknown>(
  hooks: Hooks<Extension, App>,
): Hooks<Extension, App> {
  return hooks;
}
