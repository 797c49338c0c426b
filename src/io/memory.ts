/**
 * The engine without a kernel: for tests and simulations. Everything happens in a `MemoryWorld`, in an order
 * that its seed decides, at a time that only the test moves; any operation can be made to fail.
 *
 * ```
 *   const world = new MemoryWorld({ seed: 7 });
 *   const io = new MemoryEngine(world);
 *   … start operations …
 *   await world.advance(1000);    // everything that can happen within a second has happened
 * ```
 *
 * Several engines may share a world, as processes share a kernel: they reach each other by address and can
 * pass descriptors.
 */
import { assert } from '#base/assert.ts';
import type { SocketAddress } from '#base/ip.ts';

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
import { receiveInfo, type MemoryFile, type WaitQueue } from './memory-file.ts';
import { ListenerFile } from './memory-listener.ts';
import { gather, scatter, vectorBytes } from './memory-message.ts';
import {
  aimAt,
  bindTo,
  connectTo,
  listenAt,
  listenerAt,
  localAddressOf,
  remoteAddressOf,
} from './memory-network.ts';
import { Operation, WAIT } from './memory-operation.ts';
import { PacketFile } from './memory-packet.ts';
import { PipeFile } from './memory-pipe.ts';
import { StreamFile } from './memory-stream.ts';
import { MemoryTransfer } from './memory-transfer.ts';
import { deliver, MemoryWorld } from './memory-world.ts';
import { systemError } from './system-error.ts';

/** How a memory engine behaves. */
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
const MSG_DONTWAIT = 0x40;
const MSG_ERRQUEUE = 0x2000;
/** Operations that `flush` remembers; a program that never flushes must not gather them for ever. */
const FRESH_MAX = 4096;
/** Descriptors 0 to 2 are not the engine's. */
const FIRST_DESCRIPTOR = 3;
const ENOTSOCK = 88;

interface Descriptor {
  readonly file: MemoryFile;
  readonly operations: Set<Operation>;
  /** Splices into it, which are operations of their source. */
  readonly splices: Set<OperationId>;
  closing: boolean;
}

