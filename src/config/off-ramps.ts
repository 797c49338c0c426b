import * as z from 'zod';

import type { IpPrefix } from '#base/ip.ts';
import type { Target } from '#contract/context.ts';

import { type ContextConfig, contextConfig, contextSchema, sourcesSchema } from './context.ts';
import {
  deviceName,
  type InterfaceAddress,
  type IpSocketAddress,
  interfaceAddress,
  ipAddress,
  ipListenAddress,
  ipRemoteAddress,
  mtu,
  name,
  namespaceName,
  prefix,
  target,
  type UnixSocketAddress,
  unixAddress,
} from './scalars.ts';
import { type UpstreamConfig, upstreamConfig, upstreamKeys } from './upstream.ts';
import { type TlsClientConfig, tlsClientConfig, tlsClientSchema } from './tls.ts';

/** A TUN device by which packets of one network leave, and by which their answers come back. */
export interface TunOffRamp {
  readonly type: 'tun';
  readonly name: string;
  readonly device: string;
  readonly namespace: string | null;
  readonly mtu: number;
  readonly addresses: readonly InterfaceAddress[];
  readonly deviceRoutes: readonly IpPrefix[];
  /**
   * The one network whose packets it carries: as written, else the network of the routes that name it. Its
   * `sources` are what may come in by it of its own accord; answers to flows always may.
   */
  readonly context: ContextConfig;
}

/** A SEQPACKET socket that Rampart connects to; it sends `context` as message 0. */
export interface IpTunnelOffRamp {
  readonly type: 'ip-tunnel';
  readonly name: string;
  readonly connect: UnixSocketAddress;
  readonly mtu: number;
  readonly context: ContextConfig;
}

/**
 * GUE to a remote node; every datagram carries the context of its flow, so it serves any number of networks.
 */
export interface GueOffRamp {
  readonly type: 'gue';
  readonly name: string;
  readonly remote: IpSocketAddress;
  /** Local address and port; null: the kernel's choice. */
  readonly local: IpSocketAddress | null;
  readonly mtu: number;
}

/**
 * Back into the tunnels of an on-ramp: of the flow's own network, the tunnel whose sources hold the
 * destination.
 */
export interface OnRampOffRamp {
  readonly type: 'on-ramp';
  readonly name: string;
  readonly onRamp: string;
}

/** Plain TCP and UDP sockets of this host. */
export interface SocketsOffRamp {
  readonly type: 'sockets';
  readonly name: string;
  /** Local address to leave from; null: the kernel's choice. */
  readonly source: string | null;
  /** Where everything goes; null: to the flow's own destination. */
  readonly target: Target | null;
  readonly proxyHeader: SendProxyHeader | null;
  readonly tls: TlsClientConfig | null;
}

/** The PROXY header that an off-ramp sends before a connection's first byte. */
export interface SendProxyHeader {
  readonly version: 1 | 2;
  /** Version 2 carries the context too, for a Rampart behind. */
  readonly context: boolean;
}

/** HTTP origins, used in turn. */
export interface HttpOffRamp {
  readonly type: 'http';
  readonly name: string;
  /** At least one. */
  readonly origins: readonly Target[];
  readonly upstream: UpstreamConfig;
  readonly proxyHeader: SendProxyHeader | null;
  readonly tls: TlsClientConfig | null;
}

/** Refuses: a TCP reset, an ICMP error, or at layer 7 an HTTP status. */
export interface RejectOffRamp {
  readonly type: 'reject';
  readonly name: string;
  readonly with: 'reset' | 'prohibited' | 'unreachable' | number;
}

/** One way out. */
export type OffRampConfig =
  | TunOffRamp
  | IpTunnelOffRamp
  | GueOffRamp
  | OnRampOffRamp
  | SocketsOffRamp
  | HttpOffRamp
  | RejectOffRamp;

/** The types of off-ramp, in the order of the reference. */
export const OFF_RAMP_TYPES = Object.freeze([
  'tun',
  'ip-tunnel',
  'gue',
  'on-ramp',
  'sockets',
  'http',
  'reject',
] as const);

/** The off-ramps that carry IP packets. */
export function isIpOffRamp(type: OffRampConfig['type']): boolean {
  return type === 'tun' || type === 'ip-tunnel' || type === 'gue' || type === 'on-ramp';
}

const named = name.describe('Name of the off-ramp, in routes, hooks, records and metrics.');

const oneNetwork = contextSchema
  .optional()
  .describe('The network whose packets it carries. Default: the network of the routes that name it.');

const comingIn = sourcesSchema
  .default([])
  .describe(
    'Prefixes that may open flows from its far side. Answers to flows always come in. Default: none.',
  );

const tunSchema = z
  .strictObject({
    name: named,
    type: z.literal('tun'),
    device: deviceName.describe('Name of the device; it is made when it does not exist.'),
    namespace: namespaceName
      .optional()
      .describe("Network namespace that the device lies in, by name or path. Default: Rampart's own."),
    mtu: mtu.default(1500).describe('Largest IP packet in bytes.'),
    addresses: z.array(interfaceAddress).default([]).describe('Addresses put on the device. Default: none.'),
    device_routes: z
      .array(prefix)
      .default([])
      .describe(
        'Prefixes that the kernel of the namespace routes into the device: the way back. Default: none.',
      ),
    context: oneNetwork,
    sources: comingIn,
  })
  .describe('A TUN device by which packets of one network leave.');

