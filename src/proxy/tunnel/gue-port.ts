import { randomInt } from 'node:crypto';

import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';
import { formatSocketAddress, type SocketAddress } from '#base/ip.ts';
import type { Fd } from '#io/io.ts';
import {
  AddressFamily,
  readSocketAddress,
  SOCKADDR_IN_BYTES,
  SOCKADDR_IN6_BYTES,
  writeSocketAddress,
} from '#io/socket-address.ts';
import { clearVirtioHeader } from '#packet/virtio-header.ts';
import { GueHeader, makeGueHeader, readGueHeader } from '#protocol/gue/gue.ts';

import { type Admitted, isRefusal, type OnRampDefaults, type Refusal } from './admission.ts';
import { ContextCache, REMOTE_BYTES } from './context-cache.ts';
import { type DatagramReceiver, GueSocket } from './gue-socket.ts';
import { GueTunnel } from './gue-tunnel.ts';
import { countDrop, type TunnelHost, tunnelRefused } from './tunnel-host.ts';

/** Where unconnected IP tunnels come in, and where configured ones go out. */
export interface GuePortOptions extends OnRampDefaults {
  readonly listen: SocketAddress & { readonly family: 4 | 6 };
  /** Bytes of the largest IP packet that is sent; what the way of the datagrams has room for. */
  readonly mtu: number;
  /**
   * False: only tunnels of the config; datagrams of any other remote or context are dropped. Default true.
   */
  readonly accept?: boolean;
  /** Pairs of remote and context known at one time; the one not used for longest makes room. Default 4096. */
  readonly contextsMax?: number;
  /**
   * How long a refusal is remembered, so that each datagram of a refused context costs next to nothing.
   * Default 10 s.
   */
  readonly refusalMs?: number;
  /** A bound descriptor that a previous process handed over. */
  readonly inherited?: Fd;
}

/** A tunnel of the config. */
export interface GuePeerOptions extends Admitted {
  readonly name: string;
  readonly remote: SocketAddress & { readonly family: 4 | 6 };
  /** Goes out in each datagram, and datagrams that come back from the remote have to bring the same. */
  readonly blob: Uint8Array;
}

const CONTEXTS_MAX_DEFAULT = 4096;
const REFUSAL_MS_DEFAULT = 10_000;

/**
 * Refused contexts that are remembered; apart from the others, so that bad datagrams cannot displace good
 * ones.
 */
const REFUSALS_MAX = 4096;

/** Contexts whose hook is thinking; beyond that, datagrams of new contexts are dropped. */
const PENDING_MAX = 64;

/** Packets that wait for a hook, of one context. Senders repeat: a first burst is enough. */
const HELD_MAX = 16;

/** A line for each refusal, but not more often than this: anybody can send datagrams. */
const REFUSAL_LOG_MS = 1000;

/** A context that the hook has not judged yet. */
interface Pending {
  readonly key: Uint8Array;
  readonly sockaddr: Uint8Array;
  /** Offsets and lengths of the packets that wait, in turn. */
  readonly held: number[];
}

/**
 * A UDP port for GUE: each datagram brings its context with it, so there is no tunnel to set up and nothing
 * to lose when either end starts again. Each pair of remote and context becomes a `GueTunnel` when it is
 * seen first.
 *
 * ```
 *   datagram ─ header ─► known pair ─────────────────────────────► its tunnel
 *                          │ no     ┌─ refused lately ─► drop
 *                          └────────┼─ hook is thinking ─► held, 16 packets at most
 *                                   └─ new: hook or JSON ─┬─ accepted ─► a new tunnel
 *                                                         └─ refused ──► remembered
 * ```
 */
export class GuePort implements DatagramReceiver {
  readonly name: string;
  readonly #host: TunnelHost;
  readonly #options: GuePortOptions;
  readonly #socket: GueSocket;
  readonly #known: ContextCache;
  readonly #configured: ContextCache;
  readonly #refused: ContextCache;
  /** By the number that the caches hold; free places are null. */
  readonly #tunnels: (GueTunnel | null)[] = [];
  readonly #freePlaces: number[] = [];
  readonly #pending = new Map<string, Pending>();
  readonly #header = new GueHeader();
  /** The remote of the datagram in hand, in the form of the caches' keys. */
  readonly #remote: number;
  #serial = 0;
  #lastRefusalAt = Number.NEGATIVE_INFINITY;
  #refusedSince = 0;
  #closed = false;

