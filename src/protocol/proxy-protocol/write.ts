import { parseIp } from '#base/ip.ts';
import type { Endpoint } from '#contract/context.ts';

import { crc32c } from './crc32c.ts';
import {
  CONTEXT_FORM_JSON,
  PROXY_HEADER_BYTES_MAX,
  type ProxyContext,
  type ProxyTls,
  ProxyTlv,
  SIGNATURE_V2,
} from './header.ts';

/** What a header is to say. */
export interface ProxyAnnouncement {
  /** The client, and where it wanted to go. An address that is a name or a path is told as unknown. */
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly transport?: 'tcp' | 'udp';
  readonly alpn?: string | null;
  readonly authority?: string | null;
  /** 1 to 128 bytes. */
  readonly uniqueId?: Uint8Array | null;
  readonly tls?: ProxyTls | null;
  readonly context?: ProxyContext | null;
  /** Adds CRC32C. Default true. */
  readonly checksum?: boolean;
}

/** The text form. TLVs have no place in it. */
export function writeProxyV1({ source, destination }: ProxyAnnouncement): Uint8Array {
  const from = parseIp(source.address);
  const to = parseIp(destination.address);
  // Two families, or a name: the form has no word for that.
  const text =
    from === null || to === null || from.length !== to.length
      ? 'PROXY UNKNOWN\r\n'
      : `PROXY TCP${from.length === 4 ? 4 : 6} ${source.address} ${destination.address} ` +
        `${source.port} ${destination.port}\r\n`;
  return new TextEncoder().encode(text);
}

/** The binary form. TLVs that would make it longer than `PROXY_HEADER_BYTES_MAX` are left out. */
export function writeProxyV2(announcement: ProxyAnnouncement): Uint8Array {
  const out: number[] = [...SIGNATURE_V2, 0x21];
  const from = parseIp(announcement.source.address);
  const to = parseIp(announcement.destination.address);
  if (from === null || to === null) out.push(0, 0, 0);
  else {
    // One family for both: IPv4 beside IPv6 is written mapped (RFC 4291 section 2.5.5.2).
    const wide = from.length === 16 || to.length === 16;
    out.push((wide ? 0x20 : 0x10) | (announcement.transport === 'udp' ? 2 : 1), 0, 0);
    out.push(...(wide ? mapped(from) : from), ...(wide ? mapped(to) : to));
    out.push(...u16(announcement.source.port), ...u16(announcement.destination.port));
  }
  for (const [type, value] of tlvsOf(announcement)) {
    if (out.length + 3 + value.length + 7 <= PROXY_HEADER_BYTES_MAX) pushTlv(out, type, value);
  }
  const withChecksum = announcement.checksum ?? true;
  if (withChecksum) pushTlv(out, ProxyTlv.Crc32c, [0, 0, 0, 0]);
  const bytes = Uint8Array.from(out);
  const view = new DataView(bytes.buffer);
  view.setUint16(14, bytes.length - 16);
  if (withChecksum) {
    const hole = bytes.length - 4;
    view.setUint32(hole, crc32c(bytes, { start: 0, end: bytes.length, hole }));
  }
  return bytes;
}

function tlvsOf(announcement: ProxyAnnouncement): [number, Iterable<number> & { length: number }][] {
  const { alpn, authority, uniqueId, tls, context } = announcement;
  const list: [number, Iterable<number> & { length: number }][] = [];
  if (alpn) list.push([ProxyTlv.Alpn, utf8(alpn)]);
  if (authority) list.push([ProxyTlv.Authority, utf8(authority)]);
  if (uniqueId && uniqueId.length <= 128) list.push([ProxyTlv.UniqueId, uniqueId]);
  if (tls) list.push([ProxyTlv.Tls, tlsValue(tls)]);
  if (context) list.push([ProxyTlv.Context, [CONTEXT_FORM_JSON, ...utf8(JSON.stringify(context))]]);
  return list;
}

function tlsValue(tls: ProxyTls): number[] {
  const shown = { none: 0, session: 4, connection: 2 }[tls.clientCertificate];
  const value = [(tls.encrypted ? 1 : 0) | shown, 0, 0, 0, tls.verified ? 0 : 1];
  const texts = [
    [ProxyTlv.TlsVersion, tls.version],
    [ProxyTlv.TlsCommonName, tls.commonName],
    [ProxyTlv.TlsCipher, tls.cipher],
    [ProxyTlv.TlsSignature, tls.signatureAlgorithm],
    [ProxyTlv.TlsKey, tls.keyAlgorithm],
  ] as const;
  for (const [type, text] of texts) if (text !== null) pushTlv(value, type, utf8(text));
  return value;
}

function pushTlv(out: number[], type: number, value: Iterable<number> & { length: number }): void {
  out.push(type, ...u16(value.length), ...value);
}

function mapped(address: Uint8Array): Uint8Array {
  if (address.length === 16) return address;
  const wide = new Uint8Array(16);
  wide.fill(0xff, 10, 12);
  wide.set(address, 12);
  return wide;
}

function u16(value: number): [number, number] {
  return [value >>> 8, value & 0xff];
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
