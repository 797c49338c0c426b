/**
 * Endpoints of peers: socket addresses in the kernel's form (struct sockaddr_in of 16 bytes, sockaddr_in6 of
 * 28), as sockets give and take them. Compared and copied without allocation.
 */
import { assert } from '#base/assert.ts';

/** Room that holds either form. */
export const ENDPOINT_BYTES = 28;

const FAMILY_INET = 2;
const FAMILY_INET6 = 10;

/** Bytes of the address at `at`, 16 or 28; 0 when its family is neither. */
export function endpointLength(view: DataView, at: number): number {
  const family = view.getUint16(at, true);
  return family === FAMILY_INET ? 16 : family === FAMILY_INET6 ? 28 : 0;
}

/**
 * Bytes that tell endpoints apart: IPv4 has family, port and address; IPv6 has flow information (zero) and
 * scope besides.
 */
function significantLength(view: DataView, at: number): number {
  return view.getUint16(at, true) === FAMILY_INET ? 8 : ENDPOINT_BYTES;
}

/** True when `stored`, from `copyEndpoint`, is the address at `at`. */
export function isEndpoint(stored: DataView, view: DataView, at: number): boolean {
  const length = significantLength(view, at);
  for (let i = 0; i < length; i += 4) {
    if (stored.getInt32(i) !== view.getInt32(at + i)) return false;
  }
  return true;
}

/** Copies the address at `at` to the beginning of `into`, which has `ENDPOINT_BYTES`. */
export function copyEndpoint(view: DataView, at: number, into: DataView): void {
  assert(into.byteLength >= ENDPOINT_BYTES && endpointLength(view, at) > 0);
  const length = significantLength(view, at);
  for (let i = 0; i < ENDPOINT_BYTES; i += 4) into.setInt32(i, i < length ? view.getInt32(at + i) : 0);
}

/** IP address and port of an endpoint as the input of a cookie: 18 bytes, IPv4 being mapped; the caller's. */
export function cookieInput(view: DataView, at: number): Uint8Array {
  const input = new Uint8Array(18);
  const isV4 = view.getUint16(at, true) === FAMILY_INET;
  if (isV4) input[10] = input[11] = 0xff;
  for (let i = isV4 ? 12 : 0; i < 16; i++) input[i] = view.getUint8(isV4 ? at + i - 8 : at + 8 + i);
  input[16] = view.getUint8(at + 2);
  input[17] = view.getUint8(at + 3);
  return input;
}

/** First word of what counts as one source: all of an IPv4 address, half of the first 64 bits of IPv6. */
export function sourceHigh(view: DataView, at: number): number {
  return view.getUint16(at, true) === FAMILY_INET ? view.getInt32(at + 4) : view.getInt32(at + 8);
}

/** Second word: the other half for IPv6. One for IPv4, so that no two families are one source. */
export function sourceLow(view: DataView, at: number): number {
  return view.getUint16(at, true) === FAMILY_INET ? 1 : view.getInt32(at + 12);
}
