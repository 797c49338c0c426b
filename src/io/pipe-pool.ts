import type { Fd, Io } from './io.ts';

/** A pipe of a `PipePool`. */
export interface Pipe {
  readonly reader: Fd;
  readonly writer: Fd;
}

/** Idle pipes kept: enough for the data in flight of a busy worker; more would only hold descriptors. */
const IDLE_MAX_DEFAULT = 64;
/** The kernel's default limit of a pipe's size for ordinary users. */
const PIPE_BYTES_DEFAULT = 1024 * 1024;

/**
 * Empty pipes to splice through. A pipe is borrowed while data are in flight, so idle connections hold none.
 */
export class PipePool {
  readonly #io: Io;
  readonly #pipeBytes: number;
  readonly #idleMax: number;
  readonly #idle: Pipe[] = [];
  #closed = false;

  constructor(io: Io, { pipeBytes = PIPE_BYTES_DEFAULT, idleMax = IDLE_MAX_DEFAULT } = {}) {
    this.#io = io;
    this.#pipeBytes = pipeBytes;
    this.#idleMax = idleMax;
  }

  /** An empty pipe. @throws RAMP_NO_DESCRIPTORS */
  take(): Pipe {
    const pipe = this.#idle.pop();
    if (pipe !== undefined) return pipe;
    const [reader, writer] = this.#io.pipe(this.#pipeBytes);
    return { reader, writer };
  }

  /** Gives a pipe back. One with data left in it is closed: they would reach somebody else. */
  give(pipe: Pipe, empty: boolean): void {
    if (empty && !this.#closed && this.#idle.length < this.#idleMax) {
      this.#idle.push(pipe);
      return;
    }
    this.#io.close(pipe.reader);
    this.#io.close(pipe.writer);
  }

  /** Closes the idle pipes, and each that comes back later. */
  close(): void {
    this.#closed = true;
    for (const pipe of this.#idle.splice(0)) this.give(pipe, false);
  }
}
