import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';
import { formatIp } from '#base/ip.ts';
import { connectEchoSocket, type EchoSocket, type EchoSocketKind, openEchoSocket } from '#io/echo-socket.ts';
import { Errno, type Fd } from '#io/io.ts';
import { readAddress } from '#packet/address.ts';
import { IcmpError, PacketEndpoints, writeIcmpError, writeIpHeader } from '#packet/build.ts';
import {
  delta16,
  updateChecksum,
  verifyTransportChecksum,
  writeTransportChecksum,
} from '#packet/checksum.ts';
import { copyBytes } from '#packet/copy.ts';
import { IpProtocol, ParsedPacket, parsePacket } from '#packet/parse.ts';
import { isChecksumTrusted, PACKET_HEADROOM } from '#packet/virtio-header.ts';
import type { FlowIndex } from '#proxy/flow/flow-table.ts';
import type { FlowHost, PacketUpgrade } from '#proxy/flow/packet-upgrade.ts';
import type { Worker } from '#proxy/proxy-contract.ts';
import { READ_BATCH, ReadLoop, ReadNext, type ReadOwner } from '#proxy/tunnel/read-loop.ts';

/** Echo flows at one time: each holds a descriptor. A flow is one run of `ping`. */
export const ECHO_FLOWS_MAX = 1024;

/** Identifiers of raw sockets are chosen here; 0 is not used. */
const IDENTIFIERS = 0xffff;

/**
 * ICMP echo that leaves by sockets of this host: each flow has a socket, its requests are sent by it, and
 * the replies are brought back as packets of the flow. What may be opened (ping socket, raw socket,
 * nothing) is the kernel's to say; where nothing may, the client is answered that it is prohibited.
 */
export class EchoUpgrade implements PacketUpgrade {
  readonly #worker: Worker;
  readonly #host: FlowHost;
  readonly #flows: (EchoFlow | null)[] = [];
  readonly #free: number[] = [];
  readonly #open: typeof openEchoSocket;
  #identifier: number;

  /** `firstIdentifier` is random, so that two processes of one host rarely take each other's replies. */
  constructor(
    worker: Worker,
    options: {
      readonly host: FlowHost;
      readonly firstIdentifier?: number;
      /** Opens a socket; default is this host's. Negative errno when none is permitted. */
      readonly open?: typeof openEchoSocket;
    },
  ) {
    this.#worker = worker;
    this.#host = options.host;
    this.#open = options.open ?? openEchoSocket;
    this.#identifier = options.firstIdentifier ?? Math.floor(Math.random() * IDENTIFIERS);
  }

  /** Flows that are open. */
  get flows(): number {
    return this.#flows.length - this.#free.length;
  }

  open(flow: FlowIndex): number {
    if (this.flows >= ECHO_FLOWS_MAX) return -DropReason.NatFull;
    this.#identifier = (this.#identifier % IDENTIFIERS) + 1;
    const echo = new EchoFlow(this.#worker, this.#host, {
      flow,
      identifier: this.#identifier,
      socket: this.#open(this.#host.table.version(flow) === 4 ? 4 : 6),
    });
    const handle = this.#free.pop() ?? this.#flows.length;
    this.#flows[handle] = echo;
    return handle;
  }

  deliver(flow: FlowIndex, handle: number, _direction: number, offset: number): DropReason {
    const echo = this.#flows[handle];
    assert(echo?.flow === flow);
    const { view } = this.#worker.io.arena;
    if (!isChecksumTrusted(view, offset) && !verifyTransportChecksum(view, this.#host.packet)) {
      // The kernel writes a checksum of its own, which would make damaged bytes look whole.
      this.#worker.packets.release(offset);
      return DropReason.BadTransportChecksum;
    }
    return echo.request(offset);
  }

  deliverError(_flow: FlowIndex, _handle: number, offset: number): DropReason {
    // About a reply that was sent back. Nobody waits for it.
    this.#worker.packets.release(offset);
    return DropReason.IcmpUnrelated;
  }

  flush(): void {}

  closed(flow: FlowIndex, handle: number): boolean {
    const echo = this.#flows[handle];
    assert(echo?.flow === flow);
    echo.close();
    this.#flows[handle] = null;
    this.#free.push(handle);
    return false;
  }
}

const endpoints = new PacketEndpoints();
const addresses = new DataView(new ArrayBuffer(32));
const reply = new ParsedPacket();

/** One flow's socket. */
class EchoFlow implements ReadOwner {
  readonly flow: FlowIndex;
  readonly #worker: Worker;
  readonly #host: FlowHost;
  readonly #view: DataView;
  readonly #version: 4 | 6;
  readonly #loop: ReadLoop;
  /** What its requests carry outside; a ping socket's is the kernel's. */
  readonly #identifier: number;
  /** −1 when none could be opened. */
  readonly #fd: Fd;
  readonly #kind: EchoSocketKind;
  /** How requests are answered when there is no socket. */
  readonly #refusal: IcmpError;

