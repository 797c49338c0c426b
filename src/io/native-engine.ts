import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';
import { formatSocketAddress, type SocketAddress } from '#base/ip.ts';

import { Arena, type SlotPool } from './arena.ts';
import { DescriptorFlag, DescriptorKind, DescriptorTable } from './descriptor-table.ts';
import {
  DESCRIPTORS_MAX,
  MESSAGE_BYTES_MAX,
  readDescriptorMessage,
  writeDescriptorMessage,
  writeMessageRoom,
} from './descriptor-message.ts';
import { EventLoop, type LoopClient, rethrowLater } from './event-loop.ts';
import * as libc from './ffi/libc.ts';
import { closeOffThread } from './ffi/libuv.ts';
import {
  type Completion,
  CompletionFlag,
  type EngineKind,
  Errno,
  type Fd,
  type Io,
  type IoAudit,
  type ListenOptions,
  type OperationId,
  type SocketKind,
  type SocketOption,
  type TimerId,
} from './io.ts';
import { OperationState, OperationTable } from './operation-table.ts';
import { readSocketAddress, SOCKADDR_BYTES, writeSocketAddress } from './socket-address.ts';
import { SOCKET_KINDS, setSocketOption } from './socket-option.ts';
import { systemError } from './system-error.ts';
import { TimerWheel } from './timer-wheel.ts';

const { ScratchOffset, scratch } = libc;

/** What engines over the kernel share: the arena, timers, descriptors, the synchronous calls. */
export interface NativeEngineOptions {
  /** Size of the arena's reservation in bytes, below 4 GiB. Default 1 GiB. */
  readonly arenaBytes?: number;
}

const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_ERROR = 4;
const SO_BINDTODEVICE = 25;
const SO_DOMAIN = 39;
const ENOTSOCK = 88;
const ARENA_BYTES_DEFAULT = 2 ** 30;
const BACKLOG_DEFAULT = 4096;
const NEW_DESCRIPTOR = libc.SOCK_NONBLOCK | libc.SOCK_CLOEXEC;
/** How long `sendDescriptors` tries while the peer's queue is full. */
const SEND_DESCRIPTORS_MS_MAX = 2000;
/** After a shortage of descriptors, accepting goes on after this time: the queue would fail again at once. */
const ACCEPT_PAUSE_MS = 50;

/** Delivery of operations differs between engines; everything else of `Io` is here. */
export abstract class NativeEngine implements Io, LoopClient {
  abstract readonly kind: EngineKind;
  readonly arena: Arena;
  protected readonly operations = new OperationTable();
  protected readonly descriptors = new DescriptorTable();
  protected readonly loop: EventLoop;
  protected stopped = false;
  readonly #arenaMemory: libc.Mapping;
  readonly #wheel = new TimerWheel();
  readonly #origin = performance.now();
  /** The tick that the loop's timer is set for. */
  #scheduled = Number.POSITIVE_INFINITY;
  /** Timers of the engine's own, which `audit` leaves out. */
  #ownTimers = 0;
  #refed = true;
  /** Ends that the engine itself decided, to be delivered from the loop: ids and results. */
  #deferredIds: number[] = [];
  #deferredResults: number[] = [];
  #deferredFlags: number[] = [];

