import assert from 'node:assert/strict';
import { test } from 'node:test';

import { WireguardDrop } from './drop.ts';
import { WireguardInterface } from './interface.ts';
import {
  addressOf,
  packet4,
  packet6,
  pair,
  prefixes,
  publicOf,
  secretOf,
  TestNode,
  TestWire,
  testRandom,
} from './test-wire.ts';

const THERE = packet4('10.0.0.1', '10.0.0.2');
const BACK = packet4('10.0.0.2', '10.0.0.1');

/** A pair with a session in use by both sides. */
function connected(options: Parameters<typeof pair>[0] = {}): ReturnType<typeof pair> {
  const world = pair(options);
  assert.equal(world.left.send(THERE), WireguardDrop.AwaitsSession);
  world.wire.settle();
  assert.equal(world.left.send(THERE), 0);
  world.wire.settle();
  assert.equal(world.right.send(BACK), 0);
  world.wire.settle();
  assert.deepEqual(world.right.received, [THERE.toHex()]);
  assert.deepEqual(world.left.received, [BACK.toHex()]);
  assert.deepEqual([...world.left.drops, ...world.right.drops], []);
  world.left.received.length = 0;
  world.right.received.length = 0;
  return world;
}

test('a first packet waits for the handshake, then packets of both families go both ways', () => {
  const { wire, left, right, toLeft, toRight } = connected();
  assert.deepEqual(left.eventKinds, ['session']);
  assert.deepEqual(right.eventKinds, ['session']);
  assert.equal(left.send(packet6(1, 2)), 0);
  assert.equal(right.send(packet6(2, 1, 1419)), 0);
  wire.settle();
  assert.deepEqual(right.received, [packet6(1, 2).toHex()]);
  assert.deepEqual(left.received, [packet6(2, 1, 1419).toHex()]);
  assert.equal(toLeft.receivedBytes, toRight.sentBytes);
  assert.equal(toRight.receivedBytes, toLeft.sentBytes);
  assert.equal(toLeft.lastHandshakeAt, wire.now);
});

test('packets are padded to sixteen bytes but never beyond the MTU', () => {
  const { wire, left } = connected();
  for (const [length, datagram] of [
    [20, 64],
    [32, 64],
    [33, 80],
    [1409, 1452],
    [1420, 1452],
    [1421, 1453],
  ] as const) {
    assert.equal(left.send(packet4('10.0.0.1', '10.0.0.2', { length })), 0);
    assert.equal(wire.flying.at(-1)?.bytes.length, datagram, `${length} bytes inside`);
  }
  wire.settle();
});

test('peers with one pre-shared key connect, with two they do not', () => {
  const presharedKey = new Uint8Array(32).fill(7);
  connected({ left: { presharedKey }, right: { presharedKey } });
  const { wire, left, right } = pair({ left: { presharedKey } });
  left.send(THERE);
  wire.settle();
  assert.deepEqual(left.drops, [WireguardDrop.Unauthentic]);
  assert.equal(left.send(THERE), WireguardDrop.AwaitsSession);
  assert.deepEqual(right.eventKinds, []);
});

test('both sides may begin at the same moment', () => {
  const { wire, left, right } = pair();
  left.send(THERE);
  right.send(BACK);
  wire.settle();
  for (let i = 0; i < 3; i++) {
    assert.equal(left.send(THERE), 0);
    assert.equal(right.send(BACK), 0);
    wire.settle();
  }
  assert.equal(right.received.length, 3);
  assert.equal(left.received.length, 3);
  assert.deepEqual([...left.drops, ...right.drops], []);
});

test('a responder does not send before its keys are confirmed', () => {
  const { wire, left, right } = pair();
  left.send(THERE);
  wire.deliver(wire.flying.shift() as (typeof wire.flying)[0]);
  assert.equal(wire.flying.length, 1, 'a response is on its way');
  assert.equal(right.send(BACK), WireguardDrop.AwaitsSession);
});

