/**
 * The four messages on the wire (whitepaper section 5.4). All numbers are little-endian.
 *
 * ```
 *  1 Initiation   type 0 0 0 | sender    | ephemeral 32 | static 32+16 | timestamp 12+16 | MAC1 16 | MAC2 16
 *  2 Response     type 0 0 0 | sender    | receiver     | ephemeral 32 | nothing 0+16    | MAC1 16 | MAC2 16
 *  3 Cookie reply type 0 0 0 | receiver  | nonce 24     | cookie 16+16
 *  4 Transport    type 0 0 0 | receiver  | counter 8    | packet …+16
 * ```
 */
import {
  COOKIE_REPLY_LENGTH,
  INITIATION_LENGTH,
  MessageType,
  RESPONSE_LENGTH,
  TRANSPORT_LENGTH_MIN,
} from './specification.ts';
import { WireguardDrop } from './drop.ts';

/** Where fields stand in messages, bytes from the beginning. */
export const SENDER = 4;
export const INITIATION_EPHEMERAL = 8;
export const INITIATION_STATIC = 40;
export const INITIATION_TIMESTAMP = 88;
export const RESPONSE_RECEIVER = 8;
export const RESPONSE_EPHEMERAL = 12;
export const RESPONSE_NOTHING = 44;
export const COOKIE_RECEIVER = 4;
export const COOKIE_NONCE = 8;
export const COOKIE_SEALED = 32;
export const TRANSPORT_RECEIVER = 4;
export const TRANSPORT_COUNTER = 8;

/** MAC1 and MAC2 are the last two fields of the first two messages: bytes from the end. */
export const MAC1_FROM_END = 32;
export const MAC2_FROM_END = 16;
/** Bytes of each MAC and of a cookie. */
export const MAC_LENGTH = 16;

/**
 * Whether the `length` bytes at `at` have the form of a message: a known type, reserved bytes of zero, and a
 * length that the type allows. Total. The type is the first byte.
 */
export function checkMessage(view: DataView, at: number, length: number): WireguardDrop {
  if (length < 4) return WireguardDrop.BadLength;
  const type = view.getUint32(at, true);
  switch (type) {
    case MessageType.Transport:
      return length >= TRANSPORT_LENGTH_MIN ? WireguardDrop.None : WireguardDrop.BadLength;
    case MessageType.Initiation:
      return length === INITIATION_LENGTH ? WireguardDrop.None : WireguardDrop.BadLength;
    case MessageType.Response:
      return length === RESPONSE_LENGTH ? WireguardDrop.None : WireguardDrop.BadLength;
    case MessageType.CookieReply:
      return length === COOKIE_REPLY_LENGTH ? WireguardDrop.None : WireguardDrop.BadLength;
    default:
      return WireguardDrop.UnknownType;
  }
}

/** The receiver index of a transport message, as a signed number; for steering datagrams to workers too. */
export function transportReceiver(view: DataView, at: number): number {
  return view.getInt32(at + TRANSPORT_RECEIVER, true);
}

/**
 * The counter of a transport message, exact below 2^53; greater ones are rounded and therefore refused by
 * their size.
 */
export function transportCounter(view: DataView, at: number): number {
  const high = view.getUint32(at + TRANSPORT_COUNTER + 4, true);
  return high * 0x1_0000_0000 + view.getUint32(at + TRANSPORT_COUNTER, true);
}

/** Writes the header of a transport message at `at`. */
export function writeTransportHeader(view: DataView, at: number, receiver: number, counter: number): void {
  const high = Math.floor(counter / 0x1_0000_0000);
  view.setUint32(at, MessageType.Transport, true);
  view.setInt32(at + TRANSPORT_RECEIVER, receiver, true);
  view.setInt32(at + TRANSPORT_COUNTER, (counter - high * 0x1_0000_0000) | 0, true);
  view.setInt32(at + TRANSPORT_COUNTER + 4, high, true);
}
