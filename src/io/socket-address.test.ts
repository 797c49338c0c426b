import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import type { SocketAddress } from '#base/ip.ts';

import {
  readSocketAddress,
  setSockaddrPort,
  sockaddrEqual,
  sockaddrFamily,
  sockaddrIpOffset,
  sockaddrIsMapped,
  sockaddrPort,
  writeSockaddrInet,
  writeSocketAddress,
} from './socket-address.ts';

describe('socket address', () => {
  const view = new DataView(new ArrayBuffer(512));

  it('reads back what it wrote, over whatever lay there before', () => {
    const addresses: SocketAddress[] = [
      { family: 4, address: '10.1.2.3', port: 65_535 },
      { family: 6, address: 'fd00::1:2', port: 53 },
      { family: 6, address: '::', port: 0 },
      { family: 'unix', path: '/run/rampart.sock' },
      { family: 'unix', path: '@abstract' },
    ];
    for (const address of addresses) {
      for (let i = 0; i < 256; i++) view.setUint8(i, 0xee);
      const length = writeSocketAddress(view, 8, address);
      assert.deepEqual(readSocketAddress(view, 8, length), address);
    }
  });

  it('has the layout of the kernel', () => {
    assert.equal(writeSocketAddress(view, 0, { family: 4, address: '127.0.0.1', port: 80 }), 16);
    const bytes = new Uint8Array(view.buffer, 0, 16);
    assert.deepEqual([...bytes], [2, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert.equal(writeSocketAddress(view, 0, { family: 6, address: '::1', port: 443 }), 28);
    assert.equal(view.getUint16(0, true), 10);
    assert.equal(view.getUint16(2), 443);
    assert.equal(view.getUint8(23), 1);
  });

  it('reads an unnamed Unix socket as an empty path', () => {
    view.setUint16(0, 1, true);
    assert.deepEqual(readSocketAddress(view, 0, 2), { family: 'unix', path: '' });
  });

  it('refuses addresses that are none', () => {
    assert.throws(() => writeSocketAddress(view, 0, { family: 4, address: 'example', port: 1 }));
    assert.throws(() => writeSocketAddress(view, 0, { family: 6, address: '10.0.0.1', port: 1 }));
    assert.throws(() => writeSocketAddress(view, 0, { family: 'unix', path: 'x'.repeat(108) }));
    assert.throws(() => readSocketAddress(familyOf(99), 0, 16));
  });

  it('reads and compares fields where they lie', () => {
    writeSocketAddress(view, 0, { family: 6, address: '::ffff:10.0.0.1', port: 5000 });
    assert.ok(sockaddrIsMapped(view, 0));
    assert.equal(sockaddrFamily(view, 0), 10);
    assert.equal(sockaddrPort(view, 0), 5000);
    assert.equal(sockaddrIpOffset(view, 0), 8);
    writeSocketAddress(view, 128, { family: 6, address: '::ffff:10.0.0.1', port: 5001 });
    assert.ok(!sockaddrEqual(view, 0, 128));
    setSockaddrPort(view, 128, 5000);
    assert.ok(sockaddrEqual(view, 0, 128));
    assert.equal(writeSockaddrInet(view, 256, 0x0a000001, 5000), 16);
    assert.deepEqual(readSocketAddress(view, 256, 16), { family: 4, address: '10.0.0.1', port: 5000 });
    assert.ok(!sockaddrEqual(view, 0, 256));
    assert.equal(sockaddrIpOffset(view, 256), 260);
    assert.ok(!sockaddrIsMapped(view, 256));
  });
});

function familyOf(family: number): DataView {
  const view = new DataView(new ArrayBuffer(16));
  view.setUint16(0, family, true);
  return view;
}
