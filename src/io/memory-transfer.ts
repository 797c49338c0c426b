/** Moves bytes between the arena of a memory engine and its files, at once: a count or a negative errno. */
import { assert } from '#base/assert.ts';

import type { Arena } from './arena.ts';
import { Errno } from './io.ts';
import { receiveInfo, type MemoryFile, type ReceiveInfo } from './memory-file.ts';
import { readMessage, scatter, vectorBytes, writeMessage } from './memory-message.ts';
import { bindDatagramSocket, senderOf } from './memory-network.ts';
import { PacketFile } from './memory-packet.ts';
import { PipeFile } from './memory-pipe.ts';
import { canonical, type InetAddress, type MemoryWorld } from './memory-world.ts';

const MSG_PEEK = 2;
const MSG_ERRQUEUE = 0x2000;
const EDESTADDRREQ = 89;
const SPLICE_BYTES_MAX = 1 << 20;

/** The transfers of one engine; the files are told apart by their class. */
export class MemoryTransfer {
  readonly #world: MemoryWorld;
  readonly #arena: Arena;
  readonly #short: boolean;

  /** @param short move random parts of what could be moved. */
  constructor(world: MemoryWorld, arena: Arena, short: boolean) {
    this.#world = world;
    this.#arena = arena;
    this.#short = short;
  }

  /** A random part of `length` where the engine is told to be difficult; packets are never cut. */
  #part(file: MemoryFile, length: number): number {
    if (!this.#short || file instanceof PacketFile || length === 0) return length;
    return 1 + this.#world.chance(length);
  }

  receive(file: MemoryFile, offset: number, length: number): number {
    assert(offset >= 0 && offset + length <= this.#arena.bytes.length, 'a buffer lies in the arena');
    return file.read(this.#arena.bytes.subarray(offset, offset + this.#part(file, length)), null);
  }

  transmit(file: MemoryFile, offset: number, length: number): number {
    assert(offset >= 0 && offset + length <= this.#arena.bytes.length, 'a buffer lies in the arena');
    return file.write(this.#arena.bytes.subarray(offset, offset + this.#part(file, length)));
  }

  /** splice(2): one of the two is a pipe. */
  move(from: MemoryFile, to: MemoryFile, length: number): number {
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

  /** Receives by the struct msghdr at `message`; `flags` are MSG_ bits. */
  receiveMessage(file: MemoryFile, message: number, flags: number): number {
    // Nothing here is ever put into an error queue.
    if ((flags & MSG_ERRQUEUE) !== 0) return -Errno.EAGAIN;
    const { view } = this.#arena;
    const vectors = Number(view.getBigUint64(message + 16, true));
    const count = Number(view.getBigUint64(message + 24, true));
    const bytes = new Uint8Array(vectorBytes(this.#arena, vectors, count));
    const info: ReceiveInfo = { ...receiveInfo(), peek: (flags & MSG_PEEK) !== 0 };
    const result = file.read(bytes, info);
    if (result < 0) return result;
    // Descriptors come by `recvDescriptors` only.
    for (const passed of info.files) passed.release();
    scatter(this.#arena, vectors, count, bytes.subarray(0, result));
    writeMessage(this.#arena, message, info, {
      family: file instanceof PacketFile && file.kind === 'udp6' ? 6 : 4,
      packetInfo: (file.options.get('ip-packet-info') ?? 0) !== 0,
      originalDestination: (file.options.get('ip-recv-original-destination') ?? 0) !== 0,
    });
    return result;
  }

  /** Sends by the struct msghdr at `message`. */
  sendMessage(file: MemoryFile, message: number): number {
    const { bytes, to, source, segment } = readMessage(this.#arena, message);
    if (!(file instanceof PacketFile)) return file.write(bytes);
    if (to?.family === 'unix') {
      const target = this.#world.unix.get(to.path);
      return target instanceof PacketFile ? file.sendToFile(bytes, target) : -Errno.ECONNREFUSED;
    }
    if (file.kind !== 'udp4' && file.kind !== 'udp6') return file.write(bytes);
    const remote = to === null ? (file.remote as InetAddress | null) : canonical(to);
    if (remote === null) return -EDESTADDRREQ;
    bindDatagramSocket(this.#world, file);
    const size = segment || file.options.get('udp-segment') || bytes.length || 1;
    const from = senderOf(file, remote, source);
    let at = 0;
    do {
      const result = file.sendTo(bytes.subarray(at, at + size), remote, from);
      if (result < 0) return result;
      at += size;
    } while (at < bytes.length);
    return bytes.length;
  }
}
