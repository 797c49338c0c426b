/**
 * System calls through `node:ffi`. Only this folder imports it, which keeps an experimental
 * module replaceable.
 *
 * Two rules make a call cost 5–10 ns beside the system call itself. Every function is declared with two to
 * six `pointer` arguments and an `i32` result, because Node puts no JavaScript wrapper around that shape;
 * functions with fewer arguments get unused zeros. And small integers are BigInts from a table
 * made ahead.
 *
 * No function here throws or sets state: the result is ≥ 0 or a negative errno. Addresses are plain numbers,
 * exact below 2^53; a Linux process uses 47 bits. Variadic functions (`fcntl`, `ioctl`, `open`, `syscall`)
 * take their arguments in the same registers as others on x86-64 and arm64 Linux, which are the platforms of
 * this project.
 */
import { DynamicLibrary, toArrayBuffer } from 'node:ffi';

type Call2 = (a: bigint, b: bigint) => number;
type Call3 = (a: bigint, b: bigint, c: bigint) => number;
type Call4 = (a: bigint, b: bigint, c: bigint, d: bigint) => number;
type Call5 = (a: bigint, b: bigint, c: bigint, d: bigint, e: bigint) => number;
type Call6 = (a: bigint, b: bigint, c: bigint, d: bigint, e: bigint, f: bigint) => number;

/** Node itself: its own symbols, libuv's and, because it links libc dynamically, libc's. */
export const processLibrary = new DynamicLibrary(null);

/**
 * A C function whose arguments are all integers or pointers and whose result is an int.
 *
 * @param name the symbol. @param count number of arguments, 2 to 6.
 */
export function nativeFunction(name: string, count: 2): Call2;
export function nativeFunction(name: string, count: 3): Call3;
export function nativeFunction(name: string, count: 4): Call4;
export function nativeFunction(name: string, count: 5): Call5;
export function nativeFunction(name: string, count: 6): Call6;
export function nativeFunction(name: string, count: number): unknown {
  return processLibrary.getFunction(name, { arguments: Array(count).fill('pointer'), return: 'i32' });
}

/** The same with a pointer or size_t result, as a BigInt. For the cold path. */
export function nativePointerFunction(name: string, count: number): (...values: bigint[]) => bigint {
  const signature = { arguments: Array(count).fill('pointer'), return: 'pointer' } as const;
  return processLibrary.getFunction(name, signature) as unknown as (...values: bigint[]) => bigint;
}

/** At most this long does the end of a thread wait for its compiler. */
const SETTLE_MS_MAX = 250;
/** The compiler is done when the process uses less than this in a slice of time. */
const SETTLE_SLICE_MS = 2;
const SETTLE_BUSY_MICROSECONDS = 500;

/**
 * When a thread ends, Node frees the descriptions of native functions, and V8's compiler, which may be
 * compiling a caller of one at that moment, reads them: the process then dies by a failed check or a fault,
 * after all its work is done. So the end waits, a few milliseconds as a rule, until nothing is being
 * compiled.
 */
function letCompilerSettle(): void {
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  const deadline = performance.now() + SETTLE_MS_MAX;
  let before = process.cpuUsage();
  do {
    Atomics.wait(sleeper, 0, 0, SETTLE_SLICE_MS);
    const used = process.cpuUsage(before);
    if (used.user + used.system < SETTLE_BUSY_MICROSECONDS) return;
    before = process.cpuUsage();
  } while (performance.now() < deadline);
}

process.on('exit', letCompilerSettle);

// --- BigInts -----------------------------------------------------------------------------------------------

const SMALL_COUNT = 65_537;
const SMALL: readonly bigint[] = Array.from({ length: SMALL_COUNT }, (_, index) => BigInt(index));

/**
 * `value` as an argument: a 64-bit two's complement BigInt, from a table where possible (4 ns, otherwise 24).
 */
export function big(value: number): bigint {
  if (value >= 0 && value < SMALL_COUNT) return SMALL[value] as bigint;
  // A cache of addresses was measured and is slower than making the BigInt.
  return value < 0 ? BigInt.asUintN(64, BigInt(value)) : BigInt(value);
}

