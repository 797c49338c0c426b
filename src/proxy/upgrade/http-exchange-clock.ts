import type { Limits } from '#proxy/proxy-contract.ts';

/** What an exchange waits for: bits, several at once. */
export const Await = Object.freeze({
  /** The rest of the request's head. */
  RequestHead: 1,
  /** The rest of the request's body, which the upstream has room for. */
  RequestBody: 2,
  /** 100 Continue, before the body is asked for. */
  Continue: 4,
  /** The client takes what is being sent to it. */
  ClientTakes: 8,
  /** The upstream takes what is being sent to it. */
  UpstreamTakes: 16,
  /** The response's head; the whole request is sent. */
  ResponseHead: 32,
  /** The rest of the response's body, which the client has room for. */
  ResponseBody: 64,
} as const);

/** What a look at the clock found. */
export const Due = Object.freeze({
  Nothing: 0,
  /** The client sends its request too slowly. */
  ClientSlow: 1,
  /** The client does not take its response. */
  ClientStalled: 2,
  /** The client half-closed, and nothing came for it: it is taken for gone. */
  ClientGone: 3,
  /** The upstream neither takes nor sends. */
  UpstreamSlow: 4,
  /** No 100 came: say it ourselves. */
  Continue: 5,
} as const);
export type Due = (typeof Due)[keyof typeof Due];

/**
 * How long a client that has sent FIN behind its whole request still gets the beginning of its response. It
 * may have half-closed, which is its right, or be gone, which looks the same until something is sent to it.
 */
const HALF_CLOSED_MS = 5000;
/** A body must bring this many bytes in `bodyIdleMs`, or its sender counts as silent. */
const BODY_BYTES_MIN = 256;

/** The times of one exchange, in monotonic milliseconds, and the limits that apply to them. */
export class ExchangeClock {
  /** Last progress on each side. */
  clientAt = 0;
  upstreamAt = 0;
  /** Begin of the step under way: the head, waiting for 100, a window of the request's body. */
  stepAt = 0;
  /** Bytes of the request's body since `stepAt`. */
  bodyBytes = 0;
  /** When FIN came behind the whole request, 0 before. */
  halfClosedAt = 0;

  /** Begins an exchange. */
  begin(now: number): void {
    this.clientAt = now;
    this.upstreamAt = now;
    this.stepAt = now;
    this.bodyBytes = 0;
    this.halfClosedAt = 0;
  }

  /** Looks whether a limit is reached, given the `Await` bits that hold. */
  due(now: number, limits: Limits, awaits: number): Due {
    if ((awaits & Await.RequestHead) !== 0) {
      return now - this.stepAt >= limits.headMs ? Due.ClientSlow : Due.Nothing;
    }
    if ((awaits & Await.ClientTakes) !== 0 && now - this.clientAt >= limits.bodyIdleMs) {
      return Due.ClientStalled;
    }
    if ((awaits & Await.Continue) !== 0) {
      if (now - this.stepAt >= limits.continueMs) return Due.Continue;
    } else if (!this.#bodyComes(now, limits, awaits)) return Due.ClientSlow;
    const silence = now - this.upstreamAt;
    if ((awaits & (Await.UpstreamTakes | Await.ResponseBody)) !== 0 && silence >= limits.bodyIdleMs) {
      return Due.UpstreamSlow;
    }
    if ((awaits & Await.ResponseHead) === 0) return Due.Nothing;
    if (this.halfClosedAt > 0 && now - this.halfClosedAt >= HALF_CLOSED_MS) return Due.ClientGone;
    return silence >= limits.responseMs ? Due.UpstreamSlow : Due.Nothing;
  }

  /**
   * False when the client is too slow. A few bytes now and then are no progress (RFC 9110 section 15.5.9).
   */
  #bodyComes(now: number, limits: Limits, awaits: number): boolean {
    const awaited = (awaits & Await.RequestBody) !== 0;
    if (awaited && now - this.stepAt < limits.bodyIdleMs) return true;
    if (awaited && this.bodyBytes < BODY_BYTES_MIN) return false;
    this.stepAt = now;
    this.bodyBytes = 0;
    return true;
  }
}
