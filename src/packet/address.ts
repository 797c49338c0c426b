/** Addresses as they stand in packets: 4 or 16 bytes at an offset. Text is made only for people. */
import { DropReason } from '#base/drop-reason.ts';
import { formatIp } from '#base/ip.ts';

import type { ParsedPacket } from './parse.ts';

/** 4 or 16. */
export function addressLength(version: number): number {
  return version === 4 ? 4 : 16;
}

/** True when the addresses of the version at both places are equal. */
export function addressesEqual(
  view: DataView,
  offset: number,
  other: DataView,
  otherOffset: number,
  version: number,
): boolean {
  if (view.getInt32(offset) !== other.getInt32(otherOffset)) return false;
  if (version === 4) return true;
  return (
    view.getInt32(offset + 4) === other.getInt32(otherOffset + 4) &&
    view.getInt32(offset + 8) === other.getInt32(otherOffset + 8) &&
    view.getInt32(offset + 12) === other.getInt32(otherOffset + 12)
  );
}

/** Copies an address of the version. Views may be the same. */
export function copyAddress(
  from: DataView,
  fromOffset: number,
  to: DataView,
  toOffset: number,
  version: number,
): void {
  to.setInt32(toOffset, from.getInt32(fromOffset));
  if (version === 4) return;
  to.setInt32(toOffset + 4, from.getInt32(fromOffset + 4));
  to.setInt32(toOffset + 8, from.getInt32(fromOffset + 8));
  to.setInt32(toOffset + 12, from.getInt32(fromOffset + 12));
}

/** A copy of the address: 4 or 16 bytes that the caller owns. Cold path. */
export function readAddress(view: DataView, offset: number, version: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + offset, addressLength(version)).slice();
}

/** Writes 4 or 16 bytes. Cold path. */
export function writeAddress(view: DataView, offset: number, address: Uint8Array): void {
  for (let i = 0; i < address.length; i++) view.setUint8(offset + i, address[i] as number);
}

/** Text of the address at `offset`, as `formatIp` writes it. Cold path. */
export function formatAddressAt(view: DataView, offset: number, version: number): string {
  return formatIp(readAddress(view, offset, version));
}

/** What kind of address stands at a place. */
export const AddressScope = Object.freeze({
  /** An ordinary unicast address, private ones included. */
  Unicast: 0,
  /** 0.0.0.0/8, ::. */
  Unspecified: 1,
  /** 127.0.0.0/8, ::1. */
  Loopback: 2,
  /** 169.254.0.0/16 with the cloud metadata address, fe80::/10. */
  LinkLocal: 3,
  /** 224.0.0.0/4, ff00::/8. */
  Multicast: 4,
  /** 240.0.0.0/4 with the limited broadcast; IPv4-mapped, IPv4-compatible and discard-only IPv6. */
  Reserved: 5,
} as const);

/** One of the numbers of `AddressScope`. */
export type AddressScope = (typeof AddressScope)[keyof typeof AddressScope];

/** The scope of the address at `offset` (RFC 6890 registries). */
export function addressScope(view: DataView, offset: number, version: number): AddressScope {
  return version === 4 ? ipv4Scope(view.getInt32(offset)) : ipv6Scope(view, offset);
}

function ipv4Scope(address: number): AddressScope {
  const first = address >>> 24;
  if (first === 0) return AddressScope.Unspecified;
  if (first === 127) return AddressScope.Loopback;
  if (first >= 240) return AddressScope.Reserved;
  if (first >= 224) return AddressScope.Multicast;
  return address >>> 16 === 0xa9fe ? AddressScope.LinkLocal : AddressScope.Unicast;
}

function ipv6Scope(view: DataView, offset: number): AddressScope {
  const word = view.getInt32(offset);
  if (word === 0 && view.getInt32(offset + 4) === 0) {
    const third = view.getInt32(offset + 8);
    const last = view.getInt32(offset + 12);
    if (third === 0 && last === 0) return AddressScope.Unspecified;
    if (third === 0 && last === 1) return AddressScope.Loopback;
    // The rest of ::/64 holds IPv4-compatible and IPv4-mapped forms, which must not be on a wire (RFC 4291).
    return AddressScope.Reserved;
  }
  if (word >>> 24 === 0xff) return AddressScope.Multicast;
  if ((word & 0xffc00000) === 0xfe800000 >> 0) return AddressScope.LinkLocal;
  // 100::/64, discard-only (RFC 6666).
  if (word === 0x01000000 && view.getInt32(offset + 4) === 0) return AddressScope.Reserved;
  return AddressScope.Unicast;
}

/**
 * Whether the packet may come from its source at all: a martian source could not be answered. A packet that
 * claims to come from its own destination is one too ("land").
 *
 * @returns 0, `MartianSource`, or `LinkScope` for link-local ones, which no router forwards (RFC 3927, RFC
 * 4291).
 */
export function checkSource(view: DataView, parsed: ParsedPacket): DropReason {
  const at = parsed.addressOffset;
  const scope = addressScope(view, at, parsed.version);
  if (scope === AddressScope.LinkLocal) return DropReason.LinkScope;
  if (scope !== AddressScope.Unicast) return DropReason.MartianSource;
  const destination = at + addressLength(parsed.version);
  return addressesEqual(view, at, view, destination, parsed.version)
    ? DropReason.MartianSource
    : DropReason.None;
}

/**
 * Whether the packet may go to its destination: 0, `MartianDestination` or `LinkScope`. Multicast is not
 * routed.
 */
export function checkDestination(view: DataView, parsed: ParsedPacket): DropReason {
  const at = parsed.addressOffset + addressLength(parsed.version);
  const scope = addressScope(view, at, parsed.version);
  if (scope === AddressScope.LinkLocal) return DropReason.LinkScope;
  return scope === AddressScope.Unicast ? DropReason.None : DropReason.MartianDestination;
}
