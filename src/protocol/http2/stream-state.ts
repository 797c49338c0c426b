/**
 * The states of a stream, RFC 9113 section 5.1. PUSH_PROMISE is neither sent nor allowed here, so the two
 * reserved states of the RFC cannot be reached and are left out.
 *
 * ```
 *                     +--------+
 *                     |  idle  |
 *                     +--------+
 *                         | H (either side's head)
 *                         v
 *         send ES     +--------+     recv ES
 *        .------------|  open  |------------.
 *        v            +--------+            v
 *  +-----------+          |           +-----------+
 *  |   half    |          | R         |   half    |
 *  |  closed   |          |           |  closed   |
 *  |  (local)  |          |           |  (remote) |
 *  +-----------+          v           +-----------+
 *        | recv ES / R  +--------+  send ES / R |
 *        '------------->| closed |<-------------'
 *                       +--------+
 * H: HEADERS   ES: END_STREAM   R: RST_STREAM, sent or received
 * ```
 */
export const StreamState = Object.freeze({
  Idle: 0,
  Open: 1,
  HalfClosedLocal: 2,
  HalfClosedRemote: 3,
  Closed: 4,
} as const);
export type StreamState = (typeof StreamState)[keyof typeof StreamState];

/** What moves a stream from one state to another. */
export const StreamEvent = Object.freeze({
  /** A head, with which a stream begins. */
  SendHead: 0,
  ReceiveHead: 1,
  SendEnd: 2,
  ReceiveEnd: 3,
  /** RST_STREAM of either side. */
  Reset: 4,
} as const);
export type StreamEvent = (typeof StreamEvent)[keyof typeof StreamEvent];

/** No such move: −1. */
const NO = -1;
const { Open, HalfClosedLocal, HalfClosedRemote, Closed } = StreamState;

/**
 * Next state by `state * 5 + event`. Heads in the middle of a stream (1xx, final, trailers) do not move it.
 */
const MOVES = Int8Array.from([
  // SendHead, ReceiveHead, SendEnd, ReceiveEnd, Reset
  ...[Open, Open, NO, NO, NO], // Idle
  ...[Open, Open, HalfClosedLocal, HalfClosedRemote, Closed], // Open
  ...[NO, HalfClosedLocal, NO, Closed, Closed], // HalfClosedLocal
  ...[HalfClosedRemote, NO, Closed, NO, Closed], // HalfClosedRemote
  ...[NO, NO, NO, NO, Closed], // Closed
]);
const EVENT_COUNT = 5;

/** The state behind `event`, or −1 where RFC 9113 section 5.1 has no such move. */
export function nextStreamState(state: StreamState, event: StreamEvent): StreamState | -1 {
  return MOVES[state * EVENT_COUNT + event] as StreamState | -1;
}

/** Whether the peer may still send heads and content. */
export function canReceive(state: StreamState): boolean {
  return state === Open || state === HalfClosedLocal;
}

/** Whether this side may still send heads and content. */
export function canSend(state: StreamState): boolean {
  return state === Open || state === HalfClosedRemote;
}
