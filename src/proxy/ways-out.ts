import type { IpPrefix } from '#base/ip.ts';
import type { Config } from '#config/config.ts';
import type { OffRampConfig } from '#config/off-ramps.ts';

import type { FlowTuple } from './flow/flow-table.ts';
import type { WayOut, WaysOut } from './flow/packet-upgrade.ts';
import { isInPrefixes } from './flow/sources.ts';
import type { IpTunnel, NetworkId } from './proxy-contract.ts';

/**
 * Makes the tunnel of an off-ramp that has one per network, when its first flow comes; null when it cannot.
 */
export type TunnelFactory = (network: NetworkId) => IpTunnel | null;

const UPGRADE: WayOut = Object.freeze({ kind: 'upgrade' });

/** Off-ramps by name, as the flow pipeline asks for them: once per flow. */
export class OffRampTable implements WaysOut {
  readonly #kinds = new Map<string, OffRampConfig>();
  /** Off-ramps that carry one network: `tun` and `ip-tunnel`. */
  readonly #tunnels = new Map<string, IpTunnel>();
  /** Off-ramps that carry every network, a tunnel for each: `gue`. */
  readonly #factories = new Map<string, TunnelFactory>();
  readonly #ofNetwork = new Map<string, Map<NetworkId, WayOut>>();
  /** Open tunnels by on-ramp and network, for off-ramps that lead back into an on-ramp. */
  readonly #back = new Map<string, Map<NetworkId, Set<IpTunnel>>>();
  readonly #ways = new Map<string, WayOut>();

  constructor(config: Pick<Config, 'offRamps'>) {
    for (const offRamp of config.offRamps) {
      this.#kinds.set(offRamp.name, offRamp);
      if (offRamp.type === 'reject') {
        const how = typeof offRamp.with === 'number' ? 'prohibited' : offRamp.with;
        this.#ways.set(offRamp.name, Object.freeze({ kind: 'reject', with: how }));
      } else if (offRamp.type === 'sockets' || offRamp.type === 'http') {
        this.#ways.set(offRamp.name, UPGRADE);
      }
    }
  }

  /** The tunnel of a `tun` or `ip-tunnel` off-ramp is open. */
  setTunnel(name: string, tunnel: IpTunnel): void {
    this.#tunnels.set(name, tunnel);
    this.#ways.set(name, Object.freeze({ kind: 'tunnel', tunnel }));
  }

  /** A `gue` off-ramp is ready to make tunnels. */
  setFactory(name: string, factory: TunnelFactory): void {
    this.#factories.set(name, factory);
    this.#ofNetwork.set(name, new Map());
  }

  /** A tunnel of an on-ramp opened: off-ramps of type `on-ramp` may lead into it. */
  opened(tunnel: IpTunnel): void {
    const { onRamp } = tunnel.context;
    const byNetwork = this.#back.get(onRamp) ?? new Map<NetworkId, Set<IpTunnel>>();
    this.#back.set(onRamp, byNetwork);
    const tunnels = byNetwork.get(tunnel.network) ?? new Set<IpTunnel>();
    byNetwork.set(tunnel.network, tunnels);
    tunnels.add(tunnel);
  }

  /** A tunnel is gone. */
  closed(tunnel: IpTunnel): void {
    this.#back.get(tunnel.context.onRamp)?.get(tunnel.network)?.delete(tunnel);
    for (const [name, open] of this.#tunnels) {
      if (open !== tunnel) continue;
      this.#tunnels.delete(name);
      this.#ways.delete(name);
    }
    for (const ways of this.#ofNetwork.values()) {
      const way = ways.get(tunnel.network);
      if (way?.kind === 'tunnel' && way.tunnel === tunnel) ways.delete(tunnel.network);
    }
  }

  find(via: string, network: NetworkId, view: DataView, tuple: FlowTuple): WayOut | null {
    const way = this.#ways.get(via);
    if (way !== undefined) return way.kind === 'tunnel' && way.tunnel.network !== network ? null : way;
    const offset = tuple.addressOffset + (tuple.version === 4 ? 4 : 16);
    return this.#ofEveryNetwork(via, network) ?? this.#backInto(via, network, { view, offset, tuple });
  }

  /** The tunnel that carries a network's packets by an off-ramp; for streams that leave as packets. */
  tunnelFor(via: string, network: NetworkId, target: Uint8Array): IpTunnel | null {
    const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
    const way = this.#ways.get(via);
    if (way?.kind === 'tunnel') return way.tunnel.network === network ? way.tunnel : null;
    const tuple = { version: target.length === 4 ? 4 : 6 };
    const found =
      this.#ofEveryNetwork(via, network) ?? this.#backInto(via, network, { view, offset: 0, tuple });
    return found?.kind === 'tunnel' ? found.tunnel : null;
  }

  #ofEveryNetwork(via: string, network: NetworkId): WayOut | null {
    const ways = this.#ofNetwork.get(via);
    if (ways === undefined) return null;
    const known = ways.get(network);
    if (known !== undefined) return known;
    const tunnel = (this.#factories.get(via) as TunnelFactory)(network);
    if (tunnel === null) return null;
    const way: WayOut = Object.freeze({ kind: 'tunnel', tunnel });
    ways.set(network, way);
    return way;
  }

  #backInto(
    via: string,
    network: NetworkId,
    destination: { view: DataView; offset: number; tuple: { version: number } },
  ): WayOut | null {
    const offRamp = this.#kinds.get(via);
    if (offRamp?.type !== 'on-ramp') return null;
    const { view, offset, tuple } = destination;
    let best: IpTunnel | null = null;
    let bestLength = -1;
    for (const tunnel of this.#back.get(offRamp.onRamp)?.get(network) ?? []) {
      const length = longestMatch(tunnel.context.sources, view, { offset, version: tuple.version });
      if (length <= bestLength) continue;
      best = tunnel;
      bestLength = length;
    }
    if (best !== null) return { kind: 'tunnel', tunnel: best };
    return null;
  }
}

/** Length of the longest of the prefixes that holds the address at `offset`; −1 when none does. */
function longestMatch(
  prefixes: readonly IpPrefix[],
  view: DataView,
  address: { readonly offset: number; readonly version: number },
): number {
  let longest = -1;
  for (const prefix of prefixes) {
    if (prefix.length > longest && isInPrefixes([prefix], view, address.offset, address.version)) {
      longest = prefix.length;
    }
  }
  return longest;
}
