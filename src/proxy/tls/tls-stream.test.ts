import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';

import { ringRefusal } from '#io/engine.ts';
import { type Completion, Errno, type Fd } from '#io/io.ts';
import { runProgram } from '#testing/program.ts';
import { until } from '#testing/until.ts';

import { AUTHORITY, TlsRig } from './test-rig.ts';
import type { TlsStream } from './tls-stream.ts';

const KINDS = ringRefusal() === null ? (['uring', 'epoll'] as const) : (['epoll'] as const);
const BULK = randomBytes(6 * 1024 * 1024);

for (const kind of KINDS) {
  test(`${kind}: bytes go through TLS to a reader and back, however many`, async () => {
    await using rig = new TlsRig(kind, { onOpen: (stream, at) => new Echo(stream, at) });
    const client = await open(rig);
    assert.equal(client.getProtocol(), 'TLSv1.3');
    await exchange(client, Buffer.from('hello'));
    await exchange(client, BULK);
    client.end();
    await once(client, 'close');
  });

  test(`${kind}: few slots slow TLS down and lose nothing`, async () => {
    const few = { recordSlots: 1, streamSlots: 4 };
    await using rig = new TlsRig(kind, { ...few, onOpen: (stream, at) => new Echo(stream, at) });
    const clients = [await open(rig), await open(rig)];
    await Promise.all(clients.map((client) => exchange(client, BULK.subarray(0, 512 * 1024))));
    for (const client of clients) client.end();
  });

  test(`${kind}: a relay carries a TLS stream to a plain one and back`, async () => {
    const echo = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
    await once(echo.listen(0, '127.0.0.1'), 'listening');
    const ends: string[] = [];
    await using rig = new TlsRig(kind, {
      onOpen: (stream, at) => relayTo((echo.address() as AddressInfo).port, stream, at, ends),
    });
    const client = await open(rig);
    await exchange(client, Buffer.from('hello'));
    await exchange(client, BULK);
    client.end();
    await once(client, 'close');
    await until('the relay has ended', () => ends.length > 0);
    assert.deepEqual(ends, ['side 0 errno 0']);
    echo.close();
  });

  test(`${kind}: the end of a client is told from a client that was cut off`, async () => {
    const echoes: Echo[] = [];
    await using rig = new TlsRig(kind, {
      onOpen: (stream, at) => {
        echoes.push(new Echo(stream, at));
      },
    });
    const proper = await open(rig);
    await exchange(proper, Buffer.from('a'));
    proper.end();
    await until('the first has ended', () => echoes[0]?.end !== null);
    assert.equal(echoes[0]?.end, 0);
    const tcp = connectTcp(rig.port, '127.0.0.1');
    const cut = await open(rig, { socket: tcp });
    await exchange(cut, Buffer.from('a'));
    tcp.end();
    await until('the second has ended', () => echoes[1]?.end !== null);
    assert.equal(echoes[1]?.end, -Errno.ECONNRESET);
    tcp.destroy();
  });

  test(`${kind}: what is no TLS, or stops before it is one, ends with a reason`, async () => {
    await using rig = new TlsRig(kind, { handshakeMs: 60, onOpen: () => assert.fail('opened') });
    const plain = connectTcp(rig.port, '127.0.0.1');
    plain.write('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n');
    await closed(plain);
    const silent = connectTcp(rig.port, '127.0.0.1');
    await closed(silent);
    const gone = connectTcp(rig.port, '127.0.0.1');
    gone.end();
    await closed(gone);
    await until('all three are told', () => rig.errors.length === 3);
    assert.match(rig.errors[0] as string, /http request/);
    assert.match(rig.errors[1] as string, /took longer than 60 ms/);
    assert.match(rig.errors[2] as string, /closed the connection during the handshake/);
  });

  test(`${kind}: a client comes back with a ticket, though the key that sealed it was replaced`, async () => {
    await using rig = new TlsRig(kind, { onOpen: (stream, at) => new Echo(stream, at) });
    const first = await open(rig);
    const ticket = once(first, 'session');
    await exchange(first, Buffer.from('a'));
    const session = (await ticket)[0] as Buffer;
    first.end();
    rig.context.tickets?.rotate(randomBytes(80));
    const second = await open(rig, { session });
    assert.equal(second.isSessionReused(), true);
    await exchange(second, Buffer.from('b'));
    second.end();
    for (let i = 0; i < 3; i++) rig.context.tickets?.rotate(randomBytes(80));
    const third = await open(rig, { session });
    assert.equal(third.isSessionReused(), false);
    third.end();
  });

  test(`${kind}: the openssl program speaks TLS 1.2 and 1.3 with it`, async () => {
    await using rig = new TlsRig(kind, { onOpen: (stream, at) => new Echo(stream, at, 6) });
    for (const version of ['-tls1_2', '-tls1_3']) {
      const args = ['s_client', '-connect', `127.0.0.1:${rig.port}`, '-CAfile', AUTHORITY.certificateFile];
      const result = await runProgram(
        'openssl',
        [...args, version, '-verify_return_error', '-verify_hostname', 'a.test', '-quiet'],
        { input: 'hello\n' },
      );
      assert.match(result.output, /hello/, result.errors);
    }
  });
}

