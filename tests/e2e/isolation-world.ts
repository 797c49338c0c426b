/**
 * The world of `isolation.test.ts`: its four networks, and the configs of its three Ramparts. All addresses
 * and ports are the same in each network.
 */
import { join } from 'node:path';

import type { Origin } from '#testing/origins.ts';

/** One network: an account and a vnet. Names of vnets are equal across accounts, too. */
export interface TestNetwork {
  readonly account: string;
  readonly vnet: string;
  /** What its origins are called. */
  readonly name: string;
}

/** Two accounts with two vnets each. */
export const NETWORKS: readonly TestNetwork[] = ['red', 'blue'].flatMap((account) =>
  ['prod', 'test'].map((vnet) => ({ account, vnet, name: `${account}/${vnet}` })),
);

/** The ways out of the Rampart in the middle. */
export const OFF_RAMPS = ['tun', 'seqpacket', 'gue', 'sockets', 'http'] as const;

/** What TCP flows become there. */
export const UPGRADES = ['none', 'stream', 'http'] as const;

/**
 * Off-ramp and upgrade are chosen by the port that a client asks for, so that everything else can be equal.
 */
export interface Service {
  readonly protocol: 'tcp' | 'udp';
  readonly offRamp: (typeof OFF_RAMPS)[number];
  readonly upgrade: (typeof UPGRADES)[number];
  readonly port: number;
}

/** Every way through the middle that exists. */
export const SERVICES: readonly Service[] = OFF_RAMPS.flatMap((offRamp, way) =>
  UPGRADES.flatMap((upgrade, level): Service[] => {
    const isIp = offRamp === 'tun' || offRamp === 'seqpacket' || offRamp === 'gue';
    const port = 1000 + way * 10 + level;
    const services: Service[] = [];
    // Packets cannot leave by a socket, and an HTTP origin takes nothing but requests.
    const fits = isIp || (offRamp === 'sockets' ? upgrade !== 'none' : upgrade === 'http');
    if (fits) services.push({ protocol: 'tcp', offRamp, upgrade, port });
    // Datagrams stay packets, or become a session where they leave by a socket.
    const datagrams = isIp ? upgrade === 'none' : offRamp === 'sockets' && upgrade === 'stream';
    if (datagrams) services.push({ protocol: 'udp', offRamp, upgrade, port });
    return services;
  }),
);

/** The ways into the middle that packets have, each with the address that its client has in every network. */
export const CLIENT_WAYS = Object.freeze({
  tun: '100.64.0.2',
  seqpacket: '100.64.0.3',
  gue: '100.64.0.4',
} as const);

/** The one address of the servers, in every network. */
export const SERVER = '10.10.0.10';
const SERVERS = '10.10.0.0/24';
const CLIENTS = '100.64.0.0/24';
const hooks = join(import.meta.dirname, 'isolation-hooks.ts');

function contextOf(network: TestNetwork, labels = ''): string {
  return `{ account: ${network.account}, vnet: ${network.vnet}${labels} }`;
}

/** The client's side: TUN devices of the clients, and tunnels to the middle. */
export function nearConfig(ways: { readonly seqpacket: string; readonly guePort: number }): string {
  const onRamps = NETWORKS.flatMap((network, i) =>
    (['seqpacket', 'gue'] as const).map(
      (way) => `
  - name: ${way}-${i}
    type: tun
    namespace: ${way}-client${i}
    device: rampart
    addresses: [${CLIENT_WAYS[way]}/32]
    device_routes: [${SERVERS}]
    context: ${contextOf(network)}
    sources: [${CLIENTS}]`,
    ),
  );
  const offRamps = NETWORKS.map(
    (network, i) => `
  - name: to-seqpacket-${i}
    type: ip-tunnel
    connect: unix:${ways.seqpacket}
    context: ${contextOf(network)}`,
  );
  const routes = NETWORKS.flatMap((_, i) => [
    `
  - { on_ramp: seqpacket-${i}, via: to-seqpacket-${i} }`,
    `
  - { on_ramp: gue-${i}, via: to-gue }`,
  ]);
  return `
on_ramps:${onRamps.join('')}
off_ramps:
  - { name: to-gue, type: gue, remote: "127.0.0.1:${ways.guePort}" }${offRamps.join('')}
routes:${routes.join('')}
`;
}

