import type { IpPrefix } from '#base/ip.ts';

/** Who is behind the traffic, as far as the on-ramp knows. */
export interface Identity {
  readonly user?: string;
  readonly device?: string;
  readonly groups: readonly string[];
  /** Facts that the device reported of itself, such as `disk_encrypted: true`. */
  readonly posture?: Readonly<Record<string, string | number | boolean>>;
}

/**
 * What is known about traffic. Made once per tunnel (or per listener, or per datagram's context) and shared
 * by all its flows; frozen but for `extension`.
 *
 * @typeParam Extension the application's own typed part, made by the `tunnel` hook: earlier hooks write,
 * later hooks read.
 */
export interface Context<Extension = unknown> {
  /** The tenant. Compulsory: nothing ever crosses from one account into another. */
  readonly account: string;
  /** The virtual network inside the account. */
  readonly vnet: string;
  /** Null where the on-ramp authenticates nobody. */
  readonly identity: Identity | null;
  /** Name of the on-ramp in the config. */
  readonly onRamp: string;
  /** Free labels of the tunnel, for hooks and logs. */
  readonly labels: Readonly<Record<string, string>>;
  /**
   * The only source addresses that the tunnel may send from; empty means none is allowed but by an
   * any-prefix.
   */
  readonly sources: readonly IpPrefix[];
  extension: Extension;
}

/** One end of a flow, on the cold path. */
export interface Endpoint {
  /**
   * IP literal, RFC 5952 form. As the destination of a stream or session that asked for a name (SOCKS,
   * CONNECT): that name in lower case.
   */
  readonly address: string;
  /** 0 where the protocol has no ports. */
  readonly port: number;
}

/** Where a stream, session or request wants to go: an address, or a name that the off-ramp resolves. */
export interface Target {
  readonly host: string;
  readonly port: number;
}

/** Transport protocol of a flow; a number for those without a name here (IANA protocol numbers). */
export type FlowProtocol = 'tcp' | 'udp' | 'icmp' | number;
