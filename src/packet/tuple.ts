/** Hashes of five-tuples with their network: what the flow table is indexed by. */
import type { ParsedPacket } from './parse.ts';

/**
 * Hash of (network, protocol, source, destination, ports) in the packet's own direction, 32 bits signed. The
 * reply has another one; `hashReplyTuple` gives it. `network` is the number of the (account, vnet) pair, so
 * that equal addresses of two networks are different flows; it is mixed in, but only comparing it keeps flows
 * apart. `seed` is random per process: without it, a sender could choose tuples that collide.
 */
export function hashTuple(view: DataView, parsed: ParsedPacket, network: number, seed: number): number {
  const at = parsed.addressOffset;
  const half = parsed.version === 4 ? 4 : 16;
  const ports = (parsed.sourcePort << 16) | parsed.destinationPort;
  return hashWords(view, at, at + half, half, ports, start(parsed, network, seed));
}

/** The hash that `hashTuple` gives for a packet of the other direction. */
export function hashReplyTuple(view: DataView, parsed: ParsedPacket, network: number, seed: number): number {
  const at = parsed.addressOffset;
  const half = parsed.version === 4 ? 4 : 16;
  const ports = (parsed.destinationPort << 16) | parsed.sourcePort;
  return hashWords(view, at + half, at, half, ports, start(parsed, network, seed));
}

function start(parsed: ParsedPacket, network: number, seed: number): number {
  return mix(seed ^ (parsed.protocol << 8) ^ parsed.version, network);
}

function hashWords(
  view: DataView,
  source: number,
  destination: number,
  length: number,
  ports: number,
  initial: number,
): number {
  let hash = mix(mix(initial, view.getInt32(source)), view.getInt32(destination));
  for (let i = 4; i < length; i += 4) {
    hash = mix(mix(hash, view.getInt32(source + i)), view.getInt32(destination + i));
  }
  hash = mix(hash, ports);
  // The finish spreads every bit over all, so that the low bits alone can be an index.
  hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d);
  hash = Math.imul(hash ^ (hash >>> 15), 0x846ca68b | 0);
  return hash ^ (hash >>> 16);
}

/** One round: multiply, rotate, multiply. Odd constants with well-spread bits. */
function mix(hash: number, word: number): number {
  let product = Math.imul(word, 0xcc9e2d51 | 0);
  product = (product << 15) | (product >>> 17);
  const sum = hash ^ Math.imul(product, 0x1b873593);
  return (Math.imul((sum << 13) | (sum >>> 19), 5) + 0x6b64) | 0;
}
