import { loadConfig, type ParsedConfig } from '#config/config.ts';
import { formatMistake } from '#config/mistake.ts';
import type { Hooks } from '#proxy/hooks/hooks.ts';
import { loadHooks } from '#proxy/hooks/load.ts';

import { ExitCode, type OutputFormat } from './failure.ts';
import { paint, type Terminal } from './terminal.ts';

/** `rampart check FILE`: reads the config and its hooks file, starts nothing. */
export async function check(terminal: Terminal, file: string, output: OutputFormat): Promise<ExitCode> {
  const { config, warnings } = loadConfig(file);
  const hooks = config.hooks === null ? null : await loadHooks(config.hooks);
  const names = hookNames(hooks);
  if (output === 'json') {
    const { onRamps, offRamps, routes } = config;
    const counts = {
      onRamps: onRamps.length,
      offRamps: offRamps.length,
      routes: routes.length,
      hooks: names,
    };
    terminal.out(`${JSON.stringify({ ok: true, file: config.file, ...counts, warnings })}\n`);
    return ExitCode.Ok;
  }
  printWarnings(terminal, warnings);
  const parts = [
    count(config.onRamps.length, 'on-ramp'),
    count(config.offRamps.length, 'off-ramp'),
    count(config.routes.length, 'route'),
    names.length === 0 ? 'no hooks' : `hooks ${names.join(', ')}`,
  ];
  terminal.out(`${paint(terminal, 'green', 'ok')} ${file}: ${parts.join(', ')}\n`);
  return ExitCode.Ok;
}

/** Tells what is doubtful about a config on standard error. */
export function printWarnings(terminal: Terminal, warnings: ParsedConfig['warnings']): void {
  for (const warning of warnings) {
    terminal.error(`${paint(terminal, 'yellow', 'warning')} ${formatMistake(warning)}\n`);
  }
}

/** Names of the hooks that an application has. */
export function hookNames(hooks: Hooks | null): string[] {
  return Object.entries(hooks ?? {}).flatMap(([name, hook]) => (hook === undefined ? [] : [name]));
}

function count(number: number, word: string): string {
  return `${number} ${word}${number === 1 ? '' : 's'}`;
}
