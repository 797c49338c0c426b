/** Writes captured packets as a pcapng file (draft-ietf-opsawg-pcapng), which Wireshark and tcpdump read. */
import type { CapturedPacket } from '#contract/agent.ts';

/** LINKTYPE_RAW: the packet begins with its IPv4 or IPv6 header. */
const LINKTYPE_RAW = 101;

const BLOCK_SECTION = 0x0a0d0d0a;
const BLOCK_INTERFACE = 1;
const BLOCK_PACKET = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const OPTION_END = 0;
const OPTION_INTERFACE_NAME = 2;
const OPTION_FLAGS = 2;
const FLAG_INBOUND = 1;
const FLAG_OUTBOUND = 2;

/**
 * Makes the blocks of one file. Each tunnel of each network is an interface of its own, named
 * `account/vnet tunnel`.
 */
export class PcapWriter {
  readonly #interfaces = new Map<string, number>();

  /** What the file begins with. */
  header(): Uint8Array {
    return block(BLOCK_SECTION, 16, (view) => {
      view.setUint32(0, BYTE_ORDER_MAGIC, true);
      view.setUint16(4, 1, true);
      // Section length unknown: all ones.
      view.setUint32(8, 0xffffffff, true);
      view.setUint32(12, 0xffffffff, true);
    });
  }

  /** The blocks of one packet: its interface's too when it is the first of it. */
  packet(packet: CapturedPacket): Uint8Array[] {
    const name = `${packet.account}/${packet.vnet} ${packet.tunnel}`;
    const blocks: Uint8Array[] = [];
    let number = this.#interfaces.get(name);
    if (number === undefined) {
      number = this.#interfaces.size;
      this.#interfaces.set(name, number);
      blocks.push(interfaceBlock(name));
    }
    blocks.push(packetBlock(packet, number));
    return blocks;
  }
}

function interfaceBlock(name: string): Uint8Array {
  const text = new TextEncoder().encode(name);
  return block(BLOCK_INTERFACE, 8 + 4 + padded(text.length) + 4, (view, bytes) => {
    view.setUint16(0, LINKTYPE_RAW, true);
    view.setUint16(8, OPTION_INTERFACE_NAME, true);
    view.setUint16(10, text.length, true);
    bytes.set(text, 12);
    view.setUint32(12 + padded(text.length), OPTION_END, true);
  });
}

function packetBlock(packet: CapturedPacket, number: number): Uint8Array {
  const { bytes } = packet;
  return block(BLOCK_PACKET, 20 + padded(bytes.length) + 8 + 4, (view, body) => {
    view.setUint32(0, number, true);
    view.setUint32(4, Math.floor(packet.at / 2 ** 32), true);
    view.setUint32(8, packet.at % 2 ** 32, true);
    view.setUint32(12, bytes.length, true);
    view.setUint32(16, packet.length, true);
    body.set(bytes, 20);
    const options = 20 + padded(bytes.length);
    view.setUint16(options, OPTION_FLAGS, true);
    view.setUint16(options + 2, 4, true);
    view.setUint32(options + 4, packet.direction === 'in' ? FLAG_INBOUND : FLAG_OUTBOUND, true);
    view.setUint32(options + 8, OPTION_END, true);
  });
}

/** A block: type, length, body, length again. `bodyLength` is a multiple of 4. */
function block(
  type: number,
  bodyLength: number,
  fill: (view: DataView, bytes: Uint8Array) => void,
): Uint8Array {
  const bytes = new Uint8Array(bodyLength + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, bytes.length, true);
  fill(new DataView(bytes.buffer, 8, bodyLength), bytes.subarray(8, 8 + bodyLength));
  view.setUint32(bytes.length - 4, bytes.length, true);
  return bytes;
}

function padded(length: number): number {
  return (length + 3) & ~3;
}
