import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';
import type { FlowFilter, FlowSummary, NetworkStats } from '#contract/agent.ts';
import { CloseReason } from '#contract/record.ts';
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
import { FlowClock } from './flow-clock.ts';
import { FlowLog } from './flow-log.ts';
import { coldInfoOf, recordOf, summarizeFlows } from './flow-record.ts';
import { type FlowState, restoreFlows, snapshotFlows } from './flow-snapshot.ts';
import { checkStart, isMidStream, startingState, unsupportedIcmpReason } from './flow-start.ts';
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
import { OutboundTuples } from './outbound-tuple.ts';
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
import { isTcpOver, nextTcpState, tcpCloseReason } from './tcp-state.ts';
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
  /**
   * Addresses that the proxy's own ICMP errors come from. Default: the address that the packet was sent to.
   */
  readonly reporters?: Reporters;
  /**
   * Forward a TCP connection that is met in its middle, as after a restart without hand-over. Default true.
   * An upgraded flow always has to start with a SYN.
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

/**
 * What happens to a packet, in order:
 *
 * ```
 *   onPacket ─ parse ─ fragment? put together ─ look up ─┬─ hit ── of this tunnel? ─ TCP state, count ─► act
 *                                                        └─ miss ─ spoofed? ─ decide ─ room? ─ insert ─► act
 *   act ─┬─ forward ── TTL, MSS, then `Transmitter`: MTU, segments, checksum ─► tunnel of the other side
 *        ├─ upgrade ── deliver ─► PacketUpgrade ─ emit ─► tunnel
 *        ├─ reject ─── answered at a limited rate, dropped
 *        └─ drop
 *   ICMP errors leave the row before the look-up: they are found by the packet that they quote.
 * ```
 * Nothing here throws for what a packet holds, allocates for a packet of a known flow, or keeps a packet.
 */
export class FlowPipeline implements PacketSink, FlowHost, ExpirySink {
  readonly table: FlowTable<FlowPlan>;
  readonly packet = new ParsedPacket();
  readonly quoted = new ParsedPacket();
  readonly #worker: Worker;
  readonly #view: DataView;
  readonly #parts: PipelineParts;
  readonly #tunnels: TunnelDirectory;
  readonly #counters: Float64Array;
  readonly #log: FlowLog;
  readonly #decider: Decider;
  readonly #answers: Answers;
  readonly #transmitter: Transmitter;
  readonly #reassembler: Reassembler;
  readonly #figures: NetworkFigures;
  readonly #clock: FlowClock;
  readonly #emitted = new ParsedPacket();
  readonly #outbound: OutboundTuples;
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
  readonly #wallClock: () => number;