test('a lost initiation is repeated every five seconds, and given up after ninety', () => {
  const { wire, left } = pair();
  let lost = 0;
  wire.loses = () => ++lost > 0;
  left.send(THERE);
  wire.pass(4_900);
  assert.equal(lost, 1);
  wire.pass(500);
  assert.equal(lost, 2);
  wire.pass(120_000);
  assert.equal(lost, 18);
  assert.deepEqual(left.eventKinds, ['failed']);
  assert.equal(left.wireguard.pollTimeout(), Number.POSITIVE_INFINITY);
  assert.equal(left.wireguard.indexCount, 0);
  // A new packet tries anew.
  wire.loses = () => false;
  left.send(THERE);
  wire.settle();
  assert.equal(left.send(THERE), 0);
});

test('a lost response is made up for by the next initiation', () => {
  const { wire, left, right } = pair();
  wire.loses = ({ bytes }) => bytes[0] === 2;
  left.send(THERE);
  wire.settle();
  wire.loses = () => false;
  wire.pass(5_400);
  assert.equal(left.send(THERE), 0);
  wire.settle();
  assert.equal(right.received.length, 1);
  assert.ok(right.wireguard.indexCount <= 2);
});

test('a session renews itself after two minutes of use, and no packet is lost meanwhile', () => {
  const { wire, left, right, toRight } = connected();
  const first = toRight.current;
  for (let second = 0; second < 600; second++) {
    wire.pass(1000);
    assert.equal(left.send(THERE), 0, `second ${second}`);
    assert.equal(right.send(BACK), 0, `second ${second}`);
  }
  wire.settle();
  assert.equal(right.received.length, 600);
  assert.equal(left.received.length, 600);
  assert.notEqual(toRight.current, first);
  assert.equal(left.wireguard.handshakes, 6);
  assert.ok(left.wireguard.indexCount <= 3 && right.wireguard.indexCount <= 3);
});

test('an initiator that only receives renews the session before it ends', () => {
  const { wire, left, right } = connected();
  for (let second = 0; second < 200; second++) {
    wire.pass(1000);
    assert.equal(right.send(BACK), 0, `second ${second}`);
  }
  wire.settle();
  assert.equal(left.received.length, 200);
  assert.equal(left.wireguard.handshakes, 2);
});

test('an initiator that hears something near the end of an idle session renews it at once', () => {
  const { wire, left, right } = connected();
  wire.pass(166_000);
  assert.equal(right.send(BACK), 0);
  wire.settle();
  assert.equal(left.received.length, 1);
  assert.equal(left.wireguard.handshakes, 2);
});

test('a session is not used after three minutes, and all keys are erased after nine', () => {
  const { wire, left, right, toRight } = connected();
  assert.equal(left.send(THERE), 0);
  const late = wire.flying.pop() as (typeof wire.flying)[0];
  const { keys } = toRight.current as { keys: Int32Array };
  wire.loses = () => true;
  wire.pass(180_000);
  assert.equal(wire.deliver(late), WireguardDrop.ExpiredSession);
  assert.equal(left.send(THERE), WireguardDrop.AwaitsSession);
  wire.pass(541_000);
  assert.equal(left.wireguard.indexCount, 0);
  assert.equal(right.wireguard.indexCount, 0);
  assert.ok(keys.every((word) => word === 0));
});

test('a session is renewed, then refused, by its number of packets', () => {
  const { wire, left, right, toRight } = connected();
  const session = toRight.current as NonNullable<typeof toRight.current>;
  wire.pass(6_000);
  session.sendCounter = 2 ** 52;
  assert.equal(left.send(THERE), 0);
  wire.settle();
  assert.notEqual(toRight.current, session);
  assert.equal(right.received.length, 1);
  const last = toRight.current as NonNullable<typeof toRight.current>;
  last.sendCounter = 2 ** 53 - 2 ** 13 - 1;
  assert.equal(left.send(THERE), WireguardDrop.AwaitsSession);
});

test('who received and has nothing to say sends a keepalive after ten seconds, and only then', () => {
  const { wire, left, right, toLeft } = connected();
  wire.pass(30_000);
  wire.delivered.length = 0;
  left.send(THERE);
  wire.pass(9_900);
  assert.equal(wire.delivered.length, 1);
  wire.pass(200);
  assert.deepEqual(
    wire.delivered.map(({ bytes }) => bytes.length),
    [96, 32],
  );
  // Keepalives are not answered.
  wire.pass(60_000);
  assert.equal(wire.delivered.length, 2);
  assert.equal(toLeft.keepaliveAt, Number.POSITIVE_INFINITY);
  assert.equal(left.received.length + right.received.length, 1);
});

