import type { Completion, Fd } from '#io/io.ts';
import type { Worker } from '#proxy/proxy-contract.ts';

import { sendNow } from './send-now.ts';

const TAG_BYTES = 0;
const TAG_TIMEOUT = 1;

/** How long a refused client may take to read its answer and close. */
const LINGER_MS = 1000;

/**
 * Says a last word to a client and closes: with FIN, and only after the client has closed too or some time
 * has passed. Closing with unread input would make the kernel send RST, and the client lose the answer. Takes
 * `fd` over.
 */
export function farewell(worker: Worker, fd: Fd, answer: Uint8Array): void {
  if (!sendNow(worker, fd, answer)) {
    worker.io.close(fd);
    return;
  }
  worker.io.shutdownWrite(fd);
  new Farewell(worker, fd).read();
}

/** Reads and drops. */
class Farewell implements Completion {
  readonly #worker: Worker;
  readonly #fd: Fd;
  readonly #timer: number;
  #closed = false;

  constructor(worker: Worker, fd: Fd) {
    this.#worker = worker;
    this.#fd = fd;
    this.#timer = worker.io.timer(LINGER_MS, this, TAG_TIMEOUT);
  }

  read(): void {
    this.#worker.io.recvPooled(this.#fd, this.#worker.streams, this, TAG_BYTES);
  }

  onCompletion(tag: number, result: number, flags: number): void {
    const { io, streams } = this.#worker;
    if (tag === TAG_BYTES && result > 0) streams.release(streams.offsetOf(flags >>> 16));
    if (this.#closed) return;
    if (tag === TAG_BYTES && result > 0) {
      this.read();
      return;
    }
    this.#closed = true;
    io.cancelTimer(this.#timer);
    io.close(this.#fd);
  }
}
