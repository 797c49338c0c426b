/**
 * The kernel that memory engines share: virtual time, one network in which every address is local, Unix
 * paths, and a seeded scheduler that decides what happens next. Two runs of a program with the same seed are
 * the same.
 */
import { assert } from '#base/assert.ts';
import { formatIp, parseIp, type SocketAddress } from '#base/ip.ts';

import { Errno, type Completion, type TimerId } from './io.ts';
import type { ListenerFile } from './memory-listener.ts';
import type { PacketFile } from './memory-packet.ts';
import { TimerWheel } from './timer-wheel.ts';

/** How a world behaves. */
export interface MemoryWorldOptions {
  /** Decides the order of what could happen in any order. Default 1. */
  readonly seed?: number;
  /**
   * Virtual time goes on by itself to the next timer when nothing else can happen, turn by turn of the event
   * loop. Default false: only `advance` moves it.
   */
  readonly autoAdvance?: boolean;
  /**
   * Asked for every TCP connection: 0 goes on, a negative errno fails it (−EHOSTUNREACH), `hang` leaves it
   * without an answer.
   */
  readonly reach?: (remote: SocketAddress) => number | 'hang';
}

/** An address of IPv4 or IPv6 with its port. */
export type InetAddress = Exclude<SocketAddress, { family: 'unix' }>;

/** Something that can happen: it is run once for each time it was scheduled. */
export interface Task {
  scheduled: boolean;
  runTask(): void;
}

/** Tasks of one turn of the event loop; microtasks run after each turn. */
const BATCH_MAX = 8;
/**
 * Idle turns before virtual time goes on by itself: a chain of promises and immediates must have come to
 * rest.
 */
const IDLE_TURNS = 3;
const EPHEMERAL_PORT_MIN = 32_768;
const EPHEMERAL_PORT_MAX = 60_999;

/** See the head of this file. */
export class MemoryWorld {
  readonly #runnable: Task[] = [];
  readonly #wheel = new TimerWheel();
  readonly #autoAdvance: boolean;
  readonly #reach: (remote: SocketAddress) => number | 'hang';
  #random: number;
  #now = 0;
  #armed = false;
  #idleTurns = 0;
  #nextPort = EPHEMERAL_PORT_MIN;
  readonly listeners = new Map<number, ListenerFile[]>();
  readonly datagramSockets = new Map<number, PacketFile[]>();
  /** Abstract names (with their @) and paths alike. */
  readonly unix = new Map<string, ListenerFile | PacketFile>();

  constructor(options: MemoryWorldOptions = {}) {
    this.#random = (options.seed ?? 1) >>> 0 || 1;
    this.#autoAdvance = options.autoAdvance ?? false;
    this.#reach = options.reach ?? (() => 0);
  }

  // --- time ------------------------------------------------------------------------------------------------

  /** Virtual milliseconds since the beginning. */
  get now(): number {
    return this.#now;
  }

  timer(delayMs: number, completion: Completion, tag: number): TimerId {
    assert(delayMs >= 0, 'a delay is not negative');
    // An empty wheel may lag behind; in step with the clock it places timers without detours.
    if (this.#wheel.armed === 0) this.#wheel.advance(this.#now, this.#fire);
    const timer = this.#wheel.arm(Math.max(this.#now + 1, Math.ceil(this.#now + delayMs)), completion, tag);
    this.#arm();
    return timer;
  }

  cancelTimer(timer: TimerId): boolean {
    return this.#wheel.cancel(timer);
  }

  /**
   * Lets everything happen that can, then moves time on, timer by timer, and lets happen what follows from
   * each.
   */
  async advance(ms: number): Promise<void> {
    assert(ms >= 0);
    const target = this.#now + Math.floor(ms);
    for (;;) {
      await this.settle();
      const next = this.#wheel.nextTick();
      if (next > target) break;
      this.#goTo(next);
    }
    this.#goTo(target);
    await this.settle();
  }

  /**
   * Lets everything happen that can without time going on; microtasks and immediates of the program
   * included.
   */
  async settle(): Promise<void> {
    let quiet = 0;
    while (quiet < IDLE_TURNS) {
      await new Promise((resolve) => setImmediate(resolve));
      quiet = this.#runnable.length === 0 ? quiet + 1 : 0;
    }
  }

  #goTo(tick: number): void {
    this.#now = Math.max(this.#now, tick);
    this.#wheel.advance(tick, this.#fire);
  }

