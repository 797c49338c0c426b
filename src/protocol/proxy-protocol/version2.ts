import { formatIp, unmapIp } from '#base/ip.ts';
import type { Endpoint } from '#contract/context.ts';

import { crc32c } from './crc32c.ts';
import {
  CONTEXT_FORM_JSON,
  PROXY_HEADER_BYTES_MAX,
  type ProxyContext,
  ProxyFault,
  type ProxyHeader,
  type ProxyTls,
  ProxyTlv,
  SIGNATURE_V2,
} from './header.ts';

const HEADER_BYTES = 16;
const COMMAND_LOCAL = 0x20;
const COMMAND_PROXY = 0x21;

/** Bytes of the address block by family, the upper half of its byte. */
const ADDRESS_BYTES: readonly number[] = [0, 12, 36, 216];
const FAMILY_INET = 1;
const FAMILY_INET6 = 2;
const FAMILY_UNIX = 3;
const TRANSPORT_STREAM = 1;
const TRANSPORT_DATAGRAM = 2;

const UNIQUE_ID_BYTES_MAX = 128;
/** The first fields of PP2_TYPE_SSL: `client` and `verify`. */
const TLS_FIELDS_BYTES = 5;
const CLIENT_TLS = 1;
const CLIENT_CERT_CONNECTION = 2;
const CLIENT_CERT_SESSION = 4;

/** The parts of a header that TLVs fill in. */
type Facts = {
  -readonly [Key in 'alpn' | 'authority' | 'uniqueId' | 'namespace' | 'tls' | 'context']: ProxyHeader[Key];
};

/** Reads the binary form; as `parseProxyHeader`. */
export function readVersion2(bytes: Uint8Array, offset: number, length: number): ProxyHeader | ProxyFault {
  for (let i = 0; i < SIGNATURE_V2.length; i++) {
    if (i === length) return ProxyFault.Incomplete;
    if (bytes[offset + i] !== SIGNATURE_V2[i]) return ProxyFault.NotProxy;
  }
  if (length < HEADER_BYTES) return ProxyFault.Incomplete;
  const command = bytes[offset + 12] as number;
  if (command !== COMMAND_LOCAL && command !== COMMAND_PROXY) return ProxyFault.Malformed;
  const total = HEADER_BYTES + word(bytes, offset + 14);
  if (total > PROXY_HEADER_BYTES_MAX) return ProxyFault.TooLong;
  if (length < total) return ProxyFault.Incomplete;
  const facts = noFacts();
  // Of LOCAL everything but its length is to be skipped (section 2.2).
  if (command === COMMAND_LOCAL) return header(total, 'local', { transport: 'unknown', ...NOWHERE }, facts);
  const places = readAddresses(bytes, offset, total);
  if (places === null) return ProxyFault.Malformed;
  const tlvs = offset + HEADER_BYTES + places.bytes;
  const fault = readTlvs(bytes, { at: tlvs, start: offset, end: offset + total }, facts);
  return fault ?? header(total, 'proxy', places, facts);
}

const NOWHERE = Object.freeze({ source: null, destination: null });

/** Endpoints and transport. */
type Places = Pick<ProxyHeader, 'transport' | 'source' | 'destination'>;

function header(length: number, command: 'proxy' | 'local', places: Places, facts: Facts): ProxyHeader {
  const { transport, source, destination } = places;
  return { version: 2, length, command, transport, source, destination, ...facts };
}

function noFacts(): Facts {
  return { alpn: null, authority: null, uniqueId: null, namespace: null, tls: null, context: null };
}

/** The address block with its size; null for what no sender may write, and for a block that is too short. */
function readAddresses(
  bytes: Uint8Array,
  offset: number,
  total: number,
): (Places & { readonly bytes: number }) | null {
  const code = bytes[offset + 13] as number;
  const family = code >>> 4;
  const transport = code & 15;
  // UNSPEC in either half: nothing is told, and TLVs may still follow.
  if (code === 0) return { bytes: 0, transport: 'unknown', ...NOWHERE };
  if (family === 0 || family > FAMILY_UNIX) return null;
  if (transport !== TRANSPORT_STREAM && transport !== TRANSPORT_DATAGRAM) return null;
  const size = ADDRESS_BYTES[family] as number;
  if (HEADER_BYTES + size > total) return null;
  if (family === FAMILY_UNIX) return { bytes: size, transport: 'unix', ...NOWHERE };
  const ip = family === FAMILY_INET ? 4 : family === FAMILY_INET6 ? 16 : 0;
  const at = offset + HEADER_BYTES;
  return {
    bytes: size,
    transport: transport === TRANSPORT_STREAM ? 'tcp' : 'udp',
    source: endpoint(bytes, at, ip, at + 2 * ip),
    destination: endpoint(bytes, at + ip, ip, at + 2 * ip + 2),
  };
}

