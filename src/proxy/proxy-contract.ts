/**
 * The interfaces by which on-ramps, tunnels, the flow pipeline, upgrades and off-ramps meet. None of them
 * imports another: `proxy.ts` joins them through these types.
 */
import type { DropReason } from '#base/drop-reason.ts';
import type { SlotPool } from '#io/arena.ts';
import type { Fd, Io } from '#io/io.ts';
import type { RelayHub } from '#io/relay.ts';
import type { Context, Endpoint, Target } from '#contract/context.ts';
import type { CloseReason, FlowRecord } from '#contract/record.ts';
import type { TraceEvent, TraceStage } from '#contract/trace.ts';
import type { ProxyContext, ProxyTls } from '#protocol/proxy-protocol/header.ts';

/**
 * A network as the data plane names it: the interned pair (account, vnet). Small positive integer, 0 is never
 * used. Every key has one: a bare IP address is never a key.
 */
export type NetworkId = number;

/** What everything that moves packets or streams shares in one worker. */
export interface Worker {
  readonly io: Io;
  /**
   * The one pool of packet slots. Canonical form in a slot: headroom, virtio header (10 bytes), IP packet;
   * `packet/virtio-header.ts` has the sizes. Whoever holds the packet's offset owns its slot and
   * passes ownership on or calls `packets.release(offset)`.
   */
  readonly packets: SlotPool;
  /** The pool of stream buffers (`STREAM_SLOT_BYTES` each): peeked bytes, HTTP heads and bodies. */
  readonly streams: SlotPool;
  /** Moves the bytes of streams that stay streams. */
  readonly relays: RelayHub;
  readonly records: RecordSink;
  readonly stats: Stats;
  readonly tracer: Tracer;
  /** Limits of time and number from the config. */
  readonly limits: Limits;
}

/**
 * Size of a slot of `Worker.streams`, bytes: a head of `limits.headBytesMax` fits with room for added fields.
 */
export const STREAM_SLOT_BYTES = 32768;

/** Takes the record of everything that ended: the `end` hook, the log and the trace stand behind it. */
export interface RecordSink {
  /** Exactly once per flow, stream or session. Never throws. */
  record(record: FlowRecord): void;
  /** A fresh number for a flow or stream, unique in this process's life. */
  nextFlowNumber(): number;
  /** Calls `watcher.flowOver` once, when the record of this flow is written. One watcher a flow. */
  watch?(flow: number, watcher: FlowWatcher): void;
}

/** Hears of the end of a flow that it let in. */
export interface FlowWatcher {
  flowOver(flow: number): void;
}

/**
 * Counters of one worker. Plain numbers in typed arrays: an increment is all that a packet costs.
 * Names of the slots are in `proxy/stats.ts`.
 */
export interface Stats {
  /** Indexed by DropReason. */
  readonly drops: Float64Array;
  /** Indexed by `Counter` of `proxy/stats.ts`. */
  readonly counters: Float64Array;
}

/** The live trace. `enabled` is read before anything is formatted. */
export interface Tracer {
  readonly enabled: boolean;
  emit(event: TraceEvent): void;
  /** A packet as it came in or goes out, for pcap; copies what it needs. */
  packet(direction: 'in' | 'out', tunnel: CapturePoint, offset: number, length: number): void;
}

/** Where a packet is captured: every `IpTunnel` is one. */
export type CapturePoint = Pick<IpTunnel, 'name' | 'context'>;

/** Shorthand that builds a TraceEvent; see `proxy/trace.ts`. */
export type TraceFunction = (stage: TraceStage, flow: number, text: string) => void;

/** Limits that the data plane enforces; each has its default and reason in `config/limits.ts`. */
export interface Limits {
  readonly flowsMax: number;
  readonly flowsPerAccountMax: number;
  readonly tcpHandshakeMs: number;
  readonly tcpIdleMs: number;
  readonly tcpClosingMs: number;
  readonly udpIdleMs: number;
  readonly icmpIdleMs: number;
  readonly otherIdleMs: number;
  readonly introductionMs: number;
  readonly tlsHandshakeMs: number;
  readonly connectMs: number;
  readonly sniffMs: number;
  readonly hookMs: number;
  readonly streamIdleMs: number;
  readonly headMs: number;
  readonly bodyIdleMs: number;
  readonly keepAliveMs: number;
  readonly responseMs: number;
  readonly continueMs: number;
  readonly headBytesMax: number;
  readonly headFieldsMax: number;
  readonly upstreamIdleMs: number;
  readonly upstreamIdleMax: number;
  readonly packetSlots: number;
  readonly streamSlots: number;
  readonly reassemblyBytesMax: number;
  readonly contextBytesMax: number;
}

