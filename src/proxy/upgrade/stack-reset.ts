import { writeTransportChecksum } from '#packet/checksum.ts';
import { PacketEndpoints, writeIpHeader } from '#packet/build.ts';
import { IpProtocol, ParsedPacket, parsePacket, TcpFlag } from '#packet/parse.ts';
import { writeStackAddress } from '#proxy/flow/nat.ts';

/** A reset that a peer of the stack seems to send. */
export interface PeerReset {
  readonly version: number;
  /** The peer's address, 4 or 16 bytes at offset 0. */
  readonly peer: DataView;
  readonly peerPort: number;
  readonly stackPort: number;
  /**
   * What the stack has acknowledged last. If it has received more since, it answers with a challenge (RFC
   * 5961 section 3.2), and the answer to that is right.
   */
  readonly sequence: number;
}

const endpoints = new PacketEndpoints();
const addresses = new DataView(new ArrayBuffer(32));
const packet = new ParsedPacket();

/**
 * Writes the reset at `to` and returns its length. 0 when the stack's port is not known: then there is
 * nothing to reset.
 */
export function writePeerReset(view: DataView, to: number, reset: PeerReset): number {
  const { version, peer, peerPort, stackPort } = reset;
  if (peerPort === 0 || stackPort === 0) return 0;
  for (let i = 0; i < (version === 4 ? 4 : 16); i += 4) addresses.setInt32(i, peer.getInt32(i));
  writeStackAddress(addresses, 16, version);
  endpoints.view = addresses;
  endpoints.version = version;
  endpoints.sourceOffset = 0;
  endpoints.destinationOffset = 16;
  const at = writeIpHeader(view, to, 20, IpProtocol.Tcp, endpoints);
  view.setUint16(at, peerPort);
  view.setUint16(at + 2, stackPort);
  view.setInt32(at + 4, reset.sequence);
  view.setInt32(at + 8, 0);
  view.setUint16(at + 12, 0x5000 | TcpFlag.Rst);
  view.setInt32(at + 14, 0);
  view.setUint16(at + 18, 0);
  const length = at + 20 - to;
  parsePacket(view, to, length, packet);
  writeTransportChecksum(view, packet);
  return length;
}
