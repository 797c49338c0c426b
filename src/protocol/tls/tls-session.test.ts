import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, test } from 'node:test';

import { reserveMemory } from '#io/ffi/libc.ts';
import { TestAuthority } from '#testing/certificates.ts';

import {
  SessionTickets,
  type ServerContextOptions,
  TICKET_KEY_BYTES,
  TlsClientContext,
  TlsServerContext,
  tlsContextCount,
  TrustStore,
} from './tls-context.ts';
import {
  encryptedBytesMax,
  type ServerIdentity,
  TlsOutcome,
  TlsSession,
  tlsOutput,
  tlsOutputLength,
  tlsSessionCount,
} from './tls-session.ts';

const authority = new TestAuthority();
const other = new TestAuthority('another authority');
after(() => {
  authority.close();
  other.close();
});
const leaf = authority.issue({ name: 'a.test', alternatives: 'DNS:a.test,DNS:*.b.test,IP:127.0.0.1' });
const PEM = { chain: leaf.certificate, key: leaf.key };
const SERVER: ServerIdentity = { name: 'a.test', checkName: true, alpn: [] };

test('a handshake of two sessions in memory agrees on TLS 1.3 and carries bytes both ways', () => {
  using pair = new Pair({ certificate: PEM });
  assert.equal(pair.run(), null);
  assert.equal(pair.client.agreement.version, '1.3');
  assert.deepEqual(pair.server.agreement, pair.client.agreement);
  assert.equal(pair.send(pair.client, pair.server, 'hello'), 'hello');
  assert.equal(pair.send(pair.server, pair.client, 'world'.repeat(6000)), 'world'.repeat(6000));
});

test('a session is held to TLS 1.2 where the versions say so', () => {
  using pair = new Pair({ certificate: PEM, maxVersion: '1.2' });
  assert.equal(pair.run(), null);
  assert.equal(pair.client.agreement.version, '1.2');
  assert.equal(pair.send(pair.client, pair.server, 'hello'), 'hello');
});

test('ALPN is answered by the first protocol of the server that the client offers', () => {
  using pair = new Pair(
    { certificate: PEM, alpn: ['h2', 'http/1.1'] },
    { server: { ...SERVER, alpn: ['http/1.1', 'h2'] } },
  );
  assert.equal(pair.run(), null);
  assert.equal(pair.client.agreement.alpn, 'h2');
  assert.equal(pair.server.agreement.alpn, 'h2');
});

test('a client that offers no protocol of the server gets no_application_protocol', () => {
  using pair = new Pair({ certificate: PEM, alpn: ['h2'] }, { server: { ...SERVER, alpn: ['spdy/3'] } });
  const error = pair.run();
  assert.match(error?.message ?? '', /no_application_protocol/);
  assert.equal(error?.code, 'RAMP_TLS');
});

test('a certificate for another name does not verify', () => {
  using pair = new Pair({ certificate: PEM }, { server: { ...SERVER, name: 'c.test' } });
  assert.match(pair.run()?.message ?? '', /certificate verify failed; hostname mismatch/);
});

test('a certificate is verified for an address too', () => {
  using good = new Pair({ certificate: PEM }, { server: { ...SERVER, name: '127.0.0.1' } });
  assert.equal(good.run(), null);
  using bad = new Pair({ certificate: PEM }, { server: { ...SERVER, name: '127.0.0.2' } });
  assert.match(bad.run()?.message ?? '', /IP address mismatch/);
});

test('a certificate of an authority that is not trusted does not verify', () => {
  using pair = new Pair({ certificate: PEM }, { trust: other.certificate });
  assert.match(pair.run()?.message ?? '', /unable to get local issuer certificate/);
});

test('a certificate that has ended does not verify', () => {
  const ended = authority.issue({ name: 'a.test', days: 0 });
  using pair = new Pair({ certificate: { chain: ended.certificate, key: ended.key } });
  assert.match(pair.run()?.message ?? '', /certificate has expired/);
});

test('a server that asks for a certificate sees the one of the client, and refuses a client without', () => {
  const clients = { authorities: authority.certificate, required: true };
  const own = authority.issue({ name: 'alice', usage: 'clientAuth' });
  using pair = new Pair(
    { certificate: PEM, clients },
    { certificate: { chain: own.certificate, key: own.key } },
  );
  assert.equal(pair.run(), null);
  assert.deepEqual(Buffer.from(pair.server.peerCertificate ?? []), derOf(own.certificate));
  using without = new Pair({ certificate: PEM, clients });
  assert.match(without.run()?.message ?? '', /peer did not return a certificate/);
  const stranger = other.issue({ name: 'mallory', usage: 'clientAuth' });
  using wrong = new Pair(
    { certificate: PEM, clients },
    { certificate: { chain: stranger.certificate, key: stranger.key } },
  );
  assert.match(wrong.run()?.message ?? '', /certificate verify failed/);
});

test('a key that is not that of the certificate is refused with its reason', () => {
  const stranger = other.issue({ name: 'x' });
  assert.throws(() => new TlsServerContext({ certificate: { chain: leaf.certificate, key: stranger.key } }), {
    code: 'RAMP_CERTIFICATE',
    message: /key values mismatch/,
  });
  assert.throws(() => new TlsServerContext({ certificate: { chain: 'nothing', key: leaf.key } }), {
    code: 'RAMP_CERTIFICATE',
  });
});