  /** @param fd what the event loop watches: readable when completions are there. */
  constructor(fd: Fd, options: NativeEngineOptions) {
    const length = options.arenaBytes ?? ARENA_BYTES_DEFAULT;
    assert(length > 0 && length < 2 ** 32, 'the arena is smaller than 4 GiB');
    this.#arenaMemory = takeArenaMemory(length);
    this.arena = new Arena(this.#arenaMemory.memory, this.#arenaMemory.address);
    this.loop = new EventLoop(fd, this);
  }

  // --- what an engine has to say for itself ----------------------------------------------------------------

  abstract turn(): boolean;
  abstract prepare(): boolean;
  abstract accept(listener: Fd, completion: Completion, tag: number): OperationId;
  abstract connect(fd: Fd, address: SocketAddress, completion: Completion, tag: number): OperationId;
  abstract recv(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId;
  abstract recvPooled(fd: Fd, pool: SlotPool, completion: Completion, tag: number): OperationId;
  abstract send(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId;
  abstract read(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId;
  abstract write(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId;
  abstract readv(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId;
  abstract writev(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId;
  abstract recvmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId;
  abstract sendmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId;
  abstract splice(from: Fd, to: Fd, length: number, completion: Completion, tag: number): OperationId;
  abstract poll(fd: Fd, mask: number, multishot: boolean, completion: Completion, tag: number): OperationId;
  abstract cancel(operation: OperationId): void;
  abstract flush(): void;
  abstract close(fd: Fd): void;
  /** Goes on accepting after a pause. */
  protected abstract resumeAccept(index: number): void;
  /**
   * Ends all operations without calling back, and releases the engine's descriptor; the kernel must not write
   * to the arena afterwards.
   */
  protected abstract stopOperations(): void;

  // --- operations: common steps ----------------------------------------------------------------------------

  /** Takes an operation and keeps the process alive for it. */
  protected begin(kind: number, fd: Fd, completion: Completion, tag: number): number {
    const index = this.operations.take(kind, fd, completion, tag);
    const descriptors = this.descriptors;
    if (fd >= descriptors.operations.length) descriptors.reach(fd);
    descriptors.operations[fd] = (descriptors.operations[fd] as number) + 1;
    if (!this.loop.alive && this.#refed) this.loop.setAlive(true);
    return index;
  }

  /** Ends operation `index` and delivers its completion. */
  protected finish(index: number, result: number, flags: number): void {
    const { operations, descriptors } = this;
    const completion = operations.completions[index] as Completion;
    const tag = operations.tags[index] as number;
    const fd = operations.fds[index] as number;
    operations.release(index);
    if (fd >= 0) {
      const left = (descriptors.operations[fd] as number) - 1;
      descriptors.operations[fd] = left;
      if (left === 0 && ((descriptors.flags[fd] as number) & DescriptorFlag.Closing) !== 0) this.closeNow(fd);
    }
    this.deliver(completion, tag, result, flags);
  }

  /** Calls a completion; its error is reported as uncaught and stops nothing else. */
  protected deliver(completion: Completion, tag: number, result: number, flags: number): void {
    try {
      completion.onCompletion(tag, result, flags);
    } catch (error) {
      rethrowLater(error);
    }
  }

  /** Has operation `index` complete with `result` at the next turn; it ends, unless `flags` has More. */
  protected defer(index: number, result: number, flags = 0): void {
    this.#deferredIds.push(this.operations.ids[index] as number);
    this.#deferredResults.push(result);
    this.#deferredFlags.push(flags);
    this.loop.setAwake(true);
  }

  protected get hasDeferred(): boolean {
    return this.#deferredIds.length > 0;
  }

  /** Delivers what was deferred before this call; returns how many. */
  protected deliverDeferred(): number {
    const ids = this.#deferredIds;
    if (ids.length === 0) return 0;
    const results = this.#deferredResults;
    const flags = this.#deferredFlags;
    this.#deferredIds = [];
    this.#deferredResults = [];
    this.#deferredFlags = [];
    for (let i = 0; i < ids.length; i++) {
      const index = this.operations.find(ids[i] as number);
      if (index === 0) continue;
      if (((flags[i] as number) & CompletionFlag.More) === 0) {
        this.finish(index, results[i] as number, flags[i] as number);
      } else {
        const completion = this.operations.completions[index] as Completion;
        const tag = this.operations.tags[index] as number;
        this.deliver(completion, tag, results[i] as number, flags[i] as number);
      }
    }
    return ids.length;
  }

  /**
   * Out of descriptors or memory: the same error would come back at once, so accepting waits a little. The
   * operation is `Waiting` meanwhile, and may be cancelled.
   */
  protected pauseAccept(index: number): void {
    const { operations } = this;
    const id = operations.ids[index] as number;
    operations.states[index] = (operations.states[index] as number) | OperationState.Waiting;
    this.ownTimer(ACCEPT_PAUSE_MS, () => {
      const state = operations.states[index] as number;
      const ended = OperationState.Cancelled | OperationState.Done;
      if (operations.find(id) === 0 || (state & ended) !== 0) return;
      operations.states[index] = state & ~OperationState.Waiting;
      this.resumeAccept(index);
    });
  }

  /** Lets the process end when nothing is under way; called before the loop sleeps. */
  protected updateAlive(): void {
    this.loop.setAlive(this.#refed && (this.operations.active > 0 || this.#wheel.armed > this.#ownTimers));
  }

  ref(): void {
    this.#refed = true;
    this.updateAlive();
  }

  unref(): void {
    this.#refed = false;
    this.updateAlive();
  }

  // --- time ------------------------------------------------------------------------------------------------

  now(): number {
    return this.loop.now();
  }

  refreshNow(): number {
    return this.loop.refreshNow();
  }

  timer(delayMs: number, completion: Completion, tag: number): TimerId {
    assert(delayMs >= 0 && !this.stopped, 'a delay is not negative, and the engine runs');
    const elapsed = this.loop.now() - this.#origin;
    // An empty wheel may lag far behind; in step with the clock it places timers without detours.
    if (this.#wheel.armed === 0) this.#wheel.advance(Math.floor(elapsed), this.#fire);
    const deadline = Math.ceil(elapsed + delayMs);
    const id = this.#wheel.arm(deadline, completion, tag);
    if (deadline < this.#scheduled) this.#schedule();
    if (!this.loop.alive && this.#refed) this.loop.setAlive(true);
    return id;
  }

  cancelTimer(timer: TimerId): void {
    // The loop's timer is left alone: at worst it wakes once for nothing.
    this.#wheel.cancel(timer);
  }

  /** A timer of the engine's own: it does not keep the process alive by itself. */
  protected ownTimer(delayMs: number, run: () => void): void {
    this.#ownTimers++;
    const completion: Completion = {
      onCompletion: () => {
        this.#ownTimers--;
        run();
      },
    };
    this.timer(delayMs, completion, 0);
  }

  fireTimers(): void {
    this.#scheduled = Number.POSITIVE_INFINITY;
    this.#wheel.advance(Math.floor(this.loop.now() - this.#origin), this.#fire);
    this.loop.drain();
    if (!this.stopped && this.#wheel.armed > 0) this.#schedule();
  }

  readonly #fire = (completion: Completion, tag: number): void => {
    if (!this.stopped) this.deliver(completion, tag, 0, 0);
  };

  #schedule(): void {
    const next = this.#wheel.nextTick();
    if (next >= this.#scheduled) return;
    this.#scheduled = next;
    this.loop.startTimer(next - (this.loop.now() - this.#origin));
  }

  // --- calls that answer at once ---------------------------------------------------------------------------

  trySplice(from: Fd, to: Fd, length: number): number {
    return libc.splice(from, to, length);
  }

  tryRead(fd: Fd, offset: number, length: number): number {
    return libc.read(fd, this.arena.address + offset, length);
  }

  tryWrite(fd: Fd, offset: number, length: number): number {
    return libc.write(fd, this.arena.address + offset, length);
  }

  tryRecv(fd: Fd, offset: number, length: number): number {
    return libc.recv(fd, this.arena.address + offset, length, libc.MSG_DONTWAIT);
  }

  trySend(fd: Fd, offset: number, length: number): number {
    return libc.send(fd, this.arena.address + offset, length, libc.MSG_DONTWAIT | libc.MSG_NOSIGNAL);
  }

  tryRecvmsg(fd: Fd, message: number, flags: number): number {
    return libc.recvmsg(fd, this.arena.address + message, flags | libc.MSG_DONTWAIT);
  }

  trySendmsg(fd: Fd, message: number, flags: number): number {
    const all = flags | libc.MSG_DONTWAIT | libc.MSG_NOSIGNAL;
    return libc.sendmsg(fd, this.arena.address + message, all);
  }

  // --- cold path -------------------------------------------------------------------------------------------

  listen(address: SocketAddress, options: ListenOptions = {}): Fd {
    const packets = options.type === 'seqpacket';
    const family =
      address.family === 'unix' ? libc.AF_UNIX : address.family === 4 ? libc.AF_INET : libc.AF_INET6;
    const type = packets ? libc.SOCK_SEQPACKET : libc.SOCK_STREAM;
    const fd = libc.socket(family, type | NEW_DESCRIPTOR, 0);
    if (fd < 0) throw callFailed('socket', fd);
    const stream = address.family === 'unix' ? DescriptorKind.LocalListener : DescriptorKind.StreamListener;
    this.descriptors.own(fd, packets ? DescriptorKind.PacketListener : stream);
    try {
      if (address.family !== 'unix') {
        this.setOption(fd, 'reuse-address', 1);
        if (address.family === 6) this.setOption(fd, 'v6-only', options.dualStack === false ? 1 : 0);
      }
      if (options.reusePort) this.setOption(fd, 'reuse-port', 1);
      if (options.transparent) this.setOption(fd, 'ip-transparent', 1);
      if (options.device !== undefined) bindToDevice(fd, options.device);
      this.bind(fd, address);
      const failed = libc.listen(fd, options.backlog ?? BACKLOG_DEFAULT);
      if (failed < 0) throw listenError(address, failed);
    } catch (error) {
      this.close(fd);
      throw error;
    }
    return fd;
  }

  socket(kind: SocketKind): Fd {
    const { family, type, descriptorKind } = SOCKET_KINDS[kind];
    const fd = libc.socket(family, type | NEW_DESCRIPTOR, 0);
    if (fd < 0) throw callFailed('socket', fd);
    this.descriptors.own(fd, descriptorKind);
    return fd;
  }

  bind(fd: Fd, address: SocketAddress): void {
    const length = writeSocketAddress(scratch.view, ScratchOffset.Address, address);
    const failed = libc.bind(fd, scratch.address + ScratchOffset.Address, length);
    if (failed < 0) throw listenError(address, failed);
  }

  socketPair(type: 'stream' | 'seqpacket' | 'dgram'): [Fd, Fd] {
    const { type: number, descriptorKind } = SOCKET_KINDS[`unix-${type}`];
    const at = ScratchOffset.Value;
    const failed = libc.socketpair(libc.AF_UNIX, number | NEW_DESCRIPTOR, 0, scratch.address + at);
    if (failed < 0) throw callFailed('socketpair', failed);
    return this.#ownPair(at, descriptorKind);
  }

  pipe(bytes?: number): [Fd, Fd] {
    const at = ScratchOffset.Value;
    const failed = libc.pipe2(scratch.address + at, libc.O_NONBLOCK | libc.O_CLOEXEC);
    if (failed < 0) throw callFailed('pipe', failed);
    const pair = this.#ownPair(at, DescriptorKind.Pipe);
    // Beyond the user's limit of pipe memory the kernel refuses and the default size stays.
    if (bytes !== undefined) libc.fcntl(pair[1], libc.F_SETPIPE_SZ, bytes);
    return pair;
  }

  #ownPair(at: number, kind: number): [Fd, Fd] {
    const pair: [Fd, Fd] = [scratch.view.getInt32(at, true), scratch.view.getInt32(at + 4, true)];
    for (const fd of pair) this.descriptors.own(fd, kind);
    return pair;
  }

  setOption(fd: Fd, option: SocketOption, value: number): void {
    const failed = setSocketOption(fd, option, value);
    if (failed < 0) throw callFailed(`setting socket option ${option} to ${value}`, failed);
  }

  localAddress(fd: Fd): SocketAddress {
    return addressOf('getsockname', fd, libc.getsockname);
  }

  remoteAddress(fd: Fd): SocketAddress {
    return addressOf('getpeername', fd, libc.getpeername);
  }

  socketError(fd: Fd): number {
    const error = libc.getsockoptInt(fd, SOL_SOCKET, SO_ERROR);
    if (error < 0) throw callFailed('getsockopt', error);
    return error;
  }

  shutdownWrite(fd: Fd): void {
    libc.shutdown(fd, 1);
  }

  duplicate(fd: Fd): Fd {
    const copy = libc.dup(fd);
    if (copy < 0) throw callFailed('dup', copy);
    this.shareDescriptor(fd);
    this.descriptors.own(copy, this.descriptorKind(fd));
    this.shareDescriptor(copy);
    return copy;
  }

  /** Another descriptor may refer to the same open file, here or in another process. */
  protected shareDescriptor(fd: Fd): void {
    this.descriptors.reach(fd);
    this.descriptors.flags[fd] = (this.descriptors.flags[fd] as number) | DescriptorFlag.Shared;
  }

  /** Notes that `fd` is a listener, wherever it was opened. */
  protected noteListener(fd: Fd): void {
    const { kinds } = this.descriptors;
    const kind = this.descriptorKind(fd);
    if (kind === DescriptorKind.StreamSocket) kinds[fd] = DescriptorKind.StreamListener;
    else if (kind === DescriptorKind.LocalStream) kinds[fd] = DescriptorKind.LocalListener;
    else if (kind === DescriptorKind.PacketSocket) kinds[fd] = DescriptorKind.PacketListener;
  }

  /** A connection that `listener` accepted. */
  protected ownAccepted(listener: Fd, fd: Fd): void {
    const kind = this.descriptors.kinds[listener] as number;
    if (kind === DescriptorKind.StreamListener) this.descriptors.own(fd, DescriptorKind.StreamSocket);
    else if (kind === DescriptorKind.LocalListener) this.descriptors.own(fd, DescriptorKind.LocalStream);
    else this.descriptors.own(fd, DescriptorKind.PacketSocket);
  }

  /** `DescriptorKind` of `fd`; what was opened elsewhere is looked at once. */
  protected descriptorKind(fd: Fd): number {
    const { descriptors } = this;
    descriptors.reach(fd);
    const known = descriptors.kinds[fd] as number;
    if (known !== DescriptorKind.Unknown) return known;
    const found = kindOfSocket(fd);
    descriptors.kinds[fd] = found;
    return found;
  }

  /** Closes a descriptor that has no operations under way. */
  protected closeNow(fd: Fd): void {
    // What is not a socket or pipe may be a TUN, whose close waits for the kernel's other processors.
    const blocking = this.descriptorKind(fd) === DescriptorKind.Other;
    this.descriptors.forget(fd);
    if (blocking) closeOffThread(fd);
    else libc.close(fd);
  }

  sendDescriptors(fd: Fd, bytes: Uint8Array, descriptors: readonly Fd[]): void {
    assert(
      bytes.length > 0 && bytes.length <= MESSAGE_BYTES_MAX,
      'descriptors travel with 1 byte to 448 KiB',
    );
    assert(descriptors.length <= DESCRIPTORS_MAX, 'too many descriptors for one message');
    for (const sent of descriptors) this.shareDescriptor(sent);
    const deadline = performance.now() + SEND_DESCRIPTORS_MS_MAX;
    let done = 0;
    while (done < bytes.length) {
      writeDescriptorMessage(bytes, done, done === 0 ? descriptors : []);
      const flags = libc.MSG_DONTWAIT | libc.MSG_NOSIGNAL;
      const sent = libc.sendmsg(fd, scratch.address + ScratchOffset.Message, flags);
      if (sent >= 0) done += sent;
      else if (sent !== -Errno.EAGAIN || performance.now() > deadline) throw callFailed('sendmsg', sent);
    }
  }

  recvDescriptors(fd: Fd): { readonly bytes: Uint8Array; readonly descriptors: readonly Fd[] } | null {
    writeMessageRoom();
    const flags = libc.MSG_DONTWAIT | libc.MSG_CMSG_CLOEXEC;
    const length = libc.recvmsg(fd, scratch.address + ScratchOffset.Message, flags);
    if (length === -Errno.EAGAIN) return null;
    if (length < 0) throw callFailed('recvmsg', length);
    const bytes = scratch.bytes.slice(ScratchOffset.Data, ScratchOffset.Data + length);
    const descriptors = readDescriptorMessage();
    for (const received of descriptors) {
      libc.fcntl(received, libc.F_SETFL, libc.fcntl(received, libc.F_GETFL, 0) | libc.O_NONBLOCK);
      this.descriptors.own(received, DescriptorKind.Unknown);
      this.shareDescriptor(received);
    }
    return { bytes, descriptors };
  }

  // --- life ------------------------------------------------------------------------------------------------

  audit(): IoAudit {
    return {
      descriptors: this.descriptors.owned,
      operations: this.operations.active,
      timers: this.#wheel.armed - this.#ownTimers,
      slots: this.stopped ? 0 : this.arena.slotsInUse,
      mappings: this.stopped ? 0 : 1,
    };
  }

  stop(): void {
    if (this.stopped) return;
    this.stopped = true;
    this.#wheel.clear();
    this.#ownTimers = 0;
    // Unhooked first: the loop must not watch a descriptor that is closed.
    this.loop.close();
    this.stopOperations();
    for (let fd = 0; fd < this.descriptors.flags.length; fd++) {
      if (((this.descriptors.flags[fd] as number) & DescriptorFlag.Closing) !== 0) this.closeNow(fd);
    }
    this.#deferredIds = [];
    giveBackArenaMemory(this.#arenaMemory);
  }
}

/** Errors after which accepting on a descriptor can never succeed. */
export function isFatalToAccept(result: number): boolean {
  const errno = -result;
  return (
    errno === Errno.EBADF ||
    errno === Errno.EINVAL ||
    errno === Errno.EOPNOTSUPP ||
    errno === Errno.ECANCELED ||
    errno === ENOTSOCK
  );
}

// --- helpers of the cold path ------------------------------------------------------------------------------

function callFailed(what: string, result: number): RampartError {
  return systemError('RAMP_SYSCALL', what, result);
}

function listenError(address: SocketAddress, result: number): RampartError {
  const cause = callFailed('binding', result);
  const hint =
    cause.errno === Errno.EADDRINUSE
      ? 'another process has it; choose another port or stop that process'
      : cause.errno === Errno.EACCES
        ? 'this user may not bind it; choose a port above 1023 or grant CAP_NET_BIND_SERVICE'
        : cause.message;
  const text = `cannot bind ${formatSocketAddress(address)}: ${hint}`;
  return new RampartError('RAMP_LISTEN', text, { errno: cause.errno, cause });
}

function bindToDevice(fd: Fd, device: string): void {
  const at = libc.scratchString(device);
  const failed = libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, at, device.length + 1);
  if (failed < 0) throw callFailed(`binding to device ${device}`, failed);
}

function addressOf(
  what: string,
  fd: Fd,
  call: (fd: number, address: number, length: number) => number,
): SocketAddress {
  scratch.view.setInt32(ScratchOffset.Length, SOCKADDR_BYTES, true);
  const at = scratch.address + ScratchOffset.Address;
  const failed = call(fd, at, scratch.address + ScratchOffset.Length);
  if (failed < 0) throw callFailed(what, failed);
  const length = scratch.view.getInt32(ScratchOffset.Length, true);
  return readSocketAddress(scratch.view, ScratchOffset.Address, length);
}

function kindOfSocket(fd: Fd): number {
  const type = libc.getsockoptInt(fd, SOL_SOCKET, SO_TYPE);
  if (type < 0) return DescriptorKind.Other;
  if (type !== libc.SOCK_STREAM) return DescriptorKind.PacketSocket;
  const local = libc.getsockoptInt(fd, SOL_SOCKET, SO_DOMAIN) === libc.AF_UNIX;
  return local ? DescriptorKind.LocalStream : DescriptorKind.StreamSocket;
}

/**
 * Arena mappings of stopped engines: views of them may live on, so they are emptied and reused, never
 * unmapped.
 */
const spareArenaMemory: libc.Mapping[] = [];

function takeArenaMemory(length: number): libc.Mapping {
  const at = spareArenaMemory.findIndex(({ memory }) => memory.byteLength === length);
  if (at >= 0) return spareArenaMemory.splice(at, 1)[0] as libc.Mapping;
  return libc.reserveMemory(length);
}

function giveBackArenaMemory(mapping: libc.Mapping): void {
  libc.madvise(mapping.address, mapping.memory.byteLength, libc.MADV_DONTNEED);
  spareArenaMemory.push(mapping);
}
