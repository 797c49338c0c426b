/** Numbers that this implementation chooses, each with its reason. */

/**
 * The first counter that is refused. The whitepaper has 2^64 − 2^13 − 1; numbers are exact up to 2^53, and a
 * session ends after three minutes, in which nobody sends that many packets.
 */
export const REJECT_AFTER_MESSAGES = 2 ** 53 - 2 ** 13 - 1;
/** Packets after which a session is renewed. The whitepaper has 2^60; as above. */
export const REKEY_AFTER_MESSAGES = 2 ** 52;

/** Keys of a peer that has made no session for so long are erased, ms: three times `REJECT_AFTER_TIME`. */
export const ERASE_KEYS_TIME = 540_000;

/**
 * Least time between two initiations that are taken from one peer, ms. Below the timestamp's resolution and
 * far below any honest peer's five seconds.
 */
export const INITIATION_INTERVAL_MIN = 20;

/** Messages of handshakes that wait for `pollTransmit`; further ones are not sent, as if lost. */
export const TRANSMIT_QUEUE_MAX = 4096;
/** Events that wait for `pollEvent`; further ones are dropped: an application must ask after every call. */
export const EVENT_QUEUE_MAX = 65_536;

/** Handshake messages a second above which cookies are demanded: a quarter of what one core computes. */
export const HANDSHAKES_PER_SECOND = 1_000;
/** For so long after the last sign of it an interface counts as under load, ms. */
export const UNDER_LOAD_TIME = 1_000;
/** Handshake messages a second from one source under load, and how many at once. */
export const SOURCE_RATE = 20;
export const SOURCE_BURST = 5;
/** Sources remembered; the one unused for longest among four makes room. A power of two. */
export const SOURCE_COUNT = 16_384;

/** Tries to find an index that is free before it is a broken source of chance. */
export const INDEX_TRIES_MAX = 64;

/** Bits that remember counters, a power of two; the window is one word less (RFC 6479). 1 KiB a session. */
export const REPLAY_BITS = 8192;
/** How far a counter may be behind the newest. */
export const REPLAY_WINDOW = REPLAY_BITS - 32;
