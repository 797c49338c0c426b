import { RampartError } from '#base/error.ts';
import type { TlsClientConfig } from '#config/tls.ts';
import type { Target } from '#contract/context.ts';
import { publicKeyPin } from '#crypto/certificate.ts';
import type { Fd } from '#io/io.ts';
import { TlsClientContext, TrustStore } from '#protocol/tls/tls-context.ts';
import { type ServerIdentity, TlsSession } from '#protocol/tls/tls-session.ts';
import type { SecureUpgrade, Stats } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import { readPem, systemTrust } from './certificate-files.ts';
import type { TlsHub } from './tls-hub.ts';
import { TlsStream } from './tls-stream.ts';

/** Whom a connection is for, and what its certificate must have. */
export interface TlsPeer extends ServerIdentity {
  /** SHA-256 of public keys, base64, of which the server's chain must have one; empty: any. */
  readonly pins: readonly string[];
}

/**
 * Makes a connected stream a TLS one. Takes the descriptor over; what comes is owned by the caller.
 * Rejects with `RampartError` RAMP_TLS or RAMP_TIMEOUT, side `upstream`; then the connection is closed.
 */
export function connectTls(
  hub: TlsHub,
  fd: Fd,
  options: { readonly context: TlsClientContext; readonly peer: TlsPeer },
): Promise<TlsStream> {
  const { context, peer } = options;
  return new Promise((resolve, reject) => {
    let session: TlsSession;
    try {
      session = TlsSession.client(context, peer);
    } catch (error) {
      hub.io.close(fd);
      reject(error);
      return;
    }
    const owner = {
      onHandshake(stream: TlsStream, error: RampartError | null): void {
        const fault = error ?? pinFault(session, peer);
        if (fault === null) {
          resolve(stream);
          return;
        }
        if (error === null) hub.layers.close(stream.fd);
        reject(
          new RampartError(fault.code, `${peer.name}: ${fault.message}`, { side: 'upstream', cause: fault }),
        );
      },
    };
    new TlsStream(hub, fd, { session, owner });
  });
}

function pinFault(session: TlsSession, { pins }: TlsPeer): RampartError | null {
  if (pins.length === 0) return null;
  if (session.peerChain.some((der) => pins.includes(publicKeyPin(der)))) return null;
  return new RampartError('RAMP_TLS', 'TLS failed: no key of its certificates is pinned', {
    side: 'upstream',
  });
}

/** TLS of one off-ramp: what its connections ask for, show and believe. */
export class TlsClient implements SecureUpgrade {
  readonly key: string;
  readonly #hub: TlsHub;
  readonly #stats: Stats;
  readonly #config: TlsClientConfig;
  readonly #context: TlsClientContext;
  readonly #alpn: readonly string[];

  /**
   * @param options.name of the off-ramp; it stands for the whole config in pool keys, which does not change.
   * @throws RampartError RAMP_CERTIFICATE when a file cannot be read or used.
   */
  constructor(
    hub: TlsHub,
    options: {
      readonly name: string;
      readonly config: TlsClientConfig;
      /** Relative paths begin here. */
      readonly folder: string;
      readonly alpn: readonly string[];
      readonly stats: Stats;
    },
  ) {
    const { config, folder } = options;
    this.#hub = hub;
    this.#stats = options.stats;
    this.#config = config;
    this.#alpn = options.alpn;
    this.key = `tls ${options.name} ${config.serverName ?? ''}`;
    const { certificate } = config;
    const own = config.authorities === null ? null : new TrustStore([readPem(folder, config.authorities)]);
    this.#context = new TlsClientContext({
      trust: config.verify ? (own ?? systemTrust()) : null,
      minVersion: config.minVersion,
      certificate:
        certificate === null
          ? null
          : { chain: readPem(folder, certificate.certificate), key: readPem(folder, certificate.key) },
    });
    own?.free();
  }

  async secure(fd: Fd, target: Target): Promise<Fd> {
    const { serverName, verify, pins } = this.#config;
    const { counters } = this.#stats;
    const peer = { name: serverName ?? target.host, checkName: verify, alpn: this.#alpn, pins };
    try {
      const stream = await connectTls(this.#hub, fd, { context: this.#context, peer });
      counters[Counter.TlsConnected] = (counters[Counter.TlsConnected] as number) + 1;
      return stream.fd;
    } catch (error) {
      counters[Counter.TlsConnectErrors] = (counters[Counter.TlsConnectErrors] as number) + 1;
      throw error;
    }
  }

  /** No new connection; those that are open go on. */
  close(): void {
    this.#context.free();
  }
}
