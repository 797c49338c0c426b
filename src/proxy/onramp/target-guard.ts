import { networkInterfaces } from 'node:os';

import { formatIp, type IpPrefix, parseIp, parsePrefix, prefixContains, unmapIp } from '#base/ip.ts';
import type { TargetGuard } from '#proxy/proxy-contract.ts';

/** What an on-ramp allows its clients to name as targets. */
export interface TargetRules {
  /** Named for pool keys and refusals. */
  readonly onRamp: string;
  /** Addresses that are allowed although they are special. */
  readonly addresses: readonly IpPrefix[];
  /** Ranges of ports, inclusive. */
  readonly ports: readonly { readonly first: number; readonly last: number }[];
}

/**
 * Addresses that a client must not reach through a proxy unless it is allowed by name: behind them are this
 * host's own services, its link, and the metadata of clouds, all of which trust whoever can reach them.
 */
const SPECIAL: readonly (readonly [IpPrefix, string])[] = [
  ['0.0.0.0/8', 'this host'],
  ['127.0.0.0/8', 'loopback'],
  ['169.254.0.0/16', 'link-local, where clouds keep their metadata'],
  ['100.100.100.200/32', 'cloud metadata'],
  ['192.0.0.192/32', 'cloud metadata'],
  ['168.63.129.16/32', 'cloud metadata'],
  ['224.0.0.0/4', 'multicast'],
  ['255.255.255.255/32', 'broadcast'],
  ['::/128', 'this host'],
  ['::1/128', 'loopback'],
  ['fe80::/10', 'link-local'],
  ['fd00:ec2::254/128', 'cloud metadata'],
  ['ff00::/8', 'multicast'],
].map(([prefix, what]) => [parsePrefix(prefix as string) as IpPrefix, what as string] as const);

/** IPv6 addresses that have an IPv4 address inside, and where: what they lead to is that address. */
const EMBEDDED: readonly (readonly [IpPrefix, number])[] = [
  ['64:ff9b::/96', 12], // RFC 6052
  ['2002::/16', 2], // RFC 3056
  ['::/96', 12], // RFC 4291 section 2.5.5.1
].map(([prefix, at]) => [parsePrefix(prefix as string) as IpPrefix, at as number] as const);

/** How long the list of this host's own addresses is good, milliseconds: they change seldom. */
const OWN_MS = 2000;

/** Decides by port, by what an address is for, and by what is allowed in spite of that. */
export class RuledGuard implements TargetGuard {
  readonly key: string;
  readonly #rules: TargetRules;
  readonly #now: () => number;
  readonly #interfaces: typeof networkInterfaces;
  #own: ReadonlySet<string> = new Set();
  #ownUntil = -1;

  /** @param now monotonic milliseconds. */
  constructor(
    rules: TargetRules,
    now: () => number,
    interfaces: typeof networkInterfaces = networkInterfaces,
  ) {
    this.key = `guard ${rules.onRamp}`;
    this.#rules = rules;
    this.#now = now;
    this.#interfaces = interfaces;
  }

  refuse(address: Uint8Array, port: number): string | null {
    const { ports, addresses } = this.#rules;
    if (!ports.some(({ first, last }) => port >= first && port <= last)) return `port ${port} is not allowed`;
    const real = embedded(unmapIp(address));
    if (addresses.some((prefix) => prefixContains(prefix, real))) return null;
    const special = SPECIAL.find(([prefix]) => prefixContains(prefix, real));
    if (special !== undefined) return `${formatIp(real)} is ${special[1]}`;
    return this.#isOwn(formatIp(real)) ? `${formatIp(real)} is this host itself` : null;
  }

  #isOwn(address: string): boolean {
    const now = this.#now();
    if (now > this.#ownUntil) {
      const own = Object.values(this.#interfaces()).flatMap((list) => list ?? []);
      this.#own = new Set(
        own.map((each) => formatIp(parseIp(each.address.split('%', 1)[0] as string) ?? NONE)),
      );
      this.#ownUntil = now + OWN_MS;
    }
    return this.#own.has(address);
  }
}

const NONE = new Uint8Array(4);

function embedded(address: Uint8Array): Uint8Array {
  for (const [prefix, at] of EMBEDDED) {
    if (!prefixContains(prefix, address)) continue;
    const inner = address.slice(at, at + 4);
    // ::1 and :: are themselves, not addresses with something inside.
    return prefix.bytes[1] === 0 && inner[0] === 0 ? address : inner;
  }
  return address;
}
