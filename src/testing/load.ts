import { fileURLToPath } from 'node:url';

import type { Hosts } from './hosts.ts';
import { NODE_FLAGS, Program } from './program.ts';
import { within } from './until.ts';

/** Somewhere to ask, and who has to answer. */
export interface LoadTarget {
  /** For reports. */
  readonly label: string;
  readonly protocol: 'http' | 'udp';
  readonly address: string;
  readonly port: number;
  /** The name of the only origin that may answer. */
  readonly expect: string;
}

/**
 * What a client shall do: each of `parallel` loops asks each target in turn, `rounds` times, over new
 * connections.
 */
export interface LoadPlan {
  readonly targets: readonly LoadTarget[];
  readonly parallel: number;
  readonly rounds: number;
}

/** What came of it. */
export interface LoadReport {
  /** Answers by the right origin. */
  readonly right: number;
  /** Answers by, or to, another one: what must never be. */
  readonly foreign: number;
  /** No answer or a broken one. */
  readonly failed: number;
  /** Right answers by the target's label. */
  readonly byLabel: Readonly<Record<string, number>>;
  /** The first few things that went wrong, in words. */
  readonly wrong: readonly string[];
}

/** Runs a client, on a host or where the test runs, to the end of its plan. */
export async function runLoad(
  plan: LoadPlan,
  options: {
    readonly place?: { readonly hosts: Hosts; readonly on: string };
    readonly patienceMs?: number;
  } = {},
): Promise<LoadReport> {
  const file = fileURLToPath(new URL('load-program.ts', import.meta.url));
  const input = JSON.stringify(plan);
  const { place } = options;
  const program =
    place === undefined
      ? new Program(process.execPath, [...NODE_FLAGS, file], { input })
      : place.hosts.startScript(place.on, file, [], { input });
  try {
    const result = await within('the load', program.ended, options.patienceMs ?? 90_000);
    if (result.code !== 0) throw new Error(`the load ended with ${result.code}: ${result.errors}`);
    return JSON.parse(result.output) as LoadReport;
  } finally {
    program.child.kill('SIGKILL');
  }
}

/** Reports of several clients as one. */
export function joinReports(reports: readonly LoadReport[]): LoadReport {
  const byLabel: Record<string, number> = {};
  for (const report of reports) {
    for (const [label, count] of Object.entries(report.byLabel))
      byLabel[label] = (byLabel[label] ?? 0) + count;
  }
  const sum = (of: (report: LoadReport) => number): number => reports.reduce((all, one) => all + of(one), 0);
  return {
    right: sum((report) => report.right),
    foreign: sum((report) => report.foreign),
    failed: sum((report) => report.failed),
    byLabel,
    wrong: reports.flatMap((report) => report.wrong),
  };
}
