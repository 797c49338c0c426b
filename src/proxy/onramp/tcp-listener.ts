import { assert } from '#base/assert.ts';
import type { SocketAddress } from '#base/ip.ts';
import type { Context, Endpoint } from '#contract/context.ts';
import { type Completion, CompletionFlag, Errno, type Fd, type OperationId } from '#io/io.ts';
import type { InboundStream, NetworkId, StreamHandler, Worker } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import { socketEndpoint } from './endpoint.ts';

/** How a listener's streams enter. */
export interface TcpListenerOptions {
  readonly name: string;
  readonly listen: SocketAddress;
  readonly context: Context;
  readonly network: NetworkId;
  readonly wish: InboundStream['wish'];
  /** Off-ramp of the config's route for this on-ramp; null when routes by destination decide. */
  readonly route: string | null;
  readonly rule: string;
  /** A listening descriptor that a previous process handed over. */
  readonly inherited?: Fd;
}

const TAG_ACCEPT = 0;
const TAG_RETRY = 1;

/**
 * How long accepting pauses after a failed accept. A full descriptor table fails every accept at once: without a
 * pause the loop would spin.
 */
const ACCEPT_PAUSE_MS = 100;

/** Accepts TCP or Unix streams and hands them on. */
export class TcpListener implements Completion {
  readonly fd: Fd;
  readonly name: string;
  readonly #worker: Worker;
  readonly #options: TcpListenerOptions;
  readonly #handler: StreamHandler;
  readonly #local: Endpoint;
  #operation: OperationId = 0;
  #accepting = false;
  #closed = false;
  #timer = 0;

  /** @throws RampartError RAMP_LISTEN when the address cannot be bound. */
  constructor(worker: Worker, options: TcpListenerOptions, handler: StreamHandler) {
    this.name = options.name;
    this.#worker = worker;
    this.#options = options;
    this.#handler = handler;
    this.fd = options.inherited ?? worker.io.listen(options.listen);
    this.#local = socketEndpoint(worker.io.localAddress(this.fd));
    this.#arm();
  }

  /** Where it listens; the port is the kernel's choice when the config said 0. */
  get address(): SocketAddress {
    return this.#worker.io.localAddress(this.fd);
  }

  /** Stops accepting; with `keep` the descriptor stays open for a new process. */
  close(keep = false): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#accepting) this.#worker.io.cancel(this.#operation);
    this.#worker.io.cancelTimer(this.#timer);
    if (!keep) this.#worker.io.close(this.fd);
  }

  onCompletion(tag: number, result: number, flags: number): void {
    if (tag === TAG_RETRY) {
      if (!this.#closed) this.#arm();
      return;
    }
    if ((flags & CompletionFlag.More) === 0) this.#accepting = false;
    if (result >= 0) this.#onAccepted(result);
    else this.#onFailed(-result);
  }

  #arm(): void {
    assert(!this.#accepting);
    this.#accepting = true;
    this.#operation = this.#worker.io.accept(this.fd, this, TAG_ACCEPT);
  }

  #onAccepted(fd: Fd): void {
    const { io } = this.#worker;
    if (this.#closed) {
      io.close(fd);
      return;
    }
    if (!this.#accepting) this.#arm();
    const { context, network, wish, route, rule } = this.#options;
    let source: Endpoint;
    try {
      source = socketEndpoint(io.remoteAddress(fd));
    } catch {
      // The peer reset the connection before it was looked at.
      io.close(fd);
      return;
    }
    if (this.#options.listen.family !== 'unix') io.setOption(fd, 'no-delay', 1);
    const flow = this.#worker.records.nextFlowNumber();
    this.#handler.onStream(
      { fd, context, network, flow, source, destination: this.#local, route, wish, rule },
      -1,
      0,
    );
  }

  #onFailed(errno: number): void {
    if (this.#closed || errno === Errno.ECANCELED) return;
    const { counters } = this.#worker.stats;
    counters[Counter.AcceptErrors] = (counters[Counter.AcceptErrors] as number) + 1;
    if (this.#accepting) return;
    this.#timer = this.#worker.io.timer(ACCEPT_PAUSE_MS, this, TAG_RETRY);
  }
}
