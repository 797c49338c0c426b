import { connect, type Socket } from 'node:net';

import { ERROR_CODES, type ErrorCode, RampartError } from '#base/error.ts';

import {
  type AgentCalls,
  ANSWER_LENGTH_MAX,
  LineReader,
  type WatchBatch,
  type WatchRequest,
} from './messages.ts';

/** A line from the server, before it is known which kind it is. */
interface Line {
  readonly id: number;
  readonly answer?: unknown;
  readonly error?: { readonly code: string; readonly text: string };
  readonly events?: WatchBatch['events'];
  readonly packets?: readonly (Omit<WatchBatch['packets'][number], 'bytes'> & { readonly bytes: string })[];
  readonly lost?: number;
}

/** Asks a running process over its control socket. */
export class AgentClient {
  readonly #socket: Socket;
  #next = 1;
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  readonly #watchers = new Map<number, (batch: WatchBatch) => void>();
  readonly #ended = Promise.withResolvers<void>();

  /**
   * Connects to the control socket at `path`.
   *
   * @throws RampartError RAMP_CONNECT when no process answers there.
   */
  static async connect(path: string): Promise<AgentClient> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', () => resolve());
      socket.once('error', (cause: NodeJS.ErrnoException) => {
        const denied = cause.code === 'EACCES' || cause.code === 'EPERM';
        const text = denied
          ? `the control socket ${path} belongs to another user; run this as the user that runs Rampart`
          : `no Rampart answers at ${path}; start one with \`rampart run -c FILE\`, or name its ` +
            'socket with --socket';
        reject(new RampartError('RAMP_CONNECT', text, { cause }));
      });
    });
    return new AgentClient(socket);
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    const reader = new LineReader(ANSWER_LENGTH_MAX, (text) => this.#onLine(JSON.parse(text) as Line));
    socket.on('data', (text: string) => {
      if (!reader.push(text)) socket.destroy();
    });
    socket.on('error', () => {});
    socket.on('close', () => this.#onClose());
  }

  /** Settles when the process went away, or `close` was called. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /**
   * Asks one thing. @throws RampartError with the code of the process, or RAMP_CONNECT when it goes away
   * meanwhile.
   */
  async ask<Name extends keyof AgentCalls>(
    name: Name,
    ...give: AgentCalls[Name]['give'] extends undefined ? [] : [AgentCalls[Name]['give']]
  ): Promise<AgentCalls[Name]['get']> {
    const id = this.#next++;
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#socket.write(`${JSON.stringify({ id, ask: name, give: give[0] })}\n`);
    return (await answer) as AgentCalls[Name]['get'];
  }

  /** Watches until the connection ends. Resolves when watching has begun. */
  async watch(request: WatchRequest, onBatch: (batch: WatchBatch) => void): Promise<void> {
    const id = this.#next++;
    const begun = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#watchers.set(id, onBatch);
    this.#socket.write(`${JSON.stringify({ id, ask: 'watch', give: request })}\n`);
    await begun;
  }

  /** Ends the connection. */
  close(): void {
    this.#socket.destroy();
  }

  #onLine(line: Line): void {
    const waiting = this.#waiting.get(line.id);
    this.#waiting.delete(line.id);
    if (line.error !== undefined) {
      const code = (line.error.code in ERROR_CODES ? line.error.code : 'RAMP_INTERNAL') as ErrorCode;
      waiting?.reject(new RampartError(code, line.error.text));
      return;
    }
    waiting?.resolve(line.answer);
    if (line.events === undefined) return;
    const packets = (line.packets ?? []).map((packet) => ({
      ...packet,
      bytes: new Uint8Array(Buffer.from(packet.bytes, 'base64')),
    }));
    this.#watchers.get(line.id)?.({ events: line.events, packets, lost: line.lost ?? 0 });
  }

  #onClose(): void {
    const error = new RampartError(
      'RAMP_CONNECT',
      'the process closed the control socket before it answered',
    );
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
    this.#ended.resolve();
  }
}
