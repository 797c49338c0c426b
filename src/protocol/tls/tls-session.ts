import { assert } from '#base/assert.ts';
import { type ErrorSide, RampartError } from '#base/error.ts';
import { parseIp } from '#base/ip.ts';
import {
  type HandshakeNeeds,
  openTlsSessions,
  type SslSession,
  sslAlpn,
  sslCipherName,
  sslFeed,
  sslFreeSession,
  sslHandshake,
  sslIsResumed,
  sslNewSession,
  sslOfferAlpn,
  sslPeerCertificate,
  sslPeerChain,
  sslProtocolVersion,
  sslRead,
  sslSetExpectedPeer,
  sslSetServerName,
  sslShutdown,
  sslUnread,
  sslVerifyFault,
  sslWrite,
  TLS_RECORD_OVERHEAD_MAX,
  TlsOutcome,
  takeTlsError,
  tlsOutput,
  tlsOutputLength,
} from '#io/ffi/openssl-tls.ts';

import { alertName, readPlainAlert } from './alert.ts';
import type { TlsClientContext, TlsServerContext } from './tls-context.ts';

export { TlsOutcome, tlsOutput, tlsOutputLength };

/** What a record carries at most (RFC 8446 section 5.1). */
const RECORD_BYTES_MAX = 16_384;

/** Room that `length` bytes need when they are encrypted. */
export function encryptedBytesMax(length: number): number {
  return length + Math.ceil(length / RECORD_BYTES_MAX) * TLS_RECORD_OVERHEAD_MAX;
}

/** Sessions that are not freed, for leak checks. */
export function tlsSessionCount(): number {
  return openTlsSessions();
}

/** What was agreed on in a handshake. */
export interface TlsAgreement {
  readonly version: '1.2' | '1.3';
  readonly cipher: string;
  /** Empty when no protocol was chosen. */
  readonly alpn: string;
  readonly resumed: boolean;
}

/** Whom a client's session is for. */
export interface ServerIdentity {
  /** Host name or IP literal: SNI where it is a name, and what the certificate must be for. */
  readonly name: string;
  /** False: the certificate is for whomever it likes, because somebody else checks it (pins). */
  readonly checkName: boolean;
  readonly alpn: readonly string[];
}

const NO_NEEDS: HandshakeNeeds = Object.freeze({ alpn: '', ocsp: null, tickets: null });

/**
 * One TLS session over memory. Addresses are those of this process; what is shown stays in place until
 * `unread` is 0. What handshakes, reads and `shutdown` have to send lies in `tlsOutput`, `tlsOutputLength()`
 * bytes, until the next call on any session.
 *
 * ```
 *  feed ─► handshake ─┬─ WantsInput ─► feed …
 *                     ├─ Failed ─► error(), free
 *                     └─ 0 ─► feed ─► read … / write … ─► shutdown ─► free
 * ```
 */
export class TlsSession {
  readonly isServer: boolean;
  readonly #ssl: SslSession;
  readonly #needs: HandshakeNeeds;
  #sentAlert = -1;
  #freed = false;

  private constructor(ssl: SslSession | null, isServer: boolean, needs: HandshakeNeeds) {
    if (ssl === null) throw new RampartError('RAMP_NO_MEMORY', 'there is no memory for a TLS session');
    this.#ssl = ssl;
    this.isServer = isServer;
    this.#needs = needs;
  }

  /** A server's side, for a client that offers the protocols `alpn`. */
  static server(context: TlsServerContext, alpn: readonly string[]): TlsSession {
    const { ocsp, tickets } = context;
    const needs = { alpn: context.chooseAlpn(alpn), ocsp, tickets: tickets?.keyring ?? null };
    return new TlsSession(sslNewSession(context.handle, true), true, needs);
  }

