import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { CloseReason } from '#contract/record.ts';
import { icmpMtu, parseQuoted } from '#packet/icmp.ts';
import { FragmentKind, IpProtocol, ParsedPacket, parsePacket, TcpFlag } from '#packet/parse.ts';
import { TwinArena, twinBytes, twinEcho, twinPacket, twinTcp, twinUdp, twinVerify } from '#packet/twin.ts';
import { Counter } from '#proxy/stats.ts';

import { ANSWER_BURST } from './answers.ts';
import { REFUSAL_MS } from './flow-table.ts';
import { FlowWorld, type FlowWorldOptions, testRoute, type TestTunnel } from './test-world.ts';

const { Syn, Ack, Fin, Rst } = TcpFlag;

const CLIENT = '10.0.0.1';
const SERVER = '10.10.0.10';

/** A client tunnel and a server tunnel of acme/production, with a route from one to the other. */
function setUp(
  context: TestContext,
  options: FlowWorldOptions = {},
): { world: FlowWorld; client: TestTunnel; server: TestTunnel } {
  const world = new FlowWorld(options);
  const client = world.tunnel('wg', ['10.0.0.0/24', 'fd00::/64']);
  const server = world.tunnel('office', []);
  world.leadTo('office', server);
  world.routes.replace([testRoute('10.10.0.0/24', 'office'), testRoute('fd10::/64', 'office')]);
  context.after(() => assert.equal(world.leaked, 0, 'every slot was given back'));
  return { world, client, server };
}

interface Segment {
  readonly flags?: number;
  readonly port?: number;
  readonly payload?: Uint8Array;
  readonly options?: Uint8Array;
  readonly ttl?: number;
  readonly fragment?: number;
  readonly source?: string;
  readonly destination?: string;
}

function up(segment: Segment = {}): Uint8Array {
  const { flags = Syn, port = 4000, ttl = 64, fragment = 0x4000 } = segment;
  const { source = CLIENT, destination = SERVER, ...rest } = segment;
  const transport = twinTcp({ ...rest, sourcePort: port, destinationPort: 80, flags });
  return twinPacket({ source, destination, protocol: 6, transport, ttl, fragment });
}

function down(segment: Segment = {}): Uint8Array {
  const { flags = Syn | Ack, port = 4000, ttl = 64, fragment = 0x4000 } = segment;
  const { source = SERVER, destination = CLIENT, ...rest } = segment;
  const transport = twinTcp({ ...rest, sourcePort: 80, destinationPort: port, flags });
  return twinPacket({ source, destination, protocol: 6, transport, ttl, fragment });
}

function udp(over: {
  source?: string;
  destination?: string;
  ports?: readonly [number, number];
  payload?: Uint8Array;
  fragment?: number;
  ttl?: number;
}): Uint8Array {
  const {
    source = CLIENT,
    destination = SERVER,
    ports = [4000, 53],
    payload = twinBytes(32),
    ...rest
  } = over;
  return twinPacket({
    source,
    destination,
    protocol: 17,
    transport: twinUdp(ports[0], ports[1], payload),
    ...rest,
  });
}

function parse(bytes: Uint8Array): { packet: ParsedPacket; view: DataView } {
  const arena = new TwinArena(1, 80_000);
  const packet = new ParsedPacket();
  assert.equal(parsePacket(arena.view, arena.put(0, bytes), bytes.length, packet), DropReason.None);
  return { packet, view: arena.view };
}

function only<T>(items: readonly T[]): T {
  assert.equal(items.length, 1);
  return items[0] as T;
}

/** The ICMP error in a packet, with the port of the packet that it is about. */
function icmpError(bytes: Uint8Array): { type: number; code: number; quotedPort: number; mtu: number } {
  const { packet, view } = parse(bytes);
  const quoted = new ParsedPacket();
  assert.equal(parseQuoted(view, packet, quoted), DropReason.None);
  const isTooBig =
    packet.version === 4 ? packet.icmpType === 3 && packet.icmpCode === 4 : packet.icmpType === 2;
  return {
    type: packet.icmpType,
    code: packet.icmpCode,
    quotedPort: quoted.sourcePort,
    mtu: isTooBig ? icmpMtu(view, packet) : 0,
  };
}

function withTransportAt20(bytes: Uint8Array): boolean {
  return twinVerify(bytes, 20, bytes[9] as number);
}

test('a forwarded connection goes both ways, one hop nearer, and leaves one right record', async (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, up());
  world.send(server, down());
  world.send(client, up({ flags: Ack }));
  world.send(client, up({ flags: Ack | TcpFlag.Psh, payload: twinBytes(1000) }));
  world.send(server, down({ flags: Ack, payload: twinBytes(500) }));
  const forth = server.take();
  const back = client.take();
  assert.deepEqual([forth.length, back.length], [3, 2]);
  for (const bytes of [...forth, ...back]) {
    assert.equal(parse(bytes).packet.ttl, 63);
    assert.ok(withTransportAt20(bytes));
  }
  assert.equal(world.counter(Counter.FlowMisses), 1);
  assert.equal(world.counter(Counter.FlowHits), 4);
  world.send(client, up({ flags: Fin | Ack }));
  world.send(server, down({ flags: Fin | Ack }));
  assert.equal(world.records.length, 0);
  await world.clock.advance(300_000);
  const record = only(world.records);
  assert.equal(record.reason, CloseReason.ClientClosed);
  assert.deepEqual(record.source, { address: CLIENT, port: 4000 });
  assert.deepEqual(record.destination, { address: SERVER, port: 80 });
  assert.deepEqual([record.packetsUp, record.bytesUp], [4, 4 * 40 + 1000]);
  assert.deepEqual([record.packetsDown, record.bytesDown], [3, 3 * 40 + 500]);
  assert.deepEqual([record.layer, record.offRamp, record.onRamp], ['ip', 'office', 'wg']);
  assert.equal(world.pipeline.table.count, 0);
  assert.deepEqual(world.drops, {});
});