test('data that come while a keepalive is due are answered by another one', () => {
  const { wire, left, right } = connected();
  wire.pass(30_000);
  wire.delivered.length = 0;
  left.send(THERE);
  wire.pass(5_000);
  left.send(THERE);
  wire.pass(30_000);
  const keepalives = wire.delivered.filter(({ from }) => from === right.address);
  assert.deepEqual(
    keepalives.map(({ bytes }) => bytes.length),
    [32, 32],
  );
});

test('who sends and hears nothing for fifteen seconds makes a new handshake', () => {
  const { wire, left, right } = connected();
  wire.pass(30_000);
  wire.loses = ({ from }) => from === right.address;
  wire.delivered.length = 0;
  left.send(THERE);
  wire.pass(14_900);
  assert.deepEqual(
    wire.delivered.map(({ bytes }) => bytes[0]),
    [4],
  );
  wire.pass(500);
  assert.deepEqual(
    wire.delivered.map(({ bytes }) => bytes[0]),
    [4, 1],
  );
});

test('a persistent keepalive begins at once and keeps the way open', () => {
  const { wire, right } = pair({ left: { persistentKeepalive: 25_000 } });
  wire.pass(0);
  assert.equal(right.events.length, 1, 'the handshake needed no packet');
  wire.delivered.length = 0;
  wire.pass(100_000);
  assert.equal(wire.delivered.filter(({ bytes }) => bytes.length === 32).length, 4);
});

test('replayed, late and reordered packets: each counter counts once', () => {
  const { wire, left, right } = connected();
  const sent = Array.from({ length: 100 }, (_, mark) => {
    left.send(packet4('10.0.0.1', '10.0.0.2', { mark }));
    return wire.flying.pop() as (typeof wire.flying)[0];
  });
  const shuffled = sent.toReversed();
  for (const datagram of shuffled) assert.equal(wire.deliver(datagram), 0);
  for (const datagram of sent) assert.equal(wire.deliver(datagram), WireguardDrop.ReplayedCounter);
  assert.equal(right.received.length, 100);
  assert.equal(right.wireguard.drops[WireguardDrop.ReplayedCounter], 100);
});

test('a replayed initiation changes nothing', () => {
  const { wire, right } = connected();
  const initiation = wire.delivered.find(({ bytes }) => bytes[0] === 1) as (typeof wire.flying)[0];
  wire.pass(10_000);
  const sessions = right.wireguard.indexCount;
  assert.equal(right.take(initiation.bytes, addressOf('203.0.113.9:9')), WireguardDrop.ReplayedInitiation);
  assert.equal(wire.flying.length, 0);
  assert.equal(right.wireguard.indexCount, sessions);
  assert.equal(right.events.length, 1, 'no move');
});

test('an initiation recorded before a restart is refused when the timestamp was handed on', () => {
  const { wire, left, right, toLeft } = connected();
  const initiation = wire.delivered.find(({ bytes }) => bytes[0] === 1) as (typeof wire.flying)[0];
  const lastTimestamp = toLeft.lastTimestamp.slice();
  for (const options of [{ lastTimestamp }, {}]) {
    right.wireguard.removePeer(right.wireguard.findPeer(left.wireguard.publicKey) as typeof toLeft);
    right.addPeer(left, { allowedIps: prefixes('10.0.0.1/32'), ...options });
    const expected = 'lastTimestamp' in options ? WireguardDrop.ReplayedInitiation : 0;
    assert.equal(right.take(initiation.bytes, left.address), expected);
  }
});

test('initiations of one peer that come faster than any honest peer sends them are refused', () => {
  const { wire, left, right, toRight } = pair();
  left.send(THERE);
  wire.deliver(wire.flying.pop() as (typeof wire.flying)[0]);
  wire.now += 18;
  // The peer is made to forget that it has just sent one.
  toRight.retransmitAt = wire.now;
  left.wireguard.handleTimeout(wire.now + 6_000);
  wire.flying.length = 0;
  left.collect();
  const second = wire.flying.pop() as (typeof wire.flying)[0];
  assert.equal(second.bytes[0], 1);
  assert.equal(right.take(second.bytes, left.address), WireguardDrop.InitiationFlood);
});

