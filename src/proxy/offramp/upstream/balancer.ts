import { assert } from '#base/assert.ts';
import type { Target } from '#contract/context.ts';

/** How the origin of a connection is chosen. */
export type BalancePolicy = 'round-robin' | 'least-loaded' | 'source-hash';

/** What a balancer holds to. Times in milliseconds. */
export interface BalancerOptions {
  readonly policy: BalancePolicy;
  /** Failures in a row (connects, or answers of 500 and above) after which an origin is ejected. */
  readonly failuresMax: number;
  /** How long the first ejection lasts; each further one twice as long as the one before. */
  readonly ejectMs: number;
  /** How long an origin that came back takes to its full share; 0: at once. */
  readonly slowStartMs: number;
  /** Open connections of one origin at most. */
  readonly connectionsMax: number;
  /** From 0 to below 1. */
  readonly random: () => number;
}

/** Longest ejection, as a multiple of the first: what is broken for long is tried every now and then. */
const EJECT_FACTOR_MAX = 32;

/** Without failures for this multiple of its last ejection, an origin counts as never ejected. */
const FORGIVE_FACTOR = 4;

/** Share of an origin that has just come back: some traffic has to show that it works. */
const SLOW_START_SHARE = 0.1;

/** One origin and what is known of it. */
export class Origin {
  readonly target: Target;
  /** Position in the config. */
  readonly index: number;
  /** Connections that are open or being opened. */
  connections = 0;
  /** False while active checks say that it does not work. */
  up = true;
  /** Failures since the last success. */
  failures = 0;
  /** Ejected until then, monotonic milliseconds. */
  ejectedUntil = Number.NEGATIVE_INFINITY;
  /** Ejections that have not been forgiven. */
  ejections = 0;
  /** When it last came back. */
  joinedAt = Number.NEGATIVE_INFINITY;
  /** Answers of it are reported: an open connection alone is no success then. */
  answers = false;

  constructor(target: Target, index: number) {
    this.target = target;
    this.index = index;
  }
}

/**
 * Chooses among origins. Pure: time and chance come in.
 *
 * ```
 *           failuresMax in a row                  ejectedUntil is over
 *  in use ───────────────────────► ejected ─────────────────────────────► in use, slowly more
 *     └────── checks fail ──► down ──────────── checks succeed ─────────────┘
 * ```
 * When no origin is in use, those that are ejected or down are used all the same: a wrong check must not turn
 * a service off. The limit of connections always holds.
 */
export class Balancer {
  readonly origins: readonly Origin[];
  readonly #options: BalancerOptions;
  #next = 0;

  constructor(targets: readonly Target[], options: BalancerOptions) {
    assert(targets.length > 0 && options.failuresMax > 0 && options.connectionsMax > 0);
    this.origins = targets.map((target, index) => new Origin(target, index));
    this.#options = options;
  }

  /**
   * The origin for a new connection, or null when each has been tried or has all its connections.
   *
   * @param hash of what connections are held together by; 32 bits, of meaning for `source-hash` alone.
   * @param tried origins that have failed for this connection already.
   */
  choose(now: number, hash: number, tried: ReadonlySet<Origin>): Origin | null {
    const free = this.origins.filter((origin) => this.isFree(origin) && !tried.has(origin));
    const usable = free.filter((origin) => this.isInUse(origin, now));
    const candidates = usable.length > 0 ? usable : free;
    if (candidates.length === 0) return null;
    switch (this.#options.policy) {
      case 'round-robin':
        return this.#inTurn(candidates, now);
      case 'least-loaded':
        return this.#lessLoaded(candidates, now);
      case 'source-hash':
        return highest(candidates, hash);
      default:
        return this.#options.policy satisfies never;
    }
  }

  /** Whether neither a check nor failures speak against it. */
  isInUse(origin: Origin, now: number): boolean {
    return origin.up && now >= origin.ejectedUntil;
  }

  /** Whether it may have one more connection. */
  isFree(origin: Origin): boolean {
    return origin.connections < this.#options.connectionsMax;
  }

  /** A connection was opened, or a request answered below 500. */
  onSuccess(origin: Origin, now: number): void {
    origin.failures = 0;
    if (origin.ejections === 0) return;
    const last = this.#ejectionMs(origin.ejections);
    if (now - origin.ejectedUntil >= FORGIVE_FACTOR * last) origin.ejections = 0;
  }

  /** A connection could not be opened or broke, or a request was answered with 500 or above. */
  onFailure(origin: Origin, now: number): void {
    if (now < origin.ejectedUntil) return;
    if (++origin.failures < this.#options.failuresMax) return;
    origin.failures = 0;
    origin.ejections++;
    origin.ejectedUntil = now + this.#ejectionMs(origin.ejections);
    origin.joinedAt = origin.ejectedUntil;
  }

  /** An active check changed its mind. */
  onCheck(origin: Origin, up: boolean, now: number): void {
    if (origin.up === up) return;
    origin.up = up;
    if (!up) return;
    origin.failures = 0;
    origin.ejectedUntil = now;
    origin.joinedAt = now;
  }

  /** Share of an origin, above 0 and up to 1. */
  share(origin: Origin, now: number): number {
    const { slowStartMs } = this.#options;
    const since = now - origin.joinedAt;
    // Before it is back, it is asked only because there is no other.
    if (slowStartMs === 0 || since < 0 || since >= slowStartMs) return 1;
    return Math.max(SLOW_START_SHARE, since / slowStartMs);
  }

  #ejectionMs(ejections: number): number {
    return this.#options.ejectMs * Math.min(2 ** (ejections - 1), EJECT_FACTOR_MAX);
  }

  /** The next one; one that starts slowly is passed over by chance, but not when it is the only one. */
  #inTurn(candidates: readonly Origin[], now: number): Origin {
    const count = this.origins.length;
    let first: Origin | null = null;
    for (let step = 0; step < count; step++) {
      const origin = this.origins[(this.#next + step) % count] as Origin;
      if (!candidates.includes(origin)) continue;
      first ??= origin;
      const share = this.share(origin, now);
      if (share < 1 && this.#options.random() >= share) continue;
      this.#next = origin.index + 1;
      return origin;
    }
    assert(first !== null);
    this.#next = first.index + 1;
    return first;
  }

  /** The less loaded of two that are drawn: as even as asking all, without a herd running to one. */
  #lessLoaded(candidates: readonly Origin[], now: number): Origin {
    const { random } = this.#options;
    const { length } = candidates;
    const first = Math.floor(random() * length);
    if (length === 1) return candidates[first] as Origin;
    const second = (first + 1 + Math.floor(random() * (length - 1))) % length;
    const [a, b] = [candidates[first] as Origin, candidates[second] as Origin];
    const load = (origin: Origin): number => (origin.connections + 1) / this.share(origin, now);
    return load(b) < load(a) ? b : a;
  }
}

/**
 * Rendezvous hashing: each origin has a score for each hash, the highest wins. When an origin goes, only its
 * own connections move.
 */
function highest(candidates: readonly Origin[], hash: number): Origin {
  let best = candidates[0] as Origin;
  let bestScore = -1;
  for (const origin of candidates) {
    const score = mix(hash ^ mix(textHash(`${origin.target.host} ${origin.target.port}`)));
    if (score <= bestScore) continue;
    best = origin;
    bestScore = score;
  }
  return best;
}

/** A 32-bit hash of a text (FNV-1a), for `choose`. */
export function textHash(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** Spreads every bit of a number over all of it (the finalizer of MurmurHash3). */
function mix(value: number): number {
  let bits = value;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
