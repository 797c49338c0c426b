import { createHash, X509Certificate } from 'node:crypto';

/** Which part of a certificate names its holder. */
export type HolderPart = 'common_name' | 'email' | 'dns' | 'uri';

/** Who a certificate says its holder is. */
export interface CertificateHolder {
  /** Empty when it has no such part. */
  readonly name: string;
  /** Its organizational units. */
  readonly units: readonly string[];
}

/** The names that a server's certificate is for, lower case; those of its subject where it has no others. */
export function certificateNames(pem: string): readonly string[] {
  const certificate = new X509Certificate(pem);
  const names = alternativeNames(certificate, 'DNS');
  const found = names.length > 0 ? names : subjectParts(certificate, 'CN');
  return found.map((name) => name.toLowerCase());
}

/** Who the holder of a certificate in DER is. */
export function certificateHolder(der: Uint8Array, part: HolderPart): CertificateHolder {
  const certificate = new X509Certificate(der);
  const names =
    part === 'common_name'
      ? subjectParts(certificate, 'CN')
      : alternativeNames(certificate, part === 'email' ? 'email' : part === 'dns' ? 'DNS' : 'URI');
  return { name: names[0] ?? '', units: subjectParts(certificate, 'OU') };
}

/** The pin of a certificate in DER: SHA-256 of its public key (SPKI), base64 (RFC 7469 section 2.4). */
export function publicKeyPin(der: Uint8Array): string {
  const key = new X509Certificate(der).publicKey.export({ type: 'spki', format: 'der' });
  return createHash('sha256').update(key).digest('base64');
}

/**
 * Node writes alternative names as `KIND:value` joined by commas, and quotes as JSON what could be taken for
 * more than one.
 */
function alternativeNames(certificate: X509Certificate, kind: string): string[] {
  const text = certificate.subjectAltName;
  if (text === undefined) return [];
  const names: string[] = [];
  for (const [, found, quoted, plain] of text.matchAll(
    /([A-Za-z ]+):(?:("(?:[^"\\]|\\.)*")|([^,]*))(?:, |$)/g,
  )) {
    if (found !== kind) continue;
    names.push(quoted === undefined ? (plain as string) : (JSON.parse(quoted) as string));
  }
  return names;
}

/** Values of one attribute of the subject, which Node writes as lines `NAME=value`. */
function subjectParts(certificate: X509Certificate, attribute: string): string[] {
  const parts: unknown = (certificate.toLegacyObject().subject as unknown as Record<string, unknown>)[
    attribute
  ];
  if (typeof parts === 'string') return [parts];
  return Array.isArray(parts) ? parts.map(String) : [];
}
