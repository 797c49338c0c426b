import { DropReason } from '#base/drop-reason.ts';
import { formatIp, parseIp, type SocketAddress, unmapIp } from '#base/ip.ts';
import type { Endpoint, Target } from '#contract/context.ts';
import { CloseReason } from '#contract/record.ts';
import { type Completion, type Fd, PollMask } from '#io/io.ts';
import {
  layoutMessage,
  MESSAGE_BYTES,
  messageNameLength,
  setMessageNameLength,
  setVector,
  VECTOR_BYTES,
} from '#io/message.ts';
import { readSocketAddress, SOCKADDR_BYTES, writeSocketAddress } from '#io/socket-address.ts';
import { PACKET_HEADROOM } from '#packet/virtio-header.ts';
import {
  parseSocksDatagram,
  SOCKS_DATAGRAM_HEADER_MAX,
  SocksReply,
  writeSocksDatagramHeader,
  writeSocksReply,
} from '#protocol/socks/socks.ts';
import type { InboundStream, Session, SessionClient, Worker } from '#proxy/proxy-contract.ts';

import { socketEndpoint } from './endpoint.ts';
import { sendNow } from './send-now.ts';
import type { SocksServer } from './socks-server.ts';
import { recordUnopened } from './stream-record.ts';

const TAG_CONTROL = 0;
const TAG_READABLE = 1;

/** Targets of one association at one time: each holds a descriptor. */
const TARGETS_MAX = 256;
/** Datagrams read before others have their turn. */
const READ_BATCH = 32;

/**
 * One message header for all associations of an engine: calls that answer at once need it only during the
 * call.
 */
interface Scratch {
  readonly message: number;
  readonly vector: number;
  readonly name: number;
}

const SCRATCHES = new WeakMap<object, Scratch>();

function scratchOf(worker: Worker): Scratch {
  const { arena } = worker.io;
  let scratch = SCRATCHES.get(arena);
  if (scratch === undefined) {
    const message = arena.reserve(MESSAGE_BYTES + VECTOR_BYTES + SOCKADDR_BYTES);
    scratch = { message, vector: message + MESSAGE_BYTES, name: message + MESSAGE_BYTES + VECTOR_BYTES };
    SCRATCHES.set(arena, scratch);
  }
  layoutMessage(arena, scratch.message, {
    name: scratch.name,
    nameLength: SOCKADDR_BYTES,
    vectors: scratch.vector,
    vectorCount: 1,
    control: 0,
    controlLength: 0,
  });
  return scratch;
}

/**
 * A UDP association: datagrams of one client, each with the address of its target, over a socket of its own.
 * It lives as long as the TCP connection that asked for it (RFC 1928 section 7). Datagrams of anybody else
 * are dropped, and fragments, which nobody sends.
 */
export class SocksAssociation implements Completion {
  readonly worker: Worker;
  readonly #server: SocksServer;
  readonly #stream: InboundStream;
  readonly #fd: Fd;
  readonly #startedAt = Date.now();
  readonly #targets = new Map<string, AssociationTarget>();
  /** Where the client sends from: its address, and the port of its request or of its first datagram. */
  readonly #clientAddress: string;
  #clientPort: number;
  #client: SocketAddress | null = null;
  #closed = false;

