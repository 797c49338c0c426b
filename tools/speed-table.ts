/** Makes the table of README.md from what `npm run bench -- --save` wrote. */

/** What one benchmark measured; see `bench/harness.ts`. */
export interface SpeedResult {
  readonly name: string;
  readonly unit: string;
  readonly conditions: string;
  readonly rampart: number;
  readonly peers: Readonly<Record<string, number>>;
  /** rampart / peer. */
  readonly ratio: Readonly<Record<string, number>>;
  readonly higherIsBetter?: boolean;
}

/** One file of bench/results. */
export interface SavedResults {
  readonly machine: string;
  /** Date of the run, YYYY-MM-DD. */
  readonly at: string;
  readonly results: readonly SpeedResult[];
}

/** The table, with one line per machine and date below it; a sentence when nothing has been saved. */
export function speedTable(saved: readonly SavedResults[]): string {
  const results = saved.flatMap((file) => file.results);
  if (results.length === 0) return 'No results have been saved yet: `npm run bench -- --save` writes them.';
  const rows = results.map((result) => {
    const peers = Object.entries(result.peers).map(
      ([peer, value]) => `${peer} ${figure(value)} (×${figure(result.ratio[peer] as number)})`,
    );
    const better = result.higherIsBetter ? 'higher' : 'lower';
    const unit = `${result.unit}, ${better} is better`;
    const cells = [
      `**${result.name}** ${result.conditions}`,
      unit,
      figure(result.rampart),
      peers.join('<br>'),
    ];
    return `| ${cells.join(' | ')} |`;
  });
  const runs = [...new Set(saved.map(({ at, machine }) => `${at}: ${machine}`))];
  return [
    '| what | unit | Rampart | peers (× is Rampart / peer) |',
    '| --- | --- | --- | --- |',
    ...rows,
    '',
    ...runs.map((run) => `Measured ${run}.`),
  ].join('\n');
}

/** Three digits that mean something. */
function figure(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)));
}