function endpoint(bytes: Uint8Array, at: number, length: number, port: number): Endpoint {
  return { address: formatIp(unmapIp(bytes.slice(at, at + length))), port: word(bytes, port) };
}

function readTlvs(
  bytes: Uint8Array,
  range: { readonly at: number; readonly start: number; readonly end: number },
  facts: Facts,
): ProxyFault | null {
  const { start, end } = range;
  const seen = new Set<number>();
  for (let at = range.at; at < end; ) {
    if (end - at < 3) return ProxyFault.BadTlv;
    const type = bytes[at] as number;
    const value = at + 3;
    const next = value + word(bytes, at + 1);
    if (next > end) return ProxyFault.BadTlv;
    if (type !== ProxyTlv.Noop && seen.has(type)) return ProxyFault.BadTlv;
    seen.add(type);
    if (type === ProxyTlv.Crc32c) {
      if (next - value !== 4) return ProxyFault.BadTlv;
      if (dword(bytes, value) !== crc32c(bytes, { start, end, hole: value })) return ProxyFault.BadChecksum;
    } else if (!readTlv(type, bytes.slice(value, next), facts)) return ProxyFault.BadTlv;
    at = next;
  }
  return null;
}

/** False when a known TLV is not in its form. Unknown ones are skipped. */
function readTlv(type: number, value: Uint8Array, facts: Facts): boolean {
  switch (type) {
    case ProxyTlv.Alpn:
      facts.alpn = line(value);
      return facts.alpn !== null;
    case ProxyTlv.Authority:
      facts.authority = line(value)?.toLowerCase() ?? null;
      return facts.authority !== null;
    case ProxyTlv.UniqueId:
      facts.uniqueId = value;
      return value.length > 0 && value.length <= UNIQUE_ID_BYTES_MAX;
    case ProxyTlv.Namespace:
      facts.namespace = line(value);
      return facts.namespace !== null;
    case ProxyTlv.Tls:
      facts.tls = readTls(value);
      return facts.tls !== null;
    case ProxyTlv.Context:
      facts.context = readContext(value);
      return facts.context !== null;
    default:
      return true;
  }
}

/** PP2_TYPE_SSL: flags, the result of verification, and TLVs of its own. */
function readTls(value: Uint8Array): ProxyTls | null {
  if (value.length < TLS_FIELDS_BYTES) return null;
  const texts = new Map<number, string>();
  for (let at = TLS_FIELDS_BYTES; at < value.length; ) {
    if (value.length - at < 3) return null;
    const type = value[at] as number;
    const next = at + 3 + word(value, at + 1);
    if (next > value.length || texts.has(type)) return null;
    if (TLS_TEXTS.has(type)) {
      const text = line(value.subarray(at + 3, next));
      if (text === null) return null;
      texts.set(type, text);
    }
    at = next;
  }
  const client = value[0] as number;
  const shown =
    client & CLIENT_CERT_CONNECTION ? 'connection' : client & CLIENT_CERT_SESSION ? 'session' : 'none';
  return {
    encrypted: (client & CLIENT_TLS) !== 0,
    clientCertificate: shown,
    // `verify` is 0 also where there was no certificate to verify.
    verified: shown !== 'none' && dword(value, 1) === 0,
    version: texts.get(ProxyTlv.TlsVersion) ?? null,
    commonName: texts.get(ProxyTlv.TlsCommonName) ?? null,
    cipher: texts.get(ProxyTlv.TlsCipher) ?? null,
    signatureAlgorithm: texts.get(ProxyTlv.TlsSignature) ?? null,
    keyAlgorithm: texts.get(ProxyTlv.TlsKey) ?? null,
  };
}

const TLS_TEXTS: ReadonlySet<number> = new Set([
  ProxyTlv.TlsVersion,
  ProxyTlv.TlsCommonName,
  ProxyTlv.TlsCipher,
  ProxyTlv.TlsSignature,
  ProxyTlv.TlsKey,
]);

function readContext(value: Uint8Array): ProxyContext | null {
  const text = value[0] === CONTEXT_FORM_JSON ? utf8(value.subarray(1)) : null;
  if (text === null) return null;
  try {
    const parsed: unknown = JSON.parse(text);
    const isObject = typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed);
    return isObject ? (parsed as ProxyContext) : null;
  } catch {
    return null;
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const CONTROL = /[\0-\x1f\x7f]/;

/** UTF-8 text of one line, which cannot forge another one in a log; null for anything else. */
function line(bytes: Uint8Array): string | null {
  const text = utf8(bytes);
  return text === null || text === '' || CONTROL.test(text) ? null : text;
}

function utf8(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

function word(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

function dword(bytes: Uint8Array, at: number): number {
  return word(bytes, at) * 0x10000 + word(bytes, at + 2);
}
