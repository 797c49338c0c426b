import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';
import type { ParsedPacket } from '#packet/parse.ts';
import type { Limits, NetworkId } from '#proxy/proxy-contract.ts';

import { AccountRings } from './account-rings.ts';
import { FlowBuckets } from './flow-buckets.ts';
import { FlowHash } from './flow-hash.ts';
import { type FlowTimeouts, flowTimeoutMs } from './flow-timeout.ts';
import type { AccountId } from './networks.ts';

/** Index of a live flow: its slot in all arrays of the table. Reused; `numberOf` tells two lives apart. */
export type FlowIndex = number;

/** Which way a packet goes: `Up` as the flow's first packet went, `Down` back. */
export const Direction = Object.freeze({ Up: 0, Down: 1 } as const);

/** What is done with a packet of the flow. */
export const FlowAction = Object.freeze({
  /** Leaves as a packet by the tunnel of the other side. */
  Forward: 1,
  /** Handed to an upgrade, with the flow's handle. */
  Upgrade: 2,
  /** Dropped without a word: a remembered refusal. */
  Drop: 3,
  /** Answered with a reset or an ICMP error at a limited rate. */
  Reject: 4,
} as const);

/** One of the numbers of `FlowAction`. */
export type FlowAction = (typeof FlowAction)[keyof typeof FlowAction];

/** The limits that the table enforces. */
export type FlowLimits = FlowTimeouts & Pick<Limits, 'flowsMax' | 'flowsPerAccountMax'>;

/** Told of flows whose time is over. It has to remove them. */
export interface ExpirySink {
  onExpired(flow: FlowIndex): void;
}

/** What `snapshot` gives: the header as JSON and the columns as bytes, in the order that `restore` wants. */
export interface FlowTableSnapshot {
  readonly header: FlowTableHeader;
  readonly buffers: readonly Uint8Array[];
}

/** The part of a snapshot that is no column. */
export interface FlowTableHeader {
  readonly format: 1;
  /** Slots below this were ever used. */
  readonly slots: number;
  /** IPv6 keys below this were ever used. */
  readonly keys6: number;
  readonly count: number;
  /** The clock of the old process when it stopped, milliseconds. */
  readonly now: number;
}

/** Answer of `room`: there is a free slot. */
export const HAS_ROOM = -1;

/** Most flows of one table: an index and a direction bit have to fit a small integer with room to spare. */
export const FLOWS_MAX = 1 << 24;

/** Most networks: the number shares a word with protocol and version. */
export const NETWORKS_MAX = 1 << 22;

/**
 * An active flow is not evicted in favour of a new one of its own account: a scan must not cut its
 * neighbours.
 */
export const EVICTION_IDLE_MS_MIN = 1000;

/** Flows that one eviction looks at: more finds an idler victim, and costs more. */
const EVICTION_SAMPLE = 16;

/**
 * A refusal is remembered this long, from its first packet: retries of one attempt cost no hook, and a
 * changed policy is felt soon.
 */
export const REFUSAL_MS = 3000;

// The record of a flow: eight words, half a cache line, all that a packet of a known flow reads but its
// counters.
const RECORD = 8;
/** Network, version and protocol: `tagOf`. 0 marks a free slot. */
const TAG = 0;
/** IPv4: source address. IPv6: slot of the key in the second store. Free slot: the next free one. */
const SOURCE = 1;
const DESTINATION = 2;
/** Source port × 65536 + destination port. */
const PORTS = 3;
/** Ingress tunnel in the low half, egress tunnel in the high half. */
const TUNNELS = 4;
/** Action in bits 0 to 7, TCP state in bits 8 to 15, drop reason or detail of the action in bits 16 to 23. */
const META = 5;
const HANDLE = 6;
/** Milliseconds of the monotonic clock, modulo 2^32. */
const LAST_SEEN = 7;

const V6_BIT = 0x100;

/** Words of an IPv6 key: source and destination address. */
const KEY6 = 8;

/**
 * The live flows of one worker. One slot number names a flow in a handful of typed arrays; no object exists
 * per flow but what the owner puts into `cold`, which may be shared.
 *
 * A flow has one entry in an open-addressing hash: the hash is symmetric, and comparing tells the direction.
 * Keys contain the network, so a packet of one network cannot find another's flow. All arrays are reserved at
 * their full size: the kernel gives memory when a page is first touched, so nothing is ever copied or
 * rehashed and no packet waits for growth. Removal shifts later entries of the probe run back, so there are
 * no tombstones and lookups do not get slower with age.
 *
 * @typeParam Cold what the owner keeps beside a flow.
 */
