import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';

import type { SlotPool } from './arena.ts';
import { Collector } from './conformance.ts';
import { type DatagramOwner, DatagramPort } from './datagram.ts';
import { openEngine, ringRefusal } from './engine.ts';
import { Errno, type Fd, type Io } from './io.ts';
import { readSocketAddress, sockaddrPort, writeSocketAddress } from './socket-address.ts';

const LOOPBACK = { family: 4, address: '127.0.0.1', port: 0 } as const;

for (const kind of ['uring', 'epoll'] as const) {
  const skip = (kind === 'uring' && ringRefusal()) || false;
  describe(`datagram port on ${kind}`, { timeout: 30_000, skip }, () => {
    it('echoes datagrams to the address that they came from', async () => {
      await withEngine(kind, async (io) => {
        const pool = io.arena.pool(65_536, 64);
        const server = new Recorder(io, pool, { echo: true });
        const client = new Recorder(io, pool);
        for (let i = 0; i < 50; i++) {
          client.send(`message ${i}`, server);
          assert.equal(await client.next(), `message ${i}`);
          assert.equal(client.remotePort, server.portNumber);
        }
        server.port.close();
        client.port.close();
      });
    });

    it('sends a train in one call and receives it as one, with its segment size', async () => {
      await withEngine(kind, async (io) => {
        const pool = io.arena.pool(65_536, 64);
        const server = new Recorder(io, pool, { offload: true });
        const client = new Recorder(io, pool);
        const text = 'abcdefghij'.repeat(140);
        client.send(text, server, 500);
        let got = '';
        let pieces = 0;
        while (got.length < text.length) {
          got += await server.next();
          pieces++;
          if (server.segmentSize !== 0) assert.equal(server.segmentSize, 500);
        }
        assert.equal(got, text);
        // Coalescing is the kernel's choice; without it there are three datagrams.
        assert.ok(pieces === 1 || pieces === 3, `${pieces} pieces`);
        server.port.close();
        client.port.close();
      });
    });

    it('tells the local address and original destination', async () => {
      await withEngine(kind, async (io) => {
        const pool = io.arena.pool(65_536, 64);
        const server = new Recorder(io, pool, { ancillary: true });
        const client = new Recorder(io, pool);
        client.send('x', server);
        assert.equal(await server.next(), 'x');
        assert.deepEqual(server.localIp, [127, 0, 0, 1]);
        assert.equal(server.destination, `127.0.0.1:${server.portNumber}`);
        assert.ok(server.interfaceIndex > 0);
        server.port.close();
        client.port.close();
      });
    });

    it('reports that nobody listens at the connected peer, and goes on', async () => {
      await withEngine(kind, async (io) => {
        const pool = io.arena.pool(65_536, 64);
        const server = new Recorder(io, pool);
        const client = new Recorder(io, pool);
        const connected = new Collector();
        io.connect(client.port.fd, io.localAddress(server.port.fd), connected, 0);
        assert.equal((await connected.next()).result, 0);
        const address = io.localAddress(server.port.fd);
        server.port.close();
        await turn();
        await turn();
        client.send('into the void', null);
        assert.equal(await client.nextError(), Errno.ECONNREFUSED);
        const again = io.socket('udp4');
        io.bind(again, address);
        const revived = new Recorder(io, pool, { fd: again });
        client.send('hello again', null);
        assert.equal(await revived.next(), 'hello again');
        revived.port.close();
        client.port.close();
      });
    });

    it('drops what exceeds the sends under way, and gives its buffer back', async () => {
      await withEngine(kind, async (io) => {
        const pool = io.arena.pool(65_536, 64);
        const server = new Recorder(io, pool);
        const client = new Recorder(io, pool, { sendCount: 4 });
        const before = pool.inUse;
        const reasons: number[] = [];
        for (let i = 0; i < 6; i++) reasons.push(client.send(`message ${i}`, server));
        const none = DropReason.None;
        assert.deepEqual(reasons, [none, none, none, none, DropReason.QueueFull, DropReason.QueueFull]);
        assert.equal(client.port.dropped, 2);
        assert.equal(pool.inUse, before + 4);
        for (let i = 0; i < 4; i++) assert.equal(await server.next(), `message ${i}`);
        while (client.port.sending > 0) await turn();
        assert.equal(client.port.sent, 4);
        assert.equal(client.send('later', server), none);
        assert.equal(await server.next(), 'later');
        server.port.close();
        client.port.close();
      });
    });

    it('goes on receiving after its pool was empty', async () => {
      await withEngine(kind, async (io) => {
        const pool = io.arena.pool(65_536, 64);
        const small = io.arena.pool(65_536, 2);
        const server = new Recorder(io, small, { keep: true });
        const client = new Recorder(io, pool);
        for (let i = 0; i < 2; i++) {
          client.send(`message ${i}`, server);
          assert.equal(await server.next(), `message ${i}`);
        }
        assert.equal(small.available, 0);
        client.send('waits', server);
        server.releaseKept();
        assert.equal(await server.next(), 'waits');
        server.releaseKept();
        server.port.close();
        client.port.close();
      });
    });

    it('leaves headroom before a datagram', async () => {
      await withEngine(kind, async (io) => {
        const pool = io.arena.pool(4096, 64);
        const server = new Recorder(io, pool, { headroom: 64 });
        const client = new Recorder(io, pool);
        client.send('far in', server);
        assert.equal(await server.next(), 'far in');
        assert.equal((server.lastOffset - pool.base) % 4096, 64);
        server.port.close();
        client.port.close();
      });
    });
  });
}

