/**
 * `npm run bench` runs every benchmark and prints a table;
 * `npm run bench -- NAME [--json] [--rounds N] [--seconds N]` runs one. `--save` writes
 * bench/results/NAME.json with the machine's description.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { type Benchmark, type BenchResult, lacking, machine } from './harness.ts';

const BENCHMARKS: Readonly<Record<string, () => Promise<{ readonly benchmark: Benchmark }>>> = {
  http1: () => import('./http1.ts'),
  tcp: () => import('./tcp.ts'),
  'tls-handshake': () => import('./tls-handshake.ts'),
  'tls-bulk': () => import('./tls-bulk.ts'),
  ip: () => import('./ip.ts'),
  upgrade: () => import('./upgrade.ts'),
  flows: () => import('./flows.ts'),
};

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    save: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '4' },
  },
});

const names = positionals.length > 0 ? positionals : Object.keys(BENCHMARKS);
const say = values.json ? (): void => {} : (line: string): void => console.log(line);
let failed = false;
for (const name of names) {
  const load = BENCHMARKS[name];
  if (load === undefined) {
    console.error(`there is no benchmark ${name}; there are ${Object.keys(BENCHMARKS).join(', ')}`);
    process.exit(2);
  }
  const { benchmark } = await load();
  const lack = lacking(benchmark);
  if (lack !== null) {
    console.error(lack);
    failed = true;
    continue;
  }
  say(`${benchmark.name}: ${benchmark.about}`);
  const options = { rounds: Number(values.rounds), seconds: Number(values.seconds), say };
  const results = await benchmark.run(options);
  if (values.json) console.log(JSON.stringify(results.length === 1 ? results[0] : results));
  else for (const result of results) say(format(result));
  if (values.save) save(name, results);
}
process.exit(failed ? 1 : 0);

function format(result: BenchResult): string {
  const lines = [`  ${result.name} (${result.conditions})`];
  const rate = (who: string): string => {
    const value = result.throughput?.values[who];
    return value === undefined ? '' : `  ${number(value)} ${result.throughput?.unit}`;
  };
  lines.push(`    ${'rampart'.padEnd(22)}${number(result.rampart)} ${result.unit}${rate('rampart')}`);
  for (const [peer, value] of Object.entries(result.peers)) {
    const ratio = (result.ratio[peer] as number).toFixed(2);
    lines.push(`    ${peer.padEnd(22)}${number(value)} ${result.unit}${rate(peer)}  rampart/peer ${ratio}`);
  }
  return lines.join('\n');
}

function number(value: number): string {
  const text = value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3);
  return text.padStart(10);
}

function save(name: string, results: readonly BenchResult[]): void {
  const folder = new URL('./results/', import.meta.url);
  mkdirSync(folder, { recursive: true });
  const content = { machine: machine(), at: new Date().toISOString().slice(0, 10), results };
  writeFileSync(new URL(`${name}.json`, folder), `${JSON.stringify(content, null, 2)}\n`);
}
