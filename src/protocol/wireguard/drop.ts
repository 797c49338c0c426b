/**
 * Why a datagram or a packet was not carried. Returned as a number and counted, never thrown; 0 means that it
 * was taken. Numbers are permanent: they stand in metrics.
 */
export const WireguardDrop = Object.freeze({
  None: 0,
  /** The length is not that of any message of its type. */
  BadLength: 1,
  /** The type is unknown or its reserved bytes are not zero. */
  UnknownType: 2,
  /** MAC1 is wrong: the sender does not know this interface's public key. */
  BadMac1: 3,
  /** Under load and without a valid MAC2: a cookie was sent. */
  CookieDemanded: 4,
  /** Under load and too many handshakes from one source. */
  RateLimited: 5,
  /** No session or handshake has the receiver index. */
  UnknownIndex: 6,
  /** Decryption failed: forged or damaged. */
  Unauthentic: 7,
  /** A handshake of a static key that no peer has. */
  UnknownPeer: 8,
  /** An initiation with a timestamp that is not newer than the last: replayed. */
  ReplayedInitiation: 9,
  /** Initiations of one peer come faster than any honest peer sends them. */
  InitiationFlood: 10,
  /** The session is older than REJECT_AFTER_TIME. */
  ExpiredSession: 11,
  /** The counter was seen before, or is too far behind. */
  ReplayedCounter: 12,
  /** The counter is at the end of its range. */
  CounterExhausted: 13,
  /** What was inside is not an IP packet of its length. */
  BadInnerPacket: 14,
  /** The inner source address is not one of the peer's allowed IPs. */
  SpoofedSource: 15,
  /** A cookie reply that answers nothing, or is not authentic. */
  BadCookieReply: 16,
  /** No peer has the destination among its allowed IPs. */
  NoPeer: 17,
  /** The peer has never been heard of and has no endpoint. */
  NoEndpoint: 18,
  /** There is no session yet; a handshake is under way. The caller may keep the packet until it is done. */
  AwaitsSession: 19,
} as const);

/** One of the numbers of `WireguardDrop`. */
export type WireguardDrop = (typeof WireguardDrop)[keyof typeof WireguardDrop];

/** Highest number plus one: the length of an array of counters. */
export const WIREGUARD_DROP_COUNT = 20;
