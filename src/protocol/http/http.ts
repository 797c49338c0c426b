/**
 * HTTP/1.1 as bytes: RFC 9112 (messages) and the parts of RFC 9110 (semantics) that a proxy must keep. Pure:
 * no sockets, clocks, timers or randomness; memory comes in as `bytes` with offsets, time as an argument.
 *
 * How a message goes through this folder, in order:
 *
 *   head.ts       bytes → facts: `parseRequestHead`, `parseResponseHead` fill a reused `MessageHead`
 *   fields.ts     the table of field offsets that the parser fills; strings are made only when asked for
 *   body.ts       facts → how the body is framed (RFC 9112 section 6.3)
 *   chunked.ts    chunked bytes → spans of data, and trailers kept apart
 *   edits.ts      what a hook wants changed in the fields
 *   forward.ts    facts and edits → the head that goes to the next hop, with framing of its own
 *   response.ts   a response made here: refusals, redirects, answers of hooks
 *   fault.ts      why a message is refused, and the status that says so
 *
 * Strict by default. What a peer may get wrong and still be served is a named leniency in `HeadOptions`; each
 * is off unless the options turn it on. Framing is never forwarded: a message is its start line, fields, body
 * and trailers, and each side writes Content-Length, Transfer-Encoding and Connection afresh (RFC 9112
 * section 11.2).
 */

/**
 * Codes of the methods of RFC 9110 section 9 and RFC 5789; `Other` is any other token and is forwarded as it
 * is.
 */
export const Method = Object.freeze({
  Other: 0,
  Get: 1,
  Head: 2,
  Post: 3,
  Put: 4,
  Delete: 5,
  Connect: 6,
  Options: 7,
  Trace: 8,
  Patch: 9,
} as const);
export type Method = (typeof Method)[keyof typeof Method];

/**
 * True for methods whose repetition has the effect of one (RFC 9110 section 9.2.2). Unknown methods are not.
 */
export function isIdempotent(method: Method): boolean {
  return (
    method === Method.Get ||
    method === Method.Head ||
    method === Method.Put ||
    method === Method.Delete ||
    method === Method.Options ||
    method === Method.Trace
  );
}

/** Form of a request target, RFC 9112 section 3.2. */
export const TargetForm = Object.freeze({ Origin: 0, Absolute: 1, Authority: 2, Asterisk: 3 } as const);
export type TargetForm = (typeof TargetForm)[keyof typeof TargetForm];