  /** @throws RampartError when no socket can be opened. */
  constructor(server: SocksServer, stream: InboundStream, announced: Target) {
    const { io } = server.worker;
    this.worker = server.worker;
    this.#server = server;
    this.#stream = stream;
    this.#clientAddress = socketEndpoint(io.remoteAddress(stream.fd)).address;
    this.#clientPort = announced.port;
    const local = io.localAddress(stream.fd);
    const family = local.family === 'unix' ? 4 : local.family;
    const address = local.family === 'unix' ? '127.0.0.1' : local.address;
    this.#fd = io.socket(family === 4 ? 'udp4' : 'udp6');
    try {
      io.bind(this.#fd, { family, address, port: 0 });
    } catch (error) {
      io.close(this.#fd);
      throw error;
    }
  }

  /** Tells the client where to send to, and starts. */
  begin(): void {
    const { io } = this.worker;
    const bound = socketEndpoint(io.localAddress(this.#fd));
    const reply = writeSocksReply(SocksReply.Succeeded, { host: bound.address, port: bound.port });
    if (!sendNow(this.worker, this.#stream.fd, reply)) {
      this.#end(CloseReason.ClientError);
      return;
    }
    this.#readControl();
    io.poll(this.#fd, PollMask.In, false, this, TAG_READABLE);
  }

  /** Ends it from outside. */
  abort(): void {
    this.#end(CloseReason.Shutdown);
  }

  onCompletion(tag: number, result: number, flags: number): void {
    if (tag === TAG_CONTROL) this.#onControl(result, flags);
    else if (!this.#closed) this.#onReadable();
  }

  /**
   * @internal Sends a datagram of `target` to the client; takes its slot, which has room before the payload.
   */
  reply(target: AssociationTarget, payload: number, length: number): void {
    const { io, packets, stats } = this.worker;
    if (this.#client !== null && !this.#closed) {
      const { header } = target;
      // A long name does not fit into the room before the payload: then the payload moves.
      const from = header.length <= PACKET_HEADROOM ? payload : payload + SOCKS_DATAGRAM_HEADER_MAX;
      if (from !== payload) io.arena.bytes.copyWithin(from, payload, payload + length);
      const at = from - header.length;
      io.arena.bytes.set(header, at);
      const scratch = scratchOf(this.worker);
      const nameLength = writeSocketAddress(io.arena.view, scratch.name, this.#client);
      setMessageNameLength(io.arena.view, scratch.message, nameLength);
      setVector(io.arena, scratch.vector, at, header.length + length);
      const sent = io.trySendmsg(this.#fd, scratch.message, 0);
      if (sent < 0) stats.drops[DropReason.SendFailed] = (stats.drops[DropReason.SendFailed] as number) + 1;
    }
    packets.release(payload);
  }

  /** @internal The session of a target is over. */
  forget(target: AssociationTarget): void {
    if (this.#targets.get(target.key) === target) this.#targets.delete(target.key);
  }

  /** Nothing more is expected on the TCP connection but its end. */
  #readControl(): void {
    this.worker.io.recvPooled(this.#stream.fd, this.worker.streams, this, TAG_CONTROL);
  }

  #onControl(result: number, flags: number): void {
    const { streams } = this.worker;
    if (result > 0) streams.release(streams.offsetOf(flags >>> 16));
    if (this.#closed) return;
    if (result > 0) this.#readControl();
    else this.#end(result === 0 ? CloseReason.ClientClosed : CloseReason.ClientError);
  }

  #onReadable(): void {
    const { io, packets } = this.worker;
    const { arena } = io;
    for (let i = 0; i < READ_BATCH && !this.#closed; i++) {
      const slot = packets.acquire();
      if (slot < 0) {
        this.#drop(DropReason.NoBuffer);
        break;
      }
      const scratch = scratchOf(this.worker);
      setVector(arena, scratch.vector, slot, packets.slotBytes);
      const length = io.tryRecvmsg(this.#fd, scratch.message, 0);
      if (length >= 0) {
        const nameLength = messageNameLength(arena.view, scratch.message);
        this.#onDatagram(readSocketAddress(arena.view, scratch.name, nameLength), slot, length);
      }
      packets.release(slot);
      if (length < 0) break;
    }
    if (!this.#closed) io.poll(this.#fd, PollMask.In, false, this, TAG_READABLE);
  }

  #onDatagram(from: SocketAddress, at: number, length: number): void {
    if (!this.#isClient(from)) {
      this.#drop(DropReason.SpoofedSource);
      return;
    }
    const header = parseSocksDatagram(this.worker.io.arena.bytes, at, length);
    if (typeof header === 'number' || header.fragment !== 0) {
      this.#drop(DropReason.BadEncapsulation);
      return;
    }
    this.#client = from;
    const session = this.#sessionTo(header.target);
    session?.send(at + header.length, length - header.length);
  }

  /** Only the host that asked may send; its first datagram fixes the port where the request left it open. */
  #isClient(from: SocketAddress): boolean {
    if (from.family === 'unix') return false;
    const address = formatIp(unmapIp(parseIp(from.address) as Uint8Array));
    if (address !== this.#clientAddress && this.#clientAddress !== 'unix') return false;
    if (this.#clientPort === 0) this.#clientPort = from.port;
    return this.#clientPort === from.port;
  }

  #sessionTo(target: Target): Session | null {
    const key = `${target.host} ${target.port}`;
    const known = this.#targets.get(key);
    if (known !== undefined) return known.session;
    if (this.#targets.size >= TARGETS_MAX) {
      this.#drop(DropReason.AccountFlowLimit);
      return null;
    }
    const { options } = this.#server;
    const { context, network, source } = this.#stream;
    const destination: Endpoint = { address: target.host, port: target.port };
    const { via, rule } = options.route(context, destination, 'udp');
    const entry = new AssociationTarget(this, key, target);
    const request = { context, network, source: { ...source, port: this.#clientPort }, destination, rule };
    const flow = this.worker.records.nextFlowNumber();
    const opened = options.sessions.open({ ...request, flow, route: via, guard: options.guard }, entry);
    if ('refused' in opened) {
      this.#drop(DropReason.Policy);
      return null;
    }
    entry.session = opened;
    this.#targets.set(key, entry);
    return opened;
  }

  #end(reason: CloseReason): void {
    if (this.#closed) return;
    this.#closed = true;
    const { io } = this.worker;
    for (const target of this.#targets.values()) target.session?.close(reason);
    this.#targets.clear();
    io.close(this.#fd);
    io.close(this.#stream.fd);
    this.#server.over(this);
    const rule = `${this.#stream.rule}: UDP association`;
    recordUnopened(this.worker, this.#stream, { rule, reason, startedAt: this.#startedAt });
  }

  #drop(reason: DropReason): void {
    const { drops } = this.worker.stats;
    drops[reason] = (drops[reason] as number) + 1;
  }
}

/** One target of an association. */
class AssociationTarget implements SessionClient {
  readonly key: string;
  /** Goes before every datagram that comes from it: the address as the client wrote it, a name too. */
  readonly header: Uint8Array;
  session: Session | null = null;
  readonly #association: SocksAssociation;

  constructor(association: SocksAssociation, key: string, target: Target) {
    this.#association = association;
    this.key = key;
    this.header = writeSocksDatagramHeader(target);
  }

  onDatagram(payload: number, length: number): void {
    this.#association.reply(this, payload, length);
  }

  onSessionEnd(): void {
    this.#association.forget(this);
  }
}
