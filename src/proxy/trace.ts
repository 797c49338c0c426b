import type { CapturedPacket, TraceWatch, TraceWatcher } from '#contract/agent.ts';
import type { TraceEvent } from '#contract/trace.ts';

import type { CapturePoint, Stats, Tracer } from './proxy-contract.ts';
import { Counter } from './stats.ts';

/** Events kept for watchers that are behind. A power of two. */
const EVENTS_MAX = 4096;

/** Packets kept for watchers that are behind, each at most `CAPTURE_BYTES_MAX`. A power of two. */
const PACKETS_MAX = 1024;

/**
 * Bytes kept of a packet: enough for all headers and the beginning of what follows, whole packets up to an
 * MTU of 2 KiB.
 */
const CAPTURE_BYTES_MAX = 2048;

/** What the hub needs of its worker. */
export interface TraceHubOptions {
  /** The arena that packets lie in. */
  readonly memory: Uint8Array;
  readonly stats: Stats;
  /** Unix milliseconds, with fraction. */
  readonly wallClock: () => number;
}

/**
 * The live trace of one worker. While nobody watches, `enabled` is false and nothing is built. Else events go
 * into a ring, and from there to every watcher, at its own speed, once per turn of the event loop: a slow
 * watcher loses what the ring has overwritten, is told how much, and never holds up a packet.
 */
export class TraceHub implements Tracer {
  readonly #memory: Uint8Array;
  readonly #stats: Stats;
  readonly #wallClock: () => number;
  readonly #events = new Array<TraceEvent | undefined>(EVENTS_MAX);
  readonly #packets = new Array<CapturedPacket | undefined>(PACKETS_MAX);
  /** Events and packets ever put in. */
  #eventCount = 0;
  #packetCount = 0;
  readonly #watches = new Set<Watch>();
  #wantsEvents = false;
  #wantsPackets = false;
  #scheduled: NodeJS.Immediate | null = null;

  constructor(options: TraceHubOptions) {
    this.#memory = options.memory;
    this.#stats = options.stats;
    this.#wallClock = options.wallClock;
  }

  /** Somebody watches events or packets. */
  get enabled(): boolean {
    return this.#wantsEvents || this.#wantsPackets;
  }

  /** Takes an event; without watchers of events it is forgotten. */
  emit(event: TraceEvent): void {
    if (!this.#wantsEvents) return;
    this.#events[this.#eventCount++ & (EVENTS_MAX - 1)] = event;
    this.#schedule();
  }

  /** Copies the packet at arena offset `offset` for those that watch packets. The slot stays the caller's. */
  packet(direction: 'in' | 'out', tunnel: CapturePoint, offset: number, length: number): void {
    if (!this.#wantsPackets) return;
    const bytes = this.#memory.slice(offset, offset + Math.min(length, CAPTURE_BYTES_MAX));
    const at = Math.round(this.#wallClock() * 1000);
    const { account, vnet } = tunnel.context;
    const packet = { at, direction, tunnel: tunnel.name, account, vnet, bytes, length };
    this.#packets[this.#packetCount++ & (PACKETS_MAX - 1)] = packet;
    this.#schedule();
  }

  /** Adds a watcher; it gets what happens from here on. */
  watch(watcher: TraceWatcher): TraceWatch {
    const watch: Watch = {
      watcher,
      event: this.#eventCount,
      packet: this.#packetCount,
      blocked: false,
    };
    this.#watches.add(watch);
    this.#refresh();
    return {
      resume: () => {
        watch.blocked = false;
        this.#schedule();
      },
      stop: () => {
        this.#watches.delete(watch);
        this.#refresh();
      },
    };
  }

  /** Hands over what is waiting at once: before the process ends. */
  flush(): void {
    if (this.#scheduled !== null) clearImmediate(this.#scheduled);
    this.#scheduled = null;
    for (const watch of this.#watches) if (!watch.blocked) this.#deliver(watch);
  }

  #schedule(): void {
    this.#scheduled ??= setImmediate(() => this.flush());
  }

  #refresh(): void {
    this.#wantsEvents = false;
    this.#wantsPackets = false;
    for (const { watcher } of this.#watches) {
      this.#wantsEvents ||= watcher.events;
      this.#wantsPackets ||= watcher.packets;
    }
    if (!this.#wantsEvents) this.#events.fill(undefined);
    if (!this.#wantsPackets) this.#packets.fill(undefined);
  }

  #deliver(watch: Watch): void {
    const { watcher } = watch;
    const events: TraceEvent[] = [];
    const packets: CapturedPacket[] = [];
    let lost = 0;
    if (watcher.events) {
      const first = Math.max(watch.event, this.#eventCount - EVENTS_MAX);
      lost += first - watch.event;
      for (let index = first; index < this.#eventCount; index++) {
        events.push(this.#events[index & (EVENTS_MAX - 1)] as TraceEvent);
      }
    }
    if (watcher.packets) {
      const first = Math.max(watch.packet, this.#packetCount - PACKETS_MAX);
      lost += first - watch.packet;
      for (let index = first; index < this.#packetCount; index++) {
        packets.push(this.#packets[index & (PACKETS_MAX - 1)] as CapturedPacket);
      }
    }
    watch.event = this.#eventCount;
    watch.packet = this.#packetCount;
    if (events.length === 0 && packets.length === 0 && lost === 0) return;
    const { counters } = this.#stats;
    counters[Counter.TraceDropped] = (counters[Counter.TraceDropped] as number) + lost;
    watch.blocked = !watcher.take(events, packets, lost);
  }
}

/** A watcher and how far it is. */
interface Watch {
  readonly watcher: TraceWatcher;
  /** The next event and packet that it gets, counted as the hub counts. */
  event: number;
  packet: number;
  blocked: boolean;
}
