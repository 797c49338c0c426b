/**
 * A device through which the process and a kernel exchange IP packets, each with a 10-byte virtio header in
 * front that carries segmentation and checksum offload (so one packet may be 64 KiB of TCP).
 *
 * - `tun`: /dev/net/tun. A frame is `[virtio 10][IP packet]`.
 * - `packet-socket`, where /dev/net/tun is missing or forbidden: a veth pair in the same namespace. The
 *   kernel routes into the end that carries the device's name; the other end has no addresses and is read and
 *   written through an AF_PACKET socket. A frame is `[virtio 10][Ethernet 14][IP packet]`.
 *
 * ```
 *   kernel's stack ── p0 ═══ veth ═══ p0-x ── AF_PACKET socket ── process
 * ```
 *
 * The two forms differ by the Ethernet header and by what offsets in the virtio header count from. The
 * canonical form, `[virtio 10][IP packet]` with offsets from the IP header, is that of the TUN;
 * `framePacketForDevice` and `unframePacketFromDevice` turn one into the other in place, and do nothing for a
 * TUN.
 */
import { writeFileSync } from 'node:fs';

import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';

import {
  bindSocket,
  closeDescriptor,
  controlNumber,
  controlStruct,
  openPath,
  openSocket,
  setIntegerOption,
} from './ffi/namespace.ts';
import { Errno, type Fd } from './io.ts';
import { RouteSocket } from './netlink.ts';
import { systemError } from './system-error.ts';

/** Bytes of the virtio header (struct virtio_net_hdr without the buffer count). */
const VIRTIO_BYTES = 10;
const ETHERNET_BYTES = 14;

/** Headroom in front of a canonical packet (virtio header included) that every kind of device can do with. */
export const DEVICE_HEADROOM = VIRTIO_BYTES + ETHERNET_BYTES;

/** How packets reach the process. */
export type PacketDeviceKind = 'tun' | 'packet-socket';

/** What a kernel hands over and takes without segmenting or summing itself. */
export interface DeviceOffload {
  /** Unfinished checksums and TCP packets larger than the MTU, both ways. */
  readonly segmentation: boolean;
  /** UDP datagrams with a segment size (Linux 6.2). */
  readonly udpSegmentation: boolean;
}

/** What device to open. */
export interface PacketDeviceOptions {
  /** At most 13 characters. Default `p0`. */
  readonly name?: string;
  /** Bytes of the largest IP packet that the kernel sends unsegmented; 1280 to 65535. Default 65535. */
  readonly mtu?: number;
  /** Default `auto`: a TUN, or where that is missing or forbidden a packet socket. */
  readonly kind?: 'auto' | PacketDeviceKind;
  /** Descriptors that share the device, for several workers. Default 1. Only a TUN can have more. */
  readonly queues?: number;
  /** Packets that wait for the process before the kernel drops (TUN). Default 1000. */
  readonly queueLength?: number;
  /** Bytes that wait for the process before the kernel drops (packet socket). Default 32 MiB. */
  readonly receiveBufferBytes?: number;
  /** Default true. A packet socket always has it. */
  readonly offload?: boolean;
}

/** An open device. Its descriptors belong to whoever opened it. */
export interface PacketDevice {
  /** The first queue. */
  readonly fd: Fd;
  readonly queues: readonly Fd[];
  /** Name and index of the link in its namespace: what routes and addresses refer to. */
  readonly name: string;
  readonly index: number;
  readonly kind: PacketDeviceKind;
  /** Bytes in front of the IP packet in a frame: 10 or 24. */
  readonly headerBytes: number;
  readonly mtu: number;
  readonly offload: DeviceOffload;
  /** The twelve bytes of link addresses in front of each packet, as three big-endian words; 0 for a TUN. */
  readonly ethernet0: number;
  readonly ethernet1: number;
  readonly ethernet2: number;
}

/**
 * Arena offset (or any offset) at which a frame begins whose packet begins at `packetOffset`: where to read
 * to.
 */
export function frameOffsetOfPacket(packetOffset: number, device: PacketDevice): number {
  return packetOffset - device.headerBytes;
}

/** The inverse of `frameOffsetOfPacket`. */
export function packetOffsetOfFrame(frameOffset: number, device: PacketDevice): number {
  return frameOffset + device.headerBytes;
}

