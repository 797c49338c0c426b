/**
 * The stack's address translation, packet by packet: from the addresses of a flow to those that it has
 * inside the private namespace, and back. The plan of the addresses is `flow/nat.ts`.
 *
 * ```
 *   upgraded     client C:c → target T:t     ⇄     peer 10.n:c → stack:STACK_PORT
 *   downgraded   source S:s → target T:t     ⇄     stack:local → peer 11.n:t
 * ```
 */
import { assert } from '#base/assert.ts';
import type { ParsedPacket } from '#packet/parse.ts';
import { rewriteDestination, rewriteSource } from '#packet/rewrite.ts';
import type { FlowIndex, FlowTable } from '#proxy/flow/flow-table.ts';
import { StackPlan, writePeerAddress, writeStackAddress } from '#proxy/flow/nat.ts';

import { STACK_PORT } from './stack-namespace.ts';

/**
 * Where a family's part of the scratch begins: flow's source and destination, stack, client peer, target
 * peer.
 */
const FLOW = 0;
const STACK = 32;
const CLIENT = 48;
const TARGET = 64;
const FAMILY_BYTES = 80;

/** Rewrites packets in place, checksums included. One instance per worker. */
export class StackRewrite {
  readonly #table: FlowTable<unknown>;
  readonly #scratch = new DataView(new ArrayBuffer(2 * FAMILY_BYTES));

  constructor(table: FlowTable<unknown>) {
    this.#table = table;
    for (const version of [4, 6]) {
      const base = baseOf(version);
      writeStackAddress(this.#scratch, base + STACK, version);
      writePeerAddress(this.#scratch, base + CLIENT, { version, peer: 'client', n: 1 });
      writePeerAddress(this.#scratch, base + TARGET, { version, peer: 'target', n: 1 });
    }
  }

  /** A client's packet, on its way to the listener. */
  clientToStack(view: DataView, packet: ParsedPacket, n: number): void {
    const base = this.#setPeer(packet.version, CLIENT, StackPlan.client4, n);
    rewriteSource(view, packet, this.#scratch, base + CLIENT, packet.sourcePort);
    rewriteDestination(view, packet, this.#scratch, base + STACK, STACK_PORT);
  }

  /** A target's packet, on its way to the socket of the stack that is bound to `localPort`. */
  targetToStack(view: DataView, packet: ParsedPacket, n: number, localPort: number): void {
    const base = this.#setPeer(packet.version, TARGET, StackPlan.target4, n);
    rewriteSource(view, packet, this.#scratch, base + TARGET, packet.sourcePort);
    rewriteDestination(view, packet, this.#scratch, base + STACK, localPort);
  }

  /** A packet of the listener's side of an upgraded flow, on its way to the client. */
  stackToClient(view: DataView, packet: ParsedPacket, flow: FlowIndex): void {
    const base = this.#setFlow(packet.version, flow);
    const half = packet.version === 4 ? 4 : 16;
    rewriteSource(view, packet, this.#scratch, base + FLOW + half, this.#table.destinationPort(flow));
    rewriteDestination(view, packet, this.#scratch, base + FLOW, this.#table.sourcePort(flow));
  }

  /** A packet of a connecting socket, on its way to the real target. */
  stackToTarget(view: DataView, packet: ParsedPacket, flow: FlowIndex): void {
    const base = this.#setFlow(packet.version, flow);
    const half = packet.version === 4 ? 4 : 16;
    rewriteSource(view, packet, this.#scratch, base + FLOW, this.#table.sourcePort(flow));
    rewriteDestination(view, packet, this.#scratch, base + FLOW + half, this.#table.destinationPort(flow));
  }

  #setFlow(version: number, flow: FlowIndex): number {
    assert(this.#table.version(flow) === version, 'packet and flow have different versions');
    const base = baseOf(version);
    this.#table.writeAddresses(flow, this.#scratch, base + FLOW);
    return base;
  }

  /** Only the low bits of a peer's address change. */
  #setPeer(version: number, at: number, prefix4: number, n: number): number {
    const base = baseOf(version);
    if (version === 4) this.#scratch.setInt32(base + at, prefix4 | n);
    else this.#scratch.setInt32(base + at + 12, n);
    return base;
  }
}

function baseOf(version: number): number {
  return version === 4 ? 0 : FAMILY_BYTES;
}
