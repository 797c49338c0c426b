/**
 * Fuzzes WireGuard: `node fuzz/wireguard.ts`. What must hold for any datagram: an answer and no exception,
 * nothing written outside it, no answer longer than the question before a handshake is proved, and no change
 * of state by anything that is not authentic. And for two honest peers on the worst wire: each packet arrives
 * at most once and unchanged, and when the wire is good again they speak within two minutes.
 */
import assert from 'node:assert/strict';

import { WIREGUARD_DROP_COUNT } from '#protocol/wireguard/drop.ts';
import { WireguardInterface } from '#protocol/wireguard/interface.ts';
import {
  addressOf,
  type Flying,
  packet4,
  pair,
  prefixes,
  publicOf,
  secretOf,
  type TestNode,
  testRandom,
} from '#protocol/wireguard/test-wire.ts';

import { type Chance, type FuzzTarget, fuzzMain } from './fuzz.ts';

const STRANGER = addressOf('203.0.113.9:9');
const THERE = packet4('10.0.0.1', '10.0.0.2');
const BACK = packet4('10.0.0.2', '10.0.0.1');
const LENGTHS = [0, 4, 31, 32, 33, 48, 64, 92, 148, 1500];

/** What a datagram that is not authentic must leave as it was. */
function stateOf(node: TestNode): unknown {
  return [...node.wireguard.peers].map((peer) => [
    peer.endpointBytes()?.toHex(),
    peer.current?.localIndex,
    peer.next?.localIndex,
    peer.previous?.localIndex,
    peer.lastTimestamp.toHex(),
    peer.receivedBytes,
    node.received.length,
    node.wireguard.indexCount,
  ]);
}

/** Any bytes, and true messages with a few bytes changed, at a node that has a session. */
function datagrams(chance: Chance): void {
  const { wire, left, right } = pair({ seed: String(chance.word()) });
  left.send(THERE);
  const [initiation] = wire.flying as [Flying];
  wire.settle();
  left.send(THERE);
  const seeds = [initiation.bytes, ...wire.delivered.map(({ bytes }) => bytes)];
  for (const { bytes } of wire.flying.splice(0)) seeds.push(bytes);
  for (let round = 0; round < 20; round++) {
    const bytes = chance.oneIn(3) ? noise(chance) : chance.mutate(chance.pick(seeds));
    const before = stateOf(right);
    const isNew = !seeds.some((seed) => seed.toHex() === bytes.toHex());
    if (chance.oneIn(10)) right.wireguard.declareLoad(wire.now);
    const drop = right.take(bytes, STRANGER);
    const answers = wire.flying.splice(0);
    for (const answer of answers) assert.ok(answer.bytes.length < bytes.length, 'an answer amplifies');
    assert.ok(drop >= 0 && drop < WIREGUARD_DROP_COUNT);
    // MAC2 is not read without load, so a message that differs only there is still a true one.
    const sameButMac2 = seeds.some(
      (seed) =>
        seed[0] !== 4 &&
        seed.length === bytes.length &&
        seed.subarray(0, -16).toHex() === bytes.subarray(0, -16).toHex(),
    );
    if (isNew && !sameButMac2) {
      assert.notEqual(drop, 0, 'a forged datagram was taken');
      assert.deepEqual(stateOf(right), before);
    }
  }
}

function noise(chance: Chance): Uint8Array {
  const bytes = chance.bytes(chance.oneIn(2) ? chance.pick(LENGTHS) : chance.below(200));
  if (bytes.length >= 4 && !chance.oneIn(4)) bytes.set([chance.between(1, 4), 0, 0, 0]);
  return bytes;
}

/** Any packet to send: an answer, and nothing written but the packet and the room around it. */
function packets(chance: Chance): void {
  const memory = new DataView(new ArrayBuffer(4096));
  const bytes = new Uint8Array(memory.buffer);
  const wireguard = new WireguardInterface({
    memory,
    privateKey: secretOf('fuzzed'),
    random: testRandom(String(chance.word())),
    unixAtZero: 0,
  });
  const options = { allowedIps: prefixes('0.0.0.0/0', '::/0'), endpoint: STRANGER };
  wireguard.addPeer({ publicKey: publicOf('other'), ...options }, 0);
  const packet = chance.oneIn(2) ? chance.mutate(THERE) : chance.bytes(chance.below(80));
  bytes.fill(0xee);
  bytes.set(packet, 1024);
  const drop = wireguard.handlePacket(1024, packet.length, chance.below(1000));
  assert.notEqual(drop, 0, 'there is no session');
  assert.equal(bytes.subarray(1024, 1024 + packet.length).toHex(), packet.toHex());
  assert.ok(bytes.subarray(0, 1024).every((byte) => byte === 0xee));
  assert.ok(bytes.subarray(1024 + packet.length).every((byte) => byte === 0xee));
}

/** Two peers on a wire that loses, repeats, reorders, changes and delays, with jumps of time. */
function wires(chance: Chance): void {
  const { wire, left, right } = pair({
    seed: String(chance.word()),
    left: { persistentKeepalive: chance.pick([0, 0, 25_000]) },
  });
  const held: Flying[] = [];
  wire.loses = (datagram) => {
    if (chance.oneIn(4)) held.push(datagram);
    if (chance.oneIn(6)) wire.deliver({ ...datagram, bytes: chance.mutate(datagram.bytes) });
    return chance.oneIn(3);
  };
  const sent = new Set<string>();
  for (let step = 0; step < 60; step++) {
    const isLeft = chance.oneIn(2);
    const packet = (isLeft ? THERE : BACK).slice();
    new DataView(packet.buffer).setUint32(40, step);
    sent.add(packet.toHex());
    (isLeft ? left : right).send(packet);
    if (chance.oneIn(5)) wire.flying.reverse();
    if (chance.oneIn(3)) wire.pass(chance.pick([1, 100, 5_000, 20_000, 125_000, 200_000]));
    if (held.length > 0 && chance.oneIn(4)) wire.deliver(chance.pick(held));
  }
  for (const node of [left, right]) {
    assert.equal(new Set(node.received).size, node.received.length, 'a packet arrived twice');
    for (const packet of node.received) assert.ok(sent.has(packet), 'a packet arrived changed');
    assert.ok(node.wireguard.indexCount <= 4, 'at most three sessions and one handshake');
  }
  wire.loses = () => false;
  wire.pass(200_000);
  left.send(THERE);
  wire.pass(6_000);
  left.received.length = 0;
  right.received.length = 0;
  assert.equal(left.send(THERE), 0, 'they do not speak on a good wire');
  wire.settle();
  assert.equal(right.received.length, 1);
  assert.equal(right.send(BACK), 0);
  wire.settle();
  assert.equal(left.received.length, 1);
}

/** All targets of this file. */
export const WIREGUARD_TARGETS: Readonly<Record<string, FuzzTarget>> = { datagrams, packets, wires };

if (import.meta.main) fuzzMain(WIREGUARD_TARGETS);