test('one changed bit in any message is a drop, after which the true one is still taken', () => {
  const { wire, left } = pair();
  left.send(THERE);
  const types: number[] = [];
  for (let step = 0; step < 5 && wire.flying.length > 0; step++) {
    const datagram = wire.flying.shift() as (typeof wire.flying)[0];
    types.push(datagram.bytes[0] as number);
    const end = datagram.bytes[0] === 4 ? datagram.bytes.length : datagram.bytes.length - 16;
    for (let at = 0; at < end; at++) {
      const bytes = datagram.bytes.slice();
      bytes[at] = (bytes[at] as number) ^ (1 << (at & 7));
      assert.notEqual(wire.deliver({ ...datagram, bytes }), 0, `byte ${at} of type ${types.at(-1)}`);
    }
    assert.equal(wire.deliver(datagram), 0);
    if (step === 1) left.send(THERE);
  }
  assert.deepEqual(types, [1, 2, 4, 4]);
});

test('every length but the right one is refused, whatever the type', () => {
  const { right } = connected();
  const from = addressOf('203.0.113.9:9');
  for (const [type, exact] of [
    [1, 148],
    [2, 92],
    [3, 64],
  ] as const) {
    for (const length of [0, 1, 3, 4, 31, exact - 1, exact + 1, 2000, 65_000]) {
      const bytes = new Uint8Array(length);
      if (length > 0) bytes[0] = type;
      const drop = right.take(bytes, from);
      assert.equal(drop, WireguardDrop.BadLength, `type ${type}, ${length} bytes`);
    }
  }
  assert.equal(right.take(Uint8Array.of(4, 0, 0, 0, ...new Uint8Array(27)), from), WireguardDrop.BadLength);
  assert.equal(
    right.take(Uint8Array.of(4, 0, 0, 0, ...new Uint8Array(28)), from),
    WireguardDrop.UnknownIndex,
  );
  assert.equal(right.take(Uint8Array.of(4, 0, 1, 0, ...new Uint8Array(28)), from), WireguardDrop.UnknownType);
  assert.equal(right.take(Uint8Array.of(5, 0, 0, 0, ...new Uint8Array(28)), from), WireguardDrop.UnknownType);
  assert.equal(right.take(Uint8Array.of(1, 0, 0, 0, ...new Uint8Array(144)), from), WireguardDrop.BadMac1);
});

test('a peer that moves is followed after an authentic packet, and only then', () => {
  const { wire, left, right, toLeft } = connected();
  const old = left.address;
  left.send(THERE);
  const forged = (wire.flying.pop() as (typeof wire.flying)[0]).bytes;
  const broken = forged.slice();
  broken[40] = (broken[40] as number) ^ 1;
  const elsewhere = addressOf('198.51.100.7:4500');
  assert.equal(right.take(broken, elsewhere), WireguardDrop.Unauthentic);
  assert.deepEqual(toLeft.endpointBytes(), old);
  left.address = elsewhere;
  assert.equal(right.take(forged, elsewhere), 0);
  assert.deepEqual(toLeft.endpointBytes(), elsewhere);
  assert.deepEqual(right.eventKinds, ['session', 'moved']);
  right.send(BACK);
  wire.settle();
  assert.equal(left.received.length, 1);
  // Another port alone is another endpoint; so is another address alone.
  for (const place of ['198.51.100.7:4501', '198.51.100.8:4501', '[2001:db8::9]:7', '[2001:db8::a]:7']) {
    left.address = addressOf(place);
    left.send(THERE);
    wire.settle();
    assert.deepEqual(toLeft.endpointBytes(), left.address);
  }
  left.address = elsewhere;
  left.send(THERE);
  wire.settle();
  // The same packet again from another place is a replay and moves nobody.
  assert.equal(right.take(forged, old), WireguardDrop.ReplayedCounter);
  assert.deepEqual(toLeft.endpointBytes(), elsewhere);
});

