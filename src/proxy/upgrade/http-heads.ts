/** What an exchange asks of the dialer, and what is written into forwarded heads. */
import { RampartError } from '#base/error.ts';
import type { RequestVerdict } from '#proxy/hooks/hooks.ts';
import type { DialPlan, DialRequest, InboundStream } from '#proxy/proxy-contract.ts';
import { BodyFraming } from '#protocol/http/body.ts';
import type { RequestForward, ResponseForward } from '#protocol/http/forward.ts';
import { Method } from '#protocol/http/http.ts';
import { HeadFlag, type MessageHead } from '#protocol/http/message-head.ts';
import { latin1Bytes } from '#protocol/http/octets.ts';

import type { HttpEngine } from './http.ts';
import type { HttpConnection } from './http-connection.ts';

const NO_BYTES = new Uint8Array(0);

const METHODS: ReadonlyMap<string, Method> = new Map(
  Object.entries(Method).map(([name, method]) => [name.toUpperCase(), method]),
);

/**
 * Fills `forward` for a request as it came: framing by `chunked` or its own length, nothing rewritten, no
 * upgrade. More than three parameters, because an object for them would be made for every request.
 */
export function fillRequest(
  forward: RequestForward,
  request: MessageHead,
  connection: HttpConnection,
  framing: BodyFraming,
  chunked: boolean,
): void {
  const { via, viaLine, options } = connection.engine;
  forward.via = via;
  forward.viaLine = viaLine;
  forward.clientAddress = options.addForwarded === false ? NO_BYTES : connection.clientAddress;
  forward.protocol = connection.protocol;
  forward.forwardedLines = connection.forwardedLines;
  forward.trustForwarded = options.trustForwarded === true;
  forward.upgrade = false;
  forward.expectContinue = (request.flags & HeadFlag.ExpectContinue) !== 0 && framing !== BodyFraming.None;
  forward.chunked = chunked;
  forward.contentLength = chunked ? -1 : request.contentLength;
  forward.method = null;
  forward.target = null;
  forward.authority = null;
  forward.added = null;
  forward.edits = null;
}

/** What the dialer is asked for a request of `stream`; a hook's verdict may name a target or an off-ramp. */
export function dialRequest(
  stream: InboundStream,
  verdict: Extract<RequestVerdict, { action: 'forward' }> | null,
  ownWay: boolean,
): DialRequest {
  const { context, network, flow, source, destination, route, facts, guard, secure, target } = stream;
  return {
    ...(facts === undefined ? {} : { facts }),
    ...(guard === undefined ? {} : { guard }),
    ...(secure === undefined || ownWay ? {} : { secure }),
    context,
    network,
    flow,
    layer: 'http',
    source,
    target: verdict?.to ?? target ?? null,
    destination,
    via: verdict?.via ?? route,
  };
}

/**
 * Enters what a hook rewrites, and returns the method that the upstream will see.
 *
 * @throws RAMP_HOOK_FAILED when the hook makes a CONNECT of it
 */
export function applyRewrites(
  forward: RequestForward,
  request: MessageHead,
  verdict: Extract<RequestVerdict, { action: 'forward' }>,
): Method {
  const { method, path, authority } = verdict;
  if (path !== undefined) forward.target = latin1Bytes(path);
  if (authority !== undefined) forward.authority = latin1Bytes(authority);
  if (method === undefined) return request.method;
  if (method === 'CONNECT') {
    throw new RampartError('RAMP_HOOK_FAILED', 'a request cannot be made a CONNECT; splice its stream');
  }
  forward.method = latin1Bytes(method);
  return METHODS.get(method) ?? Method.Other;
}

/** Host of a request that names none, as HTTP/1.0 may: the upstream has to be told one. */
export function targetAuthority(plan: DialPlan): Uint8Array {
  const { host, port } = plan.target;
  const name = host.includes(':') ? `[${host}]` : host;
  return latin1Bytes(port === 80 ? name : `${name}:${port}`);
}

/** Fills `forward` for an interim response: no framing, no Date, nothing of the connection. */
export function fillInterim(forward: ResponseForward, engine: HttpEngine): void {
  forward.via = engine.via;
  forward.viaLine = engine.viaLine;
  forward.date = NO_BYTES;
  forward.contentLength = -1;
  forward.chunked = false;
  forward.close = false;
  forward.keepAlive = false;
  forward.upgrade = false;
  forward.status = 0;
  forward.edits = null;
}

/** Content-Length to write: of the body, or as a fact about one that is not sent (HEAD, 304); −1 for none. */
export function responseContentLength(response: MessageHead, framing: BodyFraming, isHead: boolean): number {
  const { status, contentLength } = response;
  if (status === 101 || status === 204) return -1;
  if (isHead || status === 304) return contentLength;
  return framing === BodyFraming.Length ? contentLength : 0;
}
