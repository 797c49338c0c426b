import { assert } from '#base/assert.ts';
import type { SocketAddress } from '#base/ip.ts';

import type { SlotPool } from './arena.ts';
import { DescriptorFlag, DescriptorKind } from './descriptor-table.ts';
import * as libc from './ffi/libc.ts';
import {
  RING_ACCEPT_MULTISHOT,
  RING_BUFFER_SELECT,
  RING_CANCEL_ALL_OF_FD,
  RING_CANCEL_EVERYTHING,
  RING_FLAG_BUFFER,
  RING_FLAG_MORE,
  RING_POLL_FIRST,
  RING_POLL_MULTISHOT,
  type Ring,
  RingOp,
} from './ffi/ring.ts';
import { type Completion, CompletionFlag, Errno, type Fd, type OperationId, PollMask } from './io.ts';
import { isFatalToAccept, NativeEngine, type NativeEngineOptions } from './native-engine.ts';
import { OPERATION_KIND_PLAIN_MAX, OperationKind, OperationState } from './operation-table.ts';
import { PooledBuffers } from './pooled-buffers.ts';
import { writeSocketAddress } from './socket-address.ts';

/** RWF_NOWAIT: a write that would wait fails instead. */
const RWF_NOWAIT = 8;
/** Rounds of submitting and reaping in one turn, before Node's other work has its turn. */
const ROUNDS_MAX = 16;
/** Completions after which the ring's head is published, so that the kernel has room again. */
const PUBLISH_EVERY = 64;
/** Completions of one batch; promise jobs run after each. */
const BATCH_MAX = 512;
const NEW_DESCRIPTOR = libc.SOCK_NONBLOCK | libc.SOCK_CLOEXEC;
const SEND_FLAGS = libc.MSG_NOSIGNAL | libc.MSG_WAITALL;

/**
 * The engine over io_uring. Operations become entries of the submission ring; they are submitted together,
 * after each batch of completions and before the loop sleeps. An entry's user data is the operation's id, so
 * a completion of a finished operation is recognised and dropped. Id 0 is for entries whose completion nobody
 * wants.
 */
export class UringEngine extends NativeEngine {
  readonly kind = 'uring';
  #ring: Ring;
  readonly #buffersOf = new Map<SlotPool, PooledBuffers>();
  readonly #buffers: PooledBuffers[] = [];
  /** Splices under way: each may wait on another descriptor than its own. */
  #splices = 0;

  /** Takes `ring` over. */
  constructor(ring: Ring, options: NativeEngineOptions = {}) {
    super(ring.fd, options);
    this.#ring = ring;
  }

  // --- starting --------------------------------------------------------------------------------------------

  accept(listener: Fd, completion: Completion, tag: number): OperationId {
    this.noteListener(listener);
    const index = this.begin(OperationKind.Accept, listener, completion, tag);
    this.#pushAccept(index);
    return this.operations.ids[index] as number;
  }

