import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DropReason, dropReasonName } from '#base/drop-reason.ts';
import { parseIp } from '#base/ip.ts';

import {
  AddressScope,
  addressesEqual,
  addressScope,
  checkDestination,
  checkSource,
  copyAddress,
  formatAddressAt,
  writeAddress,
} from './address.ts';
import { copyBytes } from './copy.ts';
import { ParsedPacket, parsePacket } from './parse.ts';
import { hashReplyTuple, hashTuple } from './tuple.ts';
import { TwinArena, twinBytes, twinPacket, twinUdp } from './twin.ts';
import { checkVirtioHeader, GsoType, setGso, setNeedsChecksum, setVirtioFlags } from './virtio-header.ts';

const arena = new TwinArena(1, 4096);
const parsed = new ParsedPacket();

function put(source: string, destination: string, ports = [1, 2]): number {
  const transport = twinUdp(ports[0]!, ports[1]!, twinBytes(100));
  const packet = twinPacket({ source, destination, protocol: 17, transport });
  const at = arena.put(0, packet);
  assert.equal(parsePacket(arena.view, at, packet.length, parsed), DropReason.None);
  return at;
}

test('scopes of addresses, at their edges', () => {
  const scopes: [string, number][] = [
    ['0.255.255.255', AddressScope.Unspecified],
    ['1.0.0.0', AddressScope.Unicast],
    ['10.0.0.1', AddressScope.Unicast],
    ['126.255.255.255', AddressScope.Unicast],
    ['127.0.0.0', AddressScope.Loopback],
    ['128.0.0.1', AddressScope.Unicast],
    ['169.253.255.255', AddressScope.Unicast],
    ['169.254.169.254', AddressScope.LinkLocal],
    ['169.255.0.0', AddressScope.Unicast],
    ['223.255.255.255', AddressScope.Unicast],
    ['224.0.0.0', AddressScope.Multicast],
    ['239.255.255.255', AddressScope.Multicast],
    ['240.0.0.0', AddressScope.Reserved],
    ['255.255.255.255', AddressScope.Reserved],
    ['::', AddressScope.Unspecified],
    ['::1', AddressScope.Loopback],
    ['::2', AddressScope.Reserved],
    ['::ffff:10.0.0.1', AddressScope.Reserved],
    ['64:ff9b::1', AddressScope.Unicast],
    ['100::1', AddressScope.Reserved],
    ['2001:db8::1', AddressScope.Unicast],
    ['fd00::1', AddressScope.Unicast],
    ['fe7f::1', AddressScope.Unicast],
    ['fe80::1', AddressScope.LinkLocal],
    ['febf:ffff::1', AddressScope.LinkLocal],
    ['fec0::1', AddressScope.Unicast],
    ['ff02::1', AddressScope.Multicast],
  ];
  for (const [text, scope] of scopes) {
    const bytes = parseIp(text) as Uint8Array;
    writeAddress(arena.view, 0, bytes);
    const version = bytes.length === 4 ? 4 : 6;
    assert.equal(addressScope(arena.view, 0, version), scope, text);
    assert.equal(formatAddressAt(arena.view, 0, version), text.replace('::ffff:10.0.0.1', '::ffff:a00:1'));
    copyAddress(arena.view, 0, arena.view, 64, version);
    assert.equal(addressesEqual(arena.view, 0, arena.view, 64, version), true);
    arena.bytes[64 + bytes.length - 1]! ^= 1;
    assert.equal(addressesEqual(arena.view, 0, arena.view, 64, version), false);
  }
});

test('martian sources and destinations have their reasons', () => {
  const source = (from: string, to: string) => {
    put(from, to);
    return dropReasonName(checkSource(arena.view, parsed));
  };
  const destination = (from: string, to: string) => {
    put(from, to);
    return dropReasonName(checkDestination(arena.view, parsed));
  };
  assert.equal(source('10.0.0.1', '10.0.0.2'), 'none');
  assert.equal(source('127.0.0.1', '10.0.0.2'), 'martian_source');
  assert.equal(source('224.0.0.1', '10.0.0.2'), 'martian_source');
  assert.equal(source('10.0.0.2', '10.0.0.2'), 'martian_source');
  assert.equal(source('fd00::2', 'fd00::2'), 'martian_source');
  assert.equal(source('::', 'fd00::2'), 'martian_source');
  assert.equal(source('fe80::1', 'fd00::2'), 'link_scope');
  assert.equal(source('169.254.0.1', '10.0.0.2'), 'link_scope');
  assert.equal(destination('10.0.0.1', '10.0.0.2'), 'none');
  assert.equal(destination('10.0.0.1', '127.0.0.1'), 'martian_destination');
  assert.equal(destination('10.0.0.1', '255.255.255.255'), 'martian_destination');
  assert.equal(destination('10.0.0.1', '169.254.169.254'), 'link_scope');
  assert.equal(destination('fd00::1', 'ff02::1'), 'martian_destination');
  assert.equal(destination('fd00::1', '::ffff:10.0.0.1'), 'martian_destination');
});

