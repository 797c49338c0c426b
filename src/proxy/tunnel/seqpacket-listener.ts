import { chmodSync, lstatSync, unlinkSync } from 'node:fs';

import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';
import { formatSocketAddress, type SocketAddress } from '#base/ip.ts';
import {
  type Completion,
  CompletionFlag,
  Errno,
  type Fd,
  type OperationId,
  PollMask,
  type TimerId,
} from '#io/io.ts';

import { Counter } from '#proxy/stats.ts';

import { type Admitted, isRefusal, type OnRampDefaults, type Refusal } from './admission.ts';
import { SeqpacketTunnel } from './seqpacket-tunnel.ts';
import { countDrop, type TunnelHost, tunnelRefused } from './tunnel-host.ts';

/** Where connected IP tunnels come in. */
export interface SeqpacketListenerOptions extends OnRampDefaults {
  /** A path, or `@name` in the abstract namespace, which every process of the network namespace can reach. */
  readonly listen: SocketAddress & { readonly family: 'unix' };
  /** Bytes of the largest IP packet that is sent into its tunnels. */
  readonly mtu: number;
  /** Who may connect may claim any context: permission bits of the path. Default 0600. */
  readonly mode?: number;
  /** How long a peer may take to send its context and the hook to judge it. Default `CONTEXT_MS`. */
  readonly contextMs?: number;
  /** A listening descriptor that a previous process handed over. */
  readonly inherited?: Fd;
}

/** How long a peer may take to send its context: it has it ready when it connects. */
export const CONTEXT_MS = 5000;

/**
 * Connections without a context at one time; more are closed at once, so that silent peers cannot take all
 * descriptors.
 */
export const CANDIDATES_MAX = 256;

/** Accepting rests this long after a failure: a full descriptor table fails every accept at once. */
const ACCEPT_PAUSE_MS = 100;

const TAG_ACCEPT = 0;
const TAG_RETRY = 1;

/** Accepts connected IP tunnels, and reads and judges the context of each. */
export class SeqpacketListener implements Completion {
  readonly fd: Fd;
  readonly name: string;
  readonly #host: TunnelHost;
  readonly #options: SeqpacketListenerOptions;
  readonly #candidates = new Set<Candidate>();
  readonly #tunnels = new Set<SeqpacketTunnel>();
  #accept: OperationId = 0;
  #accepting = false;
  #timer: TimerId = 0;
  #serial = 0;
  #closed = false;

  /** @throws RAMP_LISTEN when the path cannot be bound. A socket file that nobody listens on is replaced. */
  constructor(host: TunnelHost, options: SeqpacketListenerOptions) {
    this.#host = host;
    this.#options = options;
    this.name = options.name;
    const { listen } = options;
    const { io } = host.worker;
    if (options.inherited === undefined) {
      removeSocketFile(listen.path);
      this.fd = io.listen(listen, { type: 'seqpacket' });
      if (!listen.path.startsWith('@')) chmodSync(listen.path, options.mode ?? 0o600);
    } else {
      this.fd = options.inherited;
    }
    host.log({ event: 'listening', tunnel: this.name, text: formatSocketAddress(listen) });
    this.#arm();
  }