// --- errno -------------------------------------------------------------------------------------------------

// errno is per thread; so is this module, because every worker evaluates it anew.
const errnoView = new Int32Array(
  toArrayBuffer(nativePointerFunction('__errno_location', 2)(0n, 0n), 4, false),
);

/** What a libc call came to: its result, or −errno. */
function result(value: number): number {
  return value < 0 ? -(errnoView[0] as number) : value;
}

// --- memory ------------------------------------------------------------------------------------------------

const cMmap = nativePointerFunction('mmap', 6);
const cMunmap = nativeFunction('munmap', 2);
const cMadvise = nativeFunction('madvise', 3);

/** Protections, flags and advice of mmap(2) and madvise(2). */
export const PROT_READ_WRITE = 3;
export const MAP_SHARED = 1;
export const MAP_PRIVATE = 2;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const MAP_POPULATE = 0x8000;
export const MADV_DONTNEED = 4;

const MAP_FAILED = (1n << 64n) - 1n;

/** Memory outside the JavaScript heap: it never moves. `address` is that of byte 0. */
export interface Mapping {
  readonly address: number;
  readonly memory: ArrayBuffer;
}

/**
 * mmap(2) of `length` bytes, readable and writable. Returns null when the kernel refuses; `fd` is −1 for
 * anonymous memory. The view must not be used after `munmap`: it would fault.
 */
export function mmap(length: number, flags: number, fd: number, offset: number): Mapping | null {
  const pointer = cMmap(0n, big(length), big(PROT_READ_WRITE), big(flags), big(fd), big(offset));
  if (pointer === MAP_FAILED) return null;
  return { address: Number(pointer), memory: toArrayBuffer(pointer, length, false) };
}

/** munmap(2). Views of the memory must not be used afterwards. */
export function munmap(address: number, length: number): number {
  return result(cMunmap(big(address), big(length)));
}

/** madvise(2); with MADV_DONTNEED the pages are given back and read as zeros. */
export function madvise(address: number, length: number, advice: number): number {
  return result(cMadvise(big(address), big(length), big(advice)));
}

/**
 * Anonymous memory whose pages are committed only when touched. @throws Error when there is no address space
 * left.
 */
export function reserveMemory(length: number): Mapping {
  const mapping = mmap(length, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping === null) throw new Error(`mmap of ${length} bytes failed: errno ${errnoView[0]}`);
  return mapping;
}

const SCRATCH_BYTES = 512 * 1024;

/**
 * Memory for the arguments of one synchronous call. Whoever uses it may rely on it only until its call
 * returns. Layout is the caller's business; `ScratchOffset` names the customary places.
 */
export const scratch = (() => {
  const { address, memory } = reserveMemory(SCRATCH_BYTES);
  return Object.freeze({ address, bytes: new Uint8Array(memory), view: new DataView(memory) });
})();

/** Places in `scratch`, so that one call's several arguments do not overlap. */
export const ScratchOffset = Object.freeze({
  /** A socket address, 128 bytes. */
  Address: 0,
  /** A socklen_t, or another integer that the kernel reads or writes. */
  Length: 128,
  /** A small value or structure, up to 3 KiB. */
  Value: 256,
  /** struct msghdr, 56 bytes; struct iovec after it. */
  Message: 4096,
  Vector: 4096 + 64,
  /** Ancillary data, 4 KiB. */
  Control: 8192,
  /** Bytes sent or received, up to 448 KiB. */
  Data: 65_536,
} as const);

/** Writes `text` and a NUL at scratch offset `offset`; returns its address. */
export function scratchString(text: string, offset: number = ScratchOffset.Data): number {
  const { written } = new TextEncoder().encodeInto(text, scratch.bytes.subarray(offset, SCRATCH_BYTES - 1));
  scratch.bytes[offset + written] = 0;
  return scratch.address + offset;
}

// --- sockets -----------------------------------------------------------------------------------------------