  readonly #fire = (completion: Completion, tag: number): void => {
    deliver(completion, tag, 0, 0);
  };

  /** Calls `run` after a delay, for an engine's own purposes. */
  after(delayMs: number, run: () => void): void {
    this.timer(delayMs, { onCompletion: run }, 0);
  }

  // --- chance and order ------------------------------------------------------------------------------------

  /** A whole number from 0 to `limit` − 1 (xorshift32). */
  chance(limit: number): number {
    let x = this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#random = x >>> 0;
    return this.#random % limit;
  }

  schedule(task: Task): void {
    if (task.scheduled) return;
    task.scheduled = true;
    this.#runnable.push(task);
    this.#arm();
  }

  #arm(): void {
    if (this.#armed) return;
    if (this.#runnable.length === 0 && !(this.#autoAdvance && this.#wheel.armed > 0)) return;
    this.#armed = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#armed = false;
    if (this.#runnable.length > 0) {
      this.#idleTurns = 0;
      this.#runBatch(1 + this.chance(BATCH_MAX));
    } else if (++this.#idleTurns >= IDLE_TURNS && this.#autoAdvance && this.#wheel.armed > 0) {
      this.#idleTurns = 0;
      this.#goTo(this.#wheel.nextTick());
    }
    this.#arm();
  };

  #runBatch(count: number): void {
    const runnable = this.#runnable;
    for (let i = 0; i < count && runnable.length > 0; i++) {
      const index = this.chance(runnable.length);
      const task = runnable[index] as Task;
      const last = runnable.pop() as Task;
      if (last !== task) runnable[index] = last;
      task.scheduled = false;
      task.runTask();
    }
  }

  // --- names -----------------------------------------------------------------------------------------------

  reach(remote: SocketAddress): number | 'hang' {
    return this.#reach(remote);
  }

  /** A port that nobody has, in a fixed order. */
  freePort(table: ReadonlyMap<number, readonly unknown[]>): number {
    for (let tries = EPHEMERAL_PORT_MIN; tries <= EPHEMERAL_PORT_MAX; tries++) {
      const port = this.#nextPort;
      this.#nextPort = port === EPHEMERAL_PORT_MAX ? EPHEMERAL_PORT_MIN : port + 1;
      if ((table.get(port)?.length ?? 0) === 0) return port;
    }
    return 0;
  }

  /** The listener for a connection to `remote`: an exact address before any-address, chance among equals. */
  findListener(remote: InetAddress): ListenerFile | null {
    const all = this.listeners.get(remote.port) ?? [];
    return this.#pick(all, remote, (files) => this.chance(files.length));
  }

  /**
   * The socket that a datagram from `from` to `to` reaches; one that is connected to `from` before all
   * others.
   */
  findDatagramSocket(to: InetAddress, from: InetAddress): PacketFile | null {
    const all = this.datagramSockets.get(to.port) ?? [];
    const connected = all.find(
      (file) => sameEndpoint(file.remote, from) && covers(file.local, to, file.v6Only),
    );
    if (connected !== undefined) return connected;
    const open = all.filter((file) => file.remote === null);
    // One sender stays with one socket of a group, as with SO_REUSEPORT.
    return this.#pick(open, to, (files) => hashOf(`${from.address} ${from.port}`) % files.length);
  }

  #pick<T extends { readonly local: SocketAddress | null; readonly v6Only: boolean }>(
    all: readonly T[],
    to: InetAddress,
    choose: (files: readonly T[]) => number,
  ): T | null {
    const exact = all.filter((file) => sameEndpoint(file.local, to));
    const matching = exact.length > 0 ? exact : all.filter((file) => covers(file.local, to, file.v6Only));
    return matching.length === 0 ? null : (matching[choose(matching)] as T);
  }
}

