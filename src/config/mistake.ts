import { RampartError } from '#base/error.ts';

/** One thing that is wrong, or doubtful, in a config file. Never holds a value that could be a secret. */
export interface Mistake {
  /** The file as the user named it. */
  readonly file: string;
  /** Counted from 1; 1:1 when it concerns the file as a whole. */
  readonly line: number;
  readonly column: number;
  /** Where in the config, `on_ramps[0].listen`; empty for the file as a whole. */
  readonly path: string;
  /** What is wrong, what was expected, the nearest name. */
  readonly text: string;
}

/** `file:line:column: path: text`, as compilers print it, so that editors can jump there. */
export function formatMistake(mistake: Mistake): string {
  const path = mistake.path === '' ? '' : `${mistake.path}: `;
  return `${mistake.file}:${mistake.line}:${mistake.column}: ${path}${mistake.text}`;
}

/** A config with mistakes: nothing is started. The text lists all of them, a line each. */
export class ConfigError extends RampartError {
  readonly mistakes: readonly Mistake[];

  /** Takes at least one mistake, in the order of the file. */
  constructor(mistakes: readonly Mistake[], details: { readonly cause?: unknown } = {}) {
    super('RAMP_CONFIG', mistakes.map(formatMistake).join('\n'), { side: 'config', ...details });
    this.mistakes = mistakes;
  }
}
