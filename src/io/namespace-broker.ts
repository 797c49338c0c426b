/**
 * The unprivileged way into a namespace: the parent's side of the helper process (namespace-helper.ts).
 *
 * Requests are few and small: devices and settings at the start, sockets in batches into a stock. Descriptors
 * come over a SEQPACKET socket that is only read once the reply's line says that they are there, so nothing
 * polls it.
 */
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { extname } from 'node:path';
import { createInterface } from 'node:readline';
import type { Socket } from 'node:net';

import { assert } from '#base/assert.ts';
import { RampartError, type ErrorCode } from '#base/error.ts';

import { closeDescriptor, controlNumber, openSeqpacketPair, receiveDescriptors } from './ffi/namespace.ts';
import { Errno, type Fd } from './io.ts';
import type {
  NamespaceConfig,
  NamespaceListenOptions,
  NamespaceOptions,
  NamespaceSocketKind,
  PrivateNamespace,
} from './namespace.ts';
import { STOCK_DEFAULT, STOCK_MAX } from './namespace-thread.ts';
import { systemError } from './system-error.ts';
import type { PacketDevice, PacketDeviceOptions } from './packet-device.ts';

/** A line to the helper. */
export type HelperRequest = { readonly id: number } & HelperWork;

/** What the helper can do. */
export type HelperWork =
  | { readonly kind: 'start'; readonly fresh: boolean }
  | { readonly kind: 'device'; readonly options: PacketDeviceOptions }
  | { readonly kind: 'close-device'; readonly device: PacketDevice }
  | { readonly kind: 'configure'; readonly config: NamespaceConfig }
  | { readonly kind: 'sockets'; readonly socketKind: NamespaceSocketKind; readonly count: number }
  | { readonly kind: 'listener'; readonly options: NamespaceListenOptions };

/** A line from the helper. */
export interface HelperReply {
  readonly id: number;
  /** How many descriptors were sent before this line. */
  readonly descriptors: number;
  readonly value?: unknown;
  readonly failure?: { readonly code: ErrorCode; readonly message: string; readonly errno: number };
}

/**
 * Sockets in one request: below what an ordinary user may have in flight, and small beside a limit of 1024
 * files.
 */
const SOCKETS_PER_REQUEST_MAX = 128;

/** The helper only passes descriptors on, so its heap may stay small. */
const NODE_ARGUMENTS = Object.freeze([
  '--disable-warning=ExperimentalWarning',
  '--max-old-space-size=32',
  '--max-semi-space-size=1',
  '--v8-pool-size=1',
]);

/** Longest kept part of what the helper says on stderr. */
const COMPLAINT_CHARACTERS_MAX = 2000;

/** A new namespace in a new user namespace. @throws RAMP_NAMESPACE */
export async function openByHelper(options: NamespaceOptions): Promise<PrivateNamespace> {
  return start('unshare', ['--user', '--map-root-user', '--net', '--'], [], true, options);
}

/** An existing namespace whose user namespace this user owns. @throws RAMP_NAMESPACE */
export async function attachByHelper(fd: Fd, options: NamespaceOptions): Promise<PrivateNamespace> {
  const NS_GET_USERNS = 0xb701;
  const user = controlNumber(fd, NS_GET_USERNS, 0);
  if (user < 0) throw systemError('RAMP_NAMESPACE', 'finding the owner of the namespace', user);
  const path = '/proc/self/fd';
  const args = [`--user=${path}/5`, `--net=${path}/4`, '--preserve-credentials', '--'];
  try {
    return await start('nsenter', args, [fd, user], false, options);
  } finally {
    closeDescriptor(user);
  }
}

async function start(
  launcher: string,
  launcherArguments: readonly string[],
  extraDescriptors: readonly Fd[],
  fresh: boolean,
  options: NamespaceOptions,
): Promise<PrivateNamespace> {
  const pair = openSeqpacketPair();
  if (typeof pair === 'number') throw systemError('RAMP_NAMESPACE', 'opening a socket pair', pair);
  const [ours, theirs] = pair;
  const program = new URL(`./namespace-helper${extname(import.meta.filename)}`, import.meta.url).pathname;
  const args = [...launcherArguments, process.execPath, ...NODE_ARGUMENTS, program];
  const child = spawn(launcher, args, {
    stdio: ['pipe', 'pipe', 'pipe', theirs, ...extraDescriptors],
    env: { PATH: process.env.PATH },
    cwd: '/',
    // Away from the terminal's process group: an interrupt is the parent's to handle.
    detached: true,
  });
  closeDescriptor(theirs);
  const namespace = new HelperNamespace(child, ours, launcher, options);
  try {
    await namespace.start(fresh);
    return namespace;
  } catch (error) {
    await namespace.close();
    throw error;
  }
}