async function open(rig: TlsRig, more: ConnectionOptions = {}): Promise<TLSSocket> {
  const options = { ca: AUTHORITY.certificate, servername: 'a.test', ...more };
  const target = more.socket === undefined ? { port: rig.port, host: '127.0.0.1' } : {};
  const socket = connect({ ...target, ...options });
  await once(socket, 'secureConnect');
  return socket;
}

/** Sends bytes and reads as many back, which must be the same. */
async function exchange(client: Socket, bytes: Uint8Array): Promise<void> {
  const hash = createHash('sha256');
  let left = bytes.length;
  const done = new Promise<void>((resolve, reject) => {
    client.on('error', reject);
    client.on('data', function take(chunk: Buffer) {
      hash.update(chunk);
      left -= chunk.length;
      if (left > 0) return;
      client.off('data', take);
      resolve();
    });
  });
  client.write(bytes);
  await done;
  assert.equal(left, 0);
  assert.equal(hash.digest('hex'), createHash('sha256').update(bytes).digest('hex'));
}

async function closed(socket: Socket): Promise<void> {
  socket.on('error', () => {});
  socket.resume();
  await once(socket, 'close');
}

/** Sends back whatever comes, by completions, as the HTTP engine would. */
class Echo implements Completion {
  /** What the last receive came to. */
  end: number | null = null;
  readonly #fd: Fd;
  readonly #rig: TlsRig;
  #slot = -1;
  /** Bytes after which it closes. */
  #left: number;

  constructor(stream: TlsStream, rig: TlsRig, left = Number.POSITIVE_INFINITY) {
    this.#fd = stream.fd;
    this.#rig = rig;
    this.#left = left;
    this.#receive();
  }

  onCompletion(tag: number, result: number, flags: number): void {
    const { streams } = this.#rig.hub;
    if (tag === 2) this.#receive();
    else if (tag === 1) {
      streams.release(this.#slot);
      this.#left -= Math.max(result, 0);
      if (result < 0 || this.#left <= 0) this.#close(result);
      else this.#receive();
    } else if (result > 0) {
      this.#slot = streams.offsetOf(flags >>> 16);
      this.#rig.io.send(this.#fd, this.#slot, result, this, 1);
    } else if (result === -Errno.ENOBUFS) this.#rig.io.timer(1, this, 2);
    else this.#close(result);
  }

  #receive(): void {
    this.#rig.io.recvPooled(this.#fd, this.#rig.hub.streams, this, 0);
  }

  #close(result: number): void {
    this.end = result;
    this.#rig.io.close(this.#fd);
  }
}

function relayTo(port: number, stream: TlsStream, rig: TlsRig, ends: string[]): void {
  const fd = rig.io.socket('tcp4');
  const connected: Completion = {
    onCompletion() {
      rig.relays.start(stream.fd, fd, {
        onRelayEnd: (_relay, side, errno) => ends.push(`side ${side} errno ${errno}`),
      });
    },
  };
  rig.io.connect(fd, { family: 4, address: '127.0.0.1', port }, connected, 0);
}
