/**
 * ICMP errors of others, brought back to the flow that they are about. An error belongs to the flow of the
 * packet that it quotes, goes the other way, and is believed only when it comes by the tunnel that the quoted
 * packet left by and is addressed to that packet's sender.
 */
import { DropReason } from '#base/drop-reason.ts';
import { addressesEqual, addressLength, checkSource } from '#packet/address.ts';
import { parseQuoted } from '#packet/icmp.ts';
import type { ParsedPacket } from '#packet/parse.ts';
import type { IpTunnel } from '#proxy/proxy-contract.ts';

import { Direction, type FlowTable } from './flow-table.ts';

/**
 * The flow that an ICMP error is about, as `flow × 2 + direction of the quoted packet`, or −`DropReason`.
 * Fills `quoted`.
 */
export function flowOfError(
  table: FlowTable<unknown>,
  tunnel: IpTunnel,
  view: DataView,
  packets: { readonly error: ParsedPacket; readonly quoted: ParsedPacket },
): number {
  const { error, quoted } = packets;
  // Routers on the way may report from any address, but not from one that no host has.
  const martian = checkSource(view, error);
  if (martian !== DropReason.None) return -martian;
  const reason = parseQuoted(view, error, quoted);
  if (reason !== DropReason.None) return -reason;
  const hit = table.lookupTuple(tunnel.network, view, quoted);
  if (hit < 0) return -DropReason.IcmpUnrelated;
  const flow = hit >> 1;
  const leftBy = (hit & 1) === Direction.Up ? table.egress(flow) : table.ingress(flow);
  if (leftBy !== tunnel.index) return -DropReason.IcmpUnrelated;
  const { version } = error;
  const receiver = error.addressOffset + addressLength(version);
  if (!addressesEqual(view, receiver, view, quoted.addressOffset, version)) return -DropReason.IcmpUnrelated;
  return hit;
}
