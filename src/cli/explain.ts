import { AgentClient } from '#agent/client.ts';
import { ownSocketPath } from '#agent/socket-path.ts';
import { RampartError } from '#base/error.ts';
import { formatIp, parseIp } from '#base/ip.ts';
import { loadConfig } from '#config/config.ts';
import { parseTarget } from '#config/scalars.ts';
import type { ExplainQuery, ExplainStep, Explanation } from '#contract/agent.ts';
import { explainFlow } from '#proxy/explain.ts';
import { loadHooks } from '#proxy/hooks/load.ts';
import { HookRunner } from '#proxy/hooks/runner.ts';
import { createStats } from '#proxy/stats.ts';

import { ExitCode, type OutputFormat } from './failure.ts';
import { paint, printable, type Style, type Terminal } from './terminal.ts';

/** Options of `rampart explain`, as they stand on the command line. */
export interface ExplainOptions {
  /** Explain by this file, without a running process. */
  readonly config?: string;
  readonly socket?: string;
  readonly account?: string;
  readonly vnet?: string;
  readonly onRamp?: string;
  readonly protocol?: string;
  readonly output: OutputFormat;
}

/**
 * `rampart explain SRC DST[:PORT]`: which on-ramp, route, hook and off-ramp such a flow would meet, and why.
 */
export async function explain(
  terminal: Terminal,
  ends: { readonly source: string; readonly destination: string },
  options: ExplainOptions,
): Promise<ExitCode> {
  const query = readQuery(ends, options);
  const explanation =
    options.config === undefined
      ? await askProcess(options.socket ?? ownSocketPath(), query)
      : await askConfig(options.config, query);
  if (options.output === 'json') terminal.out(`${JSON.stringify(explanation)}\n`);
  else terminal.out(formatExplanation(terminal, explanation));
  return ExitCode.Ok;
}

/** An explanation for a person: the question, a line per step, the outcome. */
export function formatExplanation(terminal: Pick<Terminal, 'colour'>, explanation: Explanation): string {
  const { query, steps, result } = explanation;
  const port = query.port === 0 ? '' : ` port ${query.port}`;
  const lines = [
    paint(terminal, 'bold', `${query.source} to ${query.destination}${port}, ${query.protocol}`),
  ];
  for (const { step, outcome, text } of steps) {
    lines.push(`  ${step.padEnd(9)} ${paint(terminal, STYLES[outcome], MARKS[outcome])} ${printable(text)}`);
  }
  const [style, words] = RESULTS[result];
  lines.push(paint(terminal, style, words));
  return `${lines.join('\n')}\n`;
}

const MARKS: Readonly<Record<ExplainStep['outcome'], string>> = Object.freeze({
  next: '·',
  stop: '✗',
  out: '→',
  unknown: '?',
});

const STYLES: Readonly<Record<ExplainStep['outcome'], Style>> = Object.freeze({
  next: 'dim',
  stop: 'red',
  out: 'green',
  unknown: 'yellow',
});

const RESULTS: Readonly<Record<Explanation['result'], readonly [Style, string]>> = Object.freeze({
  leaves: ['green', 'leaves'],
  refused: ['red', 'refused'],
  unknown: ['yellow', 'leaves, unless what only a real flow shows decides otherwise'],
});

function readQuery(
  ends: { readonly source: string; readonly destination: string },
  options: ExplainOptions,
): ExplainQuery {
  const source = parseIp(ends.source);
  if (source === null) {
    throw new RampartError(
      'RAMP_USAGE',
      `"${ends.source}" is no source; expected an IP address, such as 100.64.0.1`,
    );
  }
  const bare = parseIp(ends.destination);
  const target = bare === null ? parseTarget(ends.destination) : { host: formatIp(bare), port: 0 };
  if (target === null || parseIp(target.host) === null) {
    const text =
      `"${ends.destination}" is no destination; expected an address and port: ` +
      '10.10.0.10:80 or [fd00::1]:80';
    throw new RampartError('RAMP_USAGE', text);
  }
  const protocol = options.protocol ?? (target.port === 0 ? 'icmp' : 'tcp');
  if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'icmp') {
    throw new RampartError('RAMP_USAGE', `"${protocol}" is no protocol; expected tcp, udp or icmp`);
  }
  if (protocol !== 'icmp' && target.port === 0) {
    throw new RampartError('RAMP_USAGE', `${protocol} needs a port; expected ${target.host}:PORT`);
  }
  return {
    source: formatIp(source),
    destination: target.host,
    port: protocol === 'icmp' ? 0 : target.port,
    protocol,
    ...(options.account === undefined ? {} : { account: options.account }),
    ...(options.vnet === undefined ? {} : { vnet: options.vnet }),
    ...(options.onRamp === undefined ? {} : { onRamp: options.onRamp }),
  };
}

async function askConfig(file: string, query: ExplainQuery): Promise<Explanation> {
  const { config } = loadConfig(file);
  if (config.hooks === null) return await explainFlow(config, null, query);
  const hooks = await loadHooks(config.hooks);
  const runner = new HookRunner(hooks, {
    stats: createStats(),
    limits: config.limits,
    offRamps: new Set(config.offRamps.map(({ name }) => name)),
  });
  // Hooks may need what start prepares: settings read, lists loaded.
  await runner.start(config.app, undefined);
  return await explainFlow(config, runner, query);
}

async function askProcess(path: string, query: ExplainQuery): Promise<Explanation> {
  const client = await AgentClient.connect(path);
  try {
    return await client.ask('explain', query);
  } finally {
    client.close();
  }
}
