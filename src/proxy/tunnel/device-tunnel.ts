import { assert } from '#base/assert.ts';
import { DropReason } from '#base/drop-reason.ts';
import type { Context } from '#contract/context.ts';
import type { Fd } from '#io/io.ts';
import type { PacketDevice } from '#io/packet-device.ts';
import type { IpTunnel, NetworkId } from '#proxy/proxy-contract.ts';

import { type Admitted, specOf } from './admission.ts';
import { DevicePort, type DeviceReceiver } from './device-port.ts';
import { countDropIn, type TunnelHost, tunnelClosed, tunnelOpened } from './tunnel-host.ts';
import { TunnelFigure, type TunnelState } from './tunnel-registry.ts';

/** A device as a tunnel. */
export interface DeviceTunnelOptions extends Admitted {
  readonly name: string;
  readonly device: PacketDevice;
  /** Which of the device's queues; the tunnel owns it. Default the first. */
  readonly fd?: Fd;
  /** Bytes of the largest IP packet that is sent. Default the device's MTU. */
  readonly mtu?: number;
  /**
   * Called once after the tunnel is closed, when nothing is under way on the descriptor: closes the device.
   */
  readonly onClosed?: () => void;
}

/**
 * A TUN, or a packet socket on a veth, as an IP tunnel: on-ramp and off-ramp at once. Its context comes
 * from the config, its sources are checked as everybody's. Packets go both ways with their virtio header,
 * so bulk TCP stays in super-packets of up to 64 KiB from end to end.
 */
export class DeviceTunnel implements IpTunnel, DeviceReceiver {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly context: Context;
  readonly network: NetworkId;
  readonly offload: boolean;
  readonly #host: TunnelHost;
  readonly #port: DevicePort;
  readonly #onClosed: (() => void) | undefined;
  #closed = false;

  /**
   * Opens at once: packets come from the next turn of the loop on. `adopted` goes on with another process's
   * tunnel.
   */
  constructor(host: TunnelHost, options: DeviceTunnelOptions, adopted?: TunnelState) {
    const { device, network, context } = options;
    assert(network > 0 && options.name.length > 0);
    this.#host = host;
    this.name = options.name;
    this.mtu = options.mtu ?? device.mtu;
    this.context = context;
    this.network = network;
    this.offload = device.offload.segmentation;
    this.#onClosed = options.onClosed;
    this.index = host.registry.reserve(adopted);
    this.#port = new DevicePort(host.worker, this, { device, fd: options.fd ?? device.fd });
    tunnelOpened(host, this, `${device.kind} ${device.name}, mtu ${this.mtu}`);
    this.#port.start();
  }

  send(offset: number, length: number): DropReason {
    const reason = this.#port.write(offset, length);
    if (reason === DropReason.None) this.#host.registry.countOut(this.index, length);
    else this.#host.registry.countDrop(this.index, TunnelFigure.DropsOut);
    return reason;
  }

  close(): void {
    this.#end('closed');
  }

  describe(): { readonly kind: 'device'; readonly fd: Fd; readonly state: unknown } | null {
    if (this.#closed) return null;
    const { fd, device } = this.#port;
    return { kind: 'device', fd, state: { mtu: this.mtu, context: specOf(this.context), device } };
  }

  onDevicePacket(offset: number, length: number): void {
    this.#host.registry.countIn(this.index, length);
    this.#host.sink.onPacket(this, offset, length);
  }

  onDeviceBatchEnd(): void {
    this.#host.sink.onBatchEnd();
  }

  onDeviceDrop(reason: DropReason): void {
    countDropIn(this.#host, this.index, reason);
  }

  onDeviceFailed(errno: number): void {
    this.#end(`the device failed with errno ${errno}`);
  }

  #end(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#port.stop();
    tunnelClosed(this.#host, this, reason);
    this.#onClosed?.();
  }
}
