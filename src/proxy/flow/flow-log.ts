import { type DropReason, dropReasonName } from '#base/drop-reason.ts';
import type { Context } from '#contract/context.ts';
import type { TraceStage } from '#contract/trace.ts';
import { IpProtocol, type ParsedPacket, TcpFlag } from '#packet/parse.ts';
import type { IpTunnel, Worker } from '#proxy/proxy-contract.ts';

import type { Decision } from './decide.ts';
import { formatTuple } from './flow-record.ts';
import { FlowAction, type FlowIndex, type FlowTable } from './flow-table.ts';
import type { FlowPlan } from './packet-upgrade.ts';

/**
 * Counts what is dropped and, while somebody watches, tells of it and of decisions. Every drop of the
 * pipeline goes through here exactly once. Slots are the caller's.
 */
export class FlowLog {
  readonly #worker: Worker;
  readonly #view: DataView;
  readonly #table: FlowTable<FlowPlan>;
  readonly #drops: Float64Array;
  readonly #scratch = new DataView(new ArrayBuffer(32));

  constructor(worker: Worker, table: FlowTable<FlowPlan>) {
    this.#worker = worker;
    this.#view = worker.io.arena.view;
    this.#table = table;
    this.#drops = worker.stats.drops;
  }

  /** Counts drops that nobody is told of one by one. */
  count(reason: DropReason, packets = 1): void {
    this.#drops[reason] = (this.#drops[reason] as number) + packets;
  }

  /** A packet that could not be parsed. */
  unparsed(tunnel: IpTunnel, reason: DropReason): void {
    this.count(reason);
    if (!this.#worker.tracer.enabled) return;
    this.#emit('drop', 0, { context: tunnel.context, tuple: '', text: fromTunnel(tunnel, reason) });
  }

  /** A packet that belongs to no flow and opens none. Its bytes must still be there. */
  unwanted(tunnel: IpTunnel, packet: ParsedPacket, reason: DropReason): void {
    this.count(reason);
    if (!this.#worker.tracer.enabled) return;
    const tuple = formatTuple(this.#view, packet);
    this.#emit('drop', 0, { context: tunnel.context, tuple, text: fromTunnel(tunnel, reason) });
  }

  /** A packet of a flow, which may be over by now. */
  ofFlow(flow: FlowIndex, bytes: number, reason: DropReason): void {
    this.count(reason);
    if (!this.#worker.tracer.enabled || !this.#table.isLive(flow)) return;
    const { context } = this.#table.cold[flow] as FlowPlan;
    const text = `${dropReasonName(reason)}, ${bytes} bytes`;
    this.#emit('drop', this.#table.numberOf(flow), { context, tuple: this.#tupleOf(flow), text });
  }

  /** What was decided about a new flow. */
  decided(packet: ParsedPacket, flow: FlowIndex, decision: Decision): void {
    if (!this.#worker.tracer.enabled) return;
    const { context } = decision.plan;
    const tuple = formatTuple(this.#view, packet);
    const number = this.#table.numberOf(flow);
    const what = `${packetText(packet)} in by ${context.onRamp}`;
    this.#emit('packet', number, { context, tuple, text: what });
    const where = `${context.account}/${context.vnet}, a new flow${whose(context)}`;
    this.#emit('flow', number, { context, tuple, text: where });
    this.#emit('verdict', number, { context, tuple, text: decisionText(decision) });
  }

  #tupleOf(flow: FlowIndex): string {
    const table = this.#table;
    table.writeAddresses(flow, this.#scratch, 0);
    return formatTuple(this.#scratch, {
      addressOffset: 0,
      version: table.version(flow),
      protocol: table.protocol(flow),
      sourcePort: table.sourcePort(flow),
      destinationPort: table.destinationPort(flow),
    });
  }

  #emit(
    stage: TraceStage,
    flow: number,
    event: { readonly context: Context; readonly tuple: string; readonly text: string },
  ): void {
    const { account, vnet } = event.context;
    const { io, tracer } = this.#worker;
    const { tuple, text } = event;
    tracer.emit({ at: io.refreshNow(), flow, stage, account, vnet, tuple, text });
  }
}

/** The packet in words: `TCP SYN, 60 bytes, TTL 64`. */
function packetText(packet: ParsedPacket): string {
  const { protocol, tcpFlags } = packet;
  const name = PROTOCOL_NAMES[protocol] ?? `protocol ${protocol}`;
  const flags = FLAG_NAMES.filter(([bit]) => (tcpFlags & bit) !== 0).map(([, flag]) => ` ${flag}`);
  return `IPv${packet.version} ${name}${flags.join('')}, ${packet.totalLength} bytes, TTL ${packet.ttl},`;
}

const PROTOCOL_NAMES: Readonly<Record<number, string>> = Object.freeze({
  [IpProtocol.Tcp]: 'TCP',
  [IpProtocol.Udp]: 'UDP',
  [IpProtocol.Icmp4]: 'ICMP',
  [IpProtocol.Icmp6]: 'ICMPv6',
});

const FLAG_NAMES: readonly (readonly [bit: number, name: string])[] = Object.freeze([
  [TcpFlag.Syn, 'SYN'],
  [TcpFlag.Ack, 'ACK'],
  [TcpFlag.Fin, 'FIN'],
  [TcpFlag.Rst, 'RST'],
]);

function whose(context: Context): string {
  const { user, device } = context.identity ?? {};
  if (user === undefined && device === undefined) return '';
  return ` of ${[user, device].filter((word) => word !== undefined).join(' on ')}`;
}

function fromTunnel(tunnel: IpTunnel, reason: DropReason): string {
  return `from ${tunnel.name}: ${dropReasonName(reason)}`;
}

function decisionText(decision: Decision): string {
  const { plan, action } = decision;
  if (action === FlowAction.Forward) return `forward by ${plan.via} (${plan.rule})`;
  if (action === FlowAction.Upgrade) return `upgrade to ${plan.wish} (${plan.rule})`;
  const how = action === FlowAction.Drop ? 'drop' : `reject with ${decision.rejectWith}`;
  return `${how}: ${dropReasonName(decision.reason)} (${plan.rule})`;
}
