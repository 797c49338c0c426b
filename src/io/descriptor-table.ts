import type { Fd } from './io.ts';

/** What a descriptor is, as far as an engine has to treat it differently. */
export const DescriptorKind = Object.freeze({
  Unknown: 0,
  /** TCP. */
  StreamSocket: 1,
  /** Datagram or SEQPACKET: a write is one packet. */
  PacketSocket: 2,
  StreamListener: 3,
  PacketListener: 4,
  Pipe: 5,
  /** Not a socket and not a pipe of ours: a TUN, a file, a namespace. */
  Other: 6,
  /**
   * A Unix stream: a short read may end at a message with descriptors, and says nothing about what follows.
   */
  LocalStream: 7,
  LocalListener: 8,
} as const);

/** Bits of `DescriptorTable.flags`. */
export const DescriptorFlag = Object.freeze({
  /** Opened through the engine; `audit` counts it. */
  Owned: 1,
  /** `close` was called; the descriptor goes when its last operation is over. */
  Closing: 2,
  /** Another descriptor may refer to the same open file. */
  Shared: 4,
} as const);

/**
 * What an engine knows about descriptors, indexed by their number. Descriptors opened elsewhere are in it
 * too, as soon as an operation names them; those must be closed through the engine as well, or it remembers
 * them wrongly.
 */
export class DescriptorTable {
  kinds = new Uint8Array(1024);
  flags = new Uint8Array(1024);
  /** Operations under way on the descriptor. */
  operations = new Int32Array(1024);
  #owned = 0;

  /** Descriptors opened through the engine and not closed. */
  get owned(): number {
    return this.#owned;
  }

  /** Makes room for descriptor `fd`. */
  reach(fd: Fd): void {
    if (fd < this.kinds.length) return;
    const length = 2 ** Math.ceil(Math.log2(fd + 1));
    const { kinds, flags, operations } = this;
    this.kinds = new Uint8Array(length);
    this.kinds.set(kinds);
    this.flags = new Uint8Array(length);
    this.flags.set(flags);
    this.operations = new Int32Array(length);
    this.operations.set(operations);
  }

  /** A descriptor that the engine opened. */
  own(fd: Fd, kind: number): void {
    this.reach(fd);
    this.kinds[fd] = kind;
    this.flags[fd] = DescriptorFlag.Owned;
    this.#owned++;
  }

  /** Forgets a descriptor that is closed. */
  forget(fd: Fd): void {
    if (((this.flags[fd] as number) & DescriptorFlag.Owned) !== 0) this.#owned--;
    this.flags[fd] = 0;
    this.kinds[fd] = DescriptorKind.Unknown;
  }
}