/** Calls a completion; its error is reported as uncaught and stops nothing else. */
export function deliver(completion: Completion, tag: number, result: number, flags: number): void {
  try {
    completion.onCompletion(tag, result, flags);
  } catch (error) {
    setImmediate(() => {
      throw error;
    });
  }
}

/** Why `address` cannot be bound beside the files of `table`: 0 or −EADDRINUSE. */
export function bindConflict(
  others: readonly {
    readonly local: SocketAddress | null;
    readonly v6Only: boolean;
    readonly reusePort: boolean;
  }[],
  address: InetAddress,
  v6Only: boolean,
  reusePort: boolean,
): number {
  for (const other of others) {
    if (other.reusePort && reusePort) continue;
    const local = other.local as InetAddress;
    if (covers(local, address, other.v6Only) || covers(address, local, v6Only)) return -Errno.EADDRINUSE;
  }
  return 0;
}

/** True when `to` is `local`, or `local` is the any-address of a family that takes `to`. */
function covers(local: SocketAddress | null, to: InetAddress, v6Only: boolean): boolean {
  if (local === null || local.family === 'unix' || local.port !== to.port) return false;
  if (local.family === to.family && local.address === to.address) return true;
  if (local.family === 4) return local.address === '0.0.0.0' && to.family === 4;
  return local.address === '::' && (to.family === 6 || !v6Only);
}

function sameEndpoint(a: SocketAddress | null, b: InetAddress): boolean {
  return (
    a !== null && a.family !== 'unix' && a.family === b.family && a.port === b.port && a.address === b.address
  );
}

function hashOf(text: string): number {
  let hash = 0;
  for (let i = 0; i < text.length; i++) hash = (Math.imul(hash, 31) + text.charCodeAt(i)) >>> 0;
  return hash;
}

/** The one form in which the world compares addresses: IPv4-mapped IPv6 is IPv4, text is canonical. */
export function canonical(address: InetAddress): InetAddress {
  const bytes = parseIp(address.address);
  assert(bytes !== null, `not an IP address: ${address.address}`);
  if (bytes.length === 4) return { family: 4, address: formatIp(bytes), port: address.port };
  const mapped =
    bytes[10] === 0xff && bytes[11] === 0xff && bytes.subarray(0, 10).every((byte) => byte === 0);
  if (!mapped) return { family: 6, address: formatIp(bytes), port: address.port };
  return { family: 4, address: formatIp(bytes.subarray(12)), port: address.port };
}

/** The form in which a socket of `family` shows an address: an IPv6 socket shows IPv4 as mapped. */
export function presented(address: InetAddress, family: 4 | 6): InetAddress {
  if (family === 4 || address.family === 6) return Object.freeze({ ...address });
  const bytes = new Uint8Array(16);
  bytes.set([0xff, 0xff], 10);
  bytes.set(parseIp(address.address) as Uint8Array, 12);
  if (address.address === '0.0.0.0') return Object.freeze({ family: 6, address: '::', port: address.port });
  return Object.freeze({ family: 6, address: formatIp(bytes), port: address.port });
}

/** Adds a file to a table of ports. */
export function addTo<T>(table: Map<number, T[]>, port: number, file: T): void {
  const files = table.get(port);
  if (files === undefined) table.set(port, [file]);
  else files.push(file);
}

/** Takes it out again. */
export function removeFrom<T>(table: Map<number, T[]>, port: number, file: T): void {
  const left = (table.get(port) ?? []).filter((other) => other !== file);
  if (left.length === 0) table.delete(port);
  else table.set(port, left);
}
