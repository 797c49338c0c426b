import { DropReason } from '#base/drop-reason.ts';
import { parseIp } from '#base/ip.ts';
import { CloseReason } from '#contract/record.ts';
import {
  IcmpError,
  PacketEndpoints,
  udpHeadersLength,
  writeIcmpError,
  writeUdpHeaders,
} from '#packet/build.ts';
import { verifyTransportChecksum, writeIpv4Checksum } from '#packet/checksum.ts';
import { ParsedPacket, parsePacket } from '#packet/parse.ts';
import { GsoType, gsoSize, gsoType, isChecksumTrusted, PACKET_HEADROOM } from '#packet/virtio-header.ts';
import type { FlowIndex } from '#proxy/flow/flow-table.ts';
import type { ColdInfo, FlowHost, PacketUpgrade } from '#proxy/flow/packet-upgrade.ts';
import type { Session, SessionClient, SessionOpener, Worker } from '#proxy/proxy-contract.ts';

/**
 * Datagrams above this many bytes may have to be fragmented on the way to the client, so DF is not set on
 * them.
 */
const UNFRAGMENTED_MAX = 1200;

/**
 * What a client is told about a target that a session could not reach, as a router or the target itself
 * would.
 */
const ERROR_OF_END: Readonly<Partial<Record<CloseReason, IcmpError>>> = Object.freeze({
  [CloseReason.OriginUnreachable]: IcmpError.PortUnreachable,
  [CloseReason.OriginUnroutable]: IcmpError.HostUnreachable,
  [CloseReason.Policy]: IcmpError.AdminProhibited,
});

/**
 * Lifts UDP flows to sessions: headers are taken off on the way up and written on the way down. No kernel in
 * between, which a stack would need for TCP only.
 */
export class SessionUpgrade implements PacketUpgrade {
  readonly #worker: Worker;
  readonly #host: FlowHost;
  readonly #opener: SessionOpener;
  readonly #clients: (FlowClient | null)[] = [];
  readonly #free: number[] = [];

  constructor(worker: Worker, host: FlowHost, opener: SessionOpener) {
    this.#worker = worker;
    this.#host = host;
    this.#opener = opener;
  }

  open(flow: FlowIndex): number {
    const info = this.#host.coldInfo(flow);
    const client = new FlowClient(this.#worker, this.#host, flow, info);
    const session = this.#opener.open(
      {
        context: info.context,
        network: info.network,
        flow: info.flow,
        source: info.source,
        destination: info.destination,
        route: info.via,
        rule: info.rule,
      },
      client,
    );
    if ('refused' in session) return -DropReason.Policy;
    client.session = session;
    const handle = this.#free.pop() ?? this.#clients.length;
    this.#clients[handle] = client;
    return handle;
  }

  deliver(_flow: FlowIndex, handle: number, _direction: number, offset: number, _length: number): DropReason {
    const client = this.#clients[handle] as FlowClient;
    const { packet } = this.#host;
    const session = client.session as Session;
    const { view } = this.#worker.io.arena;
    if (!isChecksumTrusted(view, offset) && !verifyTransportChecksum(view, packet)) {
      // The target's kernel gets a checksum of its own, which would make damaged bytes look whole.
      this.#worker.packets.release(offset);
      return DropReason.BadTransportChecksum;
    }
    if (gsoType(view, offset) === GsoType.UdpL4) {
      sendEach(session, packet.payloadOffset, packet.payloadLength, gsoSize(view, offset));
    } else session.send(packet.payloadOffset, packet.payloadLength);
    this.#worker.packets.release(offset);
    return DropReason.None;
  }

  deliverError(flow: FlowIndex, _handle: number, offset: number): DropReason {
    this.#worker.packets.release(offset);
    // The client has closed its port: what comes from the target would only be refused again.
    this.#host.endFlow(flow, CloseReason.ClientClosed);
    return DropReason.None;
  }