test('a tuple hashes alike only with the same network, direction, addresses and ports', () => {
  const hashes = new Set<number>();
  let count = 0;
  for (const [from, to] of [
    ['10.0.0.1', '10.0.0.2'],
    ['10.0.0.1', '10.0.0.3'],
    ['10.0.0.2', '10.0.0.1'],
    ['fd00::1', 'fd00::2'],
    ['fd00::2', 'fd00::1'],
    ['fd00::1', 'fd00::1:2'],
  ] as const) {
    for (const ports of [
      [1, 2],
      [2, 1],
      [1, 3],
    ]) {
      for (const network of [0, 1, 2, 70000]) {
        put(from, to, ports);
        const hash = hashTuple(arena.view, parsed, network, 99);
        assert.equal(hashTuple(arena.view, parsed, network, 99), hash);
        assert.notEqual(hashTuple(arena.view, parsed, network, 98), hash);
        const reply = hashReplyTuple(arena.view, parsed, network, 99);
        put(to, from, [ports[1]!, ports[0]!]);
        assert.equal(hashTuple(arena.view, parsed, network, 99), reply);
        assert.equal(hashReplyTuple(arena.view, parsed, network, 99), hash);
        hashes.add(hash);
        count++;
      }
    }
  }
  assert.equal(hashes.size, count);
});

test('neighbouring tuples spread over the low bits', () => {
  const buckets = new Uint32Array(1024);
  put('10.0.0.1', '10.0.0.2');
  for (let i = 0; i < 10240; i++) {
    arena.view.setInt32(parsed.addressOffset, 0x0a000000 + (i >> 4));
    parsed.sourcePort = 32768 + (i & 15);
    buckets[hashTuple(arena.view, parsed, 1, 5) & 1023]!++;
  }
  // Ten each on average; with a good hash no bucket gets near forty (Poisson: 1e-12).
  assert.ok(Math.max(...buckets) < 40);
  assert.ok(buckets.filter((count) => count === 0).length < 8);
});

test('a virtio header that does not fit its packet is refused', () => {
  const check = (change: (at: number) => void) => {
    const at = put('10.0.0.1', '10.0.0.2');
    setNeedsChecksum(arena.view, parsed);
    setGso(arena.view, parsed, GsoType.UdpL4, 50);
    change(at);
    return dropReasonName(checkVirtioHeader(arena.view, parsed));
  };
  const view = arena.view;
  assert.equal(
    check(() => {}),
    'none',
  );
  assert.equal(
    check((at) => view.setUint8(at - 9, 0)),
    'none',
  );
  assert.equal(
    check((at) => setVirtioFlags(view, at, 0)),
    'bad_segmentation',
  );
  assert.equal(
    check((at) => setVirtioFlags(view, at, 0xff)),
    'bad_segmentation',
  );
  assert.equal(
    check((at) => view.setUint8(at - 9, GsoType.Tcp4)),
    'bad_segmentation',
  );
  assert.equal(
    check((at) => view.setUint8(at - 9, GsoType.Tcp6)),
    'bad_segmentation',
  );
  assert.equal(
    check((at) => view.setUint8(at - 9, GsoType.Udp)),
    'bad_segmentation',
  );
  assert.equal(
    check((at) => view.setUint8(at - 9, 77)),
    'bad_segmentation',
  );
  assert.equal(
    check((at) => view.setUint16(at - 6, 0)),
    'bad_segmentation',
  );
  assert.equal(
    check((at) => view.setUint8(at - 4, 21)),
    'bad_segmentation',
  );
  assert.equal(
    check((at) => view.setUint8(at - 4, 0)),
    'bad_segmentation',
  );
  assert.equal(
    check((at) => view.setUint8(at - 2, 16)),
    'bad_segmentation',
  );
  assert.equal(
    check(() => {
      parsed.payloadLength = 50 * 128 + 1;
    }),
    'bad_segmentation',
  );
  assert.equal(
    check(() => {
      parsed.fragmentKind = 1;
    }),
    'bad_segmentation',
  );
});

test('bytes are copied over each other in both directions', () => {
  for (const length of [0, 3, 17, 64, 65, 200]) {
    for (const shift of [-70, -5, -1, 0, 1, 5, 70]) {
      arena.bytes.set(twinBytes(600), 0);
      const expected = arena.bytes.slice();
      expected.copyWithin(300 + shift, 300, 300 + length);
      copyBytes(arena.view, 300, 300 + shift, length);
      assert.deepEqual(arena.bytes, expected);
    }
  }
});
