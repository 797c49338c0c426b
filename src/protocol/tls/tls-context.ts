import { createHash } from 'node:crypto';

import { RampartError } from '#base/error.ts';
import { type Handle, TICKET_KEY_BYTES, TicketKeyring } from '#io/ffi/openssl-tls.ts';
import {
  announceAuthorities,
  answerTlsExtensions,
  freeTlsContext,
  freeTrustStore,
  newTlsContext,
  newTrustStore,
  openTlsContexts,
  refuseTickets,
  setTlsTrust,
  setTlsVersions,
  useTickets,
  useTlsCertificate,
} from '#io/ffi/openssl-tls-context.ts';

/** Versions that are spoken; what is older is broken (RFC 8996). */
export type TlsVersion = '1.2' | '1.3';

/** The version as it stands on the wire. */
export const WIRE_VERSION: Readonly<Record<TlsVersion, number>> = Object.freeze({
  '1.2': 0x303,
  '1.3': 0x304,
});

/** A certificate with its chain, the own one first, and its key, all in PEM. */
export interface CertificatePem {
  readonly chain: string;
  readonly key: string;
}

/** A chain is sent whole in every full handshake: a longer one is a mistake. */
const CHAIN_CHARACTERS_MAX = 192 * 1024;

/** What a client must show of itself. */
export interface ClientAuthentication {
  /** Authorities whose certificates are accepted, in PEM. */
  readonly authorities: string;
  /** False: a client without a certificate is let in, unnamed. One that does not verify never is. */
  readonly required: boolean;
}

/** What a server's sessions have in common. */
export interface ServerContextOptions {
  readonly certificate: CertificatePem;
  readonly minVersion?: TlsVersion;
  readonly maxVersion?: TlsVersion;
  /** Protocols in the order of preference; empty: ALPN is not answered. */
  readonly alpn?: readonly string[];
  readonly clients?: ClientAuthentication | null;
  /** Null: every handshake is a full one. */
  readonly tickets?: SessionTickets | null;
  /** A response for the certificate, in DER, that is stapled (RFC 6066 section 8). */
  readonly ocsp?: Uint8Array | null;
}

/** Contexts that are not freed, for leak checks. */
export function tlsContextCount(): number {
  return openTlsContexts();
}

/** One certificate and everything that a server says with it. */
export class TlsServerContext {
  readonly handle: Handle;
  readonly alpn: readonly string[];
  readonly tickets: SessionTickets | null;
  readonly ocsp: Uint8Array | null;
  /** Clients are asked for a certificate. */
  readonly asksClients: boolean;
  #freed = false;

  /** @throws RampartError RAMP_CERTIFICATE when certificate, key or authorities do not fit. */
  constructor(options: ServerContextOptions) {
    const { certificate, clients = null } = options;
    this.alpn = options.alpn ?? [];
    this.tickets = options.tickets ?? null;
    this.ocsp = options.ocsp ?? null;
    this.asksClients = clients !== null;
    checkChain(certificate);
    this.handle = newTlsContext(true);
    try {
      setTlsVersions(
        this.handle,
        WIRE_VERSION[options.minVersion ?? '1.2'],
        WIRE_VERSION[options.maxVersion ?? '1.3'],
      );
      useTlsCertificate(this.handle, certificate);
      answerTlsExtensions(this.handle);
      if (clients !== null) this.#askClients(clients);
      if (this.tickets === null) refuseTickets(this.handle);
      else useTickets(this.handle, sessionId(clients));
    } catch (error) {
      freeTlsContext(this.handle);
      throw certificateError(error);
    }
  }

  /** The protocol for a client that offers `offered`; null when none is spoken by both. */
  chooseAlpn(offered: readonly string[]): string | null {
    if (this.alpn.length === 0 || offered.length === 0) return '';
    return this.alpn.find((protocol) => offered.includes(protocol)) ?? null;
  }

  /** No new session; those that run go on. */
  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    freeTlsContext(this.handle);
  }

  #askClients(clients: ClientAuthentication): void {
    const store = newTrustStore([clients.authorities]);
    setTlsTrust(this.handle, { store, required: clients.required });
    freeTrustStore(store);
    announceAuthorities(this.handle, clients.authorities);
  }
}

/**
 * A ticket that was given to a client is no proof to a listener that trusts other authorities: the id that
 * tickets are bound to is made of them.
 */
function sessionId(clients: ClientAuthentication | null): Uint8Array {
  const text = clients === null ? '' : `${clients.required} ${clients.authorities}`;
  return createHash('sha256').update(text).digest();
}

function checkChain({ chain }: CertificatePem): void {
  if (chain.length <= CHAIN_CHARACTERS_MAX) return;
  const text = `a certificate chain has ${chain.length} characters; at most ${CHAIN_CHARACTERS_MAX} are sent`;
  throw new RampartError('RAMP_CERTIFICATE', text, { side: 'config' });
}

function certificateError(error: unknown): RampartError {
  const why = error instanceof Error ? error.message : String(error);
  const text = `a certificate or key cannot be used: ${why}; expected PEM, the chain in order, and its key`;
  return new RampartError('RAMP_CERTIFICATE', text, { side: 'config', cause: error });
}

/** Certificates that a client trusts; made once and shared, because reading them takes a while. */
export class TrustStore {
  readonly handle: Handle;

  /** @throws RampartError RAMP_CERTIFICATE when one cannot be read. */
  constructor(pem: readonly string[]) {
    try {
      this.handle = newTrustStore(pem);
    } catch (error) {
      throw certificateError(error);
    }
  }

  /** Contexts that use it keep it. */
  free(): void {
    freeTrustStore(this.handle);
  }
}

/** What a client's sessions have in common. */
export interface ClientContextOptions {
  /** Whose servers are believed. Null: any, which only tests and pins justify. */
  readonly trust: TrustStore | null;
  readonly minVersion?: TlsVersion;
  readonly maxVersion?: TlsVersion;
  /** What this side shows of itself when it is asked. */
  readonly certificate?: CertificatePem | null;
}

/** What sessions towards servers have in common. */
export class TlsClientContext {
  readonly handle: Handle;
  #freed = false;

  /** @throws RampartError RAMP_CERTIFICATE when the own certificate or key does not fit. */
  constructor(options: ClientContextOptions) {
    this.handle = newTlsContext(false);
    try {
      setTlsVersions(
        this.handle,
        WIRE_VERSION[options.minVersion ?? '1.2'],
        WIRE_VERSION[options.maxVersion ?? '1.3'],
      );
      if (options.trust !== null) setTlsTrust(this.handle, { store: options.trust.handle, required: false });
      if (options.certificate) useTlsCertificate(this.handle, options.certificate);
    } catch (error) {
      freeTlsContext(this.handle);
      throw certificateError(error);
    }
  }

  /** No new session; those that run go on. */
  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    freeTlsContext(this.handle);
  }
}

/** Sealing key, and two older ones that still open. */
const TICKET_KEYS = 3;

/** Keys by which clients come back with a shorter handshake. Chance and time come from the caller. */
export class SessionTickets {
  readonly keyring = new TicketKeyring(TICKET_KEYS);

  /**
   * `key` is `TICKET_KEY_BYTES` of chance; it seals from here on, and what two earlier ones sealed still
   * opens.
   */
  rotate(key: Uint8Array): void {
    this.keyring.rotate(key);
  }
}

/** Bytes of a key for `SessionTickets.rotate`. */
export { TICKET_KEY_BYTES };