/**
 * A two-way stream of IP packets with a context. TUN, SEQPACKET, and each peer context of a GUE port is one.
 */
export interface IpTunnel {
  /** Small integer that flow entries keep; reused only after every flow that names it is gone. */
  readonly index: number;
  /** Name in the config, with a suffix for accepted or per-context tunnels. */
  readonly name: string;
  /** Largest IP packet that may be sent, bytes. */
  readonly mtu: number;
  readonly context: Context;
  readonly network: NetworkId;
  /** True when it may carry a super-packet whose virtio header asks for segmentation or a checksum (TUN). */
  readonly offload: boolean;
  /**
   * Sends one packet and takes its slot, whatever the answer. `None`, or why it was dropped; drops later on
   * (a full queue) are counted by the tunnel.
   */
  send(offset: number, length: number): DropReason;
  /** Ends it; packets under way are dropped, `TunnelOwner.onTunnelClosed` is called once. */
  close(): void;
  /**
   * What a new process needs to go on with it; with `fd` handed over beside it. Null where it cannot move.
   */
  describe(): { readonly kind: string; readonly fd: Fd; readonly state: unknown } | null;
}

/** Receives what tunnels bring. Implemented by the flow pipeline. */
export interface PacketSink {
  /** One packet in canonical form; ownership of the slot passes. Never throws. */
  onPacket(tunnel: IpTunnel, offset: number, length: number): void;
  /** After the last packet of a batch of completions: time to flush what was coalesced. */
  onBatchEnd(): void;
  /** The tunnel is gone: its flows end with a reason. */
  onTunnelClosed(tunnel: IpTunnel): void;
}

/** A TCP stream that came in: from the stack (upgrade) or from a listener. The receiver owns `fd`. */
export interface InboundStream {
  readonly fd: Fd;
  readonly context: Context;
  readonly network: NetworkId;
  /** Number of the flow or stream, for traces and records. */
  readonly flow: number;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  /** Off-ramp by the config's routes, null when none matches. */
  readonly route: string | null;
  /** What the route or the `flow` hook asked for; `sniff` when open. */
  readonly wish: 'stream' | 'http' | 'sniff';
  /** The config's on-ramp or route that led here, in words, for the record. */
  readonly rule: string;
  /** Where it leaves, when nothing decides later; absent: where the off-ramp or the destination says. */
  readonly target?: Target;
  /** What its connections get on their way out, in place of what the off-ramp says. Absent: that. */
  readonly secure?: SecureUpgrade;
  /** What a proxy in front, or TLS at this node, says of the client's side. Absent: nothing. */
  readonly facts?: StreamFacts;
  /** The client waits for an answer before it sends its own bytes (SOCKS, CONNECT). Absent: it does not. */
  readonly answer?: StreamAnswer;
  /** Which targets the client may name. Absent: it names none, or any is allowed. */
  readonly guard?: TargetGuard;
}

/** What is known of the client's side of a stream beyond its endpoints; a PROXY header tells it onwards. */
export interface StreamFacts {
  /** Host name that the client asked for (SNI), lower case. */
  readonly serverName: string | null;
  /** Protocol that was agreed by ALPN. */
  readonly alpn: string | null;
  /** Name of the connection across proxies, at most 128 bytes. */
  readonly uniqueId: Uint8Array | null;
  readonly tls: ProxyTls | null;
}

/** Tells the client of a stream how the connecting went, in the words of the protocol that it asked by. */
export interface StreamAnswer {
  /**
   * Bytes may flow: the target is connected, or the client's first bytes are to be looked at before. At most
   * once; sends at once. False when the client could not be told: then the stream ends.
   */
  opened(): boolean;
  /**
   * In place of `opened`: says why not. Takes the descriptor over and closes it when the client has heard.
   */
  refused(refusal: StreamRefusal): void;
}

/** Why a stream did not get to its target. */
export type StreamRefusal = 'policy' | 'no-network' | 'no-host' | 'refused' | 'timeout' | 'failed';

/** Decides whether a client that names its targets itself may reach one. */
export interface TargetGuard {
  /** Part of pool keys: connections of two guards are never shared. */
  readonly key: string;
  /** Why an address (4 or 16 bytes) is not allowed, as the end of a sentence; null when it is. */
  refuse(address: Uint8Array, port: number): string | null;
}

/** TLS that a connection gets when it is connected. */
export interface SecureUpgrade {
  /** Part of pool keys: everything in which two of them may differ (name, trust, certificate, pins). */
  readonly key: string;
  /** A connection that fits the plan and is secured already; the caller owns it. Null when there is none. */
  take?(plan: DialPlan): Fd | null;
  /**
   * Takes the descriptor over and resolves with that of the plaintext, which the caller owns. Rejects with
   * `RampartError` RAMP_TLS or RAMP_TIMEOUT, side `upstream`; then the connection is closed.
   */
  secure(fd: Fd, target: Target): Promise<Fd>;
}

