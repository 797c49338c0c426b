import { prefixContains } from '#base/ip.ts';

import type { RouteConfig } from './routes.ts';

/** What a route is looked up by. */
export interface RouteQuery {
  readonly account: string;
  readonly vnet: string;
  readonly onRamp: string;
  /** IANA protocol number: 6 TCP, 17 UDP, 1 and 58 ICMP. */
  readonly protocol: number;
  /** Four or sixteen bytes: the destination, as the client wrote it. */
  readonly address: Uint8Array;
  /** Destination port, 0 where the protocol has none. */
  readonly port: number;
}

/**
 * The routes of a config, ready to be asked: the definition of which route takes a flow. `rampart explain`
 * asks here; the packet path has an index of its own (`proxy/flow/routes.ts`), which gives the same answers.
 *
 * Of the routes that match, the longest prefix wins; then one that names ports over one that names only a
 * protocol over one that names neither; then one that names an on-ramp; then one that names the network. Two
 * routes that are equal in all of this are refused when the config is read.
 */
export class RouteTable {
  /** By `account/vnet`, best first; includes the routes of any account, so that one scan answers. */
  readonly #byNetwork = new Map<string, readonly RouteConfig[]>();
  /** Routes that name only an on-ramp. */
  readonly #anyNetwork: readonly RouteConfig[];

  constructor(routes: readonly RouteConfig[]) {
    const ordered = routes.toSorted(compareRoutes);
    this.#anyNetwork = ordered.filter((route) => route.account === null);
    const lists = new Map<string, RouteConfig[]>();
    for (const route of ordered) {
      if (route.account !== null) lists.set(networkKey(route.account, route.vnet as string), []);
    }
    if (this.#anyNetwork.length === 0) {
      for (const route of ordered)
        lists.get(networkKey(route.account as string, route.vnet as string))?.push(route);
    } else {
      for (const [key, list] of lists) {
        for (const route of ordered) {
          if (route.account === null || networkKey(route.account, route.vnet as string) === key)
            list.push(route);
        }
      }
    }
    this.#byNetwork = lists;
  }

  /** The route that takes this flow, null when none does. */
  find(query: RouteQuery): RouteConfig | null {
    const list = this.#byNetwork.get(networkKey(query.account, query.vnet)) ?? this.#anyNetwork;
    for (const route of list) if (matches(route, query)) return route;
    return null;
  }

  /** All routes that a network has, best first: for `explain`. */
  routesOf(account: string, vnet: string): readonly RouteConfig[] {
    return this.#byNetwork.get(networkKey(account, vnet)) ?? this.#anyNetwork;
  }
}

/** True when the route takes the flow, better routes aside. */
export function matches(route: RouteConfig, query: RouteQuery): boolean {
  if (route.account !== null && (route.account !== query.account || route.vnet !== query.vnet)) return false;
  if (route.onRamp !== null && route.onRamp !== query.onRamp) return false;
  if (route.protocol !== null && !isProtocol(route.protocol, query.protocol)) return false;
  if (route.ports !== null) {
    const { port } = query;
    if (!route.ports.some(({ first, last }) => port >= first && port <= last)) return false;
  }
  return route.to === null || prefixContains(route.to, query.address);
}

/** Names cannot hold "/", so the joined text is unambiguous. */
function networkKey(account: string, vnet: string): string {
  return `${account}/${vnet}`;
}

function isProtocol(wanted: 'tcp' | 'udp' | 'icmp', protocol: number): boolean {
  if (wanted === 'tcp') return protocol === 6;
  return wanted === 'udp' ? protocol === 17 : protocol === 1 || protocol === 58;
}

function compareRoutes(a: RouteConfig, b: RouteConfig): number {
  const byLength = (b.to?.length ?? -1) - (a.to?.length ?? -1);
  return byLength || specificity(b) - specificity(a) || a.index - b.index;
}

function specificity(route: RouteConfig): number {
  const transport = route.ports !== null ? 2 : route.protocol !== null ? 1 : 0;
  return transport * 4 + (route.onRamp !== null ? 2 : 0) + (route.account !== null ? 1 : 0);
}
