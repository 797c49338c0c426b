/**
 * What is done inside a namespace, by whoever is in it: a thread that has stepped in, or the helper process.
 */
import { readFileSync, writeFileSync } from 'node:fs';

import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';
import { parseIp } from '#base/ip.ts';

import {
  bindSocket,
  closeDescriptor,
  listenSocket,
  openSocket,
  setBytesOption,
  setIntegerOption,
} from './ffi/namespace.ts';
import type { Fd } from './io.ts';
import type { NamespaceConfig, NamespaceListenOptions, NamespaceSocketKind } from './namespace.ts';
import { RouteSocket } from './netlink.ts';
import { systemError } from './system-error.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOL_IP = 0;
const SOL_SOCKET = 1;
const SOL_IPV6 = 41;
const SO_REUSEADDR = 2;
const SO_REUSEPORT = 15;
const SO_BINDTODEVICE = 25;
const IP_TRANSPARENT = 19;
const IPV6_V6ONLY = 26;
const IPV6_TRANSPARENT = 75;

/** Index of the loopback link, the first of every namespace. */
const LOOPBACK = 1;

/** Brings the loopback of a new namespace up. */
export function bringLoopbackUp(): void {
  configureLinks((route) => route.changeLink(LOOPBACK, { up: true }));
}

/** Sets what `config` says, in the namespace in which this thread is. @throws RAMP_DEVICE, RAMP_NAMESPACE */
export function configureHere(config: NamespaceConfig): void {
  for (const [name, value] of Object.entries(config.sysctls ?? {})) writeSysctl(name, value);
  for (const [name, value] of Object.entries(config.sysctlsIfPossible ?? {})) {
    try {
      writeSysctl(name, value);
    } catch {
      // That is what "if possible" means.
    }
  }
  configureLinks((route) => {
    for (const { device, address } of config.addresses ?? []) {
      route.addAddress(route.linkIndex(device), address);
    }
    for (const { device, ...options } of config.routes ?? []) {
      route.addRoute(device === undefined ? options : { ...options, link: route.linkIndex(device) });
    }
    for (const { family, device, table } of config.rules ?? []) route.addRule(family, device, table);
  });
}

function configureLinks(work: (route: RouteSocket) => void): void {
  const route = new RouteSocket();
  try {
    work(route);
  } finally {
    route.close();
  }
}

/** Writes a sysctl of this namespace. /proc shows the namespace of the thread that looks. */
function writeSysctl(name: string, value: string | number): void {
  const path = name.includes('/') ? name : name.replaceAll('.', '/');
  if (!/^net(\/[A-Za-z0-9_.-]+)+$/.test(path) || path.includes('..')) {
    throw new RampartError(
      'RAMP_NAMESPACE',
      `"${name}" is no sysctl of a network namespace; it starts with net.`,
    );
  }
  try {
    writeFileSync(`/proc/sys/${path}`, String(value));
  } catch (cause) {
    if (hasSysctl(path, value)) return;
    const reason = (cause as Error).message;
    const text = `setting ${name} to ${value} in the private namespace failed: ${reason}`;
    throw new RampartError('RAMP_NAMESPACE', text, { cause });
  }
}

/** True when the sysctl has that value, whatever stands between its numbers. */
function hasSysctl(path: string, value: string | number): boolean {
  try {
    const present = readFileSync(`/proc/sys/${path}`, 'utf8');
    return present.trim().split(/\s+/).join(' ') === String(value).trim().split(/\s+/).join(' ');
  } catch {
    return false;
  }
}

/** Opens `count` sockets, or none. @throws RAMP_NO_DESCRIPTORS, RAMP_NAMESPACE */
export function openSocketsHere(kind: NamespaceSocketKind, count: number): Fd[] {
  assert(count > 0);
  const sockets: Fd[] = [];
  const domain = kind.endsWith('4') ? AF_INET : AF_INET6;
  const type = kind.startsWith('tcp') ? SOCK_STREAM : SOCK_DGRAM;
  while (sockets.length < count) {
    const fd = openSocket(domain, type, 0);
    if (fd < 0) {
      for (const opened of sockets) closeDescriptor(opened);
      throw systemError('RAMP_NAMESPACE', `opening a ${kind} socket in the private namespace`, fd);
    }
    sockets.push(fd);
  }
  return sockets;
}

/** Opens a TCP listener. @throws RAMP_LISTEN, RAMP_NO_DESCRIPTORS */
export function openListenerHere(options: NamespaceListenOptions): Fd {
  const { address, port, family } = options.address;
  const what = `listening on ${address} port ${port} in the private namespace`;
  const bytes = parseIp(address);
  if (bytes === null || (bytes.length === 4) !== (family === 4)) {
    throw new RampartError('RAMP_LISTEN', `${what} failed: "${address}" is no IPv${family} address`);
  }
  const fd = openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
  const check = (result: number): void => {
    if (result < 0) throw systemError('RAMP_LISTEN', what, result);
  };
  check(fd);
  try {
    check(setIntegerOption(fd, SOL_SOCKET, SO_REUSEADDR, 1));
    if (options.reusePort === true) check(setIntegerOption(fd, SOL_SOCKET, SO_REUSEPORT, 1));
    if (family === 6) check(setIntegerOption(fd, SOL_IPV6, IPV6_V6ONLY, 0));
    if (options.transparent === true) {
      check(setIntegerOption(fd, SOL_IP, IP_TRANSPARENT, 1));
      if (family === 6) check(setIntegerOption(fd, SOL_IPV6, IPV6_TRANSPARENT, 1));
    }
    if (options.device !== undefined) {
      const name = Buffer.from(`${options.device}\0`, 'latin1');
      check(setBytesOption(fd, SOL_SOCKET, SO_BINDTODEVICE, name));
    }
    check(bindSocket(fd, inetAddress(bytes, port)));
    check(listenSocket(fd, options.backlog ?? 4096));
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/** struct sockaddr_in or sockaddr_in6. */
function inetAddress(address: Uint8Array, port: number): Uint8Array {
  const four = address.length === 4;
  const bytes = new Uint8Array(four ? 16 : 28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, four ? AF_INET : AF_INET6, true);
  view.setUint16(2, port);
  bytes.set(address, four ? 4 : 8);
  return bytes;
}