/** Offset of csum_start in the virtio header; little-endian, as hdr_len at 2. */
const VIRTIO_HEADER_LENGTH = 2;
const VIRTIO_CHECKSUM_START = 6;
const VIRTIO_NEEDS_CHECKSUM = 1;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;

/**
 * Makes the frame of a canonical packet in place, just before `write`: the packet begins at `packetOffset`
 * and its virtio header 10 bytes earlier. Writes up to `DEVICE_HEADROOM` bytes before the packet; after it
 * the canonical header is gone. The frame has `length + device.headerBytes` bytes.
 *
 * @returns the offset at which the frame begins.
 */
export function framePacketForDevice(
  view: DataView,
  packetOffset: number,
  length: number,
  device: PacketDevice,
): number {
  assert(length > 0 && packetOffset >= device.headerBytes);
  const frame = packetOffset - device.headerBytes;
  if (device.headerBytes === VIRTIO_BYTES) return frame;
  const virtio = packetOffset - VIRTIO_BYTES;
  const flags = view.getUint8(virtio);
  const headerLength = view.getUint16(virtio + VIRTIO_HEADER_LENGTH, true);
  const checksumStart = view.getUint16(virtio + VIRTIO_CHECKSUM_START, true);
  view.setUint16(frame, view.getUint16(virtio));
  view.setUint16(frame + 2, headerLength === 0 ? 0 : headerLength + ETHERNET_BYTES, true);
  view.setUint16(frame + 4, view.getUint16(virtio + 4));
  view.setUint16(frame + 6, flags & VIRTIO_NEEDS_CHECKSUM ? checksumStart + ETHERNET_BYTES : 0, true);
  view.setUint16(frame + 8, view.getUint16(virtio + 8));
  const ethernet = frame + VIRTIO_BYTES;
  view.setUint32(ethernet, device.ethernet0);
  view.setUint32(ethernet + 4, device.ethernet1);
  view.setUint32(ethernet + 8, device.ethernet2);
  const version = view.getUint8(packetOffset) >>> 4;
  view.setUint16(ethernet + 12, version === 6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4);
  return frame;
}

/**
 * Makes a frame canonical in place, just after `read`: afterwards the packet begins at `packetOffsetOfFrame`
 * and its virtio header 10 bytes earlier.
 *
 * @returns the packet's length in bytes, or −1 when the frame holds no IP packet.
 */
export function unframePacketFromDevice(
  view: DataView,
  frameOffset: number,
  frameLength: number,
  device: PacketDevice,
): number {
  const length = frameLength - device.headerBytes;
  if (length <= 0) return -1;
  if (device.headerBytes === VIRTIO_BYTES) return length;
  const type = view.getUint16(frameOffset + VIRTIO_BYTES + 12);
  if (type !== ETHERTYPE_IPV4 && type !== ETHERTYPE_IPV6) return -1;
  const virtio = frameOffset + ETHERNET_BYTES;
  const flags = view.getUint8(frameOffset);
  const headerLength = view.getUint16(frameOffset + VIRTIO_HEADER_LENGTH, true);
  const checksumStart = view.getUint16(frameOffset + VIRTIO_CHECKSUM_START, true);
  view.setUint16(virtio + 8, view.getUint16(frameOffset + 8));
  view.setUint16(virtio + 6, flags & VIRTIO_NEEDS_CHECKSUM ? checksumStart - ETHERNET_BYTES : 0, true);
  view.setUint16(virtio + 4, view.getUint16(frameOffset + 4));
  view.setUint16(virtio + 2, headerLength < ETHERNET_BYTES ? 0 : headerLength - ETHERNET_BYTES, true);
  view.setUint16(virtio, view.getUint16(frameOffset));
  return length;
}

/**
 * Opens a device in the network namespace in which this thread is, and brings its link up. No address and no
 * route is set. @throws RAMP_DEVICE, RAMP_NO_DESCRIPTORS
 */