test('an idle process has no timer', async (t) => {
  const { world, client } = setUp(t);
  assert.equal(world.io.audit().timers, 0);
  world.send(client, udp({}));
  assert.equal(world.io.audit().timers, 1);
  await world.clock.advance(400_000);
  assert.equal(only(world.records).reason, CloseReason.ClientIdle);
  assert.equal(world.io.audit().timers, 0);
});

test('IPv6 flows go both ways', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, udp({ source: 'fd00::1', destination: 'fd10::a' }));
  world.send(server, udp({ source: 'fd10::a', destination: 'fd00::1', ports: [53, 4000] }));
  assert.equal(parse(only(server.take())).packet.ttl, 63);
  assert.equal(parse(only(client.take())).packet.ttl, 63);
});

test('echo is a flow of its own and its reply finds the way back', (t) => {
  const { world, client, server } = setUp(t);
  const echo = (type: number, source: string, destination: string, id = 77): Uint8Array =>
    twinPacket({ source, destination, protocol: 1, transport: twinEcho(type, id, twinBytes(20)) });
  world.send(client, echo(8, CLIENT, SERVER));
  world.send(server, echo(0, SERVER, CLIENT));
  assert.equal(only(server.take())[20], 8);
  assert.equal(only(client.take())[20], 0);
  world.send(server, echo(0, SERVER, CLIENT, 78));
  assert.deepEqual(client.take(), []);
});

// --- what must not pass ------------------------------------------------------------------------------------

test('spoofed_source: a packet from an address that the tunnel may not use', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, up({ source: '10.0.1.1' }));
  assert.deepEqual(world.drops, { spoofed_source: 1 });
  assert.deepEqual([server.take(), client.take(), world.pipeline.table.count], [[], [], 0]);
});

test('spoofed_source: the tuple of a live flow by another tunnel of its network changes nothing', (t) => {
  const { world, client, server } = setUp(t);
  const other = world.tunnel('wg', ['10.0.0.0/24']);
  world.send(client, up());
  world.send(server, down());
  world.send(client, up({ flags: Ack }));
  const before = world.pipeline.summaries({});
  world.send(other, up({ flags: Rst }));
  world.send(other, up({ flags: Ack, payload: twinBytes(10) }));
  world.send(other, down({ flags: Rst | Ack }));
  assert.deepEqual(world.pipeline.summaries({}), before);
  assert.deepEqual(world.drops, { spoofed_source: 3 });
  assert.equal(server.take().length, 2);
});

test('a client with an identity may go on over another tunnel, a stranger may not', (t) => {
  const { world, server } = setUp(t);
  const laptop = { user: 'ana', device: 'laptop', groups: [] };
  const before = world.tunnel('wg', ['10.0.0.7/32'], { identity: laptop });
  const after = world.tunnel('wg', ['10.0.0.7/32'], { identity: { ...laptop, groups: [] } });
  const stranger = world.tunnel('wg', ['10.0.0.7/32'], { identity: { ...laptop, device: 'phone' } });
  const segment = { source: '10.0.0.7' };
  world.send(before, up(segment));
  world.send(stranger, up({ ...segment, flags: Ack }));
  world.send(after, up({ ...segment, flags: Ack }));
  world.send(server, down({ destination: '10.0.0.7', flags: Ack }));
  assert.deepEqual([before.take().length, after.take().length, stranger.take().length], [0, 1, 0]);
  assert.deepEqual(world.drops, { spoofed_source: 1 });
});

test('martian_source, martian_destination and link_scope: addresses that no flow may have', (t) => {
  const { world, client } = setUp(t);
  world.send(client, udp({ source: '127.0.0.1' }));
  world.send(client, udp({ source: SERVER, destination: SERVER }));
  world.send(client, udp({ destination: '224.0.0.1' }));
  world.send(client, udp({ destination: '255.255.255.255' }));
  world.send(client, udp({ destination: '169.254.169.254' }));
  world.send(client, udp({ source: 'fe80::1', destination: 'ff02::2' }));
  assert.deepEqual(world.drops, { martian_source: 2, martian_destination: 2, link_scope: 2 });
  assert.deepEqual(client.take(), []);
});

test('malformed packets are counted by their reason and touch nothing', (t) => {
  const { world, client } = setUp(t);
  world.send(client, up().subarray(0, 15));
  world.send(client, Uint8Array.from([0x50, ...up().subarray(1)]));
  const badSum = up();
  badSum[10]! ^= 0xff;
  world.send(client, badSum);
  world.send(client, Uint8Array.from([...up(), 0]));
  world.send(client, up(), Uint8Array.from([1, 1, 0, 0, 0, 0, 99, 0, 16, 0]));
  assert.deepEqual(world.drops, {
    truncated: 1,
    bad_version: 1,
    bad_header_checksum: 1,
    length_mismatch: 1,
    bad_segmentation: 1,
  });
});

test('no_route: answered with host unreachable, remembered, recorded once', async (t) => {
  const { world, client } = setUp(t);
  for (let i = 0; i < 3; i++) world.send(client, up({ destination: '10.20.0.1' }));
  const answers = client.take().map(icmpError);
  assert.equal(answers.length, 3);
  assert.deepEqual(answers[0], { type: 3, code: 1, quotedPort: 4000, mtu: 0 });
  assert.deepEqual(world.drops, { no_route: 3 });
  assert.equal(world.counter(Counter.FlowMisses), 1);
  await world.clock.advance(REFUSAL_MS + 5000);
  const record = only(world.records);
  assert.deepEqual(
    [record.reason, record.packetsUp, record.offRamp],
    [CloseReason.OriginUnroutable, 3, null],
  );
});

