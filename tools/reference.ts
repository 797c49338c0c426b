/**
 * Writes the pages of docs/reference, and the table of speeds in README.md, from the code and from saved
 * results, so that they cannot say anything else.
 *
 *     tools/reference.ts            writes them
 *     tools/reference.ts --check    writes nothing; names the pages that differ and exits with 1
 *
 * A page is one entry of `PAGES`: a file name and a function that makes the text.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { METRICS, NETWORKS_MAX, OTHER } from '#agent/metrics-page.ts';
import { DROP_REASON_TEXT, DropReason, dropReasonName } from '#base/drop-reason.ts';
import { ERROR_CODES } from '#base/error.ts';
import { documentedProgram } from '#cli/cli.ts';
import { configReference } from '#config/reference.ts';
import { configJsonSchema } from '#config/schema.ts';
import { HTTP_FAULT_FACTS, HttpFault } from '#protocol/http/fault.ts';

import { cliPage } from './cli-page.ts';
import { type Declaration, declarationsOf, frontComment } from './declarations.ts';
import { type SavedResults, speedTable } from './speed-table.ts';

/** One generated page; a name that does not end in `.md` makes a file without the standard opening. */
export interface Page {
  /** File name below docs/reference. */
  readonly file: string;
  /** Module of the code that the page says the truth about. */
  readonly source: string;
  /** The text below the page's standard opening. */
  readonly make: () => string | Promise<string>;
}

const ROOT = join(import.meta.dirname, '..');
const FOLDER = join(ROOT, 'docs/reference');

/** All pages. */
export const PAGES: readonly Page[] = [
  { file: 'errors.md', source: 'src/base/error.ts', make: errors },
  { file: 'drop-reasons.md', source: 'src/base/drop-reason.ts', make: dropReasons },
  { file: 'http-faults.md', source: 'src/protocol/http/fault.ts', make: httpFaults },
  { file: 'metrics.md', source: 'src/agent/metrics-page.ts', make: metrics },
  {
    file: 'config.schema.json',
    source: 'src/config/schema.ts',
    make: () => JSON.stringify(configJsonSchema(), null, 2),
  },
  { file: 'config.md', source: 'src/config/reference.ts', make: configReference },
  { file: 'cli.md', source: 'src/cli/cli.ts', make: () => cliPage(documentedProgram()) },
  { file: 'hooks.md', source: 'src/proxy/hooks/hooks.ts', make: hooks },
];

/** The whole text of a page. */
export async function render(page: Page): Promise<string> {
  if (!page.file.endsWith('.md')) return `${(await page.make()).trim()}\n`;
  const note = `<!-- Generated from \`${page.source}\` by \`npm run reference\`: change it there. -->`;
  return `${note}\n\n${(await page.make()).trim()}\n`;
}

function errors(): string {
  const rows = Object.entries(ERROR_CODES).map(([code, text]) => `| \`${code}\` | ${cell(text)} |`);
  return `# Error codes

A failed operation has one of these codes. A code is permanent: it is never renamed and never used for
something else, so alarms and scripts may rely on it. The text beside it in a log says what happened, what was
expected and what to do; \`side\` says who is at fault (downstream, upstream, internal, config) and \`retry\`
whether the same operation may be tried again.

| code | meaning |
| --- | --- |
${rows.join('\n')}`;
}

function dropReasons(): string {
  const groups: readonly (readonly [number, string])[] = [
    [1, 'The packet cannot be parsed'],
    [20, 'The packet is well formed and unwanted'],
    [40, 'A limit was reached'],
    [60, 'The tunnel is at fault'],
  ];
  const lines = [
    `# Drop reasons

A packet that goes no further is counted under exactly one of these reasons, and \`rampart trace\` shows it.
Numbers and names are permanent. Dropping is never silent and never an exception.`,
  ];
  groups.forEach(([from, title], index) => {
    const to = groups[index + 1]?.[0] ?? Number.POSITIVE_INFINITY;
    lines.push('', `## ${title}`, '', '| number | name | meaning |', '| --- | --- | --- |');
    for (const [name, number] of Object.entries(DropReason)) {
      if (name === 'None' || number < from || number >= to) continue;
      const text = DROP_REASON_TEXT[name as keyof typeof DROP_REASON_TEXT];
      lines.push(`| ${number} | \`${dropReasonName(number)}\` | ${cell(text)} |`);
    }
  });
  return lines.join('\n');
}

