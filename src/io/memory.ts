/**
 * The engine without a kernel: for tests and simulations. Everything happens in a `MemoryWorld`, in an order that
 * its seed decides, at a time that only the test moves; any operation can be made to fail.
 *
 * ```
 *   const world = new MemoryWorld({ seed: 7 });
 *   const io = new MemoryEngine(world);
 *   … start operations …
 *   await world.advance(1000);    // everything that can happen within a second has happened
 * ```
 *
 * Several engines may share a world, as processes share a kernel: they reach each other by address and can pass
 * descriptors.
 */
import { assert } from '#base/assert.ts';
import type { RampartError } from '#base/error.ts';
import { formatSocketAddress, type SocketAddress } from '#base/ip.ts';

import { Arena, type SlotPool } from './arena.ts';
import {
  CompletionFlag,
  Errno,
  PollMask,
  type Completion,
  type Fd,
  type Io,
  type IoAudit,
  type ListenOptions,
  type OperationId,
  type SocketKind,
  type SocketOption,
  type TimerId,
} from './io.ts';
import { FaultPlan, type FaultKind } from './memory-fault.ts';
import {
  ListenerFile,
  PacketFile,
  PipeFile,
  receiveInfo,
  StreamFile,
  type MemoryFile,
  type ReceiveInfo,
  type WaitQueue,
} from './memory-file.ts';
import { gather, readMessage, scatter, vectorBytes, writeMessage } from './memory-message.ts';
import {
  bindConflict,
  canonical,
  deliver,
  MemoryWorld,
  presented,
  type InetAddress,
  type Task,
} from './memory-world.ts';
import { systemError } from './system-error.ts';

export interface MemoryEngineOptions {
  /** Bytes of the arena. Default 64 MiB, committed when touched. */
  readonly arenaBytes?: number;
  /** Descriptors that may be open at once; more fail with EMFILE. Default 65,536. */
  readonly descriptorsMax?: number;
  /** Receives and sends move random parts of what they could. Default false. */
  readonly shortTransfers?: boolean;
}

/** After a shortage of descriptors accepting goes on after this virtual time, as in the other engines. */
const ACCEPT_PAUSE_MS = 50;
const MSG_PEEK = 2;
const MSG_DONTWAIT = 0x40;
const MSG_ERRQUEUE = 0x2000;
/** Operations that `flush` remembers; a program that never flushes must not gather them for ever. */
const FRESH_MAX = 4096;
const SPLICE_BYTES_MAX = 1 << 20;
/** Descriptors 0 to 2 are not the engine's. */
const FIRST_DESCRIPTOR = 3;
const ENOTSOCK = 88;
const EDESTADDRREQ = 89;

/** What the operation does when it is its turn: a result, or WAIT. */
const WAIT = Number.MIN_SAFE_INTEGER;

interface Descriptor {
  readonly file: MemoryFile;
  readonly operations: Set<Operation>;
  closing: boolean;
}

export class MemoryEngine implements Io {
  readonly kind = 'memory';
  readonly arena: Arena;
  readonly world: MemoryWorld;
  /** What is to fail. */
  readonly faults = new FaultPlan();
  readonly #descriptors = new Map<Fd, Descriptor>();
  readonly #operations = new Map<OperationId, Operation>();
  readonly #timers = new Set<TimerId>();
  readonly #descriptorsMax: number;
  readonly #shortTransfers: boolean;
  /** Started since the last flush; those that complete more than once are not among them. */
  readonly #fresh: Operation[] = [];
  #nextOperation = 1;
  #stopped = false;

  constructor(world: MemoryWorld = new MemoryWorld(), options: MemoryEngineOptions = {}) {
    this.world = world;
    this.arena = new Arena(new ArrayBuffer(options.arenaBytes ?? 1 << 26), 0);
    // Addresses are offsets here, and a null pointer must be nobody's.
    this.arena.reserve(64);
    this.#descriptorsMax = options.descriptorsMax ?? 65_536;
    this.#shortTransfers = options.shortTransfers ?? false;
  }

  // --- time --------------------------------------------------------------------------------------------------------

  now(): number {
    return this.world.now;
  }

  refreshNow(): number {
    return this.world.now;
  }

