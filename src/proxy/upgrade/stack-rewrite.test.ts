import assert from 'node:assert/strict';
import { test } from 'node:test';

import { parseIp } from '#base/ip.ts';
import { formatAddressAt, writeAddress } from '#packet/address.ts';
import { IcmpError, PacketEndpoints, writeIcmpError, writeIpHeader } from '#packet/build.ts';
import {
  sumBytes,
  verifyTransportChecksum,
  writePartialChecksum,
  writeTransportChecksum,
} from '#packet/checksum.ts';
import { parseQuoted } from '#packet/icmp.ts';
import { IpProtocol, ParsedPacket, parsePacket, TcpFlag } from '#packet/parse.ts';
import { clearVirtioHeader, setNeedsChecksum } from '#packet/virtio-header.ts';
import type { FlowTable } from '#proxy/flow/flow-table.ts';
import { writePeerAddress } from '#proxy/flow/nat.ts';

import { rewriteErrorForStack } from './stack-error.ts';
import { STACK_PORT } from './stack-namespace.ts';
import { writePeerReset } from './stack-reset.ts';
import { StackRewrite } from './stack-rewrite.ts';

interface Ends {
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

const FLOWS: readonly Ends[] = [
  { source: '10.0.0.2', destination: '203.0.113.9', sourcePort: 4000, destinationPort: 443 },
  { source: 'fd00::2', destination: '2001:db8::9', sourcePort: 4000, destinationPort: 443 },
];

/** A table that holds one flow. */
function tableOf(ends: Ends): FlowTable<unknown> {
  const source = parseIp(ends.source) as Uint8Array;
  const table: Pick<FlowTable<unknown>, 'version' | 'sourcePort' | 'destinationPort' | 'writeAddresses'> = {
    version: () => (source.length === 4 ? 4 : 6),
    sourcePort: () => ends.sourcePort,
    destinationPort: () => ends.destinationPort,
    writeAddresses: (_flow, view, offset) => {
      writeAddress(view, offset, source);
      writeAddress(view, offset + source.length, parseIp(ends.destination) as Uint8Array);
    },
  };
  return table as FlowTable<unknown>;
}

const view = new DataView(new ArrayBuffer(8192));
const AT = 256;

/** A TCP segment with right checksums, or with a partial one. */
function segment(ends: Ends, partial = false): ParsedPacket {
  const source = parseIp(ends.source) as Uint8Array;
  const endpoints = new PacketEndpoints();
  endpoints.view = new DataView(new ArrayBuffer(32));
  endpoints.version = source.length === 4 ? 4 : 6;
  endpoints.destinationOffset = 16;
  writeAddress(endpoints.view, 0, source);
  writeAddress(endpoints.view, 16, parseIp(ends.destination) as Uint8Array);
  const tcp = writeIpHeader(view, AT, 20 + 33, IpProtocol.Tcp, endpoints);
  clearVirtioHeader(view, AT);
  for (let i = 0; i < 53; i++) view.setUint8(tcp + i, i * 7);
  view.setUint16(tcp, ends.sourcePort);
  view.setUint16(tcp + 2, ends.destinationPort);
  view.setUint16(tcp + 12, 0x5000 | TcpFlag.Ack);
  const packet = new ParsedPacket();
  assert.equal(parsePacket(view, AT, tcp + 53 - AT, packet), 0);
  if (partial) {
    writePartialChecksum(view, packet);
    setNeedsChecksum(view, packet);
  } else {
    writeTransportChecksum(view, packet);
  }
  return packet;
}

function endsOf(packet: ParsedPacket): Ends {
  const half = packet.version === 4 ? 4 : 16;
  return {
    source: formatAddressAt(view, packet.addressOffset, packet.version),
    destination: formatAddressAt(view, packet.addressOffset + half, packet.version),
    sourcePort: packet.sourcePort,
    destinationPort: packet.destinationPort,
  };
}

/** What a parser that starts anew finds; checks both checksums. */
function reparsed(packet: ParsedPacket): Ends {
  const again = new ParsedPacket();
  assert.equal(parsePacket(view, packet.offset, packet.totalLength, again), 0);
  assert.ok(verifyTransportChecksum(view, again));
  return endsOf(again);
}

function swapped({ source, destination, sourcePort, destinationPort }: Ends): Ends {
  return {
    source: destination,
    destination: source,
    sourcePort: destinationPort,
    destinationPort: sourcePort,
  };
}

for (const flow of FLOWS) {
  const isIpv4 = flow.source.includes('.');
  const stack = isIpv4 ? '192.0.2.1' : 'fd72:616d:7061::1';
  const client = isIpv4 ? '10.1.226.64' : 'fd72:616d:7061:1::1:e240';
  const target = isIpv4 ? '11.1.226.64' : 'fd72:616d:7061:2::1:e240';
  const version = isIpv4 ? 'IPv4' : 'IPv6';
  const n = 123_456;

  test(`a client's packet over ${version} goes to the listener, the answer comes from its target`, () => {
    const rewrite = new StackRewrite(tableOf(flow));
    const up = segment(flow);
    rewrite.clientToStack(view, up, n);
    const inside = {
      source: client,
      destination: stack,
      sourcePort: 4000,
      destinationPort: STACK_PORT,
    };
    assert.deepEqual(reparsed(up), inside);
    const down = segment(swapped(inside));
    rewrite.stackToClient(view, down, 0);
    assert.deepEqual(reparsed(down), swapped(flow));
  });

  test(`a socket's packet over ${version} goes to the target, the answer comes from its peer`, () => {
    const rewrite = new StackRewrite(tableOf(flow));
    const inside = { source: stack, destination: target, sourcePort: 51_000, destinationPort: 443 };
    const up = segment(inside);
    rewrite.stackToTarget(view, up, 0);
    assert.deepEqual(reparsed(up), flow);
    const down = segment(swapped(flow));
    rewrite.targetToStack(view, down, n, 51_000);
    assert.deepEqual(reparsed(down), swapped(inside));
  });

  test(`a partial checksum over ${version} stays one`, () => {
    const rewrite = new StackRewrite(tableOf(flow));
    const packet = segment(flow, true);
    rewrite.clientToStack(view, packet, n);
    const found = view.getUint16(packet.transportOffset + 16);
    writePartialChecksum(view, packet);
    assert.equal(found, view.getUint16(packet.transportOffset + 16));
  });

  test(`a reset of an ${version} peer is a whole packet, and none is made without a port`, () => {
    const peer = new DataView(new ArrayBuffer(16));
    writePeerAddress(peer, 0, { version: isIpv4 ? 4 : 6, peer: 'client', n });
    const reset = {
      version: isIpv4 ? 4 : 6,
      peer,
      peerPort: 4000,
      stackPort: STACK_PORT,
      sequence: -5,
    };
    const length = writePeerReset(view, AT, reset);
    const packet = new ParsedPacket();
    assert.equal(parsePacket(view, AT, length, packet), 0);
    assert.equal(packet.tcpFlags, TcpFlag.Rst);
    assert.equal(view.getInt32(packet.transportOffset + 4), -5);
    assert.equal(reparsed(packet).source, client);
    assert.equal(writePeerReset(view, AT, { ...reset, stackPort: 0 }), 0);
  });

  test(`an ICMP error over ${version} quotes what the kernel had sent`, () => {
    // The stack's packet as it left, with real addresses; a router on the client's side reports.
    const sent = segment(swapped(flow));
    const reporter = parseIp(isIpv4 ? '10.0.7.1' : 'fd00:7::1') as Uint8Array;
    const to = 2048;
    const length = writeIcmpError(view, sent, to, IcmpError.PacketTooBig, { mtu: 1300, reporter });
    const error = new ParsedPacket();
    const quoted = new ParsedPacket();
    assert.equal(parsePacket(view, to, length, error), 0);
    assert.equal(parseQuoted(view, error, quoted), 0);
    const peer = new DataView(new ArrayBuffer(16));
    writePeerAddress(peer, 0, { version: isIpv4 ? 4 : 6, peer: 'client', n });
    assert.ok(rewriteErrorForStack(view, error, quoted, { peer, stackPort: STACK_PORT }));
    assert.equal(parsePacket(view, to, length, error), 0);
    assert.ok(verifyTransportChecksum(view, error));
    assert.deepEqual([endsOf(error).source, endsOf(error).destination], [client, stack]);
    assert.equal(parseQuoted(view, error, quoted), 0);
    assert.deepEqual(endsOf(quoted), {
      source: stack,
      destination: client,
      sourcePort: STACK_PORT,
      destinationPort: 4000,
    });
    if (isIpv4) assert.equal(sumBytes(view, quoted.offset, 20), 0xffff);
  });
}

test('an ICMP error about something else than TCP is not for the stack', () => {
  const sent = segment(FLOWS[0] as Ends);
  const to = 2048;
  const length = writeIcmpError(view, sent, to, IcmpError.HostUnreachable);
  const error = new ParsedPacket();
  const quoted = new ParsedPacket();
  parsePacket(view, to, length, error);
  parseQuoted(view, error, quoted);
  quoted.protocol = IpProtocol.Udp;
  const peer = new DataView(new ArrayBuffer(16));
  assert.ok(!rewriteErrorForStack(view, error, quoted, { peer, stackPort: STACK_PORT }));
});