const cSocket = nativeFunction('socket', 3);
const cBind = nativeFunction('bind', 3);
const cListen = nativeFunction('listen', 2);
const cAccept4 = nativeFunction('accept4', 4);
const cConnect = nativeFunction('connect', 3);
const cSetsockopt = nativeFunction('setsockopt', 5);
const cGetsockopt = nativeFunction('getsockopt', 5);
const cGetsockname = nativeFunction('getsockname', 3);
const cGetpeername = nativeFunction('getpeername', 3);
const cShutdown = nativeFunction('shutdown', 2);
const cSocketpair = nativeFunction('socketpair', 4);
const cSendmsg = nativeFunction('sendmsg', 3);
const cRecvmsg = nativeFunction('recvmsg', 3);
const cSend = nativeFunction('send', 4);
const cRecv = nativeFunction('recv', 4);
const cSendto = nativeFunction('sendto', 6);

/** Address families, socket types and flags, and MSG_ flags, as <sys/socket.h> has them. */
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_SEQPACKET = 5;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const MSG_PEEK = 2;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const MSG_WAITALL = 0x100;
export const MSG_ERRQUEUE = 0x2000;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_CMSG_CLOEXEC = 0x40000000;

/** socket(2): a new descriptor. */
export function socket(family: number, type: number, protocol: number): number {
  return result(cSocket(big(family), big(type), big(protocol)));
}

/** bind(2) to the socket address of `length` bytes at `address`. */
export function bind(fd: number, address: number, length: number): number {
  return result(cBind(big(fd), big(address), big(length)));
}

/** listen(2). */
export function listen(fd: number, backlog: number): number {
  return result(cListen(big(fd), big(backlog)));
}

/** Accepts without asking for the peer's address; `flags` are SOCK_NONBLOCK and SOCK_CLOEXEC. */
export function accept4(fd: number, flags: number): number {
  return result(cAccept4(big(fd), 0n, 0n, big(flags)));
}

/** connect(2) to the socket address at `address`; −EINPROGRESS when it goes on in the background. */
export function connect(fd: number, address: number, length: number): number {
  return result(cConnect(big(fd), big(address), big(length)));
}

/** setsockopt(2) with a value at address `value`. */
export function setsockopt(fd: number, level: number, name: number, value: number, length: number): number {
  return result(cSetsockopt(big(fd), big(level), big(name), big(value), big(length)));
}

/** setsockopt(2) with an int. */
export function setsockoptInt(fd: number, level: number, name: number, value: number): number {
  scratch.view.setInt32(ScratchOffset.Value, value, true);
  return setsockopt(fd, level, name, scratch.address + ScratchOffset.Value, 4);
}

/** getsockopt(2); `length` is the address of a socklen_t. */
export function getsockopt(fd: number, level: number, name: number, value: number, length: number): number {
  return result(cGetsockopt(big(fd), big(level), big(name), big(value), big(length)));
}

/** getsockopt(2) of a non-negative int; −errno when the call fails. */
export function getsockoptInt(fd: number, level: number, name: number): number {
  scratch.view.setInt32(ScratchOffset.Length, 4, true);
  const at = scratch.address + ScratchOffset.Value;
  const failed = getsockopt(fd, level, name, at, scratch.address + ScratchOffset.Length);
  return failed < 0 ? failed : scratch.view.getInt32(ScratchOffset.Value, true);
}

/** getsockname(2) into `address`; `length` is the address of a socklen_t that holds the room. */
export function getsockname(fd: number, address: number, length: number): number {
  return result(cGetsockname(big(fd), big(address), big(length)));
}

/** getpeername(2), as `getsockname`. */
export function getpeername(fd: number, address: number, length: number): number {
  return result(cGetpeername(big(fd), big(address), big(length)));
}

/** `how`: 0 reading, 1 writing, 2 both. */
export function shutdown(fd: number, how: number): number {
  return result(cShutdown(big(fd), big(how)));
}

