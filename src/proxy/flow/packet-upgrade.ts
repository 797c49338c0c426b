/**
 * How the pipeline and the upgrades meet: what an upgrade implements, what it calls back, and what both
 * know of a flow. The flow table itself is theirs to read; only the pipeline writes it.
 */
import type { DropReason } from '#base/drop-reason.ts';
import type { Context, Endpoint } from '#contract/context.ts';
import type { CloseReason } from '#contract/record.ts';
import type { ParsedPacket } from '#packet/parse.ts';
import type { RejectWith } from '#proxy/hooks/hooks.ts';
import type { IpTunnel, NetworkId } from '#proxy/proxy-contract.ts';

import type { FlowIndex, FlowTable, FlowTuple } from './flow-table.ts';

/** What an upgraded TCP flow becomes; `InboundStream.wish`. */
export type UpgradeWish = 'stream' | 'http' | 'sniff';

/** Facts of a flow that do not change. Shared by flows that have them in common. */
export interface FlowPlan {
  readonly context: Context;
  /** Off-ramp by route or verdict, null when there is none. */
  readonly via: string | null;
  readonly wish: UpgradeWish;
  /** What decided, in words. */
  readonly rule: string;
  /** Why the flow ends however it ends: set for refused flows; null lets its end say. */
  readonly closeReason: CloseReason | null;
}

/** Everything that is known of a flow, made on request. Cold path. */
export interface ColdInfo extends FlowPlan {
  /** The flow's number, unique in the process's life. */
  readonly flow: number;
  readonly network: NetworkId;
  /** IANA protocol number. */
  readonly protocol: number;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  /** Unix milliseconds. */
  readonly startedAt: number;
  readonly bytesUp: number;
  readonly bytesDown: number;
  readonly packetsUp: number;
  readonly packetsDown: number;
}

/** Lifts the packets of some flows one layer up: to TCP streams, UDP sessions, or echoes. */
export interface PacketUpgrade {
  /**
   * A flow was decided to be upgraded. Answers with a handle ≥ 0 that comes back with each packet, or
   * −`DropReason` when it cannot be taken. The packet that opened it is delivered next.
   */
  open(flow: FlowIndex): number;
  /**
   * One whole packet of the flow: from its client (direction 0) or, of an outbound flow, from its target
   * (direction 1). Takes the slot, whatever the answer: 0, or why the packet was dropped (counted by the
   * caller). During the call `host.packet` is this packet, parsed, and may be changed.
   */
  deliver(flow: FlowIndex, handle: number, direction: number, offset: number, length: number): DropReason;
  /**
   * An ICMP error about a packet that this upgrade emitted. Takes the slot. During the call `host.packet`
   * is the error and `host.quoted` the packet that it quotes, with real addresses.
   */
  deliverError(flow: FlowIndex, handle: number, offset: number, length: number): DropReason;
  /** After the last packet of a batch: what was held back to be joined goes on. */
  flush(): void;
  /**
   * The flow is over; its handle is free after the call. Must not call `endFlow`.
   *
   * @returns true when the upper layer writes the flow's record (or has written it); false makes the
   *   pipeline write it. Exactly one record exists for each flow.
   */
  closed(flow: FlowIndex, handle: number, reason: CloseReason): boolean;
}

/** A flow that starts here: a stream that leaves as packets (downgrade). */
export interface OutboundSpec {
  readonly context: Context;
  readonly network: NetworkId;
  /** IANA protocol number: TCP or UDP. */
  readonly protocol: number;
  /** The packets' source as the target sees it. Port 0: a free one is chosen. */
  readonly source: Endpoint;
  /** Address literal and port, of the source's family. */
  readonly target: Endpoint;
  /** Name of the IP-tunnel off-ramp. */
  readonly via: string;
  /** Number of the stream: the flow has the same. Its record is the stream's. */
  readonly flow: number;
  readonly rule: string;
}

/** What upgrades ask of the pipeline. */
export interface FlowHost {
  /** To read. */
  readonly table: FlowTable<FlowPlan>;
  /** The packet under delivery. */
  readonly packet: ParsedPacket;
  /** The packet that an ICMP error under delivery quotes. */
  readonly quoted: ParsedPacket;
  /**
   * Sends a packet of the upgrade to the tunnel on one side of the flow: direction 0 towards the target, 1
   * towards the client. It carries real addresses; counters, TCP state, MTU, segments and checksums are seen
   * to here. Takes the slot.
   */
  emit(flow: FlowIndex, direction: number, offset: number, length: number): DropReason;
  /** The same for a packet that is parsed already; `packet` is not kept. */
  emitParsed(flow: FlowIndex, direction: number, packet: ParsedPacket): DropReason;
  /**
   * Opens a flow whose client is the upgrade itself. Packets from the target come by `deliver` with
   * direction 1 and the handle that `setHandle` gives it.
   *
   * @returns the flow, or −`DropReason`: `NoRoute` (no such tunnel of this network), `NatFull` (no free
   *   port), or a limit of the table.
   */
  openOutbound(spec: OutboundSpec): FlowIndex;
  /** Gives an outbound flow its handle. */
  setHandle(flow: FlowIndex, handle: number): void;
  /** Ends a flow: `closed` is called, the record written, the slot freed. */
  endFlow(flow: FlowIndex, reason: CloseReason): void;
  coldInfo(flow: FlowIndex): ColdInfo;
}

/** What an off-ramp's name means for a new flow. */
export type WayOut =
  /** Packets leave by this tunnel. */
  | { readonly kind: 'tunnel'; readonly tunnel: IpTunnel }
  /** It carries streams, sessions and echoes, not packets. */
  | { readonly kind: 'upgrade' }
  | { readonly kind: 'reject'; readonly with: RejectWith };

/** Finds off-ramps by name. Implemented by `proxy.ts` over the config and the open tunnels. */
export interface WaysOut {
  /**
   * Asked once per flow. The tunnel of an off-ramp that has several (one per network, or one per client) is
   * chosen by network and destination (`tuple.addressOffset`). Null: there is none now.
   */
  find(via: string, network: NetworkId, view: DataView, tuple: FlowTuple): WayOut | null;
}

/** The open tunnels by index; `TunnelRegistry` is one. */
export interface TunnelDirectory {
  get(index: number): IpTunnel | null;
}
