import { DropReason } from '#base/drop-reason.ts';
import type { Context } from '#contract/context.ts';
import { Errno, type Fd } from '#io/io.ts';
import { writeGueHeader } from '#protocol/gue/gue.ts';
import type { IpTunnel, NetworkId } from '#proxy/proxy-contract.ts';

import { type Admitted, specOf } from './admission.ts';
import type { DatagramPeer, GueSocket } from './gue-socket.ts';
import { type TunnelHost, tunnelClosed, tunnelOpened } from './tunnel-host.ts';
import { TunnelFigure, type TunnelState } from './tunnel-registry.ts';

/** One remote with one context. */
export interface GueTunnelOptions extends Admitted {
  readonly name: string;
  readonly mtu: number;
  /** Where its datagrams go. */
  readonly sockaddr: Uint8Array;
  /** From `makeGueHeader`: the context goes back in each datagram as it came. */
  readonly header: Uint8Array;
  /** Called once after the tunnel is closed. */
  readonly onClosed: () => void;
}

/**
 * One remote with one context, as a tunnel: made by `GuePort` when the first datagram of the pair comes, or
 * by the config. There is nothing to open or to close on the wire.
 */
export class GueTunnel implements IpTunnel, DatagramPeer {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly context: Context;
  readonly network: NetworkId;
  readonly offload = false;
  readonly sockaddr: Uint8Array;
  readonly #host: TunnelHost;
  readonly #socket: GueSocket;
  readonly #header: Uint8Array;
  readonly #onClosed: () => void;
  #closed = false;

  constructor(host: TunnelHost, socket: GueSocket, options: GueTunnelOptions, adopted?: TunnelState) {
    this.#host = host;
    this.#socket = socket;
    this.name = options.name;
    this.mtu = options.mtu;
    this.context = options.context;
    this.network = options.network;
    this.sockaddr = options.sockaddr;
    this.#header = options.header;
    this.#onClosed = options.onClosed;
    this.index = host.registry.reserve(adopted);
    const { account, vnet } = options.context;
    tunnelOpened(host, this, `gue of ${account}/${vnet}, mtu ${this.mtu}`);
  }

  send(offset: number, length: number): DropReason {
    const { worker, registry } = this.#host;
    if (this.#closed) {
      worker.packets.release(offset);
      return DropReason.TunnelClosed;
    }
    const datagram = writeGueHeader(worker.io.arena.view, offset, this.#header);
    registry.countOut(this.index, length);
    this.#socket.send(this, datagram, length + this.#header.length);
    worker.packets.release(offset);
    return DropReason.None;
  }

  /** What `send` had counted as sent was not. */
  onUnsent(count: number, errno: number): void {
    const { worker, registry } = this.#host;
    const reason =
      errno === Errno.EAGAIN || errno === Errno.ENOBUFS
        ? DropReason.QueueFull
        : errno === Errno.EMSGSIZE
          ? DropReason.PacketTooLong
          : DropReason.SendFailed;
    const { drops } = worker.stats;
    drops[reason] = (drops[reason] as number) + count;
    for (let i = 0; i < count; i++) registry.countDrop(this.index, TunnelFigure.DropsOut);
  }

  close(): void {
    this.end('closed');
  }

  /** Closes with a reason for the log. */
  end(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.flush();
    tunnelClosed(this.#host, this, reason);
    this.#onClosed();
  }

  describe(): { readonly kind: 'gue'; readonly fd: Fd; readonly state: unknown } | null {
    if (this.#closed) return null;
    const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
    const { mtu, context, sockaddr } = this;
    const state = {
      mtu,
      context: specOf(context),
      sockaddr: base64(sockaddr),
      header: base64(this.#header),
    };
    // The descriptor is the port's, which is handed over once for all its tunnels.
    return { kind: 'gue', fd: -1, state };
  }
}
