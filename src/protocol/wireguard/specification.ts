/**
 * Numbers and names that the whitepaper ("WireGuard: Next Generation Kernel Network Tunnel") fixes. An
 * implementation may not choose them.
 */

/** Types of messages; the first byte, three zero bytes follow (section 5.4). */
export const MessageType = Object.freeze({
  Initiation: 1,
  Response: 2,
  CookieReply: 3,
  Transport: 4,
} as const);

/** Lengths of messages, bytes. */
export const INITIATION_LENGTH = 148;
export const RESPONSE_LENGTH = 92;
export const COOKIE_REPLY_LENGTH = 64;
/** What stands before the sealed packet of a transport message. */
export const TRANSPORT_HEADER_LENGTH = 16;
/** A transport message without a packet: a keepalive. */
export const TRANSPORT_LENGTH_MIN = 32;
/** Packets are padded with zeros to a multiple of this, as far as the MTU allows (section 5.4.6). */
export const PADDING_MULTIPLE = 16;

/** What the first chaining key is the hash of (section 5.4). */
export const CONSTRUCTION = 'Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s';
/** What is mixed into the first hash. */
export const IDENTIFIER = 'WireGuard v1 zx2c4 Jason@zx2c4.com';
/** What the receiver's public key is hashed with for MAC1. */
export const LABEL_MAC1 = 'mac1----';
/** What the sender's public key is hashed with for sealing cookies. */
export const LABEL_COOKIE = 'cookie--';

/** A session's initiator makes a new one after so long, ms (section 6.1). */
export const REKEY_AFTER_TIME = 120_000;
/** A session is not used after so long, ms. */
export const REJECT_AFTER_TIME = 180_000;
/** A handshake that is not answered is given up after so long, ms. */
export const REKEY_ATTEMPT_TIME = 90_000;
/** Time between attempts of a handshake, ms; also the least time between two initiations to one peer. */
export const REKEY_TIMEOUT = 5_000;
/** Who has received and not sent for so long sends a keepalive, ms. */
export const KEEPALIVE_TIMEOUT = 10_000;
/** Added to `REKEY_TIMEOUT` at random so that two peers do not keep in step, ms (section 6.1). */
export const REKEY_JITTER_MAX = 334;
/** The secret of cookies is replaced after so long, and a cookie is not used for longer, ms. */
export const COOKIE_SECRET_TIME = 120_000;
