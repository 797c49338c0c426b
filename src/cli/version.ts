import { readFileSync } from 'node:fs';
import { arch, release } from 'node:os';

import { ExitCode, type OutputFormat } from './failure.ts';
import type { Terminal } from './terminal.ts';

/** Version of this package, from its package.json. */
export function packageVersion(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { readonly version: string }).version;
}

/** `rampart version`: what a report of a fault needs to say. */
export function version(terminal: Terminal, output: OutputFormat): ExitCode {
  const facts = { rampart: packageVersion(), node: process.versions.node, linux: release(), arch: arch() };
  if (output === 'json') terminal.out(`${JSON.stringify(facts)}\n`);
  else terminal.out(`rampart ${facts.rampart} (Node ${facts.node}, Linux ${facts.linux}, ${facts.arch})\n`);
  return ExitCode.Ok;
}
