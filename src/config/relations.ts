/** What the parts of a config must be to each other: names, references, listeners, networks. */
import type * as z from 'zod';

import { didYouMean } from '#base/nearest.ts';
import { formatSocketAddress, type SocketAddress } from '#base/ip.ts';

import { DEFAULT_NETWORK } from './context.ts';
import type { ConfigDocument, Path } from './document.ts';
import type { Network, offRampSchema } from './off-ramps.ts';
import { isListenerOnRamp, namesTargets, type onRampSchema } from './on-ramps.ts';
import { describeRoute, routeConfig, type routeSchema, sameMatch } from './routes.ts';

type OnRampInput = z.output<typeof onRampSchema>;
type OffRampInput = z.output<typeof offRampSchema>;
type RouteInput = z.output<typeof routeSchema>;

/** The parsed elements at their place in the file; undefined stands for one that has mistakes of its own. */
export interface Parts {
  readonly onRamps: readonly (OnRampInput | undefined)[];
  readonly offRamps: readonly (OffRampInput | undefined)[];
  readonly routes: readonly (RouteInput | undefined)[];
  /** A hooks file is named: then more can be reached than the routes show. */
  readonly hasHooks: boolean;
}

/** Reports everything that does not fit together. */
export function checkRelations(document: ConfigDocument, parts: Parts): void {
  const onRampNames = checkNames(document, 'on_ramps', 'on-ramp');
  const offRampNames = checkNames(document, 'off_ramps', 'off-ramp');
  checkListeners(document, parts);
  checkProxyHeaders(document, parts);
  checkDevices(document, parts);
  checkReferences(document, parts, { onRampNames, offRampNames });
  checkUpgrades(document, parts);
  checkDuplicateRoutes(document, parts);
  checkOffRampNetworks(document, parts);
  checkNetworkIsKnown(document, parts);
  checkReachability(document, parts, onRampNames);
}

/**
 * The one network whose routes name the off-ramp; null when there is none or more than one. A route over an
 * on-ramp of fixed context has that network.
 */
export function networkOfOffRamp(offRamp: string, parts: Parts): Network | null {
  const networks = networksOfOffRamp(offRamp, parts);
  return networks.length === 1 ? (networks[0] as Network) : null;
}

function networksOfOffRamp(offRamp: string, parts: Parts): Network[] {
  const found = new Map<string, Network>();
  for (const route of parts.routes) {
    if (route?.via !== offRamp) continue;
    const network = networkOfRoute(route, parts);
    if (network !== null) found.set(`${network.account}/${network.vnet}`, network);
  }
  return [...found.values()];
}

function networkOfRoute(route: RouteInput, parts: Parts): Network | null {
  if (route.account !== undefined) return { account: route.account, vnet: route.vnet ?? DEFAULT_NETWORK };
  const onRamp = parts.onRamps.find((candidate) => candidate?.name === route.on_ramp);
  return onRamp !== undefined && 'context' in onRamp ? onRamp.context : null;
}

/**
 * Names as they stand in the file, of broken elements too: a reference to a broken element is no second
 * mistake.
 */
function checkNames(document: ConfigDocument, key: 'on_ramps' | 'off_ramps', word: string): string[] {
  const list = (document.value as Readonly<Record<string, unknown>>)[key];
  const places = new Map<string, Path>();
  for (const [index, element] of (Array.isArray(list) ? list : []).entries()) {
    const name = (element as { name?: unknown } | null)?.name;
    if (typeof name !== 'string') continue;
    const path = [key, index, 'name'];
    const first = places.get(name);
    if (first === undefined) places.set(name, path);
    else {
      const line = document.lineOf(first);
      document.mistake(path, `another ${word} is named "${name}" (line ${line}); expected a name of its own`);
    }
  }
  return [...places.keys()];
}

