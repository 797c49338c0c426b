import { close, fstat, ftruncate, open, openSync, fstatSync, rename, stat, unlink, write } from 'node:fs';
import { promisify } from 'node:util';

import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';

/** Bytes of a chunk: one write to the file. */
const CHUNK_BYTES = 256 * 1024;

/** Chunks that may wait for the disk: 8 MiB, some seconds of the fastest log. Made when they are needed. */
const CHUNKS_MAX = 32;

/** How long a line waits at most for others to be written with it. */
const FLUSH_MS = 200;

/** How often it is looked whether another program has renamed the file. */
const RENAMED_MS = 1000;

/** How long the end waits for the disk. */
const CLOSE_MS = 2000;

/** The operations on files that are used: `node:fs`, or a test's. All of them run on the thread pool. */
export interface FileOperations {
  open(path: string, flags: string, mode: number): Promise<number>;
  write(fd: number, bytes: Uint8Array, offset: number, length: number): Promise<number>;
  close(fd: number): Promise<void>;
  /** Number of the file that is open, or null when that is unknown. */
  inodeOf(file: number | string): Promise<number | null>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  truncate(fd: number): Promise<void>;
}

const openFile = promisify(open);
const writeFile = promisify(write);
const statFile = promisify(stat);
const statOpen = promisify(fstat);

/** The host's files. */
export const HOST_FILES: FileOperations = Object.freeze({
  open: (path: string, flags: string, mode: number) => openFile(path, flags, mode),
  write: async (fd: number, bytes: Uint8Array, offset: number, length: number) =>
    (await writeFile(fd, bytes, offset, length, null)).bytesWritten,
  close: promisify(close),
  async inodeOf(file: number | string) {
    try {
      return (await (typeof file === 'number' ? statOpen(file) : statFile(file))).ino;
    } catch {
      return null;
    }
  },
  rename: promisify(rename),
  unlink: promisify(unlink),
  truncate: (fd: number) => promisify(ftruncate)(fd),
});

/** What a file is written by. */
export interface LogFileOptions {
  readonly path: string;
  /** The file is put aside when it has this many bytes; null: never. */
  readonly rotateBytes: number | null;
  /** Files put aside that are kept. */
  readonly keep: number;
  /** Lines of a chunk could not be written. */
  readonly onLost: (lines: number, error: Error) => void;
  readonly files?: FileOperations;
}

/** Bytes that wait to be written, whole lines. */
interface Chunk {
  readonly bytes: Uint8Array;
  length: number;
  lines: number;
}

/**
 * A file of lines. The writer puts bytes into the chunk at hand, and chunks go to the disk one after the
 * other while traffic goes on; where the disk does not keep up, `reserve` says so.
 */
export class LogFile {
  /** The chunk at hand and where it ends: write here, between `reserve` and `commit`. */
  chunk: Uint8Array;
  at = 0;
  readonly #options: LogFileOptions;
  readonly #files: FileOperations;
  #lines = 0;
  #fd: number;
  #size: number;
  readonly #free: Uint8Array[] = [];
  #chunks = 1;
  #queue: Chunk[] = [];
  #writing: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #closed = false;

  /** Opens the file to append. @throws RampartError RAMP_CONFIG when it cannot be opened. */
  static open(options: LogFileOptions): LogFile {
    try {
      const fd = openSync(options.path, 'a', FILE_MODE);
      return new LogFile(options, fd, fstatSync(fd).size);
    } catch (cause) {
      const reason = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
      const text =
        `the access log ${options.path} cannot be opened (${reason}): ` +
        `check the directory and rights of telemetry.access_log.file`;
      throw new RampartError('RAMP_CONFIG', text, { side: 'config', cause });
    }
  }

  /** Goes on with a descriptor that is open to append; the log owns it. */
  constructor(options: LogFileOptions, fd: number, size: number) {
    this.#options = options;
    this.#files = options.files ?? HOST_FILES;
    this.#fd = fd;
    this.#size = size;
    this.chunk = new Uint8Array(CHUNK_BYTES);
  }

  /** Whether `bytes` may be written at `at` of `chunk`; false when all chunks wait for the disk. */
  reserve(bytes: number): boolean {
    if (this.at + bytes <= CHUNK_BYTES) return true;
    return this.#turn();
  }

