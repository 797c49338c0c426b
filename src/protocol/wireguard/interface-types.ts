import type { IpPrefix } from '#base/ip.ts';

import type { RandomFill } from './cookie.ts';
import type { Peer } from './peer.ts';
import type { IndexMark } from './session-table.ts';

/** What a `WireguardInterface` is made of. */
export interface InterfaceOptions {
  /** Datagrams and packets lie in it; it must never be moved, resized or detached. */
  readonly memory: DataView;
  /** 32 secret bytes; copied. */
  readonly privateKey: Uint8Array;
  /** Chance that nobody can foresee. */
  readonly random: RandomFill;
  /**
   * Unix time in ms at the monotonic clock's zero: the two added are the wall clock. Timestamps of handshakes
   * must grow from one start of the node to the next.
   */
  readonly unixAtZero: number;
  /** Longest packet inside; padding does not go beyond it. Bytes, default 1420. */
  readonly mtu?: number;
  /**
   * Indices get `value` as their low `bits` bits, so that whoever spreads datagrams over workers can see
   * whose they are. Default none.
   */
  readonly indexMark?: IndexMark;
}

/** What is known of a peer beforehand. */
export interface PeerOptions {
  /** 32 bytes; copied. */
  readonly publicKey: Uint8Array;
  /** 32 secret bytes; copied. Default none. */
  readonly presharedKey?: Uint8Array | undefined;
  /** Inner addresses that are the peer's; each is taken from whoever has it. */
  readonly allowedIps: readonly IpPrefix[];
  /** Where it is, as socket calls take it (16 or 28 bytes). Absent: the peer has to come first. */
  readonly endpoint?: Uint8Array | undefined;
  /** Milliseconds; 0, the default, for none. */
  readonly persistentKeepalive?: number | undefined;
  /**
   * The greatest timestamp of an initiation of this peer that is known from before (`Peer.lastTimestamp`), so
   * that recorded ones stay worthless after a restart. 12 bytes; copied. Default none.
   */
  readonly lastTimestamp?: Uint8Array | undefined;
  /** Whose tunnel it is; handed back as `Peer.tag`. */
  readonly tag?: unknown;
}

/** A datagram to be sent. */
export interface Transmit {
  /** Socket address of 16 or 28 bytes. */
  readonly endpoint: Uint8Array;
  readonly bytes: Uint8Array;
  /** Whom it is for; null for cookies, which answer nobody in particular. */
  readonly peer: Peer | null;
}

/** What happened to a peer. */
export interface WireguardEvent {
  /**
   * `session`: packets that waited can be sent. `failed`: no answer for `REKEY_ATTEMPT_TIME`; what waits
   * should be dropped. `moved`: its endpoint is another one.
   */
  readonly kind: 'session' | 'failed' | 'moved';
  readonly peer: Peer;
}

/** A packet that came out of a datagram, or a datagram made of a packet; overwritten by the next call. */
export interface CarriedBytes {
  at: number;
  /** 0 when there is none. */
  length: number;
  peer: Peer | null;
}
