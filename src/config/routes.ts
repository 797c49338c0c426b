import * as z from 'zod';

import { formatPrefix, type IpPrefix } from '#base/ip.ts';

import { DEFAULT_NETWORK } from './context.ts';
import type { OffRampConfig } from './off-ramps.ts';
import { type PortRange, portsSchema } from './ports.ts';
import { name, prefix } from './scalars.ts';
import { serverName } from './tls.ts';

/** What a flow becomes: nothing (stays packets), a stream, a stream that is looked at, or HTTP requests. */
export type RouteUpgrade = 'none' | 'stream' | 'sniff' | 'http';

/** One route: which flows it takes, and where they leave. */
export interface RouteConfig {
  /** Place in the file, from 0: the identity of the route. */
  readonly index: number;
  /** The route in words, for records and traces: `acme/production 10.10.0.0/24 tcp:80`. */
  readonly rule: string;
  /** Null: any account (only where `onRamp` is named). */
  readonly account: string | null;
  /** Null exactly where `account` is. */
  readonly vnet: string | null;
  /** Null: any on-ramp. */
  readonly onRamp: string | null;
  /** Null: any address of either family. */
  readonly to: IpPrefix | null;
  /** Null: any protocol. */
  readonly protocol: 'tcp' | 'udp' | 'icmp' | null;
  /** Null: any port. Sorted, without overlap. */
  readonly ports: readonly PortRange[] | null;
  /**
   * Names that a TLS client asks for; absent: whatever is asked. Such a route takes only streams of an
   * on-ramp that looks at their hellos, and wins over those without names.
   */
  readonly serverNames?: readonly string[];
  /** Protocols of which a TLS client must offer one; absent: whatever is offered. */
  readonly alpn?: readonly string[];
  /** Name of the off-ramp. */
  readonly via: string;
  /** As written, else what the off-ramp needs: sockets `stream`, http `http`, all others `none`. */
  readonly upgrade: RouteUpgrade;
}

/** One element of `routes`. */
export const routeSchema = z
  .strictObject({
    account: name.optional().describe('Account of the flows. Needed where no on_ramp is named.'),
    vnet: name
      .optional()
      .describe(`Virtual network of the flows. Default: ${DEFAULT_NETWORK}, in the account.`),
    on_ramp: name.optional().describe('Only flows that came in by this on-ramp.'),
    to: prefix.optional().describe('Only flows to this prefix. Default: any address.'),
    protocol: z.enum(['tcp', 'udp', 'icmp']).optional().describe('Only flows of this protocol.'),
    ports: portsSchema
      .optional()
      .describe('Only flows to these ports: a list of ports and ranges "8000-8100".'),
    server_name: z
      .union([serverName, z.array(serverName).min(1).max(10_000)])
      .optional()
      .describe(
        'Only TLS streams whose client asks for one of these names: "app.example", "*.example" ' +
          '(one label), ".example" (any number). Needs an on_ramp with tls.',
      ),
    alpn: z
      .array(z.string().min(1).max(255))
      .min(1)
      .max(32)
      .optional()
      .describe('Only TLS streams whose client offers one of these protocols. Needs an on_ramp with tls.'),
    via: name.describe('Name of the off-ramp.'),
    upgrade: z
      .enum(['none', 'stream', 'sniff', 'http'])
      .optional()
      .describe(
        'What the flows become: none (stay packets), stream (TCP stream or UDP session), http (requests), ' +
          'sniff (http where the first bytes are). Default: what the off-ramp needs.',
      ),
  })
  .describe('A route: which flows leave by which off-ramp. The longest prefix wins.');

type RouteInput = z.output<typeof routeSchema>;

/**
 * The typed value of one parsed element; `offRamp` is what `via` names, undefined when that is broken or
 * absent.
 */
export function routeConfig(
  input: RouteInput,
  index: number,
  offRamp: OffRampConfig['type'] | undefined,
): RouteConfig {
  const account = input.account ?? null;
  const route = {
    account,
    vnet: account === null ? null : (input.vnet ?? DEFAULT_NETWORK),
    onRamp: input.on_ramp ?? null,
    to: input.to ?? null,
    protocol: input.protocol ?? null,
    ports: input.ports ?? null,
    ...(input.server_name === undefined ? {} : { serverNames: [input.server_name].flat() }),
    ...(input.alpn === undefined ? {} : { alpn: input.alpn }),
  };
  const upgrade = input.upgrade ?? defaultUpgrade(offRamp);
  return { index, rule: describeRoute(route), ...route, via: input.via, upgrade };
}

/** What a route is over: everything but where it goes. */
export type RouteMatch = Pick<
  RouteConfig,
  'account' | 'vnet' | 'onRamp' | 'to' | 'protocol' | 'ports' | 'serverNames' | 'alpn'
>;

/** True for a route that is chosen by a TLS hello, not by addresses. */
export function isHelloRoute(route: RouteMatch): boolean {
  return route.serverNames !== undefined || route.alpn !== undefined;
}

/** A route's match in words. */
export function describeRoute(route: RouteMatch): string {
  const words: string[] = [];
  if (route.account !== null) words.push(`${route.account}/${route.vnet}`);
  if (route.onRamp !== null) words.push(`on-ramp ${route.onRamp}`);
  words.push(route.to === null ? 'any' : formatPrefix(route.to));
  const ports = route.ports
    ?.map(({ first, last }) => (first === last ? first : `${first}-${last}`))
    .join(',');
  if (route.protocol !== null)
    words.push(ports === undefined ? route.protocol : `${route.protocol}:${ports}`);
  else if (ports !== undefined) words.push(`ports ${ports}`);
  if (route.serverNames !== undefined) words.push(`name ${route.serverNames.join(',')}`);
  if (route.alpn !== undefined) words.push(`alpn ${route.alpn.join(',')}`);
  return words.join(' ');
}

/**
 * True when some flow matches both and neither is more specific: the second could never be told from the
 * first.
 */
export function sameMatch(a: RouteMatch, b: RouteMatch): boolean {
  if (a.account !== b.account || a.vnet !== b.vnet || a.onRamp !== b.onRamp) return false;
  if (a.protocol !== b.protocol || prefixText(a.to) !== prefixText(b.to)) return false;
  if (a.ports === null || b.ports === null) return a.ports === b.ports;
  const others = b.ports;
  return a.ports.some((one) => others.some((two) => one.first <= two.last && two.first <= one.last));
}

function prefixText(to: IpPrefix | null): string {
  return to === null ? 'any' : formatPrefix(to);
}

function defaultUpgrade(offRamp: OffRampConfig['type'] | undefined): RouteUpgrade {
  if (offRamp === 'http') return 'http';
  return offRamp === 'sockets' ? 'stream' : 'none';
}
