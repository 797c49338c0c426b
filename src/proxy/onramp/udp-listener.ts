import { DropReason } from '#base/drop-reason.ts';
import type { SocketAddress } from '#base/ip.ts';
import type { Context, Endpoint } from '#contract/context.ts';
import { CloseReason } from '#contract/record.ts';
import { DatagramPort, type DatagramOwner } from '#io/datagram.ts';
import type { Fd } from '#io/io.ts';
import { readSocketAddress, SOCKADDR_BYTES } from '#io/socket-address.ts';
import type { NetworkId, Session, SessionClient, SessionOpener, Worker } from '#proxy/proxy-contract.ts';

import { socketEndpoint } from './endpoint.ts';

/** How a listener's datagrams enter. */
export interface UdpListenerOptions {
  readonly name: string;
  readonly listen: SocketAddress & { readonly family: 4 | 6 };
  readonly context: Context;
  readonly network: NetworkId;
  readonly route: string | null;
  readonly rule: string;
  /** A bound descriptor that a previous process handed over. */
  readonly inherited?: Fd;
}

/**
 * Sessions of one listener at one time: each holds a descriptor, and anybody can send from many addresses.
 */
const SESSIONS_MAX = 4096;

/** Takes datagrams of a plain UDP socket; each sender's are a session. */
export class UdpListener implements DatagramOwner {
  readonly name: string;
  readonly #worker: Worker;
  readonly #options: UdpListenerOptions;
  readonly #opener: SessionOpener;
  readonly #port: DatagramPort;
  readonly #local: Endpoint;
  /** By the sender's socket address, as the bytes that the kernel gave. */
  readonly #clients = new Map<string, Client>();
  #closed = false;

  /** @throws RampartError RAMP_LISTEN when the address cannot be bound. */
  constructor(worker: Worker, options: UdpListenerOptions, opener: SessionOpener) {
    this.name = options.name;
    this.#worker = worker;
    this.#options = options;
    this.#opener = opener;
    const fd = options.inherited ?? this.#open();
    this.#local = socketEndpoint(worker.io.localAddress(fd));
    this.#port = new DatagramPort(worker.io, fd, this, { pool: worker.packets });
    this.#port.start();
  }

  get fd(): Fd {
    return this.#port.fd;
  }

  /** Where it is bound; the port is the kernel's choice when the config said 0. */
  get address(): SocketAddress {
    return this.#worker.io.localAddress(this.#port.fd);
  }

  /** Sessions that are open now. */
  get count(): number {
    return this.#clients.size;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const client of [...this.#clients.values()]) client.session?.close(CloseReason.Shutdown);
    this.#clients.clear();
    this.#port.close();
  }

  onDatagram(port: DatagramPort, offset: number, length: number, segmentSize: number): void {
    const { io, packets } = this.#worker;
    const key = Buffer.from(
      io.arena.bytes.buffer as ArrayBuffer,
      io.arena.bytes.byteOffset + port.remote,
      port.remoteLength,
    ).toString('latin1');
    const client = this.#clients.get(key) ?? this.#admit(key, port);
    if (client?.session != null) {
      const size = segmentSize > 0 ? segmentSize : length;
      for (let at = 0; at < length; at += size) {
        client.session.send(offset + at, Math.min(size, length - at));
      }
    }
    packets.release(offset);
  }

  onDatagramError(): void {
    // What the network says about one sender's datagrams is that sender's: its session ends when it is idle.
  }

  /** @internal Sends a datagram back; takes its slot. */
  reply(client: Client, payload: number, length: number): void {
    const { io, packets } = this.#worker;
    if (length === 0 || this.#closed) {
      packets.release(payload);
      return;
    }
    // The address goes into the room before the payload: the port copies it.
    const at = payload - SOCKADDR_BYTES;
    io.arena.bytes.set(client.address, at);
    const reason = this.#port.send(packets, payload, length, 0, at, client.address.length);
    if (reason !== DropReason.None) this.#drop(reason);
  }

  /** @internal The session of a client is over. */
  forget(client: Client): void {
    this.#clients.delete(client.key);
  }

  #admit(key: string, port: DatagramPort): Client | null {
    if (this.#clients.size >= SESSIONS_MAX) {
      this.#drop(DropReason.AccountFlowLimit);
      return null;
    }
    const { io, records } = this.#worker;
    const { context, network, route, rule } = this.#options;
    const address = io.arena.bytes.slice(port.remote, port.remote + port.remoteLength);
    const source = socketEndpoint(readSocketAddress(io.arena.view, port.remote, port.remoteLength));
    const client = new Client(this, key, address);
    const request = { context, network, source, destination: this.#local, route, rule };
    const session = this.#opener.open({ ...request, flow: records.nextFlowNumber() }, client);
    if ('refused' in session) {
      this.#drop(DropReason.Policy);
      return null;
    }
    client.session = session;
    this.#clients.set(key, client);
    return client;
  }

  #open(): Fd {
    const { io } = this.#worker;
    const { listen } = this.#options;
    const fd = io.socket(listen.family === 4 ? 'udp4' : 'udp6');
    try {
      io.bind(fd, listen);
    } catch (error) {
      io.close(fd);
      throw error;
    }
    return fd;
  }

  #drop(reason: DropReason): void {
    const { drops } = this.#worker.stats;
    drops[reason] = (drops[reason] as number) + 1;
  }
}

/** One sender. */
class Client implements SessionClient {
  readonly key: string;
  /** struct sockaddr. */
  readonly address: Uint8Array;
  session: Session | null = null;
  readonly #listener: UdpListener;

  constructor(listener: UdpListener, key: string, address: Uint8Array) {
    this.#listener = listener;
    this.key = key;
    this.address = address;
  }

  onDatagram(payload: number, length: number): void {
    this.#listener.reply(this, payload, length);
  }

  onSessionEnd(): void {
    this.#listener.forget(this);
  }
}