/** See the head of this file. */
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
  readonly #transfer: MemoryTransfer;
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
    this.#transfer = new MemoryTransfer(world, this.arena, options.shortTransfers ?? false);
  }

  // --- time ------------------------------------------------------------------------------------------------

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

  // --- operations ------------------------------------------------------------------------------------------

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
      if (file instanceof PacketFile && file.kind !== 'unix-seqpacket')
        return aimAt(this.world, file, address);
      if (!(file instanceof StreamFile || file instanceof PacketFile)) return -ENOTSOCK;
      if (file.connected) return -Errno.EISCONN;
      if (address.family !== 'unix') {
        const reach = this.world.reach(address);
        silent = reach === 'hang';
        if (silent) return WAIT;
        if (reach !== 0) return reach as number;
      }
      const listener = listenerAt(this.world, address);
      if (typeof listener === 'number') return listener;
      if (listener.isFull) {
        listener.watchers.add(queue as WaitQueue);
        return WAIT;
      }
      listener.watchers.delete(queue as WaitQueue);
      return connectTo(this.world, file, listener, address);
    });
  }

  recv(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    assert(length > 0);
    return this.#start('recv', fd, 'readers', completion, tag, ({ file }) =>
      this.#wait(this.#transfer.receive(file, offset, length)),
    );
  }

  recvPooled(fd: Fd, pool: SlotPool, completion: Completion, tag: number): OperationId {
    return this.#start('recvPooled', fd, 'readers', completion, tag, (operation) => {
      const { file } = operation;
      const isReady = (file.readiness() & (PollMask.In | PollMask.HangUp | PollMask.Error)) !== 0;
      if (!isReady) return WAIT;
      const slot = pool.acquire();
      if (slot < 0) return -Errno.ENOBUFS;
      const result = this.#transfer.receive(file, slot, pool.slotBytes);
      if (result > 0) operation.flags = pool.indexOf(slot) << 16;
      else pool.release(slot);
      return this.#wait(result);
    });
  }

  send(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    assert(length > 0, 'a send has at least one byte');
    let sent = 0;
    return this.#start('send', fd, 'writers', completion, tag, ({ file }) => {
      const result = this.#transfer.transmit(file, offset + sent, length - sent);
      if (result < 0) return this.#wait(result);
      sent += result;
      if (sent === length) return length;
      file.writers.wake();
      return WAIT;
    });
  }

  read(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    return this.#start('read', fd, 'readers', completion, tag, ({ file }) =>
      this.#wait(this.#transfer.receive(file, offset, length)),
    );
  }

  write(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    return this.#start('write', fd, 'writers', completion, tag, ({ file }) => {
      const result = this.#transfer.transmit(file, offset, length);
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
      const result = this.#transfer.receiveMessage(file, message, flags);
      return (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) !== 0 ? result : this.#wait(result);
    });
  }

  sendmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId {
    return this.#start('sendmsg', fd, 'writers', completion, tag, ({ file }) => {
      const result = this.#transfer.sendMessage(file, message);
      return (flags & MSG_DONTWAIT) !== 0 ? result : this.#wait(result);
    });
  }

  splice(from: Fd, to: Fd, length: number, completion: Completion, tag: number): OperationId {
    const descriptor = this.#descriptors.get(to);
    const target = descriptor?.file;
    const onCompletion = (_: number, result: number, flags: number): void => {
      descriptor?.splices.delete(id);
      completion.onCompletion(tag, result, flags);
    };
    const id = this.#start('splice', from, 'readers', { onCompletion }, tag, ({ file, queue }) => {
      if (target === undefined || descriptor?.closing === true) return -Errno.EBADF;
      const result = this.#transfer.move(file, target, length);
      if (result !== -Errno.EAGAIN) {
        target.watchers.delete(queue as WaitQueue);
        return result;
      }
      // Room in the target is a reason to try again as well as data in the source.
      target.watchers.add(queue as WaitQueue);
      return WAIT;
    });
    descriptor?.splices.add(id);
    return id;
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

  /**
   * Does what was started so far and can be done, as submitting it to a kernel would; it is delivered
   * later.
   */
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

  // --- calls that answer at once ---------------------------------------------------------------------------

  trySplice(from: Fd, to: Fd, length: number): number {
    const target = this.#descriptors.get(to)?.file;
    if (target === undefined) return -Errno.EBADF;
    return this.#try(from, (file) => this.#transfer.move(file, target, length));
  }

  tryRead(fd: Fd, offset: number, length: number): number {
    return this.#try(fd, (file) => this.#transfer.receive(file, offset, length));
  }

  tryWrite(fd: Fd, offset: number, length: number): number {
    return this.#try(fd, (file) => this.#transfer.transmit(file, offset, length));
  }

  tryRecv(fd: Fd, offset: number, length: number): number {
    return this.#try(fd, (file) => this.#transfer.receive(file, offset, length));
  }

  trySend(fd: Fd, offset: number, length: number): number {
    return this.#try(fd, (file) => this.#transfer.transmit(file, offset, length));
  }

  tryRecvmsg(fd: Fd, message: number, flags: number): number {
    return this.#try(fd, (file) => this.#transfer.receiveMessage(file, message, flags));
  }

  trySendmsg(fd: Fd, message: number, _flags: number): number {
    return this.#try(fd, (file) => this.#transfer.sendMessage(file, message));
  }

  #try(fd: Fd, work: (file: MemoryFile) => number): number {
    const descriptor = this.#descriptors.get(fd);
    if (descriptor === undefined || descriptor.closing) return -Errno.EBADF;
    const failure = this.faults.pass('try');
    return failure !== 0 ? -failure : work(descriptor.file);
  }

  // --- cold path -------------------------------------------------------------------------------------------

  listen(address: SocketAddress, options: ListenOptions = {}): Fd {
    this.#pass('listen');
    this.#checkRoom('listen');
    return this.#open(listenAt(this.world, address, options));
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
    bindTo(this.world, this.#file(fd, 'bind'), address);
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
    return localAddressOf(this.#file(fd, 'getsockname'));
  }

  remoteAddress(fd: Fd): SocketAddress {
    return remoteAddressOf(this.#file(fd, 'getpeername'));
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
    for (const splice of descriptor.splices) this.cancel(splice);
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

  // --- descriptors -----------------------------------------------------------------------------------------

  /** Gives `file` the lowest free descriptor, which owns the caller's reference. */
  #open(file: MemoryFile): Fd {
    let fd = FIRST_DESCRIPTOR;
    while (this.#descriptors.has(fd)) fd++;
    this.#descriptors.set(fd, { file, operations: new Set(), splices: new Set(), closing: false });
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

  // --- life ------------------------------------------------------------------------------------------------

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
