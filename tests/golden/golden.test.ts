/**
 * What a person sees, word for word. Each file of `transcripts/` holds commands (`$ rampart …`) with the
 * output expected of them; `exit N` at the end of one says that its exit code is not 0. Paths in them start
 * from this folder.
 *
 * `UPDATE_GOLDEN=1 npm test tests/golden` writes what comes out as what is expected: read the difference
 * before you keep it.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';

import { runCommandLine } from '#cli/cli.ts';

const FOLDER = import.meta.dirname;
const TRANSCRIPTS = join(FOLDER, 'transcripts');

before(() => process.chdir(FOLDER));

for (const file of readdirSync(TRANSCRIPTS).toSorted()) {
  test(`the transcript ${file} is what comes out`, async () => {
    const path = join(TRANSCRIPTS, file);
    const expected = readFileSync(path, 'utf8');
    const actual = await replay(expected);
    if (process.env.UPDATE_GOLDEN === '1') writeFileSync(path, actual);
    else assert.equal(actual, expected);
  });
}

/** Runs the commands of a transcript, and writes the transcript anew with what they print. */
async function replay(transcript: string): Promise<string> {
  const lines = transcript.split('\n');
  const parts: string[] = [];
  for (const line of lines.filter((text) => text.startsWith('#'))) parts.push(`${line}\n`);
  for (const line of lines) {
    if (!line.startsWith('$ rampart ')) continue;
    const { output, code } = await runCaptured(line.slice('$ rampart '.length).split(' '));
    parts.push(`\n${line}\n${output}${code === 0 ? '' : `exit ${code}\n`}`);
  }
  assert.ok(parts.length > 1, 'a transcript has commands');
  return parts.join('').trimStart();
}

async function runCaptured(
  arguments_: readonly string[],
): Promise<{ readonly output: string; readonly code: number }> {
  let output = '';
  const write = (text: string): void => {
    output += text;
  };
  const terminal = {
    out: write,
    error: write,
    colour: false,
    interactive: false,
    columns: () => 100,
    rows: () => 24,
  };
  const code = await runCommandLine(arguments_, terminal);
  // The folder of the checkout is not the same everywhere.
  return { output: output.replaceAll(`${FOLDER}/`, ''), code };
}
