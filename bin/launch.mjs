/**
 * What `npm start`, `npm test` and the other scripts of package.json call: installs what is missing, then
 * starts the pinned Node on the right program. Everything after the verb is passed on.
 */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { ensureInstalled, ROOT, refuse, requireSupportedPlatform, run, runProgram } from './runtime.mjs';

const TEST_GLOBS = [
  'src/**/*.test.ts',
  'fuzz/**/*.test.ts',
  'tools/**/*.test.ts',
  'tests/**/*.test.ts',
  'examples/**/*.test.ts',
];
// Two files at a time even on two cores: many tests wait for sockets. More would make the slow ones miss
// their limits. A test that hangs fails after two minutes, a file whose process does not end by the watchdog.
const TEST_FLAGS = [
  `--import=${new URL('../tools/test-watchdog.ts', import.meta.url).href}`,
  '--test',
  '--test-concurrency=2',
  '--test-timeout=120000',
  '--test-reporter=spec',
];

const TYPESCRIPT = 'node_modules/typescript/bin/tsc';
// The binary itself: its wrapper package asks for binaries of systems that Rampart does not run on.
const BIOME = join(ROOT, `node_modules/@biomejs/cli-linux-${process.arch}/biome`);
const CHECKS = [
  { name: 'rules of this repository (tools/tidy.ts)', start: () => script('tools/tidy.ts') },
  { name: 'reference pages (tools/reference.ts)', start: () => script('tools/reference.ts', '--check') },
  { name: 'types (tsc)', start: () => script(TYPESCRIPT, '-p', '.') },
  { name: 'lint and format (biome)', start: () => biome('check', '--error-on-warnings', '.') },
];

const VERBS = {
  start: (rest) => run([join(ROOT, 'src/cli/main.ts'), 'start', ...rest]),
  test: (rest) => script(...TEST_FLAGS, ...testArguments(rest)),
  bench: (rest) => run([join(ROOT, 'bench/bench.ts'), ...rest]),
  check: () => runChecks(),
  ok: async (rest) => (await runChecks()) || VERBS.test(rest),
  format: (rest) => format(rest.length > 0 ? rest : ['.']),
  reference: (rest) => script('tools/reference.ts', ...rest),
};

/** Flags go to the test runner as they are; a folder means its tests; no file at all means all of them. */
function testArguments(rest) {
  const flags = rest.filter((argument) => argument.startsWith('-'));
  const files = rest.filter((argument) => !argument.startsWith('-'));
  const globs = files.map((file) => {
    const path = join(ROOT, file);
    return existsSync(path) && statSync(path).isDirectory() ? join(file, '**/*.test.ts') : file;
  });
  return [...flags, ...(globs.length > 0 ? globs : TEST_GLOBS)];
}

/** The formatter keeps its hands off comments, so a small program breaks their long lines first. */
async function format(paths) {
  const code = await script('tools/reflow.ts', ...paths);
  return (await biome('check', '--write', ...paths)) || code;
}

function script(...arguments_) {
  return run(arguments_, { cwd: ROOT });
}

function biome(...arguments_) {
  return runProgram(BIOME, [...arguments_, '--log-level=warn'], { cwd: ROOT });
}

/** Runs every check, also after a failed one, so that one run shows all there is to repair. */
async function runChecks() {
  let worst = 0;
  for (const check of CHECKS) {
    const startedMs = Date.now();
    const code = await check.start();
    const seconds = ((Date.now() - startedMs) / 1000).toFixed(1);
    process.stdout.write(`${code === 0 ? '✔' : '✖'} ${check.name} (${seconds} s)\n`);
    worst = Math.max(worst, code);
  }
  return worst;
}

const [verb = '', ...rest] = process.argv.slice(2);
const action = Object.hasOwn(VERBS, verb) ? VERBS[verb] : null;
if (action === null)
  refuse(`unknown verb "${verb}": one of ${Object.keys(VERBS).join(', ')} was expected`, 2);
requireSupportedPlatform();
ensureInstalled(ROOT, { development: verb !== 'start' });
process.exitCode = await action(rest);
