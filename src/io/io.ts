/**
 * `io` is the only place that touches descriptors and memory that the kernel writes. One completion-based
 * interface, three engines: `uring`, `epoll`, `memory`. It knows no packet formats.
 *
 * How it is used: everything the kernel reads or writes lies in the engine's one *arena*, and is named by its
 * offset there. An operation is started with a `Completion` object and a `tag`; when it is over, the engine
 * calls `onCompletion(tag, result, flags)` with `result` ≥ 0 or a negative errno. Starting never calls back
 * synchronously: completions are delivered from the event loop, in batches, and microtasks run after each
 * batch.
 */
import type { SocketAddress } from '#base/ip.ts';

import type { Arena, SlotPool } from './arena.ts';

/** Which engine moves the bytes. */
export type EngineKind = 'uring' | 'epoll' | 'memory';

/** A descriptor: a plain integer of the process, or of the memory engine's world. */
export type Fd = number;

/** Names one operation under way, for `cancel`. Never reused while its final completion is outstanding. */
export type OperationId = number;

/** Names one armed timer, for `cancelTimer`. A stale id is ignored. */
export type TimerId = number;

/** Receives the end of operations. One object serves many operations and tells them apart by `tag`. */
export interface Completion {
  /**
   * @param tag the number given when the operation started.
   * @param result bytes, a descriptor or an event mask (≥ 0); a negative errno when it failed.
   * @param flags `CompletionFlag` bits; the upper 16 bits are the slot index of a pooled receive.
   */
  onCompletion(tag: number, result: number, flags: number): void;
}

/** Bits of a completion's `flags`. */
export const CompletionFlag = Object.freeze({
  /** The operation stays armed and completes again (accept, multishot poll). */
  More: 1,
} as const);

/** The negative errno values that callers compare results with. */
export const Errno = Object.freeze({
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  EPIPE: 32,
  /** A layer above the transport broke its rules: TLS (RFC 8446 section 6.2). */
  EPROTO: 71,
  EMSGSIZE: 90,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  EINPROGRESS: 115,
  ECANCELED: 125,
} as const);

/** Event bits of `poll`, as poll(2) has them. */
export const PollMask = Object.freeze({ In: 1, Out: 4, Error: 8, HangUp: 16, ReadHangUp: 0x2000 } as const);

/** How a stream or packet listener is bound. */
export interface ListenOptions {
  /** `stream` for TCP and Unix stream, `seqpacket` for Unix SEQPACKET. Default `stream`. */
  readonly type?: 'stream' | 'seqpacket';
  /** Length of the accept queue, connections. Default 4096. */
  readonly backlog?: number;
  /** Several listeners share the port (SO_REUSEPORT). Default false. */
  readonly reusePort?: boolean;
  /** Accept connections to any address (IP_TRANSPARENT). Default false. */
  readonly transparent?: boolean;
  /** Bind to this interface (SO_BINDTODEVICE). */
  readonly device?: string;
  /** Accept IPv4 on an IPv6 any-address too. Default true. */
  readonly dualStack?: boolean;
}

/** What `socket` opens. */
export type SocketKind = 'tcp4' | 'tcp6' | 'udp4' | 'udp6' | 'unix-stream' | 'unix-seqpacket' | 'unix-dgram';

/** Integer socket options that callers may set by name; the engine knows level and number. */
export type SocketOption =
  | 'no-delay'
  | 'keep-alive'
  | 'reuse-address'
  | 'reuse-port'
  | 'receive-buffer'
  | 'send-buffer'
  | 'linger-zero'
  | 'ip-transparent'
  | 'ip-tos'
  | 'ip-ttl'
  | 'ip-recv-error'
  | 'ip-packet-info'
  | 'ip-recv-original-destination'
  | 'ip-mtu-discover'
  | 'udp-segment'
  | 'udp-receive-offload'
  | 'mark'
  | 'user-timeout'
  | 'not-sent-low-water'
  | 'max-segment'
  | 'v6-only'
  | 'pass-credentials';

/** The operations and the synchronous, cold-path calls of an engine. */
export interface Io {
  readonly kind: EngineKind;
  readonly arena: Arena;
  /**
   * Monotonic milliseconds (with fraction), read once per turn of the loop; `refreshNow` reads the clock
   * again.
   */
  now(): number;
  refreshNow(): number;

  // --- operations: complete later, through `completion.onCompletion(tag, …)` -------------------------------

