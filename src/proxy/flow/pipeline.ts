import { assert } from '#base/assert.ts';
import { DropReason, dropReasonName } from '#base/drop-reason.ts';
import { parseIp } from '#base/ip.ts';
import type { FlowFilter, FlowSummary, NetworkStats } from '#contract/agent.ts';
import { CloseReason } from '#contract/record.ts';
import type { TraceStage } from '#contract/trace.ts';
import type { Completion, TimerId } from '#io/io.ts';
import { checkDestination, checkSource, writeAddress } from '#packet/address.ts';
import { IcmpError } from '#packet/build.ts';
import { IcmpKind, icmpKind, isErrorKind } from '#packet/icmp.ts';
import { FragmentKind, IpProtocol, ParsedPacket, parsePacket, TcpFlag } from '#packet/parse.ts';
import { Reassembler } from '#packet/reassemble.ts';
import { clampMss, decrementTtl, mssForMtu } from '#packet/rewrite.ts';
import { segmentCount } from '#packet/segment.ts';
import { checkVirtioHeader, gsoSize, gsoType } from '#packet/virtio-header.ts';
import type { IpTunnel, PacketSink, Worker } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import { Answers, type Reporters } from './answers.ts';
import { Decider, type Decision, type FlowHooks } from './decide.ts';
import { coldInfoOf, formatTuple, recordOf, summarizeFlows } from './flow-record.ts';
import {
  Direction,
  type ExpirySink,
  FlowAction,
  type FlowIndex,
  type FlowOpening,
  FlowTable,
  HAS_ROOM,
} from './flow-table.ts';
import { flowOfError } from './icmp-errors.ts';
import { NetworkFigures } from './network-figures.ts';
import type { Networks } from './networks.ts';
import type {
  ColdInfo,
  FlowHost,
  FlowPlan,
  OutboundSpec,
  PacketUpgrade,
  TunnelDirectory,
  WaysOut,
} from './packet-upgrade.ts';
import type { Routes } from './routes.ts';
import { isSameClient } from './same-client.ts';
import { isInPrefixes } from './sources.ts';
import { isTcpOver, midStreamState, nextTcpState, tcpCloseReason } from './tcp-state.ts';
import { Transmitter } from './transmit.ts';

/** What the pipeline works with. */
export interface PipelineParts {
  readonly networks: Networks;
  readonly routes: Routes;
  readonly ways: WaysOut;
  readonly hooks: FlowHooks;
  readonly tunnels: TunnelDirectory;
  /** Four random 32-bit numbers of this process. */
  readonly seed: readonly [number, number, number, number];
  /** Addresses that the proxy's own ICMP errors come from. Default: the address that the packet was sent to. */
  readonly reporters?: Reporters;
  /**
   * Forward a TCP connection that is met in its middle, as after a restart without hand-over. Default true. An
   * upgraded flow always has to start with a SYN.
   */
  readonly forwardMidStream?: boolean;
  /** Unix milliseconds. Default `Date.now`. */
  readonly wallClock?: () => number;
}

/** The upgrades by what they lift. Null: such flows are refused with `StackDown`. */
export interface Upgrades {
  readonly tcp: PacketUpgrade | null;
  readonly udp: PacketUpgrade | null;
  readonly icmp: PacketUpgrade | null;
}

/** How often the clock's hand moves on, milliseconds. */
const TICK_MS = 250;

/** A round of the expiry takes this many ticks at most; a small table is gone through by each. */
const TICKS_PER_ROUND = 8;
const SLOTS_PER_TICK_MIN = 4096;

/** Ephemeral ports (RFC 6056 section 3.2). */
const PORT_MIN = 32768;
const PORT_MAX = 60999;
/** Ports tried before an outbound flow is refused: with less than 99 % in use, failure is one in a million. */
const PORT_TRIES = 1400;

/**
 * What happens to a packet, in order:
 *
 * ```
 *   onPacket ─ parse ─ fragment? put together ─ look up ─┬─ hit ─ of the right tunnel? ─ TCP state, counters ─► act
 *                                                        └─ miss ─ martian? spoofed? ─ decide ─ room? ─ insert ─► act
 *   act ─┬─ forward ── TTL, MSS, then `Transmitter`: MTU, segments, checksum ─► tunnel of the other side
 *        ├─ upgrade ── deliver ─► PacketUpgrade ─ emit ─► tunnel
 *        ├─ reject ─── answered at a limited rate, dropped
 *        └─ drop
 *   ICMP errors leave the row before the look-up: they are found by the packet that they quote.
 * ```
 * Nothing here throws for what a packet holds, allocates for a packet of a known flow, or keeps a packet.
 */
