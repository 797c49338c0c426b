import { arch, release } from 'node:os';

import { packageVersion } from '#base/version.ts';

import { ExitCode, type OutputFormat } from './failure.ts';
import type { Terminal } from './terminal.ts';

/** `rampart version`: what a report of a fault needs to say. */
export function version(terminal: Terminal, output: OutputFormat): ExitCode {
  const facts = { rampart: packageVersion(), node: process.versions.node, linux: release(), arch: arch() };
  if (output === 'json') terminal.out(`${JSON.stringify(facts)}\n`);
  else terminal.out(`rampart ${facts.rampart} (Node ${facts.node}, Linux ${facts.linux}, ${facts.arch})\n`);
  return ExitCode.Ok;
}
