import { formatIp, parseIp, type SocketAddress, unmapIp } from '#base/ip.ts';
import type { Endpoint } from '#contract/context.ts';

/**
 * An end of a socket as flows name it: IPv4 is IPv4, also on a dual-stack socket; a Unix socket has no
 * address.
 */
export function socketEndpoint(address: SocketAddress): Endpoint {
  if (address.family === 'unix') return { address: 'unix', port: 0 };
  return { address: formatIp(unmapIp(parseIp(address.address) as Uint8Array)), port: address.port };
}