function checkListeners(document: ConfigDocument, parts: Parts): void {
  const seen: { readonly kind: 'tcp' | 'udp'; readonly address: SocketAddress; readonly path: Path }[] = [];
  for (const [index, onRamp] of parts.onRamps.entries()) {
    if (onRamp === undefined || !('listen' in onRamp)) continue;
    const kind = onRamp.type === 'udp' || onRamp.type === 'gue' ? 'udp' : 'tcp';
    const path = ['on_ramps', index, 'listen'];
    const clash = seen.find((other) => other.kind === kind && overlaps(other.address, onRamp.listen));
    if (clash === undefined) seen.push({ kind, address: onRamp.listen, path });
    else {
      const other = formatSocketAddress(clash.address);
      const text =
        `overlaps the listener ${other} (line ${document.lineOf(clash.path)}); ` +
        'expected another address or port';
      document.mistake(path, text);
    }
  }
}

/** A header from anybody would let anybody be anybody. */
function checkProxyHeaders(document: ConfigDocument, parts: Parts): void {
  for (const [index, onRamp] of parts.onRamps.entries()) {
    if (onRamp === undefined || !('proxy_protocol' in onRamp) || onRamp.proxy_protocol === undefined)
      continue;
    if (onRamp.listen.family === 'unix' || onRamp.proxy_protocol.trust.length > 0) continue;
    const text = 'believes nobody; expected trust: the addresses of the proxies in front';
    document.mistake(['on_ramps', index, 'proxy_protocol'], text);
  }
}

function overlaps(a: SocketAddress, b: SocketAddress): boolean {
  if (a.family === 'unix' || b.family === 'unix') {
    return a.family === 'unix' && b.family === 'unix' && a.path === b.path;
  }
  if (a.port !== b.port || a.port === 0) return false;
  if (a.address === b.address || a.address === '::' || b.address === '::') return true;
  return a.family === b.family && (a.address === '0.0.0.0' || b.address === '0.0.0.0');
}

function checkDevices(document: ConfigDocument, parts: Parts): void {
  const seen = new Map<string, Path>();
  const lists = [
    ['on_ramps', parts.onRamps],
    ['off_ramps', parts.offRamps],
  ] as const;
  for (const [key, list] of lists) {
    for (const [index, ramp] of list.entries()) {
      if (ramp?.type !== 'tun') continue;
      const path = [key, index, 'device'];
      const place = `${ramp.namespace ?? ''} ${ramp.device}`;
      const first = seen.get(place);
      if (first === undefined) seen.set(place, path);
      else {
        const line = document.lineOf(first);
        document.mistake(
          path,
          `the device "${ramp.device}" is used already (line ${line}); expected one of its own`,
        );
      }
    }
  }
}

function checkReferences(
  document: ConfigDocument,
  parts: Parts,
  names: { readonly onRampNames: readonly string[]; readonly offRampNames: readonly string[] },
): void {
  const missing = (path: Path, name: string, word: string, known: readonly string[]): void => {
    const hint =
      didYouMean(name, known) || `; expected one of ${known.join(', ') || `none: there is no ${word}`}`;
    document.mistake(path, `there is no ${word} "${name}"${hint}`);
  };
  for (const [index, route] of parts.routes.entries()) {
    if (route === undefined) continue;
    if (!names.offRampNames.includes(route.via)) {
      missing(['routes', index, 'via'], route.via, 'off-ramp', names.offRampNames);
    }
    if (route.on_ramp !== undefined && !names.onRampNames.includes(route.on_ramp)) {
      missing(['routes', index, 'on_ramp'], route.on_ramp, 'on-ramp', names.onRampNames);
    }
    if (route.account !== undefined) continue;
    if (route.on_ramp === undefined) {
      document.mistake(['routes', index], 'names no network; expected an account (and vnet), or an on_ramp');
    } else if (route.vnet !== undefined) {
      document.mistake(['routes', index, 'vnet'], 'a vnet lies in an account; expected an account beside it');
    }
  }
  for (const [index, offRamp] of parts.offRamps.entries()) {
    if (offRamp?.type !== 'on-ramp') continue;
    const path = ['off_ramps', index, 'on_ramp'];
    if (!names.onRampNames.includes(offRamp.on_ramp)) {
      missing(path, offRamp.on_ramp, 'on-ramp', names.onRampNames);
      continue;
    }
    const onRamp = parts.onRamps.find((candidate) => candidate?.name === offRamp.on_ramp);
    if (onRamp !== undefined && isListenerOnRamp(onRamp)) {
      const text =
        `the on-ramp "${onRamp.name}" is a ${onRamp.type} listener; expected one of ` +
        'type tun, ip-tunnel or gue';
      document.mistake(path, text);
    }
  }
}

