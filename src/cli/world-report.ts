import { styleText } from 'node:util';

import type { TraceEvent } from '#contract/trace.ts';

/** Widest text of a trace line before it is cut: a line fits into 120 columns. */
const TEXT_COLUMNS = 92;

type Style = Parameters<typeof styleText>[0];

/** Writes what the world shows, calm and aligned; colours only where the terminal has them. */
export class WorldReport {
  readonly #write: (text: string) => void;
  readonly #colour: boolean;

  constructor(write: (text: string) => void, colour: boolean) {
    this.#write = write;
    this.#colour = colour;
  }

  line(text = ''): void {
    this.#write(`${text}\n`);
  }

  title(text: string): void {
    this.line(this.#paint('bold', text));
  }

  /** The command of a step, as a person would type it. */
  command(number: number, about: string, command: string): void {
    this.line();
    this.line(`${this.#paint('bold', `${number}  ${about}`)}`);
    this.line(`   ${this.#paint('cyan', `laptop$ ${command}`)}`);
  }

  /** What the program printed, and whether it is what was expected. */
  outcome(output: string, verdict: { readonly ok: boolean; readonly text: string }): void {
    for (const each of output.trimEnd().split('\n')) if (each !== '') this.line(`   ${each}`);
    const mark = verdict.ok ? this.#paint('green', '✓') : this.#paint('red', '✗');
    this.line(`   ${mark} ${verdict.text}`);
  }

  /** The way of one flow through the layers, with the time since its first packet. */
  trace(events: readonly TraceEvent[]): void {
    const first = events[0];
    if (first === undefined) return;
    const { account, vnet, tuple } = first;
    this.line(`   ${this.#paint('dim', `${account}/${vnet}  ${tuple}`)}`);
    for (const event of events) {
      const since = `${(event.at - first.at).toFixed(2)} ms`.padStart(10);
      const stage = this.#paint('yellow', event.stage.padEnd(9));
      this.line(`   ${this.#paint('dim', since)}  ${stage} ${cut(event.text)}`);
    }
  }

  #paint(style: Style, text: string): string {
    return this.#colour ? styleText(style, text, { validateStream: false }) : text;
  }
}

function cut(text: string): string {
  return text.length > TEXT_COLUMNS ? `${text.slice(0, TEXT_COLUMNS - 1)}…` : text;
}
