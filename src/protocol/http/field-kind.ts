import { equalsIgnoringCase, latin1Bytes } from './octets.ts';

/**
 * Fields that a proxy has to understand, by number. `Other` is forwarded as it came. The names are those of
 * the IANA registry without hyphens.
 */
export const FieldKind = Object.freeze({
  Other: 0,
  Host: 1,
  ContentLength: 2,
  TransferEncoding: 3,
  Connection: 4,
  KeepAlive: 5,
  ProxyConnection: 6,
  Upgrade: 7,
  Te: 8,
  Trailer: 9,
  Expect: 10,
  Via: 11,
  XForwardedFor: 12,
  XForwardedProto: 13,
  XForwardedHost: 14,
  Forwarded: 15,
  MaxForwards: 16,
  Http2Settings: 17,
  ProxyAuthenticate: 18,
  ProxyAuthorization: 19,
  ProxyAuthenticationInfo: 20,
  Date: 21,
  // Fields that only matter because Connection may not name them away, and because trailers may not hold
  // them.
  Authorization: 22,
  Cookie: 23,
  SetCookie: 24,
  ContentType: 25,
  ContentEncoding: 26,
  CacheControl: 27,
  XForwardedPort: 28,
  XRealIp: 29,
} as const);
export type FieldKind = (typeof FieldKind)[keyof typeof FieldKind];

const NAMES: Readonly<Record<Exclude<keyof typeof FieldKind, 'Other'>, string>> = {
  Host: 'host',
  ContentLength: 'content-length',
  TransferEncoding: 'transfer-encoding',
  Connection: 'connection',
  KeepAlive: 'keep-alive',
  ProxyConnection: 'proxy-connection',
  Upgrade: 'upgrade',
  Te: 'te',
  Trailer: 'trailer',
  Expect: 'expect',
  Via: 'via',
  XForwardedFor: 'x-forwarded-for',
  XForwardedProto: 'x-forwarded-proto',
  XForwardedHost: 'x-forwarded-host',
  Forwarded: 'forwarded',
  MaxForwards: 'max-forwards',
  Http2Settings: 'http2-settings',
  ProxyAuthenticate: 'proxy-authenticate',
  ProxyAuthorization: 'proxy-authorization',
  ProxyAuthenticationInfo: 'proxy-authentication-info',
  Date: 'date',
  Authorization: 'authorization',
  Cookie: 'cookie',
  SetCookie: 'set-cookie',
  ContentType: 'content-type',
  ContentEncoding: 'content-encoding',
  CacheControl: 'cache-control',
  XForwardedPort: 'x-forwarded-port',
  XRealIp: 'x-real-ip',
};

const LENGTH_MAX = 25;

/**
 * Candidates by length: at most six names share one, so a lookup compares first octets and mostly nothing
 * else.
 */
const BY_LENGTH: readonly (readonly Candidate[])[] = buildCandidates();

interface Candidate {
  readonly first: number;
  readonly bytes: Uint8Array;
  readonly kind: FieldKind;
}

function buildCandidates(): Candidate[][] {
  const table: Candidate[][] = Array.from({ length: LENGTH_MAX + 1 }, () => []);
  for (const [name, text] of Object.entries(NAMES) as [keyof typeof NAMES, string][]) {
    const bytes = latin1Bytes(text);
    (table[bytes.length] as Candidate[]).push({ first: bytes[0] as number, bytes, kind: FieldKind[name] });
  }
  return table;
}

/** The kind of the field whose name is the token octets from `start` to before `end`. */
export function fieldKindOf(bytes: Uint8Array, start: number, end: number): FieldKind {
  const length = end - start;
  if (length > LENGTH_MAX) return FieldKind.Other;
  const candidates = BY_LENGTH[length] as readonly Candidate[];
  const first = (bytes[start] as number) | 0x20;
  for (let i = 0; i < candidates.length; i++) {
    const candidate = candidates[i] as Candidate;
    if (candidate.first === first && equalsIgnoringCase(bytes, start, candidate.bytes)) return candidate.kind;
  }
  return FieldKind.Other;
}

/**
 * Kinds that belong to one hop and are never forwarded (RFC 9110 section 7.6.1), with those that this proxy
 * writes afresh: framing, Connection, Upgrade and TE. Index: kind; value: 1.
 */
export const HOP_BY_HOP: Uint8Array = kindSet([
  FieldKind.ContentLength,
  FieldKind.TransferEncoding,
  FieldKind.Connection,
  FieldKind.KeepAlive,
  FieldKind.ProxyConnection,
  FieldKind.Upgrade,
  FieldKind.Te,
  FieldKind.Http2Settings,
  FieldKind.ProxyAuthenticate,
  FieldKind.ProxyAuthorization,
  FieldKind.ProxyAuthenticationInfo,
]);

/**
 * Kinds that a Connection field may not name away: a client would else strip what the next hop decides by,
 * such as its own address or its credentials.
 */
export const PROTECTED_FROM_CONNECTION: Uint8Array = kindSet([
  FieldKind.Host,
  FieldKind.ContentLength,
  FieldKind.TransferEncoding,
  FieldKind.Trailer,
  FieldKind.Expect,
  FieldKind.Via,
  FieldKind.XForwardedFor,
  FieldKind.XForwardedProto,
  FieldKind.XForwardedHost,
  FieldKind.XForwardedPort,
  FieldKind.XRealIp,
  FieldKind.Forwarded,
  FieldKind.MaxForwards,
  FieldKind.Date,
  FieldKind.Authorization,
  FieldKind.Cookie,
  FieldKind.SetCookie,
  FieldKind.ContentType,
  FieldKind.ContentEncoding,
  FieldKind.CacheControl,
]);

function kindSet(kinds: readonly FieldKind[]): Uint8Array {
  const set = new Uint8Array(64);
  for (const kind of kinds) set[kind] = 1;
  return set;
}

const FORBIDDEN_TRAILERS: ReadonlySet<string> = new Set([
  'accept',
  'age',
  'authorization',
  'cache-control',
  'connection',
  'content-encoding',
  'content-length',
  'content-range',
  'content-type',
  'cookie',
  'date',
  'expect',
  'expires',
  'forwarded',
  'host',
  'http2-settings',
  'if-match',
  'if-modified-since',
  'if-none-match',
  'if-range',
  'if-unmodified-since',
  'keep-alive',
  'location',
  'max-forwards',
  'pragma',
  'range',
  'retry-after',
  'set-cookie',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'vary',
  'via',
  'warning',
  'www-authenticate',
]);

/**
 * Whether a field may stand in trailers: nothing that frames, routes, authenticates, or decides how the
 * content is handled (RFC 9110 section 6.5.1). `name` is lower case. Trailers are rare, so this is a string
 * and not a number.
 */
export function mayBeTrailer(name: string): boolean {
  return !FORBIDDEN_TRAILERS.has(name) && !name.startsWith('x-forwarded-') && !name.startsWith('proxy-');
}
