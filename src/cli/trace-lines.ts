import type { TraceEvent } from '#contract/trace.ts';

import { paint, printable, type Style, type Terminal } from './terminal.ts';

/** Flows whose beginning is remembered, for relative times. The oldest is forgotten first. */
const FLOWS_REMEMBERED = 10_000;

/**
 * Writes trace events as lines: a head line whenever the flow changes, then a line per event with the time
 * since its start.
 */
export class TraceLines {
  readonly #terminal: Pick<Terminal, 'colour' | 'out'>;
  /** Time of each flow's first event. */
  readonly #startedAt = new Map<number, number>();
  #current = -1;

  constructor(terminal: Pick<Terminal, 'colour' | 'out'>) {
    this.#terminal = terminal;
  }

  /** Writes a batch. Events of one flow stay together; the order inside a flow is kept. */
  write(events: readonly TraceEvent[]): void {
    const byFlow = new Map<number, TraceEvent[]>();
    for (const event of events) {
      const list = byFlow.get(event.flow);
      if (list === undefined) byFlow.set(event.flow, [event]);
      else list.push(event);
    }
    for (const [flow, list] of byFlow) this.#writeFlow(flow, list);
  }

  #writeFlow(flow: number, events: readonly TraceEvent[]): void {
    const first = events[0] as TraceEvent;
    // Events without a flow are dropped packets and refused tunnels: each stands for itself.
    if (flow === 0) {
      for (const event of events) this.#line(this.#head(event), event.at, event);
      this.#current = -1;
      return;
    }
    const startedAt = this.#startedAt.get(flow) ?? first.at;
    if (!this.#startedAt.has(flow)) this.#remember(flow, startedAt);
    if (flow !== this.#current) {
      this.#terminal.out(`${paint(this.#terminal, 'bold', `flow ${flow}`)} ${this.#head(first)}\n`);
    }
    this.#current = flow;
    // A flow may end in two layers, one after the other: its start stays known.
    for (const event of events) this.#line('', startedAt, event);
  }

  #head(event: TraceEvent): string {
    return printable(`${event.account}/${event.vnet} ${event.tuple}`.trim());
  }

  #line(head: string, startedAt: number, event: TraceEvent): void {
    const time = `+${(event.at - startedAt).toFixed(3)} ms`;
    const stage = paint(this.#terminal, STAGE_STYLES[event.stage] ?? 'cyan', event.stage.padEnd(8));
    const lead = head === '' ? paint(this.#terminal, 'dim', time.padStart(14)) : head;
    this.#terminal.out(`${lead}  ${stage}  ${printable(event.text)}\n`);
  }

  #remember(flow: number, at: number): void {
    if (this.#startedAt.size >= FLOWS_REMEMBERED) {
      for (const oldest of this.#startedAt.keys()) {
        this.#startedAt.delete(oldest);
        break;
      }
    }
    this.#startedAt.set(flow, at);
  }
}

const STAGE_STYLES: Readonly<Partial<Record<TraceEvent['stage'], Style>>> = Object.freeze({
  drop: 'red',
  verdict: 'yellow',
  hook: 'magenta',
  end: 'dim',
});