/** Two descriptors as ints at address `pair`. */
export function socketpair(family: number, type: number, protocol: number, pair: number): number {
  return result(cSocketpair(big(family), big(type), big(protocol), big(pair)));
}

/** `message` is the address of a struct msghdr. */
export function sendmsg(fd: number, message: number, flags: number): number {
  return result(cSendmsg(big(fd), big(message), big(flags)));
}

/** recvmsg(2) into the struct msghdr at address `message`, which it updates. */
export function recvmsg(fd: number, message: number, flags: number): number {
  return result(cRecvmsg(big(fd), big(message), big(flags)));
}

/** send(2) of `length` bytes at `address`. */
export function send(fd: number, address: number, length: number, flags: number): number {
  return result(cSend(big(fd), big(address), big(length), big(flags)));
}

/** recv(2) of at most `length` bytes to `address`; 0 at the end of a stream. */
export function recv(fd: number, address: number, length: number, flags: number): number {
  return result(cRecv(big(fd), big(address), big(length), big(flags)));
}

/**
 * sendto(2) to the socket address at `to`, of `toLength` bytes; its flags are always MSG_DONTWAIT |
 * MSG_NOSIGNAL.
 */
export function sendto(fd: number, address: number, length: number, to: number, toLength: number): number {
  const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  return result(cSendto(big(fd), big(address), big(length), big(flags), big(to), big(toLength)));
}

// --- descriptors -------------------------------------------------------------------------------------------

const cClose = nativeFunction('close', 2);
const cPipe2 = nativeFunction('pipe2', 2);
const cFcntl = nativeFunction('fcntl', 3);
const cRead = nativeFunction('read', 3);
const cWrite = nativeFunction('write', 3);
const cReadv = nativeFunction('readv', 3);
const cWritev = nativeFunction('writev', 3);
const cSplice = nativeFunction('splice', 6);
const cOpen = nativeFunction('open', 3);
const cIoctl = nativeFunction('ioctl', 3);
const cPoll = nativeFunction('poll', 3);

/** Flags of open(2) and commands of fcntl(2). */
export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const F_GETFL = 3;
export const F_SETFL = 4;
export const F_DUPFD_CLOEXEC = 1030;
export const F_SETPIPE_SZ = 1031;
export const F_GETPIPE_SZ = 1032;
/** SPLICE_F_MOVE | SPLICE_F_NONBLOCK */
const SPLICE_FLAGS = 3n;

/** close(2). */
export function close(fd: number): number {
  return result(cClose(big(fd), 0n));
}

/** Read end and write end as ints at address `pair`. */
export function pipe2(pair: number, flags: number): number {
  return result(cPipe2(big(pair), big(flags)));
}

/** fcntl(2) with an integer argument. */
export function fcntl(fd: number, command: number, argument: number): number {
  return result(cFcntl(big(fd), big(command), big(argument)));
}

/** Another descriptor of the same open file, close-on-exec. */
export function dup(fd: number): number {
  return result(cFcntl(big(fd), big(F_DUPFD_CLOEXEC), 0n));
}

/** read(2). */
export function read(fd: number, address: number, length: number): number {
  return result(cRead(big(fd), big(address), big(length)));
}

/** write(2). Node ignores SIGPIPE. */
export function write(fd: number, address: number, length: number): number {
  return result(cWrite(big(fd), big(address), big(length)));
}

/** `vectors` is the address of `count` struct iovec. */
export function readv(fd: number, vectors: number, count: number): number {
  return result(cReadv(big(fd), big(vectors), big(count)));
}

/** writev(2), as `readv`. */
export function writev(fd: number, vectors: number, count: number): number {
  return result(cWritev(big(fd), big(vectors), big(count)));
}

/** Non-blocking splice(2) at the files' own positions; one of the two is a pipe. */
export function splice(from: number, to: number, length: number): number {
  return result(cSplice(big(from), 0n, big(to), 0n, big(length), SPLICE_FLAGS));
}

/** open(2) of an existing file; add O_CLOEXEC. */
export function open(path: string, flags: number): number {
  return result(cOpen(big(scratchString(path)), big(flags), 0n));
}