async function withEngine(kind: 'uring' | 'epoll', body: (io: Io) => Promise<void>): Promise<void> {
  const io = openEngine({ kind });
  await body(io);
  for (let i = 0; i < 500; i++) {
    const { descriptors, operations, timers, slots } = io.audit();
    if (descriptors + operations + timers + slots === 0) break;
    await turn();
  }
  const quiet = { descriptors: 0, operations: 0, timers: 0, slots: 0, mappings: 0 };
  assert.deepEqual({ ...io.audit(), mappings: 0 }, quiet);
  io.stop();
}

interface RecorderOptions {
  readonly echo?: boolean;
  readonly keep?: boolean;
  readonly offload?: boolean;
  readonly ancillary?: boolean;
  readonly sendCount?: number;
  readonly headroom?: number;
  readonly fd?: Fd;
}

/** A port on loopback that notes what it gets. */
class Recorder implements DatagramOwner {
  readonly port: DatagramPort;
  readonly portNumber: number;
  remotePort = 0;
  segmentSize = 0;
  lastOffset = 0;
  localIp: number[] = [];
  destination = '';
  interfaceIndex = 0;
  readonly #io: Io;
  readonly #pool: SlotPool;
  readonly #options: RecorderOptions;
  readonly #texts = new Collector();
  readonly #errors = new Collector();
  readonly #received: string[] = [];
  readonly #kept: number[] = [];

  constructor(io: Io, pool: SlotPool, options: RecorderOptions = {}) {
    this.#io = io;
    this.#pool = pool;
    this.#options = options;
    const fd = options.fd ?? io.socket('udp4');
    if (options.fd === undefined) io.bind(fd, LOOPBACK);
    if (options.offload) io.setOption(fd, 'udp-receive-offload', 1);
    if (options.ancillary) {
      io.setOption(fd, 'ip-packet-info', 1);
      io.setOption(fd, 'ip-recv-original-destination', 1);
    }
    const { sendCount, headroom } = options;
    this.port = new DatagramPort(io, fd, this, {
      pool,
      receiveCount: 2,
      ...(sendCount === undefined ? {} : { sendCount }),
      ...(headroom === undefined ? {} : { headroom }),
    });
    const address = io.localAddress(fd);
    this.portNumber = address.family === 'unix' ? 0 : address.port;
    this.port.start();
  }

  onDatagram(port: DatagramPort, offset: number, length: number, segmentSize: number): void {
    const { view, bytes } = this.#io.arena;
    this.remotePort = sockaddrPort(view, port.remote);
    this.segmentSize = segmentSize;
    this.lastOffset = offset;
    this.#received.push(new TextDecoder().decode(bytes.slice(offset, offset + length)));
    if (this.#options.ancillary) {
      this.localIp = [...bytes.slice(port.localIp, port.localIp + 4)];
      const address = readSocketAddress(view, port.destination, 16);
      this.destination = address.family === 'unix' ? '' : `${address.address}:${address.port}`;
      this.interfaceIndex = port.interfaceIndex;
    }
    if (this.#options.echo) port.send(this.#pool, offset, length, 0, port.remote, port.remoteLength);
    else if (this.#options.keep) this.#kept.push(offset);
    else this.#pool.release(offset);
    this.#texts.onCompletion(0, 0, 0);
  }

  onDatagramError(_port: DatagramPort, errno: number): void {
    this.#errors.onCompletion(0, errno, 0);
  }

  /** Sends text to another recorder, or to the connected peer. */
  send(text: string, to: Recorder | null, segmentSize = 0): DropReason {
    const { arena } = this.#io;
    const offset = this.#pool.acquire();
    assert.ok(offset >= 0);
    new TextEncoder().encodeInto(text, arena.bytes.subarray(offset));
    if (to === null) return this.port.send(this.#pool, offset, text.length, segmentSize, 0, 0);
    const address = this.#pool.acquire();
    const length = writeSocketAddress(arena.view, address, { ...LOOPBACK, port: to.portNumber });
    const reason = this.port.send(this.#pool, offset, text.length, segmentSize, address, length);
    this.#pool.release(address);
    return reason;
  }

  async next(): Promise<string> {
    await this.#texts.next();
    return this.#received.shift() as string;
  }

  async nextError(): Promise<number> {
    return (await this.#errors.next()).result;
  }

  releaseKept(): void {
    for (const offset of this.#kept.splice(0)) this.#pool.release(offset);
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