  /**
   * Stops accepting. Open tunnels stay unless `tunnels`; with `keep` descriptor and path stay for a new
   * process.
   */
  close(options: { keep?: boolean; tunnels?: boolean } = {}): void {
    if (options.tunnels === true) for (const tunnel of [...this.#tunnels]) tunnel.close();
    if (this.#closed) return;
    this.#closed = true;
    const { io } = this.#host.worker;
    if (this.#accepting) io.cancel(this.#accept);
    io.cancelTimer(this.#timer);
    for (const candidate of [...this.#candidates]) candidate.dismiss();
    if (options.keep === true) return;
    io.close(this.fd);
    removeSocketFile(this.#options.listen.path);
  }

  onCompletion(tag: number, result: number, flags: number): void {
    const { io, stats } = this.#host.worker;
    if (tag === TAG_RETRY) {
      if (!this.#closed && !this.#accepting) this.#arm();
      return;
    }
    if ((flags & CompletionFlag.More) === 0) this.#accepting = false;
    if (this.#closed) {
      if (result >= 0) io.close(result);
      return;
    }
    if (result >= 0) {
      this.#onAccepted(result);
      if (!this.#accepting) this.#arm();
      return;
    }
    if (result === -Errno.ECANCELED) return;
    stats.counters[Counter.AcceptErrors] = (stats.counters[Counter.AcceptErrors] as number) + 1;
    if (!this.#accepting) this.#timer = io.timer(ACCEPT_PAUSE_MS, this, TAG_RETRY);
  }

  /** A candidate has sent its context. */
  onBlob(candidate: Candidate, blob: Uint8Array): void {
    const answer = this.#host.admission.admit(blob, this.#options);
    if (answer instanceof Promise) {
      // Meanwhile its packets wait in the socket's own queue, which is bounded, and push back on the peer.
      answer.then((late) => this.#settle(candidate, late));
      return;
    }
    this.#settle(candidate, answer);
  }

  /** A candidate ends without a tunnel. */
  onRefused(candidate: Candidate, drop: DropReason, text: string): void {
    this.#candidates.delete(candidate);
    countDrop(this.#host, drop);
    tunnelRefused(this.#host, candidate.name, text);
    candidate.dismiss();
  }

  #arm(): void {
    assert(!this.#accepting);
    this.#accepting = true;
    this.#accept = this.#host.worker.io.accept(this.fd, this, TAG_ACCEPT);
  }

  #onAccepted(fd: Fd): void {
    const name = `${this.name}#${++this.#serial}`;
    if (this.#candidates.size >= CANDIDATES_MAX) {
      this.#host.worker.io.close(fd);
      tunnelRefused(this.#host, name, `${CANDIDATES_MAX} connections have not sent their context yet`);
      return;
    }
    const candidate = new Candidate(this.#host, this, {
      name,
      fd,
      contextMs: this.#options.contextMs ?? CONTEXT_MS,
    });
    this.#candidates.add(candidate);
    candidate.start();
  }

  #settle(candidate: Candidate, answer: Admitted | Refusal): void {
    if (!this.#candidates.has(candidate)) return;
    if (isRefusal(answer)) {
      this.onRefused(candidate, answer.drop, answer.refused);
      return;
    }
    this.#candidates.delete(candidate);
    const { name } = candidate;
    const fd = candidate.take();
    let tunnel: SeqpacketTunnel | null = null;
    try {
      tunnel = new SeqpacketTunnel(this.#host, {
        ...answer,
        name,
        fd,
        mtu: this.#options.mtu,
        onClosed: () => tunnel !== null && this.#tunnels.delete(tunnel),
      });
      this.#tunnels.add(tunnel);
    } catch (error) {
      this.#host.worker.io.close(fd);
      tunnelRefused(this.#host, name, (error as Error).message);
    }
  }
}

const TAG_READABLE = 0;
const TAG_LATE = 1;

/** A connection whose context is awaited or being judged. It reads message 0 and nothing behind it. */
class Candidate implements Completion {
  readonly name: string;
  readonly #host: TunnelHost;
  readonly #listener: SeqpacketListener;
  readonly #contextMs: number;
  #fd: Fd;
  #poll: OperationId = 0;
  #timer: TimerId = 0;

  constructor(
    host: TunnelHost,
    listener: SeqpacketListener,
    options: { name: string; fd: Fd; contextMs: number },
  ) {
    this.name = options.name;
    this.#host = host;
    this.#listener = listener;
    this.#fd = options.fd;
    this.#contextMs = options.contextMs;
  }

  start(): void {
    const { io } = this.#host.worker;
    this.#timer = io.timer(this.#contextMs, this, TAG_LATE);
    this.#poll = io.poll(this.#fd, PollMask.In, false, this, TAG_READABLE);
  }

  /** Gives the descriptor away. */
  take(): Fd {
    const fd = this.#fd;
    assert(fd >= 0);
    this.#fd = -1;
    this.#host.worker.io.cancelTimer(this.#timer);
    return fd;
  }

  /** Closes it. */
  dismiss(): void {
    if (this.#fd < 0) return;
    const { io } = this.#host.worker;
    io.cancel(this.#poll);
    io.close(this.take());
  }

  onCompletion(tag: number): void {
    if (this.#fd < 0) return;
    if (tag === TAG_LATE) {
      const text = `no verdict about its context within ${this.#contextMs} ms`;
      this.#listener.onRefused(this, DropReason.BadContext, text);
      return;
    }
    const { io, packets, limits } = this.#host.worker;
    const slot = packets.acquire();
    if (slot < 0) {
      this.#listener.onRefused(this, DropReason.NoBuffer, 'no free packet slot to read its context into');
      return;
    }
    const lengthMax = Math.min(limits.contextBytesMax, packets.slotBytes - 1);
    const length = io.tryRecv(this.#fd, slot, lengthMax + 1);
    const blob = length > 0 ? io.arena.bytes.slice(slot, slot + length) : null;
    packets.release(slot);
    if (length === -Errno.EAGAIN) {
      this.#poll = io.poll(this.#fd, PollMask.In, false, this, TAG_READABLE);
    } else if (blob === null) {
      this.#listener.onRefused(this, DropReason.BadContext, 'the peer closed before it sent its context');
    } else if (length > lengthMax) {
      const text = `its context is longer than limits.contextBytesMax, ${limits.contextBytesMax} bytes`;
      this.#listener.onRefused(this, DropReason.ContextTooLong, text);
    } else {
      this.#listener.onBlob(this, blob);
    }
  }
}

/** Removes the file of a socket; anything else at the path is left, and then binding says so. */
function removeSocketFile(path: string): void {
  if (path.startsWith('@')) return;
  try {
    if (lstatSync(path).isSocket()) unlinkSync(path);
  } catch {
    // There is none.
  }
}