  #pushAccept(index: number): void {
    const { operations } = this;
    const fd = operations.fds[index] as number;
    const id = operations.ids[index] as number;
    this.#ring.push(RingOp.Accept | RING_ACCEPT_MULTISHOT, fd, 0, 0, NEW_DESCRIPTOR, id);
  }

  connect(fd: Fd, address: SocketAddress, completion: Completion, tag: number): OperationId {
    const index = this.begin(OperationKind.Connect, fd, completion, tag);
    const id = this.operations.ids[index] as number;
    const ring = this.#ring;
    const offset = ring.nextAddressOffset();
    const length = writeSocketAddress(ring.addressView, offset, address);
    const at = ring.push(RingOp.Connect, fd, ring.addressBase + offset, 0, 0, id);
    ring.entries[at + 2] = length;
    return id;
  }

  recv(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    const index = this.begin(OperationKind.Recv, fd, completion, tag);
    const id = this.operations.ids[index] as number;
    this.#ring.push(RingOp.Recv, fd, this.arena.address + offset, length, 0, id);
    return id;
  }

  recvPooled(fd: Fd, pool: SlotPool, completion: Completion, tag: number): OperationId {
    const index = this.begin(OperationKind.RecvPooled, fd, completion, tag);
    const buffers = this.#buffersFor(pool);
    this.operations.lengths[index] = buffers.group;
    buffers.waiting++;
    this.#pushRecvPooled(index);
    return this.operations.ids[index] as number;
  }

  #pushRecvPooled(index: number): void {
    const { operations } = this;
    const fd = operations.fds[index] as number;
    const id = operations.ids[index] as number;
    // Polling first: without data the kernel would look for a buffer in vain, and report that.
    const head = RingOp.Recv | RING_BUFFER_SELECT | RING_POLL_FIRST;
    const at = this.#ring.push(head, fd, 0, 0, 0, id);
    this.#ring.entries[at + 10] = operations.lengths[index] as number;
  }

  #buffersFor(pool: SlotPool): PooledBuffers {
    let buffers = this.#buffersOf.get(pool);
    if (buffers === undefined) {
      buffers = new PooledBuffers(this.#ring, this.arena, pool, this.#buffers.length);
      this.#buffersOf.set(pool, buffers);
      this.#buffers.push(buffers);
    }
    return buffers;
  }

  send(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    assert(length > 0, 'a send has at least one byte');
    const index = this.begin(OperationKind.Send, fd, completion, tag);
    const { operations } = this;
    const id = operations.ids[index] as number;
    operations.offsets[index] = offset;
    operations.lengths[index] = length;
    operations.progress[index] = 0;
    this.#ring.push(RingOp.Send, fd, this.arena.address + offset, length, SEND_FLAGS, id);
    return id;
  }

  read(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    const index = this.begin(OperationKind.Read, fd, completion, tag);
    const id = this.operations.ids[index] as number;
    const at = this.#ring.push(RingOp.Read, fd, this.arena.address + offset, length, 0, id);
    this.#atFilePosition(at);
    return id;
  }

  write(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    const index = this.begin(OperationKind.Write, fd, completion, tag);
    const id = this.operations.ids[index] as number;
    const address = this.arena.address + offset;
    const kind = this.descriptorKind(fd);
    if (kind !== DescriptorKind.Pipe && kind !== DescriptorKind.Other) {
      // MSG_DONTWAIT keeps the kernel from waiting for room: the packet is dropped by its owner.
      const flags = kind === DescriptorKind.PacketSocket ? libc.MSG_DONTWAIT : 0;
      this.#ring.push(RingOp.Send, fd, address, length, flags | libc.MSG_NOSIGNAL, id);
    } else {
      const at = this.#ring.push(RingOp.Write, fd, address, length, this.#writeFlags(kind), id);
      this.#atFilePosition(at);
    }
    return id;
  }

  /** A packet is not worth waiting for; a TUN never makes a writer wait. */
  #writeFlags(kind: number): number {
    return kind === DescriptorKind.PacketSocket ? RWF_NOWAIT : 0;
  }

  readv(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId {
    const index = this.begin(OperationKind.Readv, fd, completion, tag);
    const id = this.operations.ids[index] as number;
    const at = this.#ring.push(RingOp.Readv, fd, this.arena.address + vectors, count, 0, id);
    this.#atFilePosition(at);
    return id;
  }

  writev(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId {
    const index = this.begin(OperationKind.Writev, fd, completion, tag);
    const id = this.operations.ids[index] as number;
    const flags = this.#writeFlags(this.descriptorKind(fd));
    const at = this.#ring.push(RingOp.Writev, fd, this.arena.address + vectors, count, flags, id);
    this.#atFilePosition(at);
    return id;
  }

  /** An offset of −1: at the file's own position, as read(2) and write(2). */
  #atFilePosition(at: number): void {
    this.#ring.entries[at + 2] = -1;
    this.#ring.entries[at + 3] = -1;
  }

  recvmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId {
    const index = this.begin(OperationKind.Recvmsg, fd, completion, tag);
    const id = this.operations.ids[index] as number;
    this.#ring.push(RingOp.Recvmsg, fd, this.arena.address + message, 1, flags, id);
    return id;
  }

  sendmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId {
    const index = this.begin(OperationKind.Sendmsg, fd, completion, tag);
    const id = this.operations.ids[index] as number;
    const all = flags | libc.MSG_NOSIGNAL;
    this.#ring.push(RingOp.Sendmsg, fd, this.arena.address + message, 1, all, id);
    return id;
  }

  splice(from: Fd, to: Fd, length: number, completion: Completion, tag: number): OperationId {
    const index = this.begin(OperationKind.Splice, from, completion, tag);
    this.operations.offsets[index] = to;
    this.operations.lengths[index] = length;
    this.#splices++;
    this.#pushSplice(index);
    return this.operations.ids[index] as number;
  }

  /**
   * The kernel would run a splice of its own in a worker thread; readiness and a non-blocking call cost half.
   */
  #pushSplice(index: number): void {
    const { operations } = this;
    const awaitsRoom = ((operations.states[index] as number) & OperationState.AwaitsRoom) !== 0;
    const fd = (awaitsRoom ? operations.offsets[index] : operations.fds[index]) as number;
    const mask = awaitsRoom ? PollMask.Out : PollMask.In;
    this.#ring.push(RingOp.PollAdd, fd, 0, 0, mask, operations.ids[index] as number);
  }

  poll(fd: Fd, mask: number, multishot: boolean, completion: Completion, tag: number): OperationId {
    const kind = multishot ? OperationKind.PollMany : OperationKind.Poll;
    const index = this.begin(kind, fd, completion, tag);
    this.operations.lengths[index] = mask;
    this.#pushPoll(index);
    return this.operations.ids[index] as number;
  }

  #pushPoll(index: number): void {
    const { operations } = this;
    const many = operations.kinds[index] === OperationKind.PollMany ? RING_POLL_MULTISHOT : 0;
    const fd = operations.fds[index] as number;
    const mask = operations.lengths[index] as number;
    this.#ring.push(RingOp.PollAdd, fd, 0, many, mask, operations.ids[index] as number);
  }

  // --- ending ----------------------------------------------------------------------------------------------

  cancel(operation: OperationId): void {
    const index = this.operations.find(operation);
    if (index === 0) return;
    const state = this.operations.states[index] as number;
    if ((state & OperationState.Cancelled) !== 0) return;
    this.operations.states[index] = state | OperationState.Cancelled;
    if ((state & OperationState.Waiting) !== 0) this.defer(index, -Errno.ECANCELED);
    else this.#ring.push(RingOp.AsyncCancel, -1, operation, 0, 0, 0);
  }

  close(fd: Fd): void {
    const { descriptors } = this;
    descriptors.reach(fd);
    const flags = descriptors.flags[fd] as number;
    if ((flags & DescriptorFlag.Closing) !== 0) return;
    if (this.#splices > 0) this.#cancelSplicesTo(fd);
    if (descriptors.operations[fd] === 0) {
      this.closeNow(fd);
      return;
    }
    if (isListener(descriptors.kinds[fd] as number)) {
      this.#closeListener(fd);
      return;
    }
    // The number stays taken until the last operation is over: nobody can get a descriptor whose completions
    // belong to another.
    descriptors.flags[fd] = flags | DescriptorFlag.Closing;
    this.#ring.push(RingOp.AsyncCancel, fd, 0, 0, RING_CANCEL_ALL_OF_FD, 0);
  }

  /** A splice that waits for room in `fd` would keep its file open. */
  #cancelSplicesTo(fd: Fd): void {
    const { operations } = this;
    for (let index = 1; index < operations.end; index++) {
      if (operations.kinds[index] === OperationKind.Splice && operations.offsets[index] === fd) {
        this.cancel(operations.ids[index] as number);
      }
    }
  }

  /** A listener's address is free when this returns, so that another may bind it. */
  #closeListener(fd: Fd): void {
    const { operations, descriptors } = this;
    for (let index = 1; index < operations.end; index++) {
      if (operations.kinds[index] === 0 || operations.fds[index] !== fd) continue;
      this.cancel(operations.ids[index] as number);
      operations.fds[index] = -1;
    }
    descriptors.operations[fd] = 0;
    this.#ring.submit();
    this.closeNow(fd);
  }

  /** True when the operation must not go on by itself. */
  #ended(index: number): boolean {
    if (((this.operations.states[index] as number) & OperationState.Cancelled) !== 0) return true;
    const fd = this.operations.fds[index] as number;
    return ((this.descriptors.flags[fd] as number) & DescriptorFlag.Closing) !== 0;
  }

  flush(): void {
    this.#stock();
    this.#ring.submit();
  }

  #stock(): void {
    for (const buffers of this.#buffers) buffers.stock();
  }

  // --- the loop --------------------------------------------------------------------------------------------

  turn(): boolean {
    for (let round = 0; round < ROUNDS_MAX && !this.stopped; round++) {
      if (this.#ring.pending > 0) this.flush();
      const count = this.#reap() + this.deliverDeferred();
      this.loop.drain();
      if (this.stopped) return false;
      if (count === 0 && this.#ring.pending === 0 && !this.#ring.flushOverflow()) break;
    }
    // Completions that are left keep the ring's descriptor readable.
    return this.hasDeferred;
  }

  prepare(): boolean {
    if (this.hasDeferred) {
      this.deliverDeferred();
      this.loop.drain();
      if (this.stopped) return false;
    }
    if (this.#ring.pending > 0) this.flush();
    this.updateAlive();
    return this.hasDeferred;
  }

  /** Delivers a batch of completions; returns how many. */
  #reap(): number {
    const ring = this.#ring;
    const { words, completionsAt, completionMask } = ring;
    let head = words[ring.completionHeadAt] as number;
    const tail = Atomics.load(words, ring.completionTailAt);
    let count = 0;
    while (head !== tail && count < BATCH_MAX) {
      const at = completionsAt + ((head & completionMask) << 2);
      const id = words[at] as number;
      const result = words[at + 2] as number;
      const flags = words[at + 3] as number;
      head = (head + 1) | 0;
      count++;
      if (count % PUBLISH_EVERY === 0) Atomics.store(words, ring.completionHeadAt, head);
      if (id !== 0) this.#complete(id, result, flags);
      if (this.stopped) return count;
    }
    Atomics.store(words, ring.completionHeadAt, head);
    return count;
  }

  #complete(id: number, result: number, flags: number): void {
    const { operations } = this;
    const index = operations.find(id);
    if (index === 0) return;
    const kind = operations.kinds[index] as number;
    if (kind <= OPERATION_KIND_PLAIN_MAX) this.finish(index, result, 0);
    else if (kind === OperationKind.RecvPooled) this.#completeRecvPooled(index, result, flags);
    else if (kind === OperationKind.Send) this.#completeSend(index, result);
    else if (kind === OperationKind.PollMany) this.#completePollMany(index, result, flags);
    else if (kind === OperationKind.Accept) this.#completeAccept(index, result, flags);
    else this.#completeSplice(index, result);
  }

  #completeSend(index: number, result: number): void {
    const { operations } = this;
    const length = operations.lengths[index] as number;
    const sent = (operations.progress[index] as number) + result;
    if (result <= 0 || sent === length) {
      this.finish(index, result < 0 ? result : result === 0 ? -Errno.EPIPE : length, 0);
    } else if (this.#ended(index)) {
      this.finish(index, -Errno.ECANCELED, 0);
    } else {
      operations.progress[index] = sent;
      const fd = operations.fds[index] as number;
      const address = this.arena.address + (operations.offsets[index] as number) + sent;
      const id = operations.ids[index] as number;
      this.#ring.push(RingOp.Send, fd, address, length - sent, SEND_FLAGS, id);
    }
  }

  #completeRecvPooled(index: number, result: number, flags: number): void {
    const buffers = this.#buffers[this.operations.lengths[index] as number] as PooledBuffers;
    if ((flags & RING_FLAG_BUFFER) !== 0) {
      const slot = flags >>> 16;
      buffers.take(slot);
      if (result <= 0) buffers.pool.release(buffers.pool.offsetOf(slot));
    } else if (result === -Errno.ENOBUFS && !this.#ended(index) && buffers.refill()) {
      this.#pushRecvPooled(index);
      return;
    }
    buffers.waiting--;
    this.finish(index, result, result > 0 ? flags & 0xffff0000 : 0);
  }

  #completePollMany(index: number, result: number, flags: number): void {
    const { operations } = this;
    if (result < 0 || this.#ended(index)) {
      if ((flags & RING_FLAG_MORE) === 0) this.finish(index, result < 0 ? result : -Errno.ECANCELED, 0);
      return;
    }
    if ((flags & RING_FLAG_MORE) === 0) this.#pushPoll(index);
    const completion = operations.completions[index] as Completion;
    this.deliver(completion, operations.tags[index] as number, result, CompletionFlag.More);
  }

  #completeAccept(index: number, result: number, flags: number): void {
    const { operations } = this;
    const more = (flags & RING_FLAG_MORE) !== 0;
    if (((operations.states[index] as number) & OperationState.Cancelled) !== 0) {
      // Nobody waits for this connection any more.
      if (result >= 0) libc.close(result);
      if (!more) this.finish(index, -Errno.ECANCELED, 0);
      return;
    }
    if (result < 0 && isFatalToAccept(result)) {
      this.finish(index, result, 0);
      return;
    }
    if (result >= 0) this.ownAccepted(operations.fds[index] as number, result);
    if (!more) {
      if (result >= 0 || result === -Errno.ECONNABORTED) this.#pushAccept(index);
      else this.pauseAccept(index);
    }
    const completion = operations.completions[index] as Completion;
    this.deliver(completion, operations.tags[index] as number, result, CompletionFlag.More);
  }

  protected resumeAccept(index: number): void {
    this.#pushAccept(index);
  }

  #completeSplice(index: number, result: number): void {
    const { operations } = this;
    if (result < 0 || this.#ended(index)) {
      this.#splices--;
      this.finish(index, result < 0 ? result : -Errno.ECANCELED, 0);
      return;
    }
    const from = operations.fds[index] as number;
    const moved = libc.splice(from, operations.offsets[index] as number, operations.lengths[index] as number);
    if (moved !== -Errno.EAGAIN) {
      this.#splices--;
      this.finish(index, moved, 0);
      return;
    }
    operations.states[index] = (operations.states[index] as number) ^ OperationState.AwaitsRoom;
    this.#pushSplice(index);
  }

  protected stopOperations(): void {
    const ring = this.#ring;
    ring.push(RingOp.AsyncCancel, -1, 0, 0, RING_CANCEL_EVERYTHING, 0);
    ring.submit();
    ring.settle();
    for (const buffers of this.#buffers) buffers.close();
    const { operations } = this;
    for (let index = 1; index < operations.end; index++) {
      if (operations.kinds[index] !== 0) operations.release(index);
    }
    ring.close();
    // Its views are unmapped: use after the end must be an exception, not a fault.
    this.#ring = null as unknown as Ring;
  }
}

function isListener(kind: number): boolean {
  return (
    kind === DescriptorKind.StreamListener ||
    kind === DescriptorKind.LocalListener ||
    kind === DescriptorKind.PacketListener
  );
}
