import { assert } from '#base/assert.ts';
import type { SocketAddress } from '#base/ip.ts';

import type { SlotPool } from './arena.ts';
import { DescriptorFlag, DescriptorKind } from './descriptor-table.ts';
import * as libc from './ffi/libc.ts';
import { type Completion, CompletionFlag, Errno, type Fd, type OperationId, PollMask } from './io.ts';
import { isFatalToAccept, NativeEngine, type NativeEngineOptions } from './native-engine.ts';
import { OperationLists } from './operation-lists.ts';
import { OperationKind, OperationState } from './operation-table.ts';
import { writeSocketAddress } from './socket-address.ts';

const { ScratchOffset, scratch } = libc;

/** Events taken by one call. */
const EVENTS_MAX = 512;
/** struct epoll_event is packed on x86-64 only. */
const EVENT_BYTES = process.arch === 'x64' ? 12 : 16;
const EVENT_DATA = process.arch === 'x64' ? 4 : 8;
/** Rounds of delivery in one turn, before Node's other work has its turn. */
const ROUNDS_MAX = 16;
/** Operations of one list that run before others have their turn. */
const LIST_BUDGET = 64;
const NEW_DESCRIPTOR = libc.SOCK_NONBLOCK | libc.SOCK_CLOEXEC;
const SEND_FLAGS = libc.MSG_DONTWAIT | libc.MSG_NOSIGNAL;

const EPOLLET = 0x80000000;
const EVENTS_READABLE = PollMask.In | 2 | PollMask.Error | PollMask.HangUp | PollMask.ReadHangUp;
const EVENTS_WRITABLE = PollMask.Out | PollMask.Error | PollMask.HangUp;
const EVENTS_ENDED = PollMask.Error | PollMask.HangUp | PollMask.ReadHangUp;
const INTEREST = EPOLLET | PollMask.In | PollMask.Out | PollMask.ReadHangUp;

/** Bits of what is believed of a descriptor; an attempt that fails with EAGAIN corrects it. */
const READABLE = 1;
const WRITABLE = 2;
/** An end or an error is pending, so a short read does not mean that nothing is left. */
const ENDED = 4;
const REGISTERED = 8;

/** Each descriptor has three lists of operations: those that wait to read, to write, and polls. */
const LISTS = 3;
const READ = 0;
const WRITE = 1;
const WATCH = 2;
const NONE = 0;

/**
 * The engine over epoll, for where io_uring is forbidden. Each descriptor is registered once, edge-triggered,
 * for everything. An operation is attempted when it is started, unless the descriptor is known not to be
 * ready or others wait before it; otherwise it waits in the descriptor's list for the next edge. An end that
 * is known at once is still delivered from the loop.
 */
export class EpollEngine extends NativeEngine {
  readonly kind = 'epoll';
  readonly #epoll: Fd;
  readonly #events: libc.Mapping;
  readonly #eventView: DataView;
  #ready = new Uint8Array(1024);
  /** Counts the lives of a descriptor number, so that an event of an earlier one is recognised. */
  #generations = new Int32Array(1024);
  readonly #lists = new OperationLists(this.operations, 1024 * LISTS);
  /** Lists that have more to do than one turn allows. */
  #again: number[] = [];
  /** Splices that wait for room, and so stand in the list of their target. */
  #splicesAway = 0;

  /** Takes `epoll` over. */
  constructor(epoll: Fd, options: NativeEngineOptions = {}) {
    super(epoll, options);
    this.#epoll = epoll;
    this.#events = libc.reserveMemory(EVENTS_MAX * EVENT_BYTES);
    this.#eventView = new DataView(this.#events.memory);
  }

  // --- starting --------------------------------------------------------------------------------------------

  accept(listener: Fd, completion: Completion, tag: number): OperationId {
    this.noteListener(listener);
    return this.#startReading(this.#begin(OperationKind.Accept, listener, completion, tag));
  }

  connect(fd: Fd, address: SocketAddress, completion: Completion, tag: number): OperationId {
    const index = this.#begin(OperationKind.Connect, fd, completion, tag);
    const id = this.operations.ids[index] as number;
    const length = writeSocketAddress(scratch.view, ScratchOffset.Address, address);
    const result = libc.connect(fd, scratch.address + ScratchOffset.Address, length);
    if (result === -Errno.EINPROGRESS) this.#append(index, fd * LISTS + WRITE);
    else this.#decide(index, result, 0);
    return id;
  }

