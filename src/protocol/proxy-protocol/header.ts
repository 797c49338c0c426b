import type { Endpoint } from '#contract/context.ts';

/** What first bytes are that are no whole PROXY header. */
export const ProxyFault = Object.freeze({
  /** Right so far; more bytes are needed. */
  Incomplete: 0,
  /** Neither signature. */
  NotProxy: 1,
  /** Longer than `PROXY_HEADER_BYTES_MAX`, or version 1 without its end after 107 bytes. */
  TooLong: 2,
  /** Not in the form of its version; a version, command, family or transport that does not exist. */
  Malformed: 3,
  /** The TLVs do not exactly fill the header, or one is not in its form, or stands twice. */
  BadTlv: 4,
  /** The CRC32C in the header is not that of the header. */
  BadChecksum: 5,
} as const);

/** One of the faults. */
export type ProxyFault = (typeof ProxyFault)[keyof typeof ProxyFault];

/** What the front proxy says of TLS on its side (PP2_TYPE_SSL). */
export interface ProxyTls {
  /** The client came by TLS. */
  readonly encrypted: boolean;
  /** The client showed a certificate on this connection, or in the session that it resumed. */
  readonly clientCertificate: 'none' | 'session' | 'connection';
  /** The front proxy verified that certificate. */
  readonly verified: boolean;
  /** Such as `TLSv1.3`; null when not told, as all that follow. */
  readonly version: string | null;
  /** Common name of the client certificate's subject. Only worth something where `verified`. */
  readonly commonName: string | null;
  readonly cipher: string | null;
  readonly signatureAlgorithm: string | null;
  readonly keyAlgorithm: string | null;
}

/**
 * What the node in front knows of the traffic, carried by `ProxyTlv.Context`. The form of `ContextSpec`, not
 * checked.
 */
export type ProxyContext = Readonly<Record<string, unknown>>;

/** A header. */
export interface ProxyHeader {
  readonly version: 1 | 2;
  /** Bytes of the header: behind them the connection's own begin. */
  readonly length: number;
  /** `local`: the front proxy speaks for itself (a health check); the connection's own endpoints hold. */
  readonly command: 'proxy' | 'local';
  /** `unknown`: the endpoints are not told. */
  readonly transport: 'tcp' | 'udp' | 'unix' | 'unknown';
  /** Both null for `local`, `unknown` and `unix`: then the connection's own endpoints hold. */
  readonly source: Endpoint | null;
  readonly destination: Endpoint | null;
  /** Protocol that was agreed with the client by ALPN; null when not told, as all that follow. */
  readonly alpn: string | null;
  /** Host name that the client asked for: its SNI. Lower case. */
  readonly authority: string | null;
  /** 1 to 128 bytes that name the connection across proxies. A copy. */
  readonly uniqueId: Uint8Array | null;
  /** Network namespace in front. */
  readonly namespace: string | null;
  readonly tls: ProxyTls | null;
  readonly context: ProxyContext | null;
}

/** Types of TLV (section 2.2), and our own in the range that is left to applications. */
export const ProxyTlv = Object.freeze({
  Alpn: 0x01,
  Authority: 0x02,
  Crc32c: 0x03,
  Noop: 0x04,
  UniqueId: 0x05,
  Tls: 0x20,
  TlsVersion: 0x21,
  TlsCommonName: 0x22,
  TlsCipher: 0x23,
  TlsSignature: 0x24,
  TlsKey: 0x25,
  Namespace: 0x30,
  /** Rampart's own: one byte 1 (the form), then a context as JSON in UTF-8. */
  Context: 0xe7,
} as const);

/** First bytes of version 2. */
export const SIGNATURE_V2: readonly number[] = Object.freeze([
  0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a,
]);

/** Longest header that is read, bytes: a TLS client certificate fits, and so does a stream buffer. */
export const PROXY_HEADER_BYTES_MAX = 16_384;

/** First byte of the value of `ProxyTlv.Context`. */
export const CONTEXT_FORM_JSON = 1;
