import { chmodSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';

import { RampartError } from '#base/error.ts';
import type {
  AgentSource,
  CapturedPacket,
  ExplainQuery,
  FlowFilter,
  TraceFilter,
  TraceWatch,
} from '#contract/agent.ts';
import type { TraceEvent } from '#contract/trace.ts';

import { EventFilter, wantsPacket } from './filter.ts';
import { type AnswerLine, LineReader, REQUEST_BYTES_MAX, type RequestLine } from './messages.ts';

/**
 * People and scripts that look at once. One more is turned away: a forgotten loop must not use up the
 * descriptors.
 */
const CONNECTIONS_MAX = 64;

/** Bytes that may wait for a slow watcher before it loses events. */
const WAITING_BYTES_MAX = 1024 * 1024;

/** Serves the control socket of one process. */
export class AgentServer {
  readonly #server: Server;
  readonly #path: string;
  readonly #connections = new Set<Socket>();

  /**
   * Listens at `path`, which only this user may open. A socket that a dead process left there is replaced.
   *
   * @throws RampartError RAMP_LISTEN when a live process has it, or it cannot be made.
   */
  static async listen(path: string, source: AgentSource): Promise<AgentServer> {
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      return await AgentServer.#open(path, source);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw listenFailure(path, cause);
    }
    if (!lstatSync(path).isSocket()) {
      throw new RampartError(
        'RAMP_LISTEN',
        `${path} is no socket; give another path (telemetry.control), or off`,
      );
    }
    if (await answers(path)) {
      const text =
        `another process has the control socket ${path}; stop it, or give this one its ` +
        'own (telemetry.control)';
      throw new RampartError('RAMP_LISTEN', text);
    }
    try {
      unlinkSync(path);
      return await AgentServer.#open(path, source);
    } catch (cause) {
      throw listenFailure(path, cause);
    }
  }

  static async #open(path: string, source: AgentSource): Promise<AgentServer> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      // The socket is bound within this call, so it never exists with wider rights.
      const before = process.umask(0o177);
      try {
        server.listen(path, () => resolve());
      } finally {
        process.umask(before);
      }
    });
    chmodSync(path, 0o600);
    return new AgentServer(server, path, source);
  }

  private constructor(server: Server, path: string, source: AgentSource) {
    this.#server = server;
    this.#path = path;
    server.maxConnections = CONNECTIONS_MAX;
    server.on('error', () => {});
    server.on('connection', (socket) => {
      this.#connections.add(socket);
      socket.on('close', () => this.#connections.delete(socket));
      serveConnection(socket, source);
    });
  }

  /** Where it listens. */
  get path(): string {
    return this.#path;
  }

  /** Ends all connections and removes the socket. */
  async close(): Promise<void> {
    for (const socket of this.#connections) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  /** It alone keeps no process alive. */
  unref(): void {
    this.#server.unref();
  }
}

/** Serves one client until it goes. */
function serveConnection(socket: Socket, source: AgentSource): void {
  const watches = new Set<Watching>();
  socket.setEncoding('utf8');
  const send = (line: AnswerLine): boolean => socket.write(`${JSON.stringify(line)}\n`);
  const reader = new LineReader(REQUEST_BYTES_MAX, (text) => {
    let request: RequestLine;
    try {
      request = readRequest(text);
    } catch (error) {
      send({ id: 0, error: { code: 'RAMP_USAGE', text: (error as Error).message } });
      return;
    }
    if (request.ask === 'watch') watches.add(new Watching(socket, source, request));
    else void answer(source, request).then(send);
  });
  socket.on('data', (text: string) => {
    if (!reader.push(text)) socket.destroy();
  });
  socket.on('drain', () => {
    for (const watching of watches) watching.resume();
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    for (const watching of watches) watching.stop();
  });
}

async function answer(source: AgentSource, request: RequestLine): Promise<AnswerLine> {
  const { id, give } = request;
  try {
    switch (request.ask) {
      case 'status':
        return { id, answer: source.status() };
      case 'stats':
        return { id, answer: source.stats() };
      case 'flows':
        return { id, answer: source.flows((give ?? {}) as FlowFilter) };
      case 'explain':
        return { id, answer: await source.explain(give as ExplainQuery) };
      default:
        return { id, error: { code: 'RAMP_USAGE', text: `"${String(request.ask)}" cannot be asked` } };
    }
  } catch (error) {
    const code = error instanceof RampartError ? error.code : 'RAMP_INTERNAL';
    return { id, error: { code, text: (error as Error).message } };
  }
}

/** Passes on what one `watch` request wants. */
class Watching {
  readonly #socket: Socket;
  readonly #id: number;
  readonly #filter: TraceFilter;
  readonly #events: EventFilter;
  readonly #watch: TraceWatch;

  constructor(socket: Socket, source: AgentSource, request: RequestLine) {
    const give = (request.give ?? {}) as { filter?: TraceFilter; events?: boolean; packets?: boolean };
    this.#socket = socket;
    this.#id = request.id;
    this.#filter = give.filter ?? {};
    this.#events = new EventFilter(this.#filter);
    this.#watch = source.watch({
      events: give.events !== false,
      packets: give.packets === true,
      take: (events, packets, lost) => this.#take(events, packets, lost),
    });
    // The first line says that watching has begun: what happens from here on is seen.
    this.#send({ events: [], packets: [], lost: 0 });
  }

  resume(): void {
    this.#watch.resume();
  }

  stop(): void {
    this.#watch.stop();
  }

  #take(events: readonly TraceEvent[], packets: readonly CapturedPacket[], lost: number): boolean {
    const wanted = events.filter((event) => this.#events.wants(event));
    const captured = packets.filter((packet) => wantsPacket(this.#filter, packet));
    if (wanted.length === 0 && captured.length === 0 && lost === 0) return true;
    return this.#send({ events: wanted, packets: captured, lost });
  }

  #send(batch: { events: readonly TraceEvent[]; packets: readonly CapturedPacket[]; lost: number }): boolean {
    const packets = batch.packets.map((packet) => ({
      ...packet,
      bytes: Buffer.from(packet.bytes.buffer, packet.bytes.byteOffset, packet.bytes.length).toString(
        'base64',
      ),
    }));
    const line: AnswerLine = { id: this.#id, events: batch.events, packets, lost: batch.lost };
    const flowing = this.#socket.write(`${JSON.stringify(line)}\n`);
    // `drain` comes only after a write that was not taken whole.
    return flowing || this.#socket.writableLength < WAITING_BYTES_MAX;
  }
}

function readRequest(text: string): RequestLine {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error('the line is not JSON; expected { "id": 1, "ask": "status" }');
  }
  const { id, ask } = (value ?? {}) as { readonly id?: unknown; readonly ask?: unknown };
  if (!Number.isSafeInteger(id) || typeof ask !== 'string') {
    throw new Error('the line is no request; expected { "id": 1, "ask": "status" }');
  }
  return value as RequestLine;
}

/** True when a live process listens at `path`. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

function listenFailure(path: string, cause: unknown): RampartError {
  const reason = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
  const text =
    `the control socket ${path} cannot be made (${reason}); give another path ` +
    '(telemetry.control), or off';
  return new RampartError('RAMP_LISTEN', text, { cause });
}
