import * as z from 'zod';

import type { IpPrefix } from '#base/ip.ts';

import {
  type ContextConfig,
  contextConfig,
  contextSchema,
  DEFAULT_NETWORK,
  sourcesSchema,
} from './context.ts';
import {
  deviceName,
  type InterfaceAddress,
  type IpSocketAddress,
  interfaceAddress,
  ipListenAddress,
  listenAddress,
  mtu,
  name,
  namespaceName,
  prefix,
  type UnixSocketAddress,
  unixAddress,
} from './scalars.ts';
import { type PortRange, portsSchema } from './ports.ts';
import { type TlsServerConfig, tlsServerConfig, tlsServerSchema } from './tls.ts';
import { type UserConfig, usersConfig, usersSchema } from './users.ts';

/** A TUN device that Rampart opens: packets of one network. */
export interface TunOnRamp {
  readonly type: 'tun';
  readonly name: string;
  readonly device: string;
  /** Name below /run/netns, or path of the namespace that the device lies in; null: Rampart's own. */
  readonly namespace: string | null;
  readonly mtu: number;
  /** Put on the device. Empty: the device is left as it is. */
  readonly addresses: readonly InterfaceAddress[];
  /** Routes that the kernel of the namespace gets through the device. */
  readonly deviceRoutes: readonly IpPrefix[];
  readonly context: ContextConfig;
}

/**
 * Connected IP tunnels on a SEQPACKET socket: the first message is the context, every other one is a packet.
 */
export interface IpTunnelOnRamp {
  readonly type: 'ip-tunnel';
  readonly name: string;
  readonly listen: UnixSocketAddress;
  readonly mtu: number;
  /** Apply to a tunnel whose context names no sources. */
  readonly sources: readonly IpPrefix[];
}

/** Unconnected IP tunnels: GUE over UDP, the context in every datagram. */
export interface GueOnRamp {
  readonly type: 'gue';
  readonly name: string;
  readonly listen: IpSocketAddress;
  readonly mtu: number;
  /** Apply to a context that names no sources. */
  readonly sources: readonly IpPrefix[];
}

/** PROXY headers at the beginning of a listener's connections. */
export interface ProxyHeaderConfig {
  /** Peers that are believed. Empty only where the listener is a Unix socket. */
  readonly trust: readonly IpPrefix[];
  /** The context that the node in front sends takes the place of the on-ramp's. */
  readonly context: boolean;
}

/** What every listener for streams has. */
export interface StreamListenerConfig {
  readonly name: string;
  readonly listen: IpSocketAddress | UnixSocketAddress;
  readonly context: ContextConfig;
  /** Null: connections begin without one. */
  readonly proxyHeader: ProxyHeaderConfig | null;
  /** Null: no limit but descriptors. */
  readonly connectionsMax: number | null;
  readonly connectionsPerAddressMax: number | null;
  /** Null: connections are not TLS, or nobody looks. */
  readonly tls: TlsServerConfig | null;
}

/** A plain TCP listener. */
export interface TcpOnRamp extends StreamListenerConfig {
  readonly type: 'tcp';
  /** What its streams become; null: what the route says. */
  readonly upgrade: 'stream' | 'sniff' | 'http' | null;
}

/** What a proxy allows its clients to name as targets. */
export interface AllowConfig {
  /**
   * Special addresses that are allowed all the same: this host's own, loopback, link-local, cloud metadata.
   */
  readonly addresses: readonly IpPrefix[];
  /** Sorted, without overlap. */
  readonly ports: readonly PortRange[];
}

/** What on-ramps have whose clients name their targets. */
export interface ProxyOnRampConfig extends StreamListenerConfig {
  /** Null: everybody who reaches it may use it. */
  readonly users: readonly UserConfig[] | null;
  readonly allow: AllowConfig;
}

/** SOCKS 5. */
export interface SocksOnRamp extends ProxyOnRampConfig {
  readonly type: 'socks5';
  /** UDP ASSOCIATE is served. */
  readonly udp: boolean;
  /** What its streams become; null: what the route says. */
  readonly upgrade: 'stream' | 'sniff' | 'http' | null;
}

/** A plain UDP listener. */
export interface UdpOnRamp {
  readonly type: 'udp';
  readonly name: string;
  readonly listen: IpSocketAddress;
  readonly context: ContextConfig;
}

/** One way in. */
export type OnRampConfig = TunOnRamp | IpTunnelOnRamp | GueOnRamp | TcpOnRamp | UdpOnRamp | SocksOnRamp;

/** An on-ramp whose traffic comes by sockets, not as packets. */
export type ListenerOnRamp = TcpOnRamp | UdpOnRamp | SocksOnRamp;

