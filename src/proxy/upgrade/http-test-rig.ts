/**
 * What the HTTP engine's tests stand on: a real io engine, a listener, a dialer to a real origin. Only for
 * tests.
 */
import assert from 'node:assert/strict';
import {
  type AddressInfo,
  connect as connectTcp,
  createServer as createTcpServer,
  type Server,
  type Socket,
} from 'node:net';

import type { Context } from '#contract/context.ts';
import { CloseReason, type FlowRecord } from '#contract/record.ts';
import { type EngineOptions, openEngine } from '#io/engine.ts';
import { type Completion, Errno, type Fd, type Io } from '#io/io.ts';
import { RelayHub } from '#io/relay.ts';
import type { Hooks } from '#proxy/hooks/hooks.ts';
import { HookRunner } from '#proxy/hooks/runner.ts';
import {
  type Dialer,
  type DialPlan,
  type DialRefusal,
  type DialRequest,
  type Limits,
  STREAM_SLOT_BYTES,
  type Worker,
} from '#proxy/proxy-contract.ts';
import { Counter, createStats } from '#proxy/stats.ts';
import { RampartError } from '#base/error.ts';

import { HttpEngine, type HttpEngineOptions } from './http.ts';

/** Engines that this machine can run. */
export const ENGINES: readonly NonNullable<EngineOptions['kind']>[] = (['uring', 'epoll'] as const).filter(
  (kind) => {
    try {
      openEngine({ kind }).stop();
      return true;
    } catch {
      return false;
    }
  },
);

/** Limits that no test reaches by accident. */
const LIMITS: Limits = {
  flowsMax: 1000,
  flowsPerAccountMax: 1000,
  tcpHandshakeMs: 10_000,
  tcpIdleMs: 10_000,
  tcpClosingMs: 10_000,
  udpIdleMs: 10_000,
  icmpIdleMs: 10_000,
  otherIdleMs: 10_000,
  introductionMs: 10_000,
  tlsHandshakeMs: 10_000,
  connectMs: 10_000,
  sniffMs: 10_000,
  hookMs: 10_000,
  streamIdleMs: 10_000,
  headMs: 10_000,
  bodyIdleMs: 10_000,
  keepAliveMs: 10_000,
  responseMs: 10_000,
  continueMs: 10_000,
  headBytesMax: 16 * 1024,
  headFieldsMax: 100,
  upstreamIdleMs: 10_000,
  upstreamIdleMax: 16,
  packetSlots: 16,
  streamSlots: 256,
  reassemblyBytesMax: 65_536,
  contextBytesMax: 4096,
};

const CONTEXT: Context = Object.freeze({
  account: 'acme',
  vnet: 'default',
  identity: null,
  onRamp: 'test',
  labels: {},
  sources: [],
  extension: undefined,
});

/** How a rig is made. */
export interface RigOptions {
  readonly kind: NonNullable<EngineOptions['kind']>;
  readonly hooks?: Hooks;
  readonly limits?: Partial<Limits>;
  readonly engine?: Partial<HttpEngineOptions>;
  /** Slots of the stream pool. Default 256. */
  readonly slots?: number;
  /** Where plans lead; default is the origin. */
  readonly plan?: (request: DialRequest) => DialPlan | DialRefusal;
}

/** A proxy under test between clients and `origin`. */
export class Rig implements Completion, Dialer {
  readonly io: Io;
  readonly worker: Worker;
  readonly engine: HttpEngine;
  readonly records: FlowRecord[] = [];
  /** Where clients connect. */
  readonly port: number;
  readonly #origin: Server;
  readonly #options: RigOptions;
  readonly #listener: Fd;
  readonly #sockets = new Set<Socket>();
  readonly #slots: number;
  #flows = 0;