  /** One line was written up to `end`. */
  commit(end: number): void {
    assert(end >= this.at && end <= CHUNK_BYTES);
    this.at = end;
    this.#lines++;
    this.#timer ??= setTimeout(() => this.#onTimer(), FLUSH_MS).unref();
  }

  /** Sends on what is here, and settles when it has been written or given up. */
  async flush(): Promise<void> {
    if (this.at > 0) this.#turn();
    await this.#writing;
  }

  /** Writes what waits, for a bounded time, and closes. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    const limit = Promise.withResolvers<void>();
    const timer = setTimeout(limit.resolve, CLOSE_MS);
    const done = this.flush().then(() => true);
    const finished = await Promise.race([done, limit.promise.then(() => false)]);
    clearTimeout(timer);
    // A write that hangs still uses the descriptor.
    if (finished) await this.#files.close(this.#fd).catch(() => {});
  }

  #onTimer(): void {
    this.#timer = null;
    // When all chunks wait, what is here stays until one is free.
    if (this.at > 0 && !this.#turn()) this.#timer = setTimeout(() => this.#onTimer(), FLUSH_MS).unref();
  }

  /** Sends the chunk at hand on and takes a fresh one; false when there is none. */
  #turn(): boolean {
    let fresh = this.#free.pop();
    if (fresh === undefined) {
      if (this.#chunks >= CHUNKS_MAX) return false;
      this.#chunks++;
      fresh = new Uint8Array(CHUNK_BYTES);
    }
    this.#queue.push({ bytes: this.chunk, length: this.at, lines: this.#lines });
    this.chunk = fresh;
    this.at = 0;
    this.#lines = 0;
    this.#writing ??= this.#drain();
    return true;
  }

  async #drain(): Promise<void> {
    for (let chunk = this.#queue.shift(); chunk !== undefined; chunk = this.#queue.shift()) {
      try {
        await this.#write(chunk);
      } catch (error) {
        this.#options.onLost(chunk.lines, error as Error);
      }
      this.#free.push(chunk.bytes);
    }
    this.#writing = null;
  }

  async #write({ bytes, length }: Chunk): Promise<void> {
    const { rotateBytes } = this.#options;
    if (rotateBytes !== null && this.#size > 0 && this.#size + length > rotateBytes) {
      // Where the files cannot be moved, a file that is too long is better than none.
      await this.#rotate().catch((error: Error) => this.#options.onLost(0, error));
    } else await this.#follow();
    let at = 0;
    while (at < length) {
      const written = await this.#files.write(this.#fd, bytes, at, length - at);
      if (written <= 0) throw new Error('nothing was written');
      at += written;
      this.#size += written;
    }
  }

  /** `log.2` becomes `log.3`, `log.1` becomes `log.2`, `log` becomes `log.1`, and a new `log` begins. */
  async #rotate(): Promise<void> {
    const { path, keep } = this.#options;
    if (keep === 0) {
      await this.#files.truncate(this.#fd);
      this.#size = 0;
      return;
    }
    for (let number = keep - 1; number >= 1; number--) {
      // Where there are fewer files yet, there is nothing to move.
      await this.#files.rename(`${path}.${number}`, `${path}.${number + 1}`).catch(() => {});
    }
    await this.#files.rename(path, `${path}.1`);
    await this.#reopen();
  }

  /** Opens the file anew when its name leads elsewhere, or nowhere: another program has moved it. */
  async #follow(): Promise<void> {
    const now = performance.now();
    if (now - this.#lookedAt < RENAMED_MS) return;
    this.#lookedAt = now;
    const { path } = this.#options;
    const [named, open] = await Promise.all([this.#files.inodeOf(path), this.#files.inodeOf(this.#fd)]);
    if (named !== open) await this.#reopen();
  }

  async #reopen(): Promise<void> {
    const fd = await this.#files.open(this.#options.path, 'a', FILE_MODE);
    await this.#files.close(this.#fd).catch(() => {});
    this.#fd = fd;
    this.#size = 0;
  }
}

/** The log tells who did what: only its owner and group read it. */
const FILE_MODE = 0o640;
