/**
 * The place where the kernel turns packets into sockets: a private network namespace whose only outside
 * world is one packet device, `p0`, that this process reads and writes. No firewall, no TPROXY, no
 * conntrack: each flow gets a peer address of its own by the pipeline's NAT, so one ordinary listener tells
 * all flows of all tenants apart.
 *
 * ```
 *                                          ┌ listener ◄── 10.n, fd72:…:1::n  clients (upgrade)
 *   process ── p0 ═ 192.0.2.1, fd72:…::1 ──┤
 *                                          └ sockets ───► 11.n, fd72:…:2::n  targets (downgrade)
 * ```
 * The addresses are those of `StackPlan`.
 */
import type { Fd } from '#io/io.ts';
import {
  type NamespaceConfig,
  type NamespaceOptions,
  openPrivateNamespace,
  type PrivateNamespace,
} from '#io/namespace.ts';
import type { PacketDevice, PacketDeviceOptions } from '#io/packet-device.ts';
import { StackPlan } from '#proxy/flow/nat.ts';

/** The namespace, its device and its listener. */
export interface StackNamespace {
  readonly namespace: PrivateNamespace;
  readonly device: PacketDevice;
  /** Accepts TCP of both families. Owned by whoever holds this object. */
  readonly listener: Fd;
}

/** Where the namespace's listener is. Any port does: nobody but this process can reach it. */
export const STACK_PORT = 80;

const PEER_PREFIXES = [
  StackPlan.clientPrefix4,
  StackPlan.targetPrefix4,
  StackPlan.clientPrefix6,
  StackPlan.targetPrefix6,
];

/**
 * The MTU of `p0`: what the kernel may put into one packet. How it is cut is decided by each flow's way
 * out.
 */
const DEVICE_MTU = 65535;

/**
 * What the stack's own kernel settings have to be.
 * - peers are synthetic and their addresses are reused, so nothing may be remembered about them;
 * - ports of outgoing connections: nearly all, since nobody else listens in there;
 * - buffers grow as far as a long fast path needs; the proxy's limits are elsewhere.
 */
const SETTINGS: NamespaceConfig = {
  sysctls: {
    'net.ipv4.conf.all.rp_filter': 0,
    'net.ipv4.conf.default.rp_filter': 0,
    'net.ipv4.ip_local_port_range': '1024 65535',
    'net.core.somaxconn': 65535,
  },
  sysctlsIfPossible: {
    'net.ipv4.tcp_no_metrics_save': 1,
    'net.ipv4.tcp_max_syn_backlog': 65535,
    'net.ipv4.tcp_slow_start_after_idle': 0,
    'net.ipv4.tcp_rmem': '4096 131072 16777216',
    'net.ipv4.tcp_wmem': '4096 65536 16777216',
    'net.ipv4.tcp_fin_timeout': 30,
    'net.ipv4.tcp_syn_retries': 4,
    'net.ipv4.icmp_echo_ignore_all': 1,
  },
};

/** Makes the namespace. @throws RAMP_NAMESPACE, RAMP_DEVICE or RAMP_LISTEN; nothing is left open then. */
export async function openStackNamespace(
  options: { readonly namespace?: NamespaceOptions; readonly device?: PacketDeviceOptions } = {},
): Promise<StackNamespace> {
  const namespace = await openPrivateNamespace(options.namespace);
  let device: PacketDevice | null = null;
  try {
    await namespace.configure(SETTINGS);
    device = await namespace.openPacketDevice({ name: 'p0', mtu: DEVICE_MTU, ...options.device });
    const { name } = device;
    await namespace.configure({
      sysctls: { [`net.ipv4.conf.${name}.rp_filter`]: 0 },
      addresses: [
        { device: name, address: `${StackPlan.stackText4}/32` },
        { device: name, address: `${StackPlan.stackText6}/128` },
      ],
      routes: PEER_PREFIXES.map((destination) => ({ destination, device: name })),
    });
    const listener = await namespace.openListener({
      address: { family: 6, address: '::', port: STACK_PORT },
      backlog: 65535,
    });
    return { namespace, device, listener };
  } catch (error) {
    if (device !== null) await namespace.closePacketDevice(device);
    await namespace.close();
    throw error;
  }
}
