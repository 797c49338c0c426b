/**
 * The privileged way into a namespace: this thread steps in, works, and steps back before anything else can
 * run.
 */
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';

import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';

import { closeDescriptor, enterNetwork, openPath, unshareNetwork } from './ffi/namespace.ts';
import type { Fd } from './io.ts';
import type {
  NamespaceConfig,
  NamespaceListenOptions,
  NamespaceOptions,
  NamespaceSocketKind,
  PrivateNamespace,
} from './namespace.ts';
import { bringLoopbackUp, configureHere, openListenerHere, openSocketsHere } from './namespace-work.ts';
import { systemError } from './system-error.ts';
import {
  closePacketDevice,
  openPacketDevice,
  type PacketDevice,
  type PacketDeviceOptions,
} from './packet-device.ts';

/** Path of the calling thread's own namespace. */
const OWN_NAMESPACE = '/proc/thread-self/ns/net';

/** Sockets kept in stock unless the options say otherwise. */
export const STOCK_DEFAULT: Readonly<Partial<Record<NamespaceSocketKind, number>>> = Object.freeze({
  tcp4: 32,
  tcp6: 32,
});

/** Most sockets of one kind in stock: they are descriptors that serve nothing yet. */
export const STOCK_MAX = 1024;

/** A new namespace. @throws RAMP_NAMESPACE */
export function openThread(options: NamespaceOptions): PrivateNamespace {
  const fd = makeNamespace();
  const namespace = new ThreadNamespace(fd, options);
  try {
    namespace.run(bringLoopbackUp);
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
  return namespace;
}

/** An existing namespace; `fd` stays the caller's. @throws RAMP_NAMESPACE */
export function attachThread(fd: Fd, options: NamespaceOptions): PrivateNamespace {
  const own = openPath(`/proc/self/fd/${fd}`, 0);
  if (own < 0) throw systemError('RAMP_NAMESPACE', 'keeping the namespace', own);
  const namespace = new ThreadNamespace(own, options);
  try {
    namespace.run(() => undefined);
  } catch (error) {
    closeDescriptor(own);
    throw error;
  }
  return namespace;
}

let threadModeResult: RampartError | null | undefined;

/** Why this process may not work in the privileged way; null when it may. Tried once per thread. */
export function threadModeError(): RampartError | null {
  if (threadModeResult === undefined) {
    try {
      closeDescriptor(makeNamespace());
      threadModeResult = null;
    } catch (error) {
      if (!(error instanceof RampartError)) throw error;
      threadModeResult = error;
    }
  }
  return threadModeResult;
}

/** Makes a namespace and returns a descriptor of it; the thread is back where it was. */
function makeNamespace(): Fd {
  const home = openPath(OWN_NAMESPACE, 0);
  if (home < 0) throw systemError('RAMP_NAMESPACE', `opening ${OWN_NAMESPACE}`, home);
  try {
    const code = unshareNetwork();
    if (code < 0) throw systemError('RAMP_NAMESPACE', 'making a network namespace', code);
    const made = openPath(OWN_NAMESPACE, 0);
    goHome(home);
    if (made < 0) throw systemError('RAMP_NAMESPACE', `opening ${OWN_NAMESPACE}`, made);
    return made;
  } finally {
    closeDescriptor(home);
  }
}

/**
 * Back into the namespace that the thread came from. A thread that cannot go back must not go on: its next
 * socket would be in a tenant's network instead of the machine's.
 */
function goHome(home: Fd): void {
  const code = enterNetwork(home);
  assert(code === 0, `the thread could not return to its own network namespace (errno ${-code})`);
}

/** See `PrivateNamespace`. */
export class ThreadNamespace implements PrivateNamespace {
  readonly mode = 'thread';
  readonly path: string;
  readonly #fd: Fd;
  readonly #stock = new Map<NamespaceSocketKind, Fd[]>();
  readonly #stockSize: Readonly<Partial<Record<NamespaceSocketKind, number>>>;
  #closed = false;

  constructor(fd: Fd, options: NamespaceOptions) {
    assert(fd >= 0);
    this.#fd = fd;
    this.path = `/proc/${process.pid}/fd/${fd}`;
    this.#stockSize = options.stock ?? STOCK_DEFAULT;
  }

  run<T>(work: () => T): T {
    if (this.#closed) throw new RampartError('RAMP_NAMESPACE', 'the private namespace is closed');
    const home = openPath(OWN_NAMESPACE, 0);
    if (home < 0) throw systemError('RAMP_NAMESPACE', `opening ${OWN_NAMESPACE}`, home);
    try {
      const code = enterNetwork(this.#fd);
      if (code < 0) throw systemError('RAMP_NAMESPACE', 'entering the network namespace', code);
      try {
        const value = work();
        assert(!(value instanceof Promise), 'work inside a namespace is synchronous');
        return value;
      } finally {
        goHome(home);
      }
    } finally {
      closeDescriptor(home);
    }
  }

  async openPacketDevice(options: PacketDeviceOptions = {}): Promise<PacketDevice> {
    return this.run(() => openPacketDevice(options));
  }

  async closePacketDevice(device: PacketDevice): Promise<void> {
    this.run(() => closePacketDevice(device));
  }

  async configure(config: NamespaceConfig): Promise<void> {
    this.run(() => configureHere(config));
  }

  async openSockets(kind: NamespaceSocketKind, count: number): Promise<Fd[]> {
    return this.run(() => openSocketsHere(kind, count));
  }

  openSocketNow(kind: NamespaceSocketKind): Fd {
    let stock = this.#stock.get(kind);
    if (stock === undefined) {
      stock = [];
      this.#stock.set(kind, stock);
    }
    if (stock.length === 0) {
      // Several at once, since stepping in and out costs more than a socket.
      const count = Math.min(STOCK_MAX, Math.max(1, this.#stockSize[kind] ?? 1));
      try {
        stock.push(...this.run(() => openSocketsHere(kind, count)));
      } catch (error) {
        if (error instanceof RampartError && error.code === 'RAMP_NO_DESCRIPTORS') return -1;
        throw error;
      }
    }
    return stock.pop() as Fd;
  }

  async openListener(options: NamespaceListenOptions): Promise<Fd> {
    return this.run(() => openListenerHere(options));
  }

  spawn(command: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    // The child is forked by this very thread, so it starts where the thread is.
    return this.run(() => spawn(command, args, options));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const stock of this.#stock.values()) for (const fd of stock) closeDescriptor(fd);
    this.#stock.clear();
    closeDescriptor(this.#fd);
  }
}