function httpFaults(): string {
  const rows = Object.values(HttpFault).flatMap((number) => {
    const fact = HTTP_FAULT_FACTS[number];
    if (number === HttpFault.None || fact === undefined) return [];
    return [`| ${number} | \`${fact.name}\` | ${fact.status} | ${cell(fact.text)} |`];
  });
  return `# HTTP faults

Why an HTTP message is refused. Numbers and names are permanent. A faulty request is answered with the status
and its connection is closed; a faulty response of an origin becomes 502.

| number | name | status | meaning |
| --- | --- | --- | --- |
${rows.join('\n')}`;
}

function metrics(): string {
  const rows = METRICS.map(({ name, type, labels, text }) => {
    const written = labels.length === 0 ? name : `${name}{${labels.join(',')}}`;
    return `| \`${written}\` | ${type} | ${cell(text)} |`;
  });
  return `# Metrics

What \`telemetry.metrics\` serves, in the text format of Prometheus. Counters count since the start and only
rise. \`rampart top\` and the control socket show the counters without \`rampart_\` and \`_total\`. The
reasons of \`rampart_drops_total\` are the [drop reasons](drop-reasons.md).

Labels are bounded: on-ramps and off-ramps are those of the config; of the networks the first
${NETWORKS_MAX} that something ended in have labels of their own, and all others together are the account
\`${OTHER}\`, which is no valid name of an account.

| metric | type | meaning |
| --- | --- | --- |
${rows.join('\n')}`;
}

function hooks(): string {
  const text = readFileSync(join(ROOT, 'src/proxy/hooks/hooks.ts'), 'utf8');
  const section = ({ name, comment, code }: Declaration) =>
    [`## ${name}`, comment, `\`\`\`ts\n${code}\n\`\`\``].filter((part) => part !== '').join('\n\n');
  return ['# Hooks', frontComment(text), ...declarationsOf(text).map(section)].join('\n\n');
}

/** Text that stays inside its cell of a table. */
function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}

const SPEED = /(<!-- speed:begin[^>]*-->\n)[\s\S]*?(<!-- speed:end -->)/;

/** README.md with its table of speeds made anew. */
function readmeWithSpeeds(readme: string): string {
  const folder = join(ROOT, 'bench/results');
  const files = existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith('.json')) : [];
  const saved = files
    .sort()
    .map((file) => JSON.parse(readFileSync(join(folder, file), 'utf8')) as SavedResults);
  return readme.replace(SPEED, (_all, begin: string, end: string) => `${begin}${speedTable(saved)}\n${end}`);
}

async function main(): Promise<void> {
  const check = process.argv.includes('--check');
  mkdirSync(FOLDER, { recursive: true });
  const wanted = new Map<string, string>();
  for (const page of PAGES) wanted.set(`docs/reference/${page.file}`, await render(page));
  wanted.set('README.md', readmeWithSpeeds(readFileSync(join(ROOT, 'README.md'), 'utf8')));
  for (const [file, text] of wanted) {
    const path = join(ROOT, file);
    if (existsSync(path) && readFileSync(path, 'utf8') === text) continue;
    if (check) process.exitCode = 1;
    else writeFileSync(path, text);
    const verb = check ? 'differs from the code: run `npm run reference`' : 'written';
    process.stdout.write(`${file}: ${verb}\n`);
  }
}

if (import.meta.main) await main();