/** `argument` is an address or a plain integer, as the request wants. */
export function ioctl(fd: number, request: number, argument: number): number {
  return result(cIoctl(big(fd), big(request), big(argument)));
}

/**
 * poll(2) of one descriptor without waiting: its ready bits among `mask` (errors and hang-up always), or
 * −errno.
 */
export function pollNow(fd: number, mask: number): number {
  scratch.view.setInt32(ScratchOffset.Value, fd, true);
  scratch.view.setInt32(ScratchOffset.Value + 4, mask & 0xffff, true);
  const ready = result(cPoll(big(scratch.address + ScratchOffset.Value), 1n, 0n));
  return ready <= 0 ? ready : scratch.view.getUint16(ScratchOffset.Value + 6, true);
}

// --- namespaces --------------------------------------------------------------------------------------------

const cUnshare = nativeFunction('unshare', 2);
const cSetns = nativeFunction('setns', 2);

/** Kinds of namespace. */
export const CLONE_NEWUSER = 0x10000000;
export const CLONE_NEWNET = 0x40000000;

/** Affects the calling thread only. */
export function unshare(flags: number): number {
  return result(cUnshare(big(flags), 0n));
}

/** Moves the calling thread into the namespace that `fd` refers to. */
export function setns(fd: number, type: number): number {
  return result(cSetns(big(fd), big(type)));
}

// --- event queues ------------------------------------------------------------------------------------------

const cEpollCreate1 = nativeFunction('epoll_create1', 2);
const cEpollCtl = nativeFunction('epoll_ctl', 4);
const cEpollWait = nativeFunction('epoll_wait', 4);
const cEventfd = nativeFunction('eventfd', 2);
const cSyscall = nativeFunction('syscall', 6);

/** Operations of epoll_ctl(2) and the flag of epoll_create1(2). */
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLL_CTL_MOD = 3;
export const EPOLL_CLOEXEC = 0o2000000;

/** A new epoll descriptor, close-on-exec. */
export function epollCreate(): number {
  return result(cEpollCreate1(big(EPOLL_CLOEXEC), 0n));
}

/** `event` is the address of a struct epoll_event: 12 bytes, packed, on x86-64, 16 elsewhere. */
export function epollControl(epoll: number, operation: number, fd: number, event: number): number {
  return result(cEpollCtl(big(epoll), big(operation), big(fd), big(event)));
}

/** Fills at most `count` events at `events` without waiting. */
export function epollTake(epoll: number, events: number, count: number): number {
  return result(cEpollWait(big(epoll), big(events), big(count), 0n));
}

/** eventfd(2): a descriptor with a counter. */
export function eventfd(initial: number, flags: number): number {
  return result(cEventfd(big(initial), big(flags)));
}

const SYS_IO_URING_SETUP = 425n;
const SYS_IO_URING_ENTER = 426n;
const SYS_IO_URING_REGISTER = 427n;

/** `parameters` is the address of a struct io_uring_params. */
export function ioUringSetup(entries: number, parameters: number): number {
  return result(cSyscall(SYS_IO_URING_SETUP, big(entries), big(parameters), 0n, 0n, 0n));
}

/**
 * io_uring_enter(2) without a signal mask. Its sixth argument, the size of the mask, would be the seventh of
 * syscall(2) and is left as garbage: the kernel looks at it only when a mask is given or EXT_ARG is set. A
 * seventh argument would cost 150 ns.
 */
export function ioUringEnter(ring: number, submit: number, wait: number, flags: number): number {
  return result(cSyscall(SYS_IO_URING_ENTER, big(ring), big(submit), big(wait), big(flags), 0n));
}

/** io_uring_register(2): `count` structures, or as the opcode has it, at address `argument`. */
export function ioUringRegister(ring: number, opcode: number, argument: number, count: number): number {
  return result(cSyscall(SYS_IO_URING_REGISTER, big(ring), big(opcode), big(argument), big(count), 0n));
}