  /**
   * Accepts until cancelled; each completion's result is a new non-blocking descriptor that the callee owns.
   */
  accept(listener: Fd, completion: Completion, tag: number): OperationId;
  /** Connects. The address is copied before the call returns. Result 0 or −errno. */
  connect(fd: Fd, address: SocketAddress, completion: Completion, tag: number): OperationId;
  /**
   * Receives at most `length` bytes at arena offset `offset`, which stays owned by the kernel until
   * completion. 0 is end of stream.
   */
  recv(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId;
  /**
   * Waits for data and only then takes a slot of `pool`, so that an idle connection holds no buffer. With a
   * result > 0 the slot `pool.offsetOf(flags >>> 16)` belongs to the callee, who gives it back by
   * `pool.release`. With a result ≤ 0 no slot was taken. −ENOBUFS: the pool was empty; try again later.
   */
  recvPooled(fd: Fd, pool: SlotPool, completion: Completion, tag: number): OperationId;
  /**
   * Sends all `length` bytes; the result is `length`, or −errno when the stream broke. SIGPIPE is never
   * raised.
   */
  send(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId;
  /** Reads one packet (TUN, SEQPACKET) or bytes (pipe, file). Same ownership as `recv`. */
  read(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId;
  /**
   * Writes one packet or bytes. On a packet socket a full queue completes with −EAGAIN at once: a packet is
   * dropped, not kept.
   */
  write(fd: Fd, offset: number, length: number, completion: Completion, tag: number): OperationId;
  /**
   * Vectored forms: `count` struct iovec (16 bytes each) at arena offset `vectors`; bases are
   * `arena.address + offset`.
   */
  readv(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId;
  writev(fd: Fd, vectors: number, count: number, completion: Completion, tag: number): OperationId;
  /** struct msghdr at arena offset `message`; see `message.ts`. `flags` are MSG_ bits. */
  recvmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId;
  sendmsg(fd: Fd, message: number, flags: number, completion: Completion, tag: number): OperationId;
  /** Moves up to `length` bytes between a pipe and a stream without copying. 0 is end of stream. */
  splice(from: Fd, to: Fd, length: number, completion: Completion, tag: number): OperationId;
  /** Waits for `mask` (PollMask bits); with `multishot` it completes at each edge until cancelled. */
  poll(fd: Fd, mask: number, multishot: boolean, completion: Completion, tag: number): OperationId;
  /**
   * Asks for an operation to end early. It still completes exactly once more: with −ECANCELED, or what it
   * came to first.
   */
  cancel(operation: OperationId): void;
  /** Submits what was started so far; the loop does it anyway before it sleeps. */
  flush(): void;

  // --- timers ----------------------------------------------------------------------------------------------

  /**
   * Completes once with result 0 after at least `delayMs`; resolution about 1 ms. Armed timers keep the loop
   * alive only with `ref`.
   */
  timer(delayMs: number, completion: Completion, tag: number): TimerId;
  cancelTimer(timer: TimerId): void;

  // --- non-blocking calls: answer at once with a count ≥ 0 or −errno (−EAGAIN: not now) --------------------

  trySplice(from: Fd, to: Fd, length: number): number;
  tryRead(fd: Fd, offset: number, length: number): number;
  tryWrite(fd: Fd, offset: number, length: number): number;
  tryRecv(fd: Fd, offset: number, length: number): number;
  trySend(fd: Fd, offset: number, length: number): number;
  tryRecvmsg(fd: Fd, message: number, flags: number): number;
  trySendmsg(fd: Fd, message: number, flags: number): number;

  // --- cold path: synchronous; throw `RampartError` with errno ---------------------------------------------

  /** Binds and listens. The descriptor is non-blocking and close-on-exec, as all are. */
  listen(address: SocketAddress, options?: ListenOptions): Fd;
  socket(kind: SocketKind): Fd;
  bind(fd: Fd, address: SocketAddress): void;
  /** Two connected Unix sockets. */
  socketPair(type: 'stream' | 'seqpacket' | 'dgram'): [Fd, Fd];
  /** Read end and write end, with a capacity of at least `bytes` where the kernel allows it. */
  pipe(bytes?: number): [Fd, Fd];
  setOption(fd: Fd, option: SocketOption, value: number): void;
  localAddress(fd: Fd): SocketAddress;
  remoteAddress(fd: Fd): SocketAddress;
  /** Pending error of a socket (SO_ERROR) as a positive errno, 0 when there is none. */
  socketError(fd: Fd): number;
  /** shutdown(2) of the writing side; errors of an already dead socket are ignored. */
  shutdownWrite(fd: Fd): void;
  /** Another descriptor for the same open file, close-on-exec; the caller owns it. */
  duplicate(fd: Fd): Fd;
  /**
   * Closes for good. Operations under way on the descriptor complete with −ECANCELED (or what they came to),
   * and their buffers are free only then. Closing a TUN may be done off the thread.
   */
  close(fd: Fd): void;
  /**
   * Sends `bytes` with descriptors over a Unix socket (SCM_RIGHTS); blocking at most until the queue has
   * room.
   */
  sendDescriptors(fd: Fd, bytes: Uint8Array, descriptors: readonly Fd[]): void;
  /** Receives one message with its descriptors, which the caller owns; null when none is waiting. */
  recvDescriptors(fd: Fd): { readonly bytes: Uint8Array; readonly descriptors: readonly Fd[] } | null;

  // --- life ------------------------------------------------------------------------------------------------

  /** Operations under way keep the process alive (default), or not. */
  ref(): void;
  unref(): void;
  /**
   * What is open, for leak checks: descriptors opened through this engine, operations and timers under way,
   * slots in use.
   */
  audit(): IoAudit;
  /** Ends the engine: cancels everything, unhooks from the loop, unmaps. */
  stop(): void;
}

/**
 * A snapshot for leak checks; all zero at rest, but for the engine's own mappings, which are zero after
 * `stop`.
 */
export interface IoAudit {
  readonly descriptors: number;
  readonly operations: number;
  readonly timers: number;
  readonly slots: number;
  readonly mappings: number;
}
