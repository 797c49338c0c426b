import { AgentClient } from '#agent/client.ts';
import { ownSocketPath } from '#agent/socket-path.ts';
import { formatDuration } from '#base/duration.ts';
import type { AgentStatus, RampStatus } from '#contract/agent.ts';

import { ExitCode, type OutputFormat } from './failure.ts';
import { paint, table, type Terminal } from './terminal.ts';

/**
 * `rampart status`: what the running process is and whether its ramps work. Exit code 1 when one of them does
 * not.
 */
export async function status(
  terminal: Terminal,
  options: { readonly socket?: string; readonly output: OutputFormat },
): Promise<ExitCode> {
  const client = await AgentClient.connect(options.socket ?? ownSocketPath());
  try {
    const answer = await client.ask('status');
    if (options.output === 'json') terminal.out(`${JSON.stringify(answer)}\n`);
    else terminal.out(formatStatus(terminal, answer, Date.now()));
    const troubled = [...answer.onRamps, ...answer.offRamps].some(({ trouble }) => trouble !== '');
    return troubled ? ExitCode.Failure : ExitCode.Ok;
  } finally {
    client.close();
  }
}

/** A status for a person; `now` is Unix milliseconds. */
export function formatStatus(terminal: Pick<Terminal, 'colour'>, answer: AgentStatus, now: number): string {
  const age = formatDuration(Math.max(0, Math.round((now - answer.startedAt) / 1000) * 1000));
  const state = answer.draining ? paint(terminal, 'yellow', 'draining') : paint(terminal, 'green', 'running');
  const workers = `${answer.workers} worker${answer.workers === 1 ? '' : 's'}`;
  const head =
    `rampart ${answer.version} is ${state} since ${age}, process ${answer.pid}, ${answer.io}, ${workers}\n` +
    `config ${answer.config}\n\n`;
  const row = (direction: string) => (ramp: RampStatus) => [
    direction,
    ramp.name,
    ramp.type,
    ramp.where,
    ramp.trouble === '' ? 'works' : ramp.trouble,
  ];
  return (
    head +
    table(
      terminal,
      [{ title: 'ramp' }, { title: 'name' }, { title: 'type' }, { title: 'where' }, { title: 'state' }],
      [...answer.onRamps.map(row('on')), ...answer.offRamps.map(row('off'))],
    )
  );
}
