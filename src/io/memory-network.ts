/**
 * Names of a memory world: who listens, who is bound where, and how two sockets find each other.
 */
import type { RampartError } from '#base/error.ts';
import { formatSocketAddress, type SocketAddress } from '#base/ip.ts';

import { Errno, type ListenOptions } from './io.ts';
import type { MemoryFile } from './memory-file.ts';
import { ListenerFile } from './memory-listener.ts';
import { PacketFile } from './memory-packet.ts';
import { StreamFile } from './memory-stream.ts';
import {
  addTo,
  bindConflict,
  canonical,
  presented,
  type InetAddress,
  type MemoryWorld,
} from './memory-world.ts';
import { systemError } from './system-error.ts';

const ENOTSOCK = 88;
const EPROTOTYPE = 91;
const BACKLOG_DEFAULT = 4096;

// --- listening and binding ---------------------------------------------------------------------------------

/** A new listener under its name. @throws RAMP_LISTEN */
export function listenAt(world: MemoryWorld, address: SocketAddress, options: ListenOptions): ListenerFile {
  const backlog = options.backlog ?? BACKLOG_DEFAULT;
  if (address.family === 'unix') {
    if (world.unix.has(address.path)) throw listenError(address, -Errno.EADDRINUSE);
    const file = new ListenerFile(world, address, options.type === 'seqpacket', backlog);
    world.unix.set(address.path, file);
    return file;
  }
  const v6Only = options.dualStack === false;
  const reusePort = options.reusePort === true;
  const local = freeAddress(world, world.listeners, address, v6Only, reusePort);
  const file = new ListenerFile(world, local, false, backlog);
  file.v6Only = v6Only;
  file.reusePort = reusePort;
  addTo(world.listeners, local.port, file);
  return file;
}

/** Binds a socket. @throws RAMP_LISTEN */
export function bindTo(world: MemoryWorld, file: MemoryFile, address: SocketAddress): void {
  if (file.local !== null) throw listenError(address, -Errno.EINVAL);
  if (address.family === 'unix') {
    if (world.unix.has(address.path)) throw listenError(address, -Errno.EADDRINUSE);
    if (file instanceof PacketFile) world.unix.set(address.path, file);
    file.local = address;
    return;
  }
  const isUdp = file instanceof PacketFile;
  const table = isUdp ? world.datagramSockets : world.listeners;
  const local = freeAddress(world, table, address, file.v6Only, file.reusePort);
  file.local = local;
  if (isUdp) addTo(world.datagramSockets, local.port, file);
}

/** The address in its canonical form, with a port that nobody else has. */
function freeAddress(
  world: MemoryWorld,
  table: ReadonlyMap<number, readonly (ListenerFile | PacketFile)[]>,
  address: InetAddress,
  v6Only: boolean,
  reusePort: boolean,
): InetAddress {
  const asked = canonical(address);
  const local = asked.port === 0 ? { ...asked, port: world.freePort(table) } : asked;
  const conflict = bindConflict(table.get(local.port) ?? [], local, v6Only, reusePort);
  if (conflict !== 0) throw listenError(address, conflict);
  return local;
}

function listenError(address: SocketAddress, result: number): RampartError {
  return systemError('RAMP_LISTEN', `binding ${formatSocketAddress(address)}`, result);
}

// --- connecting --------------------------------------------------------------------------------------------

/** Who listens at `address`, or a negative errno. */
export function listenerAt(world: MemoryWorld, address: SocketAddress): ListenerFile | number {
  if (address.family !== 'unix') return world.findListener(canonical(address)) ?? -Errno.ECONNREFUSED;
  const file = world.unix.get(address.path);
  if (file === undefined) return address.path.startsWith('@') ? -Errno.ECONNREFUSED : -Errno.ENOENT;
  return file instanceof ListenerFile ? file : -Errno.ECONNREFUSED;
}

/** Connects `file` to a listener that has room; 0 or a negative errno. */
export function connectTo(
  world: MemoryWorld,
  file: StreamFile | PacketFile,
  listener: ListenerFile,
  address: SocketAddress,
): number {
  if (file instanceof PacketFile !== listener.seqpacket) return -EPROTOTYPE;
  const server = serverEnd(world, listener);
  if (address.family === 'unix') {
    server.local = address;
    file.remote = address;
  } else {
    const remote = canonical(address);
    file.local ??= ownAddress(remote, world.freePort(world.listeners));
    file.remote = remote;
    server.local = remote;
    server.remote = file.local;
  }
  for (const [option, value] of listener.options) server.options.set(option, value);
  const capacity = listener.options.get('receive-buffer');
  if (capacity !== undefined) server.setCapacity(capacity);
  if (file instanceof PacketFile) file.join(server as PacketFile);
  else file.join(server as StreamFile);
  listener.enqueue(server);
  return 0;
}

