/**
 * Private network namespaces: a kernel TCP/IP stack of our own, with one packet device as its whole outside
 * world.
 *
 * Three ways lead into one, and all have the same interface:
 *
 * - `thread` (root, or CAP_SYS_ADMIN): this thread makes or enters the namespace, does what is to be done
 *   there and goes back, all within one synchronous call. No other thread notices.
 * - `helper` (no privilege, where the kernel allows user namespaces): a small child process lives in a user
 *   and network namespace of its own, does the work there and hands descriptors over (SCM_RIGHTS). It ends
 *   when its parent closes the namespace or dies.
 * - attached: an existing namespace, by path or descriptor, in either of these ways.
 *
 * A socket belongs to the namespace in which it was opened, for ever: it can be bound, connected and used
 * from outside. A namespace lives as long as a process, a socket, a device or a descriptor refers to it.
 */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';

import { RampartError } from '#base/error.ts';
import type { SocketAddress } from '#base/ip.ts';

import type { Fd } from './io.ts';
import { attachByHelper, openByHelper } from './namespace-broker.ts';
import { attachThread, openThread, threadModeError } from './namespace-thread.ts';
import type { RouteOptions } from './netlink.ts';
import type { PacketDevice, PacketDeviceKind, PacketDeviceOptions } from './packet-device.ts';

/** How the process reaches into the namespace. */
export type NamespaceMode = 'thread' | 'helper';

/**
 * What sockets a namespace gives out: non-blocking, close-on-exec, unbound. A `6` is dual-stack unless
 * v6-only is set.
 */
export type NamespaceSocketKind = 'tcp4' | 'tcp6' | 'udp4' | 'udp6';

/** A route by device name instead of link index. */
export interface NamespaceRoute extends Omit<RouteOptions, 'link'> {
  /** Absent for blackhole and unreachable routes. */
  readonly device?: string;
}

/** Settings of a namespace: sysctls come first, then addresses, routes and rules, each in order. */
export interface NamespaceConfig {
  readonly addresses?: readonly { readonly device: string; readonly address: string }[];
  readonly routes?: readonly NamespaceRoute[];
  /** Packets that come in by a device are routed by a table of their own. */
  readonly rules?: readonly { readonly family: 4 | 6; readonly device: string; readonly table: number }[];
  /**
   * `net.ipv4.tcp_no_metrics_save: 1`; with slashes where a part has a dot. A refused write is an error,
   * unless the value is already so (containers often have /proc/sys read-only).
   */
  readonly sysctls?: Readonly<Record<string, string | number>>;
  /** As `sysctls`, but what the kernel does not know or refuses is left as it is. */
  readonly sysctlsIfPossible?: Readonly<Record<string, string | number>>;
}

/** A listener inside the namespace. */
export interface NamespaceListenOptions {
  /** Where to listen; a Unix address makes no sense here. Port 0 lets the kernel choose. */
  readonly address: Exclude<SocketAddress, { family: 'unix' }>;
  /** Default 4096. */
  readonly backlog?: number;
  /** Accept connections to any address (IP_TRANSPARENT). Default false. */
  readonly transparent?: boolean;
  /** Share the port with other listeners (SO_REUSEPORT). Default false. */
  readonly reusePort?: boolean;
  /** Only connections that come in by this device (SO_BINDTODEVICE). */
  readonly device?: string;
}

/** A network namespace that this process may use. Every method throws RAMP_NAMESPACE after `close`. */
export interface PrivateNamespace {
  readonly mode: NamespaceMode;
  /** Path under /proc that names the namespace for `ip` and `nsenter`, while this object is open. */
  readonly path: string;
  /** Opens a device inside and brings it up. The caller owns its descriptors. @throws RAMP_DEVICE */
  openPacketDevice(options?: PacketDeviceOptions): Promise<PacketDevice>;
  /** Deletes the device's link and closes its descriptors, which no operation may be using any more. */
  closePacketDevice(device: PacketDevice): Promise<void>;
  /** @throws RAMP_DEVICE, RAMP_NAMESPACE (sysctls) */
  configure(config: NamespaceConfig): Promise<void>;
  /** New sockets, owned by the caller. @throws RAMP_NO_DESCRIPTORS */
  openSockets(kind: NamespaceSocketKind, count: number): Promise<Fd[]>;
  /**
   * A new socket at once, owned by the caller; −1 when there is none in stock, which is then being refilled:
   * wait for `openSockets`. With `mode` `thread`, −1 means that the process is out of descriptors.
   */
  openSocketNow(kind: NamespaceSocketKind): Fd;
  /** A bound, listening TCP socket, owned by the caller. @throws RAMP_LISTEN */
  openListener(options: NamespaceListenOptions): Promise<Fd>;
  /**
   * Runs `work` with this thread inside; what it opens belongs to the namespace. `work` is synchronous.
   * Only with `mode` `thread`. @throws RAMP_NAMESPACE
   */
  run<T>(work: () => T): T;
  /** Runs a program inside, as `child_process.spawn`. The caller owns the child. */
  spawn(command: string, args: readonly string[], options?: SpawnOptions): ChildProcess;
  /**
   * Ends the helper and closes the stock. Sockets and devices that were given out stay valid and keep the
   * namespace.
   */
  close(): Promise<void>;
}

