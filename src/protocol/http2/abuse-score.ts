/** What each thing costs that a well-meaning peer does rarely, and a hostile one for ever. Whole points. */
export const AbuseCost = Object.freeze({
  /** The peer took back a stream that was being worked on: rapid reset (RFC 9113 section 10.5). */
  StreamReset: 4,
  /**
   * The peer made this side reset a stream, by which it gets the same work for as little ("MadeYouReset").
   */
  StreamFault: 4,
  /** More streams at once than allowed. */
  StreamRefused: 4,
  /** DATA or CONTINUATION that carries nothing. */
  EmptyFrame: 4,
  /** Each needs an answer of this side. */
  Ping: 4,
  Settings: 8,
  /** Nothing has to be done for these but to read them. */
  Priority: 1,
  UnknownFrame: 1,
  /** Beyond those that the content sent here explains. */
  WindowUpdate: 2,
} as const);

/** Points that a connection has at first, and at most: about 250 resets in a row. */
const POINTS_MAX = 1000;
/** Points that come back each second: fifty resets, as a person closing pages may make. */
const POINTS_PER_SECOND = 200;

/**
 * One budget for everything odd that the peer of a connection does, whatever frames it does it with. It is
 * spent by `AbuseCost` and comes back with time; who has none left loses the connection with
 * ENHANCE_YOUR_CALM.
 */
export class AbuseScore {
  #points = POINTS_MAX;
  #at = 0;

  /** Points left. */
  get points(): number {
    return this.#points;
  }

  /** Spends `cost` at `now` (monotonic milliseconds). False when the budget is used up. */
  spend(cost: number, now: number): boolean {
    if (now > this.#at) {
      const back = ((now - this.#at) * POINTS_PER_SECOND) / 1000;
      this.#points = Math.min(POINTS_MAX, this.#points + back);
      this.#at = now;
    }
    this.#points -= cost;
    return this.#points >= 0;
  }
}
