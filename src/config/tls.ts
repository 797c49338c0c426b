import * as z from 'zod';

/** A certificate with its key; paths as they stand in the file, relative to its folder. */
export interface CertificateConfig {
  /** The certificate and its chain, PEM. */
  readonly certificate: string;
  readonly key: string;
  /** A response of OCSP, DER; null: none is stapled. */
  readonly ocsp: string | null;
}

/** Which part of a client's certificate names the user. */
export type ClientNamePart = 'common_name' | 'email' | 'dns' | 'uri';

/** Certificates of clients. */
export interface TlsClientsConfig {
  /** File of the authorities that are accepted, PEM. */
  readonly authorities: string;
  readonly required: boolean;
  readonly user: ClientNamePart;
}

/** Inspection: certificates are minted for whatever name a client asks. */
export interface TlsInspectConfig {
  readonly certificate: string;
  readonly key: string;
  /** Names that are never inspected. */
  readonly bypass: readonly string[];
  /** File of the authorities that upstream servers must be verified by; null: the system's. */
  readonly authorities: string | null;
}

/** What becomes of a TLS connection before anything is decrypted. */
export type TlsAction = 'pass' | 'terminate' | 'inspect' | 'reject';

/** TLS of an on-ramp. */
export interface TlsServerConfig {
  readonly certificates: readonly CertificateConfig[];
  /** Null: what the streams become decides. */
  readonly alpn: readonly string[] | null;
  readonly minVersion: '1.2' | '1.3';
  readonly clients: TlsClientsConfig | null;
  readonly tickets: boolean;
  readonly inspect: TlsInspectConfig | null;
  /** For names that no certificate is for. */
  readonly otherwise: TlsAction;
  /** What is no TLS is carried as it is. */
  readonly plain: boolean;
}

/** TLS of an off-ramp. */
export interface TlsClientConfig {
  /** Null: the target's host. */
  readonly serverName: string | null;
  readonly verify: boolean;
  /** Null: the system's authorities. */
  readonly authorities: string | null;
  readonly certificate: CertificateConfig | null;
  /** SHA-256 of public keys (SPKI), base64. Empty: any that verifies. */
  readonly pins: readonly string[];
  readonly minVersion: '1.2' | '1.3';
}

const file = z.string().min(1).max(4096);
const version = z.enum(['1.2', '1.3']).default('1.2').describe('Lowest version: 1.2 or 1.3. Default: 1.2.');
const protocol = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/, 'does not fit; expected a protocol such as "http/1.1"');

/** A server name or a pattern of one: `app.example`, `*.example` (one label), `.example` (any number). */
export const serverName = z
  .string()
  .regex(
    /^(\*?\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$/,
    'does not fit; expected a name such as "app.example", "*.example" or ".example"',
  )
  .transform((value) => value.toLowerCase());

const certificateKeys = {
  certificate: file.describe('File of the certificate and its chain, PEM.'),
  key: file.describe('File of its key, PEM, without a passphrase.'),
};

const certificateSchema = z
  .strictObject({
    ...certificateKeys,
    ocsp: file.optional().describe('File of an OCSP response, DER, that is stapled. Default: none.'),
  })
  .describe('A certificate; the names in it are those that it is used for.');

const clientsSchema = z
  .strictObject({
    authorities: file.describe('File of the authorities whose certificates are accepted, PEM.'),
    required: z
      .boolean()
      .default(true)
      .describe(
        'A client without a certificate is refused. Default: true. One that does not verify always is.',
      ),
    user: z
      .enum(['common_name', 'email', 'dns', 'uri'])
      .default('common_name')
      .describe('Part of the certificate that names the user. Default: common_name. Its OU are the groups.'),
  })
  .describe('Certificates of clients: the identity in the context.');

const inspectSchema = z
  .strictObject({
    certificate: file.describe('File of the authority by which certificates are minted, PEM.'),
    key: file.describe('File of its key, PEM.'),
    bypass: z.array(serverName).max(10_000).default([]).describe('Names that are passed through unread.'),
    authorities: file
      .optional()
      .describe("File of the authorities that servers must be verified by. Default: the system's."),
  })
  .describe('Inspection: certificates are minted for the names that clients ask for.');

/** The `tls` key of an on-ramp. */
export const tlsServerSchema = z
  .strictObject({
    certificates: z
      .array(certificateSchema)
      .max(10_000)
      .default([])
      .describe(
        'Certificates, chosen by the name that the client asks for; the first one serves all others.',
      ),
    alpn: z
      .array(protocol)
      .max(32)
      .optional()
      .describe('Protocols by preference. Default: http/1.1 where the streams become HTTP, else none.'),
    min_version: version,
    clients: clientsSchema.optional(),
    tickets: z.boolean().default(true).describe('Clients come back by session tickets. Default: true.'),
    inspect: inspectSchema.optional(),
    otherwise: z
      .enum(['pass', 'terminate', 'inspect', 'reject'])
      .optional()
      .describe(
        'What becomes of names that no certificate is for. Default: inspect where that is configured, ' +
          'terminate where there are certificates, else pass.',
      ),
    plain: z
      .boolean()
      .default(false)
      .describe('What is no TLS is carried as it is, in place of being refused. Default: false.'),
  })
  .describe('TLS: pass through by name, terminate, or inspect.');

/** The `tls` key of an off-ramp. */
export const tlsClientSchema = z
  .union([
    z.literal(true),
    z.strictObject({
      server_name: serverName
        .optional()
        .describe("Name that is asked for and that the certificate must be for. Default: the target's host."),
      verify: z
        .boolean()
        .default(true)
        .describe('The certificate must verify. Default: true; false only together with pins, or in tests.'),
      authorities: file
        .optional()
        .describe("File of the authorities that are trusted. Default: the system's."),
      client_certificate: z.strictObject(certificateKeys).optional().describe('What is shown when asked.'),
      pins: z
        .array(z.string().regex(/^[A-Za-z0-9+/]{43}=$/, 'does not fit; expected a SHA-256 in base64'))
        .max(100)
        .default([])
        .describe('SHA-256 of public keys (SPKI), base64, of which the server must have one. Default: any.'),
      min_version: version,
    }),
  ])
  .describe('Connections are TLS; true for all defaults.');

/** The typed value of an on-ramp's `tls`. */
export function tlsServerConfig(input: z.output<typeof tlsServerSchema>): TlsServerConfig {
  const { inspect, clients } = input;
  const byDefault = inspect !== undefined ? 'inspect' : input.certificates.length > 0 ? 'terminate' : 'pass';
  return {
    certificates: input.certificates.map((each) => ({ ...each, ocsp: each.ocsp ?? null })),
    alpn: input.alpn ?? null,
    minVersion: input.min_version,
    clients: clients ?? null,
    tickets: input.tickets,
    inspect: inspect === undefined ? null : { ...inspect, authorities: inspect.authorities ?? null },
    otherwise: input.otherwise ?? byDefault,
    plain: input.plain,
  };
}

/** The typed value of an off-ramp's `tls`; null when it has none. */
export function tlsClientConfig(input: z.output<typeof tlsClientSchema> | undefined): TlsClientConfig | null {
  if (input === undefined) return null;
  if (input === true) return tlsClientConfig({ verify: true, pins: [], min_version: '1.2' });
  const certificate = input.client_certificate;
  return {
    serverName: input.server_name ?? null,
    verify: input.verify,
    authorities: input.authorities ?? null,
    certificate: certificate === undefined ? null : { ...certificate, ocsp: null },
    pins: input.pins,
    minVersion: input.min_version,
  };
}