test('unknown_protocol: what neither sockets nor streams can carry is refused', (t) => {
  const { world, client } = setUp(t);
  world.ways.set('internet', () => ({ kind: 'upgrade' }));
  world.routes.replace([testRoute('10.10.0.0/24', 'internet', {})]);
  world.send(
    client,
    twinPacket({ source: CLIENT, destination: SERVER, protocol: 47, transport: twinBytes(20) }),
  );
  assert.deepEqual(world.drops, { unknown_protocol: 1 });
  assert.deepEqual(only(client.take()).slice(20, 22), Uint8Array.from([3, 2]));
});

test('not_flow_start: resets and answers open nothing, whatever the policy', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, up({ flags: Rst }));
  world.send(client, up({ flags: Syn | Ack }));
  assert.deepEqual(world.drops, { not_flow_start: 2 });
  assert.deepEqual([client.take(), server.take(), world.records], [[], [], []]);
});

test('not_flow_start: a connection met in its middle is forwarded, unless the option says no', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, up({ flags: Ack, payload: twinBytes(9) }));
  assert.equal(server.take().length, 1);
  assert.equal(world.pipeline.summaries({})[0]?.state, 'established');
  const strict = setUp(t, { parts: { forwardMidStream: false } });
  strict.world.send(strict.client, up({ flags: Ack }));
  assert.deepEqual(strict.world.drops, { not_flow_start: 1 });
  assert.equal(parse(only(strict.client.take())).packet.tcpFlags & Rst, Rst, 'the sender is told');
});

test('icmp_unsupported and icmp_unrelated: only echo, and errors about flows, pass', (t) => {
  const { world, client, server } = setUp(t);
  const icmp = (source: string, destination: string, transport: Uint8Array): Uint8Array =>
    twinPacket({ source, destination, protocol: 1, transport });
  world.send(client, icmp(CLIENT, SERVER, Uint8Array.from([13, 0, 0, 0, 0, 0, 0, 0])));
  assert.deepEqual(world.drops, { icmp_unsupported: 1 });
  const error = icmp(SERVER, CLIENT, Uint8Array.from([3, 1, 0, 0, 0, 0, 0, 0, ...up().subarray(0, 40)]));
  world.send(server, error);
  assert.deepEqual(world.drops, { icmp_unsupported: 1, icmp_unrelated: 1 });
  world.send(client, icmp(CLIENT, SERVER, twinEcho(0, 5, twinBytes(8))));
  assert.deepEqual(world.drops, { icmp_unsupported: 1, icmp_unrelated: 2 });
  assert.deepEqual([client.take(), server.take()], [[], []]);
});

test('flow_table_full and account_flow_limit: an active account may not push its own flows out', (t) => {
  const { world, client, server } = setUp(t, { limits: { flowsMax: 16 } });
  for (let i = 0; i < 20; i++) world.send(client, udp({ ports: [1000 + i, 53] }));
  assert.deepEqual(world.drops, { flow_table_full: 4 });
  assert.equal(server.take().length, 16);
  const capped = setUp(t, { limits: { flowsPerAccountMax: 8 } });
  for (let i = 0; i < 10; i++) capped.world.send(capped.client, udp({ ports: [1000 + i, 53] }));
  assert.deepEqual(capped.world.drops, { account_flow_limit: 2 });
});

test('eviction: the account with most flows gives one up for another account, with a record', (t) => {
  const { world, client } = setUp(t, { limits: { flowsMax: 16 } });
  for (let i = 0; i < 16; i++) world.send(client, udp({ ports: [1000 + i, 53] }));
  const globex = world.tunnel('wg', ['10.0.0.0/24'], { account: 'globex' });
  const far = world.tunnel('far', [], { account: 'globex' });
  world.leadTo('office', far);
  world.routes.replace([
    testRoute('10.10.0.0/24', 'office'),
    testRoute('10.10.0.0/24', 'office', { account: 'globex' }),
  ]);
  world.send(globex, udp({}));
  assert.equal(far.take().length, 1);
  assert.equal(world.counter(Counter.FlowsEvicted), 1);
  const record = only(world.records);
  assert.deepEqual([record.account, record.reason], ['acme', CloseReason.Limit]);
  assert.deepEqual(world.drops, {});
});

test('tunnel_closed: flows of a closed tunnel end with their reason', (t) => {
  const { world, client, server } = setUp(t);
  const second = world.tunnel('wg', ['10.0.0.0/24']);
  world.send(client, udp({}));
  world.send(second, udp({ source: '10.0.0.2' }));
  client.close();
  assert.equal(only(world.records).reason, CloseReason.ClientClosed);
  server.close();
  assert.equal(world.records[1]?.reason, CloseReason.OriginClosed);
  assert.equal(world.pipeline.table.count, 0);
  world.send(second, udp({ source: '10.0.0.2' }));
  assert.equal(world.pipeline.summaries({})[0]?.state, 'open', 'the way is still configured');
  assert.deepEqual(world.drops, { tunnel_closed: 1 });
});

test('queue_full: what the tunnel answers is counted, and the flow lives', (t) => {
  const { world, client, server } = setUp(t);
  server.answer = DropReason.QueueFull;
  world.send(client, udp({}));
  assert.deepEqual(world.drops, { queue_full: 1 });
  assert.equal(world.pipeline.table.count, 1);
});

