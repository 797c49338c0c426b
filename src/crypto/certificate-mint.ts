import 'reflect-metadata';

import { createPrivateKey, type KeyObject, randomBytes, webcrypto } from 'node:crypto';

import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

import { RampartError } from '#base/error.ts';
import { parseIp } from '#base/ip.ts';

cryptoProvider.set(webcrypto as Crypto);

/** An authority's certificate and key, PEM. */
export interface AuthorityPem {
  readonly certificate: string;
  readonly key: string;
}

const HOUR_MS = 3_600_000;
/**
 * Minted certificates are valid for a week, which no client finds too long, from an hour ago: clocks differ.
 */
const VALID_MS = 7 * 24 * HOUR_MS;
const LEAF_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
/** The subject's common name has at most 64 characters (RFC 5280 appendix A.1, ub-common-name). */
const COMMON_NAME_MAX = 64;

/**
 * Makes certificates for servers by an authority's key. All of them have one key, made when the minter is
 * opened and known to this process alone, so minting is one signature.
 */
export class CertificateMinter {
  /** Key of all minted certificates, PEM. */
  readonly key: string;
  readonly #authority: X509Certificate;
  readonly #authorityPem: string;
  readonly #signing: { readonly key: CryptoKey; readonly algorithm: SigningAlgorithm };
  readonly #leafKey: CryptoKey;

  private constructor(
    authority: { certificate: X509Certificate; pem: string },
    signing: { readonly key: CryptoKey; readonly algorithm: SigningAlgorithm },
    leaf: { readonly publicKey: CryptoKey; readonly pem: string },
  ) {
    this.#authority = authority.certificate;
    this.#authorityPem = authority.pem;
    this.#signing = signing;
    this.#leafKey = leaf.publicKey;
    this.key = leaf.pem;
  }

  /**
   * @throws RampartError RAMP_CERTIFICATE when it is no authority, or its key is another one's or of no use.
   */
  static async open(pem: AuthorityPem): Promise<CertificateMinter> {
    try {
      const certificate = new X509Certificate(pem.certificate);
      const constraints = certificate.getExtension(BasicConstraintsExtension);
      if (constraints?.ca !== true) throw new Error('the certificate is no authority (CA:TRUE is missing)');
      const signing = await importKey(createPrivateKey(pem.key));
      const pair = (await webcrypto.subtle.generateKey(LEAF_ALGORITHM, true, [
        'sign',
        'verify',
      ])) as webcrypto.CryptoKeyPair;
      const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', pair.privateKey));
      const leafPem = `-----BEGIN PRIVATE KEY-----\n${pkcs8.toString('base64')}\n-----END PRIVATE KEY-----\n`;
      const authority = { certificate, pem: pem.certificate };
      const minter = new CertificateMinter(authority, signing, { publicKey: pair.publicKey, pem: leafPem });
      await minter.#checkKey();
      return minter;
    } catch (cause) {
      if (cause instanceof RampartError) throw cause;
      const text = `the authority for inspection cannot be used: ${(cause as Error).message}`;
      throw new RampartError('RAMP_CERTIFICATE', text, { side: 'config', cause });
    }
  }

  /**
   * A certificate for one host name or address, with the authority's behind it, PEM. `now` is Unix
   * milliseconds.
   */
  async mint(name: string, now: number): Promise<string> {
    const isAddress = parseIp(name) !== null;
    const leaf = await X509CertificateGenerator.create({
      serialNumber: positiveSerial(),
      subject: name.length <= COMMON_NAME_MAX ? [{ CN: [name] }] : [{ O: ['rampart'] }],
      issuer: this.#authority.subjectName,
      notBefore: new Date(now - HOUR_MS),
      notAfter: new Date(Math.min(now + VALID_MS, this.#authority.notAfter.getTime())),
      publicKey: this.#leafKey,
      signingKey: this.#signing.key,
      signingAlgorithm: this.#signing.algorithm,
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
        new SubjectAlternativeNameExtension([{ type: isAddress ? 'ip' : 'dns', value: name }]),
        await SubjectKeyIdentifierExtension.create(this.#leafKey),
        await AuthorityKeyIdentifierExtension.create(await this.#authority.publicKey.export()),
      ],
    });
    return `${leaf.toString('pem')}\n${this.#authorityPem}`;
  }

  /** What it signs must verify with the authority's public key. */
  async #checkKey(): Promise<void> {
    const leaf = new X509Certificate(await this.mint('check.invalid', this.#authority.notBefore.getTime()));
    if (await leaf.verify({ publicKey: this.#authority, signatureOnly: true })) return;
    throw new Error('the key is not that of the certificate');
  }
}

type SigningAlgorithm = { readonly name: string; readonly hash: string };

async function importKey(key: KeyObject): Promise<{ key: CryptoKey; algorithm: SigningAlgorithm }> {
  const pkcs8 = key.export({ type: 'pkcs8', format: 'der' });
  const algorithm = signingAlgorithm(key);
  const imported = await webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']);
  return { key: imported as CryptoKey, algorithm };
}

function signingAlgorithm(key: KeyObject): SigningAlgorithm & { readonly namedCurve?: string } {
  if (key.asymmetricKeyType === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (curve === 'prime256v1') return { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  if (curve === 'secp384r1') return { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' };
  throw new Error(`its key is ${curve ?? key.asymmetricKeyType}; expected RSA, P-256 or P-384`);
}

/** 127 bits of chance, positive and without leading zero (RFC 5280 section 4.1.2.2). */
function positiveSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] as number) & 0x7f) | 0x40;
  return bytes.toString('hex');
}
