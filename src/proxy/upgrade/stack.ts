import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';
import { parseIp, unmapIp } from '#base/ip.ts';
import type { CloseReason } from '#contract/record.ts';
import { type Completion, CompletionFlag, Errno, type Fd, type OperationId, type TimerId } from '#io/io.ts';
import { writeTcpReset } from '#packet/build.ts';
import { Coalescer, type CoalescerSink } from '#packet/coalesce.ts';
import { IpProtocol, ParsedPacket, parsePacket, TcpFlag } from '#packet/parse.ts';
import { checkVirtioHeader, PACKET_HEADROOM } from '#packet/virtio-header.ts';
import type { FlowIndex } from '#proxy/flow/flow-table.ts';
import { NAT_INDEX_MAX, type NatState, NatTable, readPeerIndex, writePeerAddress } from '#proxy/flow/nat.ts';
import type { FlowHost, PacketUpgrade, TunnelDirectory } from '#proxy/flow/packet-upgrade.ts';
import { isTcpOver } from '#proxy/flow/tcp-state.ts';
import type { StreamHandler, Worker } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';
import { DevicePort, type DeviceReceiver } from '#proxy/tunnel/device-port.ts';

import { rewriteErrorForStack } from './stack-error.ts';
import { STACK_PORT, type StackNamespace } from './stack-namespace.ts';
import { writePeerReset } from './stack-reset.ts';
import { StackRewrite } from './stack-rewrite.ts';

/** What the stack works with. */
export interface StackOptions {
  /** The namespace; the stack closes it. */
  readonly place: StackNamespace;
  /** The pipeline. */
  readonly host: FlowHost;
  readonly tunnels: TunnelDirectory;
  /** Takes the streams that flows become. */
  readonly streams: StreamHandler;
  /** Goes on with what another process had in the same namespace. Flows must have their indexes already. */
  readonly state?: StackState;
  /** Told once when the device is gone: no flow can be upgraded any more. */
  readonly onFailed?: (errno: number) => void;
}

/**
 * What a new process needs to go on with the flows in the stack, beside the descriptors of `place`: device,
 * listener and namespace. Buffers are copies, one element per index up to the highest that was ever used.
 */
export interface StackState {
  readonly format: 1;
  readonly nat: NatState;
  readonly kinds: Uint8Array;
  /** Bytes of a Uint16Array. */
  readonly localPorts: Uint8Array;
  /** Bytes of an Int32Array. */
  readonly acknowledged: Uint8Array;
}

/** What is at an index of the NAT. */
const Kind = Object.freeze({ Free: 0, Client: 1, Accepted: 2, Target: 3 } as const);

/** Accepting rests this long after a failure: a full descriptor table fails every accept at once. */
const ACCEPT_PAUSE_MS = 50;

const TAG_ACCEPT = 0;
const TAG_RETRY = 1;

/**
 * The kernel's TCP as an upgrade: packets of a flow go into the private namespace and a connected socket
 * comes out; and as a downgrade: a socket of the namespace connects, and its packets leave by an IP tunnel.
 *
 * ```
 *   client ─► pipeline ─ deliver ─► rewrite, join ─► p0 ─► kernel ─ accept ─► StreamHandler
 *   client ◄─ pipeline ◄─ emit ◄──── rewrite ◄────── p0 ◄─ kernel ◄─ write ── stream
 *
 *   connect ─► kernel ─► p0 ─► rewrite ─ emit ─► pipeline ─► tunnel ─► target          (and back by deliver)
 * ```
 * The flow outlives its socket: after `close` the kernel still says goodbye by packets, and the flow is
 * forgotten by its TCP state. A flow that ends before its socket (a removed route, a vanished tunnel)
 * resets the socket.
 */
export class Stack implements PacketUpgrade, DeviceReceiver, CoalescerSink, Completion {
  readonly #worker: Worker;
  readonly #options: StackOptions;
  readonly #host: FlowHost;
  readonly #view: DataView;
  readonly #port: DevicePort;
  readonly #rewrite: StackRewrite;
  readonly #coalescer: Coalescer;
  readonly #packet = new ParsedPacket();
  readonly #nat: NatTable;
  readonly #kinds: Uint8Array;
  /** The kernel's port of a connecting socket, by index: its first packet says it. */
  readonly #localPorts: Uint16Array;
  /** What the kernel last acknowledged, by index: where a reset has to be to be believed. */
  readonly #acknowledged: Int32Array;
  readonly #scratch = new DataView(new ArrayBuffer(16));
  #accept: OperationId = 0;
  #accepting = false;
  #timer: TimerId = 0;
  #down = false;
  #closed = false;