  timer(delayMs: number, completion: Completion, tag: number): TimerId {
    assert(!this.#stopped);
    let timer = 0;
    const onCompletion = (): void => {
      this.#timers.delete(timer);
      completion.onCompletion(tag, 0, 0);
    };
    timer = this.world.timer(delayMs, { onCompletion }, 0);
    this.#timers.add(timer);
    return timer;
  }

  cancelTimer(timer: TimerId): void {
    if (this.#timers.delete(timer)) this.world.cancelTimer(timer);
  }

  // --- operations --------------------------------------------------------------------------------------------------

  accept(listener: Fd, completion: Completion, tag: number): OperationId {
    return this.#start('accept', listener, 'readers', completion, tag, (operation) => {
      const { file } = operation;
      if (!(file instanceof ListenerFile)) return -Errno.EINVAL;
      if ((file.readiness() & PollMask.In) === 0) return WAIT;
      const failure = this.faults.pass('accept') || (this.#isFull() ? Errno.EMFILE : 0);
      if (failure !== 0) {
        this.#pauseAccept(operation);
        deliver(completion, tag, -failure, CompletionFlag.More);
        return WAIT;
      }
      const accepted = file.dequeue() as StreamFile | PacketFile;
      deliver(completion, tag, this.#open(accepted), CompletionFlag.More);
      file.readers.wake();
      return WAIT;
    });
  }

  /** Takes the operation out of the listener's queue for a while. */
  #pauseAccept(operation: Operation): void {
    const queue = operation.file.readers;
    queue.remove(operation);
    this.world.after(ACCEPT_PAUSE_MS, () => {
      if (!operation.over) queue.add(operation);
    });
  }

  connect(fd: Fd, address: SocketAddress, completion: Completion, tag: number): OperationId {
    let silent = false;
    return this.#start('connect', fd, 'writers', completion, tag, ({ file, queue }) => {
      if (silent) return WAIT;
      if (file instanceof PacketFile && file.kind !== 'unix-seqpacket') return this.#aim(file, address);
      if (file instanceof StreamFile ? file.connected : (file as PacketFile).connected) return -Errno.EISCONN;
      if (address.family !== 'unix') {
        const reach = this.world.reach(address);
        silent = reach === 'hang';
        if (silent) return WAIT;
        if (reach !== 0) return reach as number;
      }
      const listener = this.#listenerAt(address);
      if (typeof listener === 'number') return listener;
      if (listener.isFull) {
        listener.watchers.add(queue as WaitQueue);
        return WAIT;
      }
      listener.watchers.delete(queue as WaitQueue);
      return this.#join(file, listener, address);
    });
  }

  #listenerAt(address: SocketAddress): ListenerFile | number {
    if (address.family !== 'unix') {
      return this.world.findListener(canonical(address)) ?? -Errno.ECONNREFUSED;
    }
    const file = this.world.unix.get(address.path);
    if (file === undefined) return address.path.startsWith('@') ? -Errno.ECONNREFUSED : -Errno.ENOENT;
    return file instanceof ListenerFile ? file : -Errno.ECONNREFUSED;
  }

  #join(file: MemoryFile, listener: ListenerFile, address: SocketAddress): number {
    if (file instanceof PacketFile) {
      if (!listener.seqpacket) return -91; // EPROTOTYPE
      const server = new PacketFile(this.world, 'unix-seqpacket');
      server.local = address;
      file.remote = address;
      file.join(server);
      listener.enqueue(server);
      return 0;
    }
    if (!(file instanceof StreamFile) || listener.seqpacket) return -91; // EPROTOTYPE
    const server = new StreamFile(
      this.world,
      address.family === 'unix' ? 'unix-stream' : listenerKind(listener),
    );
    if (address.family !== 'unix') {
      const remote = canonical(address);
      const local = (file.local as InetAddress | null) ?? this.#ownAddress(remote, this.world.listeners);
      file.local = local;
      server.remote = local;
      server.local = remote;
      file.remote = remote;
    } else {
      server.local = address;
      file.remote = address;
    }
    for (const [option, value] of listener.options) server.options.set(option, value);
    const capacity = listener.options.get('receive-buffer');
    if (capacity !== undefined) server.setCapacity(capacity);
    file.join(server);
    listener.enqueue(server);
    return 0;
  }

  /** Where an unbound socket sends from: the loopback address of the family, and a free port. */
  #ownAddress(remote: InetAddress, table: ReadonlyMap<number, readonly unknown[]>): InetAddress {
    const address = remote.family === 4 ? '127.0.0.1' : '::1';
    return { family: remote.family, address, port: this.world.freePort(table) };
  }

  /** Sets where a datagram socket sends to. */
  #aim(file: PacketFile, address: SocketAddress): number {
    if (address.family === 'unix') {
      const target = this.world.unix.get(address.path);
      if (!(target instanceof PacketFile)) return -Errno.ECONNREFUSED;
      file.aim(target);
      file.remote = address;
      return 0;
    }
    const remote = canonical(address);
    this.#bindUdp(file, remote);
    const local = file.local as InetAddress;
    if (local.address === '0.0.0.0' || local.address === '::') {
      file.local = { ...this.#ownAddress(remote, this.world.datagramSockets), port: local.port };
    }
    file.remote = remote;
    return 0;
  }

  /** Gives an unbound UDP socket an any-address and a port. */
  #bindUdp(file: PacketFile, remote: InetAddress): void {
    if (file.local !== null) return;
    const port = this.world.freePort(this.world.datagramSockets);
    const any = file.kind === 'udp6' ? '::' : '0.0.0.0';
    file.local = { family: file.kind === 'udp6' ? 6 : remote.family, address: any, port };
    pushTo(this.world.datagramSockets, port, file);
  }

  recv(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    assert(length > 0);
    return this.#start('recv', fd, 'readers', completion, tag, ({ file }) =>
      this.#wait(this.#receive(file, offset, length)),
    );
  }

  recvPooled(fd: Fd, pool: SlotPool, completion: Completion, tag: number): OperationId {
    return this.#start('recvPooled', fd, 'readers', completion, tag, (operation) => {
      const { file } = operation;
      const isReady = (file.readiness() & (PollMask.In | PollMask.HangUp | PollMask.Error)) !== 0;
      if (!isReady) return WAIT;
      const slot = pool.acquire();
      if (slot < 0) return -Errno.ENOBUFS;
      const result = this.#receive(file, slot, pool.slotBytes);
      if (result > 0) operation.flags = pool.indexOf(slot) << 16;
      else pool.release(slot);
      return this.#wait(result);
    });
  }

  send(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    assert(length > 0, 'a send has at least one byte');
    let sent = 0;
    return this.#start('send', fd, 'writers', completion, tag, ({ file }) => {
      const result = this.#transmit(file, offset + sent, length - sent);
      if (result < 0) return this.#wait(result);
      sent += result;
      if (sent === length) return length;
      file.writers.wake();
      return WAIT;
    });
  }

  read(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    return this.#start('read', fd, 'readers', completion, tag, ({ file }) =>
      this.#wait(this.#receive(file, offset, length)),
    );
  }

  write(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    return this.#start('write', fd, 'writers', completion, tag, ({ file }) => {
      const result = this.#transmit(file, offset, length);
      return file instanceof PacketFile ? result : this.#wait(result);
    });
  }

  readv(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId {
    return this.#start('readv', fd, 'readers', completion, tag, ({ file }) => {
      const bytes = new Uint8Array(vectorBytes(this.arena, vectors, count));
      const result = file.read(bytes, null);
      if (result > 0) scatter(this.arena, vectors, count, bytes.subarray(0, result));
      return this.#wait(result);
    });
  }

  writev(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId {
    return this.#start('writev', fd, 'writers', completion, tag, ({ file }) => {
      const result = file.write(gather(this.arena, vectors, count));
      return file instanceof PacketFile ? result : this.#wait(result);
    });
  }

  recvmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId {
    return this.#start('recvmsg', fd, 'readers', completion, tag, ({ file }) => {
      const result = this.#receiveMessage(file, message, flags);
      return (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) !== 0 ? result : this.#wait(result);
    });
  }

  sendmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId {
    return this.#start('sendmsg', fd, 'writers', completion, tag, ({ file }) => {
      const result = this.#sendMessage(file, message);
      return (flags & MSG_DONTWAIT) !== 0 ? result : this.#wait(result);
    });
  }

  splice(from: Fd, to: Fd, length: number, completion: Completion, tag: number): OperationId {
    const target = this.#descriptors.get(to)?.file;
    return this.#start('splice', from, 'readers', completion, tag, ({ file, queue }) => {
      if (target === undefined) return -Errno.EBADF;
      const result = this.#move(file, target, length);
      if (result !== -Errno.EAGAIN) {
        target.watchers.delete(queue as WaitQueue);
        return result;
      }
      // Room in the target is a reason to try again as well as data in the source.
      target.watchers.add(queue as WaitQueue);
      return WAIT;
    });
  }

  poll(fd: Fd, mask: number, multishot: boolean, completion: Completion, tag: number): OperationId {
    const wanted = mask | PollMask.Error | PollMask.HangUp;
    let reported = -1;
    const id = this.#start('poll', fd, null, completion, tag, (operation) => {
      const { file } = operation;
      const ready = file.readiness() & wanted;
      if (ready === 0 || file.edges === reported) return WAIT;
      reported = file.edges;
      if (!multishot) return ready;
      deliver(completion, tag, ready, CompletionFlag.More);
      return WAIT;
    });
    const operation = this.#operations.get(id);
    if (operation !== undefined && operation.result === null) operation.file.watchers.add(operation);
    return id;
  }

  cancel(id: OperationId): void {
    this.#operations.get(id)?.endWith(-Errno.ECANCELED);
  }

  /** Does what was started so far and can be done, as submitting it to a kernel would; it is delivered later. */
  flush(): void {
    for (const operation of this.#fresh) operation.performEarly();
    this.#fresh.length = 0;
  }

  /** Starts an operation; `queue` names the file's queue in which it waits for its turn. */
  #start(
    kind: FaultKind,
    fd: Fd,
    queue: 'readers' | 'writers' | null,
    completion: Completion,
    tag: number,
    step: (operation: Operation) => number,
  ): OperationId {
    assert(!this.#stopped, 'the engine is stopped');
    const id = this.#nextOperation++;
    const descriptor = this.#descriptors.get(fd);
    const failure = this.faults.pass(kind);
    const file = descriptor?.file ?? null;
    const operation = new Operation(this.world, file, step, (result, flags) => {
      this.#operations.delete(id);
      descriptor?.operations.delete(operation);
      this.#closeIfIdle(fd, descriptor);
      deliver(completion, tag, result, flags);
    });
    this.#operations.set(id, operation);
    descriptor?.operations.add(operation);
    if (file === null || descriptor?.closing === true) operation.endWith(-Errno.EBADF);
    else if (failure !== 0) operation.endWith(-failure);
    else operation.waitIn(queue === null ? null : file[queue]);
    if (queue !== null && kind !== 'accept') this.#fresh.push(operation);
    if (this.#fresh.length > FRESH_MAX) this.#fresh.length = 0;
    return id;
  }

  /** −EAGAIN of an operation means: not yet. */
  #wait(result: number): number {
    return result === -Errno.EAGAIN ? WAIT : result;
  }

  // --- bytes -------------------------------------------------------------------------------------------------------

  /** A random part of `length` where the engine is told to be difficult; packets are never cut. */
  #part(file: MemoryFile, length: number): number {
    if (!this.#shortTransfers || file instanceof PacketFile || length === 0) return length;
    return 1 + this.world.chance(length);
  }

  #receive(file: MemoryFile, offset: number, length: number): number {
    assert(offset >= 0 && offset + length <= this.arena.bytes.length, 'a buffer lies in the arena');
    return file.read(this.arena.bytes.subarray(offset, offset + this.#part(file, length)), null);
  }

  #transmit(file: MemoryFile, offset: number, length: number): number {
    assert(offset >= 0 && offset + length <= this.arena.bytes.length, 'a buffer lies in the arena');
    return file.write(this.arena.bytes.subarray(offset, offset + this.#part(file, length)));
  }

  #move(from: MemoryFile, to: MemoryFile, length: number): number {
    if (!(from instanceof PipeFile || to instanceof PipeFile)) return -Errno.EINVAL;
    const room = to.room();
    if (room === 0) return -Errno.EAGAIN;
    const bytes = new Uint8Array(this.#part(from, Math.min(length, room, SPLICE_BYTES_MAX)));
    const info: ReceiveInfo = { ...receiveInfo(), peek: true };
    const available = from.read(bytes, info);
    if (available <= 0) return available;
    const moved = to.write(bytes.subarray(0, available));
    if (moved > 0) from.read(bytes.subarray(0, moved), null);
    return moved;
  }

  #receiveMessage(file: MemoryFile, message: number, flags: number): number {
    if ((flags & MSG_ERRQUEUE) !== 0) return -Errno.EAGAIN;
    const { view } = this.arena;
    const vectors = Number(view.getBigUint64(message + 16, true));
    const count = Number(view.getBigUint64(message + 24, true));
    const bytes = new Uint8Array(vectorBytes(this.arena, vectors, count));
    const info: ReceiveInfo = { ...receiveInfo(), peek: (flags & MSG_PEEK) !== 0 };
    const result = file.read(bytes, info);
    if (result < 0) return result;
    // Descriptors come by `recvDescriptors` only.
    for (const passed of info.files) passed.release();
    scatter(this.arena, vectors, count, bytes.subarray(0, result));
    writeMessage(this.arena, message, info, {
      family: file instanceof PacketFile && file.kind === 'udp6' ? 6 : 4,
      packetInfo: (file.options.get('ip-packet-info') ?? 0) !== 0,
      originalDestination: (file.options.get('ip-recv-original-destination') ?? 0) !== 0,
    });
    return result;
  }

  #sendMessage(file: MemoryFile, message: number): number {
    const { bytes, to, source, segment } = readMessage(this.arena, message);
    if (!(file instanceof PacketFile) || (to === null && file.remote === null && file.connected)) {
      return file.write(bytes);
    }
    if (to?.family === 'unix') {
      const target = this.world.unix.get(to.path);
      return target instanceof PacketFile ? file.sendToFile(bytes, target) : -Errno.ECONNREFUSED;
    }
    if (file.kind !== 'udp4' && file.kind !== 'udp6') return file.write(bytes);
    const remote = to === null ? (file.remote as InetAddress | null) : canonical(to);
    if (remote === null) return -EDESTADDRREQ;
    this.#bindUdp(file, remote);
    const size = segment || file.options.get('udp-segment') || bytes.length || 1;
    const from = this.#senderOf(file, remote, source);
    let at = 0;
    do {
      const result = file.sendTo(bytes.subarray(at, at + size), remote, from);
      if (result < 0) return result;
      at += size;
    } while (at < bytes.length);
    return bytes.length;
  }

  /** What the receiver sees as source of a datagram. */
  #senderOf(file: PacketFile, remote: InetAddress, source: string | null): InetAddress {
    const local = file.local as InetAddress;
    if (source !== null) return canonical({ family: remote.family, address: source, port: local.port });
    if (local.address !== '0.0.0.0' && local.address !== '::') return local;
    // An answer to an address of this host comes from that very address, as on a loopback.
    const loopback = remote.family === 4 ? '127.0.0.1' : '::1';
    return { family: remote.family, address: loopback, port: local.port };
  }

  // --- calls that answer at once -----------------------------------------------------------------------------------

  trySplice(from: Fd, to: Fd, length: number): number {
    const target = this.#descriptors.get(to)?.file;
    if (target === undefined) return -Errno.EBADF;
    return this.#try(from, (file) => this.#move(file, target, length));
  }

  tryRead(fd: Fd, offset: number, length: number): number {
    return this.#try(fd, (file) => this.#receive(file, offset, length));
  }

  tryWrite(fd: Fd, offset: number, length: number): number {
    return this.#try(fd, (file) => this.#transmit(file, offset, length));
  }

  tryRecv(fd: Fd, offset: number, length: number): number {
    return this.#try(fd, (file) => this.#receive(file, offset, length));
  }

  trySend(fd: Fd, offset: number, length: number): number {
    return this.#try(fd, (file) => this.#transmit(file, offset, length));
  }

  tryRecvmsg(fd: Fd, message: number, flags: number): number {
    return this.#try(fd, (file) => this.#receiveMessage(file, message, flags));
  }

  trySendmsg(fd: Fd, message: number, _flags: number): number {
    return this.#try(fd, (file) => this.#sendMessage(file, message));
  }

  #try(fd: Fd, work: (file: MemoryFile) => number): number {
    const descriptor = this.#descriptors.get(fd);
    if (descriptor === undefined || descriptor.closing) return -Errno.EBADF;
    const failure = this.faults.pass('try');
    return failure !== 0 ? -failure : work(descriptor.file);
  }

  // --- cold path ---------------------------------------------------------------------------------------------------

  listen(address: SocketAddress, options: ListenOptions = {}): Fd {
    this.#pass('listen');
    this.#checkRoom('listen');
    const backlog = options.backlog ?? 4096;
    if (address.family === 'unix') {
      if (this.world.unix.has(address.path)) throw listenError(address, -Errno.EADDRINUSE);
      const file = new ListenerFile(this.world, address, options.type === 'seqpacket', backlog);
      this.world.unix.set(address.path, file);
      return this.#open(file);
    }
    const { listeners } = this.world;
    const asked = canonical(address);
    const local = asked.port === 0 ? { ...asked, port: this.world.freePort(listeners) } : asked;
    const v6Only = options.dualStack === false;
    const reusePort = options.reusePort === true;
    const conflict = bindConflict(listeners.get(local.port) ?? [], local, v6Only, reusePort);
    if (conflict !== 0) throw listenError(address, conflict);
    const file = new ListenerFile(this.world, local, false, backlog);
    file.v6Only = v6Only;
    file.reusePort = reusePort;
    pushTo(listeners, local.port, file);
    return this.#open(file);
  }

  socket(kind: SocketKind): Fd {
    this.#pass('socket');
    this.#checkRoom('socket');
    if (kind === 'tcp4' || kind === 'tcp6' || kind === 'unix-stream') {
      return this.#open(new StreamFile(this.world, kind));
    }
    return this.#open(new PacketFile(this.world, kind));
  }

  bind(fd: Fd, address: SocketAddress): void {
    this.#pass('bind');
    const file = this.#file(fd, 'bind');
    if (file.local !== null) throw listenError(address, -Errno.EINVAL);
    if (address.family === 'unix') {
      if (this.world.unix.has(address.path)) throw listenError(address, -Errno.EADDRINUSE);
      if (file instanceof PacketFile) this.world.unix.set(address.path, file);
      file.local = address;
      return;
    }
    const udp = file instanceof PacketFile;
    const table = udp ? this.world.datagramSockets : this.world.listeners;
    const asked = canonical(address);
    const local = asked.port === 0 ? { ...asked, port: this.world.freePort(table) } : asked;
    const conflict = bindConflict(table.get(local.port) ?? [], local, file.v6Only, file.reusePort);
    if (conflict !== 0) throw listenError(address, conflict);
    file.local = local;
    if (udp) pushTo(this.world.datagramSockets, local.port, file);
  }

  socketPair(type: 'stream' | 'seqpacket' | 'dgram'): [Fd, Fd] {
    this.#pass('socketPair');
    this.#checkRoom('socketpair', 2);
    if (type === 'stream') {
      const [left, right] = [this.#newUnixStream(), this.#newUnixStream()];
      left.join(right);
      return [this.#open(left), this.#open(right)];
    }
    return this.#packetPair(`unix-${type}`);
  }

  #newUnixStream(): StreamFile {
    return new StreamFile(this.world, 'unix-stream');
  }

  #packetPair(kind: 'unix-seqpacket' | 'unix-dgram' | 'device'): [Fd, Fd] {
    const left = new PacketFile(this.world, kind);
    const right = new PacketFile(this.world, kind);
    left.join(right);
    return [this.#open(left), this.#open(right)];
  }

  /** Two ends of a packet device: what one writes, the other reads. Stands for a TUN in tests. */
  devicePair(): [Fd, Fd] {
    this.#checkRoom('devicePair', 2);
    return this.#packetPair('device');
  }

  pipe(bytes?: number): [Fd, Fd] {
    this.#pass('pipe');
    this.#checkRoom('pipe', 2);
    const [reader, writer] = PipeFile.pair(this.world, bytes);
    return [this.#open(reader), this.#open(writer)];
  }

  setOption(fd: Fd, option: SocketOption, value: number): void {
    this.#pass('setOption');
    const file = this.#file(fd, 'setsockopt');
    file.options.set(option, value);
    if (option === 'receive-buffer') file.setCapacity(value);
    if (option === 'linger-zero') file.lingerZero = value !== 0;
    if (option === 'reuse-port') file.reusePort = value !== 0;
    if (option === 'v6-only') file.v6Only = value !== 0;
  }

  localAddress(fd: Fd): SocketAddress {
    const file = this.#file(fd, 'getsockname');
    if (file.local !== null) return shown(file.local, file);
    const family = familyOf(file);
    if (family === null) return Object.freeze({ family: 'unix', path: '' });
    return Object.freeze({ family, address: family === 4 ? '0.0.0.0' : '::', port: 0 });
  }

  remoteAddress(fd: Fd): SocketAddress {
    const file = this.#file(fd, 'getpeername');
    if (file.remote !== null) return shown(file.remote, file);
    const isConnected = (file instanceof StreamFile || file instanceof PacketFile) && file.connected;
    if (!isConnected) throw systemError('RAMP_SYSCALL', 'getpeername', -Errno.ENOTCONN);
    return Object.freeze({ family: 'unix', path: '' });
  }

  socketError(fd: Fd): number {
    return this.#file(fd, 'getsockopt').takeError();
  }

  shutdownWrite(fd: Fd): void {
    this.#descriptors.get(fd)?.file.shutdownWrite();
  }

  duplicate(fd: Fd): Fd {
    this.#pass('duplicate');
    const file = this.#file(fd, 'dup');
    this.#checkRoom('dup');
    return this.#open(file.hold());
  }

  close(fd: Fd): void {
    const descriptor = this.#descriptors.get(fd);
    if (descriptor === undefined || descriptor.closing) return;
    descriptor.closing = true;
    for (const operation of descriptor.operations) operation.endWith(-Errno.ECANCELED);
    // A listener's address is free when this returns; another file ends with its last operation.
    if (descriptor.file instanceof ListenerFile) descriptor.operations.clear();
    this.#closeIfIdle(fd, descriptor);
  }

  #closeIfIdle(fd: Fd, descriptor: Descriptor | undefined): void {
    if (descriptor === undefined || !descriptor.closing || descriptor.operations.size > 0) return;
    if (this.#descriptors.get(fd) !== descriptor) return;
    this.#descriptors.delete(fd);
    descriptor.file.release();
  }

  sendDescriptors(fd: Fd, bytes: Uint8Array, descriptors: readonly Fd[]): void {
    assert(bytes.length > 0, 'descriptors travel with at least one byte');
    this.#pass('sendDescriptors');
    const file = this.#file(fd, 'sendmsg');
    const files = descriptors.map((sent) => this.#file(sent, 'sendmsg').hold());
    const result = file.room() < bytes.length ? -Errno.EAGAIN : file.write(bytes, files);
    if (result === bytes.length) return;
    for (const sent of files) sent.release();
    throw systemError('RAMP_SYSCALL', 'sendmsg', result);
  }

  recvDescriptors(fd: Fd): { readonly bytes: Uint8Array; readonly descriptors: readonly Fd[] } | null {
    this.#pass('recvDescriptors');
    const file = this.#file(fd, 'recvmsg');
    const info = receiveInfo();
    const bytes = new Uint8Array(448 * 1024);
    const length = file.read(bytes, info);
    if (length === -Errno.EAGAIN) return null;
    if (length < 0) throw systemError('RAMP_SYSCALL', 'recvmsg', length);
    const descriptors: Fd[] = [];
    // As the kernel does: what finds no free descriptor is lost.
    for (const passed of info.files) {
      if (this.#isFull()) passed.release();
      else descriptors.push(this.#open(passed));
    }
    return { bytes: bytes.slice(0, length), descriptors };
  }

  // --- descriptors -------------------------------------------------------------------------------------------------

  /** Gives `file` the lowest free descriptor, which owns the caller's reference. */
  #open(file: MemoryFile): Fd {
    let fd = FIRST_DESCRIPTOR;
    while (this.#descriptors.has(fd)) fd++;
    this.#descriptors.set(fd, { file, operations: new Set(), closing: false });
    return fd;
  }

  #isFull(): boolean {
    return this.#descriptors.size >= this.#descriptorsMax;
  }

  #checkRoom(what: string, count = 1): void {
    if (this.#descriptors.size + count <= this.#descriptorsMax) return;
    throw systemError('RAMP_NO_DESCRIPTORS', what, -Errno.EMFILE);
  }

  #file(fd: Fd, what: string): MemoryFile {
    const descriptor = this.#descriptors.get(fd);
    if (descriptor === undefined || descriptor.closing) throw systemError('RAMP_SYSCALL', what, -Errno.EBADF);
    return descriptor.file;
  }

  /** Passes a point at which a synchronous call may have been made to fail. */
  #pass(kind: FaultKind): void {
    const failure = this.faults.pass(kind);
    if (failure === 0) return;
    throw systemError(kind === 'listen' || kind === 'bind' ? 'RAMP_LISTEN' : 'RAMP_SYSCALL', kind, -failure);
  }

  // --- life --------------------------------------------------------------------------------------------------------

  /** Nothing here keeps a process alive: it ends when nothing more can happen. */
  ref(): void {}

  unref(): void {}

  audit(): IoAudit {
    return {
      descriptors: this.#descriptors.size,
      operations: this.#operations.size,
      timers: this.#timers.size,
      slots: this.#stopped ? 0 : this.arena.slotsInUse,
      mappings: this.#stopped ? 0 : 1,
    };
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const operation of this.#operations.values()) operation.drop();
    this.#operations.clear();
    this.#fresh.length = 0;
    for (const timer of this.#timers) this.world.cancelTimer(timer);
    this.#timers.clear();
    // What was closed while operations were under way on it.
    for (const [fd, descriptor] of this.#descriptors) {
      descriptor.operations.clear();
      this.#closeIfIdle(fd, descriptor);
    }
  }
}

/** An operation under way: waits in a queue of its file until its step has a result, or is ended from outside. */
class Operation implements Task {
  scheduled = false;
  readonly file: MemoryFile;
  /** The queue in which it waits; null for a poll. */
  queue: WaitQueue | null = null;
  /** What it came to, once that is decided. */
  result: number | null = null;
  flags = 0;
  over = false;
  readonly #world: MemoryWorld;
  readonly #step: (operation: Operation) => number;
  readonly #finish: (result: number, flags: number) => void;

  constructor(
    world: MemoryWorld,
    file: MemoryFile | null,
    step: (operation: Operation) => number,
    finish: (result: number, flags: number) => void,
  ) {
    this.#world = world;
    // Without a file the operation is ended before it is ever tried.
    this.file = file as MemoryFile;
    this.#step = step;
    this.#finish = finish;
  }

  waitIn(queue: WaitQueue | null): void {
    this.queue = queue;
    if (queue === null) this.#world.schedule(this);
    else queue.add(this);
  }

  attempt(): boolean {
    if (this.result !== null || this.over) return true;
    const result = this.#step(this);
    // The step may have called back, and the callback may have ended this very operation.
    if (result === WAIT || this.result !== null || this.over) return this.result !== null || this.over;
    this.result = result;
    this.#complete();
    return true;
  }

  /** Does the work ahead of its turn if it is next in its queue, and delivers later. */
  performEarly(): void {
    if (this.result !== null || this.over || this.queue?.waiters[0] !== this) return;
    const result = this.#step(this);
    if (result !== WAIT) this.endWith(result);
  }

  /** Ends the operation with `result` at a later turn, unless it is over by itself. */
  endWith(result: number): void {
    if (this.result !== null || this.over) return;
    this.result = result;
    this.queue?.remove(this);
    this.#world.schedule(this);
  }

  /** Ends it without a word. */
  drop(): void {
    this.over = true;
    this.queue?.remove(this);
    this.file?.watchers.delete(this);
  }

  runTask(): void {
    if (this.over) return;
    if (this.result !== null) this.#complete();
    else this.attempt();
  }

  #complete(): void {
    this.over = true;
    this.file?.watchers.delete(this);
    this.#finish(this.result as number, this.flags);
  }
}

function pushTo<T>(table: Map<number, T[]>, port: number, file: T): void {
  const files = table.get(port);
  if (files === undefined) table.set(port, [file]);
  else files.push(file);
}

function listenerKind(listener: ListenerFile): 'tcp4' | 'tcp6' {
  return listener.local?.family === 6 ? 'tcp6' : 'tcp4';
}

/** The family of a socket; null for Unix sockets. @throws RAMP_SYSCALL when the file is no socket */
function familyOf(file: MemoryFile): 4 | 6 | null {
  if (file instanceof ListenerFile) return file.local?.family === 6 ? 6 : 4;
  if (file instanceof StreamFile || file instanceof PacketFile) {
    if (file.kind.endsWith('4')) return 4;
    return file.kind.endsWith('6') ? 6 : null;
  }
  throw systemError('RAMP_SYSCALL', 'getsockname', -ENOTSOCK);
}

/** An address as `file` shows it. */
function shown(address: SocketAddress, file: MemoryFile): SocketAddress {
  const family = familyOf(file);
  return address.family === 'unix' || family === null
    ? Object.freeze({ ...address })
    : presented(address, family);
}

function listenError(address: SocketAddress, result: number): RampartError {
  return systemError('RAMP_LISTEN', `binding ${formatSocketAddress(address)}`, result);
}