/** The types of on-ramp, in the order of the reference. */
export const ON_RAMP_TYPES = Object.freeze(['tun', 'ip-tunnel', 'gue', 'tcp', 'udp', 'socks5'] as const);

const LISTENERS: ReadonlySet<OnRampConfig['type']> = new Set<ListenerOnRamp['type']>([
  'tcp',
  'udp',
  'socks5',
]);

/** True for on-ramps whose traffic comes by sockets. */
export function isListenerOnRamp<T extends { readonly type: OnRampConfig['type'] }>(
  onRamp: T,
): onRamp is Extract<T, { readonly type: ListenerOnRamp['type'] }> {
  return LISTENERS.has(onRamp.type);
}

/** True for listeners whose clients name their own targets. */
export function namesTargets(type: OnRampConfig['type']): boolean {
  return type === 'socks5';
}

/** Ethernet's, which nearly every path carries. */
const TUN_MTU = 1500;

/** SEQPACKET carries any packet whole. */
const SEQPACKET_MTU = 65535;

/** 1500 less outer IPv6 and UDP (48), the GUE header (4) and a context of up to 48 bytes. */
const GUE_MTU = 1400;

const named = name.describe('Name of the on-ramp, in routes, hooks, records and metrics.');

const tunSchema = z
  .strictObject({
    name: named,
    type: z.literal('tun'),
    device: deviceName.describe('Name of the device; it is made when it does not exist.'),
    namespace: namespaceName
      .optional()
      .describe("Network namespace that the device lies in, by name or path. Default: Rampart's own."),
    mtu: mtu.default(TUN_MTU).describe('Largest IP packet in bytes.'),
    addresses: z.array(interfaceAddress).default([]).describe('Addresses put on the device. Default: none.'),
    device_routes: z
      .array(prefix)
      .default([])
      .describe('Prefixes that the kernel of the namespace routes into the device. Default: none.'),
    context: contextSchema,
    sources: sourcesSchema,
  })
  .describe('A TUN device: packets of one network.');

const defaultSources = z
  .array(prefix)
  .default([])
  .describe('Prefixes that packets may come from, of tunnels whose context names no sources. Default: none.');

const ipTunnelSchema = z
  .strictObject({
    name: named,
    type: z.literal('ip-tunnel'),
    listen: unixAddress.describe('Path of the SEQPACKET socket.'),
    mtu: mtu.default(SEQPACKET_MTU).describe('Largest IP packet in bytes.'),
    sources: defaultSources,
  })
  .describe('Connected IP tunnels (Unix SEQPACKET): message 0 is the context, every other one is a packet.');

const gueSchema = z
  .strictObject({
    name: named,
    type: z.literal('gue'),
    listen: ipListenAddress.describe('Address and port for UDP.'),
    mtu: mtu.default(GUE_MTU).describe('Largest inner IP packet in bytes.'),
    sources: defaultSources,
  })
  .describe('Unconnected IP tunnels (GUE over UDP): every datagram carries its context.');

const defaultContext = contextSchema
  .prefault({ account: DEFAULT_NETWORK })
  .describe(`What is known about the traffic. Default: account ${DEFAULT_NETWORK}, vnet ${DEFAULT_NETWORK}.`);

const proxyHeaderSchema = z
  .strictObject({
    trust: z
      .array(prefix)
      .max(1000)
      .default([])
      .describe(
        'Addresses of the proxies in front that are believed; connections from elsewhere are closed. ' +
          'Needed unless the listener is a Unix socket.',
      ),
    context: z
      .boolean()
      .default(false)
      .describe(
        "The context that a Rampart in front sends takes the place of the on-ramp's own. " +
          'Then these proxies decide about account and user. Default: false.',
      ),
  })
  .describe('Connections begin with a PROXY header of version 1 or 2, which tells the client in front.');

const connectionsMax = z.int().min(1).max(1_000_000).optional();

/** Keys that every listener for streams has. */
const listenerKeys = {
  listen: listenAddress.describe('Address and port, or unix:PATH.'),
  context: defaultContext,
  proxy_protocol: proxyHeaderSchema.optional(),
  connections_max: connectionsMax.describe(
    "Most connections at once; more wait in the kernel's queue. Default: no limit but descriptors.",
  ),
  connections_per_address_max: connectionsMax.describe(
    'Most connections at once from one address; more are closed. Default: no limit.',
  ),
  tls: tlsServerSchema.optional(),
};

