import { dirname } from 'node:path';

import { assert } from '#base/assert.ts';
import type { Config } from '#config/config.ts';
import type { OnRampConfig } from '#config/on-ramps.ts';
import type { TlsClientConfig, TlsServerConfig } from '#config/tls.ts';
import { LayeredIo } from '#io/layered.ts';

import type { Assembly } from './assembly.ts';
import type { Hooks } from './hooks/hooks.ts';
import type { Dialer, StreamHandler } from './proxy-contract.ts';
import { ServerCertificates } from './tls/certificate-files.ts';
import { Inspector } from './tls/inspector.ts';
import { TlsClient } from './tls/tls-client.ts';
import { TlsHub } from './tls/tls-hub.ts';
import { HelloRoutes } from './upgrade/hello-routes.ts';
import { TlsGate, type TlsOnRamp } from './upgrade/tls-gate.ts';

/** Whether anything of a config or an application has to do with TLS. */
export function usesTls(config: Pick<Config, 'onRamps' | 'offRamps'>, hooks: Hooks): boolean {
  return (
    hooks.tls !== undefined ||
    config.onRamps.some((onRamp) => tlsOf(onRamp) !== null) ||
    config.offRamps.some((offRamp) => 'tls' in offRamp && offRamp.tls !== null)
  );
}

/** TLS of one worker: certificates and inspection of its on-ramps, TLS of its off-ramps, and the gate. */
export class TlsPlane {
  readonly hub: TlsHub;
  readonly #assembly: Assembly;
  readonly #folder: string;
  readonly #clients: TlsClient[] = [];
  readonly #onRamps = new Map<string, TlsOnRamp>();
  #gate: TlsGate | null = null;

  /** @param assembly its engine is a `LayeredIo`. */
  constructor(assembly: Assembly) {
    const { config, worker } = assembly;
    assert(worker.io instanceof LayeredIo, 'TLS needs layered streams');
    this.#assembly = assembly;
    this.#folder = dirname(config.file);
    this.hub = new TlsHub(worker.io, {
      streams: worker.streams,
      recordSlots: worker.limits.streamSlots,
      handshakeMs: worker.limits.tlsHandshakeMs,
    });
  }

  /**
   * What an off-ramp's connections get. @throws RampartError RAMP_CERTIFICATE
   *
   * @param options.alpn protocols that its requests can be sent by; empty for streams.
   */
  client(
    name: string,
    options: { readonly config: TlsClientConfig; readonly alpn: readonly string[] },
  ): TlsClient {
    const { worker } = this.#assembly;
    const client = new TlsClient(this.hub, { ...options, name, folder: this.#folder, stats: worker.stats });
    this.#clients.push(client);
    return client;
  }

  /** Reads the certificates of all on-ramps. Rejects with `RampartError` RAMP_CERTIFICATE. */
  async open(): Promise<void> {
    const { config, log } = this.#assembly;
    for (const onRamp of config.onRamps) {
      const tls = tlsOf(onRamp);
      if (tls === null) continue;
      const alpn = tls.alpn ?? (this.#carriesHttp(onRamp) ? HTTP_PROTOCOLS : []);
      const { name } = onRamp;
      const certificates = new ServerCertificates({ name, config: tls, folder: this.#folder, alpn, log });
      const inspector = tls.inspect === null ? null : await Inspector.open(tls.inspect, this.#folder);
      this.#onRamps.set(name, { config: tls, certificates, inspector });
    }
    process.on('SIGHUP', this.#reload);
  }

  /** Stands before `next`: streams of on-ramps with TLS come out of it as plaintext, or unread. */
  gate(next: StreamHandler, dialer: Dialer): TlsGate {
    const { worker, hooks, config } = this.#assembly;
    this.#gate = new TlsGate(worker, {
      hub: this.hub,
      next,
      dialer,
      hook: hooks.tls,
      onRamps: this.#onRamps,
      routes: new HelloRoutes(config.helloRoutes),
    });
    return this.#gate;
  }

  /** Streams whose TLS is being decided about or agreed on. */
  get count(): number {
    return this.#gate?.count ?? 0;
  }

  /** Ends what has not become a stream yet. */
  refuseAll(): void {
    this.#gate?.closeAll();
  }

  /** Ends everything; the streams upon TLS have been closed before. */
  close(): void {
    process.off('SIGHUP', this.#reload);
    this.hub.closeAll();
    for (const client of this.#clients) client.close();
    for (const { certificates, inspector } of this.#onRamps.values()) {
      certificates.close();
      inspector?.close();
    }
    this.#onRamps.clear();
  }

  readonly #reload = (): void => {
    for (const { certificates } of this.#onRamps.values()) certificates.reload();
  };

  #carriesHttp(onRamp: OnRampConfig): boolean {
    if ('upgrade' in onRamp && onRamp.upgrade !== null) return onRamp.upgrade === 'http';
    const { routes, helloRoutes } = this.#assembly.config;
    return [...routes, ...helloRoutes].some(
      (route) => (route.onRamp === onRamp.name || route.onRamp === null) && route.upgrade === 'http',
    );
  }
}

/** What the HTTP engine speaks with clients. */
const HTTP_PROTOCOLS: readonly string[] = Object.freeze(['http/1.1']);

function tlsOf(onRamp: OnRampConfig): TlsServerConfig | null {
  return 'tls' in onRamp ? onRamp.tls : null;
}