  constructor(worker: Worker, parts: PipelineParts) {
    this.#worker = worker;
    this.#view = worker.io.arena.view;
    this.#parts = parts;
    this.#tunnels = parts.tunnels;
    this.#counters = worker.stats.counters;
    this.table = new FlowTable(worker.limits, [parts.seed[0], parts.seed[1]]);
    this.#log = new FlowLog(worker, this.table);
    this.#outbound = new OutboundTuples(this.table, parts.seed[3]);
    this.#decider = new Decider(this.#view, parts);
    this.#answers = new Answers(worker, parts.reporters ?? {});
    this.#transmitter = new Transmitter(worker, {
      answers: this.#answers,
      tunnels: parts.tunnels,
      log: this.#log,
      firstId: parts.seed[2],
    });
    this.#reassembler = new Reassembler({ bytesMax: worker.limits.reassemblyBytesMax });
    const { table } = this;
    this.#clock = new FlowClock(worker, {
      table,
      reassembler: this.#reassembler,
      log: this.#log,
      sink: this,
    });
    this.#figures = new NetworkFigures(parts.networks);
    this.#wallClock = parts.wallClock ?? Date.now;
  }

  /** The upgrades are made after the pipeline, which they call back. Before the first packet. */
  attachUpgrades(upgrades: Upgrades): void {
    this.#upgrades = upgrades;
  }

  // --- packets of tunnels ----------------------------------------------------------------------------------

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
    this.#transmitter.flush();
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
        this.#drop(tunnel, packet, -1, unsupportedIcmpReason(this.#view, packet));
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
    if (reason !== DropReason.None) this.#log.ofFlow(flow, packet.totalLength, reason);
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
    if (reason !== DropReason.None) this.#log.ofFlow(flow, packet.totalLength, reason);
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
    this.#clock.arm();
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
    if (reason !== DropReason.None) this.#log.ofFlow(flow, packet.totalLength, reason);
  }

  // --- new flows -------------------------------------------------------------------------------------------

  #onMiss(tunnel: IpTunnel, packet: ParsedPacket): void {
    const counters = this.#counters;
    counters[Counter.FlowMisses] = (counters[Counter.FlowMisses] as number) + 1;
    const unwanted = checkStart(this.#view, tunnel, packet);
    if (unwanted !== DropReason.None) {
      this.#drop(tunnel, packet, -1, unwanted);
      return;
    }
    const decision = this.#decider.decide(tunnel, packet);
    if (isMidStream(packet) && !this.#takesMidStream(decision)) {
      // The sender has a connection that nobody here knows: it is told, so that it does not wait in vain.
      this.#answers.reset(tunnel, packet);
      this.#drop(tunnel, packet, -1, DropReason.NotFlowStart);
      return;
    }
    const flow = this.#open(tunnel, packet, decision);
    if (flow < 0) {
      this.#drop(tunnel, packet, -1, -flow as DropReason);
      return;
    }
    this.#act(tunnel, packet, flow * 2);
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
    this.#log.decided(packet, flow, decision);
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
    this.#clock.arm();
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
    if (handle === -DropReason.Policy) {
      // Kept like every refusal: the next packet of the flow asks nobody again.
      const plan = this.table.cold[flow] as FlowPlan;
      const rule = `${plan.rule}, refused by the session or egress hook`;
      this.table.cold[flow] = { ...plan, rule, closeReason: CloseReason.Policy };
      this.table.decide(flow, FlowAction.Reject, DropReason.Policy);
      this.table.setHandle(flow, RejectCode.prohibited);
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

  // --- for upgrades ----------------------------------------------------------------------------------------

  emit(flow: FlowIndex, direction: number, offset: number, length: number): DropReason {
    const packet = this.#emitted;
    const view = this.#view;
    let reason = parsePacket(view, offset, length, packet);
    if (reason === DropReason.None && view.getUint16(offset - 10) !== 0)
      reason = checkVirtioHeader(view, packet);
    if (reason === DropReason.None) return this.emitParsed(flow, direction, packet);
    this.#worker.packets.release(offset);
    this.#log.count(reason);
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
    if (reason !== DropReason.None) this.#log.ofFlow(flow, packet.totalLength, reason);
    return reason;
  }

  openOutbound(spec: OutboundSpec): FlowIndex {
    const outbound = this.#outbound;
    outbound.set(spec);
    const way = this.#parts.ways.find(spec.via, spec.network, outbound.view, outbound.tuple);
    if (way?.kind !== 'tunnel' || way.tunnel.network !== spec.network) return -DropReason.NoRoute;
    if (!outbound.choosePort(spec)) return -DropReason.NatFull;
    const opening = this.#opening;
    opening.network = spec.network;
    opening.ingress = 0;
    opening.route = 0;
    opening.tcpState = 0;
    opening.number = spec.flow;
    const flow = this.#insert(outbound.tuple, outbound.view);
    if (flow < 0) return flow;
    const { context, via, rule } = spec;
    this.table.cold[flow] = { context, via, wish: 'stream', rule, closeReason: null };
    this.table.decide(flow, FlowAction.Upgrade);
    this.table.setEgress(flow, way.tunnel.index);
    return flow;
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

  // --- time and change -------------------------------------------------------------------------------------

  /** The flow was silent for too long. */
  onExpired(flow: FlowIndex): void {
    const isTcp = this.table.protocol(flow) === IpProtocol.Tcp;
    this.endFlow(flow, isTcp ? tcpCloseReason(this.table.tcpState(flow)) : CloseReason.ClientIdle);
  }

  /** Ends the flows of routes that are no more; `Routes.replace` names them. */
  routesRemoved(numbers: readonly number[]): void {
    const removed = new Set(numbers);
    if (removed.size === 0) return;
    this.#endWhere((flow) => removed.has(this.table.route(flow)), CloseReason.RouteRemoved);
  }

  /** All flows for a new process. The buffers are views: to be used before the next packet. */
  snapshot(): FlowState {
    return snapshotFlows(this.table, this.#parts, this.#worker.io.now());
  }

  /**
   * Takes over the flows of another process; see `flow-snapshot.ts` for what has to be done before. Flows
   * whose route or tunnel did not come along end, with their records.
   */
  restore(state: FlowState): void {
    const { table } = this;
    restoreFlows(table, state, this.#worker.io.now());
    const isGone = (index: number): boolean => index !== 0 && this.#tunnels.get(index) === null;
    const { routes } = this.#parts;
    this.#endWhere((flow) => isGone(table.ingress(flow)), CloseReason.ClientClosed);
    this.#endWhere((flow) => isGone(table.egress(flow)), CloseReason.OriginClosed);
    const isRouteGone = (route: number): boolean => route !== 0 && !routes.isLive(route);
    this.#endWhere((flow) => isRouteGone(table.route(flow)), CloseReason.RouteRemoved);
    if (table.count > 0) this.#clock.arm();
  }

  /** Ends every flow and stops the clock. */
  close(reason: CloseReason): void {
    this.#endWhere(() => true, reason);
    this.#clock.stop();
  }

  #endWhere(matches: (flow: FlowIndex) => boolean, reason: CloseReason): void {
    for (let flow = 0; flow < this.table.slots; flow++) {
      if (this.table.isLive(flow) && matches(flow)) this.endFlow(flow, reason);
    }
  }

  // --- for people ------------------------------------------------------------------------------------------

  /** Live flows for `rampart flows` and `top`. */
  summaries(filter: FlowFilter): readonly FlowSummary[] {
    return summarizeFlows(this.table, filter, { monotonic: this.#worker.io.now(), unix: this.#wallClock() });
  }

  /** Live flows and totals of every network. */
  networkStats(): readonly NetworkStats[] {
    return this.#figures.stats(this.table);
  }

  // --- drops -----------------------------------------------------------------------------------------------

  /** Drops a packet that was parsed. `flow` is −1 when it has none. */
  #drop(tunnel: IpTunnel, packet: ParsedPacket, flow: FlowIndex, reason: DropReason): void {
    this.#worker.packets.release(packet.offset);
    if (flow >= 0) this.#log.ofFlow(flow, packet.totalLength, reason);
    else this.#log.unwanted(tunnel, packet, reason);
  }

  #dropUnparsed(tunnel: IpTunnel, offset: number, reason: DropReason): void {
    this.#worker.packets.release(offset);
    this.#log.unparsed(tunnel, reason);
  }
}

/** How a refused flow is answered, as its handle keeps it. */
const RejectCode = Object.freeze({ reset: 0, prohibited: 1, unreachable: 2 } as const);

/** A host is told which of its attempts was in vain. */
function unreachableError(packet: ParsedPacket): IcmpError {
  const { protocol } = packet;
  const isKnown = protocol === IpProtocol.Tcp || protocol === IpProtocol.Udp;
  const isIcmp = protocol === IpProtocol.Icmp4 || protocol === IpProtocol.Icmp6;
  return isKnown || isIcmp ? IcmpError.HostUnreachable : IcmpError.ProtocolUnreachable;
}
