/** A verdict outside its union does not compile: proved by the compiler, on the fixture in `types/`. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');
const FIXTURE = join(import.meta.dirname, 'types/wrong-verdicts.ts');

/** Output of the compiler on one file, with the options of the repository. */
function compile(file: string): { readonly code: number | null; readonly output: string } {
  const config = JSON.parse(readFileSync(join(ROOT, 'tsconfig.json'), 'utf8')) as {
    compilerOptions: Record<string, unknown>;
  };
  const project = `${file}.tsconfig.json`;
  writeFileSync(project, JSON.stringify({ compilerOptions: config.compilerOptions, files: [file] }));
  try {
    const compiler = join(ROOT, 'node_modules/typescript/bin/tsc');
    const result = spawnSync(process.execPath, [compiler, '-p', project], {
      cwd: ROOT,
      encoding: 'utf8',
      timeout: 120_000,
    });
    return { code: result.status, output: result.stdout + result.stderr };
  } finally {
    rmSync(project);
  }
}

test('every wrong verdict of the fixture is refused by the compiler', () => {
  const { code, output } = compile(FIXTURE);
  assert.equal(output, '');
  assert.equal(code, 0);
});

test('the proof itself can fail: without its marks each wrong verdict is an error at its line', () => {
  const lines = readFileSync(FIXTURE, 'utf8').split('\n');
  const wrong = lines.flatMap((line, index) => (line.includes('@ts-expect-error') ? [index + 2] : []));
  assert.ok(wrong.length >= 15);
  const copy = join(import.meta.dirname, 'types/unmarked.ts');
  writeFileSync(copy, lines.map((line) => line.replace('@ts-expect-error', 'unmarked:')).join('\n'));
  try {
    const { output } = compile(copy);
    const reported = new Set([...output.matchAll(/unmarked\.ts\((\d+),/g)].map((match) => Number(match[1])));
    assert.deepEqual(
      [...reported].sort((a, b) => a - b),
      wrong,
    );
  } finally {
    rmSync(copy);
  }
});