test('inner addresses that are not the peer’s are refused both ways', () => {
  const { wire, left, right, toLeft } = connected();
  left.send(packet4('10.0.0.99', '10.0.0.2'));
  left.send(packet6(9, 2));
  wire.settle();
  assert.deepEqual(right.drops, [WireguardDrop.SpoofedSource, WireguardDrop.SpoofedSource]);
  assert.equal(left.send(packet4('10.0.0.1', '10.0.0.99')), WireguardDrop.NoPeer);
  assert.equal(left.send(new Uint8Array(20)), WireguardDrop.BadInnerPacket);
  assert.equal(left.send(Uint8Array.of(0x45)), WireguardDrop.BadInnerPacket);
  // A prefix taken away at run time counts at once.
  right.wireguard.setAllowedIps(toLeft, prefixes('10.0.0.99/32'));
  left.send(THERE);
  left.send(packet4('10.0.0.99', '10.0.0.2'));
  wire.settle();
  assert.equal(right.drops.length, 3);
  assert.equal(right.received.length, 1);
});

test('an inner packet that lies about its length is refused', () => {
  const { wire, left, right } = connected();
  const long = packet4('10.0.0.1', '10.0.0.2', { length: 64 });
  new DataView(long.buffer).setUint16(2, 65);
  const short = packet4('10.0.0.1', '10.0.0.2');
  new DataView(short.buffer).setUint16(2, 19);
  left.send(long);
  left.send(short);
  wire.settle();
  assert.deepEqual(right.drops, [WireguardDrop.BadInnerPacket, WireguardDrop.BadInnerPacket]);
  assert.deepEqual(right.received, []);
});

test('under load a handshake needs a cookie, which only the true address gets', () => {
  const { wire, left, right } = pair();
  left.send(THERE);
  const initiation = wire.flying.pop() as (typeof wire.flying)[0];
  right.wireguard.declareLoad(wire.now);
  assert.equal(wire.deliver(initiation), WireguardDrop.CookieDemanded);
  const reply = wire.flying.pop() as (typeof wire.flying)[0];
  assert.equal(reply.bytes.length, 64, 'an answer shorter than the question');
  const changed = { ...reply, bytes: reply.bytes.slice() };
  changed.bytes[50] = (changed.bytes[50] as number) ^ 1;
  assert.equal(wire.deliver(changed), WireguardDrop.BadCookieReply);
  assert.equal(wire.deliver(reply), 0);
  assert.equal(wire.deliver(reply), WireguardDrop.BadCookieReply, 'a cookie is taken once');
  wire.loses = () => true;
  let repeated: (typeof wire.flying)[0] | null = null;
  wire.loses = (datagram) => {
    repeated = datagram;
    return true;
  };
  wire.pass(5_400);
  assert.ok(repeated !== null);
  wire.loses = () => false;
  right.wireguard.declareLoad(wire.now);
  const { bytes } = repeated as (typeof wire.flying)[0];
  assert.ok(bytes.subarray(-16).some((byte) => byte !== 0));
  assert.equal(
    right.take(bytes, addressOf('203.0.113.9:9')),
    WireguardDrop.CookieDemanded,
    'not its address',
  );
  wire.flying.length = 0;
  assert.equal(right.take(bytes, left.address), 0);
  wire.settle();
  assert.equal(left.send(THERE), 0);
});

test('a flood of handshakes turns cookies on by itself, and each source has its share', () => {
  const { wire, left, right } = pair();
  left.send(THERE);
  const initiation = wire.flying.pop() as (typeof wire.flying)[0];
  for (let i = 0; i < 300; i++) wire.deliver(initiation);
  wire.flying.length = 0;
  assert.equal(right.drops.at(-1), WireguardDrop.CookieDemanded);
  assert.ok(right.drops.filter((drop) => drop === WireguardDrop.ReplayedInitiation).length < 110);
  // With a right MAC2, five at once from one source.
  wire.deliver(initiation);
  wire.deliver(wire.flying.pop() as (typeof wire.flying)[0]);
  let repeated = initiation;
  wire.loses = (datagram) => {
    repeated = datagram;
    return true;
  };
  wire.pass(5_400);
  right.wireguard.declareLoad(wire.now);
  right.drops.length = 0;
  for (let i = 0; i < 10; i++) wire.deliver(repeated);
  assert.equal(right.drops.filter((drop) => drop === WireguardDrop.RateLimited).length, 5);
});

