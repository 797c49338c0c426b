/**
 * An io_uring as mapped memory: submission entries are written and completions read as 32-bit words, so an
 * operation costs a few stores. Knows the layout of the rings; what the operations mean is the engine's
 * matter.
 */
import {
  close,
  ioUringEnter,
  ioUringRegister,
  ioUringSetup,
  MAP_POPULATE,
  MAP_SHARED,
  mmap,
  munmap,
  reserveMemory,
  ScratchOffset,
  scratch,
} from './libc.ts';

/** Opcodes of enum io_uring_op that are used. */
export const RingOp = Object.freeze({
  Readv: 1,
  Writev: 2,
  PollAdd: 6,
  Sendmsg: 9,
  Recvmsg: 10,
  Accept: 13,
  AsyncCancel: 14,
  Connect: 16,
  Read: 22,
  Write: 23,
  Send: 26,
  Recv: 27,
} as const);

/** IOSQE_BUFFER_SELECT, in the second byte of an entry's first word. */
export const RING_BUFFER_SELECT = (1 << 5) << 8;
/** IORING_ACCEPT_MULTISHOT, in ioprio: the upper half of the first word. */
export const RING_ACCEPT_MULTISHOT = 1 << 16;
/** IORING_RECVSEND_POLL_FIRST, in ioprio. */
export const RING_POLL_FIRST = 1 << 16;
/** IORING_POLL_ADD_MULTI, in len. */
export const RING_POLL_MULTISHOT = 1;
/** IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_FD */
export const RING_CANCEL_ALL_OF_FD = 3;
/** IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY */
export const RING_CANCEL_EVERYTHING = 5;
/** IORING_CQE_F_BUFFER: the upper half of the flags is a buffer id. */
export const RING_FLAG_BUFFER = 1;
/** IORING_CQE_F_MORE: the operation stays armed. */
export const RING_FLAG_MORE = 2;

// Set-up flags. COOP_TASKRUN: completions are posted when this thread is in the kernel anyway, without an
// interrupt. DEFER_TASKRUN would be cheaper still, but a ring that has it never becomes readable for the
// event loop.
const SETUP_CQSIZE = 1 << 3;
const SETUP_CLAMP = 1 << 4;
const SETUP_SUBMIT_ALL = 1 << 7;
const SETUP_COOP_TASKRUN = 1 << 8;
const OFFSET_RINGS = 0;
const OFFSET_ENTRIES = 0x10000000;
const ENTER_GETEVENTS = 1;
const SQ_CQ_OVERFLOW = 2;
const REGISTER_PBUF_RING = 22;
const UNREGISTER_PBUF_RING = 23;
const REGISTER_PBUF_STATUS = 26;
const ENTRY_WORDS = 16;
const PARAMETERS_BYTES = 120;
const ADDRESS_BYTES = 128;
/**
 * Submissions are tried this often when the kernel is short of memory, then it is an invariant that is
 * broken.
 */
const SUBMIT_TRIES = 1000;

/** Words and masks of a mapped ring; the engine reads completions through them itself. */
export class Ring {
  readonly fd: number;
  /** Both rings, as words. */
  readonly words: Int32Array;
  /** Submission entries, 16 words each. */
  readonly entries: Int32Array;
  readonly completionHeadAt: number;
  readonly completionTailAt: number;
  readonly completionsAt: number;
  readonly completionMask: number;
  readonly #submissionHeadAt: number;
  readonly #submissionTailAt: number;
  readonly #submissionFlagsAt: number;
  readonly #submissionMask: number;
  readonly #submissionCount: number;
  /** A socket address for each submission entry: it is read when the entry is submitted. */
  readonly addressView: DataView;
  readonly #addressBase: number;
  readonly #mappings: readonly (readonly [address: number, length: number])[];
  #tail = 0;
  #pending = 0;

