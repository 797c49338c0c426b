/** Certificates for tests, made by the `openssl` program: a second opinion on whatever reads them. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A certificate with its key, in files and as PEM. */
export interface TestCertificate {
  readonly certificateFile: string;
  readonly keyFile: string;
  /** The certificate and, where an authority issued it, nothing more. */
  readonly certificate: string;
  readonly key: string;
}

/** How a certificate is made. */
export interface LeafOptions {
  readonly name: string;
  /** Such as `DNS:a.test,IP:127.0.0.1`. */
  readonly alternatives?: string;
  readonly usage?: 'serverAuth' | 'clientAuth';
  /** Extra fields of the subject, such as `/O=ops`. */
  readonly subject?: string;
  /** Key algorithm. Default: ECDSA with P-256. */
  readonly rsa?: boolean;
  /** Days until it ends; 0 makes one that has ended. Default 30. */
  readonly days?: number;
}

/** An authority of its own, with a folder for what it makes; `close` removes that. */
export class TestAuthority {
  readonly folder: string;
  readonly certificateFile: string;
  readonly certificate: string;
  readonly keyFile: string;
  readonly key: string;
  #serial = 1;

  constructor(name = 'test authority') {
    this.folder = mkdtempSync(join(tmpdir(), 'rampart-ca-'));
    this.certificateFile = join(this.folder, 'ca.pem');
    this.keyFile = join(this.folder, 'ca-key.pem');
    openssl(
      `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ${this.keyFile} ` +
        `-out ${this.certificateFile}`,
      ['-subj', `/CN=${name}`, '-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
    );
    this.certificate = readFileSync(this.certificateFile, 'utf8');
    this.key = readFileSync(this.keyFile, 'utf8');
  }

  issue(options: LeafOptions): TestCertificate {
    const serial = this.#serial++;
    const file = (end: string): string => join(this.folder, `${serial}${end}`);
    const algorithm = options.rsa === true ? 'rsa:2048' : 'ec -pkeyopt ec_paramgen_curve:P-256';
    openssl(`req -newkey ${algorithm} -nodes -keyout ${file('-key.pem')} -out ${file('.csr')}`, [
      '-subj',
      `/CN=${options.name}${options.subject ?? ''}`,
    ]);
    writeFileSync(
      file('.ext'),
      [
        `subjectAltName=${options.alternatives ?? `DNS:${options.name}`}`,
        `extendedKeyUsage=${options.usage ?? 'serverAuth'}`,
        'basicConstraints=CA:FALSE',
      ].join('\n'),
    );
    openssl(
      `x509 -req -in ${file('.csr')} -CA ${this.certificateFile} -CAkey ${this.keyFile} ` +
        `-set_serial ${serial} -days ${options.days ?? 30} -extfile ${file('.ext')} -out ${file('.pem')}`,
    );
    return {
      certificateFile: file('.pem'),
      keyFile: file('-key.pem'),
      certificate: readFileSync(file('.pem'), 'utf8'),
      key: readFileSync(file('-key.pem'), 'utf8'),
    };
  }

  close(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function openssl(command: string, more: readonly string[] = []): void {
  execFileSync('openssl', [...command.split(' '), ...more], { stdio: ['ignore', 'ignore', 'pipe'] });
}
