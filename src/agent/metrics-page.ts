/**
 * The metrics as the text format of Prometheus (version 0.0.4), from one table: what is served, its HELP and
 * TYPE lines and docs/reference/metrics.md cannot differ.
 */
import { DropReason, dropReasonName } from '#base/drop-reason.ts';
import type { BufferFigures, MetricsSnapshot, NetworkFigures } from '#contract/metrics.ts';
import { Counter } from '#proxy/stats.ts';

import { METRIC_TEXT } from './metric-texts.ts';

/** Networks that have labels of their own; more would let a tenant fill the collector with series. */
export const NETWORKS_MAX = 200;

/** Label of all networks beyond: no account can have this name. */
export const OTHER = '_other';

/** Figures of the process, beside those of the data plane. */
export interface ProcessFigures {
  readonly cpuSeconds: number;
  readonly residentBytes: number;
  readonly heapBytes: number;
  /** Unix seconds. */
  readonly startedAt: number;
  /** By how much the event loop was late since the last page, seconds. */
  readonly loopLagMean: number;
  readonly loopLagP99: number;
  readonly loopLagMax: number;
}

/** What the page is made from. */
export interface Figures extends MetricsSnapshot {
  readonly process: ProcessFigures;
}

/** Takes one sample: the values of the metric's labels in their order, then the number. */
type Put = (labels: readonly string[], value: number) => void;

/** One family of series. */
export interface Metric {
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  readonly labels: readonly string[];
  /** One sentence for the HELP line and the reference. */
  readonly text: string;
  readonly collect: (figures: Figures, put: Put) => void;
}

/** Every metric, in the order of the page. */
export const METRICS: readonly Metric[] = Object.freeze([
  ...Object.entries(Counter).map(([name, index]) =>
    single(
      'counter',
      `${snakeCase(name)}_total`,
      METRIC_TEXT[name as keyof typeof Counter],
      ({ counters }) => counters[index] as number,
    ),
  ),
  {
    name: 'rampart_drops_total',
    type: 'counter',
    labels: ['reason'],
    text: 'packets and datagrams dropped, by reason',
    collect({ drops }, put) {
      for (const reason of Object.values(DropReason)) {
        if (reason !== DropReason.None) put([dropReasonName(reason)], drops[reason] as number);
      }
    },
  },
  network('packets', 'IP packets and datagrams of flows and sessions that ended, by network'),
  network('bytes', 'bytes, both ways, of flows, streams and sessions that ended, by network'),
  single('gauge', 'flows', 'flows in the flow table', ({ live }) => live.flows),
  single('gauge', 'tunnels', 'IP tunnels that are open', ({ live }) => live.tunnels),
  single('gauge', 'streams', 'streams that are carried as streams', ({ live }) => live.streams),
  single('gauge', 'sessions', 'UDP sessions that are open', ({ live }) => live.sessions),
  single('gauge', 'http_connections', 'HTTP connections of clients', ({ live }) => live.httpConnections),
  single('gauge', 'http_requests', 'HTTP requests under way', ({ live }) => live.requests),
  {
    name: 'rampart_buffers_in_use',
    type: 'gauge',
    labels: ['pool'],
    text: 'buffers in use, by pool',
    collect: ({ buffers }, put) => collectBuffers(buffers, 'inUse', put),
  },
  {
    name: 'rampart_buffers',
    type: 'gauge',
    labels: ['pool'],
    text: 'buffers that there are, by pool',
    collect: ({ buffers }, put) => collectBuffers(buffers, 'count', put),
  },
  {
    name: 'rampart_ramp_up',
    type: 'gauge',
    labels: ['direction', 'name', 'type'],
    text: 'one for an on-ramp (in) or off-ramp (out) that works, zero for one in trouble',
    collect({ status }, put) {
      for (const { name, type, trouble } of status.onRamps) put(['in', name, type], trouble === '' ? 1 : 0);
      for (const { name, type, trouble } of status.offRamps) put(['out', name, type], trouble === '' ? 1 : 0);
    },
  },
  single('gauge', 'draining', 'one while the process ends and takes nothing new', ({ status }) =>
    status.draining ? 1 : 0,
  ),
  {
    name: 'rampart_build_info',
    type: 'gauge',
    labels: ['version', 'io'],
    text: 'always one; the labels say the version and the io engine',
    collect: ({ status }, put) => put([status.version, status.io], 1),
  },
  single(
    'gauge',
    'event_loop_lag_mean_seconds',
    'mean delay of the event loop since the last page',
    (of) => of.process.loopLagMean,
  ),
  single(
    'gauge',
    'event_loop_lag_p99_seconds',
    'delay that 99 of 100 turns kept below since the last page',
    (of) => of.process.loopLagP99,
  ),
  single(
    'gauge',
    'event_loop_lag_max_seconds',
    'longest delay since the last page',
    (of) => of.process.loopLagMax,
  ),
  ofProcess('counter', 'cpu_seconds_total', 'processor time of the process, user and system', 'cpuSeconds'),
  ofProcess('gauge', 'resident_memory_bytes', 'resident memory of the process', 'residentBytes'),
  ofProcess('gauge', 'heap_bytes', 'heap of the JavaScript engine in use', 'heapBytes'),
  ofProcess('gauge', 'start_time_seconds', 'start of the process, Unix time', 'startedAt'),
]);

/** The whole page. */
export function metricsPage(figures: Figures): string {
  const lines: string[] = [];
  for (const { name, type, labels, text, collect } of METRICS) {
    lines.push(`# HELP ${name} ${text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`);
    lines.push(`# TYPE ${name} ${type}`);
    collect(figures, (values, value) => lines.push(`${name}${labelText(labels, values)} ${value}`));
  }
  return `${lines.join('\n')}\n`;
}

function single(type: Metric['type'], name: string, text: string, of: (figures: Figures) => number): Metric {
  return {
    name: `rampart_${name}`,
    type,
    labels: [],
    text,
    collect: (figures, put) => put([], of(figures)),
  };
}

/** The names that all exporters give to the figures of their process. */
function ofProcess(type: Metric['type'], name: string, text: string, key: keyof ProcessFigures): Metric {
  return {
    name: `process_${name}`,
    type,
    labels: [],
    text,
    collect: (figures, put) => put([], figures.process[key]),
  };
}

function network(what: 'packets' | 'bytes', text: string): Metric {
  return {
    name: `rampart_network_${what}_total`,
    type: 'counter',
    labels: ['account', 'vnet'],
    text,
    collect: ({ networks }, put) => collectNetworks(networks, what, put),
  };
}

/** The order of networks never changes, so none moves between its own labels and the rest. */
function collectNetworks(networks: Iterable<NetworkFigures>, what: 'packets' | 'bytes', put: Put): void {
  let count = 0;
  let rest = 0;
  for (const figures of networks) {
    if (++count <= NETWORKS_MAX) put([figures.account, figures.vnet], figures[what]);
    else rest += figures[what];
  }
  if (count > NETWORKS_MAX) put([OTHER, OTHER], rest);
}

function collectBuffers(buffers: readonly BufferFigures[], what: 'inUse' | 'count', put: Put): void {
  for (const figures of buffers) put([figures.pool], figures[what]);
}

function labelText(names: readonly string[], values: readonly string[]): string {
  if (names.length === 0) return '';
  return `{${names.map((name, index) => `${name}="${escapeLabel(values[index] as string)}"`).join(',')}}`;
}

/** Backslash, quote and line end are the only characters that the format escapes. */
function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function snakeCase(name: string): string {
  return name.replace(/(?!^)[A-Z]/g, '_$&').toLowerCase();
}
