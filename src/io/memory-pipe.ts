import { Errno, PollMask } from './io.ts';
import { ByteQueue } from './memory-bytes.ts';
import { MemoryFile, type ReceiveInfo } from './memory-file.ts';
import type { MemoryWorld } from './memory-world.ts';

/** Capacity unless it is asked for, as the kernel's. */
const PIPE_BYTES = 64 * 1024;

/** What the two ends of a pipe share. */
class PipeBuffer {
  readonly bytes: ByteQueue;
  reader: PipeFile | null = null;
  writer: PipeFile | null = null;

  constructor(capacity: number) {
    this.bytes = new ByteQueue(capacity);
  }
}

/** One end of a pipe. */
export class PipeFile extends MemoryFile {
  readonly #buffer: PipeBuffer;
  readonly #isReader: boolean;

  private constructor(world: MemoryWorld, buffer: PipeBuffer, isReader: boolean) {
    super(world);
    this.#buffer = buffer;
    this.#isReader = isReader;
  }

  /** Read end and write end. */
  static pair(world: MemoryWorld, bytes: number | undefined): [PipeFile, PipeFile] {
    const buffer = new PipeBuffer(Math.max(bytes ?? PIPE_BYTES, 4096));
    buffer.reader = new PipeFile(world, buffer, true);
    buffer.writer = new PipeFile(world, buffer, false);
    return [buffer.reader, buffer.writer];
  }

  readiness(): number {
    const { bytes, reader, writer } = this.#buffer;
    if (this.#isReader) {
      return (bytes.length > 0 ? PollMask.In : 0) | (writer === null ? PollMask.HangUp : 0);
    }
    return (bytes.room > 0 || reader === null ? PollMask.Out : 0) | (reader === null ? PollMask.Error : 0);
  }

  override room(): number {
    if (this.#isReader) return 0;
    return this.#buffer.reader === null ? Number.MAX_SAFE_INTEGER : this.#buffer.bytes.room;
  }

  read(target: Uint8Array, info: ReceiveInfo | null): number {
    const { bytes, writer } = this.#buffer;
    if (!this.#isReader) return -Errno.EBADF;
    if (bytes.length === 0) return writer === null ? 0 : -Errno.EAGAIN;
    const count = bytes.pull(target, info);
    writer?.changed();
    return count;
  }

  write(source: Uint8Array): number {
    const { bytes, reader } = this.#buffer;
    if (this.#isReader) return -Errno.EBADF;
    if (reader === null) return -Errno.EPIPE;
    const count = bytes.push(source, []);
    if (count === 0 && source.length > 0) return -Errno.EAGAIN;
    reader.changed();
    return count;
  }

  protected end(): void {
    const buffer = this.#buffer;
    if (this.#isReader) {
      buffer.reader = null;
      buffer.bytes.clear();
      buffer.writer?.changed();
    } else {
      buffer.writer = null;
      buffer.reader?.changed();
    }
  }
}