  /** Starts at once. */
  constructor(worker: Worker, options: StackOptions) {
    const { place, host } = options;
    this.#worker = worker;
    this.#options = options;
    this.#host = host;
    this.#view = worker.io.arena.view;
    // Twice the flows, so that an index rests long after its flow is gone.
    const capacity = Math.min(NAT_INDEX_MAX, host.table.capacity * 2);
    this.#nat = new NatTable(capacity);
    this.#kinds = new Uint8Array(capacity + 1);
    this.#localPorts = new Uint16Array(capacity + 1);
    this.#acknowledged = new Int32Array(capacity + 1);
    this.#rewrite = new StackRewrite(host.table);
    this.#coalescer = new Coalescer(this.#view, this);
    this.#port = new DevicePort(worker, this, { device: place.device, fd: place.device.fd });
    if (options.state !== undefined) this.#restore(options.state);
    this.#port.start();
    this.#arm();
  }

  /** Flows and outgoing streams that are in the stack. */
  get flows(): number {
    return this.#nat.inUse;
  }

  /**
   * Takes an index for an outbound flow, whose socket will connect to the address of it: ≥ 1, or
   * −`DropReason`. The caller gives it to the pipeline as the flow's handle.
   */
  openTarget(flow: FlowIndex): number {
    if (this.#down) return -DropReason.StackDown;
    const n = this.#nat.allocate(flow);
    if (n > 0) this.#kinds[n] = Kind.Target;
    return n;
  }

  /** True when index n is that of an outbound flow, and of this one. */
  isTarget(n: number, flow: FlowIndex): boolean {
    return this.#kinds[n] === Kind.Target && this.#nat.flowOf(n) === flow;
  }

  /**
   * Stops reading and accepting for a new process to go on; everything stays open and nothing is reset.
   * Packets and connections wait in the kernel meanwhile. The stack is of no use any more afterwards.
   */
  detach(): StackState {
    assert(!this.#closed);
    this.#stop();
    const nat = this.#nat.snapshot();
    const { buffer: ports } = this.#localPorts.slice(0, nat.fresh);
    const { buffer: acknowledged } = this.#acknowledged.slice(0, nat.fresh);
    return {
      format: 1,
      nat,
      kinds: this.#kinds.slice(0, nat.fresh),
      localPorts: new Uint8Array(ports),
      acknowledged: new Uint8Array(acknowledged),
    };
  }

  /**
   * Ends it: sockets that were handed on stay what they are, flows in the stack get no packets any more.
   * The device and the namespace are closed.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    const { namespace, device, listener } = this.#options.place;
    this.#stop();
    this.#worker.io.close(listener);
    await namespace.closePacketDevice(device);
    await namespace.close();
  }

  #stop(): void {
    const { io } = this.#worker;
    this.#coalescer.flush();
    this.#closed = true;
    this.#down = true;
    this.#port.stop();
    io.cancelTimer(this.#timer);
    if (this.#accepting) io.cancel(this.#accept);
  }

  #restore(state: StackState): void {
    this.#nat.restore(state.nat);
    this.#kinds.set(state.kinds);
    this.#localPorts.set(new Uint16Array(state.localPorts.slice().buffer));
    this.#acknowledged.set(new Int32Array(state.acknowledged.slice().buffer));
  }

  // --- PacketUpgrade: from the pipeline into the stack
  // ---------------------------------------------------------------

  open(flow: FlowIndex): number {
    if (this.#down) return -DropReason.StackDown;
    const n = this.#nat.allocate(flow);
    if (n > 0) this.#kinds[n] = Kind.Client;
    return n;
  }

  deliver(flow: FlowIndex, n: number, direction: number, offset: number, length: number): DropReason {
    const { packet } = this.#host;
    assert(packet.offset === offset && this.#nat.flowOf(n) === flow);
    if (packet.protocol !== IpProtocol.Tcp || this.#down) {
      this.#worker.packets.release(offset);
      return this.#down ? DropReason.StackDown : DropReason.UnknownProtocol;
    }
    if (direction === 0) this.#rewrite.clientToStack(this.#view, packet, n);
    else this.#rewrite.targetToStack(this.#view, packet, n, this.#localPorts[n] as number);
    const { table } = this.#host;
    const from = this.#options.tunnels.get(direction === 0 ? table.ingress(flow) : table.egress(flow));
    if (from?.offload === true) return this.#port.write(offset, length);
    // Small packets are joined, because one large one costs the kernel hardly more than one small.
    if (this.#coalescer.push(packet, 0)) this.#worker.packets.release(offset);
    return DropReason.None;
  }

  deliverError(_flow: FlowIndex, n: number, offset: number, length: number): DropReason {
    const { packet, quoted } = this.#host;
    const isTarget = this.#kinds[n] === Kind.Target;
    const { version } = packet;
    writePeerAddress(this.#scratch, 0, { version, peer: isTarget ? 'target' : 'client', n });
    const fits = rewriteErrorForStack(this.#view, packet, quoted, {
      peer: this.#scratch,
      stackPort: isTarget ? (this.#localPorts[n] as number) : STACK_PORT,
    });
    if (fits && !this.#down) return this.#port.write(offset, length);
    this.#worker.packets.release(offset);
    return DropReason.IcmpUnrelated;
  }

  flush(): void {
    this.#coalescer.flush();
  }

  /** A packet, or several joined ones, for the kernel. */
  onPacket(offset: number, length: number): void {
    const reason = this.#port.write(offset, length);
    if (reason !== DropReason.None) this.#countDrop(reason);
  }

  closed(flow: FlowIndex, n: number, _reason: CloseReason): boolean {
    // An outbound flow that ends before it has its index.
    if (n === 0) return true;
    const kind = this.#kinds[n];
    if (!isTcpOver(this.#host.table.tcpState(flow))) this.#resetSocket(flow, n);
    this.#kinds[n] = Kind.Free;
    this.#localPorts[n] = 0;
    this.#nat.release(n);
    // A stream that was handed on writes its own record.
    return kind !== Kind.Client;
  }

  // --- DeviceReceiver: from the stack to the pipeline
  // ----------------------------------------------------------------

  onDevicePacket(offset: number, length: number): void {
    const packet = this.#packet;
    const view = this.#view;
    let reason = parsePacket(view, offset, length, packet);
    if (reason === DropReason.None) reason = checkVirtioHeader(view, packet);
    if (reason === DropReason.None) {
      if (packet.protocol === IpProtocol.Tcp) {
        this.#onStackPacket(packet);
        return;
      }
      // The kernel's own chatter, such as ICMP about a socket that is gone.
      reason = DropReason.UnknownProtocol;
    }
    this.#worker.packets.release(offset);
    this.#countDrop(reason);
  }

  onDeviceBatchEnd(): void {
    // What `emit` was given leaves at once; nothing is held back on this way.
  }

  onDeviceDrop(reason: DropReason): void {
    this.#countDrop(reason);
  }

  onDeviceFailed(errno: number): void {
    this.#down = true;
    this.#options.onFailed?.(errno);
  }

  #onStackPacket(packet: ParsedPacket): void {
    const view = this.#view;
    const destination = packet.addressOffset + (packet.version === 4 ? 4 : 16);
    let n = readPeerIndex(view, destination, packet.version, 'client');
    let direction = 1;
    if (n === 0) {
      n = readPeerIndex(view, destination, packet.version, 'target');
      direction = 0;
    }
    const flow = this.#nat.flowOf(n);
    if (flow < 0 || (this.#kinds[n] === Kind.Target) !== (direction === 0)) {
      this.#onStranger(packet);
      return;
    }
    this.#acknowledged[n] = view.getInt32(packet.transportOffset + 8);
    if (direction === 0 && (packet.tcpFlags & TcpFlag.Syn) !== 0) this.#localPorts[n] = packet.sourcePort;
    if (direction === 1) this.#rewrite.stackToClient(view, packet, flow);
    else this.#rewrite.stackToTarget(view, packet, flow);
    this.#host.emitParsed(flow, direction, packet);
  }

  #countDrop(reason: DropReason): void {
    const { drops } = this.#worker.stats;
    drops[reason] = (drops[reason] as number) + 1;
  }

  /** A packet of a socket whose flow is gone: the socket is told so. */
  #onStranger(packet: ParsedPacket): void {
    const { packets } = this.#worker;
    const slot = packets.acquire();
    if (slot >= 0) this.#writeOut(slot, writeTcpReset(this.#view, packet, slot + PACKET_HEADROOM));
    packets.release(packet.offset);
    this.#countDrop(DropReason.NotFlowStart);
  }

  /** A flow ended before its socket: ends the socket, as if the peer had reset the connection. */
  #resetSocket(flow: FlowIndex, n: number): void {
    if (this.#down || this.#closed) return;
    const { packets } = this.#worker;
    const { table } = this.#host;
    const slot = packets.acquire();
    if (slot < 0) return;
    const version = table.version(flow);
    const isTarget = this.#kinds[n] === Kind.Target;
    writePeerAddress(this.#scratch, 0, { version, peer: isTarget ? 'target' : 'client', n });
    const length = writePeerReset(this.#view, slot + PACKET_HEADROOM, {
      version,
      peer: this.#scratch,
      peerPort: isTarget ? table.destinationPort(flow) : table.sourcePort(flow),
      stackPort: isTarget ? (this.#localPorts[n] as number) : STACK_PORT,
      sequence: this.#acknowledged[n] as number,
    });
    this.#writeOut(slot, length);
  }

  /** Writes what a builder made in a slot; a length of 0 is nothing. */
  #writeOut(slot: number, length: number): void {
    if (length === 0) this.#worker.packets.release(slot);
    else this.#port.write(slot + PACKET_HEADROOM, length);
  }

  // --- accepted sockets
  // ----------------------------------------------------------------------------------------------

  onCompletion(tag: number, result: number, flags: number): void {
    const { io, stats } = this.#worker;
    if (tag === TAG_RETRY) {
      if (!this.#closed && !this.#accepting) this.#arm();
      return;
    }
    if ((flags & CompletionFlag.More) === 0) this.#accepting = false;
    if (this.#closed) {
      if (result >= 0) io.close(result);
      return;
    }
    if (result >= 0) {
      this.#onAccepted(result);
      if (!this.#accepting) this.#arm();
      return;
    }
    if (result === -Errno.ECANCELED) return;
    stats.counters[Counter.AcceptErrors] = (stats.counters[Counter.AcceptErrors] as number) + 1;
    if (!this.#accepting) this.#timer = io.timer(ACCEPT_PAUSE_MS, this, TAG_RETRY);
  }

  #arm(): void {
    assert(!this.#accepting);
    this.#accepting = true;
    this.#accept = this.#worker.io.accept(this.#options.place.listener, this, TAG_ACCEPT);
  }

  #onAccepted(fd: Fd): void {
    const { io, tracer } = this.#worker;
    const n = this.#indexOfPeer(fd);
    const flow = this.#nat.flowOf(n);
    if (flow < 0 || this.#kinds[n] !== Kind.Client) {
      // Its flow ended between handshake and accept.
      this.#reset(fd);
      return;
    }
    this.#kinds[n] = Kind.Accepted;
    io.setOption(fd, 'no-delay', 1);
    const info = this.#host.coldInfo(flow);
    const { context, network, source, destination, wish, rule } = info;
    if (tracer.enabled) {
      tracer.emit({
        at: io.refreshNow(),
        flow: info.flow,
        stage: 'upgrade',
        account: context.account,
        vnet: context.vnet,
        tuple: `${source.address}:${source.port} > ${destination.address}:${destination.port} tcp`,
        text: 'the handshake is complete: packets became a TCP stream',
      });
    }
    this.#options.streams.onStream(
      { fd, context, network, flow: info.flow, source, destination, route: info.via, wish, rule },
      -1,
      0,
    );
  }

  /** The index in the address of an accepted socket's peer, 0 when it has gone already. */
  #indexOfPeer(fd: Fd): number {
    try {
      const address = this.#worker.io.remoteAddress(fd);
      assert(address.family !== 'unix');
      const bytes = unmapIp(parseIp(address.address) as Uint8Array);
      for (let i = 0; i < bytes.length; i++) this.#scratch.setUint8(i, bytes[i] as number);
      return readPeerIndex(this.#scratch, 0, bytes.length === 4 ? 4 : 6, 'client');
    } catch {
      return 0;
    }
  }

  #reset(fd: Fd): void {
    const { io } = this.#worker;
    io.setOption(fd, 'linger-zero', 1);
    io.close(fd);
  }
}
