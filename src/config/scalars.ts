/**
 * The small values of which the parts of the config are made: each a schema that parses text into what the
 * code uses.
 */
import * as z from 'zod';

import { parseDuration } from '#base/duration.ts';
import {
  formatIp,
  formatPrefix,
  type IpPrefix,
  parseIp,
  parsePrefix,
  parseSocketAddress,
  type SocketAddress,
} from '#base/ip.ts';
import { parseSize } from '#base/size.ts';
import type { Target } from '#contract/context.ts';

/** A schema over text: `parse` answers null for what is not `expected`. */
function text<T>(expected: string, parse: (value: string) => T | null): z.ZodType<T, string> {
  return z.string().transform((value, context) => {
    const parsed = parse(value);
    if (parsed !== null) return parsed;
    context.issues.push({ code: 'custom', message: `does not fit; expected ${expected}`, input: value });
    return z.NEVER;
  }) as unknown as z.ZodType<T, string>;
}

/** Largest IP packet, bytes: RFC 791 section 3.1. */
const MTU_MAX = 65535;

/** The smallest IPv6 link MTU is 1280 (RFC 8200 section 5); IPv4 alone may go down to 576. */
const MTU_MIN = 576;

/** True for a name of an account, vnet, on-ramp or off-ramp: it can stand in a metric and a file name. */
export function isName(value: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(value);
}

/** Names of on-ramps, off-ramps, accounts, vnets. */
export const name = text(
  'letters, digits, ".", "_" or "-", at most 63, beginning with a letter or digit',
  (value) => (isName(value) ? value : null),
);

/** Name of a network device (IFNAMSIZ: 15 bytes). */
export const deviceName = text(
  'a device name: at most 15 letters, digits, ".", "_" or "-", beginning with a letter or digit',
  (value) => (/^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/.test(value) ? value : null),
);

/** Name (below /run/netns) or path of a network namespace. */
export const namespaceName = text('the name of a network namespace, or the path of its file', (value) =>
  /^(\/[^\0]+|[A-Za-z0-9][A-Za-z0-9._-]{0,62})$/.test(value) ? value : null,
);

/** `10.0.0.1:80`, `[fd00::1]:80` or `:80`. */
export const ipListenAddress = text(
  'an address and port: "127.0.0.1:8080", "[::1]:8080", or ":8080" for all addresses',
  (value) => {
    const address = parseSocketAddress(value);
    return address === null || address.family === 'unix' ? null : address;
  },
) as z.ZodType<IpSocketAddress, string>;

/** A socket address with an IP address. */
export type IpSocketAddress = Extract<SocketAddress, { readonly family: 4 | 6 }>;

/** A socket address that is a path. */
export type UnixSocketAddress = Extract<SocketAddress, { readonly family: 'unix' }>;

/** `unix:/run/x.sock`. */
export const unixAddress = text(
  '"unix:" and a path of at most 107 bytes, such as "unix:/run/rampart/x.sock"',
  (value) => {
    const address = parseSocketAddress(value);
    return address?.family === 'unix' ? address : null;
  },
) as z.ZodType<UnixSocketAddress, string>;

/** An address and port, or a path. */
export const listenAddress = text(
  'an address and port, such as "127.0.0.1:8080" or ":8080", or "unix:" and a path',
  parseSocketAddress,
);

/** A path, or null for `off`. Its text is `off` or `unix:/run/x.sock`. */
export const controlAddress = text<{ readonly path: string | null }>(
  '"unix:" and a path, or "off"',
  (value) => {
    if (value === 'off') return { path: null };
    const address = parseSocketAddress(value);
    return address?.family === 'unix' ? { path: address.path } : null;
  },
);

/** `10.0.0.1:6080` with a port that is not 0: where something is sent to. */
export const ipRemoteAddress = text('an address and port, such as "192.0.2.1:6080"', (value) => {
  const address = parseSocketAddress(value);
  if (address === null || address.family === 'unix' || address.port === 0) return null;
  return address.address === '::' || address.address === '0.0.0.0' ? null : address;
}) as z.ZodType<IpSocketAddress, string>;

/** `host:port`: an address, or a name that is resolved when it is connected to. */
export const target = text('a host and port, such as "127.0.0.1:9000" or "app.example:80"', parseTarget);

/** An IPv4 or IPv6 address, in the form of RFC 5952. */
export const ipAddress = text('an IP address', (value) => {
  const bytes = parseIp(value);
  return bytes === null ? null : formatIp(bytes);
});

/** A prefix without host bits: `10.10.0.0/24`; a bare address is a full-length prefix. */
export const prefix = z.string().transform((value, context): IpPrefix => {
  const parsed = parsePrefix(value);
  const address = parseIp(value.split('/', 1)[0] as string);
  let message = '';
  if (parsed === null) message = 'does not fit; expected an IP prefix, such as "10.10.0.0/24" or "fd00::/8"';
  else if (address === null || formatIp(address) !== formatIp(parsed.bytes)) {
    message = `has address bits behind its length; did you mean "${formatPrefix(parsed)}"?`;
  }
  if (message === '') return parsed as IpPrefix;
  context.issues.push({ code: 'custom', message, input: value });
  return z.NEVER;
});

/** An address of an interface with the length of its network. */
export interface InterfaceAddress {
  readonly family: 4 | 6;
  /** RFC 5952 form. */
  readonly address: string;
  /** Length of the network's prefix in bits. */
  readonly length: number;
}

/** `100.64.0.1/32`; a bare address has full length. */
export const interfaceAddress = text(
  'an address with its prefix length, such as "100.64.0.1/32"',
  parseInterface,
);

/** Bytes of the largest packet. */
export const mtu = z.int().min(MTU_MIN).max(MTU_MAX);

/** A duration in milliseconds within bounds. */
export function duration(
  bounds: { readonly min: number; readonly max: number },
  words: string,
): z.ZodType<number, string> {
  return text(words, (value) => {
    const milliseconds = parseDuration(value);
    return milliseconds === null || milliseconds < bounds.min || milliseconds > bounds.max
      ? null
      : milliseconds;
  });
}

/** A number of bytes within bounds, as `64KiB` or a plain number. */
export function size(
  bounds: { readonly min: number; readonly max: number },
  words: string,
): z.ZodType<number, string | number> {
  return z.union([z.string(), z.int()]).transform((value, context) => {
    const bytes = typeof value === 'number' ? value : parseSize(value);
    if (bytes !== null && bytes >= bounds.min && bytes <= bounds.max) return bytes;
    context.issues.push({ code: 'custom', message: `does not fit; expected ${words}`, input: value });
    return z.NEVER;
  });
}

/** Parses `host:port`; null when malformed. Names are held in lower case. */
export function parseTarget(value: string): Target | null {
  const address = parseSocketAddress(value);
  if (address !== null && address.family !== 'unix') {
    const any = address.address === '::' || address.address === '0.0.0.0';
    return any || address.port === 0 ? null : { host: address.address, port: address.port };
  }
  const match = /^([A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):([0-9]{1,5})$/.exec(value);
  if (match === null || /^[0-9.]+$/.test(match[1] as string)) return null;
  const port = Number(match[2]);
  return port === 0 || port > 65535 ? null : { host: (match[1] as string).toLowerCase(), port };
}

function parseInterface(value: string): InterfaceAddress | null {
  const parsed = parsePrefix(value);
  const address = parseIp(value.split('/', 1)[0] as string);
  if (parsed === null || address === null) return null;
  return { family: parsed.family, address: formatIp(address), length: parsed.length };
}
