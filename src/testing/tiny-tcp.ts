import { TcpFlag } from '#packet/parse.ts';

import { type PacketPath, type SeenPacket, seen, tcpPacket } from './packets.ts';

/** A segment that is not answered is sent again after so long, milliseconds. */
const REPEAT_MS = 700;

/** Small, so that what is sent fits any tunnel of a test. */
const MSS = 1200;

/**
 * One TCP connection by hand: connects, sends a text of one segment, reads to the end. What is lost is sent
 * again; what comes out of order is not kept, since its sender sends it again too.
 *
 * Unlike a kernel it lets a test have any number of connections with the very same addresses and ports.
 */
export class TinyTcp {
  /** All bytes that came, in order. */
  text = '';
  /** What the first packet for this connection that was not right was, in words; null when there was none. */
  foreign: string | null = null;
  readonly #path: Required<PacketPath>;
  readonly #request: Uint8Array;
  readonly #send: (packet: Uint8Array) => void;
  readonly #done = Promise.withResolvers<string>();
  #sequence: number;
  #acknowledgement = 0;
  #state: 'connecting' | 'asking' | 'reading' | 'closed' = 'connecting';
  #timer: NodeJS.Timeout | undefined;

  constructor(options: {
    readonly path: Required<PacketPath>;
    readonly request: string;
    readonly send: (packet: Uint8Array) => void;
    /** Sequence number of the SYN. */
    readonly sequence: number;
  }) {
    this.#path = options.path;
    this.#request = Buffer.from(options.request, 'latin1');
    this.#send = options.send;
    this.#sequence = options.sequence >>> 0;
  }

  /** Sends the SYN; settles with everything that came when the other side has closed. Rejects on a reset. */
  run(): Promise<string> {
    this.#repeat();
    return this.#done.promise;
  }

  /** Gives it a packet that came for it. */
  take(bytes: Uint8Array): void {
    const packet = seen(bytes);
    const { source, destination, sourcePort, destinationPort } = packet;
    const path = this.#path;
    const isOurs =
      source === path.destination &&
      destination === path.source &&
      sourcePort === path.destinationPort &&
      destinationPort === path.sourcePort;
    if (!isOurs) {
      this.foreign ??= `${source}:${sourcePort} > ${destination}:${destinationPort}`;
      return;
    }
    if (this.#state === 'closed') this.#answerLate(packet);
    else if ((packet.tcpFlags & TcpFlag.Rst) !== 0) this.#end(new Error('the connection was reset'));
    else if (this.#state === 'connecting') this.#onSynAck(packet);
    else this.#onSegment(packet);
  }

  /** Gives up. */
  abort(): void {
    if (this.#state !== 'closed')
      this.#end(new Error(`given up while ${this.#state}: ${this.text.slice(0, 80)}`));
  }

  #onSynAck(packet: SeenPacket): void {
    const wanted = TcpFlag.Syn | TcpFlag.Ack;
    if ((packet.tcpFlags & wanted) !== wanted) return;
    if (packet.acknowledgement !== (this.#sequence + 1) >>> 0) {
      // A number that another connection chose: the strongest sign of a crossing.
      this.foreign ??= `a SYN-ACK acknowledges ${packet.acknowledgement}, not ${(this.#sequence + 1) >>> 0}`;
      return;
    }
    this.#sequence = packet.acknowledgement;
    this.#acknowledgement = (packet.sequence + 1) >>> 0;
    this.#state = 'asking';
    this.#repeat();
  }

  #onSegment(packet: SeenPacket): void {
    const end = (this.#sequence + this.#request.length) >>> 0;
    if (this.#state === 'asking' && packet.acknowledgement === end) {
      this.#sequence = end;
      this.#state = 'reading';
      clearTimeout(this.#timer);
    }
    const { payload } = packet;
    const isFin = (packet.tcpFlags & TcpFlag.Fin) !== 0;
    if (payload.length === 0 && !isFin) return;
    if (packet.sequence === this.#acknowledgement && this.#state === 'reading') {
      this.text += Buffer.from(payload).toString('latin1');
      this.#acknowledgement = (this.#acknowledgement + payload.length + (isFin ? 1 : 0)) >>> 0;
      if (isFin) {
        this.#transmit(TcpFlag.Ack | TcpFlag.Fin);
        this.#sequence = (this.#sequence + 1) >>> 0;
        this.#end(null);
        return;
      }
    }
    this.#transmit(TcpFlag.Ack);
  }

  /** A FIN that comes again has not seen our answer. */
  #answerLate(packet: SeenPacket): void {
    if ((packet.tcpFlags & (TcpFlag.Fin | TcpFlag.Rst)) === TcpFlag.Fin) this.#transmit(TcpFlag.Ack);
  }

  #repeat(): void {
    clearTimeout(this.#timer);
    if (this.#state === 'connecting') this.#transmit(TcpFlag.Syn);
    else if (this.#state === 'asking') this.#transmit(TcpFlag.Ack | TcpFlag.Psh, this.#request);
    else return;
    this.#timer = setTimeout(() => this.#repeat(), REPEAT_MS);
  }

  #transmit(flags: number, payload?: Uint8Array): void {
    this.#send(
      tcpPacket(this.#path, {
        sequence: this.#sequence,
        acknowledgement: this.#acknowledgement,
        flags,
        ...(payload === undefined ? {} : { payload }),
        ...((flags & TcpFlag.Syn) === 0 ? {} : { mss: MSS }),
      }),
    );
  }

  #end(error: Error | null): void {
    this.#state = 'closed';
    clearTimeout(this.#timer);
    if (error === null) this.#done.resolve(this.text);
    else this.#done.reject(error);
  }
}