function serverEnd(world: MemoryWorld, listener: ListenerFile): StreamFile | PacketFile {
  if (listener.seqpacket) return new PacketFile(world, 'unix-seqpacket');
  const family = listener.local?.family;
  return new StreamFile(world, family === 'unix' ? 'unix-stream' : family === 6 ? 'tcp6' : 'tcp4');
}

/** Where an unbound socket sends from: the loopback address of the family. */
function ownAddress(remote: InetAddress, port: number): InetAddress {
  return { family: remote.family, address: remote.family === 4 ? '127.0.0.1' : '::1', port };
}

// --- datagrams ---------------------------------------------------------------------------------------------

/** Sets where a datagram socket sends to, and whom it hears; 0 or a negative errno. */
export function aimAt(world: MemoryWorld, file: PacketFile, address: SocketAddress): number {
  if (address.family === 'unix') {
    const target = world.unix.get(address.path);
    if (!(target instanceof PacketFile)) return -Errno.ECONNREFUSED;
    file.aim(target);
    file.remote = address;
    return 0;
  }
  const remote = canonical(address);
  bindDatagramSocket(world, file);
  const local = file.local as InetAddress;
  if (isAny(local)) file.local = ownAddress(remote, local.port);
  file.remote = remote;
  return 0;
}

/** Gives an unbound UDP socket an any-address and a port. */
export function bindDatagramSocket(world: MemoryWorld, file: PacketFile): void {
  if (file.local !== null) return;
  const port = world.freePort(world.datagramSockets);
  file.local =
    file.kind === 'udp6' ? { family: 6, address: '::', port } : { family: 4, address: '0.0.0.0', port };
  addTo(world.datagramSockets, port, file);
}

/**
 * What the receiver of a datagram to `remote` sees as its source; `source` is asked for by the sender, or
 * null.
 */
export function senderOf(file: PacketFile, remote: InetAddress, source: string | null): InetAddress {
  const local = file.local as InetAddress;
  if (source !== null) return canonical({ family: remote.family, address: source, port: local.port });
  return isAny(local) ? ownAddress(remote, local.port) : local;
}

function isAny(address: InetAddress): boolean {
  return address.address === '0.0.0.0' || address.address === '::';
}

// --- what a socket shows -----------------------------------------------------------------------------------

/** The local address of a socket. @throws RAMP_SYSCALL when the file is no socket */
export function localAddressOf(file: MemoryFile): SocketAddress {
  const family = familyOf(file);
  if (file.local !== null) return shown(file.local, family);
  if (family === null) return Object.freeze({ family: 'unix', path: '' });
  return Object.freeze({ family, address: family === 4 ? '0.0.0.0' : '::', port: 0 });
}

/** The peer's address. @throws RAMP_SYSCALL when there is none */
export function remoteAddressOf(file: MemoryFile): SocketAddress {
  const family = familyOf(file);
  if (file.remote !== null) return shown(file.remote, family);
  const isConnected = (file instanceof StreamFile || file instanceof PacketFile) && file.connected;
  if (!isConnected) throw systemError('RAMP_SYSCALL', 'getpeername', -Errno.ENOTCONN);
  return Object.freeze({ family: 'unix', path: '' });
}

/** The family of a socket; null for Unix sockets. */
function familyOf(file: MemoryFile): 4 | 6 | null {
  if (file instanceof ListenerFile) {
    const family = file.local?.family ?? 'unix';
    return family === 'unix' ? null : family;
  }
  if (file instanceof StreamFile || file instanceof PacketFile) {
    if (file.kind.endsWith('4')) return 4;
    return file.kind.endsWith('6') ? 6 : null;
  }
  throw systemError('RAMP_SYSCALL', 'getsockname', -ENOTSOCK);
}

/** An address as a socket of `family` shows it. */
function shown(address: SocketAddress, family: 4 | 6 | null): SocketAddress {
  if (address.family === 'unix' || family === null) return Object.freeze({ ...address });
  return presented(address, family);
}