  /** @param origin a server that listens already; the rig closes it. */
  constructor(origin: Server, options: RigOptions) {
    this.#origin = origin;
    this.#options = options;
    origin.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.#sockets.delete(socket));
    });
    this.io = openEngine({ kind: options.kind });
    this.#slots = options.slots ?? 256;
    const stats = createStats();
    const limits = { ...LIMITS, ...options.limits };
    this.worker = {
      io: this.io,
      packets: this.io.arena.pool(2048, 16),
      streams: this.io.arena.pool(STREAM_SLOT_BYTES, this.#slots),
      relays: new RelayHub(this.io),
      records: {
        record: (record) => {
          this.records.push(record);
        },
        nextFlowNumber: () => ++this.#flows,
      },
      stats,
      tracer: { enabled: false, emit: () => {}, packet: () => {} },
      limits,
    };
    const hooks = new HookRunner(options.hooks ?? {}, { stats, limits, offRamps: null });
    this.engine = new HttpEngine(this.worker, { dialer: this, hooks, via: 'rampart', ...options.engine });
    this.#listener = this.io.listen({ family: 4, address: '127.0.0.1', port: 0 });
    const address = this.io.localAddress(this.#listener);
    this.port = address.family === 'unix' ? 0 : address.port;
    this.io.accept(this.#listener, this, 0);
  }

  get originPort(): number {
    return (this.#origin.address() as AddressInfo).port;
  }

  counter(counter: number): number {
    return this.worker.stats.counters[counter] as number;
  }

  onCompletion(_tag: number, result: number): void {
    if (result < 0) return;
    const remote = this.io.remoteAddress(result);
    const source =
      remote.family === 'unix'
        ? { address: 'unix', port: 0 }
        : { address: remote.address, port: remote.port };
    this.io.setOption(result, 'no-delay', 1);
    this.engine.onStream(
      {
        fd: result,
        context: CONTEXT,
        network: 1,
        flow: ++this.#flows,
        source,
        destination: { address: '127.0.0.1', port: this.port },
        route: null,
        wish: 'http',
        rule: 'test',
      },
      -1,
      0,
    );
  }

  plan(request: DialRequest): DialPlan | DialRefusal {
    if (this.#options.plan !== undefined) return this.#options.plan(request);
    return this.planTo(request, request.target ?? { host: '127.0.0.1', port: this.originPort });
  }

  planTo(request: DialRequest, target: { host: string; port: number }): DialPlan {
    return {
      via: 'origin',
      target,
      key: `${request.network} ${target.host} ${target.port}`,
      source: null,
      context: request.context,
      network: request.network,
      flow: request.flow,
      reusable: true,
    };
  }

  connect(plan: DialPlan): Promise<Fd> {
    const { counters } = this.worker.stats;
    counters[Counter.UpstreamConnects] = (counters[Counter.UpstreamConnects] as number) + 1;
    const fd = this.io.socket('tcp4');
    this.io.setOption(fd, 'no-delay', 1);
    return new Promise((resolve, reject) => {
      const onCompletion = (_tag: number, result: number) => {
        if (result >= 0) {
          resolve(fd);
          return;
        }
        this.io.close(fd);
        const code = result === -Errno.ETIMEDOUT ? 'RAMP_TIMEOUT' : 'RAMP_CONNECT';
        reject(new RampartError(code, 'no connection', { side: 'upstream', errno: -result }));
      };
      const to = { family: 4, address: plan.target.host, port: plan.target.port } as const;
      this.io.connect(fd, to, { onCompletion }, 0);
    });
  }

  /** A raw client. */
  client(): Client {
    return new Client(this.port);
  }

  /** Closes everything and checks that nothing is left: descriptors, operations, slots, records. */
  async close(): Promise<void> {
    this.engine.closeAll(CloseReason.Shutdown);
    this.worker.relays.close();
    this.io.close(this.#listener);
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#origin.close(resolve));
    for (let turn = 0; turn < 200 && !this.#atRest(); turn++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const audit = this.io.audit();
    this.io.stop();
    assert.deepEqual(
      { descriptors: audit.descriptors, operations: audit.operations, slots: audit.slots },
      { descriptors: 0, operations: 0, slots: 0 },
      'something leaked',
    );
    assert.equal(this.engine.count, 0);
  }

  #atRest(): boolean {
    const audit = this.io.audit();
    return audit.descriptors === 0 && audit.operations === 0 && audit.slots === 0;
  }
}

/** A TCP client that says exactly what it is told. */
export class Client {
  readonly socket: Socket;
  #received = '';
  #ended = false;
  #failed: Error | null = null;
  #wake: (() => void) | null = null;

  constructor(port: number) {
    this.socket = connectTcp({ port, host: '127.0.0.1', allowHalfOpen: true });
    this.socket.setNoDelay(true);
    this.socket.on('data', (chunk) => {
      this.#received += chunk.toString('latin1');
      this.#wake?.();
    });
    this.socket.on('end', () => {
      this.#ended = true;
      this.#wake?.();
    });
    this.socket.on('error', (error) => {
      this.#failed = error;
      this.#wake?.();
    });
    this.socket.on('close', () => {
      this.#ended = true;
      this.#wake?.();
    });
  }

  send(text: string): this {
    this.socket.write(Buffer.from(text, 'latin1'));
    return this;
  }

  /** Half-closes. */
  end(): this {
    this.socket.end();
    return this;
  }

  destroy(): void {
    this.socket.destroy();
  }

  /** Everything received so far. */
  get text(): string {
    return this.#received;
  }

  /**
   * Waits until `done` holds for what was received, and returns and forgets that. Fails when the connection
   * ends before.
   */
  async until(done: (text: string) => boolean): Promise<string> {
    while (!done(this.#received)) {
      if (this.#ended || this.#failed !== null) {
        throw new Error(`the connection ended after ${JSON.stringify(this.#received)} (${this.#failed})`);
      }
      await this.#change();
    }
    const text = this.#received;
    this.#received = '';
    return text;
  }

  /** One response with Content-Length or without a body. */
  async response(): Promise<string> {
    let length = -1;
    const text = await this.until((received) => {
      const end = received.indexOf('\r\n\r\n');
      if (end < 0) return false;
      const declared = /\r\ncontent-length: ([0-9]+)/i.exec(received.slice(0, end + 2));
      length = end + 4 + (declared === null ? 0 : Number(declared[1]));
      return received.length >= length;
    });
    this.#received = text.slice(length);
    return text.slice(0, length);
  }

  /** Everything until the end of the stream. An error counts as the end when `allowReset`. */
  async rest(allowReset = false): Promise<string> {
    while (!this.#ended && this.#failed === null) await this.#change();
    if (this.#failed !== null && !allowReset) throw this.#failed;
    this.socket.destroy();
    return this.#received;
  }

  /** The error that ended the connection, or null. */
  get error(): Error | null {
    return this.#failed;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

/** Starts listening on any port of the loopback. */
export function listening<T extends Server>(server: T): Promise<T> {
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

/** An origin that answers by hand: `onText` gets everything that came on a connection whenever more comes. */
export function rawOrigin(onText: (socket: Socket, text: string) => void): Promise<Server> {
  return listening(
    createTcpServer({ allowHalfOpen: true }, (socket) => {
      let text = '';
      socket.setNoDelay(true);
      socket.on('data', (chunk) => {
        text += chunk.toString('latin1');
        onText(socket, text);
      });
      socket.on('end', () => socket.end());
    }),
  );
}

/** Waits until `done` holds; fails after some seconds. */
export async function eventually(done: () => boolean, what: string): Promise<void> {
  for (let turn = 0; turn < 1000; turn++) {
    if (done()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.fail(`did not happen: ${what}`);
}