  recv(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    return this.#startReading(this.#beginBuffer(OperationKind.Recv, fd, offset, length, completion, tag));
  }

  recvPooled(fd: Fd, pool: SlotPool, completion: Completion, tag: number): OperationId {
    const index = this.#begin(OperationKind.RecvPooled, fd, completion, tag);
    this.operations.lengths[index] = this.#numberOf(pool);
    return this.#startReading(index);
  }

  readonly #pools: SlotPool[] = [];
  readonly #poolNumbers = new Map<SlotPool, number>();

  #numberOf(pool: SlotPool): number {
    let number = this.#poolNumbers.get(pool);
    if (number === undefined) {
      assert(pool.count <= 65_536, 'a pool for pooled receives has at most 65536 slots');
      number = this.#pools.length;
      this.#pools.push(pool);
      this.#poolNumbers.set(pool, number);
    }
    return number;
  }

  send(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    assert(length > 0, 'a send has at least one byte');
    const index = this.#beginBuffer(OperationKind.Send, fd, offset, length, completion, tag);
    this.operations.progress[index] = 0;
    return this.#startWriting(index);
  }

  read(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    return this.#startReading(this.#beginBuffer(OperationKind.Read, fd, offset, length, completion, tag));
  }

  write(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    return this.#startWriting(this.#beginBuffer(OperationKind.Write, fd, offset, length, completion, tag));
  }

  readv(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId {
    return this.#startReading(this.#beginBuffer(OperationKind.Readv, fd, vectors, count, completion, tag));
  }

  writev(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId {
    return this.#startWriting(this.#beginBuffer(OperationKind.Writev, fd, vectors, count, completion, tag));
  }

  recvmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId {
    return this.#startReading(this.#beginBuffer(OperationKind.Recvmsg, fd, message, flags, completion, tag));
  }

  sendmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId {
    return this.#startWriting(this.#beginBuffer(OperationKind.Sendmsg, fd, message, flags, completion, tag));
  }

  splice(from: Fd, to: Fd, length: number, completion: Completion, tag: number): OperationId {
    this.#reach(to);
    return this.#startReading(this.#beginBuffer(OperationKind.Splice, from, to, length, completion, tag));
  }

  poll(fd: Fd, mask: number, multishot: boolean, completion: Completion, tag: number): OperationId {
    const kind = multishot ? OperationKind.PollMany : OperationKind.Poll;
    const index = this.#begin(kind, fd, completion, tag);
    const id = this.operations.ids[index] as number;
    this.operations.lengths[index] = mask;
    const ready = libc.pollNow(fd, mask);
    if (ready !== 0 && !multishot) {
      this.#decide(index, ready, 0);
      return id;
    }
    if (ready > 0) this.defer(index, ready, CompletionFlag.More);
    this.#append(index, fd * LISTS + WATCH);
    return id;
  }

  #begin(kind: number, fd: Fd, completion: Completion, tag: number): number {
    assert(!this.stopped, 'the engine runs');
    if (fd >= this.#ready.length) this.#reach(fd);
    return this.begin(kind, fd, completion, tag);
  }

  #beginBuffer(
    kind: number,
    fd: Fd,
    offset: number,
    length: number,
    completion: Completion,
    tag: number,
  ): number {
    const index = this.#begin(kind, fd, completion, tag);
    this.operations.offsets[index] = offset;
    this.operations.lengths[index] = length;
    return index;
  }

  /** Attempts a reading operation when its turn has come and there may be data; otherwise it waits. */
  #startReading(index: number): OperationId {
    const { operations } = this;
    const id = operations.ids[index] as number;
    const fd = operations.fds[index] as number;
    const list = fd * LISTS + READ;
    if (this.#lists.heads[list] === NONE && ((this.#ready[fd] as number) & READABLE) !== 0) {
      if (operations.kinds[index] === OperationKind.Accept) {
        this.#append(index, list);
        this.#runLater(list);
        return id;
      }
      const result = this.#attempt(index);
      if (result !== -Errno.EAGAIN || this.#failsAtOnce(index)) {
        this.#decide(index, result, this.#pooledFlags);
        return id;
      }
    }
    this.#append(index, list);
    return id;
  }

  /** Attempts a writing operation unless others wait or the descriptor is known to be full. */
  #startWriting(index: number): OperationId {
    const id = this.operations.ids[index] as number;
    const fd = this.operations.fds[index] as number;
    const list = fd * LISTS + WRITE;
    const ready = this.#ready[fd] as number;
    const full = (ready & REGISTERED) !== 0 && (ready & WRITABLE) === 0;
    if (this.#lists.heads[list] === NONE && (!full || this.#failsAtOnce(index))) {
      const result = this.#attempt(index);
      if (result !== -Errno.EAGAIN || this.#failsAtOnce(index)) {
        this.#decide(index, result, 0);
        return id;
      }
    }
    this.#append(index, list);
    return id;
  }

  /** True for a packet that is not worth waiting for. */
  #failsAtOnce(index: number): boolean {
    const kind = this.operations.kinds[index] as number;
    if (kind === OperationKind.Write || kind === OperationKind.Writev) {
      const fd = this.operations.fds[index] as number;
      return this.descriptorKind(fd) === DescriptorKind.PacketSocket;
    }
    if (kind !== OperationKind.Sendmsg && kind !== OperationKind.Recvmsg) return false;
    return ((this.operations.lengths[index] as number) & libc.MSG_DONTWAIT) !== 0;
  }

  /** The end of operation `index` is known; it is delivered from the loop. */
  #decide(index: number, result: number, flags: number): void {
    this.operations.states[index] = OperationState.Done;
    this.operations.lists[index] = -1;
    this.defer(index, result, flags);
  }

  // --- attempts --------------------------------------------------------------------------------------------

  /** Completion flags of the last attempt: the slot of a pooled receive. */
  #pooledFlags = 0;

  /** Makes the system call of operation `index`; −EAGAIN when it has to wait. */
  #attempt(index: number): number {
    const { operations } = this;
    this.#pooledFlags = 0;
    const fd = operations.fds[index] as number;
    const offset = operations.offsets[index] as number;
    const length = operations.lengths[index] as number;
    const address = this.arena.address + offset;
    switch (operations.kinds[index]) {
      case OperationKind.Recv:
        return this.#afterRead(fd, libc.recv(fd, address, length, libc.MSG_DONTWAIT), length);
      case OperationKind.Read:
        return this.#afterRead(fd, libc.read(fd, address, length), length);
      case OperationKind.RecvPooled:
        return this.#attemptRecvPooled(fd, this.#pools[length] as SlotPool);
      case OperationKind.Send:
        return this.#attemptSend(index, fd);
      case OperationKind.Write:
        return this.#afterWrite(fd, libc.write(fd, address, length));
      case OperationKind.Readv:
        return this.#afterRead(fd, libc.readv(fd, address, length), 0);
      case OperationKind.Writev:
        return this.#afterWrite(fd, libc.writev(fd, address, length));
      case OperationKind.Recvmsg:
        return this.#afterRead(fd, libc.recvmsg(fd, address, length | libc.MSG_DONTWAIT), 0);
      case OperationKind.Sendmsg:
        return this.#afterWrite(fd, libc.sendmsg(fd, address, length | SEND_FLAGS));
      case OperationKind.Accept:
        return this.#afterRead(fd, libc.accept4(fd, NEW_DESCRIPTOR), 0);
      case OperationKind.Splice:
        return this.#attemptSplice(index, fd);
      default:
        return this.#attemptConnect(fd);
    }
  }

  /**
   * Notes what a read tells about the descriptor: nothing is left after EAGAIN, and neither after a short
   * read of a byte stream (epoll(7), questions and answers, 9), unless its end has been announced.
   */
  #afterRead(fd: Fd, result: number, length: number): number {
    const ready = this.#ready[fd] as number;
    if (result === -Errno.EAGAIN) this.#ready[fd] = ready & ~READABLE;
    else if (result > 0 && result < length && (ready & ENDED) === 0) {
      const kind = this.descriptors.kinds[fd];
      if (kind === DescriptorKind.StreamSocket || kind === DescriptorKind.Pipe) {
        this.#ready[fd] = ready & ~READABLE;
      }
    }
    return result;
  }

  #afterWrite(fd: Fd, result: number): number {
    if (result === -Errno.EAGAIN) this.#ready[fd] = (this.#ready[fd] as number) & ~WRITABLE;
    return result;
  }

  #attemptRecvPooled(fd: Fd, pool: SlotPool): number {
    const slot = pool.acquire();
    if (slot < 0) {
      // Only with data in wait is the empty pool the reason.
      const at = scratch.address + ScratchOffset.Data;
      const peeked = libc.recv(fd, at, 1, libc.MSG_DONTWAIT | libc.MSG_PEEK);
      return peeked > 0 ? -Errno.ENOBUFS : this.#afterRead(fd, peeked, 0);
    }
    const received = libc.recv(fd, this.arena.address + slot, pool.slotBytes, libc.MSG_DONTWAIT);
    if (received > 0) this.#pooledFlags = pool.indexOf(slot) << 16;
    else pool.release(slot);
    return this.#afterRead(fd, received, pool.slotBytes);
  }

  #attemptSend(index: number, fd: Fd): number {
    const { operations } = this;
    const length = operations.lengths[index] as number;
    const done = operations.progress[index] as number;
    const address = this.arena.address + (operations.offsets[index] as number) + done;
    const sent = libc.send(fd, address, length - done, SEND_FLAGS);
    if (sent === length - done) return length;
    if (sent < 0) return this.#afterWrite(fd, sent);
    operations.progress[index] = done + sent;
    return this.#afterWrite(fd, -Errno.EAGAIN);
  }

  #attemptConnect(fd: Fd): number {
    if (libc.pollNow(fd, PollMask.Out) === 0) return this.#afterWrite(fd, -Errno.EAGAIN);
    const error = this.socketError(fd);
    return error === 0 ? 0 : -error;
  }

  /** A splice waits for its source until that has data, then for its target. */
  #attemptSplice(index: number, from: Fd): number {
    const { operations } = this;
    const to = operations.offsets[index] as number;
    const moved = libc.splice(from, to, operations.lengths[index] as number);
    if (moved !== -Errno.EAGAIN) return moved;
    const state = operations.states[index] as number;
    if (libc.pollNow(from, PollMask.In) !== 0) {
      operations.states[index] = state | OperationState.AwaitsRoom;
      this.#ready[to] = (this.#ready[to] as number) & ~WRITABLE;
    } else {
      operations.states[index] = state & ~OperationState.AwaitsRoom;
      this.#ready[from] = (this.#ready[from] as number) & ~READABLE;
    }
    return moved;
  }

  // --- lists -----------------------------------------------------------------------------------------------

  /** Puts an operation to the end of a list; its descriptor is watched from here on. */
  #append(index: number, wanted: number): void {
    const { operations } = this;
    let list = wanted;
    if (((operations.states[index] as number) & OperationState.AwaitsRoom) !== 0) {
      list = (operations.offsets[index] as number) * LISTS + WRITE;
      this.#splicesAway++;
    }
    this.#lists.append(index, list);
    const fd = Math.trunc(list / LISTS);
    if (((this.#ready[fd] as number) & REGISTERED) === 0) this.#register(fd);
  }

  #unlink(index: number): void {
    const { operations } = this;
    if ((operations.lists[index] as number) < 0) return;
    this.#lists.unlink(index);
    if (((operations.states[index] as number) & OperationState.AwaitsRoom) !== 0) this.#splicesAway--;
  }

  #register(fd: Fd): void {
    const { view } = scratch;
    const at = ScratchOffset.Value;
    view.setUint32(at, INTEREST >>> 0, true);
    view.setInt32(at + EVENT_DATA, fd, true);
    view.setInt32(at + EVENT_DATA + 4, this.#generations[fd] as number, true);
    const event = scratch.address + at;
    let result = libc.epollControl(this.#epoll, libc.EPOLL_CTL_ADD, fd, event);
    if (result === -Errno.EEXIST) {
      result = libc.epollControl(this.#epoll, libc.EPOLL_CTL_MOD, fd, event);
    }
    this.#ready[fd] = (this.#ready[fd] as number) | REGISTERED;
    if (result === 0) return;
    // A file that cannot be polled is always ready (EPERM); a bad descriptor says so itself when it is tried.
    this.#ready[fd] = (this.#ready[fd] as number) | READABLE | WRITABLE;
    for (let list = fd * LISTS; list < fd * LISTS + WATCH; list++) this.#runLater(list);
  }

  #runLater(list: number): void {
    this.#again.push(list);
    this.loop.setAwake(true);
  }

  /** Runs the operations of a read or write list while the descriptor lasts. */
  #runList(list: number): void {
    const { operations } = this;
    const fd = Math.trunc(list / LISTS);
    const bit = list % LISTS === READ ? READABLE : WRITABLE;
    for (let budget = LIST_BUDGET; budget > 0; budget--) {
      const index = this.#lists.heads[list] as number;
      if (index === NONE || ((this.#ready[fd] as number) & bit) === 0) return;
      const kind = operations.kinds[index] as number;
      if (kind === OperationKind.Accept) {
        if (!this.#runAccept(index)) return;
        continue;
      }
      const result = this.#attempt(index);
      if (result === -Errno.EAGAIN) {
        if (kind === OperationKind.Splice) this.#moveSplice(index);
        continue;
      }
      this.#unlink(index);
      this.finish(index, result, this.#pooledFlags);
      if (this.stopped) return;
    }
    this.#runLater(list);
  }

  /** Puts a splice that could not run into the list of the side that it waits for. */
  #moveSplice(index: number): void {
    const { operations } = this;
    const awaited = operations.states[index] as number;
    const list = operations.lists[index] as number;
    // The state is already that of the other side, and `unlink` counts by it.
    const stood = list % LISTS === WRITE ? OperationState.AwaitsRoom : 0;
    operations.states[index] = (awaited & ~OperationState.AwaitsRoom) | stood;
    this.#unlink(index);
    operations.states[index] = awaited;
    this.#append(index, (operations.fds[index] as number) * LISTS + READ);
  }

  /** Accepts one connection; false when accepting has to wait or is over. */
  #runAccept(index: number): boolean {
    const { operations } = this;
    if (((operations.states[index] as number) & OperationState.Waiting) !== 0) return false;
    const listener = operations.fds[index] as number;
    const result = this.#attempt(index);
    if (result === -Errno.EAGAIN) return false;
    if (result < 0 && isFatalToAccept(result)) {
      this.#unlink(index);
      this.finish(index, result, 0);
      return !this.stopped;
    }
    if (result >= 0) this.ownAccepted(listener, result);
    else if (result !== -Errno.ECONNABORTED) this.pauseAccept(index);
    const completion = operations.completions[index] as Completion;
    this.deliver(completion, operations.tags[index] as number, result, CompletionFlag.More);
    return !this.stopped;
  }

  /** The pause after a shortage is over: the backlog may hold connections whose edge has passed. */
  protected resumeAccept(index: number): void {
    this.#runLater(this.operations.lists[index] as number);
  }

  // --- ending ----------------------------------------------------------------------------------------------

  cancel(operation: OperationId): void {
    const index = this.operations.find(operation);
    if (index === 0 || ((this.operations.states[index] as number) & OperationState.Done) !== 0) return;
    this.#unlink(index);
    this.#decide(index, -Errno.ECANCELED, 0);
  }

  close(fd: Fd): void {
    this.#reach(fd);
    const { operations, descriptors } = this;
    for (let list = fd * LISTS; list < (fd + 1) * LISTS; list++) {
      for (
        let index = this.#lists.heads[list] as number;
        index !== NONE;
        index = this.#lists.heads[list] as number
      ) {
        this.cancel(operations.ids[index] as number);
      }
    }
    if (this.#splicesAway > 0) this.#cancelSplicesFrom(fd);
    const shared = ((descriptors.flags[fd] as number) & DescriptorFlag.Shared) !== 0;
    const registered = ((this.#ready[fd] as number) & REGISTERED) !== 0;
    // The kernel forgets a file with its last descriptor, which this one may not be.
    if (registered && (shared || this.descriptorKind(fd) === DescriptorKind.Other)) {
      libc.epollControl(this.#epoll, libc.EPOLL_CTL_DEL, fd, scratch.address);
    }
    this.#ready[fd] = 0;
    this.#generations[fd] = ((this.#generations[fd] as number) + 1) | 0;
    descriptors.operations[fd] = 0;
    this.closeNow(fd);
  }

  #cancelSplicesFrom(fd: Fd): void {
    const { operations } = this;
    for (let index = 1; index < operations.end; index++) {
      if (operations.kinds[index] === OperationKind.Splice && operations.fds[index] === fd) {
        this.cancel(operations.ids[index] as number);
      }
    }
  }

  /** Operations are attempted when they are started: nothing is held back. */
  flush(): void {}

  // --- the loop --------------------------------------------------------------------------------------------

  turn(): boolean {
    let take = true;
    for (let round = 0; round < ROUNDS_MAX; round++) {
      if (take) take = this.#takeEvents() === EVENTS_MAX;
      if (this.stopped) return false;
      this.#deliver();
      if (this.stopped) return false;
      if (!take && !this.hasDeferred && this.#again.length === 0) return false;
    }
    return this.hasDeferred || this.#again.length > 0;
  }

  prepare(): boolean {
    for (let round = 0; round < ROUNDS_MAX && (this.hasDeferred || this.#again.length > 0); round++) {
      this.#deliver();
      if (this.stopped) return false;
    }
    this.updateAlive();
    return this.hasDeferred || this.#again.length > 0;
  }

  #deliver(): void {
    this.deliverDeferred();
    if (this.#again.length > 0 && !this.stopped) {
      const lists = this.#again;
      this.#again = [];
      for (const list of lists) this.#runList(list);
    }
    this.loop.drain();
  }

  #takeEvents(): number {
    const count = libc.epollTake(this.#epoll, this.#events.address, EVENTS_MAX);
    const view = this.#eventView;
    for (let i = 0; i < count && !this.stopped; i++) {
      const at = i * EVENT_BYTES;
      const fd = view.getInt32(at + EVENT_DATA, true);
      const generation = view.getInt32(at + EVENT_DATA + 4, true);
      if (this.#generations[fd] === generation) this.#onEvent(fd, generation, view.getUint32(at, true));
    }
    return count;
  }

  #onEvent(fd: Fd, generation: number, events: number): void {
    let ready = this.#ready[fd] as number;
    if ((events & EVENTS_READABLE) !== 0) ready |= READABLE;
    if ((events & EVENTS_WRITABLE) !== 0) ready |= WRITABLE;
    if ((events & EVENTS_ENDED) !== 0) ready |= ENDED;
    this.#ready[fd] = ready;
    const list = fd * LISTS;
    if (this.#lists.heads[list + READ] !== NONE) this.#runList(list + READ);
    if (this.#generations[fd] !== generation || this.stopped) return;
    if (this.#lists.heads[list + WRITE] !== NONE) this.#runList(list + WRITE);
    if (this.#generations[fd] !== generation || this.stopped) return;
    if (this.#lists.heads[list + WATCH] !== NONE) this.#runPolls(fd, events);
  }

  #runPolls(fd: Fd, events: number): void {
    const { operations } = this;
    // Callbacks may change the list, so it is noted first. Nearly always it has one element.
    const ids: number[] = [];
    const head = this.#lists.heads[fd * LISTS + WATCH] as number;
    for (let index = head; index !== NONE; index = operations.next[index] as number) {
      ids.push(operations.ids[index] as number);
    }
    for (const id of ids) {
      const index = operations.find(id);
      if (index === 0 || ((operations.states[index] as number) & OperationState.Done) !== 0) continue;
      const mask = (operations.lengths[index] as number) | PollMask.Error | PollMask.HangUp;
      const result = events & mask;
      if (result === 0) continue;
      if (operations.kinds[index] === OperationKind.PollMany) {
        const completion = operations.completions[index] as Completion;
        this.deliver(completion, operations.tags[index] as number, result, CompletionFlag.More);
      } else {
        this.#unlink(index);
        this.finish(index, result, 0);
      }
      if (this.stopped) return;
    }
  }

  #reach(fd: Fd): void {
    this.descriptors.reach(fd);
    if (fd < this.#ready.length) return;
    const length = 2 ** Math.ceil(Math.log2(fd + 1));
    const ready = new Uint8Array(length);
    const generations = new Int32Array(length);
    ready.set(this.#ready);
    generations.set(this.#generations);
    this.#ready = ready;
    this.#generations = generations;
    this.#lists.reach(length * LISTS);
  }

  protected stopOperations(): void {
    const { operations } = this;
    for (let index = 1; index < operations.end; index++) {
      if (operations.kinds[index] !== 0) operations.release(index);
    }
    this.#again = [];
    libc.close(this.#epoll);
    libc.munmap(this.#events.address, this.#events.memory.byteLength);
  }
}
