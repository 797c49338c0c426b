import { assert } from '#base/assert.ts';
import { parseIp } from '#base/ip.ts';
import { writeAddress } from '#packet/address.ts';
import { ParsedPacket } from '#packet/parse.ts';

import type { FlowTable } from './flow-table.ts';
import type { OutboundSpec } from './packet-upgrade.ts';

/** Ephemeral ports (RFC 6056 section 3.2). */
const PORT_MIN = 32768;
const PORT_MAX = 60999;

/** Ports tried before a flow is refused: with 99 % in use, failure is one in a million. */
const PORT_TRIES = 1400;

/**
 * The tuples of flows that start here: addresses as a packet would have them, and a source port that is free.
 */
export class OutboundTuples {
  /** Source and destination address of the tuple in hand. */
  readonly view = new DataView(new ArrayBuffer(32));
  /** The tuple in hand; offsets are of `view`. */
  readonly tuple = new ParsedPacket();
  readonly #table: FlowTable<unknown>;
  #nextPort: number;

  /** @param seed chooses the first port. */
  constructor(table: FlowTable<unknown>, seed: number) {
    this.#table = table;
    this.#nextPort = PORT_MIN + ((seed >>> 0) % (PORT_MAX - PORT_MIN + 1));
  }

  /** Takes the addresses of a flow in hand. */
  set(spec: OutboundSpec): void {
    const source = parseIp(spec.source.address);
    const target = parseIp(spec.target.address);
    assert(source !== null && target !== null && source.length === target.length);
    const { tuple, view } = this;
    tuple.version = source.length === 4 ? 4 : 6;
    tuple.protocol = spec.protocol;
    tuple.addressOffset = 0;
    tuple.destinationPort = spec.target.port;
    writeAddress(view, 0, source);
    writeAddress(view, source.length, target);
  }

  /**
   * Chooses a source port with which the tuple is nobody's yet; the spec's own, if it has one. False: none is
   * free.
   */
  choosePort(spec: OutboundSpec): boolean {
    if (spec.source.port !== 0) return this.#isFree(spec, spec.source.port);
    for (let i = 0; i < PORT_TRIES; i++) {
      const port = this.#nextPort;
      this.#nextPort = port === PORT_MAX ? PORT_MIN : port + 1;
      if (this.#isFree(spec, port)) return true;
    }
    return false;
  }

  #isFree(spec: OutboundSpec, port: number): boolean {
    this.tuple.sourcePort = port;
    return this.#table.lookup(spec.network, this.view, this.tuple) < 0;
  }
}