/** An upgrade must be able to leave by the off-ramp that the route names. */
function checkUpgrades(document: ConfigDocument, parts: Parts): void {
  for (const [index, route] of parts.routes.entries()) {
    if (route === undefined) continue;
    const offRamp = parts.offRamps.find((candidate) => candidate?.name === route.via);
    const onRamp = parts.onRamps.find((candidate) => candidate?.name === route.on_ramp);
    const path = ['routes', index, 'upgrade'];
    checkHelloRoute(document, index, { route, onRamp });
    if (route.ports !== undefined && route.protocol === 'icmp') {
      document.mistake(['routes', index, 'ports'], 'ICMP has no ports; expected protocol tcp or udp');
    }
    if (offRamp === undefined) continue;
    const needsStream = offRamp.type === 'sockets' || offRamp.type === 'http';
    const isListener = onRamp !== undefined && isListenerOnRamp(onRamp);
    if (needsStream && route.upgrade === 'none' && !isListener) {
      const text = `packets cannot leave by ${offRamp.type}; expected stream, sniff or http`;
      document.mistake(path, text);
    }
    if (route.protocol === 'udp' && (route.upgrade === 'http' || route.upgrade === 'sniff')) {
      document.mistake(path, `a UDP flow cannot become ${route.upgrade}; expected none or stream`);
    }
    const isPlain = isListener && !namesTargets(onRamp.type);
    if (offRamp.type === 'sockets' && offRamp.target === undefined && isPlain && !parts.hasHooks) {
      const text =
        `the on-ramp "${route.on_ramp}" is a plain listener, its streams name no ` +
        `destination; give the off-ramp "${offRamp.name}" a target`;
      document.mistake(['routes', index, 'via'], text);
    }
  }
}

/** A route by name needs somebody who looks at names. */
function checkHelloRoute(
  document: ConfigDocument,
  index: number,
  { route, onRamp }: { route: RouteInput; onRamp: OnRampInput | undefined },
): void {
  const key = route.server_name !== undefined ? 'server_name' : route.alpn !== undefined ? 'alpn' : null;
  if (key === null) return;
  for (const unused of ['to', 'ports'] as const) {
    if (route[unused] === undefined) continue;
    const text = `does not go together with ${key}; expected the name, the protocol offered, or both`;
    document.mistake(['routes', index, unused], text);
  }
  if (onRamp !== undefined && 'tls' in onRamp && onRamp.tls !== undefined) return;
  // A broken on-ramp is a mistake of its own.
  if (route.on_ramp !== undefined && onRamp === undefined) return;
  const text = 'is known of TLS clients only; expected an on_ramp with tls';
  document.mistake(['routes', index, key], text);
}

function checkDuplicateRoutes(document: ConfigDocument, parts: Parts): void {
  const seen: { readonly index: number; readonly match: ReturnType<typeof routeConfig> }[] = [];
  const byRule = new Map<string, typeof seen>();
  for (const [index, route] of parts.routes.entries()) {
    if (route === undefined) continue;
    const match = routeConfig(route, index, undefined);
    // Only routes of one network, on-ramp, prefix and protocol can be the same: compare within those.
    const bucket = describeRoute({ ...match, ports: null });
    const others = byRule.get(bucket) ?? [];
    byRule.set(bucket, others);
    const twin = others.find((other) => sameMatch(other.match, match));
    others.push({ index, match });
    if (twin === undefined) continue;
    const line = document.lineOf(['routes', twin.index]);
    document.mistake(
      route.to === undefined ? ['routes', index] : ['routes', index, 'to'],
      `${match.rule} is routed already (line ${line}); expected another prefix, protocol, port or vnet`,
    );
  }
}

