import { foldSum, sumBytes, sumPseudoHeader, writeIpv4Checksum } from '#packet/checksum.ts';
import { IpProtocol, type ParsedPacket } from '#packet/parse.ts';
import { writeStackAddress } from '#proxy/flow/nat.ts';

const stack = new DataView(new ArrayBuffer(16));

/**
 * Makes an ICMP error about a packet that the stack had sent what the kernel expects: from the flow's peer
 * to the stack, and about a packet from the stack to the peer. So the kernel finds the socket, and sends
 * less at once (packet too big) or ends it (unreachable), as it would outside.
 *
 * @param error the message, with real addresses. @param quoted the packet in it, which may be cut after 8
 *   bytes of TCP.
 * @param to `peer` is the peer's address at offset 0, `stackPort` the socket's port.
 * @returns false when the quoted packet is not TCP, or is cut before its ports.
 */
export function rewriteErrorForStack(
  view: DataView,
  error: ParsedPacket,
  quoted: ParsedPacket,
  to: { readonly peer: DataView; readonly stackPort: number },
): boolean {
  const end = error.offset + error.totalLength;
  if (quoted.protocol !== IpProtocol.Tcp || quoted.version !== error.version) return false;
  if (quoted.transportOffset + 8 > end) return false;
  const { version } = error;
  const bytes = version === 4 ? 4 : 16;
  writeStackAddress(stack, 0, version);
  copyWords(to.peer, view, error.addressOffset, bytes);
  copyWords(stack, view, error.addressOffset + bytes, bytes);
  copyWords(stack, view, quoted.addressOffset, bytes);
  copyWords(to.peer, view, quoted.addressOffset + bytes, bytes);
  // The peer's port is the same on both sides.
  view.setUint16(quoted.transportOffset, to.stackPort);
  if (version === 4) {
    writeIpv4Checksum(view, quoted.offset, (view.getUint8(quoted.offset) & 15) * 4);
    writeIpv4Checksum(view, error.offset, error.headerLength);
  }
  const at = error.transportOffset;
  view.setUint16(at + 2, 0);
  const data = sumBytes(view, at, end - at);
  const sum = version === 4 ? data : foldSum(data + sumPseudoHeader(view, error, end - at));
  view.setUint16(at + 2, ~sum & 0xffff);
  return true;
}

function copyWords(from: DataView, to: DataView, offset: number, bytes: number): void {
  for (let i = 0; i < bytes; i += 4) to.setInt32(offset + i, from.getInt32(i));
}