interface Waiting {
  resolve(reply: { readonly value: unknown; readonly descriptors: Fd[] }): void;
  reject(error: Error): void;
}

/** See `PrivateNamespace`. */
class HelperNamespace implements PrivateNamespace {
  readonly mode = 'helper';
  readonly path: string;
  readonly #child: ChildProcess;
  readonly #descriptors: Fd;
  readonly #ended: Promise<void>;
  readonly #waiting = new Map<number, Waiting>();
  readonly #stock = new Map<NamespaceSocketKind, Fd[]>();
  readonly #stockSize: Readonly<Partial<Record<NamespaceSocketKind, number>>>;
  readonly #refilling = new Set<NamespaceSocketKind>();
  #nextId = 1;
  #complaint = '';
  #closed = false;
  #gone: RampartError | null = null;

  constructor(child: ChildProcess, descriptors: Fd, launcher: string, options: NamespaceOptions) {
    this.#child = child;
    this.#descriptors = descriptors;
    this.#stockSize = options.stock ?? STOCK_DEFAULT;
    this.path = `/proc/${child.pid}/ns/net`;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#complaint = (this.#complaint + text).slice(0, COMPLAINT_CHARACTERS_MAX);
    });
    // A write to a helper that is gone: its end is reported by `close` below.
    child.stdin?.on('error', () => {});
    if (child.stdout !== null) {
      createInterface({ input: child.stdout }).on('line', (line) => this.#onLine(line));
    }
    this.#ended = new Promise((resolve) => {
      child.on('error', (error: NodeJS.ErrnoException) => {
        const hint = error.code === 'ENOENT' ? `; install ${launcher} (package util-linux)` : '';
        this.#onEnd(`${launcher} could not be started: ${error.message}${hint}`);
        for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
        resolve();
      });
      child.on('close', (code, signal) => {
        const said = this.#complaint.trim().replaceAll('\n', '; ');
        this.#onEnd(
          `its helper process ended (${signal ?? `exit code ${code}`})${said === '' ? '' : `: ${said}`}`,
        );
        resolve();
      });
    });
    this.#hold(false);
  }

  /** Waits for the helper to be up and fills the stock. */
  async start(fresh: boolean): Promise<void> {
    await this.#request({ kind: 'start', fresh });
    for (const kind of Object.keys(this.#stockSize) as NamespaceSocketKind[]) await this.#refill(kind);
  }

  run<T>(_work: () => T): T {
    const text =
      'an unprivileged process cannot step into its private namespace; open sockets by openSockets';
    throw new RampartError('RAMP_NAMESPACE', text);
  }

  async openPacketDevice(options: PacketDeviceOptions = {}): Promise<PacketDevice> {
    const { value, descriptors } = await this.#request({ kind: 'device', options });
    assert(descriptors.length > 0);
    const queues = Object.freeze(descriptors);
    return Object.freeze({ ...(value as PacketDevice), fd: descriptors[0] as Fd, queues });
  }

  async closePacketDevice(device: PacketDevice): Promise<void> {
    for (const fd of device.queues) closeDescriptor(fd);
    await this.#request({ kind: 'close-device', device });
  }

  async configure(config: NamespaceConfig): Promise<void> {
    await this.#request({ kind: 'configure', config });
  }

  async openSockets(kind: NamespaceSocketKind, count: number): Promise<Fd[]> {
    const sockets: Fd[] = [];
    try {
      while (sockets.length < count) {
        const batch = Math.min(SOCKETS_PER_REQUEST_MAX, count - sockets.length);
        sockets.push(
          ...(await this.#request({ kind: 'sockets', socketKind: kind, count: batch })).descriptors,
        );
      }
    } catch (error) {
      for (const fd of sockets) closeDescriptor(fd);
      throw error;
    }
    return sockets;
  }

  openSocketNow(kind: NamespaceSocketKind): Fd {
    const stock = this.#stock.get(kind);
    const fd = stock?.pop() ?? -1;
    if ((stock?.length ?? 0) * 2 <= (this.#stockSize[kind] ?? 1)) {
      // A failure shows as −1 here and as an error of the `openSockets` that follows it.
      this.#refill(kind).catch(() => {});
    }
    return fd;
  }

  async openListener(options: NamespaceListenOptions): Promise<Fd> {
    const { descriptors } = await this.#request({ kind: 'listener', options });
    return descriptors[0] as Fd;
  }

  spawn(command: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    if (this.#gone !== null) throw this.#gone;
    const target = ['--target', String(this.#child.pid), '--user', '--net', '--preserve-credentials', '--'];
    return spawn('nsenter', [...target, command, ...args], options);
  }

  async close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#child.stdin?.end();
      this.#hold(true);
    }
    await this.#ended;
    this.#hold(false);
  }

  /** Keeps `stock` full; one request per kind at a time. */
  async #refill(kind: NamespaceSocketKind): Promise<void> {
    if (this.#refilling.has(kind) || this.#gone !== null || this.#closed) return;
    this.#refilling.add(kind);
    try {
      let stock = this.#stock.get(kind);
      if (stock === undefined) {
        stock = [];
        this.#stock.set(kind, stock);
      }
      const missing = Math.min(STOCK_MAX, this.#stockSize[kind] ?? 1) - stock.length;
      if (missing <= 0) return;
      const sockets = await this.openSockets(kind, missing);
      if (this.#gone === null) stock.push(...sockets);
      else for (const fd of sockets) closeDescriptor(fd);
    } finally {
      this.#refilling.delete(kind);
    }
  }

  #request(work: HelperWork): Promise<{ readonly value: unknown; readonly descriptors: Fd[] }> {
    if (this.#gone !== null) return Promise.reject(this.#gone);
    if (this.#closed) return Promise.reject(closedError());
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#hold(true);
      this.#child.stdin?.write(`${JSON.stringify({ ...work, id })}\n`);
    });
  }

  #onLine(line: string): void {
    const reply = JSON.parse(line) as HelperReply;
    const waiting = this.#waiting.get(reply.id);
    assert(waiting !== undefined, 'the helper answered what nobody asked');
    this.#waiting.delete(reply.id);
    if (this.#waiting.size === 0 && !this.#closed) this.#hold(false);
    if (reply.failure !== undefined) {
      const { code, message, errno } = reply.failure;
      waiting.reject(new RampartError(code, message, { errno }));
      return;
    }
    try {
      const descriptors = this.#receive(reply.descriptors);
      waiting.resolve({ value: reply.value, descriptors });
    } catch (error) {
      waiting.reject(error as Error);
    }
  }

  /** Takes the descriptors that a reply announced, whole messages of them. */
  #receive(count: number): Fd[] {
    const descriptors: Fd[] = [];
    let lost = false;
    let left = count;
    while (left > 0) {
      const message = receiveDescriptors(this.#descriptors);
      if (typeof message === 'number') {
        for (const fd of descriptors) closeDescriptor(fd);
        throw systemError('RAMP_NAMESPACE', 'taking descriptors from the helper', message);
      }
      descriptors.push(...message.descriptors);
      lost ||= message.truncated;
      // What was lost was announced all the same.
      left -= message.bytes[0] as number;
    }
    if (!lost && descriptors.length === count) return descriptors;
    for (const fd of descriptors) closeDescriptor(fd);
    throw systemError('RAMP_NAMESPACE', `taking ${count} descriptors from the helper`, -Errno.EMFILE);
  }

  #onEnd(reason: string): void {
    if (this.#gone !== null) return;
    this.#gone = this.#closed
      ? closedError()
      : new RampartError('RAMP_NAMESPACE', `the private namespace is not available: ${reason}`);
    for (const waiting of this.#waiting.values()) waiting.reject(this.#gone);
    this.#waiting.clear();
    for (const stock of this.#stock.values()) for (const fd of stock) closeDescriptor(fd);
    this.#stock.clear();
    closeDescriptor(this.#descriptors);
  }

  /** An idle helper does not keep the process alive; one that owes an answer does. */
  #hold(alive: boolean): void {
    const streams = [this.#child.stdin, this.#child.stdout, this.#child.stderr] as (Socket | null)[];
    for (const stream of streams) alive ? stream?.ref() : stream?.unref();
    alive ? this.#child.ref() : this.#child.unref();
  }
}

function closedError(): RampartError {
  return new RampartError('RAMP_NAMESPACE', 'the private namespace is closed');
}
