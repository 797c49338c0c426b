import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';

const WATCHDOG = new URL('test-watchdog.ts', import.meta.url).href;

test('a file that never ends fails, and says what it waits for', (t) => {
  const result = runTestFile(t, 1, "test('ok', () => { setInterval(() => {}, 1000); });");
  assert.equal(result.status, 1);
  assert.match(result.stdout, /did not end within 1 s; it waits for: .*Timeout/);
});

test('a file that ends is left alone', (t) => {
  const result = runTestFile(t, 10, "test('ok', () => {});");
  assert.equal(result.status, 0, result.stdout);
});

/** Runs a file with `code` by the test runner, which gives it `seconds`. */
function runTestFile(t: TestContext, seconds: number, code: string) {
  const folder = mkdtempSync(join(tmpdir(), 'rampart-watchdog-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'some.test.mjs');
  writeFileSync(file, `import { test } from 'node:test';\n${code}\n`);
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
  return spawnSync(process.execPath, [`--import=${WATCHDOG}`, '--test', '--test-reporter=spec', file], {
    env: { ...environment, TEST_FILE_SECONDS_MAX: String(seconds) },
    encoding: 'utf8',
    timeout: 60_000,
  });
}
