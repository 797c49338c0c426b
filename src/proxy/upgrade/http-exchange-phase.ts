/**
 * Where an exchange is.
 *
 * ```
 *  Head ─► Deciding ─► Connecting ─► Forwarding ─► Free
 *    │        │            │    ▲        │  │
 *    │        │            │    └─retry──┘  └────► Tunneling ─► Free
 *    └────────┴────────────┴──► Answering ─► Free
 * ```
 */
export const Phase = Object.freeze({
  Free: 0,
  Head: 1,
  Deciding: 2,
  Connecting: 3,
  Forwarding: 4,
  Answering: 5,
  Tunneling: 6,
} as const);
export type Phase = (typeof Phase)[keyof typeof Phase];

/** Where the response is, while an exchange is `Forwarding`. */
export const ResponsePhase = Object.freeze({
  /** Its final head has not come. */
  Awaited: 0,
  /** The `response` hook is thinking. */
  Deciding: 1,
  /** A head waits for room towards the client. */
  Blocked: 2,
  /** The head has been written. */
  Body: 3,
} as const);
export type ResponsePhase = (typeof ResponsePhase)[keyof typeof ResponsePhase];
