/** RFC 8305: of a name's addresses the one that answers first, without waiting for those that are dead. */

/** How long an address may be silent before the next one is tried beside it (RFC 8305 section 8). */
export const ATTEMPT_DELAY_MS = 250;

/** How one race is run. */
export interface RaceOptions<Address, Connection> {
  /** Rejects when there is no connection; has a limit of time of its own. */
  readonly attempt: (address: Address) => Promise<Connection>;
  /** Closes a connection that came too late. */
  readonly discard: (connection: Connection) => void;
  /** Calls back once after a time; gives what calls it off. */
  readonly after: (ms: number, callback: () => void) => () => void;
}

/**
 * Addresses in the order of section 4: families in turn, beginning with that of the first one. The resolver
 * has put the better family first (RFC 6724): IPv6 where this host has it.
 */
export function interleave<Address extends { readonly family: 4 | 6 }>(
  addresses: readonly Address[],
): Address[] {
  const first = addresses[0]?.family;
  const own = addresses.filter(({ family }) => family === first);
  const other = addresses.filter(({ family }) => family !== first);
  const order: Address[] = [];
  for (let i = 0; i < Math.max(own.length, other.length); i++) {
    order.push(...own.slice(i, i + 1), ...other.slice(i, i + 1));
  }
  return order;
}

/**
 * Tries addresses one after the other, the next one when one fails or is silent for `ATTEMPT_DELAY_MS`; the
 * first connection wins and all others are discarded. Rejects with the last failure.
 *
 * @param addresses at least one.
 */
export function race<Address, Connection>(
  addresses: readonly Address[],
  options: RaceOptions<Address, Connection>,
): Promise<Connection> {
  return new Promise((resolve, reject) => {
    new Race(addresses, options, resolve, reject).next();
  });
}

class Race<Address, Connection> {
  readonly #addresses: readonly Address[];
  readonly #options: RaceOptions<Address, Connection>;
  readonly #resolve: (connection: Connection) => void;
  readonly #reject: (error: unknown) => void;
  #at = 0;
  #running = 0;
  #over = false;
  #callOff: (() => void) | null = null;

  constructor(
    addresses: readonly Address[],
    options: RaceOptions<Address, Connection>,
    resolve: (connection: Connection) => void,
    reject: (error: unknown) => void,
  ) {
    this.#addresses = addresses;
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  next(): void {
    this.#stopWaiting();
    if (this.#over || this.#at >= this.#addresses.length) return;
    this.#running++;
    const address = this.#addresses[this.#at++] as Address;
    this.#options.attempt(address).then(
      (connection) => this.#onConnection(connection),
      (error: unknown) => this.#onFailure(error),
    );
    if (this.#at < this.#addresses.length) {
      this.#callOff = this.#options.after(ATTEMPT_DELAY_MS, () => this.next());
    }
  }

  #onConnection(connection: Connection): void {
    this.#running--;
    if (this.#over) {
      this.#options.discard(connection);
      return;
    }
    this.#over = true;
    this.#stopWaiting();
    this.#resolve(connection);
  }

  #onFailure(error: unknown): void {
    this.#running--;
    if (this.#over) return;
    this.next();
    if (this.#running > 0) return;
    this.#over = true;
    this.#reject(error);
  }

  #stopWaiting(): void {
    this.#callOff?.();
    this.#callOff = null;
  }
}