const tcpSchema = z
  .strictObject({
    name: named,
    type: z.literal('tcp'),
    ...listenerKeys,
    upgrade: z
      .enum(['none', 'stream', 'sniff', 'http'])
      .optional()
      .describe(
        'What streams become: none or stream moves bytes, http parses requests, sniff looks first. ' +
          'Default: what the route says.',
      ),
  })
  .describe('A plain TCP listener.');

const upgradeKey = z
  .enum(['none', 'stream', 'sniff', 'http'])
  .optional()
  .describe(
    'What streams become: none or stream moves bytes, http parses requests, sniff looks first. ' +
      'Default: what the route says.',
  );

const allowSchema = z
  .strictObject({
    addresses: z
      .array(prefix)
      .max(1000)
      .default([])
      .describe(
        "Special addresses that clients may reach all the same: this host's own, loopback, link-local, " +
          'cloud metadata, multicast. Default: none.',
      ),
    ports: portsSchema
      .optional()
      .describe('Ports that clients may reach: a list of ports and ranges "8000-8100".'),
  })
  .prefault({});

/** Keys of listeners whose clients name their targets. */
const proxyKeys = {
  ...listenerKeys,
  users: usersSchema.optional(),
  allow: allowSchema,
};

const socksSchema = z
  .strictObject({
    name: named,
    type: z.literal('socks5'),
    ...proxyKeys,
    allow: allowSchema.describe('Targets that clients may name. Default: all ports, no special addresses.'),
    udp: z.boolean().default(true).describe('Serves UDP ASSOCIATE.'),
    upgrade: upgradeKey,
  })
  .describe('SOCKS 5: CONNECT and UDP ASSOCIATE. Names are resolved where the traffic leaves.');

const udpSchema = z
  .strictObject({
    name: named,
    type: z.literal('udp'),
    listen: ipListenAddress.describe('Address and port.'),
    context: defaultContext,
  })
  .describe('A plain UDP listener.');

/** One element of `on_ramps`. */
export const onRampSchema = z.discriminatedUnion('type', [
  tunSchema,
  ipTunnelSchema,
  gueSchema,
  tcpSchema,
  udpSchema,
  socksSchema,
]);

/** The typed value of one parsed element. */
export function onRampConfig(input: z.output<typeof onRampSchema>): OnRampConfig {
  switch (input.type) {
    case 'tun':
      return {
        type: 'tun',
        name: input.name,
        device: input.device,
        namespace: input.namespace ?? null,
        mtu: input.mtu,
        addresses: input.addresses,
        deviceRoutes: input.device_routes,
        context: contextConfig(input.context, input.sources),
      };
    case 'tcp':
      return {
        type: 'tcp',
        ...listenerConfig(input),
        upgrade: input.upgrade === 'none' ? 'stream' : (input.upgrade ?? null),
      };
    case 'udp':
      return {
        type: 'udp',
        name: input.name,
        listen: input.listen,
        context: contextConfig(input.context, []),
      };
    case 'socks5':
      return {
        type: 'socks5',
        ...proxyConfig(input, ALL_PORTS),
        udp: input.udp,
        upgrade: input.upgrade === 'none' ? 'stream' : (input.upgrade ?? null),
      };
    case 'ip-tunnel':
      return {
        type: 'ip-tunnel',
        name: input.name,
        listen: input.listen,
        mtu: input.mtu,
        sources: input.sources,
      };
    case 'gue':
      return { type: 'gue', name: input.name, listen: input.listen, mtu: input.mtu, sources: input.sources };
    default:
      return input satisfies never;
  }
}

const ALL_PORTS: readonly PortRange[] = Object.freeze([Object.freeze({ first: 1, last: 65535 })]);

/** The part that all listeners have whose clients name their targets. */
function proxyConfig(
  input: Omit<z.output<typeof socksSchema>, 'type' | 'udp' | 'upgrade'>,
  ports: readonly PortRange[],
): ProxyOnRampConfig {
  return {
    ...listenerConfig(input),
    users: usersConfig(input.users),
    allow: { addresses: input.allow.addresses, ports: input.allow.ports ?? ports },
  };
}

/** The part that all listeners for streams have. */
function listenerConfig(input: Omit<z.output<typeof tcpSchema>, 'type' | 'upgrade'>): StreamListenerConfig {
  const header = input.proxy_protocol;
  return {
    name: input.name,
    listen: input.listen,
    context: contextConfig(input.context, []),
    proxyHeader: header === undefined ? null : { trust: header.trust, context: header.context },
    connectionsMax: input.connections_max ?? null,
    connectionsPerAddressMax: input.connections_per_address_max ?? null,
    tls: input.tls === undefined ? null : tlsServerConfig(input.tls),
  };
}
