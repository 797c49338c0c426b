import type { TlsInspectConfig } from '#config/tls.ts';
import { CertificateMinter } from '#crypto/certificate-mint.ts';
import type { Fd } from '#io/io.ts';
import { matchesAnyName } from '#protocol/tls/names.ts';
import { TlsClientContext, TlsServerContext, TrustStore } from '#protocol/tls/tls-context.ts';
import type { DialPlan, SecureUpgrade } from '#proxy/proxy-contract.ts';

import { readPem, systemTrust } from './certificate-files.ts';
import { connectTls } from './tls-client.ts';
import type { TlsHub } from './tls-hub.ts';
import type { TlsStream } from './tls-stream.ts';

/** Minted certificates that are kept: the names that one office visits in a day. */
const CERTIFICATES_MAX = 4096;
/** Minted certificates are made anew long before they end. */
const KEEP_MS = 24 * 60 * 60 * 1000;
/** How long a verified connection waits for the one who will use it. */
const READY_MS = 10_000;

interface Minted {
  readonly context: Promise<TlsServerContext>;
  readonly madeAt: number;
}

/** Inspection at one on-ramp: whom it believes upstream, and certificates for clients. */
export class Inspector {
  readonly upstream: TlsClientContext;
  readonly #minter: CertificateMinter;
  readonly #config: TlsInspectConfig;
  /** By name and protocol, the one used last at the end. */
  readonly #minted = new Map<string, Minted>();

  private constructor(minter: CertificateMinter, config: TlsInspectConfig, upstream: TlsClientContext) {
    this.#minter = minter;
    this.#config = config;
    this.upstream = upstream;
  }

  /** @throws RampartError RAMP_CERTIFICATE when a file cannot be read or used. */
  static async open(config: TlsInspectConfig, folder: string): Promise<Inspector> {
    const authority = { certificate: readPem(folder, config.certificate), key: readPem(folder, config.key) };
    const minter = await CertificateMinter.open(authority);
    const own = config.authorities === null ? null : new TrustStore([readPem(folder, config.authorities)]);
    const upstream = new TlsClientContext({ trust: own ?? systemTrust() });
    own?.free();
    return new Inspector(minter, config, upstream);
  }

  /** The name is one that is never inspected. */
  bypasses(name: string): boolean {
    return matchesAnyName(name, this.#config.bypass);
  }

  /** A certificate for `name`, spoken with one protocol (empty: none). Made once, then kept. */
  contextFor(name: string, alpn: string): Promise<TlsServerContext> {
    const key = `${name} ${alpn}`;
    const now = Date.now();
    const known = this.#minted.get(key);
    this.#minted.delete(key);
    const minted =
      known !== undefined && now - known.madeAt < KEEP_MS
        ? known
        : { context: this.#mint(name, { alpn, now }), madeAt: now };
    if (known !== undefined && minted !== known) freeLater(known);
    this.#minted.set(key, minted);
    // What failed is not kept.
    minted.context.catch(() => {
      if (this.#minted.get(key) === minted) this.#minted.delete(key);
    });
    if (this.#minted.size > CERTIFICATES_MAX) this.#forgetOldest();
    return minted.context;
  }

  close(): void {
    this.upstream.free();
    for (const minted of this.#minted.values()) freeLater(minted);
    this.#minted.clear();
  }

  async #mint(name: string, { alpn, now }: { alpn: string; now: number }): Promise<TlsServerContext> {
    const chain = await this.#minter.mint(name, now);
    return new TlsServerContext({
      certificate: { chain, key: this.#minter.key },
      alpn: alpn === '' ? [] : [alpn],
    });
  }

  #forgetOldest(): void {
    for (const [key, minted] of this.#minted) {
      this.#minted.delete(key);
      freeLater(minted);
      return;
    }
  }
}

/** Somebody may be about to use it: a turn later it has its session, which keeps it. */
function freeLater({ context }: Minted): void {
  context.then(
    (made) => setImmediate(() => made.free()),
    () => {},
  );
}

/**
 * What leaves of one inspected stream: by TLS, to the server that was verified before the client was
 * answered. The connection of that verification is the first that is used.
 */
export class InspectedUpstream implements SecureUpgrade {
  readonly key: string;
  /** Protocol that the server chose; empty when none. */
  readonly alpn: string;
  readonly #hub: TlsHub;
  readonly #inspector: Inspector;
  readonly #name: string;
  readonly #planKey: string;
  #ready: Fd;
  #timer: NodeJS.Timeout | null;

  constructor(
    hub: TlsHub,
    inspector: Inspector,
    verified: { readonly onRamp: string; readonly name: string; readonly stream: TlsStream; plan: DialPlan },
  ) {
    this.#hub = hub;
    this.#inspector = inspector;
    this.#name = verified.name;
    this.#planKey = verified.plan.key;
    this.#ready = verified.stream.fd;
    this.alpn = verified.stream.session.agreement.alpn;
    this.key = `inspected ${verified.onRamp} ${verified.name} ${this.alpn}`;
    this.#timer = setTimeout(() => this.close(), READY_MS).unref();
  }

  take(plan: DialPlan): Fd | null {
    const fd = this.#ready;
    // The plan for the verification had no TLS in its key yet.
    if (fd < 0 || plan.key !== `${this.#planKey} ${this.key}`) return null;
    this.#forget();
    return fd;
  }

  async secure(fd: Fd): Promise<Fd> {
    const alpn = this.alpn === '' ? [] : [this.alpn];
    const peer = { name: this.#name, checkName: true, alpn, pins: [] };
    const stream = await connectTls(this.#hub, fd, { context: this.#inspector.upstream, peer });
    return stream.fd;
  }

  /** Closes what nobody has taken. */
  close(): void {
    const fd = this.#ready;
    if (fd < 0) return;
    this.#forget();
    this.#hub.layers.close(fd);
  }

  #forget(): void {
    this.#ready = -1;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
