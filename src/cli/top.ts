import { setTimeout as delay } from 'node:timers/promises';

import { AgentClient } from '#agent/client.ts';
import { ownSocketPath } from '#agent/socket-path.ts';
import { parseDuration } from '#base/duration.ts';
import { RampartError } from '#base/error.ts';
import type { AgentStats, FlowSummary } from '#contract/agent.ts';

import { ExitCode, type OutputFormat } from './failure.ts';
import { paint, printable, shortNumber, table, type Terminal } from './terminal.ts';

/** Options of `rampart top`. */
export interface TopOptions {
  readonly socket?: string;
  /** Time between two looks, as a duration. Default 1s. */
  readonly interval?: string;
  /** Print one table and end. */
  readonly once: boolean;
  readonly output: OutputFormat;
}

/** Flows shown, the busiest first. */
const FLOWS_SHOWN = 10;

/** Cursor home and the rest of the screen cleared: a redraw without flicker. */
const REDRAW = '\x1b[H\x1b[J';

/** `rampart top`: live rates, networks, flows and drops, until Ctrl-C. */
export async function top(terminal: Terminal, options: TopOptions): Promise<ExitCode> {
  const intervalMs = parseDuration(options.interval ?? '1s');
  if (intervalMs === null || intervalMs < 100) {
    throw new RampartError(
      'RAMP_USAGE',
      `"${options.interval}" is no interval; expected at least 100ms, such as 2s`,
    );
  }
  const client = await AgentClient.connect(options.socket ?? ownSocketPath());
  const stop = new AbortController();
  const onSignal = (): void => stop.abort();
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  void client.ended.then(() => stop.abort());
  try {
    let before = await client.ask('stats');
    while (!stop.signal.aborted) {
      await delay(intervalMs, undefined, { signal: stop.signal });
      const now = await client.ask('stats');
      const flows = await client.ask('flows', { limit: 1000 });
      terminal.out(render(terminal, options, { before, now, flows }));
      if (options.once) break;
      before = now;
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    process.removeListener('SIGINT', onSignal);
    process.removeListener('SIGTERM', onSignal);
    client.close();
  }
  return ExitCode.Ok;
}

/** Two looks at a process. */
export interface TopLooks {
  readonly before: AgentStats;
  readonly now: AgentStats;
  readonly flows: readonly FlowSummary[];
}

function render(terminal: Terminal, options: TopOptions, looks: TopLooks): string {
  if (options.output === 'json') return `${JSON.stringify({ ...rates(looks), ...looks.now })}\n`;
  const text = formatTop(terminal, looks);
  return terminal.interactive && !options.once ? REDRAW + text : text;
}

/** The whole picture for a person. */
export function formatTop(terminal: Pick<Terminal, 'colour'>, looks: TopLooks): string {
  const { now } = looks;
  const rate = rates(looks);
  const live = now.networks.reduce((sum, { flows }) => sum + flows, 0);
  const head = [
    `${shortNumber(live)} flows`,
    `${shortNumber(rate.flowsPerSecond)} new flows/s`,
    `${shortNumber(rate.streamsPerSecond)} new streams/s`,
    `${shortNumber(rate.packetsPerSecond)} packets/s`,
    `${shortNumber(rate.bitsPerSecond)}${rate.bitsPerSecond < 1000 ? ' ' : ''}bit/s`,
    `${shortNumber(rate.requestsPerSecond)} requests/s`,
    `${shortNumber(rate.dropsPerSecond)} drops/s`,
  ];
  const parts = [`${paint(terminal, 'bold', head.join('   '))}\n`];
  if (now.networks.length > 0) parts.push(networkTable(terminal, looks));
  if (looks.flows.length > 0) parts.push(flowTable(terminal, looks.flows));
  if (Object.keys(now.drops).length > 0) parts.push(dropTable(terminal, looks));
  return parts.join('\n');
}

function networkTable(terminal: Pick<Terminal, 'colour'>, looks: TopLooks): string {
  const seconds = secondsBetween(looks);
  const earlier = new Map(
    looks.before.networks.map((network) => [`${network.account}/${network.vnet}`, network]),
  );
  const rows = looks.now.networks.map((network) => {
    const name = `${network.account}/${network.vnet}`;
    const was = earlier.get(name);
    const packets = (network.packets - (was?.packets ?? 0)) / seconds;
    const bytes = (network.bytes - (was?.bytes ?? 0)) / seconds;
    return { name, flows: network.flows, packets, bytes };
  });
  rows.sort((a, b) => b.bytes - a.bytes || b.flows - a.flows || a.name.localeCompare(b.name));
  return table(
    terminal,
    [
      { title: 'network' },
      { title: 'flows', align: 'right' },
      { title: 'packets/s', align: 'right' },
      { title: 'bytes/s', align: 'right' },
    ],
    rows.map(({ name, flows, packets, bytes }) => [
      name,
      shortNumber(flows),
      shortNumber(packets),
      shortNumber(bytes),
    ]),
  );
}

function flowTable(terminal: Pick<Terminal, 'colour'>, flows: readonly FlowSummary[]): string {
  const busiest = flows.toSorted((a, b) => b.bytes - a.bytes).slice(0, FLOWS_SHOWN);
  return table(
    terminal,
    [
      { title: 'flow', align: 'right' },
      { title: 'network' },
      { title: 'from' },
      { title: 'to' },
      { title: 'as' },
      { title: 'by' },
      { title: 'bytes', align: 'right' },
      { title: 'age', align: 'right' },
    ],
    busiest.map((flow) => [
      String(flow.flow),
      printable(`${flow.account}/${flow.vnet}`),
      endText(flow.source),
      endText(flow.destination),
      flow.layer === 'ip' ? String(flow.protocol) : flow.layer,
      flow.offRamp ?? '-',
      shortNumber(flow.bytes),
      `${Math.round(flow.ageMs / 1000)}s`,
    ]),
  );
}

function dropTable(terminal: Pick<Terminal, 'colour'>, looks: TopLooks): string {
  const seconds = secondsBetween(looks);
  const rows = Object.entries(looks.now.drops).toSorted(([, a], [, b]) => b - a);
  return table(
    terminal,
    [
      { title: 'dropped because' },
      { title: 'total', align: 'right' },
      { title: 'per second', align: 'right' },
    ],
    rows.map(([reason, total]) => [
      reason,
      shortNumber(total),
      shortNumber((total - (looks.before.drops[reason] ?? 0)) / seconds),
    ]),
  );
}

function rates(looks: TopLooks) {
  const seconds = secondsBetween(looks);
  const { before, now } = looks;
  const change = (name: string): number =>
    ((now.counters[name] ?? 0) - (before.counters[name] ?? 0)) / seconds;
  const drops = (stats: AgentStats): number =>
    Object.values(stats.drops).reduce((sum, count) => sum + count, 0);
  const streamBytes = change('stream_bytes_up') + change('stream_bytes_down');
  return {
    flowsPerSecond: change('flows_opened'),
    streamsPerSecond: change('streams_opened'),
    packetsPerSecond: change('packets_in'),
    // Packets of upgraded flows are streams too: the larger of both is what passes through.
    bitsPerSecond: 8 * Math.max(change('bytes_in'), streamBytes),
    requestsPerSecond: change('requests_in'),
    dropsPerSecond: (drops(now) - drops(before)) / seconds,
  };
}

function secondsBetween({ before, now }: TopLooks): number {
  return Math.max(now.at - before.at, 1) / 1000;
}

function endText({ address, port }: { readonly address: string; readonly port: number }): string {
  if (port === 0) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