/**
 * A TUN or SEQPACKET off-ramp cannot tell networks apart: equal addresses of two networks would mix on it.
 */
function checkOffRampNetworks(document: ConfigDocument, parts: Parts): void {
  for (const [index, offRamp] of parts.offRamps.entries()) {
    if (offRamp?.type !== 'tun' && offRamp?.type !== 'ip-tunnel') continue;
    const path = ['off_ramps', index];
    const networks = networksOfOffRamp(offRamp.name, parts);
    const words = networks.map(({ account, vnet }) => `${account}/${vnet}`);
    const own = offRamp.context;
    const foreign = own && words.find((word) => word !== `${own.account}/${own.vnet}`);
    if (foreign !== undefined) {
      const text =
        `carries ${own?.account}/${own?.vnet}, yet a route of ${foreign} names it; ` +
        'expected an off-ramp for each network';
      document.mistake(path, text);
    } else if (words.length > 1) {
      const text =
        `routes of ${words.join(' and ')} name it; an IP tunnel carries one network: ` +
        'expected an off-ramp for each';
      document.mistake(path, text);
    } else if (words.length === 0 && own === undefined) {
      const text =
        'no route gives it a network; expected a context with account and vnet, or a route of one network';
      document.mistake(path, text);
    }
  }
}

/** A route that names only an on-ramp of many networks cannot lead into an off-ramp of one. */
function checkNetworkIsKnown(document: ConfigDocument, parts: Parts): void {
  for (const [index, route] of parts.routes.entries()) {
    if (route === undefined || route.account !== undefined) continue;
    const onRamp = parts.onRamps.find((candidate) => candidate?.name === route.on_ramp);
    const offRamp = parts.offRamps.find((candidate) => candidate?.name === route.via);
    if (onRamp === undefined || 'context' in onRamp) continue;
    if (offRamp?.type !== 'tun' && offRamp?.type !== 'ip-tunnel') continue;
    const text =
      `the on-ramp "${onRamp.name}" brings traffic of many networks and the off-ramp ` +
      `"${offRamp.name}" carries one; ` +
      'expected an account and vnet beside on_ramp';
    document.mistake(['routes', index, 'via'], text);
  }
}

/** Doubtful, and not wrong: hooks and tunnels that come later may make use of it. */
function checkReachability(document: ConfigDocument, parts: Parts, onRampNames: readonly string[]): void {
  const dynamic = parts.onRamps.some((onRamp) => onRamp === undefined || !('context' in onRamp));
  const networks = new Set<string>();
  for (const onRamp of parts.onRamps) {
    if (onRamp !== undefined && 'context' in onRamp) {
      networks.add(`${onRamp.context.account}/${onRamp.context.vnet}`);
    }
  }
  const used = new Set<string>();
  for (const [index, route] of parts.routes.entries()) {
    if (route === undefined) continue;
    used.add(route.via);
    if (route.account === undefined || dynamic) continue;
    const network = `${route.account}/${route.vnet ?? DEFAULT_NETWORK}`;
    if (networks.has(network)) continue;
    const hint = didYouMean(network, networks) || `; on-ramps have ${[...networks].join(', ')}`;
    const path = ['routes', index, route.vnet === undefined ? 'account' : 'vnet'];
    document.warning(path, `no on-ramp brings traffic of ${network}${hint}`);
  }
  if (parts.hasHooks || onRampNames.length === 0) return;
  if (parts.routes.some((route) => route === undefined)) return;
  for (const [index, offRamp] of parts.offRamps.entries()) {
    if (offRamp === undefined || used.has(offRamp.name)) continue;
    document.warning(['off_ramps', index, 'name'], `no route leads to the off-ramp "${offRamp.name}"`);
  }
  if (parts.routes.length === 0) {
    document.warning([], 'there are neither routes nor hooks, so everything that comes in is refused');
  }
}
