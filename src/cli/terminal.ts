import { styleText } from 'node:util';

/** Where a command writes to: a person's terminal, a pipe, or a test. */
export interface Terminal {
  /** Standard output: what was asked for. */
  out(text: string): void;
  /** Standard error: what went wrong, and the log. */
  error(text: string): void;
  /** Colours and redrawing are wanted on standard output. */
  readonly colour: boolean;
  /** Standard output is a terminal, not a file or a pipe. */
  readonly interactive: boolean;
  /** Width in columns. */
  columns(): number;
  rows(): number;
}

/** A style of `util.styleText`. */
export type Style = Parameters<typeof styleText>[0];

/** The terminal of this process. Colours only on a terminal, and not where NO_COLOR is set (no-color.org). */
export function processTerminal(): Terminal {
  const interactive = process.stdout.isTTY === true;
  return {
    out: (text) => void process.stdout.write(text),
    error: (text) => void process.stderr.write(text),
    colour: interactive && !process.env.NO_COLOR && process.env.TERM !== 'dumb',
    interactive,
    columns: () => process.stdout.columns ?? 80,
    rows: () => process.stdout.rows ?? 24,
  };
}

/** The text in a style, or as it is where no colours are wanted. */
export function paint(terminal: Pick<Terminal, 'colour'>, style: Style, text: string): string {
  return terminal.colour ? styleText(style, text, { validateStream: false }) : text;
}

/** A column of a table. */
export interface Column {
  readonly title: string;
  /** Numbers stand to the right. Default left. */
  readonly align?: 'left' | 'right';
}

/**
 * Rows under their titles, aligned, two spaces between columns; each line with its end. Cells hold no
 * colours.
 */
export function table(
  terminal: Pick<Terminal, 'colour'>,
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): string {
  const widths = columns.map(({ title }, index) =>
    Math.max(title.length, ...rows.map((row) => (row[index] ?? '').length)),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, index) => {
        const width = widths[index] as number;
        return columns[index]?.align === 'right' ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd();
  const head = paint(terminal, 'bold', line(columns.map(({ title }) => title)));
  return `${[head, ...rows.map(line)].join('\n')}\n`;
}

/**
 * What came over a wire, made safe to print: without control characters, which could move the cursor or forge
 * lines.
 */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  return text.replace(/[\0-\x1f\x7f-\x9f]/g, '\ufffd');
}

/** `12.3 k`, `4.5 M`: three digits, for counts and rates. */
export function shortNumber(value: number): string {
  for (const [unit, size] of [
    ['G', 1e9],
    ['M', 1e6],
    ['k', 1e3],
  ] as const) {
    if (value >= size) return `${(value / size).toPrecision(3)} ${unit}`;
  }
  return Number.isInteger(value) ? String(value) : value.toFixed(1);
}
