import { resolve4, resolve6 } from 'node:dns/promises';

/** One address of a name. */
export interface ResolvedAddress {
  readonly address: string;
  readonly family: 4 | 6;
}

/** Addresses of a name in the order in which they shall be tried. Rejects when there is none. */
export type Lookup = (host: string) => Promise<readonly ResolvedAddress[]>;

/** Where a cache gets names and time from. */
export interface DnsCacheOptions {
  /** The host's own resolver: it knows the hosts file and all else that this host is configured with. */
  readonly lookup: Lookup;
  /** How long the records of a name hold, milliseconds; null where that is unknown. */
  readonly ttlMs: (host: string) => Promise<number | null>;
  /** Monotonic milliseconds. */
  readonly now: () => number;
}

/**
 * A record may ask for less or more: an origin that moves is found in a minute, and no name is asked for
 * with each connection.
 */
const TTL_MS_MIN = 1000;
const TTL_MS_MAX = 60_000;
/** Where the TTL is unknown, as for names of the hosts file. */
const TTL_MS_UNKNOWN = 5000;
/** How long old addresses serve while the resolver fails. */
const STALE_MS = 300_000;
/** Names at once; the one that was asked for first is forgotten. */
const NAMES_MAX = 4096;

interface Entry {
  addresses: readonly ResolvedAddress[];
  until: number;
  asking: Promise<readonly ResolvedAddress[]> | null;
}

/**
 * Keeps the addresses of names for as long as their records say. One question at a time for a name; while the
 * resolver fails, the last addresses serve on.
 */
export class DnsCache {
  readonly #options: DnsCacheOptions;
  readonly #entries = new Map<string, Entry>();

  constructor(options: DnsCacheOptions) {
    this.#options = options;
  }

  /** A `Lookup` that remembers. */
  readonly resolve: Lookup = async (host) => {
    const now = this.#options.now();
    const entry = this.#entries.get(host) ?? this.#add(host);
    if (entry.addresses.length > 0 && now < entry.until) return entry.addresses;
    entry.asking ??= this.#ask(host, entry);
    return await entry.asking;
  };

  #add(host: string): Entry {
    if (this.#entries.size >= NAMES_MAX) {
      const [oldest] = this.#entries.keys();
      this.#entries.delete(oldest as string);
    }
    const entry: Entry = { addresses: [], until: 0, asking: null };
    this.#entries.set(host, entry);
    return entry;
  }

  async #ask(host: string, entry: Entry): Promise<readonly ResolvedAddress[]> {
    const { lookup, ttlMs, now } = this.#options;
    try {
      const addresses = await lookup(host);
      const askedAt = now();
      entry.addresses = addresses;
      entry.until = askedAt + TTL_MS_UNKNOWN;
      // A name server that does not answer must not hold up a connection.
      ttlMs(host).then(
        (ttl) => {
          if (ttl === null || entry.addresses !== addresses) return;
          entry.until = askedAt + Math.min(TTL_MS_MAX, Math.max(TTL_MS_MIN, ttl));
        },
        () => {},
      );
      return addresses;
    } catch (error) {
      if (entry.addresses.length > 0 && now() < entry.until + STALE_MS) return entry.addresses;
      this.#entries.delete(host);
      throw error;
    } finally {
      entry.asking = null;
    }
  }
}

/** The shortest TTL among the records of a name, asked of the name server itself. */
export async function recordTtlMs(host: string): Promise<number | null> {
  // A name without a dot is no name of the DNS: the host itself knows it.
  if (!host.includes('.')) return null;
  const none: { readonly ttl: number }[] = [];
  const [v4, v6] = await Promise.all([
    resolve4(host, { ttl: true }).catch(() => none),
    resolve6(host, { ttl: true }).catch(() => none),
  ]);
  const ttls = [...v4, ...v6].map(({ ttl }) => ttl * 1000);
  return ttls.length === 0 ? null : Math.min(...ttls);
}
