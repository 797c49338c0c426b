import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  DEVICE_HEADROOM,
  frameOffsetOfPacket,
  framePacketForDevice,
  openPacketDevice,
  packetOffsetOfFrame,
  unframePacketFromDevice,
  type PacketDevice,
} from './packet-device.ts';

const common = {
  fd: -1,
  queues: [-1],
  name: 'p0',
  index: 2,
  mtu: 1500,
  offload: { segmentation: true, udpSegmentation: true },
};
const tun: PacketDevice = {
  ...common,
  kind: 'tun',
  headerBytes: 10,
  ethernet0: 0,
  ethernet1: 0,
  ethernet2: 0,
};
const socket: PacketDevice = {
  ...common,
  kind: 'packet-socket',
  headerBytes: 24,
  ethernet0: 0x02000000,
  ethernet1: 0x00010200,
  ethernet2: 0x00000002,
};

const PACKET = 128;

/** A canonical packet: a segmented TCP packet with an unfinished checksum, `length` bytes long. */
function canonical(version: 4 | 6, length: number): DataView {
  const view = new DataView(new ArrayBuffer(PACKET + length));
  const virtio = PACKET - 10;
  const header = version === 4 ? 20 : 40;
  view.setUint8(virtio, 1);
  view.setUint8(virtio + 1, version === 4 ? 1 : 4);
  view.setUint16(virtio + 2, header + 20, true);
  view.setUint16(virtio + 4, 1448, true);
  view.setUint16(virtio + 6, header, true);
  view.setUint16(virtio + 8, 16, true);
  view.setUint8(PACKET, version << 4);
  for (let i = 1; i < length; i++) view.setUint8(PACKET + i, (7 * i) & 0xff);
  return view;
}

const copy = (view: DataView): number[] => [...new Uint8Array(view.buffer.slice(PACKET - 10))];

test('a TUN frame is the canonical packet', () => {
  const view = canonical(4, 200);
  const before = copy(view);
  assert.equal(framePacketForDevice(view, PACKET, 200, tun), PACKET - 10);
  assert.equal(unframePacketFromDevice(view, PACKET - 10, 210, tun), 200);
  assert.deepEqual(copy(view), before);
});

for (const version of [4, 6] as const) {
  test(`a packet-socket frame of IPv${version} has its Ethernet header before the packet`, () => {
    const view = canonical(version, 200);
    const before = copy(view);
    const frame = framePacketForDevice(view, PACKET, 200, socket);
    assert.equal(frame, PACKET - 24);
    assert.ok(PACKET - frame <= DEVICE_HEADROOM);
    assert.equal(view.getUint8(frame), 1);
    assert.equal(view.getUint16(frame + 2, true), (version === 4 ? 40 : 60) + 14);
    assert.equal(view.getUint16(frame + 4, true), 1448);
    assert.equal(view.getUint16(frame + 6, true), (version === 4 ? 20 : 40) + 14);
    assert.equal(view.getUint16(frame + 8, true), 16);
    const ethernet = [...new Uint8Array(view.buffer, frame + 10, 14)];
    const type = version === 4 ? [8, 0] : [0x86, 0xdd];
    assert.deepEqual(ethernet, [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, ...type]);
    assert.equal(unframePacketFromDevice(view, frame, 224, socket), 200);
    assert.deepEqual(copy(view), before);
  });
}

test('offsets of a packet without an unfinished checksum stay zero', () => {
  const view = new DataView(new ArrayBuffer(256));
  view.setUint8(PACKET, 0x45);
  const frame = framePacketForDevice(view, PACKET, 100, socket);
  assert.deepEqual([...new Uint8Array(view.buffer, frame, 10)], Array(10).fill(0));
  unframePacketFromDevice(view, frame, 124, socket);
  assert.deepEqual([...new Uint8Array(view.buffer, PACKET - 10, 10)], Array(10).fill(0));
});

test('a frame without an IP packet is refused', () => {
  const view = new DataView(new ArrayBuffer(256));
  view.setUint16(22, 0x0806);
  assert.equal(unframePacketFromDevice(view, 0, 60, socket), -1, 'ARP');
  assert.equal(unframePacketFromDevice(view, 0, 24, socket), -1, 'nothing behind the header');
  assert.equal(unframePacketFromDevice(view, 0, 10, tun), -1, 'nothing behind the header');
});

test('frame and packet offsets are each other’s inverse', () => {
  for (const device of [tun, socket]) {
    assert.equal(packetOffsetOfFrame(frameOffsetOfPacket(PACKET, device), device), PACKET);
  }
});

test('names and sizes that no device can have are refused before anything is opened', () => {
  assert.throws(() => openPacketDevice({ name: 'a name' }), {
    code: 'RAMP_DEVICE',
    message: /1 to 13 letters/,
  });
  assert.throws(() => openPacketDevice({ name: 'fourteen-chars' }), { code: 'RAMP_DEVICE' });
  assert.throws(() => openPacketDevice({ mtu: 1279 }), { code: 'RAMP_DEVICE', message: /1280/ });
  assert.throws(() => openPacketDevice({ mtu: 65536 }), { code: 'RAMP_DEVICE' });
});
