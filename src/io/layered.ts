import { assert } from '#base/assert.ts';
import type { SocketAddress } from '#base/ip.ts';

import type { Arena, SlotPool } from './arena.ts';
import {
  type Completion,
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

/**
 * A stream that this process makes out of another one, such as the plaintext of a TLS connection. The
 * operations are those of `Io` on one descriptor, with the same contract: nothing is called back
 * synchronously, each operation completes exactly once, at most one receive and one send are under way.
 */
export interface LayeredStream {
  /** The descriptor below, for addresses. */
  readonly raw: Fd;
  recv(offset: number, length: number, completion: Completion, tag: number): void;
  recvPooled(pool: SlotPool, completion: Completion, tag: number): void;
  send(offset: number, length: number, completion: Completion, tag: number): void;
  poll(mask: number, multishot: boolean, completion: Completion, tag: number): OperationId;
  cancelRecv(): void;
  cancelSend(): void;
  tryRecv(offset: number, length: number): number;
  trySend(offset: number, length: number): number;
  setOption(option: SocketOption, value: number): void;
  shutdownWrite(): void;
  /** The descriptor's last call. What was accepted for sending goes out, unless `linger-zero` was set. */
  close(): void;
}

/** Descriptors of layered streams: far above those of the kernel, and small integers still. */
const LAYERED_FD_MIN = 0x4000_0000;
const LAYERED_FD_COUNT = 0x3fff_ffff;

/** True for a descriptor that only a `LayeredIo` knows: the kernel can neither splice nor pass it on. */
export function isLayered(fd: Fd): boolean {
  return fd >= LAYERED_FD_MIN;
}

const OPERATION_RECV = 0;
const OPERATION_SEND = 1;
const OPERATIONS = 2;

/**
 * An engine whose streams may be layered ones: whoever is given a descriptor need not know which it has. All
 * else goes to the engine below. Receiving, sending, polling, closing and options work on both; `splice`,
 * reads of packets and passing on of descriptors only on the kernel's.
 */
export class LayeredIo implements Io {
  readonly kind: EngineKind;
  readonly arena: Arena;
  readonly #io: Io;
  readonly #streams = new Map<Fd, LayeredStream>();
  #next = 0;

  constructor(io: Io) {
    this.kind = io.kind;
    this.arena = io.arena;
    this.#io = io;
  }

  /** The engine below. */
  get below(): Io {
    return this.#io;
  }

  /** Gives a stream a descriptor, which is its until `forget`. */
  register(stream: LayeredStream): Fd {
    let fd: Fd;
    do {
      fd = LAYERED_FD_MIN + (this.#next++ % LAYERED_FD_COUNT);
    } while (this.#streams.has(fd));
    this.#streams.set(fd, stream);
    return fd;
  }

  /** Layered streams that are not closed, for leak checks. */
  get layeredCount(): number {
    return this.#streams.size;
  }

  now(): number {
    return this.#io.now();
  }

  refreshNow(): number {
    return this.#io.refreshNow();
  }

  accept(listener: Fd, completion: Completion, tag: number): OperationId {
    return this.#io.accept(listener, completion, tag);
  }

  connect(fd: Fd, address: SocketAddress, completion: Completion, tag: number): OperationId {
    return this.#io.connect(fd, address, completion, tag);
  }

  recv(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    if (fd < LAYERED_FD_MIN) return this.#io.recv(fd, offset, length, completion, tag);
    this.#stream(fd).recv(offset, length, completion, tag);
    return operationId(fd, OPERATION_RECV);
  }

  recvPooled(fd: Fd, pool: SlotPool, completion: Completion, tag: number): OperationId {
    if (fd < LAYERED_FD_MIN) return this.#io.recvPooled(fd, pool, completion, tag);
    this.#stream(fd).recvPooled(pool, completion, tag);
    return operationId(fd, OPERATION_RECV);
  }

  send(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    if (fd < LAYERED_FD_MIN) return this.#io.send(fd, offset, length, completion, tag);
    this.#stream(fd).send(offset, length, completion, tag);
    return operationId(fd, OPERATION_SEND);
  }

  read(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    return this.#io.read(fd, offset, length, completion, tag);
  }

  write(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId {
    return this.#io.write(fd, offset, length, completion, tag);
  }

  readv(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId {
    return this.#io.readv(fd, vectors, count, completion, tag);
  }

  writev(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId {
    return this.#io.writev(fd, vectors, count, completion, tag);
  }

  recvmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId {
    return this.#io.recvmsg(fd, message, flags, completion, tag);
  }

  sendmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId {
    return this.#io.sendmsg(fd, message, flags, completion, tag);
  }

  splice(from: Fd, to: Fd, length: number, completion: Completion, tag: number): OperationId {
    assert(!isLayered(from) && !isLayered(to), 'a layered stream cannot be spliced');
    return this.#io.splice(from, to, length, completion, tag);
  }

  poll(fd: Fd, mask: number, multishot: boolean, completion: Completion, tag: number): OperationId {
    if (fd < LAYERED_FD_MIN) return this.#io.poll(fd, mask, multishot, completion, tag);
    return this.#stream(fd).poll(mask, multishot, completion, tag);
  }

  cancel(operation: OperationId): void {
    if (operation >= 0) {
      this.#io.cancel(operation);
      return;
    }
    const number = -operation - 1;
    const stream = this.#streams.get(Math.floor(number / OPERATIONS));
    if (number % OPERATIONS === OPERATION_RECV) stream?.cancelRecv();
    else stream?.cancelSend();
  }

  flush(): void {
    this.#io.flush();
  }

  timer(delayMs: number, completion: Completion, tag: number): TimerId {
    return this.#io.timer(delayMs, completion, tag);
  }

  cancelTimer(timer: TimerId): void {
    this.#io.cancelTimer(timer);
  }

  trySplice(from: Fd, to: Fd, length: number): number {
    if (isLayered(from) || isLayered(to)) return -Errno.EINVAL;
    return this.#io.trySplice(from, to, length);
  }

  tryRead(fd: Fd, offset: number, length: number): number {
    return this.#io.tryRead(fd, offset, length);
  }

  tryWrite(fd: Fd, offset: number, length: number): number {
    return this.#io.tryWrite(fd, offset, length);
  }

  tryRecv(fd: Fd, offset: number, length: number): number {
    if (fd < LAYERED_FD_MIN) return this.#io.tryRecv(fd, offset, length);
    return this.#stream(fd).tryRecv(offset, length);
  }

  trySend(fd: Fd, offset: number, length: number): number {
    if (fd < LAYERED_FD_MIN) return this.#io.trySend(fd, offset, length);
    return this.#stream(fd).trySend(offset, length);
  }

  tryRecvmsg(fd: Fd, message: number, flags: number): number {
    return this.#io.tryRecvmsg(fd, message, flags);
  }

  trySendmsg(fd: Fd, message: number, flags: number): number {
    return this.#io.trySendmsg(fd, message, flags);
  }

  listen(address: SocketAddress, options?: ListenOptions): Fd {
    return this.#io.listen(address, options);
  }

  socket(kind: SocketKind): Fd {
    return this.#io.socket(kind);
  }

  bind(fd: Fd, address: SocketAddress): void {
    this.#io.bind(fd, address);
  }

  socketPair(type: 'stream' | 'seqpacket' | 'dgram'): [Fd, Fd] {
    return this.#io.socketPair(type);
  }

  pipe(bytes?: number): [Fd, Fd] {
    return this.#io.pipe(bytes);
  }

  setOption(fd: Fd, option: SocketOption, value: number): void {
    if (fd < LAYERED_FD_MIN) this.#io.setOption(fd, option, value);
    else this.#stream(fd).setOption(option, value);
  }

  localAddress(fd: Fd): SocketAddress {
    return this.#io.localAddress(this.#raw(fd));
  }

  remoteAddress(fd: Fd): SocketAddress {
    return this.#io.remoteAddress(this.#raw(fd));
  }

  socketError(fd: Fd): number {
    return this.#io.socketError(this.#raw(fd));
  }

  shutdownWrite(fd: Fd): void {
    if (fd < LAYERED_FD_MIN) this.#io.shutdownWrite(fd);
    else this.#stream(fd).shutdownWrite();
  }

  duplicate(fd: Fd): Fd {
    assert(!isLayered(fd), 'a layered stream has one descriptor');
    return this.#io.duplicate(fd);
  }

  close(fd: Fd): void {
    if (fd < LAYERED_FD_MIN) {
      this.#io.close(fd);
      return;
    }
    const stream = this.#stream(fd);
    this.#streams.delete(fd);
    stream.close();
  }

  sendDescriptors(fd: Fd, bytes: Uint8Array, descriptors: readonly Fd[]): void {
    assert(!descriptors.some(isLayered), 'a layered stream cannot be passed on');
    this.#io.sendDescriptors(fd, bytes, descriptors);
  }

  recvDescriptors(fd: Fd): { readonly bytes: Uint8Array; readonly descriptors: readonly Fd[] } | null {
    return this.#io.recvDescriptors(fd);
  }

  ref(): void {
    this.#io.ref();
  }

  unref(): void {
    this.#io.unref();
  }

  audit(): IoAudit {
    return this.#io.audit();
  }

  stop(): void {
    this.#io.stop();
  }

  #stream(fd: Fd): LayeredStream {
    const stream = this.#streams.get(fd);
    assert(stream !== undefined, 'a layered stream is used after it was closed');
    return stream;
  }

  #raw(fd: Fd): Fd {
    return fd < LAYERED_FD_MIN ? fd : this.#stream(fd).raw;
  }
}

/** Below zero, where no engine's are. */
function operationId(fd: Fd, operation: number): OperationId {
  return -(fd * OPERATIONS + operation) - 1;
}
