/**
 * `protocol/proxy-protocol` is the header by which a proxy in front tells the endpoints of a connection, and
 * more about it, before the connection's first byte (HAProxy's "The PROXY protocol", versions 1 and 2).
 *
 * ```
 *  version 1:  PROXY TCP4 192.0.2.1 198.51.100.1 51234 443 CR LF
 *  version 2:  signature │ 2 command │ family transport │ length │ addresses │ type length value …
 * ```
 * The address block and the TLVs (type, length, value) together have exactly the length that the header says.
 * Anybody can write such a header: it means something only on a listener that is marked for it, from peers on
 * its trust list.
 *
 * Files: this one (reading either version), `header.ts` (what a header is), `version1.ts`, `version2.ts`,
 * `write.ts`, `crc32c.ts`. Pure: no sockets, no clocks.
 */
import { ProxyFault, type ProxyHeader } from './header.ts';
import { readVersion1 } from './version1.ts';
import { readVersion2 } from './version2.ts';

/**
 * Reads the header at `offset` of a stream of which `length` bytes are here. A result that is a number is a
 * `ProxyFault`; with `Incomplete` the same call is made again when more bytes have come. Total; the result
 * keeps no reference to `bytes`.
 */
export function parseProxyHeader(
  bytes: Uint8Array,
  offset: number,
  length: number,
): ProxyHeader | ProxyFault {
  if (length === 0) return ProxyFault.Incomplete;
  return bytes[offset] === 0x50 ? readVersion1(bytes, offset, length) : readVersion2(bytes, offset, length);
}

/** A fault in words, as the end of a sentence. */
export function describeProxyFault(fault: ProxyFault): string {
  return FAULT_TEXT[fault];
}

const FAULT_TEXT: Readonly<Record<ProxyFault, string>> = Object.freeze({
  [ProxyFault.Incomplete]: 'is not complete',
  [ProxyFault.NotProxy]: 'is missing',
  [ProxyFault.TooLong]: 'is too long',
  [ProxyFault.Malformed]: 'is malformed',
  [ProxyFault.BadTlv]: 'has TLVs that do not fit it',
  [ProxyFault.BadChecksum]: 'has a wrong checksum',
});