  private constructor(fd: number, parameters: DataView) {
    this.fd = fd;
    const word = (offset: number): number => parameters.getUint32(offset, true);
    const submissionCount = word(0);
    const completionCount = word(4);
    const submission = { head: word(40), tail: word(44), flags: word(56), array: word(64) };
    const completion = { head: word(80), tail: word(84), entries: word(100) };
    const ringBytes = Math.max(
      submission.array + submissionCount * 4,
      completion.entries + completionCount * 16,
    );
    const entryBytes = submissionCount * ENTRY_WORDS * 4;
    const rings = mmap(ringBytes, MAP_SHARED | MAP_POPULATE, fd, OFFSET_RINGS);
    const entries = mmap(entryBytes, MAP_SHARED | MAP_POPULATE, fd, OFFSET_ENTRIES);
    if (rings === null || entries === null) throw new Error('the rings of io_uring could not be mapped');
    const addresses = reserveMemory(submissionCount * ADDRESS_BYTES);
    this.#mappings = [
      [rings.address, ringBytes],
      [entries.address, entryBytes],
      [addresses.address, submissionCount * ADDRESS_BYTES],
    ];
    this.words = new Int32Array(rings.memory, 0, ringBytes >> 2);
    this.entries = new Int32Array(entries.memory);
    this.addressView = new DataView(addresses.memory);
    this.#addressBase = addresses.address;
    this.#submissionHeadAt = submission.head >> 2;
    this.#submissionTailAt = submission.tail >> 2;
    this.#submissionFlagsAt = submission.flags >> 2;
    this.#submissionMask = submissionCount - 1;
    this.#submissionCount = submissionCount;
    this.completionHeadAt = completion.head >> 2;
    this.completionTailAt = completion.tail >> 2;
    this.completionsAt = completion.entries >> 2;
    this.completionMask = completionCount - 1;
    // The indirection array is the identity for good.
    for (let i = 0; i < submissionCount; i++) this.words[(submission.array >> 2) + i] = i;
  }

  /**
   * Opens a ring of `entryCount` submissions. Returns −errno where the kernel refuses: −ENOSYS or −EPERM
   * where io_uring is missing or forbidden, −EINVAL before Linux 5.19.
   */
  static open(entryCount: number): Ring | number {
    const parameters = scratch.view;
    const base = ScratchOffset.Value;
    for (let i = 0; i < PARAMETERS_BYTES; i += 4) parameters.setUint32(base + i, 0);
    parameters.setUint32(base + 4, entryCount * 4, true);
    const flags = SETUP_CQSIZE | SETUP_CLAMP | SETUP_SUBMIT_ALL | SETUP_COOP_TASKRUN;
    parameters.setUint32(base + 8, flags, true);
    const fd = ioUringSetup(entryCount, scratch.address + base);
    if (fd < 0) return fd;
    return new Ring(fd, new DataView(parameters.buffer, base, PARAMETERS_BYTES));
  }

  /** Entries written and not submitted. */
  get pending(): number {
    return this.#pending;
  }

  /**
   * Writes the next submission entry and returns the index of its first word, where rarer fields can be
   * added.
   *
   * @param head opcode, with flags and ioprio in the upper bytes.
   * @param address a number, split into two words. @param option the word for flags, events or masks of the
   * operation.
   */
  push(head: number, fd: number, address: number, length: number, option: number, id: number): number {
    if (this.#pending === this.#submissionCount) this.submit();
    const at = (this.#tail & this.#submissionMask) << 4;
    const entries = this.entries;
    entries[at] = head;
    entries[at + 1] = fd;
    entries[at + 2] = 0;
    entries[at + 3] = 0;
    entries[at + 4] = address;
    entries[at + 5] = address / 4294967296;
    entries[at + 6] = length;
    entries[at + 7] = option;
    entries[at + 8] = id;
    entries[at + 9] = 0;
    entries[at + 10] = 0;
    entries[at + 11] = 0;
    entries[at + 12] = 0;
    entries[at + 13] = 0;
    this.#tail = (this.#tail + 1) | 0;
    this.#pending++;
    return at;
  }

  /** Offset in `addressView` of the room that goes with the entry at word `at` of the next `push`. */
  nextAddressOffset(): number {
    if (this.#pending === this.#submissionCount) this.submit();
    return (this.#tail & this.#submissionMask) * ADDRESS_BYTES;
  }

  /** Address of `addressView`'s byte 0. */
  get addressBase(): number {
    return this.#addressBase;
  }

  /** Gives the kernel what is pending. Many operations complete in this very call. */
  submit(): void {
    for (let tries = 0; this.#pending > 0; tries++) {
      Atomics.store(this.words, this.#submissionTailAt, this.#tail);
      const submitted = ioUringEnter(this.fd, this.#pending, 0, 0);
      if (submitted > 0) this.#pending -= submitted;
      else if (tries === SUBMIT_TRIES) throw new Error(`io_uring_enter failed: errno ${-submitted}`);
    }
  }

  /** Makes the kernel move completions that found the ring full; false when there are none. */
  flushOverflow(): boolean {
    if ((Atomics.load(this.words, this.#submissionFlagsAt) & SQ_CQ_OVERFLOW) === 0) return false;
    ioUringEnter(this.fd, 0, 0, ENTER_GETEVENTS);
    return true;
  }

  /** Lets the kernel finish what it has queued for this thread; used when stopping. */
  settle(): void {
    ioUringEnter(this.fd, 0, 0, ENTER_GETEVENTS);
  }

  /** Registers a ring of `count` buffer entries at address `address` as group `group`. 0 or −errno. */
  registerBuffers(address: number, count: number, group: number): number {
    const { view } = scratch;
    const base = ScratchOffset.Value;
    for (let i = 0; i < 40; i += 4) view.setUint32(base + i, 0);
    view.setBigUint64(base, BigInt(address), true);
    view.setUint32(base + 8, count, true);
    view.setUint16(base + 12, group, true);
    return ioUringRegister(this.fd, REGISTER_PBUF_RING, scratch.address + base, 1);
  }

  unregisterBuffers(group: number): void {
    const { view } = scratch;
    const base = ScratchOffset.Value;
    for (let i = 0; i < 40; i += 4) view.setUint32(base + i, 0);
    view.setUint16(base + 12, group, true);
    ioUringRegister(this.fd, UNREGISTER_PBUF_RING, scratch.address + base, 1);
  }

  /** The kernel's read position in a buffer ring, modulo 2^16; −errno before Linux 6.8. */
  bufferHead(group: number): number {
    const { view } = scratch;
    const base = ScratchOffset.Value;
    for (let i = 0; i < 40; i += 4) view.setUint32(base + i, 0);
    view.setUint32(base, group, true);
    const failed = ioUringRegister(this.fd, REGISTER_PBUF_STATUS, scratch.address + base, 1);
    return failed < 0 ? failed : view.getUint32(base + 4, true) & 0xffff;
  }

  /** True when every submitted entry was taken; for assertions. */
  get drained(): boolean {
    return Atomics.load(this.words, this.#submissionHeadAt) === this.#tail;
  }

  /** Ends the ring. Its views must not be used afterwards. */
  close(): void {
    close(this.fd);
    for (const [address, length] of this.#mappings) munmap(address, length);
  }
}