const ipTunnelSchema = z
  .strictObject({
    name: named,
    type: z.literal('ip-tunnel'),
    connect: unixAddress.describe('Path of the SEQPACKET socket to connect to.'),
    mtu: mtu.default(65535).describe('Largest IP packet in bytes.'),
    context: oneNetwork,
    sources: comingIn,
  })
  .describe('A connected IP tunnel (Unix SEQPACKET) that Rampart opens; message 0 is its context.');

const gueSchema = z
  .strictObject({
    name: named,
    type: z.literal('gue'),
    remote: ipRemoteAddress.describe('Address and UDP port of the far node.'),
    local: ipListenAddress.optional().describe("Local address and port. Default: the kernel's choice."),
    mtu: mtu.default(1400).describe('Largest inner IP packet in bytes.'),
  })
  .describe('GUE over UDP to a far node; every datagram carries the context of its flow.');

const onRampSchema = z
  .strictObject({
    name: named,
    type: z.literal('on-ramp'),
    on_ramp: z.string().describe('Name of an on-ramp of type tun, ip-tunnel or gue.'),
  })
  .describe(
    "Back into the tunnels of an on-ramp: the tunnel of the flow's own network whose sources hold the " +
      'destination.',
  );

const sendProxyHeader = z
  .enum(['v1', 'v2', 'v2-context'])
  .optional()
  .describe(
    'PROXY header sent before the first byte of each connection: version 1, version 2, or version 2 with ' +
      'the context, for a Rampart behind. Default: none. UDP sessions have none.',
  );

const socketsSchema = z
  .strictObject({
    name: named,
    type: z.literal('sockets'),
    source: ipAddress.optional().describe("Local address to leave from. Default: the kernel's choice."),
    target: target
      .optional()
      .describe("Host and port where everything goes. Default: the flow's own destination."),
    proxy_protocol: sendProxyHeader,
    tls: tlsClientSchema.optional(),
  })
  .describe('Plain TCP and UDP sockets of this host.');

const httpSchema = z
  .strictObject({
    name: named,
    type: z.literal('http'),
    origins: z.array(target).min(1).max(1000).describe('Hosts and ports of the origin, used in turn.'),
    ...upstreamKeys,
    proxy_protocol: sendProxyHeader,
    tls: tlsClientSchema.optional(),
  })
  .describe('An HTTP origin.');

const rejectSchema = z
  .strictObject({
    name: named,
    type: z.literal('reject'),
    with: z
      .union([z.enum(['reset', 'prohibited', 'unreachable']), z.int().min(400).max(599)])
      .default('prohibited')
      .describe('reset (TCP RST), prohibited or unreachable (ICMP), or an HTTP status 400 to 599.'),
  })
  .describe('Refuses.');

/** One element of `off_ramps`. */
export const offRampSchema = z.discriminatedUnion('type', [
  tunSchema,
  ipTunnelSchema,
  gueSchema,
  onRampSchema,
  socketsSchema,
  httpSchema,
  rejectSchema,
]);

/** The network of an off-ramp that carries one: account and vnet. */
export interface Network {
  readonly account: string;
  readonly vnet: string;
}

/**
 * The typed value of one parsed element. `network` is what the routes give it, where its own context is
 * absent.
 */
export function offRampConfig(input: z.output<typeof offRampSchema>, network: Network | null): OffRampConfig {
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
        context: tunnelContext(input, network),
      };
    case 'ip-tunnel':
      return {
        type: 'ip-tunnel',
        name: input.name,
        connect: input.connect,
        mtu: input.mtu,
        context: tunnelContext(input, network),
      };
    case 'gue':
      return {
        type: 'gue',
        name: input.name,
        remote: input.remote,
        local: input.local ?? null,
        mtu: input.mtu,
      };
    case 'on-ramp':
      return { type: 'on-ramp', name: input.name, onRamp: input.on_ramp };
    case 'sockets':
      return {
        type: 'sockets',
        name: input.name,
        source: input.source ?? null,
        target: input.target ?? null,
        proxyHeader: sentHeader(input.proxy_protocol),
        tls: tlsClientConfig(input.tls),
      };
    case 'http':
      return {
        type: 'http',
        name: input.name,
        origins: input.origins,
        upstream: upstreamConfig(input),
        proxyHeader: sentHeader(input.proxy_protocol),
        tls: tlsClientConfig(input.tls),
      };
    case 'reject':
      return { type: 'reject', name: input.name, with: input.with };
    default:
      return input satisfies never;
  }
}

function sentHeader(value: 'v1' | 'v2' | 'v2-context' | undefined): SendProxyHeader | null {
  if (value === undefined) return null;
  return { version: value === 'v1' ? 1 : 2, context: value === 'v2-context' };
}

function tunnelContext(
  input: Extract<z.output<typeof offRampSchema>, { type: 'tun' | 'ip-tunnel' }>,
  network: Network | null,
): ContextConfig {
  const context = input.context ?? { ...(network ?? { account: '', vnet: '' }), groups: [], labels: {} };
  return contextConfig(context, input.sources);
}
