/**
 * What a flow's two ends have said, as far as forgetting it in time needs: sequence numbers and windows are
 * not looked at, so nothing a peer does can make a good connection stall here.
 *
 * ```
 *   SYN ─► Handshake ─ SYN back, then ACK ─► Established ─ FIN both ways, RST ─► Closing ─ SYN ─► new flow
 *                                (one FIN alone stays Established: half-closed streams may live long)
 * ```
 */
import { CloseReason } from '#contract/record.ts';
import { TcpFlag } from '#packet/parse.ts';

/** Bits of the state. Up is from the flow's first sender, down is back. */
export const TcpBit = Object.freeze({
  SynUp: 1,
  SynDown: 2,
  /** The handshake is over, or the flow was picked up in the middle. */
  Established: 4,
  FinUp: 8,
  FinDown: 16,
  RstUp: 32,
  RstDown: 64,
  /** The first FIN or RST came from the far side. */
  DownFirst: 128,
} as const);

const SYN_BOTH = TcpBit.SynUp | TcpBit.SynDown;
const FIN_BOTH = TcpBit.FinUp | TcpBit.FinDown;
const RST_ANY = TcpBit.RstUp | TcpBit.RstDown;

/** The state after a segment with `flags`; `direction` is 0 up, 1 down. */
export function nextTcpState(state: number, direction: number, flags: number): number {
  // Most segments of an established connection end here.
  if ((flags & (TcpFlag.Syn | TcpFlag.Fin | TcpFlag.Rst)) === 0) {
    return (state & SYN_BOTH) === SYN_BOTH && (flags & TcpFlag.Ack) !== 0
      ? state | TcpBit.Established
      : state;
  }
  let next = state;
  if ((flags & TcpFlag.Syn) !== 0) next |= TcpBit.SynUp << direction;
  const isEnd = (flags & (TcpFlag.Fin | TcpFlag.Rst)) !== 0;
  if (isEnd && (state & (FIN_BOTH | RST_ANY)) === 0 && direction === 1) next |= TcpBit.DownFirst;
  if ((flags & TcpFlag.Fin) !== 0) next |= TcpBit.FinUp << direction;
  if ((flags & TcpFlag.Rst) !== 0) next |= TcpBit.RstUp << direction;
  return next;
}

/** The state of a flow whose first packet seen here is no SYN. */
export function midStreamState(flags: number): number {
  return nextTcpState(TcpBit.Established, 0, flags);
}

/**
 * True when both ends are done, so that a SYN with the same tuple is a new connection (RFC 9293 section
 * 3.6.1).
 */
export function isTcpOver(state: number): boolean {
  return (state & RST_ANY) !== 0 || (state & FIN_BOTH) === FIN_BOTH;
}

/** True after a reset from either end. */
export function isTcpReset(state: number): boolean {
  return (state & RST_ANY) !== 0;
}

/** Why a flow with this state ended, when it ended by itself or by the clock. */
export function tcpCloseReason(state: number): CloseReason {
  if ((state & (FIN_BOTH | RST_ANY)) === 0) return CloseReason.ClientIdle;
  if ((state & RST_ANY) === 0) {
    if ((state & FIN_BOTH) !== FIN_BOTH) return CloseReason.ClientIdle;
    return (state & TcpBit.DownFirst) !== 0 ? CloseReason.OriginClosed : CloseReason.ClientClosed;
  }
  // A reset that follows FINs is the untidy end of an orderly one.
  if ((state & FIN_BOTH) !== 0) {
    return (state & TcpBit.DownFirst) !== 0 ? CloseReason.OriginClosed : CloseReason.ClientClosed;
  }
  if ((state & TcpBit.RstDown) === 0) return CloseReason.ClientError;
  return (state & (TcpBit.SynDown | TcpBit.Established)) === 0
    ? CloseReason.OriginUnreachable
    : CloseReason.OriginError;
}

/** The state in a word, for people. */
export function tcpStateName(state: number): string {
  if ((state & RST_ANY) !== 0) return 'reset';
  if ((state & FIN_BOTH) === FIN_BOTH) return 'closed';
  if ((state & FIN_BOTH) !== 0) return 'half-closed';
  return (state & TcpBit.Established) !== 0 ? 'established' : 'handshake';
}
