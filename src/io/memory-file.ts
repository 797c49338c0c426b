/**
 * What the descriptors of a memory engine refer to: streams, packet sockets, pipes and listeners. A file moves bytes
 * at once or answers −EAGAIN; waiting is done by the operations in its queues, which `changed` sets going again.
 */
import { assert } from '#base/assert.ts';
import type { SocketAddress } from '#base/ip.ts';

import { Errno, PollMask, type SocketKind } from './io.ts';
import type { InetAddress, MemoryWorld, Task } from './memory-world.ts';

/** Capacity of each direction of a stream unless an option says otherwise, as a Unix socket's. */
const STREAM_BYTES = 64 * 1024;
const PIPE_BYTES = 64 * 1024;
const PACKETS_MAX = 256;
const EDESTADDRREQ = 89;

/** What is known of a message beside its bytes; filled by `read`. */
export interface ReceiveInfo {
  from: SocketAddress | null;
  /** Where a datagram was sent to. */
  to: InetAddress | null;
  truncated: boolean;
  /** Files that came along, each with a reference that the receiver owns. */
  files: MemoryFile[];
  /** Look without taking (MSG_PEEK). */
  peek: boolean;
}

export function receiveInfo(): ReceiveInfo {
  return { from: null, to: null, truncated: false, files: [], peek: false };
}

/** An operation that waits in a queue: it is over when `attempt` says so. */
export interface Waiter {
  /** True when the operation is over; false leaves it at the head of its queue. */
  attempt(): boolean;
}

/** Operations that wait for one direction of a file. They are tried in the order in which they were started. */
export class WaitQueue implements Task {
  scheduled = false;
  readonly waiters: Waiter[] = [];
  readonly #world: MemoryWorld;

  constructor(world: MemoryWorld) {
    this.#world = world;
  }

  add(waiter: Waiter): void {
    this.waiters.push(waiter);
    this.#world.schedule(this);
  }

  remove(waiter: Waiter): void {
    const index = this.waiters.indexOf(waiter);
    if (index >= 0) this.waiters.splice(index, 1);
  }

  wake(): void {
    if (this.waiters.length > 0) this.#world.schedule(this);
  }

  /** One operation at a time, so that chance can put those of other files between. */
  runTask(): void {
    const waiter = this.waiters[0];
    if (waiter === undefined) return;
    if (waiter.attempt()) {
      this.remove(waiter);
      this.wake();
    }
  }
}

export abstract class MemoryFile {
  /** Descriptors, messages under way and queues that refer to the file; it ends with the last. */
  references = 1;
  readonly readers: WaitQueue;
  readonly writers: WaitQueue;
  /** Tasks of polls, and queues elsewhere that wait for this file (splice, connect). */
  readonly watchers = new Set<Task>();
  /** Counts changes, so that a poll tells a new one from one it has reported. */
  edges = 0;
  lingerZero = false;
  reusePort = false;
  v6Only = false;
  local: SocketAddress | null = null;
  remote: SocketAddress | null = null;
  readonly options = new Map<string, number>();
  protected readonly world: MemoryWorld;

  constructor(world: MemoryWorld) {
    this.world = world;
    this.readers = new WaitQueue(world);
    this.writers = new WaitQueue(world);
  }

  /** PollMask bits that hold at present. */
  abstract readiness(): number;
  /** Bytes moved, 0 at the end, or a negative errno. */
  abstract read(target: Uint8Array, info: ReceiveInfo | null): number;
  /** Bytes taken, which may be fewer than given on a stream, or a negative errno. */
  abstract write(source: Uint8Array, files?: readonly MemoryFile[]): number;
  /** The last reference is gone. */
  protected abstract end(): void;

  /** Bytes that `write` would take; packets take any. */
  room(): number {
    return Number.MAX_SAFE_INTEGER;
  }

  /** Pending error as a positive errno; reading it clears it. */
  takeError(): number {
    return 0;
  }

  shutdownWrite(): void {}

  setCapacity(_bytes: number): void {}

  hold(): this {
    this.references++;
    return this;
  }

  release(): void {
    assert(this.references > 0, 'a file was released too often');
    if (--this.references === 0) this.end();
  }

