import type { TlsAction, TlsServerConfig } from '#config/tls.ts';
import type { RouteConfig } from '#config/routes.ts';
import { CloseReason } from '#contract/record.ts';
import type { TlsInfo, TlsInside, TlsVerdict } from '#proxy/hooks/hooks.ts';
import type { Dialer, InboundStream, StreamHandler, Worker } from '#proxy/proxy-contract.ts';
import type { Inspector } from '#proxy/tls/inspector.ts';
import type { ServerCertificates } from '#proxy/tls/certificate-files.ts';
import type { TlsHub } from '#proxy/tls/tls-hub.ts';
import type { ClientHello } from '#protocol/tls/client-hello.ts';

import type { HelloRoutes } from './hello-routes.ts';
import { TlsArrival } from './tls-arrival.ts';

/** Calls the application's `tls` hook with its time budget; rejects when it failed. */
export type TlsFunction = (info: TlsInfo) => TlsVerdict | undefined | Promise<TlsVerdict | undefined>;

/** TLS at one on-ramp. */
export interface TlsOnRamp {
  readonly config: TlsServerConfig;
  readonly certificates: ServerCertificates;
  /** Null where nothing is inspected. */
  readonly inspector: Inspector | null;
}

/** What a gate is made of. */
export interface TlsGateOptions {
  readonly hub: TlsHub;
  /** Takes what is no TLS, what is passed, and the plaintext of what is not. */
  readonly next: StreamHandler;
  readonly dialer: Dialer;
  /** Null when there is no `tls` hook. */
  readonly hook: TlsFunction | null;
  readonly onRamps: ReadonlyMap<string, TlsOnRamp>;
  readonly routes: HelloRoutes;
}

/**
 * Stands before all that carries streams: reads the ClientHello where an on-ramp has TLS, or where a stream
 * is sniffed and there is a `tls` hook, and decides what becomes of it.
 *
 * ```
 *  onStream ─► first bytes ─┬─ no TLS ─────────────────────────────► next (or refused)
 *                           └─ hello ─► routes by name ─► hook ─┐
 *    ┌──────────────────────────────────────────────────────────┘
 *    ├─ pass ──────────────────────────────────────────────────────► next, unread
 *    ├─ terminate ─► handshake ────────────────────────────────────► next, plaintext
 *    ├─ inspect ─► verify upstream ─► mint ─► handshake ───────────► next, plaintext
 *    └─ reject ─► alert, record
 * ```
 * A stream that does not reach `next` has its record written here.
 */
export class TlsGate implements StreamHandler {
  readonly worker: Worker;
  readonly options: TlsGateOptions;
  readonly #open = new Set<TlsArrival>();

  constructor(worker: Worker, options: TlsGateOptions) {
    this.worker = worker;
    this.options = options;
  }

  /** Streams that are being decided about. */
  get count(): number {
    return this.#open.size;
  }

  onStream(stream: InboundStream, prefixOffset: number, prefixLength: number): void {
    const onRamp = this.options.onRamps.get(stream.context.onRamp) ?? null;
    if (onRamp === null && (this.options.hook === null || stream.wish !== 'sniff')) {
      this.options.next.onStream(stream, prefixOffset, prefixLength);
      return;
    }
    const arrival = new TlsArrival(this, { stream, onRamp }, { prefixOffset, prefixLength });
    this.#open.add(arrival);
    arrival.begin();
  }

  /** Ends the streams that are being decided about. */
  closeAll(reason: CloseReason = CloseReason.Shutdown): void {
    for (const arrival of [...this.#open]) arrival.end(reason);
  }

  /** @internal */
  ended(arrival: TlsArrival): void {
    this.#open.delete(arrival);
  }
}

/** What the config alone makes of a hello. */
export interface ConfigDecision {
  readonly action: TlsAction;
  /** The route by name that was found; null when none fits. */
  readonly route: RouteConfig | null;
}

/**
 * A name that has a certificate is terminated, one that is never inspected is passed, one that only a route
 * names is passed; all others are what the on-ramp says.
 */
export function decideByConfig(
  onRamp: TlsOnRamp | null,
  hello: ClientHello,
  route: RouteConfig | null,
): ConfigDecision {
  if (onRamp === null) return { action: 'pass', route };
  const { serverName } = hello;
  const { config, certificates, inspector } = onRamp;
  if (serverName !== null && certificates.find(serverName) !== undefined)
    return { action: 'terminate', route };
  if (serverName !== null && inspector?.bypasses(serverName)) return { action: 'pass', route };
  if (route !== null && inspector === null) return { action: 'pass', route };
  return { action: config.otherwise, route };
}

/** What a route or verdict makes of the plaintext. */
export function wishInside(
  stream: InboundStream,
  chosen: { readonly upgrade: TlsInside | undefined; readonly route: RouteConfig | null },
): InboundStream['wish'] {
  if (chosen.upgrade !== undefined) return chosen.upgrade;
  if (chosen.route === null || chosen.route.upgrade === 'none') return stream.wish;
  return stream.wish === 'http' ? 'http' : chosen.route.upgrade;
}
