/** Second tries that are always allowed in a burst: a service with little traffic has them too. */
const BURST = 10;

/** First tries that earn one second try: retries add at most a fifth to the load of a service in trouble. */
const TRIES_PER_RETRY = 5;

/** Bounds second tries by a share of first tries, so that trouble is not multiplied. Pure. */
export class RetryBudget {
  #tokens = BURST;

  /** A first try. */
  onTry(): void {
    this.#tokens = Math.min(BURST, this.#tokens + 1 / TRIES_PER_RETRY);
  }

  /** Takes one second try out of the budget; false when there is none. */
  take(): boolean {
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
