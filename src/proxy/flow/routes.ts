import type { IpPrefix } from '#base/ip.ts';
import { formatPrefix } from '#base/ip.ts';
import type { RouteConfig } from '#config/routes.ts';
import { IpProtocol } from '#packet/parse.ts';
import type { NetworkId } from '#proxy/proxy-contract.ts';

import type { FlowTuple } from './flow-table.ts';
import type { Networks } from './networks.ts';
import { PrefixTree } from './prefix-tree.ts';

/** A route in force. */
export interface Route {
  /**
   * Small positive number that flow entries keep: the same route keeps it over every change of the others.
   */
  readonly number: number;
  readonly config: RouteConfig;
}

/** Routes of one prefix, best first, and those of the next shorter prefix around it. */
interface RouteNode {
  /** The best route, when it takes every flow: then nothing else has to be looked at. */
  readonly sure: Route | null;
  readonly routes: readonly Route[];
  readonly parent: RouteNode | null;
}

/** What a node is made of. */
interface RouteEntry {
  readonly prefix: IpPrefix;
  readonly routes: readonly Route[];
}

/** The routes of one network, ready to be asked. */
interface NetworkRoutes {
  readonly tree4: PrefixTree<RouteNode, RouteEntry>;
  readonly tree6: PrefixTree<RouteNode, RouteEntry>;
}

/**
 * The routes as the packet path asks them, once per flow: longest prefix first, by binary search over the
 * sorted borders of all prefixes. Gives the same answers as `RouteTable` of `config`, which is the definition
 * (and the twin in the test); that one scans a list, which is too slow for thousands of prefixes.
 *
 * Every change builds all anew and puts it in place at once: a lookup sees the old routes or the new ones.
 */
export class Routes {
  readonly #networks: Networks;
  /** By number of the network; networks without routes of their own have those of any network. */
  #byNetwork: readonly (NetworkRoutes | undefined)[] = [];
  #anyNetwork: NetworkRoutes;
  /** Identity → number, of all routes that ever were: a number is never given to another route. */
  readonly #numbers = new Map<string, number>();
  #live = new Map<number, Route>();

  constructor(networks: Networks) {
    this.#networks = networks;
    this.#anyNetwork = buildNetwork([]);
  }

  /**
   * Puts `configs` in force for all networks.
   *
   * @returns the numbers of the routes that are no more: their flows have to be ended
   * (`FlowPipeline.routesRemoved`).
   */
  replace(configs: readonly RouteConfig[]): readonly number[] {
    const routes = configs.map((config) => this.#number(config));
    const anywhere = routes.filter(({ config }) => config.account === null);
    const own = Map.groupBy(
      routes.filter(({ config }) => config.account !== null),
      ({ config }) => this.#networks.intern(config.account as string, config.vnet as string),
    );
    const byNetwork: (NetworkRoutes | undefined)[] = new Array(this.#networks.count + 1).fill(undefined);
    for (const [network, list] of own) byNetwork[network] = buildNetwork([...list, ...anywhere]);
    const before = this.#live;
    this.#live = new Map(routes.map((route) => [route.number, route]));
    this.#anyNetwork = buildNetwork(anywhere);
    this.#byNetwork = byNetwork;
    return [...before.keys()].filter((number) => !this.#live.has(number));
  }

  /** The route that takes a packet that came by `onRamp`, null when none does. Allocates nothing. */
  find(network: NetworkId, onRamp: string, view: DataView, packet: FlowTuple): Route | null {
    const routes = this.#byNetwork[network] ?? this.#anyNetwork;
    const at = packet.addressOffset;
    let node: RouteNode | null =
      packet.version === 4 ? routes.tree4.find4(view.getInt32(at + 4)) : routes.tree6.find6(view, at + 16);
    while (node !== null) {
      if (node.sure !== null) return node.sure;
      const { routes: candidates } = node;
      for (let i = 0; i < candidates.length; i++) {
        const route = candidates[i] as Route;
        if (matches(route.config, onRamp, packet.protocol, packet.destinationPort)) return route;
      }
      node = node.parent;
    }
    return null;
  }

  /** A live route by its number, null when it is gone. */
  get(number: number): Route | null {
    return this.#live.get(number) ?? null;
  }

  /** Identities by number, for a new process. */
  describe(): readonly (readonly [identity: string, number: number])[] {
    return [...this.#numbers];
  }

  /**
   * Gives routes the numbers that they had in the old process; before the first `replace`. Flows of routes
   * that the new config no longer has are then found by `isLive`.
   */
  adopt(numbers: readonly (readonly [identity: string, number: number])[]): void {
    for (const [identity, number] of numbers) this.#numbers.set(identity, number);
  }

  /** True when a route with this number is in force. */
  isLive(number: number): boolean {
    return this.#live.has(number);
  }

  #number(config: RouteConfig): Route {
    // What a route is over and what it does; its place in the file is not part of it.
    const identity = `${config.rule} → ${config.via} (${config.upgrade})`;
    const number = this.#numbers.get(identity) ?? this.#numbers.size + 1;
    this.#numbers.set(identity, number);
    return { number, config };
  }
}

function buildNetwork(routes: readonly Route[]): NetworkRoutes {
  return { tree4: buildTree(routes, 4), tree6: buildTree(routes, 6) };
}

function buildTree(routes: readonly Route[], family: 4 | 6): PrefixTree<RouteNode, RouteEntry> {
  const any = routes.filter(({ config }) => config.to === null).toSorted(compareInPrefix);
  const root = makeNode(any, null);
  const prefixed = routes.filter(({ config }) => config.to?.family === family);
  const groups = Map.groupBy(prefixed, ({ config }) => formatPrefix(config.to as IpPrefix));
  const entries = [...groups.values()].map((group) => ({
    prefix: group[0]?.config.to as IpPrefix,
    routes: group.toSorted(compareInPrefix),
  }));
  return new PrefixTree(family, root, entries, (entry, parent) => makeNode(entry.routes, parent));
}

function makeNode(routes: readonly Route[], parent: RouteNode | null): RouteNode {
  const best = routes[0];
  const isSure = best !== undefined && specificity(best.config) <= 1;
  return { sure: isSure ? best : null, routes, parent };
}

/** The order of routes of one prefix; `RouteTable` of `config` says the same in its comment. */
function compareInPrefix(a: Route, b: Route): number {
  return specificity(b.config) - specificity(a.config) || a.config.index - b.config.index;
}

function specificity(route: RouteConfig): number {
  const transport = route.ports !== null ? 2 : route.protocol !== null ? 1 : 0;
  return transport * 4 + (route.onRamp !== null ? 2 : 0) + (route.account !== null ? 1 : 0);
}

/** Everything that the place in the tree does not say. */
function matches(route: RouteConfig, onRamp: string, protocol: number, port: number): boolean {
  if (route.onRamp !== null && route.onRamp !== onRamp) return false;
  if (route.protocol !== null && !isProtocol(route.protocol, protocol)) return false;
  const { ports } = route;
  if (ports === null) return true;
  for (let i = 0; i < ports.length; i++) {
    const range = ports[i] as { readonly first: number; readonly last: number };
    if (port >= range.first && port <= range.last) return true;
  }
  return false;
}

function isProtocol(wanted: 'tcp' | 'udp' | 'icmp', protocol: number): boolean {
  if (wanted === 'tcp') return protocol === IpProtocol.Tcp;
  if (wanted === 'udp') return protocol === IpProtocol.Udp;
  return protocol === IpProtocol.Icmp4 || protocol === IpProtocol.Icmp6;
}
