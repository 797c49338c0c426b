import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { RampartError } from '#base/error.ts';

import { checkHooks, loadHooks } from './load.ts';

const folder = mkdtempSync(join(tmpdir(), 'rampart-hooks-'));
after(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

function isHooksError(pattern: RegExp) {
  return (error: unknown) =>
    error instanceof RampartError && error.code === 'RAMP_HOOKS' && pattern.test(error.message);
}

test('a TypeScript file anywhere is loaded, and "rampart" in it is this program', async () => {
  const file = write(
    'good.ts',
    `import { defineHooks, type FlowVerdict } from 'rampart';
     const drop: FlowVerdict = { action: 'drop' };
     export default defineHooks({ flow: () => drop });`,
  );
  const hooks = await loadHooks(file);
  assert.deepEqual(hooks.flow?.({} as never), { action: 'drop' });
});

test('a file that is missing, broken or throws is refused with the reason', async () => {
  await assert.rejects(loadHooks(join(folder, 'none.ts')), isHooksError(/there is no hooks file .*none\.ts/));
  await assert.rejects(loadHooks(write('broken.ts', 'export default {{')), isHooksError(/cannot be loaded/));
  await assert.rejects(
    loadHooks(write('enum.ts', 'enum A { B }\nexport default {};')),
    isHooksError(/cannot be loaded/),
  );
  await assert.rejects(loadHooks(write('throws.ts', 'throw new Error("no key");')), isHooksError(/no key/));
  await assert.rejects(
    loadHooks(write('empty.ts', 'export const flow = 1;')),
    isHooksError(/no default export/),
  );
});

test('an unknown hook is an error with the nearest name', () => {
  assert.throws(
    () => checkHooks({ requets: () => {} }, 'h.ts'),
    isHooksError(/no hook "requets"; did you mean "request"/),
  );
  assert.throws(
    () => checkHooks({ wibble: () => {} }, 'h.ts'),
    isHooksError(/no hook "wibble"; expected only start, /),
  );
});

test('a hook that this version does not call is an error, for it would decide nothing', () => {
  for (const name of ['ssh', 'dns']) {
    assert.throws(
      () => checkHooks({ [name]: () => {} }, 'h.ts'),
      isHooksError(/is not called by this version/),
    );
  }
});

test('all mistakes are told at once', () => {
  assert.throws(
    () => checkHooks({ flow: 7, ssh: () => {}, endd: () => {} }, 'h.ts'),
    isHooksError(/"flow" is a number[\s\S]*"ssh" is not called[\s\S]*"endd"; did you mean "end"/),
  );
  for (const value of [undefined, null, [], 'x', () => {}]) {
    assert.throws(() => checkHooks(value, 'h.ts'), isHooksError(/default export/));
  }
});
