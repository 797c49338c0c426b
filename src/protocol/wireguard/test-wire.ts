/**
 * Two or more interfaces on a virtual wire with virtual time, for tests: every datagram can be looked at,
 * held back, changed, repeated or lost.
 */
import { createHash } from 'node:crypto';

import { parsePrefix, parseSocketAddress, type IpPrefix } from '#base/ip.ts';
import { keyPairOf } from '#crypto/x25519.ts';
import { writeSocketAddress } from '#io/socket-address.ts';

import type { WireguardDrop } from './drop.ts';
import { WireguardInterface } from './interface.ts';
import type { PeerOptions, WireguardEvent } from './interface-types.ts';
import type { Peer } from './peer.ts';

/** A datagram on its way. */
export interface Flying {
  readonly from: Uint8Array;
  readonly to: Uint8Array;
  readonly bytes: Uint8Array;
}

const AT = 4096;
const FROM = 1024;
const MEMORY_BYTES = 1 << 17;
/** Rounds of answers to answers before a test counts as endless. */
const ROUNDS_MAX = 200;

/** Reproducible chance. */
export function testRandom(seed: string): (into: Uint8Array) => void {
  let count = 0;
  return (into) => {
    for (let at = 0; at < into.length; at += 32) {
      const block = createHash('sha256').update(`${seed} ${count++}`).digest();
      into.set(block.subarray(0, Math.min(32, into.length - at)), at);
    }
  };
}

/** A socket address in the kernel's form. */
export function addressOf(text: string): Uint8Array {
  const bytes = new Uint8Array(128);
  const address = parseSocketAddress(text);
  if (address === null) throw new Error(`not an address: ${text}`);
  return bytes.slice(0, writeSocketAddress(new DataView(bytes.buffer), 0, address));
}

/** The prefixes of texts. */
export function prefixes(...texts: string[]): IpPrefix[] {
  return texts.map((text) => parsePrefix(text) as IpPrefix);
}

/** One machine on the wire. */
export class TestNode {
  readonly wireguard: WireguardInterface;
  readonly memory = new DataView(new ArrayBuffer(MEMORY_BYTES));
  readonly bytes = new Uint8Array(this.memory.buffer);
  readonly events: WireguardEvent[] = [];
  /** Packets that came out, as hexadecimal text. */
  readonly received: string[] = [];
  readonly drops: WireguardDrop[] = [];
  address: Uint8Array;
  readonly #wire: TestWire;

  constructor(wire: TestWire, name: string, address: string) {
    this.#wire = wire;
    this.address = addressOf(address);
    this.wireguard = new WireguardInterface({
      memory: this.memory,
      privateKey: secretOf(name),
      random: testRandom(`${name} ${wire.seed}`),
      unixAtZero: 1_700_000_000_000,
      mtu: 1420,
    });
    wire.nodes.push(this);
  }