test('a stranger, a removed peer and its old session get nothing', () => {
  const { wire, left, right, toLeft } = connected();
  const stranger = new TestNode(wire, 'stranger', '203.0.113.5:5');
  stranger.addPeer(right, { allowedIps: prefixes('10.0.0.2/32'), endpoint: right.address });
  stranger.send(THERE);
  wire.settle();
  assert.deepEqual(right.drops, [WireguardDrop.UnknownPeer]);
  assert.equal(stranger.events.length, 0);
  left.send(THERE);
  right.wireguard.removePeer(toLeft);
  assert.equal(wire.deliver(wire.flying.pop() as (typeof wire.flying)[0]), WireguardDrop.UnknownIndex);
  assert.equal(right.wireguard.indexCount, 0);
  assert.equal(right.wireguard.peerCount, 0);
  assert.equal(right.wireguard.pollTimeout(), Number.POSITIVE_INFINITY);
  assert.equal(right.send(BACK), WireguardDrop.NoPeer);
});

test('peers are refused that cannot be: own key, twice the same, a short key', () => {
  const wire = new TestWire();
  const node = new TestNode(wire, 'node', '192.0.2.1:1');
  const other = new TestNode(wire, 'other', '192.0.2.2:2');
  node.addPeer(other);
  assert.throws(() => node.addPeer(other), { code: 'RAMP_CONFIG' });
  assert.throws(() => node.addPeer(node), { code: 'RAMP_CONFIG' });
  const short = { publicKey: new Uint8Array(31), allowedIps: [] };
  assert.throws(() => node.wireguard.addPeer(short, 0), { code: 'RAMP_CONFIG' });
});

test('a peer with a public key of low order never gets a handshake and harms nobody', () => {
  const wire = new TestWire();
  const node = new TestNode(wire, 'node', '192.0.2.1:1');
  const options = { publicKey: new Uint8Array(32), allowedIps: prefixes('10.0.0.2/32') };
  node.wireguard.addPeer({ ...options, endpoint: addressOf('192.0.2.2:2') }, 0);
  assert.equal(node.send(THERE), WireguardDrop.AwaitsSession);
  wire.pass(200_000);
  assert.deepEqual(node.eventKinds, ['failed']);
  assert.equal(wire.delivered.length, 0);
});

test('indices carry the mark of their worker', () => {
  const { wire, right } = pair();
  const marked = new WireguardInterface({
    memory: new DataView(new ArrayBuffer(4096)),
    privateKey: secretOf('marked'),
    random: testRandom('marks'),
    unixAtZero: 0,
    indexMark: { bits: 3, value: 5 },
  });
  for (let i = 0; i < 20; i++) {
    const publicKey = publicOf(`peer ${i}`);
    const options = { allowedIps: [], endpoint: right.address, persistentKeepalive: 1000 };
    marked.addPeer({ publicKey, ...options }, wire.now);
  }
  marked.handleTimeout(wire.now);
  const senders = new Set<number>();
  for (let sent = marked.pollTransmit(); sent !== null; sent = marked.pollTransmit()) {
    const sender = new DataView(sent.bytes.buffer).getInt32(4, true);
    assert.equal(sender & 7, 5);
    senders.add(sender);
  }
  assert.equal(senders.size, 20);
});

test('bytes arrive through a wire that loses, repeats, reorders and changes datagrams', () => {
  const { wire, left, right } = pair({ seed: 'chaos' });
  let state = 7;
  const chance = (times: number): boolean => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % times === 0;
  };
  wire.loses = (datagram) => {
    if (chance(5)) return true;
    if (chance(5)) wire.deliver({ ...datagram });
    if (chance(10)) {
      const bytes = datagram.bytes.slice();
      bytes[9 % bytes.length] = 0xff;
      wire.deliver({ ...datagram, bytes });
    }
    return false;
  };
  const arrived = new Set<string>();
  for (let step = 0; step < 4000; step++) {
    const packet = packet4('10.0.0.1', '10.0.0.2', { mark: step & 0xff });
    new DataView(packet.buffer).setUint16(40, step);
    left.send(packet);
    if (chance(2)) wire.flying.reverse();
    if (chance(3)) wire.pass(500);
  }
  wire.pass(10_000);
  for (const packet of right.received) {
    assert.ok(!arrived.has(packet), 'nothing arrives twice');
    arrived.add(packet);
  }
  assert.ok(arrived.size > 2500, `${arrived.size} of 4000 arrived`);
});
