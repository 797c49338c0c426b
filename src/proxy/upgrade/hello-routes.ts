import type { RouteConfig } from '#config/routes.ts';
import type { Context } from '#contract/context.ts';
import { matchesAnyName } from '#protocol/tls/names.ts';

/** What a TLS client asks for. */
export interface HelloAsks {
  /** Null: it names nobody. */
  readonly serverName: string | null;
  readonly alpn: readonly string[];
}

/**
 * Routes by what TLS clients ask for. An exact name wins over a pattern, a pattern over none; among equals
 * one that names protocols, then the one that stands first in the file.
 */
export class HelloRoutes {
  readonly #exact = new Map<string, RouteConfig[]>();
  readonly #others: readonly RouteConfig[];

  constructor(routes: readonly RouteConfig[]) {
    const ordered = routes.toSorted((a, b) => rank(a) - rank(b) || a.index - b.index);
    for (const route of ordered) {
      for (const name of route.serverNames ?? []) {
        if (isPattern(name)) continue;
        const list = this.#exact.get(name) ?? [];
        this.#exact.set(name, list);
        list.push(route);
      }
    }
    this.#others = ordered.filter((route) => route.serverNames?.some(isPattern) ?? true);
  }

  /** The route of a stream; null when none fits. */
  find(context: Context, asks: HelloAsks): RouteConfig | null {
    const { serverName } = asks;
    const exact = serverName === null ? undefined : this.#exact.get(serverName);
    return (
      exact?.find((route) => fits(route, context, asks)) ??
      this.#others.find((route) => namesFit(route, serverName) && fits(route, context, asks)) ??
      null
    );
  }
}

/** Routes with names stand before those without, then those with protocols. */
function rank(route: RouteConfig): number {
  return (route.serverNames === undefined ? 2 : 0) + (route.alpn === undefined ? 1 : 0);
}

function isPattern(name: string): boolean {
  return name.startsWith('*') || name.startsWith('.');
}

function namesFit(route: RouteConfig, serverName: string | null): boolean {
  if (route.serverNames === undefined) return true;
  return serverName !== null && matchesAnyName(serverName, route.serverNames);
}

function fits(route: RouteConfig, context: Context, { alpn }: HelloAsks): boolean {
  if (route.onRamp !== null && route.onRamp !== context.onRamp) return false;
  if (route.account !== null && (route.account !== context.account || route.vnet !== context.vnet))
    return false;
  return route.alpn === undefined || route.alpn.some((protocol) => alpn.includes(protocol));
}
