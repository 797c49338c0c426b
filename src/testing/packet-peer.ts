/**
 * The far ends of IP tunnels, by hand: SEQPACKET connections and GUE ports whose packets a test makes and
 * reads.
 */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

import { DropReason } from '#base/drop-reason.ts';
import { openEngine } from '#io/engine.ts';
import { type Completion, Errno, type Fd, type Io, PollMask } from '#io/io.ts';
import { GueHeader, makeGueHeader, readGueHeader } from '#protocol/gue/gue.ts';

/** Takes a packet; the bytes are the callee's. */
export type PacketTaker = (packet: Uint8Array) => void;

/** A context as message 0 has it by default. */
export interface PeerContext {
  readonly account: string;
  readonly vnet: string;
  readonly user?: string;
  readonly groups?: readonly string[];
  readonly sources?: readonly string[];
}

const MESSAGE_BYTES_MAX = 70_000;

/** An engine for the connected tunnels of one test, all on one thread. */
export class PeerEngine {
  readonly io: Io;
  readonly #scratch: number;
  readonly #peers = new Set<SeqpacketPeer>();

  constructor() {
    this.io = openEngine({ arenaBytes: 1 << 20 });
    this.#scratch = this.io.arena.reserve(MESSAGE_BYTES_MAX);
  }

  /**
   * Connects to a SEQPACKET on-ramp and sends message 0: a context, or bytes as they are. Rejects with its
   * errno.
   */
  async connect(path: string, context: PeerContext | Uint8Array | null): Promise<SeqpacketPeer> {
    const fd = this.io.socket('unix-seqpacket');
    const result = await new Promise<number>((resolve) => {
      this.io.connect(fd, { family: 'unix', path }, { onCompletion: (_tag, code) => resolve(code) }, 0);
    });
    if (result < 0) {
      this.io.close(fd);
      throw new Error(`connecting to ${path} failed with errno ${-result}`);
    }
    const peer = this.adopt(fd);
    if (context !== null) {
      peer.send(context instanceof Uint8Array ? context : Buffer.from(JSON.stringify(context)));
    }
    return peer;
  }

  /** Listens on a path as an off-ramp's far end does; each connection is given to `onPeer`. */
  listen(path: string, onPeer: (peer: SeqpacketPeer) => void): { close(): void } {
    const listener = this.io.listen({ family: 'unix', path }, { type: 'seqpacket' });
    const completion: Completion = {
      onCompletion: (_tag, result) => {
        if (result >= 0) onPeer(this.adopt(result));
      },
    };
    const operation = this.io.accept(listener, completion, 0);
    return {
      close: () => {
        this.io.cancel(operation);
        this.io.close(listener);
      },
    };
  }

  /** A connected socket as a peer, which owns it. */
  adopt(fd: Fd): SeqpacketPeer {
    const peer = new SeqpacketPeer(this.io, {
      fd,
      scratch: this.#scratch,
      onClosed: () => this.#peers.delete(peer),
    });
    this.#peers.add(peer);
    return peer;
  }

  /** Closes all connections and the engine. */
  stop(): void {
    for (const peer of [...this.#peers]) peer.close();
    this.io.stop();
  }
}

/** One connected tunnel. */
export class SeqpacketPeer implements Completion {
  /** What came while nobody took it. */
  readonly received: Uint8Array[] = [];
  /** Packets are given here when it is set. */
  onPacket: PacketTaker | null = null;
  /** True when the other side has closed, or `close` was called. */
  isClosed = false;
  readonly #io: Io;
  readonly #fd: Fd;
  readonly #scratch: number;
  readonly #onClosed: () => void;
  readonly #poll: number;
  #isPaused = false;

  constructor(io: Io, options: { fd: Fd; scratch: number; onClosed: () => void }) {
    this.#io = io;
    this.#fd = options.fd;
    this.#scratch = options.scratch;
    this.#onClosed = options.onClosed;
    this.#poll = io.poll(this.#fd, PollMask.In, true, this, 0);
  }

  /** Sends one message; false when the queue is full or the connection is gone. */
  send(message: Uint8Array): boolean {
    if (this.isClosed) return false;
    this.#io.arena.bytes.set(message, this.#scratch);
    return this.#io.trySend(this.#fd, this.#scratch, message.length) >= 0;
  }

  /** Reads nothing any more, so that what comes piles up. */
  pause(): void {
    this.#isPaused = true;
  }

  onCompletion(): void {
    while (!this.isClosed && !this.#isPaused) {
      const length = this.#io.tryRecv(this.#fd, this.#scratch, MESSAGE_BYTES_MAX);
      if (length === -Errno.EAGAIN) return;
      if (length <= 0) {
        this.close();
        return;
      }
      const packet = this.#io.arena.bytes.slice(this.#scratch, this.#scratch + length);
      if (this.onPacket === null) this.received.push(packet);
      else this.onPacket(packet);
    }
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#io.cancel(this.#poll);
    this.#io.close(this.#fd);
    this.#onClosed();
  }
}

/** A UDP port that speaks GUE with any number of contexts. */
export class GuePeer {
  /** Given each packet with the bytes of its context. */
  onPacket: (packet: Uint8Array, context: Uint8Array) => void = () => {};
  readonly #socket: Socket;
  readonly #headers = new Map<string, Uint8Array>();
  readonly #header = new GueHeader();
  /** Where answers go: the last sender, or what `to` was told. */
  #remote: { readonly port: number; readonly address: string } | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('message', (message, remote) => {
      this.#remote = remote;
      this.#take(message);
    });
    socket.on('error', () => {});
  }

  /** Binds to a port of loopback that the kernel chooses. */
  static async open(to?: { readonly port: number; readonly address?: string }): Promise<GuePeer> {
    const socket = createSocket({ type: 'udp4', recvBufferSize: 8 << 20, sendBufferSize: 8 << 20 });
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    const peer = new GuePeer(socket);
    if (to !== undefined) peer.#remote = { port: to.port, address: to.address ?? '127.0.0.1' };
    return peer;
  }

  get port(): number {
    return (this.#socket.address() as AddressInfo).port;
  }

  /** Sends one packet with a context, by its text. */
  send(packet: Uint8Array, context: string): void {
    let header = this.#headers.get(context);
    if (header === undefined) {
      header = makeGueHeader(Buffer.from(context, 'latin1'));
      this.#headers.set(context, header);
    }
    const datagram = Buffer.alloc(header.length + packet.length);
    datagram.set(header);
    datagram[1] = (packet[0] as number) >>> 4 === 4 ? 4 : 41;
    datagram.set(packet, header.length);
    this.sendDatagram(datagram);
  }

  /** Sends a datagram as it is. */
  sendDatagram(datagram: Uint8Array): void {
    if (this.#remote === null) throw new Error('this GUE peer does not know where to send');
    this.#socket.send(datagram, this.#remote.port, this.#remote.address, () => {});
  }

  close(): void {
    this.#socket.close();
  }

  #take(message: Buffer): void {
    const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
    const header = this.#header;
    if (readGueHeader(view, 0, message.length, header) !== DropReason.None) {
      throw new Error(`a datagram that is not GUE came out: ${message.toString('hex')}`);
    }
    const { packetOffset, packetLength, contextOffset, contextLength } = header;
    const context = message.subarray(contextOffset, contextOffset + contextLength);
    this.onPacket(Uint8Array.from(message.subarray(packetOffset, packetOffset + packetLength)), context);
  }
}