  /** A client's side. @throws RampartError RAMP_TLS when the name cannot be asked for. */
  static client(context: TlsClientContext, server: ServerIdentity): TlsSession {
    const session = new TlsSession(sslNewSession(context.handle, false), false, NO_NEEDS);
    const ssl = session.#ssl;
    const isAddress = parseIp(server.name) !== null;
    let fine = isAddress || server.name === '' || sslSetServerName(ssl, server.name);
    if (fine && server.checkName && server.name !== '') {
      fine = sslSetExpectedPeer(ssl, isAddress ? { ip: server.name } : { host: server.name });
    }
    if (fine && server.alpn.length > 0) fine = sslOfferAlpn(ssl, alpnList(server.alpn));
    if (fine) return session;
    session.free();
    throw new RampartError('RAMP_TLS', `TLS cannot be asked for the name ${server.name}`, {
      side: 'upstream',
    });
  }

  /** Shows bytes that came. Only when all that was shown before is read. */
  feed(address: number, length: number): void {
    assert(!this.#freed);
    sslFeed(this.#ssl, address, length);
  }

  /** Bytes shown that are not taken yet. */
  get unread(): number {
    return sslUnread(this.#ssl);
  }

  /** Goes on: 0 when the handshake is over, else a `TlsOutcome`. */
  handshake(): number {
    assert(!this.#freed);
    const result = sslHandshake(this.#ssl, this.#needs);
    if (result === TlsOutcome.Failed) this.#sentAlert = readPlainAlert(tlsOutput, tlsOutputLength());
    return result;
  }

  /** Decrypts at most `length` bytes to `address`: their number, or a `TlsOutcome`. */
  read(address: number, length: number): number {
    assert(!this.#freed && length > 0);
    return sslRead(this.#ssl, address, length);
  }

  /**
   * Encrypts `length` bytes: the number of bytes at `to`, whose room is `encryptedBytesMax(length)`, or
   * `Failed`.
   */
  write(from: number, length: number, to: { readonly address: number; readonly room: number }): number {
    assert(!this.#freed && length > 0 && to.room >= encryptedBytesMax(length));
    return sslWrite(this.#ssl, from, length, to);
  }

  /** Ends this side (close_notify); the peer's goes on. */
  shutdown(): void {
    assert(!this.#freed);
    sslShutdown(this.#ssl);
  }

  /** After the handshake. */
  get agreement(): TlsAgreement {
    return {
      version: sslProtocolVersion(this.#ssl) === 0x304 ? '1.3' : '1.2',
      cipher: sslCipherName(this.#ssl),
      alpn: sslAlpn(this.#ssl),
      resumed: sslIsResumed(this.#ssl),
    };
  }

  /** The peer's certificate in DER; null when it showed none. */
  get peerCertificate(): Uint8Array | null {
    return sslPeerCertificate(this.#ssl);
  }

  /** The certificates that the peer showed, in DER. */
  get peerChain(): readonly Uint8Array[] {
    return sslPeerChain(this.#ssl);
  }

  /** Why the last call failed. To be asked at once, before any other session is used. */
  error(side: ErrorSide): RampartError {
    const { text, reason } = takeTlsError();
    const words = [text];
    const fault = sslVerifyFault(this.#ssl);
    if (fault !== null && fault !== text) words.push(fault);
    if (reason >= 1000) words.push(`the peer sent the alert ${alertName(reason - 1000)}`);
    else if (this.#sentAlert >= 0) words.push(`the peer was sent the alert ${alertName(this.#sentAlert)}`);
    return new RampartError('RAMP_TLS', `TLS failed: ${words.join('; ')}`, { side });
  }

  /** The end; exactly once. */
  free(): void {
    assert(!this.#freed);
    this.#freed = true;
    sslFreeSession(this.#ssl);
  }
}

/** The form of RFC 7301 section 3.1. */
function alpnList(protocols: readonly string[]): Uint8Array {
  return Uint8Array.from(
    protocols.flatMap((protocol) => [protocol.length, ...Buffer.from(protocol, 'latin1')]),
  );
}