export class FlowPipeline implements PacketSink, FlowHost, ExpirySink, Completion {
  readonly table: FlowTable<FlowPlan>;
  readonly packet = new ParsedPacket();
  readonly quoted = new ParsedPacket();
  readonly #worker: Worker;
  readonly #view: DataView;
  readonly #parts: PipelineParts;
  readonly #tunnels: TunnelDirectory;
  readonly #counters: Float64Array;
  readonly #drops: Float64Array;
  readonly #decider: Decider;
  readonly #answers: Answers;
  readonly #transmitter: Transmitter;
  readonly #reassembler: Reassembler;
  readonly #figures: NetworkFigures;
  /** Fragments that the reassembler dropped by itself and that are in `#drops` already. */
  readonly #droppedFragments: Float64Array;
  readonly #emitted = new ParsedPacket();
  readonly #outbound = new DataView(new ArrayBuffer(32));
  readonly #opening: FlowOpening = {
    network: 0,
    account: 0,
    ingress: 0,
    tcpState: 0,
    route: 0,
    number: 0,
    now: 0,
    createdAt: 0,
  };
  /** The packet in hand was put together from fragments. */
  #wasFragmented = false;
  #upgrades: Upgrades = { tcp: null, udp: null, icmp: null };
  #timer: TimerId = 0;
  #isTimerArmed = false;
  readonly #wallClock: () => number;
  #nextPort: number;

  constructor(worker: Worker, parts: PipelineParts) {
    this.#worker = worker;
    this.#view = worker.io.arena.view;
    this.#parts = parts;
    this.#tunnels = parts.tunnels;
    this.#counters = worker.stats.counters;
    this.#drops = worker.stats.drops;
    this.table = new FlowTable(worker.limits, [parts.seed[0], parts.seed[1]]);
    this.#decider = new Decider(this.#view, parts);
    this.#answers = new Answers(worker, parts.reporters ?? {});
    this.#transmitter = new Transmitter(worker, this.#answers, parts.seed[2]);
    this.#reassembler = new Reassembler({ bytesMax: worker.limits.reassemblyBytesMax });
    this.#droppedFragments = new Float64Array(this.#reassembler.droppedFragments.length);
    this.#figures = new NetworkFigures(parts.networks);
    this.#wallClock = parts.wallClock ?? Date.now;
    this.#nextPort = PORT_MIN + ((parts.seed[3] >>> 0) % (PORT_MAX - PORT_MIN + 1));
  }

  /** The upgrades are made after the pipeline, which they call back. Before the first packet. */
  attachUpgrades(upgrades: Upgrades): void {
    this.#upgrades = upgrades;
  }

  // --- packets of tunnels -----------------------------------------------------------------------------------------

  onPacket(tunnel: IpTunnel, offset: number, length: number): void {
    const counters = this.#counters;
    counters[Counter.PacketsIn] = (counters[Counter.PacketsIn] as number) + 1;
    counters[Counter.BytesIn] = (counters[Counter.BytesIn] as number) + length;
    if (this.#worker.tracer.enabled) this.#worker.tracer.packet('in', tunnel, offset, length);
    const { packet } = this;
    const view = this.#view;
    this.#wasFragmented = false;
    let reason = parsePacket(view, offset, length, packet);
    // An ordinary packet's virtio header is clear and needs no look.
    if (reason === DropReason.None && view.getUint16(offset - 10) !== 0)
      reason = checkVirtioHeader(view, packet);
    if (reason !== DropReason.None) {
      this.#dropUnparsed(tunnel, offset, reason);
      return;
    }
    if (packet.fragmentKind === FragmentKind.None) this.#onWhole(tunnel, packet);
    else this.#onFragment(tunnel, packet);
  }

  onBatchEnd(): void {
    const { tcp, udp, icmp } = this.#upgrades;
    if (tcp !== null) tcp.flush();
    if (udp !== null) udp.flush();
    if (icmp !== null) icmp.flush();
  }

  onTunnelClosed(tunnel: IpTunnel): void {
    const { table } = this;
    for (let flow = 0; flow < table.slots; flow++) {
      if (!table.isLive(flow)) continue;
      if (table.ingress(flow) === tunnel.index) this.endFlow(flow, CloseReason.ClientClosed);
      else if (table.egress(flow) === tunnel.index) this.endFlow(flow, CloseReason.OriginClosed);
    }
    this.#reassembler.forgetNetwork(tunnel.index);
    this.#answers.forget(tunnel);
  }

  #onWhole(tunnel: IpTunnel, packet: ParsedPacket): void {
    const { protocol } = packet;
    if (protocol === IpProtocol.Icmp4 || protocol === IpProtocol.Icmp6) {
      const kind = icmpKind(packet);
      if (isErrorKind(kind)) {
        this.#onIcmpError(tunnel, packet);
        return;
      }
      if (kind === IcmpKind.Other) {
        this.#dropNew(tunnel, packet, unsupportedReason(this.#view, packet));
        return;
      }
    }
    const hit = this.table.lookup(tunnel.network, this.#view, packet);
    if (hit < 0) this.#onMiss(tunnel, packet);
    else this.#onHit(tunnel, packet, hit);
  }

  #onHit(tunnel: IpTunnel, packet: ParsedPacket, hit: number): void {
    const { table } = this;
    const flow = hit >> 1;
    const direction = hit & 1;
    const expected = direction === Direction.Up ? table.ingress(flow) : table.egress(flow);
    // A refused flow has no way out, so answers cannot come in by it.
    if (tunnel.index !== expected && !this.#movesTo(tunnel, flow, direction)) {
      this.#drop(tunnel, packet, flow, DropReason.SpoofedSource);
      return;
    }
    const counters = this.#counters;
    counters[Counter.FlowHits] = (counters[Counter.FlowHits] as number) + 1;
    if (packet.protocol === IpProtocol.Tcp) {
      const state = table.tcpState(flow);
      const flags = packet.tcpFlags;
      if ((flags & (TcpFlag.Syn | TcpFlag.Ack)) === TcpFlag.Syn && isTcpOver(state)) {
        this.endFlow(flow, tcpCloseReason(state));
        this.#onMiss(tunnel, packet);
        return;
      }
      const next = nextTcpState(state, direction, flags);
      if (next !== state) table.setTcpState(flow, next);
    }
    this.#act(tunnel, packet, hit);
  }

  /** Does what was decided. `hit` is flow × 2 + direction. Takes the slot. */
  #act(tunnel: IpTunnel, packet: ParsedPacket, hit: number): void {
    const { table } = this;
    const flow = hit >> 1;
    const direction = hit & 1;
    const action = table.action(flow);
    if (action === FlowAction.Forward) {
      this.#count(flow, direction, packet);
      const out = this.#tunnels.get(direction === Direction.Up ? table.egress(flow) : table.ingress(flow));
      if (out === null) this.#drop(tunnel, packet, flow, DropReason.TunnelClosed);
      else this.#forward(tunnel, packet, flow, out);
      return;
    }
    if (action === FlowAction.Upgrade) {
      this.#count(flow, direction, packet);
      this.#deliver(tunnel, packet, flow, direction);
      return;
    }
    table.addPackets(flow, direction, 1, packet.totalLength);
    if (action === FlowAction.Reject && direction === Direction.Up) {
      this.#reject(tunnel, packet, table.handle(flow));
    }
    this.#drop(tunnel, packet, flow, table.detail(flow) as DropReason);
  }

  #forward(tunnel: IpTunnel, packet: ParsedPacket, flow: FlowIndex, out: IpTunnel): void {
    const view = this.#view;
    if (!decrementTtl(view, packet)) {
      this.#answers.error(tunnel, packet, IcmpError.TtlExceeded);
      this.#drop(tunnel, packet, flow, DropReason.TtlExceeded);
      return;
    }
    if ((packet.tcpFlags & TcpFlag.Syn) !== 0) {
      clampMss(view, packet, mssForMtu(Math.min(tunnel.mtu, out.mtu), packet.version));
    }
    const reason = this.#transmitter.send(out, packet, tunnel, this.#wasFragmented);
    if (reason !== DropReason.None) this.#countDrop(flow, packet, reason);
  }

  #deliver(tunnel: IpTunnel, packet: ParsedPacket, flow: FlowIndex, direction: number): void {
    const upgrade = this.#upgradeOf(packet.protocol);
    if (upgrade === null) {
      this.#drop(tunnel, packet, flow, DropReason.StackDown);
      return;
    }
    if ((packet.tcpFlags & TcpFlag.Syn) !== 0) {
      clampMss(this.#view, packet, mssForMtu(tunnel.mtu, packet.version));
    }
    const reason = upgrade.deliver(
      flow,
      this.table.handle(flow),
      direction,
      packet.offset,
      packet.totalLength,
    );
    if (reason !== DropReason.None) this.#countDrop(flow, packet, reason);
  }

  /** Counts a packet of a flow; a super-packet as the packets that it stands for. */
  #count(flow: FlowIndex, direction: number, packet: ParsedPacket): void {
    const { table } = this;
    table.touch(flow, direction, packet.totalLength, this.#worker.io.now());
    if (gsoType(this.#view, packet.offset) === 0) return;
    const more = segmentCount(packet, gsoSize(this.#view, packet.offset)) - 1;
    table.addPackets(flow, direction, more, more * (packet.payloadOffset - packet.offset));
  }

  #reject(tunnel: IpTunnel, packet: ParsedPacket, how: number): void {
    if (how === RejectCode.reset && packet.protocol === IpProtocol.Tcp) this.#answers.reset(tunnel, packet);
    else if (how === RejectCode.unreachable) this.#answers.error(tunnel, packet, unreachableError(packet));
    else this.#answers.error(tunnel, packet, IcmpError.AdminProhibited);
  }

  #onFragment(tunnel: IpTunnel, packet: ParsedPacket): void {
    const view = this.#view;
    const { offset } = packet;
    this.#armTimer();
    // The tunnel's number is the key: it stands for the network, and no tunnel can put a fragment into the
    // packets of another.
    const length = this.#reassembler.add(view, packet, tunnel.index, this.#worker.io.now(), offset);
    if (length < 0) {
      this.#drop(tunnel, packet, -1, -length as DropReason);
      return;
    }
    if (length === 0) {
      this.#worker.packets.release(offset);
      return;
    }
    const reason = parsePacket(view, offset, length, packet);
    if (reason !== DropReason.None) {
      this.#dropUnparsed(tunnel, offset, reason);
      return;
    }
    this.#wasFragmented = true;
    this.#onWhole(tunnel, packet);
  }

  #onIcmpError(tunnel: IpTunnel, packet: ParsedPacket): void {
    const { table, quoted } = this;
    const hit = flowOfError(table, tunnel, this.#view, { error: packet, quoted });
    if (hit < 0) {
      this.#drop(tunnel, packet, -1, -hit as DropReason);
      return;
    }
    const flow = hit >> 1;
    const action = table.action(flow);
    const counters = this.#counters;
    counters[Counter.IcmpErrorsTranslated] = (counters[Counter.IcmpErrorsTranslated] as number) + 1;
    if (action === FlowAction.Forward) {
      // It goes where the quoted packet came from.
      const back = (hit & 1) === Direction.Up ? table.ingress(flow) : table.egress(flow);
      const out = this.#tunnels.get(back);
      if (out === null) this.#drop(tunnel, packet, flow, DropReason.TunnelClosed);
      else this.#forward(tunnel, packet, flow, out);
      return;
    }
    const upgrade = action === FlowAction.Upgrade ? this.#upgradeOf(table.protocol(flow)) : null;
    if (upgrade === null) {
      this.#drop(tunnel, packet, flow, DropReason.IcmpUnrelated);
      return;
    }
    const reason = upgrade.deliverError(flow, table.handle(flow), packet.offset, packet.totalLength);
    if (reason !== DropReason.None) this.#countDrop(flow, packet, reason);
  }

  // --- new flows ----------------------------------------------------------------------------------------------------

  #onMiss(tunnel: IpTunnel, packet: ParsedPacket): void {
    const counters = this.#counters;
    counters[Counter.FlowMisses] = (counters[Counter.FlowMisses] as number) + 1;
    const unwanted = this.#checkStart(tunnel, packet);
    if (unwanted !== DropReason.None) {
      this.#dropNew(tunnel, packet, unwanted);
      return;
    }
    const decision = this.#decider.decide(tunnel, packet);
    if (isMidStream(packet) && !this.#takesMidStream(decision)) {
      // The sender has a connection that nobody here knows: it is told, so that it does not wait in vain.
      this.#answers.reset(tunnel, packet);
      this.#dropNew(tunnel, packet, DropReason.NotFlowStart);
      return;
    }
    const flow = this.#open(tunnel, packet, decision);
    if (flow < 0) {
      this.#dropNew(tunnel, packet, -flow as DropReason);
      return;
    }
    this.#act(tunnel, packet, flow * 2);
  }

  /** Whether a packet may open a flow at all, before anybody is asked. */
  #checkStart(tunnel: IpTunnel, packet: ParsedPacket): DropReason {
    const view = this.#view;
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

  #takesMidStream(decision: Decision): boolean {
    if (decision.action === FlowAction.Forward) return this.#parts.forwardMidStream !== false;
    return decision.action !== FlowAction.Upgrade;
  }

  /** Makes the flow that was decided on; −reason when it cannot be. */
  #open(tunnel: IpTunnel, packet: ParsedPacket, decision: Decision): FlowIndex {
    const { table } = this;
    const opening = this.#opening;
    opening.network = tunnel.network;
    opening.ingress = tunnel.index;
    opening.route = decision.route;
    opening.tcpState = startingState(packet);
    opening.number = this.#worker.records.nextFlowNumber();
    const flow = this.#insert(packet, this.#view);
    if (flow < 0) return flow;
    table.cold[flow] = decision.plan;
    table.decide(flow, decision.action, decision.reason);
    if (decision.action === FlowAction.Reject) table.setHandle(flow, RejectCode[decision.rejectWith]);
    if (decision.action === FlowAction.Forward) table.setEgress(flow, (decision.out as IpTunnel).index);
    if (this.#worker.tracer.enabled) this.#traceDecision(packet, flow, decision);
    return decision.action === FlowAction.Upgrade ? this.#lift(flow, packet.protocol) : flow;
  }

  /** Finds a place for the flow that `#opening` describes; −reason when there is none. */
  #insert(tuple: ParsedPacket, view: DataView): FlowIndex {
    const { table } = this;
    const opening = this.#opening;
    opening.account = this.#parts.networks.accountOf(opening.network);
    opening.now = this.#worker.io.now();
    opening.createdAt = this.#wallClock();
    const counters = this.#counters;
    const room = table.room(opening.account, opening.now);
    if (room < HAS_ROOM) return room;
    if (room >= 0) {
      counters[Counter.FlowsEvicted] = (counters[Counter.FlowsEvicted] as number) + 1;
      this.endFlow(room, CloseReason.Limit);
    }
    counters[Counter.FlowsOpened] = (counters[Counter.FlowsOpened] as number) + 1;
    this.#armTimer();
    return table.insert(opening, view, tuple);
  }

  /** Hands a new flow to its upgrade; −reason when that cannot take it: then the flow is over. */
  #lift(flow: FlowIndex, protocol: number): FlowIndex {
    const upgrade = this.#upgradeOf(protocol);
    const handle = upgrade === null ? -DropReason.StackDown : upgrade.open(flow);
    if (handle >= 0) {
      this.table.setHandle(flow, handle);
      return flow;
    }
    this.table.decide(flow, FlowAction.Drop, -handle);
    this.endFlow(flow, CloseReason.Limit);
    return handle;
  }

  /** The client of a flow may come over another tunnel than before, when it is the same client. */
  #movesTo(tunnel: IpTunnel, flow: FlowIndex, direction: number): boolean {
    if (direction !== Direction.Up) return false;
    const { table, packet } = this;
    const { context } = table.cold[flow] as FlowPlan;
    if (!isSameClient(context, tunnel.context)) return false;
    const { sources } = tunnel.context;
    if (!isInPrefixes(sources, this.#view, packet.addressOffset, packet.version)) return false;
    table.setIngress(flow, tunnel.index);
    return true;
  }

  // --- for upgrades -------------------------------------------------------------------------------------------------

  emit(flow: FlowIndex, direction: number, offset: number, length: number): DropReason {
    const packet = this.#emitted;
    const view = this.#view;
    let reason = parsePacket(view, offset, length, packet);
    if (reason === DropReason.None && view.getUint16(offset - 10) !== 0)
      reason = checkVirtioHeader(view, packet);
    if (reason === DropReason.None) return this.emitParsed(flow, direction, packet);
    this.#worker.packets.release(offset);
    this.#drops[reason] = (this.#drops[reason] as number) + 1;
    return reason;
  }

  emitParsed(flow: FlowIndex, direction: number, packet: ParsedPacket): DropReason {
    const { table } = this;
    assert(table.isLive(flow) && table.action(flow) === FlowAction.Upgrade);
    this.#count(flow, direction, packet);
    if (packet.protocol === IpProtocol.Tcp) {
      const state = table.tcpState(flow);
      const next = nextTcpState(state, direction, packet.tcpFlags);
      if (next !== state) table.setTcpState(flow, next);
    }
    const out = this.#tunnels.get(direction === Direction.Up ? table.egress(flow) : table.ingress(flow));
    let reason: DropReason = DropReason.TunnelClosed;
    if (out === null) {
      this.#worker.packets.release(packet.offset);
    } else {
      if ((packet.tcpFlags & TcpFlag.Syn) !== 0) {
        clampMss(this.#view, packet, mssForMtu(out.mtu, packet.version));
      }
      reason = this.#transmitter.send(out, packet, null, false);
    }
    if (reason !== DropReason.None) this.#countDrop(flow, packet, reason);
    return reason;
  }

  openOutbound(spec: OutboundSpec): FlowIndex {
    const source = parseIp(spec.source.address);
    const target = parseIp(spec.target.address);
    assert(source !== null && target !== null && source.length === target.length);
    const tuple = this.#emitted;
    tuple.version = source.length === 4 ? 4 : 6;
    tuple.protocol = spec.protocol;
    tuple.addressOffset = 0;
    tuple.destinationPort = spec.target.port;
    writeAddress(this.#outbound, 0, source);
    writeAddress(this.#outbound, source.length, target);
    const way = this.#parts.ways.find(spec.via, spec.network, this.#outbound, tuple);
    if (way?.kind !== 'tunnel' || way.tunnel.network !== spec.network) return -DropReason.NoRoute;
    if (!this.#choosePort(spec, tuple)) return -DropReason.NatFull;
    const opening = this.#opening;
    opening.network = spec.network;
    opening.ingress = 0;
    opening.route = 0;
    opening.tcpState = 0;
    opening.number = spec.flow;
    const flow = this.#insert(tuple, this.#outbound);
    if (flow < 0) return flow;
    const { context, via, rule } = spec;
    this.table.cold[flow] = { context, via, wish: 'stream', rule, closeReason: null };
    this.table.decide(flow, FlowAction.Upgrade);
    this.table.setEgress(flow, way.tunnel.index);
    return flow;
  }

  /** Puts a source port into the tuple with which it is nobody's yet. */
  #choosePort(spec: OutboundSpec, tuple: ParsedPacket): boolean {
    const { table } = this;
    const isFree = (port: number): boolean => {
      tuple.sourcePort = port;
      return table.lookup(spec.network, this.#outbound, tuple) < 0;
    };
    if (spec.source.port !== 0) return isFree(spec.source.port);
    for (let i = 0; i < PORT_TRIES; i++) {
      const port = this.#nextPort;
      this.#nextPort = port === PORT_MAX ? PORT_MIN : port + 1;
      if (isFree(port)) return true;
    }
    return false;
  }

  setHandle(flow: FlowIndex, handle: number): void {
    assert(this.table.isLive(flow) && this.table.action(flow) === FlowAction.Upgrade);
    this.table.setHandle(flow, handle);
  }

  endFlow(flow: FlowIndex, reason: CloseReason): void {
    const { table } = this;
    const protocol = table.protocol(flow);
    const upgrade = table.action(flow) === FlowAction.Upgrade ? this.#upgradeOf(protocol) : null;
    const isRecorded = upgrade?.closed(flow, table.handle(flow), reason) ?? false;
    assert(table.isLive(flow), 'an upgrade ended a flow that was ending');
    if (!isRecorded) this.#worker.records.record(recordOf(table, flow, { reason, at: this.#wallClock() }));
    this.#figures.add(table, flow);
    table.remove(flow);
    this.#counters[Counter.FlowsClosed] = (this.#counters[Counter.FlowsClosed] as number) + 1;
  }

  coldInfo(flow: FlowIndex): ColdInfo {
    assert(this.table.isLive(flow));
    return coldInfoOf(this.table, flow);
  }

  #upgradeOf(protocol: number): PacketUpgrade | null {
    if (protocol === IpProtocol.Tcp) return this.#upgrades.tcp;
    return protocol === IpProtocol.Udp ? this.#upgrades.udp : this.#upgrades.icmp;
  }

  // --- time and change ------------------------------------------------------------------------------------------------

  /** The flow was silent for too long. */
  onExpired(flow: FlowIndex): void {
    const isTcp = this.table.protocol(flow) === IpProtocol.Tcp;
    this.endFlow(flow, isTcp ? tcpCloseReason(this.table.tcpState(flow)) : CloseReason.ClientIdle);
  }

  /** The clock's tick. */
  onCompletion(_tag: number, result: number): void {
    this.#isTimerArmed = false;
    if (result < 0) return;
    const now = this.#worker.io.now();
    const budget = Math.max(SLOTS_PER_TICK_MIN, Math.ceil(this.table.slots / TICKS_PER_ROUND));
    this.table.expire(now, budget, this);
    this.#reassembler.expire(now);
    const dropped = this.#reassembler.droppedFragments;
    for (let reason = 0; reason < dropped.length; reason++) {
      const fresh = (dropped[reason] as number) - (this.#droppedFragments[reason] as number);
      if (fresh === 0) continue;
      this.#drops[reason] = (this.#drops[reason] as number) + fresh;
      this.#droppedFragments[reason] = dropped[reason] as number;
    }
    if (this.table.count > 0 || this.#reassembler.datagrams > 0) this.#armTimer();
  }

  /** Only while there is something to forget: an idle process has no timer. */
  #armTimer(): void {
    if (this.#isTimerArmed) return;
    this.#isTimerArmed = true;
    this.#timer = this.#worker.io.timer(TICK_MS, this, 0);
  }

  /** Ends the flows of routes that are no more; `Routes.replace` names them. */
  routesRemoved(numbers: readonly number[]): void {
    const removed = new Set(numbers);
    if (removed.size === 0) return;
    this.#endWhere((flow) => removed.has(this.table.route(flow)), CloseReason.RouteRemoved);
  }

  /** Ends every flow and stops the clock. */
  close(reason: CloseReason): void {
    this.#endWhere(() => true, reason);
    if (this.#isTimerArmed) this.#worker.io.cancelTimer(this.#timer);
    this.#isTimerArmed = false;
  }

  #endWhere(matches: (flow: FlowIndex) => boolean, reason: CloseReason): void {
    for (let flow = 0; flow < this.table.slots; flow++) {
      if (this.table.isLive(flow) && matches(flow)) this.endFlow(flow, reason);
    }
  }

  // --- for people -----------------------------------------------------------------------------------------------------

  /** Live flows for `rampart flows` and `top`. */
  summaries(filter: FlowFilter): readonly FlowSummary[] {
    return summarizeFlows(this.table, filter, { monotonic: this.#worker.io.now(), unix: this.#wallClock() });
  }

  /** Live flows and totals of every network. */
  networkStats(): readonly NetworkStats[] {
    return this.#figures.stats(this.table);
  }

  // --- drops ------------------------------------------------------------------------------------------------------------

  /** Drops a packet that was parsed. `flow` is −1 when it has none. */
  #drop(tunnel: IpTunnel, packet: ParsedPacket, flow: FlowIndex, reason: DropReason): void {
    this.#worker.packets.release(packet.offset);
    if (flow >= 0 || !this.#worker.tracer.enabled) this.#countDrop(flow, packet, reason);
    else this.#dropTraced(tunnel, packet, reason);
  }

  /** Drops a packet that opens no flow. */
  #dropNew(tunnel: IpTunnel, packet: ParsedPacket, reason: DropReason): void {
    this.#drop(tunnel, packet, -1, reason);
  }

  #dropTraced(tunnel: IpTunnel, packet: ParsedPacket, reason: DropReason): void {
    this.#drops[reason] = (this.#drops[reason] as number) + 1;
    const tuple = formatTuple(this.#view, packet);
    this.#trace('drop', 0, { tunnel, tuple, text: `from ${tunnel.name}: ${dropReasonName(reason)}` });
  }

  #dropUnparsed(tunnel: IpTunnel, offset: number, reason: DropReason): void {
    this.#worker.packets.release(offset);
    this.#drops[reason] = (this.#drops[reason] as number) + 1;
    if (!this.#worker.tracer.enabled) return;
    this.#trace('drop', 0, { tunnel, tuple: '', text: `from ${tunnel.name}: ${dropReasonName(reason)}` });
  }

  /** Counts a drop of a packet whose slot is gone already. */
  #countDrop(flow: FlowIndex, packet: ParsedPacket, reason: DropReason): void {
    this.#drops[reason] = (this.#drops[reason] as number) + 1;
    if (!this.#worker.tracer.enabled || !this.table.isLive(flow)) return;
    const { context } = this.table.cold[flow] as FlowPlan;
    const text = `${dropReasonName(reason)}, ${packet.totalLength} bytes`;
    this.#trace('drop', this.table.numberOf(flow), { tunnel: { context }, tuple: this.#tupleOf(flow), text });
  }

  #traceDecision(packet: ParsedPacket, flow: FlowIndex, decision: Decision): void {
    const tunnel = { context: decision.plan.context };
    const tuple = formatTuple(this.#view, packet);
    const number = this.table.numberOf(flow);
    this.#trace('flow', number, { tunnel, tuple, text: `new flow from ${tunnel.context.onRamp}` });
    this.#trace('verdict', number, { tunnel, tuple, text: decisionText(decision) });
  }

  #tupleOf(flow: FlowIndex): string {
    const info = coldInfoOf(this.table, flow);
    this.table.writeAddresses(flow, this.#outbound, 0);
    return formatTuple(this.#outbound, {
      addressOffset: 0,
      version: this.table.version(flow),
      protocol: info.protocol,
      sourcePort: info.source.port,
      destinationPort: info.destination.port,
    });
  }

  #trace(
    stage: TraceStage,
    flow: number,
    event: { readonly tunnel: Pick<IpTunnel, 'context'>; readonly tuple: string; readonly text: string },
  ): void {
    const { account, vnet } = event.tunnel.context;
    const { io, tracer } = this.#worker;
    const { tuple, text } = event;
    tracer.emit({ at: io.refreshNow(), flow, stage, account, vnet, tuple, text });
  }
}

/** How a refused flow is answered, as its handle keeps it. */
const RejectCode = Object.freeze({ reset: 0, prohibited: 1, unreachable: 2 } as const);

/** Discovery and the like is for the link only; other unknown ICMP is not carried. */
function unsupportedReason(view: DataView, packet: ParsedPacket): DropReason {
  const scope = checkSource(view, packet) || checkDestination(view, packet);
  return scope === DropReason.LinkScope ? scope : DropReason.IcmpUnsupported;
}

function isMidStream(packet: ParsedPacket): boolean {
  return packet.protocol === IpProtocol.Tcp && (packet.tcpFlags & TcpFlag.Syn) === 0;
}

function startingState(packet: ParsedPacket): number {
  if (packet.protocol !== IpProtocol.Tcp) return 0;
  return isMidStream(packet)
    ? midStreamState(packet.tcpFlags)
    : nextTcpState(0, Direction.Up, packet.tcpFlags);
}

/** A host is told which of its attempts was in vain. */
function unreachableError(packet: ParsedPacket): IcmpError {
  const { protocol } = packet;
  const isKnown = protocol === IpProtocol.Tcp || protocol === IpProtocol.Udp;
  const isIcmp = protocol === IpProtocol.Icmp4 || protocol === IpProtocol.Icmp6;
  return isKnown || isIcmp ? IcmpError.HostUnreachable : IcmpError.ProtocolUnreachable;
}

function decisionText(decision: Decision): string {
  const { plan, action } = decision;
  if (action === FlowAction.Forward) return `forward by ${plan.via} (${plan.rule})`;
  if (action === FlowAction.Upgrade) return `upgrade to ${plan.wish} (${plan.rule})`;
  const how = action === FlowAction.Drop ? 'drop' : `reject with ${decision.rejectWith}`;
  return `${how}: ${dropReasonName(decision.reason)} (${plan.rule})`;
}
