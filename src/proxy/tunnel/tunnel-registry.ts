/**
 * The tunnels of one worker by their index, with the figures of each. An index is a small integer that flow
 * entries keep; it is given to another tunnel as late as possible (first freed, first reused) and only
 * after `onTunnelClosed` has ended every flow that names it.
 */
import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';
import type { Fd } from '#io/io.ts';
import type { IpTunnel } from '#proxy/proxy-contract.ts';

/** Columns of a tunnel's figures. */
export const TunnelFigure = Object.freeze({
  PacketsIn: 0,
  BytesIn: 1,
  PacketsOut: 2,
  BytesOut: 3,
  /** Packets that came and were dropped by the tunnel itself: too long, no buffer, not admitted. */
  DropsIn: 4,
  /** Packets that were to be sent and were not: queue full, write error. */
  DropsOut: 5,
} as const);

/** Number of figures per tunnel; one cache line of doubles. */
const FIGURES = 8;

/** Most tunnels of one worker; flow entries keep the index in 16 bits. */
export const TUNNELS_MAX = 65535;

/** The figures of one tunnel, for `top` and metrics. */
export interface TunnelFigures {
  readonly packetsIn: number;
  readonly bytesIn: number;
  readonly packetsOut: number;
  readonly bytesOut: number;
  readonly dropsIn: number;
  readonly dropsOut: number;
}

/** What a new process needs to go on with one tunnel. */
export interface TunnelState {
  readonly index: number;
  readonly name: string;
  readonly kind: string;
  /** Handed over beside the state by SCM_RIGHTS; −1 where the tunnel shares another's descriptor. */
  readonly fd: Fd;
  readonly state: unknown;
  readonly figures: TunnelFigures;
}

/** Gives out tunnel indexes and keeps what is known by index. */
export class TunnelRegistry {
  readonly #tunnels: (IpTunnel | null)[] = [null];
  /** Freed indexes, oldest first; `#freedHead` is where the next reuse comes from. */
  #freed: number[] = [];
  #freedHead = 0;
  #count = 0;
  #figures = new Float64Array(64 * FIGURES);

  /**
   * Reserves an index; `attach` must follow. Index 0 is never given out. An adopted tunnel keeps its index,
   * because flows name it; all tunnels are adopted before any new one is reserved.
   * @throws RAMP_LIMIT when there are `TUNNELS_MAX` tunnels.
   */
  reserve(adopted?: TunnelState): number {
    const index = adopted === undefined ? this.#nextIndex() : this.#adoptIndex(adopted.index);
    this.#grow(index);
    const base = index * FIGURES;
    const before = adopted?.figures;
    this.#figures[base + TunnelFigure.PacketsIn] = before?.packetsIn ?? 0;
    this.#figures[base + TunnelFigure.BytesIn] = before?.bytesIn ?? 0;
    this.#figures[base + TunnelFigure.PacketsOut] = before?.packetsOut ?? 0;
    this.#figures[base + TunnelFigure.BytesOut] = before?.bytesOut ?? 0;
    this.#figures[base + TunnelFigure.DropsIn] = before?.dropsIn ?? 0;
    this.#figures[base + TunnelFigure.DropsOut] = before?.dropsOut ?? 0;
    this.#count++;
    return index;
  }