test('bytes that are no TLS fail the handshake with an alert', () => {
  using pair = new Pair({ certificate: PEM });
  pair.show(pair.server, Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  assert.equal(pair.server.handshake(), TlsOutcome.Failed);
  assert.match(pair.server.error('downstream').message, /http request/);
});

test('a record that was changed on its way breaks the session', () => {
  using pair = new Pair({ certificate: PEM });
  assert.equal(pair.run(), null);
  const record = pair.encrypt(pair.client, 'hello');
  record[record.length - 1] = (record[record.length - 1] as number) ^ 1;
  pair.show(pair.server, record);
  assert.equal(pair.server.read(pair.plain, 100), TlsOutcome.Failed);
  assert.match(pair.server.error('downstream').message, /bad record mac/);
});

test('the end of one side is told from bytes that are missing', () => {
  using pair = new Pair({ certificate: PEM });
  assert.equal(pair.run(), null);
  assert.equal(pair.server.read(pair.plain, 100), TlsOutcome.WantsInput);
  pair.client.shutdown();
  pair.show(pair.server, tlsOutput.slice(0, tlsOutputLength()));
  assert.equal(pair.server.read(pair.plain, 100), TlsOutcome.Ended);
});

test('a response of OCSP is stapled for a client that asks, and harms none that does not', () => {
  using pair = new Pair({ certificate: PEM, ocsp: randomBytes(500) });
  assert.equal(pair.run(), null);
});

test('two hundred handshakes leave neither a session nor a context', () => {
  const before = [tlsSessionCount(), tlsContextCount()];
  for (let i = 0; i < 200; i++) {
    using pair = new Pair({ certificate: PEM, tickets: newTickets() });
    if (i % 2 === 0) pair.run();
  }
  assert.deepEqual([tlsSessionCount(), tlsContextCount()], before);
});

function newTickets(): SessionTickets {
  const tickets = new SessionTickets();
  tickets.rotate(randomBytes(TICKET_KEY_BYTES));
  return tickets;
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----/g, ''), 'base64');
}

const SIDE_BYTES = 1 << 20;

/** A client's and a server's session, and the memory between them. */
class Pair implements Disposable {
  readonly client: TlsSession;
  readonly server: TlsSession;
  readonly plain: number;
  readonly #contexts: readonly { free(): void }[];
  readonly #memory = reserveMemory(3 * SIDE_BYTES);
  readonly #bytes = new Uint8Array(this.#memory.memory);

  constructor(
    options: ServerContextOptions,
    client: {
      server?: ServerIdentity;
      trust?: string;
      certificate?: { chain: string; key: string };
    } = {},
  ) {
    const server = new TlsServerContext(options);
    const trust = new TrustStore([client.trust ?? authority.certificate]);
    const context = new TlsClientContext({ trust, certificate: client.certificate ?? null });
    const identity = client.server ?? SERVER;
    this.#contexts = [server, context, trust];
    this.server = TlsSession.server(server, identity.alpn);
    this.client = TlsSession.client(context, identity);
    this.plain = this.#memory.address;
  }

  /** Runs both handshakes to their end; the error of the side that failed first. */
  run() {
    let done = 0;
    let from = this.client;
    for (let step = 0; step < 10 && done < 2; step++) {
      const result = from.handshake();
      const to = from === this.client ? this.server : this.client;
      if (result === TlsOutcome.Failed) return from.error(from.isServer ? 'downstream' : 'upstream');
      const length = tlsOutputLength();
      if (result === 0) done++;
      if (length > 0) this.show(to, tlsOutput.slice(0, length));
      from = to;
    }
    assert.equal(done, 2);
    return null;
  }

  show(session: TlsSession, bytes: Uint8Array): void {
    const at = session === this.client ? SIDE_BYTES : 2 * SIDE_BYTES;
    this.#bytes.set(bytes, at);
    session.feed(this.#memory.address + at, bytes.length);
  }

  encrypt(from: TlsSession, text: string): Uint8Array {
    const bytes = Buffer.from(text);
    this.#bytes.set(bytes);
    const room = encryptedBytesMax(bytes.length);
    const at = SIDE_BYTES / 2;
    const length = from.write(this.plain, bytes.length, { address: this.plain + at, room });
    return this.#bytes.slice(at, at + length);
  }

  send(from: TlsSession, to: TlsSession, text: string): string {
    const record = this.encrypt(from, text);
    // Tickets that lie behind the handshake are taken first.
    if (to.unread > 0) assert.equal(to.read(this.plain, 100), TlsOutcome.WantsInput);
    this.show(to, record);
    let got = 0;
    while (to.unread > 0) {
      const length = to.read(this.plain + got, SIDE_BYTES - got);
      assert.ok(length > 0);
      got += length;
    }
    return Buffer.from(this.#bytes.slice(0, got)).toString();
  }

  [Symbol.dispose](): void {
    this.client.free();
    this.server.free();
    for (const context of this.#contexts) context.free();
  }
}
