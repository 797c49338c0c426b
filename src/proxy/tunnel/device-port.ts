/**
 * Moves packets between a packet device (TUN, or packet socket on a veth) and slots in canonical form. The
 * device tunnel and the stack's own device are both read and written by this.
 */
import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';
import { Errno, type Fd } from '#io/io.ts';
import {
  frameOffsetOfPacket,
  framePacketForDevice,
  type PacketDevice,
  unframePacketFromDevice,
} from '#io/packet-device.ts';
import { PACKET_HEADROOM, PACKET_LENGTH_MAX } from '#packet/virtio-header.ts';
import type { Worker } from '#proxy/proxy-contract.ts';

import { READ_BATCH, ReadLoop, ReadNext, type ReadOwner } from './read-loop.ts';

/** Takes what a device delivers. */
export interface DeviceReceiver {
  /** One packet in canonical form, not parsed yet; ownership of the slot passes. */
  onDevicePacket(offset: number, length: number): void;
  /** After the last packet of a batch. */
  onDeviceBatchEnd(): void;
  /** A frame that was no IP packet, or that the kernel could not hand over. */
  onDeviceDrop(reason: DropReason): void;
  /** The device is gone, nothing will come any more; `errno` is positive. */
  onDeviceFailed(errno: number): void;
}

/** One queue of a device. */
export class DevicePort implements ReadOwner {
  readonly device: PacketDevice;
  readonly fd: Fd;
  readonly #worker: Worker;
  readonly #receiver: DeviceReceiver;
  readonly #loop: ReadLoop;
  readonly #view: DataView;
  #closed = false;

  /** @param options.fd one of `device.queues`; the port does not close it. */
  constructor(worker: Worker, receiver: DeviceReceiver, options: { device: PacketDevice; fd: Fd }) {
    assert(worker.packets.slotBytes >= PACKET_HEADROOM + PACKET_LENGTH_MAX);
    this.device = options.device;
    this.fd = options.fd;
    this.#worker = worker;
    this.#receiver = receiver;
    this.#view = worker.io.arena.view;
    this.#loop = new ReadLoop(worker.io, this);
  }

  /** Begins to read. */
  start(): void {
    this.#loop.start(this.fd);
  }

  /** Stops reading; `write` answers `TunnelClosed` from here on. */
  stop(): void {
    this.#closed = true;
    this.#loop.stop();
  }

  /**
   * Writes one packet in canonical form and takes its slot, whatever the answer. The kernel takes the
   * packet during the call, so nothing is ever under way and a slot is free again at once.
   */
  write(offset: number, length: number): DropReason {
    const { packets, io } = this.#worker;
    if (this.#closed) {
      packets.release(offset);
      return DropReason.TunnelClosed;
    }
    const frame = framePacketForDevice(this.#view, offset, length, this.device);
    const result = io.tryWrite(this.fd, frame, length + this.device.headerBytes);
    packets.release(offset);
    if (result >= 0) return DropReason.None;
    return result === -Errno.EAGAIN || result === -Errno.ENOBUFS
      ? DropReason.QueueFull
      : DropReason.SendFailed;
  }

  onReadable(): ReadNext {
    const { packets, io } = this.#worker;
    const { device } = this;
    let next: ReadNext = ReadNext.Wait;
    for (let count = 0; count < READ_BATCH; count++) {
      const slot = packets.acquire();
      if (slot < 0) {
        next = ReadNext.Pause;
        break;
      }
      const offset = slot + PACKET_HEADROOM;
      const frame = frameOffsetOfPacket(offset, device);
      const result = io.tryRead(this.fd, frame, slot + packets.slotBytes - frame);
      if (result <= 0) {
        packets.release(slot);
        if (result === -Errno.EAGAIN) break;
        if (this.#isPassing(result)) continue;
        next = ReadNext.Stop;
        break;
      }
      const length = unframePacketFromDevice(this.#view, frame, result, device);
      if (length > 0 && length <= PACKET_LENGTH_MAX) {
        this.#receiver.onDevicePacket(offset, length);
        if (this.#closed) break;
      } else {
        packets.release(slot);
        this.#receiver.onDeviceDrop(length <= 0 ? DropReason.BadVersion : DropReason.PacketTooLong);
      }
    }
    this.#receiver.onDeviceBatchEnd();
    return next;
  }

  /** True when only one packet is lost; else tells the receiver that the device is. */
  #isPassing(result: number): boolean {
    // EINVAL: a packet whose offload cannot be put into the virtio header. ENETDOWN: reported once when the
    // link goes down.
    if (result === -Errno.EINVAL || result === -Errno.ENETDOWN || result === -Errno.EINTR) {
      this.#receiver.onDeviceDrop(DropReason.BadSegmentation);
      return true;
    }
    this.#closed = true;
    this.#receiver.onDeviceFailed(result === 0 ? Errno.EIO : -result);
    return false;
  }
}
