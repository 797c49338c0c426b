/**
 * What the tests of TLS streams stand on: a real engine, a listener, certificates of an authority. Only for
 * tests.
 */
import { randomBytes } from 'node:crypto';

import { openEngine } from '#io/engine.ts';
import type { Completion, Fd } from '#io/io.ts';
import { LayeredIo } from '#io/layered.ts';
import { RelayHub } from '#io/relay.ts';
import {
  type ServerContextOptions,
  SessionTickets,
  TICKET_KEY_BYTES,
  TlsServerContext,
} from '#protocol/tls/tls-context.ts';
import { TlsSession, tlsSessionCount } from '#protocol/tls/tls-session.ts';
import { TestAuthority } from '#testing/certificates.ts';
import { until } from '#testing/until.ts';

import { TlsHub } from './tls-hub.ts';
import { TlsStream } from './tls-stream.ts';

/** A listener that makes a TLS stream of each connection. */
export class TlsRig implements Completion, AsyncDisposable {
  readonly io: LayeredIo;
  readonly hub: TlsHub;
  readonly relays: RelayHub;
  readonly port: number;
  readonly context: TlsServerContext;
  readonly sessionsBefore = tlsSessionCount();
  /** Errors of handshakes that failed. */
  readonly errors: string[] = [];
  readonly #listener: Fd;
  readonly #onOpen: (stream: TlsStream, rig: TlsRig) => void;

  constructor(
    kind: 'uring' | 'epoll',
    options: {
      server?: Partial<ServerContextOptions>;
      handshakeMs?: number;
      recordSlots?: number;
      streamSlots?: number;
      onOpen: (stream: TlsStream, rig: TlsRig) => void;
    },
  ) {
    this.io = new LayeredIo(openEngine({ kind, arenaBytes: 64 << 20 }));
    const streams = this.io.arena.pool(32768, options.streamSlots ?? 64);
    this.hub = new TlsHub(this.io, {
      streams,
      recordSlots: options.recordSlots ?? 64,
      handshakeMs: options.handshakeMs ?? 10_000,
    });
    this.relays = new RelayHub(this.io, { slotCount: 16 });
    const tickets = new SessionTickets();
    tickets.rotate(randomBytes(TICKET_KEY_BYTES));
    this.context = new TlsServerContext({ certificate: CERTIFICATE, tickets, ...options.server });
    this.#onOpen = options.onOpen;
    this.#listener = this.io.listen({ family: 4, address: '127.0.0.1', port: 0 });
    const address = this.io.localAddress(this.#listener);
    this.port = address.family === 'unix' ? 0 : address.port;
    this.io.accept(this.#listener, this, 0);
  }

  onCompletion(_tag: number, result: number): void {
    if (result < 0) return;
    new TlsStream(this.hub, result, {
      session: TlsSession.server(this.context, []),
      owner: {
        onHandshake: (stream, error) => {
          if (error === null) this.#onOpen(stream, this);
          else this.errors.push(error.message);
        },
      },
    });
  }

  /** Ends everything and shows that nothing is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.io.close(this.#listener);
    await until('all TLS streams have ended', () => this.hub.open.size === 0);
    this.context.free();
    this.relays.close();
    await until('nothing is in use', () => this.io.audit().operations === 0 && this.io.audit().slots === 0);
    const left = tlsSessionCount() - this.sessionsBefore;
    this.io.stop();
    if (left !== 0) throw new Error(`${left} TLS sessions are left`);
  }
}

/** The authority of all tests of this process; removed when it ends. */
export const AUTHORITY = new TestAuthority();
process.on('exit', () => AUTHORITY.close());

const leaf = AUTHORITY.issue({ name: 'a.test', alternatives: 'DNS:a.test,DNS:localhost,IP:127.0.0.1' });
/** A certificate for a.test, localhost and 127.0.0.1. */
export const CERTIFICATE = { chain: leaf.certificate, key: leaf.key };