export class FlowTable<Cold> {
  readonly capacity: number;
  /** Per flow four numbers: packets up, bytes up, packets down, bytes down. */
  readonly counters: Float64Array;
  /** The owner's part of each flow, by index; null in free slots. */
  readonly cold: (Cold | null)[] = [];

  readonly #limits: FlowLimits;
  readonly #hash: FlowHash;
  readonly #buckets: FlowBuckets;
  readonly #records: Int32Array;
  readonly #keys6: Int32Array;
  /** Unix milliseconds. */
  readonly #createdAt: Float64Array;
  readonly #numbers: Float64Array;
  readonly #routes: Int32Array;
  readonly #rings: AccountRings;
  #count = 0;
  /** Slots at or above this were never used. */
  #slots = 0;
  #freeSlot = -1;
  #keys6Used = 0;
  /** Head of the free IPv6 keys, linked through their first word. */
  #freeKey6 = -1;
  /** Where the next `expire` goes on. */
  #sweep = 0;

  /** @param seed two random 32-bit numbers. */
  constructor(limits: FlowLimits, seed: readonly [number, number]) {
    assert(limits.flowsMax > 0 && limits.flowsMax <= FLOWS_MAX);
    const capacity = limits.flowsMax;
    this.capacity = capacity;
    this.#limits = limits;
    this.#hash = new FlowHash(seed[0], seed[1]);
    this.#buckets = new FlowBuckets(capacity);
    this.#records = new Int32Array(capacity * RECORD);
    this.counters = new Float64Array(capacity * 4);
    this.#keys6 = new Int32Array(capacity * KEY6);
    this.#createdAt = new Float64Array(capacity);
    this.#numbers = new Float64Array(capacity);
    this.#routes = new Int32Array(capacity);
    this.#rings = new AccountRings(capacity);
  }

  /** Live flows. */
  get count(): number {
    return this.#count;
  }

  /** Every live flow has an index below this. */
  get slots(): number {
    return this.#slots;
  }

  /** Live flows of an account. */
  countOf(account: AccountId): number {
    return this.#rings.shares.count(account);
  }

  // --- the hot path ----------------------------------------------------------------------------------------

  /** The flow of a packet as `flow × 2 + direction`, or −1. */
  lookup(network: NetworkId, view: DataView, packet: ParsedPacket): number {
    const ports = (packet.sourcePort << 16) | packet.destinationPort;
    const at = packet.addressOffset;
    if (packet.version === 4) {
      const tag = (network << 9) | packet.protocol;
      return this.#find4(tag, view.getInt32(at), view.getInt32(at + 4), ports);
    }
    return this.#find6((network << 9) | V6_BIT | packet.protocol, view, at, ports);
  }

  /**
   * The flow of a tuple that stands in no parsed packet, as an ICMP error's quoted one: addresses (source,
   * then destination) at `addresses`. Same answer as `lookup`.
   */
  lookupTuple(network: NetworkId, view: DataView, tuple: FlowTuple): number {
    const ports = (tuple.sourcePort << 16) | tuple.destinationPort;
    const at = tuple.addressOffset;
    if (tuple.version === 4) {
      const tag = (network << 9) | tuple.protocol;
      return this.#find4(tag, view.getInt32(at), view.getInt32(at + 4), ports);
    }
    return this.#find6((network << 9) | V6_BIT | tuple.protocol, view, at, ports);
  }