  flush(): void {}

  closed(_flow: FlowIndex, handle: number, reason: CloseReason): boolean {
    const client = this.#clients[handle] as FlowClient;
    this.#clients[handle] = null;
    this.#free.push(handle);
    client.session?.close(reason);
    return true;
  }
}

/** A super-packet of equal datagrams (UDP segmentation offload) is sent datagram by datagram. */
function sendEach(session: Session, payload: number, length: number, size: number): void {
  for (let at = 0; at < length; at += size) session.send(payload + at, Math.min(size, length - at));
}

/** The client's side of one flow's session. */
class FlowClient implements SessionClient {
  session: Session | null = null;
  readonly #worker: Worker;
  readonly #host: FlowHost;
  readonly #flow: FlowIndex;
  /** From the target to the client. */
  readonly #endpoints = new PacketEndpoints();
  #identification = 0;

  constructor(worker: Worker, host: FlowHost, flow: FlowIndex, info: ColdInfo) {
    this.#worker = worker;
    this.#host = host;
    this.#flow = flow;
    const source = parseIp(info.destination.address) as Uint8Array;
    const destination = parseIp(info.source.address) as Uint8Array;
    const both = new Uint8Array(source.length * 2);
    both.set(source);
    both.set(destination, source.length);
    const endpoints = this.#endpoints;
    endpoints.view = new DataView(both.buffer);
    endpoints.version = source.length === 4 ? 4 : 6;
    endpoints.destinationOffset = source.length;
    endpoints.sourcePort = info.destination.port;
    endpoints.destinationPort = info.source.port;
  }

  onDatagram(payload: number, length: number): void {
    const { view } = this.#worker.io.arena;
    const to = payload - udpHeadersLength(this.#endpoints.version);
    const total = writeUdpHeaders(view, to, length, this.#endpoints);
    if (this.#endpoints.version === 4 && length > UNFRAGMENTED_MAX) this.#allowFragments(view, to);
    this.#host.emit(this.#flow, 1, to, total);
  }

  onSessionEnd(reason: CloseReason): void {
    const error = ERROR_OF_END[reason];
    if (error !== undefined) this.#tell(error);
    this.#host.endFlow(this.#flow, reason);
  }

  /**
   * Sends an ICMP error about the client's datagrams, which are gone: headers alone are what it is known by.
   */
  #tell(error: IcmpError): void {
    const { io, packets } = this.#worker;
    const { view } = io.arena;
    const quoted = packets.acquire();
    const slot = quoted < 0 ? -1 : packets.acquire();
    if (slot >= 0) {
      const about = quoted + PACKET_HEADROOM;
      const parsed = new ParsedPacket();
      parsePacket(view, about, writeUdpHeaders(view, about, 0, this.#reversed()), parsed);
      const length = writeIcmpError(view, parsed, slot + PACKET_HEADROOM, error);
      if (length > 0) this.#host.emit(this.#flow, 1, slot + PACKET_HEADROOM, length);
      else packets.release(slot);
    }
    if (quoted >= 0) packets.release(quoted);
  }

  /** From the client to the target. */
  #reversed(): PacketEndpoints {
    const own = this.#endpoints;
    const endpoints = new PacketEndpoints();
    endpoints.view = own.view;
    endpoints.version = own.version;
    endpoints.sourceOffset = own.destinationOffset;
    endpoints.destinationOffset = own.sourceOffset;
    endpoints.sourcePort = own.destinationPort;
    endpoints.destinationPort = own.sourcePort;
    return endpoints;
  }

  /** Clears DF; then the identification has to differ from packet to packet (RFC 6864 section 4.1). */
  #allowFragments(view: DataView, to: number): void {
    this.#identification = (this.#identification + 1) & 0xffff;
    view.setUint16(to + 4, this.#identification);
    view.setUint16(to + 6, 0);
    writeIpv4Checksum(view, to, 20);
  }
}
