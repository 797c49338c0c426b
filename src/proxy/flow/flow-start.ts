/** Whether and how a packet may open a flow. Pure; the packet was parsed and found no flow. */
import { DropReason } from '#base/drop-reason.ts';
import { checkDestination, checkSource } from '#packet/address.ts';
import { IcmpKind, icmpKind } from '#packet/icmp.ts';
import { IpProtocol, type ParsedPacket, TcpFlag } from '#packet/parse.ts';
import type { IpTunnel } from '#proxy/proxy-contract.ts';

import { Direction } from './flow-table.ts';
import { isInPrefixes } from './sources.ts';
import { midStreamState, nextTcpState } from './tcp-state.ts';

/** Why the packet opens no flow, before anybody is asked; 0 when it may. */
export function checkStart(view: DataView, tunnel: IpTunnel, packet: ParsedPacket): DropReason {
  const martian = checkSource(view, packet);
  if (martian !== DropReason.None) return martian;
  if (!isInPrefixes(tunnel.context.sources, view, packet.addressOffset, packet.version)) {
    return DropReason.SpoofedSource;
  }
  const unroutable = checkDestination(view, packet);
  if (unroutable !== DropReason.None) return unroutable;
  if (packet.protocol === IpProtocol.Tcp) {
    const flags = packet.tcpFlags;
    const isAnswer = (flags & TcpFlag.Syn) !== 0 && (flags & TcpFlag.Ack) !== 0;
    return isAnswer || (flags & TcpFlag.Rst) !== 0 ? DropReason.NotFlowStart : DropReason.None;
  }
  return icmpKind(packet) === IcmpKind.EchoReply ? DropReason.IcmpUnrelated : DropReason.None;
}

/**
 * Why an ICMP message that is neither echo nor error is dropped: discovery is for the link, the rest is not
 * carried.
 */
export function unsupportedIcmpReason(view: DataView, packet: ParsedPacket): DropReason {
  const isLink =
    checkSource(view, packet) === DropReason.LinkScope ||
    checkDestination(view, packet) === DropReason.LinkScope;
  return isLink ? DropReason.LinkScope : DropReason.IcmpUnsupported;
}

/** True for a TCP segment from the middle of a connection. */
export function isMidStream(packet: ParsedPacket): boolean {
  return packet.protocol === IpProtocol.Tcp && (packet.tcpFlags & TcpFlag.Syn) === 0;
}

/** The TCP state of the flow that the packet opens; 0 for other protocols. */
export function startingState(packet: ParsedPacket): number {
  if (packet.protocol !== IpProtocol.Tcp) return 0;
  return isMidStream(packet)
    ? midStreamState(packet.tcpFlags)
    : nextTcpState(0, Direction.Up, packet.tcpFlags);
}