  /** The tunnel can be found from here on. */
  attach(tunnel: IpTunnel): void {
    assert(this.#tunnels[tunnel.index] === null, 'tunnel index in use');
    this.#tunnels[tunnel.index] = tunnel;
  }

  /** Frees a reserved index, attached or not. Every flow that names it must be gone. */
  release(index: number): void {
    assert(index > 0 && index < this.#tunnels.length);
    this.#tunnels[index] = null;
    this.#freed.push(index);
    this.#count--;
  }

  /** The open tunnel of that index, null when it is gone. */
  get(index: number): IpTunnel | null {
    return this.#tunnels[index] ?? null;
  }

  /** Counts a packet that came in. */
  countIn(index: number, bytes: number): void {
    const base = index * FIGURES;
    const figures = this.#figures;
    figures[base + TunnelFigure.PacketsIn] = (figures[base + TunnelFigure.PacketsIn] as number) + 1;
    figures[base + TunnelFigure.BytesIn] = (figures[base + TunnelFigure.BytesIn] as number) + bytes;
  }

  /** Counts a packet that went out. */
  countOut(index: number, bytes: number): void {
    const base = index * FIGURES;
    const figures = this.#figures;
    figures[base + TunnelFigure.PacketsOut] = (figures[base + TunnelFigure.PacketsOut] as number) + 1;
    figures[base + TunnelFigure.BytesOut] = (figures[base + TunnelFigure.BytesOut] as number) + bytes;
  }

  /** Counts a drop: `TunnelFigure.DropsIn` or `DropsOut`. */
  countDrop(index: number, figure: 4 | 5): void {
    const at = index * FIGURES + figure;
    this.#figures[at] = (this.#figures[at] as number) + 1;
  }

  figures(index: number): TunnelFigures {
    const base = index * FIGURES;
    const figure = (column: number): number => this.#figures[base + column] as number;
    return {
      packetsIn: figure(TunnelFigure.PacketsIn),
      bytesIn: figure(TunnelFigure.BytesIn),
      packetsOut: figure(TunnelFigure.PacketsOut),
      bytesOut: figure(TunnelFigure.BytesOut),
      dropsIn: figure(TunnelFigure.DropsIn),
      dropsOut: figure(TunnelFigure.DropsOut),
    };
  }

  /** Open tunnels and reserved indexes. */
  get count(): number {
    return this.#count;
  }

  /** All open tunnels, by index. */
  *open(): IterableIterator<IpTunnel> {
    for (const tunnel of this.#tunnels) if (tunnel !== null) yield tunnel;
  }

  /** What a new process needs to go on with every tunnel that can move. */
  describe(): TunnelState[] {
    const states: TunnelState[] = [];
    for (const tunnel of this.open()) {
      const described = tunnel.describe();
      if (described === null) continue;
      const { index, name } = tunnel;
      states.push({ index, name, ...described, figures: this.figures(index) });
    }
    return states;
  }

  #nextIndex(): number {
    const resting = this.#freed.length - this.#freedHead;
    if (resting < REUSE_AFTER && this.#tunnels.length <= TUNNELS_MAX) {
      this.#tunnels.push(null);
      return this.#tunnels.length - 1;
    }
    if (resting === 0) {
      throw new RampartError('RAMP_LIMIT', `a worker can have ${TUNNELS_MAX} tunnels and has them all`);
    }
    const index = this.#freed[this.#freedHead++] as number;
    this.#compact();
    return index;
  }

  #adoptIndex(index: number): number {
    assert(index > 0 && index <= TUNNELS_MAX);
    while (this.#tunnels.length <= index) {
      this.#freed.push(this.#tunnels.length);
      this.#tunnels.push(null);
    }
    const at = this.#freed.indexOf(index, this.#freedHead);
    assert(at >= 0, 'tunnel index adopted twice');
    this.#freed.splice(at, 1);
    return index;
  }

  #grow(index: number): void {
    if ((index + 1) * FIGURES <= this.#figures.length) return;
    let length = this.#figures.length;
    while (length < (index + 1) * FIGURES) length *= 2;
    const larger = new Float64Array(length);
    larger.set(this.#figures);
    this.#figures = larger;
  }

  /** Keeps the queue of freed indexes from growing for ever. */
  #compact(): void {
    if (this.#freedHead < 1024 || this.#freedHead * 2 < this.#freed.length) return;
    this.#freed = this.#freed.slice(this.#freedHead);
    this.#freedHead = 0;
  }
}

/** An index rests until this many others were freed after it, unless there is no fresh one. */
const REUSE_AFTER = 256;
