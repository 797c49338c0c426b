import { formatIp, parseIp } from '#base/ip.ts';
import type { Endpoint } from '#contract/context.ts';

import { ProxyFault, type ProxyHeader } from './header.ts';

/**
 * The longest line with its CR LF (section 2.1): two whole IPv6 addresses and ports, or UNKNOWN and those.
 */
const LINE_BYTES_MAX = 107;

const PREFIX = [0x50, 0x52, 0x4f, 0x58, 0x59, 0x20];
const CR = 13;
const LF = 10;

/** Reads the text form; as `parseProxyHeader`. */
export function readVersion1(bytes: Uint8Array, offset: number, length: number): ProxyHeader | ProxyFault {
  for (let i = 0; i < PREFIX.length; i++) {
    if (i === length) return ProxyFault.Incomplete;
    if (bytes[offset + i] !== PREFIX[i]) return ProxyFault.NotProxy;
  }
  const most = Math.min(length, LINE_BYTES_MAX);
  let end = PREFIX.length;
  while (end < most && bytes[offset + end] !== CR && bytes[offset + end] !== LF) end++;
  if (end >= LINE_BYTES_MAX - 1) return ProxyFault.TooLong;
  if (end === length) return ProxyFault.Incomplete;
  if (bytes[offset + end] !== CR) return ProxyFault.Malformed;
  if (end + 1 === length) return ProxyFault.Incomplete;
  if (bytes[offset + end + 1] !== LF) return ProxyFault.Malformed;
  const words = String.fromCharCode(...bytes.subarray(offset + PREFIX.length, offset + end)).split(' ');
  return readWords(words, end + 2);
}

function readWords(words: readonly string[], length: number): ProxyHeader | ProxyFault {
  const [family, ...rest] = words;
  // What follows UNKNOWN is to be ignored, whatever it is.
  if (family === 'UNKNOWN') return header(length, 'unknown', null, null);
  const size = family === 'TCP4' ? 4 : family === 'TCP6' ? 16 : 0;
  if (size === 0 || rest.length !== 4) return ProxyFault.Malformed;
  const [source = '', destination = '', sourcePort = '', destinationPort = ''] = rest;
  const from = endpoint(source, sourcePort, size);
  const to = endpoint(destination, destinationPort, size);
  return from === null || to === null ? ProxyFault.Malformed : header(length, 'tcp', from, to);
}

function endpoint(address: string, port: string, size: number): Endpoint | null {
  const ip = parseIp(address);
  if (ip?.length !== size || !/^(0|[1-9][0-9]{0,4})$/.test(port) || Number(port) > 65535) return null;
  return { address: formatIp(ip), port: Number(port) };
}

function header(
  length: number,
  transport: 'tcp' | 'unknown',
  source: Endpoint | null,
  destination: Endpoint | null,
): ProxyHeader {
  return {
    version: 1,
    length,
    command: 'proxy',
    transport,
    source,
    destination,
    alpn: null,
    authority: null,
    uniqueId: null,
    namespace: null,
    tls: null,
    context: null,
  };
}