export function openPacketDevice(options: PacketDeviceOptions = {}): PacketDevice {
  const name = options.name ?? 'p0';
  const mtu = options.mtu ?? 65535;
  if (!/^[A-Za-z0-9_-]{1,13}$/.test(name)) {
    throw new RampartError(
      'RAMP_DEVICE',
      `"${name}" is no device name; use 1 to 13 letters, digits, - and _`,
    );
  }
  if (!(mtu >= 1280 && mtu <= 65535)) {
    throw new RampartError('RAMP_DEVICE', `mtu ${mtu} of ${name} is not between 1280 and 65535`);
  }
  const kind = options.kind ?? 'auto';
  if (kind !== 'packet-socket') {
    const fd = openPath(TUN_PATH, O_RDWR);
    if (fd >= 0) return openTun(fd, name, mtu, options);
    if (kind === 'tun' || !TUN_IS_MISSING.has(-fd)) {
      throw systemError('RAMP_DEVICE', `opening ${TUN_PATH} for ${name}`, fd);
    }
  }
  if ((options.queues ?? 1) > 1) {
    throw new RampartError('RAMP_DEVICE', `${name} cannot have several queues without ${TUN_PATH}`);
  }
  return openVeth(name, mtu, options);
}

/**
 * Deletes the link and closes the descriptors. The thread must be in the device's namespace. Closing a TUN
 * takes about 20 ms.
 */
export function closePacketDevice(device: PacketDevice): void {
  if (device.kind === 'packet-socket') {
    withRouteSocket((route) => {
      if (route.findLink(device.name) !== null) route.deleteLink(device.index);
    });
  }
  for (const fd of device.queues) closeDescriptor(fd);
}

const TUN_PATH = '/dev/net/tun';
const O_RDWR = 2;
/** Reasons of open(2) that mean "this machine has no TUN for us". */
const TUN_IS_MISSING: ReadonlySet<number> = new Set<number>([
  Errno.ENOENT,
  Errno.EACCES,
  Errno.EPERM,
  Errno.ENODEV,
  6, // ENXIO: the device node is there and the kernel module is not
]);

const TUNSETIFF = 0x4004_54ca;
const TUNSETOFFLOAD = 0x4004_54d0;
const TUNSETVNETHDRSZ = 0x4004_54d8;
const IFF_TUN = 1;
const IFF_MULTI_QUEUE = 0x100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** Checksum, TSO for IPv4 and IPv6, TSO with ECN. */
const OFFLOAD_TCP = 1 | 2 | 4 | 8;
/** UDP segmentation for IPv4 and IPv6. */
const OFFLOAD_UDP = 0x20 | 0x40;

function openTun(first: Fd, name: string, mtu: number, options: PacketDeviceOptions): PacketDevice {
  const count = options.queues ?? 1;
  assert(count >= 1 && count <= 256);
  const queues: Fd[] = [first];
  try {
    while (queues.length < count) {
      const fd = openPath(TUN_PATH, O_RDWR);
      if (fd < 0) throw systemError('RAMP_DEVICE', `opening queue ${queues.length} of ${name}`, fd);
      queues.push(fd);
    }
    let udp = false;
    for (const fd of queues) udp = attachTun(fd, name, count > 1, options.offload ?? true);
    const index = withRouteSocket((route) => {
      const link = route.linkIndex(name);
      bringUp(route, link, mtu, options);
      return link;
    });
    return Object.freeze({
      fd: first,
      queues: Object.freeze(queues),
      name,
      index,
      kind: 'tun',
      headerBytes: VIRTIO_BYTES,
      mtu,
      offload: Object.freeze({ segmentation: options.offload ?? true, udpSegmentation: udp }),
      ethernet0: 0,
      ethernet1: 0,
      ethernet2: 0,
    });
  } catch (error) {
    for (const fd of queues) closeDescriptor(fd);
    throw error;
  }
}

/** Attaches one queue; true when the kernel takes UDP segmentation. */
function attachTun(fd: Fd, name: string, multiQueue: boolean, offload: boolean): boolean {
  // struct ifreq: 16 bytes of name, then the flags.
  const request = new Uint8Array(40);
  request.set(Buffer.from(name, 'latin1'));
  const flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | (multiQueue ? IFF_MULTI_QUEUE : 0);
  request[16] = flags & 0xff;
  request[17] = flags >>> 8;
  check(`making the TUN device ${name}`, controlStruct(fd, TUNSETIFF, request));
  const size = Uint8Array.of(VIRTIO_BYTES, 0, 0, 0);
  check(`setting the header size of ${name}`, controlStruct(fd, TUNSETVNETHDRSZ, size));
  if (!offload) return false;
  if (controlNumber(fd, TUNSETOFFLOAD, OFFLOAD_TCP | OFFLOAD_UDP) >= 0) return true;
  check(`turning on offload of ${name}`, controlNumber(fd, TUNSETOFFLOAD, OFFLOAD_TCP));
  return false;
}

