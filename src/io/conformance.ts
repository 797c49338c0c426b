/**
 * What every engine must do, as one suite. An engine's test calls `ioConformance` with a way to open it.
 * After each test nothing may be left: no descriptor, operation, timer or slot.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { describe, it } from 'node:test';

import type { SocketAddress } from '#base/ip.ts';

import { lifeTests } from './conformance-life.ts';
import { packetTests } from './conformance-packet.ts';
import { streamTests } from './conformance-stream.ts';
import type { Completion, Fd, Io, OperationId } from './io.ts';

/** An engine under test. */
export interface ConformanceOptions {
  readonly name: string;
  open(): Io;
  /** Descriptors are the process's own: they are counted in /proc too. */
  readonly real: boolean;
  /** Why the engine cannot run here. */
  readonly skip?: string | false;
  /** Lets `ms` milliseconds pass, where time is simulated. */
  elapse?(io: Io, ms: number): void;
}

/** Declares the suite. */
export function ioConformance(options: ConformanceOptions): void {
  describe(`io: ${options.name}`, { timeout: 60_000, skip: options.skip ?? false }, () => {
    if (options.skip) return;
    // Whatever is made once for the process is made before descriptors are counted.
    options.open().stop();
    const test = (name: string, body: (bench: Bench) => Promise<void> | void): void => {
      it(name, { timeout: 10_000 }, () => runTest(options, body));
    };
    streamTests(test);
    packetTests(test);
    lifeTests(test);
  });
}

/** Declares one test, which gets an engine of its own. */
export type DeclareTest = (name: string, body: (bench: Bench) => Promise<void> | void) => void;

async function runTest(
  options: ConformanceOptions,
  body: (bench: Bench) => Promise<void> | void,
): Promise<void> {
  const before = options.real ? openDescriptors() : 0;
  const io = options.open();
  const bench = new Bench(io, options);
  try {
    await body(bench);
    bench.closeAll();
    await bench.untilQuiet();
  } finally {
    io.stop();
  }
  assert.deepEqual(io.audit(), QUIET, 'after stop');
  if (!options.real) return;
  for (let turn = 0; openDescriptors() !== before && turn < 2000; turn++) await nextTurn();
  assert.equal(openDescriptors(), before, 'descriptors of the process');
}

const QUIET = Object.freeze({ descriptors: 0, operations: 0, timers: 0, slots: 0, mappings: 0 });

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** How an operation ended. */
export interface Outcome {
  readonly result: number;
  readonly flags: number;
}

/** Collects completions of operations that complete more than once. */
export class Collector implements Completion {
  readonly outcomes: Outcome[] = [];
  #wake: (() => void) | null = null;

  onCompletion(_tag: number, result: number, flags: number): void {
    this.outcomes.push({ result, flags });
    this.#wake?.();
    this.#wake = null;
  }

  /** The next outcome that was not taken. */
  async next(): Promise<Outcome> {
    while (this.outcomes.length === 0) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.outcomes.shift() as Outcome;
  }
}

const SLOT_BYTES = 4096;
const SLOT_COUNT = 64;

/** An engine with the helpers of a test. */
export class Bench {
  readonly io: Io;
  /** Buffers of 4 KiB. */
  readonly pool;
  readonly #options: ConformanceOptions;
  readonly #opened: Fd[] = [];
  readonly #slots: number[] = [];

  constructor(io: Io, options: ConformanceOptions) {
    this.io = io;
    this.pool = io.arena.pool(SLOT_BYTES, SLOT_COUNT);
    this.#options = options;
  }

  get real(): boolean {
    return this.#options.real;
  }

  /** Starts an operation and waits for its end. */
  async run(start: (completion: Completion, tag: number) => OperationId): Promise<Outcome> {
    return this.started(start).done;
  }

  /** Starts an operation; its end comes later. */
  started(start: (completion: Completion, tag: number) => OperationId): {
    readonly id: OperationId;
    readonly done: Promise<Outcome>;
  } {
    const collector = new Collector();
    const id = start(collector, 7);
    assert.equal(collector.outcomes.length, 0, 'starting does not call back');
    return { id, done: collector.next() };
  }

  /** Lets simulated time pass; real time passes by itself. */
  elapse(ms: number): void {
    this.#options.elapse?.(this.io, ms);
  }

  /** Closes `fd` at the end of the test, if the test does not. */
  keep(fd: Fd): Fd {
    this.#opened.push(fd);
    return fd;
  }

  close(fd: Fd): void {
    const at = this.#opened.indexOf(fd);
    assert.ok(at >= 0, 'a descriptor of the test');
    this.#opened.splice(at, 1);
    this.io.close(fd);
  }

  closeAll(): void {
    for (const fd of this.#opened.splice(0)) this.io.close(fd);
    for (const slot of this.#slots.splice(0)) this.pool.release(slot);
  }

  /** A slot of the pool, given back at the end of the test. */
  slot(text = ''): number {
    const offset = this.pool.acquire();
    assert.ok(offset >= 0, 'the pool has a slot');
    this.#slots.push(offset);
    this.write(offset, text);
    return offset;
  }

  write(offset: number, text: string): void {
    new TextEncoder().encodeInto(text, this.io.arena.bytes.subarray(offset, offset + SLOT_BYTES));
  }

  text(offset: number, length: number): string {
    return new TextDecoder().decode(this.io.arena.bytes.slice(offset, offset + length));
  }

  listen(address: SocketAddress = { family: 4, address: '127.0.0.1', port: 0 }): Fd {
    return this.keep(this.io.listen(address));
  }

  /** A connected pair of TCP sockets: the one that connected and the one that was accepted. */
  async tcpPair(): Promise<[client: Fd, server: Fd]> {
    const { io } = this;
    const listener = io.listen({ family: 4, address: '127.0.0.1', port: 0 });
    const accepted = new Collector();
    io.accept(listener, accepted, 0);
    const client = this.keep(io.socket('tcp4'));
    const address = io.localAddress(listener);
    assert.equal((await this.run((c, tag) => io.connect(client, address, c, tag))).result, 0);
    const server = this.keep((await accepted.next()).result);
    io.close(listener);
    assert.deepEqual(await accepted.next(), { result: -125, flags: 0 });
    return [client, server];
  }

  /** Sends `text` and waits until it is sent. */
  async send(fd: Fd, text: string): Promise<void> {
    const offset = this.pool.acquire();
    this.write(offset, text);
    const { result } = await this.run((c, tag) => this.io.send(fd, offset, text.length, c, tag));
    this.pool.release(offset);
    assert.equal(result, text.length);
  }

  /** Receives once; '' at the end of the stream. */
  async receive(fd: Fd): Promise<string> {
    const offset = this.pool.acquire();
    const { result } = await this.run((c, tag) => this.io.recv(fd, offset, SLOT_BYTES, c, tag));
    const text = this.text(offset, Math.max(0, result));
    this.pool.release(offset);
    assert.ok(result >= 0, `recv completed with ${result}`);
    return text;
  }

  /** Waits until the engine has nothing open or under way. */
  async untilQuiet(): Promise<void> {
    for (let turn = 0; turn < 500; turn++) {
      const { descriptors, operations, timers, slots } = this.io.audit();
      if (descriptors + operations + timers + slots === 0) return;
      await nextTurn();
    }
    assert.deepEqual({ ...this.io.audit(), mappings: 0 }, QUIET, 'at the end of the test');
  }

  /** One turn of the event loop. */
  turn(): Promise<void> {
    return nextTurn();
  }
}