/** The server's side: tunnels from the middle, and TUN devices of the servers. */
export function farConfig(seqpacket: string): string {
  const offRamps = NETWORKS.map(
    (network, i) => `
  - name: server-${i}
    type: tun
    namespace: far${i}
    device: rampart
    addresses: [${SERVER}/24]
    device_routes: [${CLIENTS}]
    context: ${contextOf(network)}`,
  );
  const routes = NETWORKS.map(
    ({ account, vnet }, i) => `
  - { account: ${account}, vnet: ${vnet}, via: server-${i} }`,
  );
  return `
on_ramps:
  - { name: by-seqpacket, type: ip-tunnel, listen: "unix:${seqpacket}" }
  - { name: by-gue, type: gue, listen: "127.0.0.1:0" }
off_ramps:${offRamps.join('')}
routes:${routes.join('')}
hooks: ${hooks}
`;
}

/** What the middle has to know of the others. */
export interface MiddleWays {
  /** Path that it listens on, and the one that the far side does. */
  readonly seqpacket: string;
  readonly farSeqpacket: string;
  readonly farGuePort: number;
  /** Origins that are reached by sockets, one for each network. */
  readonly origins: readonly Origin[];
}

/** Name of the plain listener that leads to a service of a network. */
export function listenerName(network: number, service: Service): string {
  return `${service.protocol}-${network}-${service.port}`;
}

/** Services that a plain listener can lead to: its streams are no packets. */
export const LISTENER_SERVICES: readonly Service[] = SERVICES.filter(
  ({ protocol, upgrade, offRamp }) => upgrade !== 'none' && (protocol === 'tcp' || offRamp === 'sockets'),
);

/** The Rampart under test: every on-ramp, every upgrade, every off-ramp, for every network. */
export function middleConfig(ways: MiddleWays): string {
  const tunnels = NETWORKS.map(
    (network, i) => `
  - name: tun-${i}
    type: tun
    namespace: tun-client${i}
    device: rampart
    addresses: [${CLIENT_WAYS.tun}/32]
    device_routes: [${SERVERS}]
    context: ${contextOf(network)}
    sources: [${CLIENTS}]`,
  );
  const listeners = NETWORKS.flatMap((network, i) =>
    LISTENER_SERVICES.map((service) => {
      const upgrade = service.protocol === 'tcp' ? `\n    upgrade: ${service.upgrade}` : '';
      const labels = `, labels: { port: "${service.port}", way: ${service.offRamp} }`;
      return `
  - name: ${listenerName(i, service)}
    type: ${service.protocol}
    listen: 127.0.0.1:0
    context: ${contextOf(network, labels)}${upgrade}`;
    }),
  );
  const offRamps = NETWORKS.map((network, i) => middleOffRamps(network, i, ways));
  const routes = NETWORKS.flatMap((network, i) => [
    ...SERVICES.map((service) => {
      const upgrade = service.protocol === 'tcp' || service.upgrade !== 'none' ? service.upgrade : 'none';
      return `
  - account: ${network.account}
    vnet: ${network.vnet}
    protocol: ${service.protocol}
    ports: [${service.port}]
    via: ${viaOf(service, i)}
    upgrade: ${upgrade}`;
    }),
    ...LISTENER_SERVICES.map(
      (service) => `
  - { on_ramp: ${listenerName(i, service)}, via: ${viaOf(service, i)} }`,
    ),
  ]);
  return `
on_ramps:
  - { name: by-seqpacket, type: ip-tunnel, listen: "unix:${ways.seqpacket}" }
  - { name: by-gue, type: gue, listen: "127.0.0.1:0" }${tunnels.join('')}${listeners.join('')}
off_ramps:
  - { name: gue, type: gue, remote: "127.0.0.1:${ways.farGuePort}" }${offRamps.join('')}
routes:${routes.join('')}
hooks: ${hooks}
limits: { tcp_closing: 1s, udp_idle: 2s, upstream_idle: 1s }
`;
}

/** One GUE off-ramp serves all networks; of the others each network has its own. */
function viaOf(service: Service, network: number): string {
  if (service.offRamp === 'gue') return 'gue';
  const udp = service.protocol === 'udp' && service.offRamp === 'sockets' ? '-udp' : '';
  return `${service.offRamp}${udp}-${network}`;
}

function middleOffRamps(network: TestNetwork, i: number, ways: MiddleWays): string {
  const { ports } = ways.origins[i] as Origin;
  return `
  - name: tun-${i}
    type: tun
    namespace: server${i}
    device: rampart
    addresses: [${SERVER}/24]
    device_routes: [${CLIENTS}]
    context: ${contextOf(network)}
  - name: seqpacket-${i}
    type: ip-tunnel
    connect: unix:${ways.farSeqpacket}
    context: ${contextOf(network)}
  - { name: sockets-${i}, type: sockets, target: "127.0.0.1:${ports.http}" }
  - { name: sockets-udp-${i}, type: sockets, target: "127.0.0.1:${ports.datagrams}" }
  - { name: http-${i}, type: http, origins: ["127.0.0.1:${ports.http}"] }`;
}
