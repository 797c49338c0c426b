import { RampartError } from '#base/error.ts';
import { ConfigError, formatMistake } from '#config/mistake.ts';

import { paint, type Terminal } from './terminal.ts';

/** How a command ended; the exit code of the process. Permanent: scripts depend on them. */
export const ExitCode = Object.freeze({
  /** It did what was asked. */
  Ok: 0,
  /** It could not. */
  Failure: 1,
  /** The command line, the config or the hooks file has a mistake; nothing was started. */
  Usage: 2,
} as const);

/** One of them. */
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** How output is written. */
export type OutputFormat = 'text' | 'json';

/** Tells a failure in the wanted form, and answers with its exit code. */
export function reportFailure(terminal: Terminal, error: unknown, output: OutputFormat): ExitCode {
  const code = error instanceof RampartError ? error.code : 'RAMP_INTERNAL';
  const text = error instanceof Error ? error.message : String(error);
  if (output === 'json') {
    const mistakes = error instanceof ConfigError ? { mistakes: error.mistakes } : {};
    terminal.out(`${JSON.stringify({ ok: false, error: { code, text, ...mistakes } })}\n`);
  } else if (error instanceof ConfigError) {
    for (const mistake of error.mistakes) {
      terminal.error(`${paint(terminal, 'red', 'error')} ${formatMistake(mistake)}\n`);
    }
    const count = error.mistakes.length;
    terminal.error(`${count} ${count === 1 ? 'mistake' : 'mistakes'}; nothing was started\n`);
  } else {
    terminal.error(`${paint(terminal, 'red', 'error')} ${text} (${code})\n`);
    // What has no code of its own is a fault of the program: its place helps to find it.
    if (!(error instanceof RampartError) && error instanceof Error && error.stack !== undefined) {
      terminal.error(`${error.stack}\n`);
    }
  }
  return code === 'RAMP_CONFIG' || code === 'RAMP_HOOKS' || code === 'RAMP_USAGE'
    ? ExitCode.Usage
    : ExitCode.Failure;
}