  /** Makes `other` a peer of this node. */
  addPeer(other: TestNode, options: Partial<PeerOptions> = {}): Peer {
    const { publicKey } = other.wireguard;
    return this.wireguard.addPeer({ publicKey, allowedIps: [], ...options }, this.#wire.now);
  }

  /** Sends an IP packet; returns why not, or 0. */
  send(packet: Uint8Array): WireguardDrop {
    this.bytes.set(packet, AT);
    const drop = this.wireguard.handlePacket(AT, packet.length, this.#wire.now);
    const { outer } = this.wireguard;
    if (drop === 0) {
      const to = outer.peer?.endpointBytes() as Uint8Array;
      const bytes = this.bytes.slice(outer.at, outer.at + outer.length);
      this.#wire.flying.push({ from: this.address, to, bytes });
    }
    this.collect();
    return drop;
  }

  /** Takes a datagram as if it had come from `from`. */
  take(bytes: Uint8Array, from: Uint8Array): WireguardDrop {
    this.bytes.set(bytes, AT);
    this.bytes.set(from, FROM);
    const drop = this.wireguard.handleDatagram(AT, bytes.length, FROM, this.#wire.now);
    if (drop !== 0) this.drops.push(drop);
    const { inner } = this.wireguard;
    if (inner.length > 0) this.received.push(this.bytes.subarray(inner.at, inner.at + inner.length).toHex());
    this.collect();
    return drop;
  }

  /** Puts what the interface wants to send on the wire, and its events on the list. */
  collect(): void {
    const { wireguard } = this;
    for (let sent = wireguard.pollTransmit(); sent !== null; sent = wireguard.pollTransmit()) {
      this.#wire.flying.push({ from: this.address, to: sent.endpoint, bytes: sent.bytes });
    }
    for (let event = wireguard.pollEvent(); event !== null; event = wireguard.pollEvent()) {
      this.events.push(event);
    }
  }

  /** Kinds of the events so far. */
  get eventKinds(): string[] {
    return this.events.map(({ kind }) => kind);
  }
}

/** The wire: datagrams in flight, and the time. */
export class TestWire {
  now = 1000;
  readonly seed: string;
  readonly nodes: TestNode[] = [];
  flying: Flying[] = [];
  /** All datagrams that were delivered. */
  readonly delivered: Flying[] = [];
  /** True for datagrams that get lost. */
  loses: (datagram: Flying) => boolean = () => false;

  constructor(seed = 'seed') {
    this.seed = seed;
  }

  /** Delivers what is in flight, and what that brings about, until nothing flies. */
  settle(): void {
    for (let round = 0; this.flying.length > 0; round++) {
      if (round === ROUNDS_MAX) throw new Error('the nodes never stop answering each other');
      const batch = this.flying;
      this.flying = [];
      for (const datagram of batch) if (!this.loses(datagram)) this.deliver(datagram);
    }
  }

  /** Delivers one datagram; without a receiver it is lost. */
  deliver(datagram: Flying): WireguardDrop {
    this.delivered.push(datagram);
    const node = this.nodes.find(({ address }) => address.toHex() === datagram.to.toHex());
    return node === undefined ? 0 : node.take(datagram.bytes, datagram.from);
  }

  /** Lets `ms` pass, firing timers exactly when they are due and delivering everything at once. */
  pass(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      this.settle();
      const next = Math.min(...this.nodes.map(({ wireguard }) => wireguard.pollTimeout()));
      if (next > end) break;
      this.now = Math.max(this.now, next);
      for (const node of this.nodes) {
        node.wireguard.handleTimeout(this.now);
        node.collect();
      }
    }
    this.now = end;
  }
}

/** Two nodes that know each other: `left` is 10.0.0.1 and fd00::1, `right` is 10.0.0.2 and fd00::2. */
export function pair(
  options: { left?: Partial<PeerOptions>; right?: Partial<PeerOptions>; seed?: string } = {},
): {
  wire: TestWire;
  left: TestNode;
  right: TestNode;
  /** The peer that `left` has, which is `right`. */
  toRight: Peer;
  toLeft: Peer;
} {
  const wire = new TestWire(options.seed);
  const left = new TestNode(wire, 'left', '192.0.2.1:1001');
  const right = new TestNode(wire, 'right', '[2001:db8::2]:1002');
  const toRight = left.addPeer(right, {
    allowedIps: prefixes('10.0.0.2/32', 'fd00::2/128'),
    endpoint: right.address,
    ...options.left,
  });
  const toLeft = right.addPeer(left, {
    allowedIps: prefixes('10.0.0.1/32', 'fd00::1/128'),
    endpoint: left.address,
    ...options.right,
  });
  return { wire, left, right, toRight, toLeft };
}

/** The private key of a name. */
export function secretOf(name: string): Uint8Array {
  return createHash('sha256').update(`key of ${name}`).digest();
}

/** The public key of a name. */
export function publicOf(name: string): Uint8Array {
  return keyPairOf(secretOf(name)).publicKey;
}

/** An IPv4 packet with addresses and as many bytes; the rest is filled with `mark`. */
export function packet4(from: string, to: string, { length = 60, mark = 0x5a } = {}): Uint8Array {
  const packet = new Uint8Array(length).fill(mark);
  const view = new DataView(packet.buffer);
  packet[0] = 0x45;
  view.setUint16(2, length);
  packet.set(from.split('.').map(Number), 12);
  packet.set(to.split('.').map(Number), 16);
  return packet;
}

/** An IPv6 packet between fd00::`from` and fd00::`to`. */
export function packet6(from: number, to: number, length = 80): Uint8Array {
  const packet = new Uint8Array(length).fill(0xa5);
  const view = new DataView(packet.buffer);
  packet[0] = 0x60;
  view.setUint16(4, length - 40);
  packet.fill(0, 8, 40);
  for (const [at, last] of [
    [8, from],
    [24, to],
  ] as const) {
    view.setUint16(at, 0xfd00);
    packet[at + 15] = last;
  }
  return packet;
}
