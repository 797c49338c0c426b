import type { SlotPool } from '#io/arena.ts';
import type { Io } from '#io/io.ts';
import type { LayeredIo } from '#io/layered.ts';
import { encryptedBytesMax } from '#protocol/tls/tls-session.ts';

import type { TlsStream } from './tls-stream.ts';

/** Plaintext that is encrypted at once: a slot of `Worker.streams`, so that one send stays one send. */
export const PLAIN_BYTES_MAX = 32_768;
/** A slot of what goes out: the plaintext and the overhead of its records, in whole cache lines. */
export const RECORD_SLOT_BYTES = Math.ceil(encryptedBytesMax(PLAIN_BYTES_MAX) / 1024) * 1024;

/** How long a stream that found no slot waits for one. */
const STARVED_MS = 5;

/** What the TLS streams of one worker share. */
export class TlsHub {
  /** The engine by which all others see the streams. */
  readonly layers: LayeredIo;
  /** The engine below it. */
  readonly io: Io;
  /** Slots for ciphertext that came. */
  readonly streams: SlotPool;
  /** Slots for ciphertext that goes out. */
  readonly records: SlotPool;
  /** Longest handshake, milliseconds. */
  readonly handshakeMs: number;
  readonly open = new Set<TlsStream>();
  #ready: TlsStream[] = [];

  constructor(layers: LayeredIo, options: { streams: SlotPool; recordSlots: number; handshakeMs: number }) {
    this.layers = layers;
    this.io = layers.below;
    this.streams = options.streams;
    this.records = layers.arena.pool(RECORD_SLOT_BYTES, options.recordSlots);
    this.handshakeMs = options.handshakeMs;
  }

  /** Calls `stream.onTurn` after the calls that run now have returned. */
  runLater(stream: TlsStream): void {
    this.#ready.push(stream);
    if (this.#ready.length === 1) setImmediate(this.#run);
  }

  /** Calls `stream.onTurn` when slots may have come back. */
  runWithSlots(stream: TlsStream): void {
    setTimeout(() => stream.onTurn(), STARVED_MS);
  }

  /** Ends all streams at once. */
  closeAll(): void {
    for (const stream of [...this.open]) stream.destroy();
  }

  readonly #run = (): void => {
    const ready = this.#ready;
    this.#ready = [];
    for (const stream of ready) stream.onTurn();
  };
}
