/**
 * `offramp` is where flows leave: plain sockets (`socket-off-ramp.ts`), HTTP origins (`origin-off-ramp.ts`),
 * and the `Dialer` (`dialer.ts`) that picks one for a stream after the routes and the `egress` hook. IP
 * tunnels leave through `tunnel`; `proxy.ts` wraps the downgrade through one as a `StreamOffRamp`.
 */
import type { Target } from '#contract/context.ts';
import type { SendProxyHeader } from '#config/off-ramps.ts';
import type { Fd } from '#io/io.ts';

import type { DialPlan, DialRequest, SecureUpgrade } from '#proxy/proxy-contract.ts';

/** An off-ramp that can open a stream. */
export interface StreamOffRamp {
  /** Name in the config. */
  readonly name: string;
  /** Where it goes when the request names no target; null when it needs one. */
  readonly origin: Target | null;
  /**
   * The source address that it leaves with depends on the client, so connections of two clients are never
   * pooled together.
   */
  readonly keepsSource: boolean;
  /**
   * The PROXY header that goes before the first byte; absent or null: none. A connection is then that
   * client's alone.
   */
  readonly proxyHeader?: SendProxyHeader | null;
  /** TLS that its connections get; absent: none. */
  readonly secure?: SecureUpgrade | null;
  /** In place of `origin`, where there are several: the one for this request. Null or absent: `origin`. */
  originFor?(request: DialRequest): Target | null;
  /**
   * Opens a connected, non-blocking stream; the caller owns it.
   * Rejects with `RampartError` RAMP_CONNECT, RAMP_TIMEOUT or RAMP_NO_DESCRIPTORS, side `upstream`.
   */
  connect(plan: DialPlan): Promise<Fd>;
  /** Stops what it does by itself, such as checks. Connections stay. */
  close?(): void;
  /** Asked once for a descriptor that `connect` gave: who wants to hear of its life; null: nobody. */
  follow?(fd: Fd): ConnectionUse | null;
}

/** Hears of the life of one connection. */
export interface ConnectionUse {
  /** A request on it was answered with this status. */
  onAnswer(status: number): void;
  /** TLS or the PROXY header failed on it. `onClose` follows. */
  onFailure(): void;
  /** It is closed. Once. */
  onClose(): void;
}