  #find4(tag: number, source: number, destination: number, ports: number): number {
    const hash = this.#hash.hash4(tag, source, destination, ports);
    const { pairs, mask } = this.#buckets;
    const records = this.#records;
    for (let bucket = hash & mask; ; bucket = (bucket + 1) & mask) {
      const entry = pairs[bucket * 2 + 1] as number;
      if (entry === 0) return -1;
      if (pairs[bucket * 2] !== hash) continue;
      const at = (entry - 1) * RECORD;
      if (records[at + TAG] !== tag) continue;
      const first = records[at + SOURCE] as number;
      const second = records[at + DESTINATION] as number;
      const known = records[at + PORTS] as number;
      if (first === source && second === destination && known === ports) return (entry - 1) * 2;
      if (first !== destination || second !== source) continue;
      if (known === ((ports << 16) | (ports >>> 16))) return (entry - 1) * 2 + 1;
    }
  }

  #find6(tag: number, view: DataView, addresses: number, ports: number): number {
    const hash = this.#hash.hash6(tag, view, addresses, ports);
    const { pairs, mask } = this.#buckets;
    const records = this.#records;
    for (let bucket = hash & mask; ; bucket = (bucket + 1) & mask) {
      const entry = pairs[bucket * 2 + 1] as number;
      if (entry === 0) return -1;
      if (pairs[bucket * 2] !== hash) continue;
      const at = (entry - 1) * RECORD;
      if (records[at + TAG] !== tag) continue;
      const key = (records[at + SOURCE] as number) * KEY6;
      const known = records[at + PORTS] as number;
      if (known === ports && this.#equals6(key, view, addresses, addresses + 16)) return (entry - 1) * 2;
      if (known !== ((ports << 16) | (ports >>> 16))) continue;
      if (this.#equals6(key, view, addresses + 16, addresses)) return (entry - 1) * 2 + 1;
    }
  }

  #equals6(key: number, view: DataView, source: number, destination: number): boolean {
    const keys = this.#keys6;
    for (let i = 0; i < 4; i++) {
      if (keys[key + i] !== view.getInt32(source + i * 4)) return false;
      if (keys[key + 4 + i] !== view.getInt32(destination + i * 4)) return false;
    }
    return true;
  }

  /** Counts a packet and makes the flow young again. */
  touch(flow: FlowIndex, direction: number, bytes: number, now: number): void {
    const at = flow * 4 + direction * 2;
    const counters = this.counters;
    counters[at] = (counters[at] as number) + 1;
    counters[at + 1] = (counters[at + 1] as number) + bytes;
    this.#records[flow * RECORD + LAST_SEEN] = now | 0;
  }

  /** Counts more packets without making the flow younger. */
  addPackets(flow: FlowIndex, direction: number, packets: number, bytes: number): void {
    const at = flow * 4 + direction * 2;
    this.counters[at] = (this.counters[at] as number) + packets;
    this.counters[at + 1] = (this.counters[at + 1] as number) + bytes;
  }

  /** A `FlowAction`. */
  action(flow: FlowIndex): number {
    return (this.#records[flow * RECORD + META] as number) & 0xff;
  }

  /** What belongs to the action: the drop reason of a refusal, the answer of a reject. 0 to 255. */
  detail(flow: FlowIndex): number {
    return ((this.#records[flow * RECORD + META] as number) >>> 16) & 0xff;
  }

  tcpState(flow: FlowIndex): number {
    return ((this.#records[flow * RECORD + META] as number) >>> 8) & 0xff;
  }

  setTcpState(flow: FlowIndex, state: number): void {
    const at = flow * RECORD + META;
    this.#records[at] = ((this.#records[at] as number) & ~0xff00) | (state << 8);
  }

  /** Tunnel that the flow's first packet came by; 0 for none (the stack's own flows). */
  ingress(flow: FlowIndex): number {
    return (this.#records[flow * RECORD + TUNNELS] as number) & 0xffff;
  }

  /** Tunnel that it leaves by; 0 for none (upgraded and refused flows). */
  egress(flow: FlowIndex): number {
    return (this.#records[flow * RECORD + TUNNELS] as number) >>> 16;
  }

  /** What the upgrade gave for the flow. */
  handle(flow: FlowIndex): number {
    return this.#records[flow * RECORD + HANDLE] as number;
  }

  // --- opening and ending ----------------------------------------------------------------------------------

  /**
   * Whether one more flow of the account has a place: `HAS_ROOM`; or a flow that has to be removed first,
   * which is the most idle of a sample; or, negative, the `DropReason` why the new flow is refused.
   *
   * When the table is full, the account with the most flows gives one up: it has at least the average, so an
   * account below its fair share never loses one. Against flows of its own account a new one wins only over
   * idle ones.
   */
  room(account: AccountId, now: number): number {
    const own = this.#rings.shares.count(account);
    if (own >= this.#limits.flowsPerAccountMax)
      return this.#ownVictim(account, now, DropReason.AccountFlowLimit);
    if (this.#count < this.capacity) return HAS_ROOM;
    if (own >= this.#rings.shares.countMax) return this.#ownVictim(account, now, DropReason.FlowTableFull);
    return this.#victim(this.#rings.shares.largest, now);
  }

  #ownVictim(account: AccountId, now: number, refusal: DropReason): number {
    const flow = this.#victim(account, now);
    return this.idleMs(flow, now) >= Math.min(EVICTION_IDLE_MS_MIN, this.timeoutMs(flow)) ? flow : -refusal;
  }

  /**
   * Of the next flows behind the account's hand, the one that has used up most of its time. Moves the hand
   * on.
   */
  #victim(account: AccountId, now: number): FlowIndex {
    let flow = this.#rings.hand(account);
    let best = flow;
    let bestShare = -1;
    const sample = Math.min(EVICTION_SAMPLE, this.#rings.shares.count(account));
    for (let i = 0; i < sample; i++) {
      const share = this.idleMs(flow, now) / this.timeoutMs(flow);
      if (share > bestShare) {
        best = flow;
        bestShare = share;
      }
      flow = this.#rings.next(flow);
    }
    this.#rings.setHand(account, flow);
    return best;
  }

  /** Adds the flow of a packet that `lookup` did not find; `room` has said that there is a place. */
  insert(opening: FlowOpening, view: DataView, packet: FlowTuple): FlowIndex {
    const { network, account } = opening;
    assert(this.#count < this.capacity && network > 0 && network < NETWORKS_MAX && account > 0);
    const flow = this.#takeSlot();
    const records = this.#records;
    const at = flow * RECORD;
    const ports = (packet.sourcePort << 16) | packet.destinationPort;
    records[at + TAG] = (network << 9) | (packet.version === 6 ? V6_BIT : 0) | packet.protocol;
    records[at + PORTS] = ports;
    if (packet.version === 4) {
      records[at + SOURCE] = view.getInt32(packet.addressOffset);
      records[at + DESTINATION] = view.getInt32(packet.addressOffset + 4);
    } else {
      records[at + SOURCE] = this.#takeKey6(view, packet.addressOffset);
      records[at + DESTINATION] = 0;
    }
    records[at + TUNNELS] = opening.ingress;
    records[at + META] = opening.tcpState << 8;
    records[at + HANDLE] = -1;
    records[at + LAST_SEEN] = opening.now | 0;
    this.counters.fill(0, flow * 4, flow * 4 + 4);
    this.#createdAt[flow] = opening.createdAt;
    this.#numbers[flow] = opening.number;
    this.#routes[flow] = opening.route;
    this.#buckets.add(this.#hashOf(flow), flow);
    this.#rings.join(flow, account);
    this.#count++;
    return flow;
  }

  /** Says what happens to the flow's packets from here on. */
  decide(flow: FlowIndex, action: FlowAction, detail = 0): void {
    assert(detail >= 0 && detail <= 0xff);
    const at = flow * RECORD + META;
    this.#records[at] = ((this.#records[at] as number) & 0xff00) | action | (detail << 16);
  }

  /** The client of the flow has come over another tunnel. */
  setIngress(flow: FlowIndex, tunnel: number): void {
    assert(tunnel >= 0 && tunnel <= 0xffff);
    const at = flow * RECORD + TUNNELS;
    this.#records[at] = ((this.#records[at] as number) & ~0xffff) | tunnel;
  }

  setEgress(flow: FlowIndex, tunnel: number): void {
    assert(tunnel >= 0 && tunnel <= 0xffff);
    const at = flow * RECORD + TUNNELS;
    this.#records[at] = ((this.#records[at] as number) & 0xffff) | (tunnel << 16);
  }

  setHandle(flow: FlowIndex, handle: number): void {
    this.#records[flow * RECORD + HANDLE] = handle;
  }

  /** Removes a live flow. Its index may be given to another at once. */
  remove(flow: FlowIndex): void {
    assert(this.isLive(flow), 'flow removed twice');
    this.#buckets.remove(this.#hashOf(flow), flow);
    this.#rings.leave(flow);
    const at = flow * RECORD;
    const records = this.#records;
    if (((records[at + TAG] as number) & V6_BIT) !== 0) {
      const key = records[at + SOURCE] as number;
      this.#keys6[key * KEY6] = this.#freeKey6;
      this.#freeKey6 = key;
    }
    records[at + TAG] = 0;
    this.cold[flow] = null;
    records[at + SOURCE] = this.#freeSlot;
    this.#freeSlot = flow;
    this.#count--;
  }

  // --- what is known of a flow -----------------------------------------------------------------------------

  /** True when the index names a flow now. */
  isLive(flow: FlowIndex): boolean {
    return flow >= 0 && flow < this.#slots && this.#records[flow * RECORD + TAG] !== 0;
  }

  network(flow: FlowIndex): NetworkId {
    return (this.#records[flow * RECORD + TAG] as number) >>> 9;
  }

  account(flow: FlowIndex): AccountId {
    return this.#rings.accountOf(flow);
  }

  /** 4 or 6. */
  version(flow: FlowIndex): number {
    return ((this.#records[flow * RECORD + TAG] as number) & V6_BIT) === 0 ? 4 : 6;
  }

  /** IANA protocol number. */
  protocol(flow: FlowIndex): number {
    return (this.#records[flow * RECORD + TAG] as number) & 0xff;
  }

  sourcePort(flow: FlowIndex): number {
    return (this.#records[flow * RECORD + PORTS] as number) >>> 16;
  }

  destinationPort(flow: FlowIndex): number {
    return (this.#records[flow * RECORD + PORTS] as number) & 0xffff;
  }

  /** Writes source and destination address (4 or 16 bytes each) of the flow's first packet to `offset`. */
  writeAddresses(flow: FlowIndex, view: DataView, offset: number): void {
    const at = flow * RECORD;
    if (this.version(flow) === 4) {
      view.setInt32(offset, this.#records[at + SOURCE] as number);
      view.setInt32(offset + 4, this.#records[at + DESTINATION] as number);
      return;
    }
    const key = (this.#records[at + SOURCE] as number) * KEY6;
    for (let i = 0; i < KEY6; i++) view.setInt32(offset + i * 4, this.#keys6[key + i] as number);
  }

  /** Number of the flow, unique in the process's life. */
  numberOf(flow: FlowIndex): number {
    return this.#numbers[flow] as number;
  }

  /** Route that took it, as `Routes` numbers them; 0 for none. */
  route(flow: FlowIndex): number {
    return this.#routes[flow] as number;
  }

  setRoute(flow: FlowIndex, route: number): void {
    this.#routes[flow] = route;
  }

  /** Unix milliseconds. */
  createdAt(flow: FlowIndex): number {
    return this.#createdAt[flow] as number;
  }

  /** Milliseconds since the last packet, right up to 24 days. */
  idleMs(flow: FlowIndex, now: number): number {
    return ((now | 0) - (this.#records[flow * RECORD + LAST_SEEN] as number)) | 0;
  }

  /** After how much silence the flow is forgotten. */
  timeoutMs(flow: FlowIndex): number {
    const action = this.action(flow);
    if (action === FlowAction.Drop || action === FlowAction.Reject) return REFUSAL_MS;
    return flowTimeoutMs(this.#limits, this.protocol(flow), this.tcpState(flow));
  }

  // --- the clock -------------------------------------------------------------------------------------------

  /**
   * Looks at the next `budget` slots and tells `sink` of flows that were silent for too long. A hand goes
   * round over all slots, so a call costs at most `budget` steps and a flow is found at the latest one round
   * after its time. Cheap and exact enough for limits of seconds to days, and needs no memory per flow.
   */
  expire(now: number, budget: number, sink: ExpirySink): void {
    const steps = Math.min(budget, this.#slots);
    for (let i = 0; i < steps; i++) {
      if (this.#sweep >= this.#slots) this.#sweep = 0;
      const flow = this.#sweep++;
      if (this.#records[flow * RECORD + TAG] === 0) continue;
      if (this.idleMs(flow, now) >= this.timeoutMs(flow)) sink.onExpired(flow);
    }
  }

  // --- moving to a new process -----------------------------------------------------------------------------

  /**
   * All flows. The buffers are views of the live table: use them before the next packet. `cold` is the
   * owner's to move.
   */
  snapshot(now: number): FlowTableSnapshot {
    const header = {
      format: 1,
      slots: this.#slots,
      keys6: this.#keys6Used,
      count: this.#count,
      now,
    } as const;
    const columns = this.#columns(this.#slots, this.#keys6Used);
    return {
      header,
      buffers: columns.map((array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)),
    };
  }

  /**
   * Takes over a snapshot; indexes stay what they were. The table must be new and large enough. `now` is this
   * process's clock, so that idle times go on. Networks must have been adopted with the numbers they had.
   */
  restore(snapshot: FlowTableSnapshot, now: number): void {
    const { header, buffers } = snapshot;
    assert(this.#slots === 0 && header.format === 1 && header.slots <= this.capacity);
    this.#slots = header.slots;
    this.#keys6Used = header.keys6;
    const columns = this.#columns(header.slots, header.keys6);
    assert(columns.length === buffers.length);
    for (const [at, column] of columns.entries()) {
      const bytes = buffers[at] as Uint8Array;
      assert(bytes.length === column.byteLength, 'snapshot column has a wrong length');
      new Uint8Array(column.buffer, column.byteOffset, column.byteLength).set(bytes);
    }
    const shift = (now | 0) - (header.now | 0);
    for (let flow = 0; flow < header.slots; flow++) this.cold.push(null);
    const keysInUse = new Uint8Array(header.keys6);
    for (let flow = header.slots - 1; flow >= 0; flow--) this.#restoreFlow(flow, shift, keysInUse);
    for (let key = header.keys6 - 1; key >= 0; key--) {
      if (keysInUse[key] === 1) continue;
      this.#keys6[key * KEY6] = this.#freeKey6;
      this.#freeKey6 = key;
    }
    assert(this.#count === header.count, 'snapshot holds another number of flows than it says');
  }

  #restoreFlow(flow: FlowIndex, shift: number, keysInUse: Uint8Array): void {
    const at = flow * RECORD;
    if (this.#records[at + TAG] === 0) {
      this.#records[at + SOURCE] = this.#freeSlot;
      this.#freeSlot = flow;
      return;
    }
    this.#records[at + LAST_SEEN] = ((this.#records[at + LAST_SEEN] as number) + shift) | 0;
    if (this.version(flow) === 6) keysInUse[this.#records[at + SOURCE] as number] = 1;
    this.#buckets.add(this.#hashOf(flow), flow);
    this.#rings.join(flow, this.#rings.accountOf(flow));
    this.#count++;
  }

  /** What a snapshot consists of, cut to what was ever used. Links and buckets are made anew. */
  #columns(slots: number, keys6: number): (Int32Array | Float64Array)[] {
    return [
      this.#records.subarray(0, slots * RECORD),
      this.counters.subarray(0, slots * 4),
      this.#keys6.subarray(0, keys6 * KEY6),
      this.#createdAt.subarray(0, slots),
      this.#numbers.subarray(0, slots),
      this.#routes.subarray(0, slots),
      this.#rings.accounts(slots),
    ];
  }

  // --- slots, rings, buckets -------------------------------------------------------------------------------

  #takeSlot(): FlowIndex {
    const flow = this.#freeSlot;
    if (flow >= 0) {
      this.#freeSlot = this.#records[flow * RECORD + SOURCE] as number;
      return flow;
    }
    this.cold.push(null);
    return this.#slots++;
  }

  #takeKey6(view: DataView, addresses: number): number {
    let key = this.#freeKey6;
    if (key >= 0) this.#freeKey6 = this.#keys6[key * KEY6] as number;
    else key = this.#keys6Used++;
    for (let i = 0; i < KEY6; i++) this.#keys6[key * KEY6 + i] = view.getInt32(addresses + i * 4);
    return key;
  }

  #hashOf(flow: FlowIndex): number {
    const at = flow * RECORD;
    const records = this.#records;
    const tag = records[at + TAG] as number;
    const ports = records[at + PORTS] as number;
    const source = records[at + SOURCE] as number;
    if ((tag & V6_BIT) === 0)
      return this.#hash.hash4(tag, source, records[at + DESTINATION] as number, ports);
    for (let i = 0; i < KEY6; i++) KEY6_VIEW.setInt32(i * 4, this.#keys6[source * KEY6 + i] as number);
    return this.#hash.hash6(tag, KEY6_VIEW, 0, ports);
  }
}

const KEY6_VIEW = new DataView(new ArrayBuffer(32));

/** What names a flow in a packet; `ParsedPacket` is one. Addresses stand at `addressOffset`, source first. */
export type FlowTuple = Pick<
  ParsedPacket,
  'version' | 'protocol' | 'addressOffset' | 'sourcePort' | 'destinationPort'
>;

/** How a flow starts. One object is reused for all. */
export interface FlowOpening {
  network: NetworkId;
  account: AccountId;
  /** Index of the tunnel that brought it, 0 for the stack's own. */
  ingress: number;
  tcpState: number;
  /** Number of the route that took it, 0 for none. */
  route: number;
  /** Unique number of the flow. */
  number: number;
  /** Monotonic milliseconds. */
  now: number;
  /** Unix milliseconds. */
  createdAt: number;
}
