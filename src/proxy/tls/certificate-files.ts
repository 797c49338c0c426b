import { randomBytes } from 'node:crypto';
import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import { resolve } from 'node:path';
import { getCACertificates } from 'node:tls';

import { RampartError } from '#base/error.ts';
import type { Log } from '#base/log.ts';
import type { CertificateConfig, TlsServerConfig } from '#config/tls.ts';
import { certificateNames } from '#crypto/certificate.ts';
import { NameTable } from '#protocol/tls/names.ts';
import { SessionTickets, TICKET_KEY_BYTES, TlsServerContext, TrustStore } from '#protocol/tls/tls-context.ts';

/** How often files are looked at, milliseconds: certificates live for days, and a look costs a stat(2). */
const LOOK_MS = 2000;
/** Files that belong together are replaced one after the other: how long their last change is waited for. */
const SETTLE_MS = 200;
/** A key seals tickets for this long, and opens them three times as long. */
const TICKET_KEY_MS = 2 * 60 * 60 * 1000;

/** A text file that the config names. @throws RampartError RAMP_CERTIFICATE when it cannot be read. */
export function readPem(folder: string, file: string): string {
  return Buffer.from(readBytes(folder, file)).toString('utf8');
}

function readBytes(folder: string, file: string): Uint8Array {
  try {
    return readFileSync(resolve(folder, file));
  } catch (cause) {
    const why = (cause as Error).message;
    const text = `${file} cannot be read: ${why}; expected the file that the config names`;
    throw new RampartError('RAMP_CERTIFICATE', text, { side: 'config', cause });
  }
}

let systemStore: TrustStore | null = null;

/** The authorities that this host trusts; Node's own list where the host has none. Made once, never freed. */
export function systemTrust(): TrustStore {
  if (systemStore === null) {
    const system = getCACertificates('system');
    systemStore = new TrustStore(system.length > 0 ? system : getCACertificates('bundled'));
  }
  return systemStore;
}

/** The contexts of one on-ramp that are in force: replaced as a whole. */
interface Loaded {
  readonly names: NameTable<TlsServerContext>;
  readonly all: readonly TlsServerContext[];
}

/**
 * The certificates of one on-ramp, chosen by name. Files that change are read again, and new sessions have
 * the new ones; when they do not fit each other (or are written at that moment) the old ones stay and the log
 * says why.
 */
export class ServerCertificates {
  readonly #config: TlsServerConfig;
  readonly #folder: string;
  readonly #alpn: readonly string[];
  readonly #log: Log;
  readonly #name: string;
  readonly #tickets: SessionTickets | null;
  readonly #rotation: NodeJS.Timeout | null;
  readonly #watched: readonly string[];
  #loaded: Loaded;
  #settling: NodeJS.Timeout | null = null;

  /** @throws RampartError RAMP_CERTIFICATE when a file cannot be read or used. */
  constructor(options: {
    /** Of the on-ramp, for the log. */
    readonly name: string;
    readonly config: TlsServerConfig;
    /** Relative paths begin here. */
    readonly folder: string;
    readonly alpn: readonly string[];
    readonly log: Log;
  }) {
    this.#config = options.config;
    this.#folder = options.folder;
    this.#alpn = options.alpn;
    this.#log = options.log;
    this.#name = options.name;
    this.#tickets = options.config.tickets ? new SessionTickets() : null;
    this.#tickets?.rotate(randomBytes(TICKET_KEY_BYTES));
    this.#loaded = this.#load();
    this.#rotation =
      this.#tickets === null ? null : setInterval(() => this.#rotateTickets(), TICKET_KEY_MS).unref();
    this.#watched = this.#files().map((file) => resolve(this.#folder, file));
    for (const file of this.#watched) {
      watchFile(file, { interval: LOOK_MS, persistent: false }, this.#onChange);
    }
  }

  /** The context of the certificate that is for this name; undefined when none is. */
  find(serverName: string): TlsServerContext | undefined {
    return this.#loaded.names.find(serverName);
  }

  /** The context for clients that name none, or one that is unknown; null when there is no certificate. */
  get first(): TlsServerContext | null {
    return this.#loaded.all[0] ?? null;
  }

  /** Tickets for other contexts of the same on-ramp. */
  get tickets(): SessionTickets | null {
    return this.#tickets;
  }

  /**
   * Reads all files again. Sessions that run are not touched. False, and a line in the log, when it cannot.
   */
  reload(): boolean {
    let loaded: Loaded;
    try {
      loaded = this.#load();
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      this.#log.warning(`certificates were not replaced: ${text}`, { on_ramp: this.#name });
      return false;
    }
    const before = this.#loaded;
    this.#loaded = loaded;
    for (const context of before.all) context.free();
    this.#log.info('certificates were read again', { on_ramp: this.#name, count: loaded.all.length });
    return true;
  }

  /** Frees everything. */
  close(): void {
    if (this.#rotation !== null) clearInterval(this.#rotation);
    if (this.#settling !== null) clearTimeout(this.#settling);
    for (const file of this.#watched) unwatchFile(file, this.#onChange);
    for (const context of this.#loaded.all) context.free();
  }

  readonly #onChange = (): void => {
    if (this.#settling !== null) clearTimeout(this.#settling);
    this.#settling = setTimeout(() => {
      this.#settling = null;
      this.reload();
    }, SETTLE_MS).unref();
  };

  #rotateTickets(): void {
    this.#tickets?.rotate(randomBytes(TICKET_KEY_BYTES));
  }

  #files(): string[] {
    const { certificates, clients } = this.#config;
    const files = certificates.flatMap(({ certificate, key, ocsp }) => [certificate, key, ocsp]);
    return [...new Set([...files, clients?.authorities].filter((file) => typeof file === 'string'))];
  }

  #load(): Loaded {
    const names = new NameTable<TlsServerContext>();
    const all: TlsServerContext[] = [];
    try {
      for (const files of this.#config.certificates) {
        const chain = readPem(this.#folder, files.certificate);
        const context = this.#context(chain, files);
        all.push(context);
        for (const name of certificateNames(chain)) names.add(name, context);
      }
    } catch (error) {
      for (const context of all) context.free();
      throw error;
    }
    return { names, all };
  }

  #context(chain: string, files: CertificateConfig): TlsServerContext {
    const { clients, minVersion } = this.#config;
    try {
      return new TlsServerContext({
        certificate: { chain, key: readPem(this.#folder, files.key) },
        minVersion,
        alpn: this.#alpn,
        tickets: this.#tickets,
        ocsp: files.ocsp === null ? null : readBytes(this.#folder, files.ocsp),
        clients:
          clients === null
            ? null
            : { authorities: readPem(this.#folder, clients.authorities), required: clients.required },
      });
    } catch (error) {
      if (!(error instanceof RampartError)) throw error;
      throw new RampartError('RAMP_CERTIFICATE', `${files.certificate}: ${error.message}`, {
        side: 'config',
        cause: error,
      });
    }
  }
}