/**
 * Where a stream or request leaves: after routes and the `egress` hook. Equal keys may share pooled
 * connections.
 */
export interface DialPlan {
  /** Off-ramp name. */
  readonly via: string;
  readonly target: Target;
  /**
   * Pool key: account, vnet, off-ramp, scheme, host, port and source: everything on which two connections
   * must not be confused.
   */
  readonly key: string;
  /** Source address that the off-ramp shall use, where it can choose one. */
  readonly source: Endpoint | null;
  readonly context: Context;
  readonly network: NetworkId;
  readonly flow: number;
  /**
   * True when every equal request of the same stream gets an equal plan, so that it may be kept and used
   * again.
   */
  readonly reusable: boolean;
  /** The plan of the next equal request, where they are spread over several origins. Absent: this one. */
  readonly spread?: () => DialPlan;
  /** Addresses that the target's name may lead to. Absent: any. */
  readonly guard?: TargetGuard;
  /** Absent: bytes leave as they are. */
  readonly secure?: SecureUpgrade;
  /** What a PROXY header says before the first byte, for an off-ramp that sends one. */
  readonly announce?: Announcement;
}

/** The client's side of a connection, as an off-ramp announces it. */
export interface Announcement extends Partial<StreamFacts> {
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly context?: ProxyContext;
}

/** What wants to leave. */
export interface DialRequest {
  readonly context: Context;
  readonly network: NetworkId;
  readonly flow: number;
  readonly layer: 'tcp' | 'udp' | 'http';
  readonly source: Endpoint;
  /** Null: the off-ramp's own origin, or the route's. */
  readonly target: Target | null;
  readonly destination: Endpoint;
  /** Null: by the config's routes. */
  readonly via: string | null;
  readonly facts?: StreamFacts;
  readonly guard?: TargetGuard;
  /** In place of what the off-ramp says. */
  readonly secure?: SecureUpgrade;
}

/** A refusal by policy: the `egress` hook's or that no route exists. */
export interface DialRefusal {
  readonly refused: true;
  readonly reason: string;
}

/** Opens connected streams by any off-ramp: a socket, or the downgrade through an IP tunnel. */
export interface Dialer {
  /** Decides where to; calls the `egress` hook. Synchronous unless that hook is not. */
  plan(request: DialRequest): DialPlan | DialRefusal | Promise<DialPlan | DialRefusal>;
  /**
   * Connects within `limits.connectMs`. The caller owns the descriptor.
   * Rejects with `RampartError` RAMP_CONNECT, RAMP_TIMEOUT, RAMP_LIMIT or RAMP_NO_DESCRIPTORS.
   */
  connect(plan: DialPlan): Promise<Fd>;
  /** A request on a connection of `connect` was answered with this status; 502 and 504: it never was. */
  answered?(fd: Fd, status: number): void;
  /** A connection of `connect` is closed. */
  closed?(fd: Fd): void;
}

/** The client's side of a UDP session. */
export interface SessionClient {
  /**
   * One datagram from the target: `length` bytes at arena offset `payload`, in a slot of `worker.packets`
   * that the callee owns from here on, with room for IP and UDP headers and the headroom before it.
   */
  onDatagram(payload: number, length: number): void;
  /** The session is over, once; its record has been written. */
  onSessionEnd(reason: CloseReason): void;
}

/** An open UDP session towards one target. */
export interface Session {
  /** Sends one datagram; the slot stays the caller's. False when it was dropped (counted). */
  send(payload: number, length: number): boolean;
  /** Ends it; `onSessionEnd` is not called for an end that the client asked for. */
  close(reason: CloseReason): void;
}

/** What a UDP session is opened for. */
export interface SessionRequest {
  readonly context: Context;
  readonly network: NetworkId;
  readonly flow: number;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly route: string | null;
  readonly rule: string;
  /** Which addresses a target's name may lead to. Absent: any. */
  readonly guard?: TargetGuard;
}

/** Opens UDP sessions by an off-ramp, after the `session` and `egress` hooks. */
export interface SessionOpener {
  open(request: SessionRequest, client: SessionClient): Session | DialRefusal;
}

/**
 * Takes streams that came in and carries them to their end. Implemented by `upgrade/stream.ts` and the HTTP
 * engine.
 */
export interface StreamHandler {
  /**
   * The handler owns the descriptor, and the slot of `worker.streams` at `prefixOffset` with `prefixLength`
   * bytes that were read from the client already; −1 when nothing was read.
   */
  onStream(stream: InboundStream, prefixOffset: number, prefixLength: number): void;
}
