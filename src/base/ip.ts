import { isIPv4, isIPv6 } from 'node:net';

/**
 * IP addresses and prefixes on the cold path (config, hooks, logs). Packets keep addresses as bytes; see
 * `packet`. An address is held as 16 bytes: IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2), so that one
 * comparison serves both.
 */
export interface IpPrefix {
  readonly family: 4 | 6;
  /** Four or sixteen bytes, host bits zero. */
  readonly bytes: Uint8Array;
  /** Length of the prefix in bits, 0 to 32 or 0 to 128. */
  readonly length: number;
}

/**
 * Four bytes for an IPv4 literal, sixteen for an IPv6 literal, null for anything else. No zone is accepted.
 */
export function parseIp(text: string): Uint8Array | null {
  if (isIPv4(text)) return Uint8Array.from(text.split('.').map(Number));
  if (!isIPv6(text) || text.includes('%')) return null;
  return parseIpv6(text);
}

function parseIpv6(text: string): Uint8Array {
  const bytes = new Uint8Array(16);
  let groups = text;
  const lastColon = text.lastIndexOf(':');
  const tail = text.slice(lastColon + 1);
  if (tail.includes('.')) {
    const four = tail.split('.').map(Number) as [number, number, number, number];
    const high = ((four[0] << 8) | four[1]).toString(16);
    const low = ((four[2] << 8) | four[3]).toString(16);
    groups = `${text.slice(0, lastColon + 1)}${high}:${low}`;
  }
  const [left = '', right] = groups.split('::');
  const head = left === '' ? [] : left.split(':');
  const rest = right === undefined || right === '' ? [] : right.split(':');
  const words =
    right === undefined ? head : [...head, ...Array(8 - head.length - rest.length).fill('0'), ...rest];
  words.forEach((word, index) => {
    const value = Number.parseInt(word, 16);
    bytes[2 * index] = value >>> 8;
    bytes[2 * index + 1] = value & 0xff;
  });
  return bytes;
}

/** Text of four or sixteen bytes; IPv6 in the form of RFC 5952. */
export function formatIp(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const words: number[] = [];
  for (let i = 0; i < 16; i += 2) words.push(((bytes[i] as number) << 8) | (bytes[i + 1] as number));
  let best = -1;
  let bestCount = 1;
  for (let i = 0; i < 8; i++) {
    let count = 0;
    while (i + count < 8 && words[i + count] === 0) count++;
    if (count > bestCount) {
      best = i;
      bestCount = count;
    }
    if (count > 0) i += count - 1;
  }
  const hex = words.map((word) => word.toString(16));
  if (best < 0) return hex.join(':');
  return `${hex.slice(0, best).join(':')}::${hex.slice(best + bestCount).join(':')}`;
}

/**
 * The four bytes inside an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2); any other address unchanged.
 */
export function unmapIp(bytes: Uint8Array): Uint8Array {
  if (bytes.length !== 16 || bytes[10] !== 0xff || bytes[11] !== 0xff) return bytes;
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return bytes;
  return bytes.slice(12);
}

/**
 * Parses `10.0.0.0/8` or `fd00::/8`; a bare address is a full-length prefix. Null when malformed. Host bits
 * are masked.
 */
export function parsePrefix(text: string): IpPrefix | null {
  const slash = text.indexOf('/');
  const address = parseIp(slash < 0 ? text : text.slice(0, slash));
  if (address === null) return null;
  const lengthMax = address.length * 8;
  const lengthText = slash < 0 ? String(lengthMax) : text.slice(slash + 1);
  if (!/^(0|[1-9][0-9]{0,2})$/.test(lengthText)) return null;
  const length = Number(lengthText);
  if (length > lengthMax) return null;
  const bytes = address.slice();
  for (let bit = length; bit < lengthMax; bit++) {
    bytes[bit >> 3] = (bytes[bit >> 3] as number) & ~(0x80 >> (bit & 7));
  }
  return Object.freeze({ family: address.length === 4 ? 4 : 6, bytes, length });
}

/** Text of a prefix, `10.0.0.0/8`. */
export function formatPrefix(prefix: IpPrefix): string {
  return `${formatIp(prefix.bytes)}/${prefix.length}`;
}

/** True when the four or sixteen bytes `address` lie in `prefix`; false when the families differ. */
export function prefixContains(prefix: IpPrefix, address: Uint8Array): boolean {
  if (prefix.bytes.length !== address.length) return false;
  const whole = prefix.length >> 3;
  for (let i = 0; i < whole; i++) if (prefix.bytes[i] !== address[i]) return false;
  const rest = prefix.length & 7;
  if (rest === 0) return true;
  const mask = (0xff << (8 - rest)) & 0xff;
  return ((prefix.bytes[whole] as number) & mask) === ((address[whole] as number) & mask);
}

/** A host and port, or a Unix path, as people write it; what io binds and connects. */
export type SocketAddress =
  | { readonly family: 4 | 6; readonly address: string; readonly port: number }
  | { readonly family: 'unix'; readonly path: string };

/**
 * Parses `10.0.0.1:80`, `[fd00::1]:80`, `:80` (any IPv6 and IPv4), `unix:/run/x.sock` and `unix:@abstract`.
 * Null when malformed; no name is resolved.
 */
export function parseSocketAddress(text: string): SocketAddress | null {
  if (text.startsWith('unix:')) {
    const path = text.slice(5);
    return path.length > 0 && path.length < 108 ? Object.freeze({ family: 'unix', path }) : null;
  }
  const match = /^(?:\[([^\]]+)\]|([^:]*)):([0-9]{1,5})$/.exec(text);
  if (match === null) return null;
  const port = Number(match[3]);
  if (port > 65535) return null;
  const host = match[1] ?? match[2] ?? '';
  if (host === '' || host === '*') return Object.freeze({ family: 6, address: '::', port });
  const bytes = parseIp(host);
  if (bytes === null || (match[1] !== undefined) !== (bytes.length === 16)) return null;
  return Object.freeze({ family: bytes.length === 4 ? 4 : 6, address: formatIp(bytes), port });
}

/** Text of a socket address, the inverse of `parseSocketAddress`. */
export function formatSocketAddress(address: SocketAddress): string {
  if (address.family === 'unix') return `unix:${address.path}`;
  return address.family === 6 ? `[${address.address}]:${address.port}` : `${address.address}:${address.port}`;
}