test('network_unknown never happens here: a way out into another network is no way out', (t) => {
  const { world, client } = setUp(t);
  const foreign = world.tunnel('far', [], { vnet: 'staging' });
  world.ways.set('office', () => ({ kind: 'tunnel', tunnel: foreign }));
  world.send(client, udp({}));
  assert.deepEqual(world.drops, { no_route: 1 });
  assert.deepEqual(foreign.take(), []);
  assert.match(world.pipeline.summaries({})[0]?.rule ?? '', /of another network/);
});

// --- hops and sizes ----------------------------------------------------------------------------------------

test('ttl_exceeded: the last hop is answered and not forwarded', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, udp({ ttl: 1 }));
  world.send(client, udp({ ttl: 1, source: 'fd00::1', destination: 'fd10::a' }));
  const [four, six] = client.take().map(icmpError);
  assert.deepEqual([four?.type, six?.type], [11, 3]);
  assert.equal(four?.quotedPort, 4000);
  assert.deepEqual(world.drops, { ttl_exceeded: 2 });
  assert.deepEqual(server.take(), []);
});

test('answers come at a limited rate for each tunnel by itself', async (t) => {
  const { world, client } = setUp(t);
  const other = world.tunnel('wg', ['10.0.0.0/24']);
  for (let i = 0; i < ANSWER_BURST + 50; i++) world.send(client, udp({ ttl: 1 }));
  assert.equal(client.take().length, ANSWER_BURST);
  world.send(other, udp({ ttl: 1, source: '10.0.0.9' }));
  assert.equal(other.take().length, 1);
  await world.clock.advance(100);
  for (let i = 0; i < 50; i++) world.send(client, udp({ ttl: 1 }));
  const later = client.take().length;
  assert.ok(later > 0 && later < 50, `${later} answers after a tenth of a second`);
});

test('too_big: DF is answered with the MTU of the way out, in both versions', (t) => {
  const { world, client, server } = setUp(t);
  server.mtu = 1300;
  world.send(client, udp({ payload: twinBytes(1400), fragment: 0x4000 }));
  world.send(client, udp({ payload: twinBytes(1400), source: 'fd00::1', destination: 'fd10::a' }));
  const answers = client.take();
  assert.deepEqual(
    answers.map((bytes) => icmpError(bytes).mtu),
    [1300, 1300],
  );
  assert.deepEqual(world.drops, { too_big: 2 });
  assert.deepEqual(server.take(), []);
});

test('without DF a packet that is too long leaves in fragments that make up the whole', (t) => {
  const { world, client, server } = setUp(t);
  server.mtu = 576;
  const packet = udp({ payload: twinBytes(1400), fragment: 0 });
  world.send(client, packet);
  const fragments = server.take();
  assert.equal(fragments.length, 3);
  const whole = new Uint8Array(packet.length - 20);
  for (const bytes of fragments) {
    assert.ok(bytes.length <= 576);
    const { packet: parsed } = parse(bytes);
    assert.equal(parsed.ttl, 63);
    whole.set(bytes.subarray(20), parsed.fragmentOffset);
  }
  assert.deepEqual(whole, packet.slice(20));
});

test('fragments are put together, decided about as a whole, and cut again for the way out', (t) => {
  for (const version of [4, 6]) {
    const { world, client, server } = setUp(t);
    const payload = twinBytes(3000);
    const inner = twinUdp(4000, 53, payload);
    const pieces = version === 4 ? ipv4Fragments(inner) : ipv6Fragments(inner);
    for (const piece of pieces.toReversed()) world.send(client, piece);
    const fragments = server.take();
    assert.equal(fragments.length, 3);
    const whole = new Uint8Array(inner.length);
    for (const bytes of fragments) {
      assert.ok(bytes.length <= 1500);
      const { packet } = parse(bytes);
      assert.notEqual(packet.fragmentKind, FragmentKind.None);
      const data = bytes.subarray(version === 4 ? 20 : 48);
      whole.set(data, packet.fragmentOffset);
    }
    assert.deepEqual(whole.subarray(8), payload);
    assert.equal(world.pipeline.summaries({})[0]?.packets, 1);
  }
});

function dropsOf(world: FlowWorld): Record<string, number> {
  return world.drops;
}

function ipv4Fragments(transport: Uint8Array): Uint8Array[] {
  const size = 1000;
  const pieces: Uint8Array[] = [];
  // The checksum of the whole is not looked at by anybody on a forwarded way.
  for (let at = 0; at < transport.length; at += size) {
    const more = at + size < transport.length ? 0x2000 : 0;
    pieces.push(
      twinPacket({
        source: CLIENT,
        destination: SERVER,
        protocol: 17,
        transport: transport.slice(at, at + size),
        keepChecksum: true,
        id: 99,
        fragment: more | (at >> 3),
      }),
    );
  }
  return pieces;
}

function ipv6Fragments(transport: Uint8Array): Uint8Array[] {
  const size = 1000;
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < transport.length; at += size) {
    const more = at + size < transport.length ? 1 : 0;
    const extensions = Uint8Array.from([17, 0, at >> 8, (at & 0xf8) | more, 0, 0, 0, 99]);
    pieces.push(
      twinPacket({
        source: 'fd00::1',
        destination: 'fd10::a',
        protocol: 17,
        transport: transport.slice(at, at + size),
        keepChecksum: true,
        extensions,
        firstHeader: IpProtocol.Fragment,
      }),
    );
  }
  return pieces;
}

test('fragments of two tunnels of one network never become one packet', (t) => {
  const { world, client, server } = setUp(t);
  const other = world.tunnel('wg', ['10.0.0.0/24']);
  const [first, second, third] = ipv4Fragments(twinUdp(4000, 53, twinBytes(2500)));
  world.send(client, first as Uint8Array);
  world.send(client, second as Uint8Array);
  world.send(other, third as Uint8Array);
  assert.deepEqual(server.take(), []);
  world.send(client, third as Uint8Array);
  assert.ok(server.take().length > 0);
});

