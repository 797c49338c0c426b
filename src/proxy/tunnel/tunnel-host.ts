/** What every tunnel is given, and what each does when it opens, closes and drops. */
import type { DropReason } from '#base/drop-reason.ts';
import type { IpTunnel, PacketSink, Worker } from '#proxy/proxy-contract.ts';

import { Counter } from '#proxy/stats.ts';

import type { Admission } from './admission.ts';
import { TunnelFigure, type TunnelRegistry } from './tunnel-registry.ts';

/** What every tunnel is given. */
export interface TunnelHost {
  readonly worker: Worker;
  /** Takes the packets; the flow pipeline. */
  readonly sink: PacketSink;
  readonly registry: TunnelRegistry;
  /** Makes contexts of blobs. */
  readonly admission: Admission;
  /** One line for the log, a few per tunnel's life and never per packet. */
  readonly log: (event: TunnelEvent) => void;
  /** A tunnel is open, after it can be found; and is gone, after its flows have ended. */
  readonly onOpened?: (tunnel: IpTunnel) => void;
  readonly onClosed?: (tunnel: IpTunnel) => void;
}

/** What a tunnel tells the log. */
export interface TunnelEvent {
  readonly event: 'opened' | 'closed' | 'refused' | 'listening' | 'failed';
  /** The tunnel's or its listener's name. */
  readonly tunnel: string;
  /** For a person: why, from whom. Outside text is quoted and shortened. */
  readonly text: string;
}

/** Makes a tunnel known, counts and logs it. */
export function tunnelOpened(host: TunnelHost, tunnel: IpTunnel, text: string): void {
  host.registry.attach(tunnel);
  const { counters } = host.worker.stats;
  counters[Counter.TunnelsOpened] = (counters[Counter.TunnelsOpened] as number) + 1;
  host.log({ event: 'opened', tunnel: tunnel.name, text });
  host.onOpened?.(tunnel);
}

/** Ends a tunnel's flows, then frees its index. Called once per opened tunnel. */
export function tunnelClosed(host: TunnelHost, tunnel: IpTunnel, text: string): void {
  host.sink.onTunnelClosed(tunnel);
  host.onClosed?.(tunnel);
  host.registry.release(tunnel.index);
  const { counters } = host.worker.stats;
  counters[Counter.TunnelsClosed] = (counters[Counter.TunnelsClosed] as number) + 1;
  host.log({ event: 'closed', tunnel: tunnel.name, text });
}

/** Counts and logs a tunnel that was not let in. */
export function tunnelRefused(host: TunnelHost, name: string, text: string): void {
  const { counters } = host.worker.stats;
  counters[Counter.TunnelsRefused] = (counters[Counter.TunnelsRefused] as number) + 1;
  host.log({ event: 'refused', tunnel: name, text });
}

/** Counts a packet that came and that the tunnel itself dropped. */
export function countDropIn(host: TunnelHost, index: number, reason: DropReason): void {
  countDrop(host, reason);
  host.registry.countDrop(index, TunnelFigure.DropsIn);
}

/** Counts a drop that no tunnel's figures can show. */
export function countDrop(host: TunnelHost, reason: DropReason): void {
  const { drops } = host.worker.stats;
  drops[reason] = (drops[reason] as number) + 1;
}