const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SOL_PACKET = 263;
const PACKET_VNET_HDR = 15;
const PACKET_IGNORE_OUTGOING = 23;
const ETH_P_ALL = 3;
const BUFFER_BYTES = 32 << 20;

/**
 * Link addresses, locally administered. They differ so that what the kernel sends (to its own address, as a
 * link without ARP does) is for "another host" at the process's end, whose stack then leaves it alone.
 */
const KERNEL_ADDRESS = Uint8Array.of(2, 0x52, 0x50, 0, 0, 1);
const PROCESS_ADDRESS = Uint8Array.of(2, 0x52, 0x50, 0, 0, 2);

function openVeth(name: string, mtu: number, options: PacketDeviceOptions): PacketDevice {
  const peerName = `${name}-x`;
  return withRouteSocket((route) => {
    const addresses = { address: KERNEL_ADDRESS, peerAddress: PROCESS_ADDRESS };
    route.createVeth({ name, peerName, mtu, ...addresses });
    const index = route.linkIndex(name);
    let fd = -1;
    try {
      const peer = route.linkIndex(peerName);
      disableIpv6(peerName);
      bringUp(route, peer, mtu, options);
      fd = openPacketSocket(peerName, peer, options);
      bringUp(route, index, mtu, options);
    } catch (error) {
      if (fd >= 0) closeDescriptor(fd);
      route.deleteLink(index);
      throw error;
    }
    const header = new DataView(Uint8Array.of(...KERNEL_ADDRESS, ...PROCESS_ADDRESS).buffer);
    return Object.freeze({
      fd,
      queues: Object.freeze([fd]),
      name,
      index,
      kind: 'packet-socket',
      headerBytes: VIRTIO_BYTES + ETHERNET_BYTES,
      mtu,
      offload: Object.freeze({ segmentation: true, udpSegmentation: true }),
      ethernet0: header.getUint32(0),
      ethernet1: header.getUint32(4),
      ethernet2: header.getUint32(8),
    });
  });
}

function openPacketSocket(name: string, index: number, options: PacketDeviceOptions): Fd {
  // Protocol 0 receives nothing until it is bound, so no frame comes without the header.
  const fd = check(`opening a packet socket for ${name}`, openSocket(AF_PACKET, SOCK_RAW, 0));
  try {
    const bytes = options.receiveBufferBytes ?? BUFFER_BYTES;
    check(`asking ${name} for virtio headers`, setIntegerOption(fd, SOL_PACKET, PACKET_VNET_HDR, 1));
    check(`muting own frames on ${name}`, setIntegerOption(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1));
    // Beyond the system's limits (net.core.rmem_max) only with privilege in the machine's own namespace.
    if (setIntegerOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, bytes) < 0) {
      check(`sizing the queue of ${name}`, setIntegerOption(fd, SOL_SOCKET, SO_RCVBUF, bytes));
    }
    if (setIntegerOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, bytes) < 0) {
      check(`sizing the queue of ${name}`, setIntegerOption(fd, SOL_SOCKET, SO_SNDBUF, bytes));
    }
    // struct sockaddr_ll: family, protocol (network order), index; the rest is not looked at.
    const address = new Uint8Array(20);
    const view = new DataView(address.buffer);
    view.setUint16(0, AF_PACKET, true);
    view.setUint16(2, ETH_P_ALL);
    view.setInt32(4, index, true);
    check(`binding to ${name}`, bindSocket(fd, address));
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/** Sets size and queue and brings a link up, without neighbour discovery and automatic addresses. */
function bringUp(route: RouteSocket, index: number, mtu: number, options: PacketDeviceOptions): void {
  try {
    route.changeLink(index, { noAutomaticAddress: true });
  } catch {
    // A kernel without IPv6 has no automatic addresses either.
  }
  const queueLength = options.queueLength ?? 1000;
  route.changeLink(index, { mtu, queueLength, noArp: true, up: true });
}

/**
 * The process's end must not speak by itself. Without a writable /proc it still has no address, which is
 * nearly as good.
 */
function disableIpv6(name: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1');
  } catch {
    // A read-only /proc/sys, or no IPv6.
  }
}

function withRouteSocket<T>(use: (route: RouteSocket) => T): T {
  const route = new RouteSocket();
  try {
    return use(route);
  } finally {
    route.close();
  }
}

/** Passes a result ≥ 0 on. */
function check(what: string, result: number): number {
  if (result < 0) throw systemError('RAMP_DEVICE', what, result);
  return result;
}