test('reassembly_timeout and fragment_overlap are counted', async (t) => {
  const { world, client } = setUp(t);
  const [first, second] = ipv4Fragments(twinUdp(4000, 53, twinBytes(2500)));
  world.send(client, first as Uint8Array);
  await world.clock.advance(60_000);
  assert.deepEqual(world.drops, { reassembly_timeout: 1 });
  world.send(client, first as Uint8Array);
  const overlapping = (second as Uint8Array).slice();
  overlapping[7] = 124;
  overlapping[10] = 0;
  overlapping[11] = 0;
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += (overlapping[at]! << 8) | overlapping[at + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  overlapping[10] = ~(sum >> 8) & 0xff;
  overlapping[11] = ~sum & 0xff;
  world.send(client, overlapping);
  assert.ok((dropsOf(world).fragment_overlap ?? 0) > 0);
});

test('the MSS of both SYNs is lowered to the narrower tunnel', (t) => {
  const { world, client, server } = setUp(t);
  server.mtu = 1400;
  const mss = Uint8Array.from([2, 4, 0x05, 0xb4]);
  world.send(client, up({ options: mss }));
  world.send(server, down({ options: mss }));
  for (const bytes of [only(server.take()), only(client.take())]) {
    assert.deepEqual(bytes.slice(40, 44), Uint8Array.from([2, 4, 1360 >> 8, 1360 & 0xff]));
    assert.ok(withTransportAt20(bytes));
  }
});

const TCP4_SUPER = (size: number): Uint8Array =>
  Uint8Array.from([1, 1, 40, 0, size & 0xff, size >> 8, 20, 0, 16, 0]);

function superPacket(payload: number): Uint8Array {
  return up({ flags: Ack, payload: twinBytes(payload) });
}

test('a super-packet is judged by its segments, passed whole to a device, cut for other tunnels', async (t) => {
  const { world, client, server } = setUp(t);
  server.offload = true;
  world.send(client, superPacket(14_000), TCP4_SUPER(1400));
  assert.equal(only(server.take()).length, 14_040);
  server.offload = false;
  world.send(client, superPacket(14_000), TCP4_SUPER(1400));
  const segments = server.take();
  assert.equal(segments.length, 10);
  for (const bytes of segments) {
    assert.equal(bytes.length, 1440);
    assert.ok(withTransportAt20(bytes));
  }
  world.send(client, superPacket(14_000), TCP4_SUPER(1461));
  assert.deepEqual(world.drops, { too_big: 1 });
  assert.equal(icmpError(only(client.take())).mtu, 1500);
  world.pipeline.close(CloseReason.Shutdown);
  const record = only(world.records);
  assert.equal(record.packetsUp, 30);
  assert.equal(record.bytesUp, 42_000 + 30 * 40);
});

test('a partial checksum is finished for a tunnel that cannot', (t) => {
  const { world, client, server } = setUp(t);
  const packet = up();
  let pseudo = 6 + 20;
  for (let at = 12; at < 20; at += 2) pseudo += (packet[at]! << 8) | packet[at + 1]!;
  pseudo = (pseudo & 0xffff) + (pseudo >> 16);
  packet[36] = pseudo >> 8;
  packet[37] = pseudo & 0xff;
  world.send(client, packet, Uint8Array.from([1, 0, 0, 0, 0, 0, 20, 0, 16, 0]));
  assert.ok(withTransportAt20(only(server.take())));
});

test('no_buffer: a super-packet that cannot be cut for want of slots is dropped in part', (t) => {
  const { world, client, server } = setUp(t, { slots: 4 });
  const held = [
    world.worker.packets.acquire(),
    world.worker.packets.acquire(),
    world.worker.packets.acquire(),
  ];
  world.send(client, superPacket(14_000), TCP4_SUPER(1400));
  assert.deepEqual(server.take(), []);
  assert.deepEqual(world.drops, { no_buffer: 1 });
  for (const slot of held) world.worker.packets.release(slot);
});

// --- hooks -------------------------------------------------------------------------------------------------

test('hook_rejected: drop is silent, reject answers as asked; the record has the reason', async (t) => {
  const answers = new Map([
    [81, { action: 'drop', reason: 'quiet' }],
    [82, { action: 'reject', with: 'reset' }],
    [83, { action: 'reject', with: 'prohibited' }],
    [84, { action: 'reject', with: 'unreachable' }],
  ] as const);
  let calls = 0;
  const { world, client, server } = setUp(t, {
    hooks: {
      flow: ({ source }) => {
        calls++;
        return answers.get(source.port as 81);
      },
    },
  });
  for (const port of answers.keys()) world.send(client, up({ port }));
  const [reset, prohibited, unreachable] = client.take() as [Uint8Array, Uint8Array, Uint8Array];
  assert.equal(parse(reset).packet.tcpFlags & Rst, Rst);
  assert.deepEqual([icmpError(prohibited).code, icmpError(unreachable).code], [13, 1]);
  assert.deepEqual(server.take(), []);
  world.send(client, up({ port: 81 }));
  assert.equal(calls, 4, 'the refusal is remembered');
  assert.deepEqual(world.drops, { hook_rejected: 5 });
  await world.clock.advance(REFUSAL_MS + 5000);
  assert.equal(world.records.length, 4);
  assert.ok(world.records.every(({ reason }) => reason === CloseReason.Policy));
  assert.ok(world.records.some(({ rule }) => rule.includes('quiet')));
  world.send(client, up({ port: 81 }));
  assert.equal(calls, 5, 'and asked again later');
});

test('hook_failed: a hook that throws ends its flow and no other', (t) => {
  const { world, client, server } = setUp(t, {
    hooks: {
      flow: ({ source }) => {
        if (source.port === 4001) throw new Error('oops');
        return undefined;
      },
    },
  });
  world.send(client, up({ port: 4000 }));
  world.send(client, up({ port: 4001 }));
  world.send(client, up({ port: 4002 }));
  assert.equal(server.take().length, 2);
  assert.deepEqual(world.drops, { hook_failed: 1 });
  assert.match(world.pipeline.summaries({ port: 4001 })[0]?.rule ?? '', /flow hook failed: oops/);
});

test('policy: the egress hook may block a flow or lead it elsewhere, and not change addresses', (t) => {
  const { world, client, server } = setUp(t, {
    hooks: {
      egressNow: ({ layer, target, via }) => {
        assert.deepEqual([layer, via], ['ip', 'office']);
        if (target.port === 1) return { action: 'block', reason: 'no telnet' };
        if (target.port === 2) return { action: 'direct', via: 'branch' };
        if (target.port === 3) return { action: 'direct', to: { host: '10.10.0.11', port: 3 } };
        return undefined;
      },
    },
  });
  const branch = world.tunnel('branch', []);
  world.leadTo('branch', branch);
  for (const port of [1, 2, 3, 4]) world.send(client, udp({ ports: [4000, port] }));
  assert.deepEqual(world.drops, { policy: 1, hook_failed: 1 });
  assert.deepEqual([branch.take().length, server.take().length], [1, 1]);
});

test('policy: an off-ramp that rejects answers as it says', (t) => {
  const { world, client } = setUp(t);
  world.ways.set('office', () => ({ kind: 'reject', with: 'reset' }));
  world.send(client, up());
  assert.equal(parse(only(client.take())).packet.tcpFlags & Rst, Rst);
  assert.deepEqual(world.drops, { policy: 1 });
});

// --- upgrades ----------------------------------------------------------------------------------------------

function upgraded(t: TestContext): ReturnType<typeof setUp> {
  const parts = setUp(t);
  parts.world.ways.set('sockets', () => ({ kind: 'upgrade' }));
  parts.world.routes.replace([testRoute('10.10.0.0/24', 'sockets', { upgrade: 'sniff' })]);
  return parts;
}

test('an upgraded flow is delivered, answers by emit, and leaves its record to the upper layer', (t) => {
  const { world, client, server } = upgraded(t);
  const { upgrade } = world;
  world.send(client, up());
  const { flow, handle, direction, bytes } = only(upgrade.delivered);
  assert.deepEqual([handle, direction], [100, 0]);
  assert.equal(parse(bytes).packet.destinationPort, 80);
  const info = world.pipeline.coldInfo(flow);
  assert.deepEqual([info.wish, info.via, info.destination.address], ['sniff', 'sockets', SERVER]);
  assert.equal(world.emit(flow, 1, down()), DropReason.None);
  assert.equal(only(client.take()).length, 40);
  world.send(client, up({ flags: Ack }));
  assert.equal(world.pipeline.summaries({})[0]?.state, 'established');
  assert.equal(upgrade.flushed, 2 * 3, 'each of the three upgrades hears of the end of each batch');
  world.pipeline.endFlow(flow, CloseReason.OriginClosed);
  assert.deepEqual(upgrade.ended, [{ handle: 100, reason: CloseReason.OriginClosed }]);
  assert.deepEqual(world.records, []);
  assert.deepEqual(server.take(), []);
});

test('when the upper layer has no record for an upgraded flow, the pipeline writes it', async (t) => {
  const { world, client } = upgraded(t);
  world.upgrade.records = false;
  world.send(client, up());
  await world.clock.advance(60_000);
  const record = only(world.records);
  assert.deepEqual([record.layer, record.reason], ['tcp', CloseReason.ClientIdle]);
});

test('a SYN on a finished connection is a new flow with a new handle', (t) => {
  const { world, client } = upgraded(t);
  world.send(client, up());
  const { flow } = only(world.upgrade.delivered);
  world.emit(flow, 1, down());
  world.send(client, up({ flags: Rst }));
  world.send(client, up());
  assert.deepEqual(world.upgrade.ended, [{ handle: 100, reason: CloseReason.ClientError }]);
  assert.deepEqual(
    world.upgrade.delivered.map(({ handle }) => handle),
    [100, 100, 101],
  );
});

test('not_flow_start: a connection met in its middle cannot be upgraded, and its sender is told', (t) => {
  const { world, client } = upgraded(t);
  world.send(client, up({ flags: Ack }));
  assert.deepEqual(world.drops, { not_flow_start: 1 });
  assert.equal(parse(only(client.take())).packet.tcpFlags, Rst);
  assert.deepEqual(world.upgrade.delivered, []);
});

test('nat_full and stack_down: an upgrade that cannot take the flow ends it', (t) => {
  const { world, client } = upgraded(t);
  world.upgrade.refusal = DropReason.NatFull;
  world.send(client, up());
  assert.deepEqual(world.drops, { nat_full: 1 });
  assert.deepEqual([only(world.records).reason, world.pipeline.table.count], [CloseReason.Limit, 0]);
  assert.deepEqual(world.upgrade.ended, []);
  const none = setUp(t, { upgrades: false });
  none.world.ways.set('office', () => ({ kind: 'upgrade' }));
  none.world.send(none.client, up());
  assert.deepEqual(none.world.drops, { stack_down: 1 });
});

test('the stack learns the MSS that the client side allows, in both directions', (t) => {
  const { world, client } = upgraded(t);
  client.mtu = 1280;
  const options = Uint8Array.from([2, 4, 0xff, 0xd7]);
  world.send(client, up({ options }));
  const { flow, bytes } = only(world.upgrade.delivered);
  assert.deepEqual(bytes.slice(42, 44), Uint8Array.from([1240 >> 8, 1240 & 0xff]));
  world.emit(flow, 1, down({ options }));
  assert.deepEqual(only(client.take()).slice(42, 44), Uint8Array.from([1240 >> 8, 1240 & 0xff]));
});

test('what starts here and is too long is cut: TCP into segments, UDP into fragments', (t) => {
  for (const [source, destination] of [
    [SERVER, CLIENT],
    ['fd10::a', 'fd00::1'],
  ] as const) {
    const { world, client } = setUp(t);
    world.ways.set('office', () => ({ kind: 'upgrade' }));
    world.send(client, udp({ source: destination, destination: source }));
    const { flow } = only(world.upgrade.delivered);
    world.emit(flow, 1, udp({ source, destination, ports: [53, 4000], payload: twinBytes(4000) }));
    const fragments = client.take();
    assert.equal(fragments.length, 3);
    for (const bytes of fragments) assert.ok(bytes.length <= 1500);
    assert.deepEqual(world.drops, {});
  }
  const { world, client } = upgraded(t);
  world.send(client, up());
  const { flow } = only(world.upgrade.delivered);
  const bulk = down({ flags: Ack, payload: twinBytes(20_000) });
  world.emit(flow, 1, bulk, TCP4_SUPER(9000));
  const segments = client.take();
  assert.equal(segments.length, Math.ceil(20_000 / 1460));
  for (const bytes of segments) assert.ok(bytes.length <= 1500 && withTransportAt20(bytes));
});

test('UDP and echo by an off-ramp of sockets are upgraded too', (t) => {
  const { world, client } = setUp(t);
  world.ways.set('office', () => ({ kind: 'upgrade' }));
  world.send(client, udp({}));
  world.send(
    client,
    twinPacket({ source: CLIENT, destination: SERVER, protocol: 1, transport: twinEcho(8, 1, twinBytes(8)) }),
  );
  assert.equal(world.upgrade.delivered.length, 2);
});

test('UDP stays packets where the route wants streams and the way out is a tunnel', (t) => {
  const { world, client, server } = setUp(t);
  world.routes.replace([testRoute('10.10.0.0/24', 'office', { upgrade: 'stream' })]);
  world.send(client, udp({}));
  world.send(client, up());
  assert.equal(server.take().length, 1);
  assert.equal(world.upgrade.delivered.length, 1);
});

test('an outbound flow has a free port, is emitted towards its target and gets its answers', (t) => {
  const { world, server } = setUp(t);
  const { pipeline } = world;
  const context = server.context;
  const spec = {
    context,
    network: server.network,
    protocol: 6,
    source: { address: CLIENT, port: 0 },
    target: { address: SERVER, port: 80 },
    via: 'office',
    flow: 900,
    rule: 'stream',
  };
  const first = pipeline.openOutbound(spec);
  const second = pipeline.openOutbound(spec);
  assert.ok(first >= 0 && second >= 0);
  const port = pipeline.coldInfo(first).source.port;
  assert.notEqual(port, pipeline.coldInfo(second).source.port);
  pipeline.setHandle(first, 7);
  world.emit(first, 0, up({ port }));
  assert.equal(parse(only(server.take())).packet.sourcePort, port);
  world.send(server, down({ port }));
  assert.deepEqual(
    world.upgrade.delivered.map(({ flow, handle, direction }) => [flow, handle, direction]),
    [[first, 7, 1]],
  );
  assert.equal(pipeline.coldInfo(first).flow, 900);
  assert.equal(pipeline.openOutbound({ ...spec, via: 'nowhere' }), -DropReason.NoRoute);
  const taken = { ...spec, source: { address: CLIENT, port } };
  assert.equal(pipeline.openOutbound(taken), -DropReason.NatFull);
  pipeline.close(CloseReason.Shutdown);
  assert.deepEqual(world.records, [], 'the record is the stream’s');
});

// --- ICMP errors -------------------------------------------------------------------------------------------

function errorAbout(packet: Uint8Array, over: { source?: string; destination: string }): Uint8Array {
  const { source = '10.10.0.254', destination } = over;
  const transport = Uint8Array.from([3, 1, 0, 0, 0, 0, 0, 0, ...packet.subarray(0, 28)]);
  return twinPacket({ source, destination, protocol: 1, transport });
}

test('an ICMP error about a forwarded packet goes back to its sender, from any router on the way', (t) => {
  const { world, client, server } = setUp(t);
  world.send(client, up());
  const seen = only(server.take());
  world.send(server, errorAbout(seen, { destination: CLIENT }));
  assert.deepEqual(icmpError(only(client.take())), { type: 3, code: 1, quotedPort: 4000, mtu: 0 });
  assert.equal(world.counter(Counter.IcmpErrorsTranslated), 1);
  world.send(server, down());
  const answer = only(client.take());
  world.send(client, errorAbout(answer, { source: CLIENT, destination: SERVER }));
  assert.equal(icmpError(only(server.take())).quotedPort, 80);
});

test('icmp_unrelated: an error by the wrong tunnel, or for somebody else, is not believed', (t) => {
  const { world, client, server } = setUp(t);
  const other = world.tunnel('wg', ['10.0.0.0/24']);
  world.send(client, up());
  const seen = only(server.take());
  world.send(other, errorAbout(seen, { destination: CLIENT }));
  world.send(client, errorAbout(seen, { destination: CLIENT }));
  world.send(server, errorAbout(seen, { destination: '10.0.0.2' }));
  assert.deepEqual(world.drops, { icmp_unrelated: 3 });
  assert.deepEqual([client.take(), server.take()], [[], []]);
});

test('an ICMP error about an upgrade’s packet is handed to the upgrade', (t) => {
  const { world, client } = upgraded(t);
  world.send(client, up());
  const { flow } = only(world.upgrade.delivered);
  world.emit(flow, 1, down());
  const seen = only(client.take());
  world.send(client, errorAbout(seen, { source: CLIENT, destination: SERVER }));
  assert.deepEqual(world.upgrade.errors, [{ flow, quotedPort: 80 }]);
});

// --- changes -----------------------------------------------------------------------------------------------

test('removing a route ends its flows with route_removed and leaves the others', (t) => {
  const { world, client, server } = setUp(t);
  world.routes.replace([testRoute('10.10.0.0/25', 'office'), testRoute('10.10.0.128/25', 'office')]);
  world.send(client, udp({ destination: '10.10.0.1' }));
  world.send(client, udp({ destination: '10.10.0.200' }));
  world.pipeline.routesRemoved(world.routes.replace([testRoute('10.10.0.128/25', 'office')]));
  const record = only(world.records);
  assert.deepEqual([record.destination.address, record.reason], ['10.10.0.1', CloseReason.RouteRemoved]);
  world.send(client, udp({ destination: '10.10.0.200' }));
  assert.equal(server.take().length, 3);
});

test('a trace tells of the flow, the verdict and the drop; nothing is built while nobody watches', (t) => {
  const { world, client } = setUp(t);
  world.send(client, up());
  assert.equal(world.traced.length, 0);
  world.isTracing = true;
  world.send(client, up({ port: 4001 }));
  world.send(client, up({ source: '10.9.9.9' }));
  assert.deepEqual(
    world.traced.map(({ stage }) => stage),
    ['flow', 'verdict', 'drop'],
  );
  assert.equal(world.traced[0]?.tuple, `${CLIENT}:4001 > ${SERVER}:80 tcp`);
  assert.match(world.traced[1]?.text ?? '', /forward by office/);
  assert.match(world.traced[2]?.text ?? '', /spoofed_source/);
});

test('figures of networks count what lives and what ended', (t) => {
  const { world, client } = setUp(t);
  world.send(client, udp({}));
  world.send(client, udp({}));
  const [live] = world.pipeline.networkStats();
  assert.deepEqual([live?.account, live?.flows, live?.packets, live?.bytes], ['acme', 1, 2, 120]);
  world.pipeline.close(CloseReason.Shutdown);
  const [ended] = world.pipeline.networkStats();
  assert.deepEqual([ended?.flows, ended?.packets, ended?.bytes], [0, 2, 120]);
});

test('TCP from a tunnel into a device is joined until the batch ends, everything else goes at once', (t) => {
  const { world, client, server } = setUp(t);
  server.offload = true;
  const segment = (index: number, last = false): Uint8Array =>
    twinPacket({
      source: CLIENT,
      destination: SERVER,
      protocol: 6,
      transport: twinTcp({
        sourcePort: 4000,
        destinationPort: 80,
        sequence: 1 + index * 1000,
        flags: last ? Ack | TcpFlag.Psh : Ack,
        payload: twinBytes(1000, index + 1),
      }),
      id: index,
    });
  world.sendBatch(client, [segment(0), segment(1), udp({}), segment(2, true), up({ port: 4001 })]);
  const sent = server.sent.splice(0);
  assert.deepEqual(
    sent.map(({ bytes }) => bytes.length).sort((a, b) => a - b),
    [40, 60, 3040],
  );
  const joined = sent.find(({ bytes }) => bytes.length === 3040);
  assert.deepEqual([joined?.virtio[0], joined?.virtio[1], joined?.virtio[4]], [1, 1, 1000 & 0xff]);
  world.sendBatch(client, [segment(3), segment(4)]);
  assert.equal(only(server.take()).length, 2040);
});

test('a new process takes over all flows and goes on with them; what did not come along ends there', (t) => {
  const old = setUp(t);
  const doomed = old.world.tunnel('wg', ['10.0.0.0/24']);
  old.world.routes.replace([testRoute('10.10.0.0/25', 'office'), testRoute('10.10.0.128/25', 'office')]);
  old.world.send(old.client, up());
  old.world.send(old.server, down());
  old.world.send(old.client, up({ flags: Ack }));
  old.world.send(old.client, udp({ destination: '10.10.0.200' }));
  old.world.send(doomed, udp({ source: '10.0.0.9' }));
  const { header, buffers } = old.world.pipeline.snapshot();
  const state = {
    header: JSON.parse(JSON.stringify(header)),
    buffers: buffers.map((bytes) => bytes.slice()),
  };
  assert.equal(old.world.pipeline.table.count, 3);

  const world = new FlowWorld();
  world.networks.adopt(state.header.networks);
  world.routes.adopt(state.header.routes);
  world.routes.replace([testRoute('10.10.0.0/25', 'office')]);
  const client = world.tunnel('wg', ['10.0.0.0/24']);
  const server = world.tunnel('office', []);
  world.leadTo('office', server);
  world.pipeline.restore(state);
  assert.deepEqual(world.records.map(({ reason, source }) => [reason, source.address]).sort(), [
    [CloseReason.ClientClosed, '10.0.0.9'],
    [CloseReason.RouteRemoved, CLIENT],
  ]);
  world.send(server, down({ flags: Ack, payload: twinBytes(100) }));
  world.send(client, up({ flags: Ack }));
  assert.deepEqual([client.take().length, server.take().length], [1, 1]);
  assert.equal(world.counter(Counter.FlowMisses), 0);
  const [summary] = world.pipeline.summaries({});
  assert.deepEqual([summary?.state, summary?.packets, summary?.flow], ['established', 5, 1]);
  world.pipeline.close(CloseReason.Shutdown);
  assert.equal(world.io.audit().timers, 0);
  assert.equal(world.leaked, 0);
});
