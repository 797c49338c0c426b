import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';

import type { FlowIndex } from './flow-table.ts';

/**
 * The address plan of the stack's private namespace. No address of a customer is ever seen in there, so two
 * networks with equal addresses cannot meet in the kernel: each flow is known by an index n, which stands in
 * the low bits.
 *
 * ```
 *  upgrade:   client 10.n : its port  ──►  192.0.2.1 : listener   a kernel peer of its own for each flow
 *  downgrade: 192.0.2.1 : any port    ──►  11.n : target's port   a kernel target for each flow
 *  IPv6:      fd72:616d:7061:1::n, fd72:616d:7061:2::n, the stack is fd72:616d:7061::1
 * ```
 */
export const StackPlan = Object.freeze({
  /** The stack's own address, as a signed number: 192.0.2.1 (RFC 5737, so it is nobody's). */
  stack4: 0xc0000201 | 0,
  stackText4: '192.0.2.1',
  /** Clients of upgraded flows: 10.0.0.0/8. */
  client4: 0x0a000000,
  clientPrefix4: '10.0.0.0/8',
  /** Targets of downgraded streams: 11.0.0.0/8. */
  target4: 0x0b000000,
  targetPrefix4: '11.0.0.0/8',
  /** The stack's own IPv6 address, in a locally assigned prefix (RFC 4193). */
  stackText6: 'fd72:616d:7061::1',
  clientPrefix6: 'fd72:616d:7061:1::/96',
  targetPrefix6: 'fd72:616d:7061:2::/96',
} as const);

/** The words of `fd72:616d:7061` and what follows it. */
const PREFIX6_WORD0 = 0xfd72616d | 0;
const PREFIX6_CLIENT = 0x70610001;
const PREFIX6_TARGET = 0x70610002;
const PREFIX6_STACK = 0x70610000;

/** Which of the two peers an address in the namespace stands for. */
export type StackPeer = 'client' | 'target';

/** Highest index: 24 bits without all zeros and all ones, which no kernel takes for a host's address. */
export const NAT_INDEX_MAX = 0xfffffe;

/** Writes the address of index n (4 or 16 bytes) to `offset`. */
export function writePeerAddress(
  view: DataView,
  offset: number,
  peer: { readonly version: number; readonly peer: StackPeer; readonly n: number },
): void {
  assert(peer.n > 0 && peer.n <= NAT_INDEX_MAX);
  if (peer.version === 4) {
    view.setInt32(offset, (peer.peer === 'client' ? StackPlan.client4 : StackPlan.target4) | peer.n);
    return;
  }
  view.setInt32(offset, PREFIX6_WORD0);
  view.setInt32(offset + 4, peer.peer === 'client' ? PREFIX6_CLIENT : PREFIX6_TARGET);
  view.setInt32(offset + 8, 0);
  view.setInt32(offset + 12, peer.n);
}

/** Writes the stack's own address (4 or 16 bytes) to `offset`. */
export function writeStackAddress(view: DataView, offset: number, version: number): void {
  if (version === 4) {
    view.setInt32(offset, StackPlan.stack4);
    return;
  }
  view.setInt32(offset, PREFIX6_WORD0);
  view.setInt32(offset + 4, PREFIX6_STACK);
  view.setInt32(offset + 8, 0);
  view.setInt32(offset + 12, 1);
}

/**
 * The index in the address at `offset` when it is one of the peer's, else 0. Never throws: packets come from
 * the kernel.
 */
export function readPeerIndex(view: DataView, offset: number, version: number, peer: StackPeer): number {
  if (version === 4) {
    const address = view.getInt32(offset);
    const base = peer === 'client' ? StackPlan.client4 : StackPlan.target4;
    return (address & 0xff000000) === base ? address & 0xffffff : 0;
  }
  const second = peer === 'client' ? PREFIX6_CLIENT : PREFIX6_TARGET;
  if (view.getInt32(offset) !== PREFIX6_WORD0 || view.getInt32(offset + 4) !== second) return 0;
  const n = view.getInt32(offset + 12);
  return view.getInt32(offset + 8) === 0 && n > 0 && n <= NAT_INDEX_MAX ? n : 0;
}

/** State of a table for a new process: pairs of index and flow, and where the next index comes from. */
export interface NatState {
  readonly format: 1;
  readonly capacity: number;
  readonly fresh: number;
  /** Bytes of an Int32Array: freed indexes, oldest first. */
  readonly freed: Uint8Array;
  /** Bytes of an Int32Array: flow + 1 by index, up to `fresh`. */
  readonly flows: Uint8Array;
}

/**
 * Indexes for the flows that are in the stack, and back. An index that was freed is given out again only
 * after all that were freed before it: the longest time that there can be, so that a new flow does not meet
 * the kernel's TIME-WAIT of an old one. All steps are O(1).
 */
export class NatTable {
  readonly capacity: number;
  /** Flow + 1 by index, 0 for free. */
  readonly #flows: Int32Array;
  /** Freed indexes as a ring, oldest first. */
  readonly #freed: Int32Array;
  #freedHead = 0;
  #freedCount = 0;
  /** Indexes from this one on were never given out. */
  #fresh = 1;

  /** @param capacity indexes, at most `NAT_INDEX_MAX`. Twice the flows or more keeps reuse late. */
  constructor(capacity: number) {
    assert(capacity > 0 && capacity <= NAT_INDEX_MAX);
    this.capacity = capacity;
    this.#flows = new Int32Array(capacity + 1);
    this.#freed = new Int32Array(capacity);
  }

  /** Indexes in use. */
  get inUse(): number {
    return this.#fresh - 1 - this.#freedCount;
  }

  /** An index for the flow (≥ 1), or −`DropReason.NatFull`. */
  allocate(flow: FlowIndex): number {
    assert(flow >= 0);
    let n = 0;
    if (this.#fresh <= this.capacity) {
      n = this.#fresh++;
    } else {
      if (this.#freedCount === 0) return -DropReason.NatFull;
      n = this.#freed[this.#freedHead] as number;
      this.#freedHead = (this.#freedHead + 1) % this.capacity;
      this.#freedCount--;
    }
    this.#flows[n] = flow + 1;
    return n;
  }

  /** The flow of an index that stands in a packet, −1 when there is none. */
  flowOf(n: number): FlowIndex {
    return n > 0 && n <= this.capacity ? (this.#flows[n] as number) - 1 : -1;
  }

  /** Gives the index back. */
  release(n: number): void {
    assert(this.flowOf(n) >= 0, 'nat index released twice');
    this.#flows[n] = 0;
    this.#freed[(this.#freedHead + this.#freedCount) % this.capacity] = n;
    this.#freedCount++;
  }

  /** Copies of everything. */
  snapshot(): NatState {
    const freed = new Int32Array(this.#freedCount);
    for (let i = 0; i < freed.length; i++) {
      freed[i] = this.#freed[(this.#freedHead + i) % this.capacity] as number;
    }
    return {
      format: 1,
      capacity: this.capacity,
      fresh: this.#fresh,
      freed: new Uint8Array(freed.buffer),
      flows: new Uint8Array(this.#flows.slice(0, this.#fresh).buffer),
    };
  }

  /** Takes over a state; this table must be new and of at least the same capacity. */
  restore(state: NatState): void {
    assert(this.#fresh === 1 && state.format === 1 && state.capacity <= this.capacity);
    this.#fresh = state.fresh;
    this.#flows.set(new Int32Array(state.flows.slice().buffer));
    const freed = new Int32Array(state.freed.slice().buffer);
    this.#freed.set(freed);
    this.#freedCount = freed.length;
  }
}
