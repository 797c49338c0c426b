import { IpProtocol } from '#packet/parse.ts';
import type { Limits } from '#proxy/proxy-contract.ts';

import { isTcpOver, isTcpReset, TcpBit } from './tcp-state.ts';

/** The limits of silence. */
export type FlowTimeouts = Pick<
  Limits,
  'tcpHandshakeMs' | 'tcpIdleMs' | 'tcpClosingMs' | 'udpIdleMs' | 'icmpIdleMs' | 'otherIdleMs'
>;

/** A reset connection is remembered this long at most: only stragglers are still to come. */
const TCP_RESET_MS = 10_000;

/** After how much silence a flow of the protocol, in the TCP state, is forgotten. Milliseconds. */
export function flowTimeoutMs(limits: FlowTimeouts, protocol: number, tcpState: number): number {
  if (protocol === IpProtocol.Tcp) return tcpTimeoutMs(limits, tcpState);
  if (protocol === IpProtocol.Udp) return limits.udpIdleMs;
  const isIcmp = protocol === IpProtocol.Icmp4 || protocol === IpProtocol.Icmp6;
  return isIcmp ? limits.icmpIdleMs : limits.otherIdleMs;
}

function tcpTimeoutMs(limits: FlowTimeouts, state: number): number {
  if (isTcpOver(state)) {
    return isTcpReset(state) ? Math.min(limits.tcpClosingMs, TCP_RESET_MS) : limits.tcpClosingMs;
  }
  return (state & TcpBit.Established) !== 0 ? limits.tcpIdleMs : limits.tcpHandshakeMs;
}
