import type { DropReason } from '#base/drop-reason.ts';
import type { Completion, TimerId } from '#io/io.ts';
import type { Reassembler } from '#packet/reassemble.ts';
import type { Worker } from '#proxy/proxy-contract.ts';

import type { FlowLog } from './flow-log.ts';
import type { ExpirySink, FlowTable } from './flow-table.ts';

/** How often the clock's hand moves on, milliseconds. */
const TICK_MS = 250;

/** A round of the expiry takes this many ticks at most; a small table is gone through by each. */
const TICKS_PER_ROUND = 8;
const SLOTS_PER_TICK_MIN = 4096;

/** What the clock forgets. */
export interface FlowClockParts {
  readonly table: FlowTable<unknown>;
  readonly reassembler: Reassembler;
  readonly log: FlowLog;
  /** Told of flows whose time is over. */
  readonly sink: ExpirySink;
}

/**
 * Forgets silent flows and incomplete packets. It ticks only while there are any: an idle process has no
 * timer.
 */
export class FlowClock implements Completion {
  readonly #worker: Worker;
  readonly #parts: FlowClockParts;
  /** Fragments that the reassembler dropped by itself and that are counted already. */
  readonly #counted: Float64Array;
  #timer: TimerId = 0;
  #isArmed = false;

  constructor(worker: Worker, parts: FlowClockParts) {
    this.#worker = worker;
    this.#parts = parts;
    this.#counted = new Float64Array(parts.reassembler.droppedFragments.length);
  }

  /** There is something to forget. */
  arm(): void {
    if (this.#isArmed) return;
    this.#isArmed = true;
    this.#timer = this.#worker.io.timer(TICK_MS, this, 0);
  }

  stop(): void {
    if (this.#isArmed) this.#worker.io.cancelTimer(this.#timer);
    this.#isArmed = false;
  }

  /** A tick. */
  onCompletion(_tag: number, result: number): void {
    this.#isArmed = false;
    if (result < 0) return;
    const { table, reassembler, sink } = this.#parts;
    const now = this.#worker.io.now();
    table.expire(now, Math.max(SLOTS_PER_TICK_MIN, Math.ceil(table.slots / TICKS_PER_ROUND)), sink);
    reassembler.expire(now);
    this.#countFragments();
    if (table.count > 0 || reassembler.datagrams > 0) this.arm();
  }

  #countFragments(): void {
    const { log, reassembler } = this.#parts;
    const dropped = reassembler.droppedFragments;
    for (let reason = 0; reason < dropped.length; reason++) {
      const fresh = (dropped[reason] as number) - (this.#counted[reason] as number);
      if (fresh === 0) continue;
      log.count(reason as DropReason, fresh);
      this.#counted[reason] = dropped[reason] as number;
    }
  }
}