  /** Something that an operation may wait for has happened. */
  changed(): void {
    this.edges++;
    this.readers.wake();
    this.writers.wake();
    for (const task of this.watchers) this.world.schedule(task);
  }
}

/** Bytes in order, with a capacity, and files attached to places among them. */
class ByteQueue {
  capacity: number;
  #bytes = new Uint8Array(4096);
  #start = 0;
  #length = 0;
  /** Bytes that ever went out; the position of the next one. */
  #position = 0;
  readonly #attached: { readonly position: number; readonly files: readonly MemoryFile[] }[] = [];

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get length(): number {
    return this.#length;
  }

  get room(): number {
    return Math.max(0, this.capacity - this.#length);
  }

  push(source: Uint8Array, files: readonly MemoryFile[]): number {
    const count = Math.min(this.room, source.length);
    if (count === 0) return 0;
    if (files.length > 0) this.#attached.push({ position: this.#position + this.#length, files });
    if (this.#start + this.#length + count > this.#bytes.length) this.#compact(count);
    this.#bytes.set(source.subarray(0, count), this.#start + this.#length);
    this.#length += count;
    return count;
  }

  #compact(more: number): void {
    const kept = this.#bytes.subarray(this.#start, this.#start + this.#length);
    const needed = this.#length + more;
    const target = needed <= this.#bytes.length ? this.#bytes : new Uint8Array(2 * needed);
    target.set(kept);
    this.#bytes = target;
    this.#start = 0;
  }

  /** Takes up to `target.length` bytes, but never across a place with files: those come with the bytes they were sent with. */
  pull(target: Uint8Array, info: ReceiveInfo | null): number {
    let limit = Math.min(target.length, this.#length);
    const first = this.#attached[0];
    const ahead = first?.position === this.#position ? this.#attached[1] : first;
    if (ahead !== undefined) limit = Math.min(limit, ahead.position - this.#position);
    target.set(this.#bytes.subarray(this.#start, this.#start + limit));
    if (info?.peek === true) return limit;
    if (first?.position === this.#position && limit > 0) {
      this.#attached.shift();
      if (info !== null) info.files.push(...first.files);
      else for (const file of first.files) file.release();
    }
    this.#start += limit;
    this.#length -= limit;
    this.#position += limit;
    return limit;
  }

  /** Drops everything. */
  clear(): void {
    for (const { files } of this.#attached) for (const file of files) file.release();
    this.#attached.length = 0;
    this.#position += this.#length;
    this.#length = 0;
  }
}

/** A TCP or Unix stream socket, from its birth on. */
export class StreamFile extends MemoryFile {
  readonly kind: 'tcp4' | 'tcp6' | 'unix-stream';
  readonly #inbound = new ByteQueue(STREAM_BYTES);
  #peer: StreamFile | null = null;
  #connected = false;
  /** The peer sends no more. */
  #ended = false;
  #writeShut = false;
  #error = 0;
  /** The peer is gone for good: what is written gets nowhere. */
  #broken = false;

  constructor(world: MemoryWorld, kind: 'tcp4' | 'tcp6' | 'unix-stream') {
    super(world);
    this.kind = kind;
  }

  get connected(): boolean {
    return this.#connected;
  }

  /** Joins two ends. */
  join(peer: StreamFile): void {
    assert(!this.#connected && !peer.#connected);
    this.#peer = peer;
    peer.#peer = this;
    this.#connected = true;
    peer.#connected = true;
    this.changed();
    peer.changed();
  }

  readiness(): number {
    if (!this.#connected) return PollMask.Out | PollMask.HangUp;
    let mask = 0;
    if (this.#inbound.length > 0 || this.#ended || this.#error !== 0) mask |= PollMask.In;
    if (this.room() > 0) mask |= PollMask.Out;
    if (this.#ended) mask |= PollMask.ReadHangUp;
    if (this.#error !== 0) mask |= PollMask.Error;
    if ((this.#ended && this.#writeShut) || this.#broken) mask |= PollMask.HangUp;
    return mask;
  }

  override room(): number {
    const peer = this.#peer;
    // What would fail does not wait.
    if (peer === null || this.#error !== 0 || this.#writeShut) return Number.MAX_SAFE_INTEGER;
    return peer.#inbound.room;
  }

  read(target: Uint8Array, info: ReceiveInfo | null): number {
    if (this.#inbound.length > 0) {
      const count = this.#inbound.pull(target, info);
      this.#peer?.changed();
      return count;
    }
    if (this.#error !== 0) return -this.takeError();
    if (!this.#connected) return -Errno.ENOTCONN;
    return this.#ended ? 0 : -Errno.EAGAIN;
  }

  write(source: Uint8Array, files: readonly MemoryFile[] = []): number {
    if (this.#error !== 0) return -this.takeError();
    if (!this.#connected && this.kind === 'unix-stream') return -Errno.ENOTCONN;
    if (!this.#connected || this.#writeShut || this.#broken) return -Errno.EPIPE;
    const peer = this.#peer;
    if (peer === null) {
      // TCP learns by the answer to this segment that nobody is there any more; a Unix socket knows at once.
      this.#broken = true;
      this.changed();
      return this.kind === 'unix-stream' ? -Errno.EPIPE : source.length;
    }
    const count = peer.#inbound.push(source, files);
    if (count === 0 && source.length > 0) return -Errno.EAGAIN;
    peer.changed();
    return count;
  }

  override takeError(): number {
    const error = this.#error;
    this.#error = 0;
    return error;
  }

  /** A connection attempt failed; the socket can be asked why. */
  fail(errno: number): void {
    this.#error = errno;
    this.changed();
  }

  override shutdownWrite(): void {
    if (!this.#connected || this.#writeShut) return;
    this.#writeShut = true;
    const peer = this.#peer;
    if (peer !== null) {
      peer.#ended = true;
      peer.changed();
    }
    this.changed();
  }

  override setCapacity(bytes: number): void {
    this.#inbound.capacity = Math.max(bytes, 1);
    this.#peer?.changed();
  }

  /** The connection breaks, as by a RST segment. What had arrived can still be read. */
  reset(): void {
    if (this.#broken) return;
    this.#error = Errno.ECONNRESET;
    this.#ended = true;
    this.#broken = true;
    this.#peer = null;
    this.changed();
  }

  protected end(): void {
    const peer = this.#peer;
    // RFC 2525 section 2.17: data that nobody will read is answered by a reset.
    const abrupt = this.lingerZero || this.#inbound.length > 0;
    this.#inbound.clear();
    this.#peer = null;
    if (peer === null) return;
    peer.#peer = null;
    if (abrupt && this.kind !== 'unix-stream') {
      peer.reset();
      return;
    }
    if (abrupt) peer.#error = Errno.ECONNRESET;
    peer.#ended = true;
    peer.changed();
  }
}

interface Packet {
  readonly bytes: Uint8Array;
  readonly from: SocketAddress | null;
  readonly to: InetAddress | null;
  readonly files: readonly MemoryFile[];
}

export type PacketKind = Exclude<SocketKind, 'tcp4' | 'tcp6' | 'unix-stream'> | 'device';

/** A socket whose reads and writes are whole packets: SEQPACKET, datagrams, and one end of a packet device. */
export class PacketFile extends MemoryFile {
  readonly kind: PacketKind;
  readonly #inbound: Packet[] = [];
  #capacity = PACKETS_MAX;
  #peer: PacketFile | null = null;
  #ended = false;
  #writeShut = false;
  #error = 0;

  constructor(world: MemoryWorld, kind: PacketKind) {
    super(world);
    this.kind = kind;
  }

  get #isUdp(): boolean {
    return this.kind === 'udp4' || this.kind === 'udp6';
  }

  join(peer: PacketFile): void {
    this.#peer = peer;
    peer.#peer = this;
    this.changed();
    peer.changed();
  }

  /** A datagram socket of a Unix path sends to `peer` from here on, which knows nothing of it. */
  aim(peer: PacketFile): void {
    this.#peer = peer;
    this.changed();
  }

  get connected(): boolean {
    return this.#peer !== null;
  }

  readiness(): number {
    let mask = 0;
    if (this.#inbound.length > 0 || this.#ended || this.#error !== 0) mask |= PollMask.In;
    if (this.room() > 0) mask |= PollMask.Out;
    if (this.#ended) mask |= PollMask.HangUp | PollMask.ReadHangUp;
    if (this.#error !== 0) mask |= PollMask.Error;
    return mask;
  }

  override room(): number {
    const peer = this.#peer;
    if (peer === null || this.#writeShut) return Number.MAX_SAFE_INTEGER;
    return peer.#inbound.length < peer.#capacity ? Number.MAX_SAFE_INTEGER : 0;
  }

  read(target: Uint8Array, info: ReceiveInfo | null): number {
    const packet = this.#inbound[0];
    if (packet === undefined) {
      if (this.#error !== 0) return -this.takeError();
      if (this.#ended) return 0;
      return this.kind === 'unix-seqpacket' && this.#peer === null ? -Errno.ENOTCONN : -Errno.EAGAIN;
    }
    const length = Math.min(target.length, packet.bytes.length);
    target.set(packet.bytes.subarray(0, length));
    if (info !== null) {
      info.from = packet.from;
      info.to = packet.to;
      info.truncated = length < packet.bytes.length;
    }
    if (info?.peek === true) return length;
    this.#inbound.shift();
    if (info !== null) info.files.push(...packet.files);
    else for (const file of packet.files) file.release();
    this.#peer?.changed();
    return length;
  }

  write(source: Uint8Array, files: readonly MemoryFile[] = []): number {
    if (this.#error !== 0) return -this.takeError();
    if (this.#isUdp) {
      const remote = this.remote as InetAddress | null;
      return remote === null ? -EDESTADDRREQ : this.sendTo(source, remote, null);
    }
    const peer = this.#peer;
    if (this.#writeShut) return -Errno.EPIPE;
    if (peer === null) return this.kind === 'unix-dgram' ? -Errno.ENOTCONN : -Errno.EPIPE;
    if (peer.references === 0) return -Errno.ECONNREFUSED;
    if (!peer.#push({ bytes: source.slice(), from: this.local, to: null, files })) return -Errno.EAGAIN;
    return source.length;
  }

  /**
   * Sends a UDP datagram, from `source` instead of the own address if that is given. One that finds no room is lost, one that
   * finds nobody is an error for a connected sender.
   */
  sendTo(bytes: Uint8Array, to: InetAddress, source: InetAddress | null): number {
    if (this.#error !== 0) return -this.takeError();
    if (bytes.length > 65_507) return -Errno.EMSGSIZE;
    const from = source ?? (this.local as InetAddress);
    const target = this.world.findDatagramSocket(to, from);
    if (target !== null) target.#push({ bytes: bytes.slice(), from, to, files: [] });
    else if (this.remote !== null) this.#error = Errno.ECONNREFUSED;
    return bytes.length;
  }

  /** Sends to a Unix datagram socket by path. */
  sendToFile(source: Uint8Array, target: PacketFile): number {
    const packet = { bytes: source.slice(), from: this.local, to: null, files: [] };
    return target.#push(packet) ? source.length : -Errno.EAGAIN;
  }

  #push(packet: Packet): boolean {
    if (this.#inbound.length >= this.#capacity) return false;
    this.#inbound.push(packet);
    this.changed();
    return true;
  }

  override takeError(): number {
    const error = this.#error;
    this.#error = 0;
    return error;
  }

  override shutdownWrite(): void {
    if (this.#writeShut) return;
    this.#writeShut = true;
    if (this.kind === 'unix-seqpacket' && this.#peer !== null) {
      this.#peer.#ended = true;
      this.#peer.changed();
    }
  }

  /** A packet counts as 2 KiB, the least that the kernel charges for one of some size. */
  override setCapacity(bytes: number): void {
    this.#capacity = Math.max(1, Math.floor(bytes / 2048));
    this.#peer?.changed();
  }

  protected end(): void {
    for (const packet of this.#inbound) for (const file of packet.files) file.release();
    this.#inbound.length = 0;
    const peer = this.#peer;
    this.#peer = null;
    if (peer !== null && peer.#peer === this) {
      peer.#peer = null;
      if (this.kind === 'unix-seqpacket') peer.#ended = true;
      peer.changed();
    }
    if (this.local?.family === 'unix') {
      if (this.world.unix.get(this.local.path) === this) this.world.unix.delete(this.local.path);
    } else if (this.local !== null) {
      removeFrom(this.world.datagramSockets, this.local.port, this);
    }
  }
}

/** What the two ends of a pipe share. */
class PipeBuffer {
  readonly bytes: ByteQueue;
  reader: PipeFile | null = null;
  writer: PipeFile | null = null;

  constructor(capacity: number) {
    this.bytes = new ByteQueue(capacity);
  }
}

export class PipeFile extends MemoryFile {
  readonly #buffer: PipeBuffer;
  readonly #isReader: boolean;

  private constructor(world: MemoryWorld, buffer: PipeBuffer, isReader: boolean) {
    super(world);
    this.#buffer = buffer;
    this.#isReader = isReader;
  }

  /** Read end and write end. */
  static pair(world: MemoryWorld, bytes: number | undefined): [PipeFile, PipeFile] {
    const buffer = new PipeBuffer(Math.max(bytes ?? PIPE_BYTES, 4096));
    buffer.reader = new PipeFile(world, buffer, true);
    buffer.writer = new PipeFile(world, buffer, false);
    return [buffer.reader, buffer.writer];
  }

  readiness(): number {
    const { bytes, reader, writer } = this.#buffer;
    if (this.#isReader) {
      return (bytes.length > 0 ? PollMask.In : 0) | (writer === null ? PollMask.HangUp : 0);
    }
    return (bytes.room > 0 || reader === null ? PollMask.Out : 0) | (reader === null ? PollMask.Error : 0);
  }

  override room(): number {
    if (this.#isReader) return 0;
    return this.#buffer.reader === null ? Number.MAX_SAFE_INTEGER : this.#buffer.bytes.room;
  }

  read(target: Uint8Array, info: ReceiveInfo | null): number {
    const { bytes, writer } = this.#buffer;
    if (!this.#isReader) return -Errno.EBADF;
    if (bytes.length === 0) return writer === null ? 0 : -Errno.EAGAIN;
    const count = bytes.pull(target, info);
    writer?.changed();
    return count;
  }

  write(source: Uint8Array): number {
    const { bytes, reader } = this.#buffer;
    if (this.#isReader) return -Errno.EBADF;
    if (reader === null) return -Errno.EPIPE;
    const count = bytes.push(source, []);
    if (count === 0 && source.length > 0) return -Errno.EAGAIN;
    reader.changed();
    return count;
  }

  protected end(): void {
    const buffer = this.#buffer;
    if (this.#isReader) {
      buffer.reader = null;
      buffer.bytes.clear();
      buffer.writer?.changed();
    } else {
      buffer.writer = null;
      buffer.reader?.changed();
    }
  }
}

/** A listening socket with the connections that wait to be accepted. */
export class ListenerFile extends MemoryFile {
  readonly seqpacket: boolean;
  readonly backlog: number;
  readonly #waiting: (StreamFile | PacketFile)[] = [];

  constructor(world: MemoryWorld, local: SocketAddress, seqpacket: boolean, backlog: number) {
    super(world);
    this.local = local;
    this.seqpacket = seqpacket;
    this.backlog = Math.max(1, backlog);
  }

  get isFull(): boolean {
    return this.#waiting.length >= this.backlog;
  }

  /** Puts the server's end of a new connection into the queue, which owns it. */
  enqueue(file: StreamFile | PacketFile): void {
    assert(!this.isFull);
    this.#waiting.push(file);
    this.changed();
  }

  /** The next connection, owned by the caller; null when none waits. */
  dequeue(): StreamFile | PacketFile | null {
    const file = this.#waiting.shift() ?? null;
    // Those who found the queue full may try again.
    if (file !== null) for (const task of this.watchers) this.world.schedule(task);
    return file;
  }

  readiness(): number {
    return this.#waiting.length > 0 ? PollMask.In : 0;
  }

  read(): number {
    return -Errno.ENOTCONN;
  }

  write(): number {
    return -Errno.EPIPE;
  }

  protected end(): void {
    for (const file of this.#waiting.splice(0)) {
      file.lingerZero = true;
      file.release();
    }
    for (const task of this.watchers) this.world.schedule(task);
    if (this.local?.family === 'unix') this.world.unix.delete(this.local.path);
    else if (this.local !== null) removeFrom(this.world.listeners, this.local.port, this);
  }
}

function removeFrom<T>(table: Map<number, T[]>, port: number, file: T): void {
  const left = (table.get(port) ?? []).filter((other) => other !== file);
  if (left.length === 0) table.delete(port);
  else table.set(port, left);
}