/** How a namespace is opened. */
export interface NamespaceOptions {
  /** Default `auto`: `thread` where the process may, else `helper`. */
  readonly mode?: 'auto' | NamespaceMode;
  /** Sockets kept ready for `openSocketNow`, by kind. Default 32 of `tcp4` and of `tcp6`. */
  readonly stock?: Readonly<Partial<Record<NamespaceSocketKind, number>>>;
}

/** Makes a new, empty namespace with its loopback up. @throws RAMP_NAMESPACE saying what is missing */
export async function openPrivateNamespace(options: NamespaceOptions = {}): Promise<PrivateNamespace> {
  const mode = options.mode ?? 'auto';
  if (mode === 'thread') return openThread(options);
  if (mode === 'auto' && threadModeError() === null) return openThread(options);
  return openByHelper(options);
}

/**
 * Enters an existing namespace: a path (`/var/run/netns/NAME`, `/proc/PID/ns/net`) or a descriptor, which
 * stays the caller's. Nothing in it is changed. @throws RAMP_NAMESPACE
 */
export async function attachNamespace(
  target: string | Fd,
  options: NamespaceOptions = {},
): Promise<PrivateNamespace> {
  const mode = options.mode ?? 'auto';
  const fd = typeof target === 'string' ? openTarget(target) : target;
  try {
    if (mode === 'thread' || (mode === 'auto' && threadModeError() === null)) {
      return attachThread(fd, options);
    }
    return await attachByHelper(fd, options);
  } finally {
    if (typeof target === 'string') closeSync(fd);
  }
}

function openTarget(path: string): Fd {
  try {
    return openSync(path, 'r');
  } catch (cause) {
    const text = `the namespace ${path} could not be opened; check the path and the right to enter it`;
    throw new RampartError('RAMP_NAMESPACE', text, { cause });
  }
}

/** What this machine allows. */
export interface NamespaceSupport {
  readonly mode: NamespaceMode | 'none';
  /** What `openPacketDevice` gives there; `none` when no device could be made. */
  readonly device: PacketDeviceKind | 'none';
  /** One line for people: what works, or what is missing and what to do. */
  readonly message: string;
}

/** Tries it out: makes a namespace with a device and takes it down again. Never throws. */
export async function namespaceSupport(options: NamespaceOptions = {}): Promise<NamespaceSupport> {
  let namespace: PrivateNamespace;
  try {
    namespace = await openPrivateNamespace({ ...options, stock: {} });
  } catch (error) {
    const reason = unprivilegedObstacle() ?? (error as Error).message;
    return Object.freeze({
      mode: 'none',
      device: 'none',
      message: `no private network namespace: ${reason}`,
    });
  }
  const mode = namespace.mode;
  const way = mode === 'thread' ? 'with privilege' : 'unprivileged, through a user namespace';
  try {
    const device = await namespace.openPacketDevice();
    await namespace.closePacketDevice(device);
    const what =
      device.kind === 'tun' ? 'TUN devices' : 'veth with a packet socket, for want of /dev/net/tun';
    return Object.freeze({
      mode,
      device: device.kind,
      message: `private network namespaces work (${way}; ${what})`,
    });
  } catch (error) {
    const reason = (error as Error).message;
    const message = `private network namespaces work (${way}) but have no device: ${reason}`;
    return Object.freeze({ mode, device: 'none', message });
  } finally {
    await namespace.close();
  }
}

/** Switches of the kernel that forbid user namespaces, in words; null when none is set. */
function unprivilegedObstacle(): string | null {
  const checks: readonly [path: string, forbidden: string, advice: string][] = [
    ['/proc/sys/user/max_user_namespaces', '0', 'set user.max_user_namespaces to 10000'],
    ['/proc/sys/user/max_net_namespaces', '0', 'set user.max_net_namespaces to 10000'],
    ['/proc/sys/kernel/unprivileged_userns_clone', '0', 'set kernel.unprivileged_userns_clone to 1'],
    [
      '/proc/sys/kernel/apparmor_restrict_unprivileged_userns',
      '1',
      'set kernel.apparmor_restrict_unprivileged_userns to 0, or run as root',
    ],
  ];
  for (const [path, forbidden, advice] of checks) {
    try {
      if (readFileSync(path, 'utf8').trim() === forbidden) return `the kernel is set to forbid it; ${advice}`;
    } catch {
      // The switch does not exist on this kernel.
    }
  }
  return null;
}