  /** @throws RAMP_LISTEN when the address cannot be bound. */
  constructor(host: TunnelHost, options: GuePortOptions) {
    this.#host = host;
    this.#options = options;
    this.name = options.name;
    const { io } = host.worker;
    const seed = randomInt(2 ** 32);
    this.#known = new ContextCache(options.contextsMax ?? CONTEXTS_MAX_DEFAULT, seed);
    this.#configured = new ContextCache(CONFIGURED_MAX, seed);
    this.#refused = new ContextCache(REFUSALS_MAX, seed);
    this.#remote = io.arena.reserve(REMOTE_BYTES);
    this.#socket = new GueSocket(host.worker, this, options);
    host.log({ event: 'listening', tunnel: this.name, text: formatSocketAddress(this.address) });
    this.#socket.start();
  }

  /** Where it is bound; the port is the kernel's choice when the config said 0. */
  get address(): SocketAddress {
    return this.#host.worker.io.localAddress(this.#socket.fd);
  }

  get fd(): Fd {
    return this.#socket.fd;
  }

  /** Pairs of remote and context that are open, those of the config included. */
  get tunnelCount(): number {
    return this.#tunnels.length - this.#freePlaces.length;
  }

  /** A tunnel of the config: an off-ramp that needs no datagram first. @throws RAMP_CONTEXT, RAMP_LIMIT */
  openPeer(peer: GuePeerOptions): GueTunnel {
    const { view, bytes } = this.#host.worker.io.arena;
    const sockaddr = this.#sockaddrOf(peer.remote);
    this.#setRemote(view, sockaddr);
    const key = new Uint8Array(REMOTE_BYTES + peer.blob.length);
    key.set(bytes.subarray(this.#remote, this.#remote + REMOTE_BYTES));
    key.set(peer.blob, REMOTE_BYTES);
    return this.#openTunnel(this.#configured, peer.name, { key, sockaddr, admitted: peer });
  }

  /** Closes all tunnels and the socket; with `keep` the descriptor stays open for a new process. */
  close(keep = false): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const tunnel of this.#tunnels) tunnel?.end('the port was closed');
    for (const pending of this.#pending.values()) this.#releaseHeld(pending);
    this.#pending.clear();
    this.#socket.close(keep);
  }

  onDatagram(offset: number, length: number, address: number): void {
    const { worker, registry, sink } = this.#host;
    const { view, bytes } = worker.io.arena;
    const header = this.#header;
    // A packet of the same batch may have closed the port.
    const reason = this.#closed ? DropReason.TunnelClosed : readGueHeader(view, offset, length, header);
    if (reason !== DropReason.None) {
      this.#drop(offset, reason);
      return;
    }
    this.#copyRemote(view, address);
    const { contextOffset, contextLength } = header;
    let cache = this.#known;
    let entry = cache.find(bytes, this.#remote, contextOffset, contextLength);
    if (entry < 0) {
      cache = this.#configured;
      entry = cache.find(bytes, this.#remote, contextOffset, contextLength);
    }
    if (entry < 0) {
      this.#onUnknown(offset, address);
      return;
    }
    const tunnel = this.#tunnels[cache.valueOf(entry)] as GueTunnel;
    registry.countIn(tunnel.index, header.packetLength);
    clearVirtioHeader(view, header.packetOffset);
    sink.onPacket(tunnel, header.packetOffset, header.packetLength);
  }

  onDatagramBatchEnd(): void {
    this.#host.sink.onBatchEnd();
  }

  onDatagramsLost(count: number): void {
    const { drops } = this.#host.worker.stats;
    drops[DropReason.NoBuffer] = (drops[DropReason.NoBuffer] as number) + count;
  }

  /** A pair that has no tunnel. Cold, but anybody can make it run: what it costs is bounded. */
  #onUnknown(slot: number, address: number): void {
    const { worker } = this.#host;
    const { bytes } = worker.io.arena;
    const { contextOffset, contextLength } = this.#header;
    if (this.#options.accept === false) {
      this.#drop(slot, DropReason.BadContext);
      return;
    }
    const refusal = this.#refused.find(bytes, this.#remote, contextOffset, contextLength);
    if (refusal >= 0) {
      // Ends of refusals are kept in seconds, which fit the cache's numbers.
      if (worker.io.now() < this.#refused.valueOf(refusal) * 1000) {
        this.#drop(slot, DropReason.BadContext);
        return;
      }
      this.#refused.delete(refusal);
    }
    const key = new Uint8Array(REMOTE_BYTES + contextLength);
    key.set(bytes.subarray(this.#remote, this.#remote + REMOTE_BYTES));
    key.set(bytes.subarray(contextOffset, contextOffset + contextLength), REMOTE_BYTES);
    const name = Buffer.from(key).toString('latin1');
    let pending = this.#pending.get(name);
    if (pending === undefined) {
      if (this.#pending.size >= PENDING_MAX) {
        this.#drop(slot, DropReason.NoBuffer);
        return;
      }
      const family = worker.io.arena.view.getUint16(address, true);
      const length = family === AddressFamily.Inet ? SOCKADDR_IN_BYTES : SOCKADDR_IN6_BYTES;
      pending = { key, sockaddr: bytes.slice(address, address + length), held: [] };
      this.#pending.set(name, pending);
      this.#hold(pending, slot);
      this.#ask(name, pending);
      return;
    }
    this.#hold(pending, slot);
  }

  #hold(pending: Pending, slot: number): void {
    if (pending.held.length >= HELD_MAX * 2) this.#drop(slot, DropReason.NoBuffer);
    else pending.held.push(this.#header.packetOffset, this.#header.packetLength);
  }

  #ask(name: string, pending: Pending): void {
    const blob = pending.key.slice(REMOTE_BYTES);
    const answer = this.#host.admission.admit(blob, this.#options);
    if (answer instanceof Promise) answer.then((late) => this.#settle(name, pending, late, true));
    else this.#settle(name, pending, answer, false);
  }

  #settle(name: string, pending: Pending, answer: Admitted | Refusal, isLate: boolean): void {
    if (!this.#pending.delete(name)) return;
    if (isRefusal(answer)) {
      this.#refuse(pending, answer);
      return;
    }
    let tunnel: GueTunnel;
    try {
      const { key, sockaddr } = pending;
      const tunnelName = `${this.name}#${++this.#serial} ${addressText(sockaddr)}`;
      tunnel = this.#openTunnel(this.#known, tunnelName, { key, sockaddr, admitted: answer });
    } catch (error) {
      this.#refuse(pending, { refused: (error as Error).message, drop: DropReason.BadContext });
      return;
    }
    const { sink, registry, worker } = this.#host;
    for (let at = 0; at < pending.held.length; at += 2) {
      const offset = pending.held[at] as number;
      const length = pending.held[at + 1] as number;
      registry.countIn(tunnel.index, length);
      clearVirtioHeader(worker.io.arena.view, offset);
      sink.onPacket(tunnel, offset, length);
    }
    if (isLate) sink.onBatchEnd();
  }

  #refuse(pending: Pending, refusal: Refusal): void {
    const { worker } = this.#host;
    const { drops } = worker.stats;
    const count = this.#releaseHeld(pending);
    drops[refusal.drop] = (drops[refusal.drop] as number) + count;
    const now = worker.io.now();
    this.#remember(pending.key, Math.ceil((now + (this.#options.refusalMs ?? REFUSAL_MS_DEFAULT)) / 1000));
    this.#refusedSince++;
    if (now - this.#lastRefusalAt < REFUSAL_LOG_MS) return;
    this.#lastRefusalAt = now;
    const more = this.#refusedSince > 1 ? ` (${this.#refusedSince} since the last line)` : '';
    this.#refusedSince = 0;
    const from = addressText(pending.sockaddr);
    tunnelRefused(this.#host, this.name, `${from}: ${refusal.refused}${more}`);
  }

  #remember(key: Uint8Array, untilSeconds: number): void {
    const oldest = this.#refused.oldestIfFull;
    if (oldest >= 0) this.#refused.delete(oldest);
    this.#refused.add(key, 0, REMOTE_BYTES, key.length - REMOTE_BYTES, untilSeconds);
  }

  #openTunnel(
    cache: ContextCache,
    name: string,
    pair: { key: Uint8Array; sockaddr: Uint8Array; admitted: Admitted },
  ): GueTunnel {
    const { key, sockaddr, admitted } = pair;
    const header = makeGueHeader(key.slice(REMOTE_BYTES));
    const oldest = cache.oldestIfFull;
    if (oldest >= 0) {
      const victim = this.#tunnels[cache.valueOf(oldest)] as GueTunnel;
      victim.end('another context needed its place; raise contexts_max');
    }
    let place = 0;
    const tunnel = new GueTunnel(this.#host, this.#socket, {
      context: admitted.context,
      network: admitted.network,
      name,
      mtu: this.#options.mtu,
      sockaddr,
      header,
      onClosed: () => {
        cache.delete(cache.find(key, 0, REMOTE_BYTES, key.length - REMOTE_BYTES));
        this.#tunnels[place] = null;
        this.#freePlaces.push(place);
      },
    });
    place = this.#freePlaces.pop() ?? this.#tunnels.length;
    this.#tunnels[place] = tunnel;
    cache.add(key, 0, REMOTE_BYTES, key.length - REMOTE_BYTES, place);
    return tunnel;
  }

  /** Writes the key form of the sockaddr at `address`: 16 bytes of address, IPv4 mapped, and the port. */
  #copyRemote(view: DataView, address: number): void {
    const to = this.#remote;
    if (view.getUint16(address, true) === AddressFamily.Inet) {
      view.setInt32(to, 0);
      view.setInt32(to + 4, 0);
      view.setInt32(to + 8, 0xffff);
      view.setInt32(to + 12, view.getInt32(address + 4));
    } else {
      for (let i = 0; i < 16; i += 4) view.setInt32(to + i, view.getInt32(address + 8 + i));
    }
    view.setUint16(to + 16, view.getUint16(address + 2));
  }

  #setRemote(view: DataView, sockaddr: Uint8Array): void {
    const { io, packets } = this.#host.worker;
    const slot = packets.acquire();
    assert(slot >= 0, 'no packet slot at start');
    io.arena.bytes.set(sockaddr, slot);
    this.#copyRemote(view, slot);
    packets.release(slot);
  }

  /** The sockaddr that this socket sends to: an IPv6 socket reaches IPv4 by mapped addresses. */
  #sockaddrOf(remote: SocketAddress & { readonly family: 4 | 6 }): Uint8Array {
    const scratch = new DataView(new ArrayBuffer(SOCKADDR_IN6_BYTES));
    const mapped = this.#options.listen.family === 6 && remote.family === 4;
    const address = mapped ? { ...remote, family: 6 as const, address: `::ffff:${remote.address}` } : remote;
    const length = writeSocketAddress(scratch, 0, address);
    return new Uint8Array(scratch.buffer, 0, length);
  }

  #releaseHeld(pending: Pending): number {
    const { packets } = this.#host.worker;
    for (let at = 0; at < pending.held.length; at += 2) packets.release(pending.held[at] as number);
    const count = pending.held.length / 2;
    pending.held.length = 0;
    return count;
  }

  #drop(slot: number, reason: DropReason): void {
    countDrop(this.#host, reason);
    this.#host.worker.packets.release(slot);
  }
}

/** Most tunnels of the config on one port. */
const CONFIGURED_MAX = 1024;

function addressText(sockaddr: Uint8Array): string {
  const view = new DataView(sockaddr.buffer, sockaddr.byteOffset, sockaddr.byteLength);
  return formatSocketAddress(readSocketAddress(view, 0, sockaddr.length));
}
