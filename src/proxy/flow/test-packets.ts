/** For tests of this folder: the packets of one client and one server, and what is read from answers. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { icmpMtu, parseQuoted } from '#packet/icmp.ts';
import { ParsedPacket, parsePacket, TcpFlag } from '#packet/parse.ts';
import { TwinArena, twinBytes, twinPacket, twinTcp, twinUdp, twinVerify } from '#packet/twin.ts';

import { FlowWorld, type FlowWorldOptions, testRoute, type TestTunnel } from './test-world.ts';

const { Syn, Ack } = TcpFlag;

/** The client's address. */
export const CLIENT = '10.0.0.1';
/** The server's address. */
export const SERVER = '10.10.0.10';

/** A client tunnel and a server tunnel of acme/production, with a route from one to the other. */
export function setUp(
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

/** What a test says of a TCP segment. */
export interface Segment {
  readonly flags?: number;
  readonly port?: number;
  readonly payload?: Uint8Array;
  readonly options?: Uint8Array;
  readonly ttl?: number;
  readonly fragment?: number;
  readonly source?: string;
  readonly destination?: string;
}

/** A segment from the client to the server. */
export function up(segment: Segment = {}): Uint8Array {
  const { flags = Syn, port = 4000, ttl = 64, fragment = 0x4000 } = segment;
  const { source = CLIENT, destination = SERVER, ...rest } = segment;
  const transport = twinTcp({ ...rest, sourcePort: port, destinationPort: 80, flags });
  return twinPacket({ source, destination, protocol: 6, transport, ttl, fragment });
}

/** A segment from the server to the client. */
export function down(segment: Segment = {}): Uint8Array {
  const { flags = Syn | Ack, port = 4000, ttl = 64, fragment = 0x4000 } = segment;
  const { source = SERVER, destination = CLIENT, ...rest } = segment;
  const transport = twinTcp({ ...rest, sourcePort: 80, destinationPort: port, flags });
  return twinPacket({ source, destination, protocol: 6, transport, ttl, fragment });
}

/** A datagram; from the client to the server unless said otherwise. */
export function udp(over: {
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

/** The packet, which must be well formed, with the view that its offsets are of. */
export function parse(bytes: Uint8Array): { packet: ParsedPacket; view: DataView } {
  const arena = new TwinArena(1, 80_000);
  const packet = new ParsedPacket();
  assert.equal(parsePacket(arena.view, arena.put(0, bytes), bytes.length, packet), DropReason.None);
  return { packet, view: arena.view };
}

/** The one item. */
export function only<T>(items: readonly T[]): T {
  assert.equal(items.length, 1);
  return items[0] as T;
}

/** The ICMP error in a packet, with the port of the packet that it is about. */
export function icmpError(bytes: Uint8Array): {
  type: number;
  code: number;
  quotedPort: number;
  mtu: number;
} {
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

/** True when the transport checksum of an IPv4 packet without options is right. */
export function withTransportAt20(bytes: Uint8Array): boolean {
  return twinVerify(bytes, 20, bytes[9] as number);
}

/** A client and a route by sockets: TCP is upgraded. */
export function upgraded(t: TestContext): ReturnType<typeof setUp> {
  const parts = setUp(t);
  parts.world.ways.set('sockets', () => ({ kind: 'upgrade' }));
  parts.world.routes.replace([testRoute('10.10.0.0/24', 'sockets', { upgrade: 'sniff' })]);
  return parts;
}

/** The virtio header of an IPv4 TCP super-packet with segments of `size` bytes. */
export const TCP4_SUPER = (size: number): Uint8Array =>
  Uint8Array.from([1, 1, 40, 0, size & 0xff, size >> 8, 20, 0, 16, 0]);

/** A segment with so much payload. */
export function superPacket(payload: number): Uint8Array {
  return up({ flags: Ack, payload: twinBytes(payload) });
}