  constructor(
    worker: Worker,
    host: FlowHost,
    options: { flow: FlowIndex; identifier: number; socket: EchoSocket | number },
  ) {
    this.flow = options.flow;
    this.#worker = worker;
    this.#host = host;
    this.#view = worker.io.arena.view;
    this.#identifier = options.identifier;
    this.#version = host.table.version(options.flow) === 4 ? 4 : 6;
    this.#loop = new ReadLoop(worker.io, this);
    const { socket } = options;
    if (typeof socket === 'number') {
      this.#fd = -1;
      this.#kind = 'raw';
      const isForbidden = socket === -Errno.EPERM || socket === -Errno.EACCES;
      this.#refusal = isForbidden ? IcmpError.AdminProhibited : IcmpError.HostUnreachable;
      return;
    }
    this.#kind = socket.kind;
    this.#refusal = IcmpError.HostUnreachable;
    if (connectEchoSocket(socket.fd, this.#peer()) < 0) {
      worker.io.close(socket.fd);
      this.#fd = -1;
      return;
    }
    this.#fd = socket.fd;
    this.#loop.start(socket.fd);
  }

  /** Sends the request in `host.packet`; takes its slot. */
  request(slot: number): DropReason {
    const { packet } = this.#host;
    const { packets, io } = this.#worker;
    const view = this.#view;
    if (packet.icmpType !== (this.#version === 4 ? 8 : 128)) {
      packets.release(slot);
      return DropReason.IcmpUnrelated;
    }
    if (this.#fd < 0) return this.#refuse(slot, this.#refusal);
    const at = packet.transportOffset;
    const length = packet.offset + packet.totalLength - at;
    if (this.#kind === 'raw') {
      const before = view.getUint16(at + 4);
      view.setUint16(at + 4, this.#identifier);
      const checksum = updateChecksum(view.getUint16(at + 2), delta16(before, this.#identifier));
      view.setUint16(at + 2, checksum);
    }
    const result = io.trySend(this.#fd, at, length);
    if (result === -Errno.EHOSTUNREACH || result === -Errno.ENETUNREACH || result === -Errno.ECONNREFUSED) {
      if (this.#kind === 'raw') view.setUint16(at + 4, packet.sourcePort);
      return this.#refuse(slot, IcmpError.HostUnreachable);
    }
    packets.release(slot);
    if (result >= 0) return DropReason.None;
    if (result === -Errno.EMSGSIZE) return DropReason.PacketTooLong;
    return result === -Errno.EAGAIN || result === -Errno.ENOBUFS
      ? DropReason.QueueFull
      : DropReason.SendFailed;
  }

  close(): void {
    if (this.#fd < 0) return;
    this.#loop.stop();
    this.#worker.io.close(this.#fd);
  }

  onReadable(): ReadNext {
    const { packets, io } = this.#worker;
    // A raw IPv4 socket gives the IP header too; everything else begins with ICMP, behind room for one.
    const header = this.#version === 4 ? 20 : 40;
    const front = this.#version === 4 && this.#kind === 'raw' ? 0 : header;
    for (let count = 0; count < READ_BATCH; count++) {
      const slot = packets.acquire();
      if (slot < 0) return ReadNext.Pause;
      const offset = slot + PACKET_HEADROOM;
      const room = packets.slotBytes - PACKET_HEADROOM - front;
      const length = io.tryRecv(this.#fd, offset + front, room);
      if (length === -Errno.EAGAIN) {
        packets.release(slot);
        return ReadNext.Wait;
      }
      const messageLength = length <= 0 ? 0 : this.#locate(offset, length, header);
      // An ICMP error that the kernel reports of an earlier request: the next request will show it.
      if (messageLength === 0 || !this.#isOurs(offset + header, messageLength)) packets.release(slot);
      else this.#emit(offset, header, messageLength);
    }
    return ReadNext.Wait;
  }

  /** Puts the ICMP message to `offset + header`; its length, 0 for what is none. */
  #locate(offset: number, length: number, header: number): number {
    if (this.#kind === 'ping' || this.#version === 6) return length;
    const ihl = (this.#view.getUint8(offset) & 15) * 4;
    if (ihl < header || ihl >= length) return 0;
    if (ihl !== header) copyBytes(this.#view, offset + ihl, offset + header, length - ihl);
    return length - ihl;
  }

  #isOurs(at: number, length: number): boolean {
    if (length < 8 || length > 0xffff - 40) return false;
    if (this.#view.getUint8(at) !== (this.#version === 4 ? 0 : 129)) return false;
    return this.#kind === 'ping' || this.#view.getUint16(at + 4) === this.#identifier;
  }

  /** Sends the reply back to the client, with the identifier that it asked with. */
  #emit(offset: number, header: number, messageLength: number): void {
    const view = this.#view;
    const { table } = this.#host;
    table.writeAddresses(this.flow, addresses, 0);
    endpoints.view = addresses;
    endpoints.version = this.#version;
    endpoints.sourceOffset = this.#version === 4 ? 4 : 16;
    endpoints.destinationOffset = 0;
    const protocol = this.#version === 4 ? IpProtocol.Icmp4 : IpProtocol.Icmp6;
    writeIpHeader(view, offset, messageLength, protocol, endpoints);
    view.setUint16(offset + header + 4, table.sourcePort(this.flow));
    const reason = parsePacket(view, offset, header + messageLength, reply);
    assert(reason === DropReason.None);
    writeTransportChecksum(view, reply);
    this.#host.emitParsed(this.flow, 1, reply);
  }

  /** Answers the request in hand with an error about it; takes its slot. */
  #refuse(slot: number, error: IcmpError): DropReason {
    const { packets } = this.#worker;
    const answer = packets.acquire();
    if (answer >= 0) {
      const to = answer + PACKET_HEADROOM;
      const length = writeIcmpError(this.#view, this.#host.packet, to, error);
      if (length === 0) packets.release(answer);
      else this.#host.emit(this.flow, 1, to, length);
    }
    packets.release(slot);
    return error === IcmpError.AdminProhibited ? DropReason.IcmpUnsupported : DropReason.SendFailed;
  }

  #peer(): { readonly family: 4 | 6; readonly address: string; readonly port: number } {
    this.#host.table.writeAddresses(this.flow, addresses, 0);
    const bytes = readAddress(addresses, this.#version === 4 ? 4 : 16, this.#version);
    return { family: this.#version, address: formatIp(bytes), port: 0 };
  }
}
