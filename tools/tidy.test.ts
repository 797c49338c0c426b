import assert from 'node:assert/strict';
import { test } from 'node:test';

import { LAYERS, layerOf } from './layers.ts';
import { checkFrontComments, type Finding, LINE_LENGTH_MAX, tidy, type Tree } from './tidy.ts';

test('a small tree that keeps every rule has no finding', () => {
  assert.deepEqual(rulesOf({ 'src/base/base.ts': '/** Front. */\nexport const ONE = 1;\n' }), []);
});

test('an import upwards or to a sibling is refused with the reason of the target', () => {
  assert.deepEqual(
    rulesOf({ 'src/packet/packet.ts': "/** P. */\nimport { a } from '#config/config.ts';\n" }),
    ['layer'],
  );
  const [finding] = findingsOf({ 'src/packet/packet.ts': "/** P. */\nimport '#io/io.ts';\n" });
  assert.equal(finding?.line, 2);
  assert.match(finding?.advice ?? '', /packet must not import io, its sibling: io moves bytes/);
});

test('an import downwards or within a layer is allowed', () => {
  const text = "/** I. */\nimport { a } from '#base/ip.ts';\nimport { b } from '#io/ffi/ffi.ts';\n";
  assert.deepEqual(rulesOf({ 'src/io/io.ts': text }), []);
});

test('two protocols are two layers', () => {
  const text = "/** H. */\nimport { a } from '#protocol/gue/gue.ts';\n";
  assert.deepEqual(rulesOf({ 'src/protocol/http/http.ts': text }), ['layer']);
});

test('the ramps meet only in proxy.ts', () => {
  const text = "/** O. */\nimport { a } from '#proxy/offramp/offramp.ts';\n";
  assert.deepEqual(rulesOf({ 'src/proxy/onramp/onramp.ts': text }), ['layer']);
  assert.deepEqual(rulesOf({ 'src/proxy/proxy.ts': text }), []);
});

test('a folder without a rank may not be imported', () => {
  assert.deepEqual(rulesOf({ 'src/cli/cli.ts': "/** C. */\nimport '#elsewhere/elsewhere.ts';\n" }), [
    'layer',
  ]);
});

test('testing is imported by tests only', () => {
  const text = "/** B. */\nimport { a } from '#testing/world.ts';\n";
  assert.deepEqual(rulesOf({ 'src/base/base.ts': text }), ['layer']);
  assert.deepEqual(
    rulesOf({ 'src/base/base.ts': '/** B. */\n', 'src/base/base.test.ts': `${text}import './base.ts';\n` }),
    [],
  );
  assert.deepEqual(rulesOf({ 'bench/http.ts': text }), []);
});

test('src is crossed by "#" and nothing else', () => {
  const up = findingsOf({ 'src/io/io.ts': "/** I. */\nimport { a } from '../base/ip.ts';\n" });
  assert.match(up[0]?.advice ?? '', /write #base\/ip\.ts/);
  assert.deepEqual(rulesOf({ 'src/io/io.ts': "/** I. */\nimport { a } from '#io/arena.ts';\n" }), [
    'import-form',
  ]);
  assert.deepEqual(rulesOf({ 'bench/b.ts': "import { a } from '../src/base/ip.ts';\n" }), ['import-form']);
  assert.deepEqual(rulesOf({ 'bench/b.ts': "import { a } from './c';\n" }), ['import-form']);
});

test('only src/io/ffi imports node:ffi', () => {
  const text = "/** F. */\nimport ffi from 'node:ffi';\n";
  assert.deepEqual(rulesOf({ 'src/io/ffi/ffi.ts': text, 'src/io/io.ts': '/** I. */\n' }), []);
  assert.deepEqual(rulesOf({ 'src/io/io.ts': text }), ['banned']);
  assert.deepEqual(rulesOf({ 'bench/b.ts': text }), ['banned']);
});

test('a pure core has no clock, and naming one in a comment is no clock', () => {
  const text = '/** Like Date.now, but pure. */\nexport const a = Date.now();\n';
  const [finding, ...more] = findingsOf({ 'src/packet/packet.ts': text });
  assert.equal(finding?.rule, 'banned');
  assert.equal(finding?.line, 2);
  assert.equal(more.length, 0);
});

test('syntax that cannot be erased is refused', () => {
  assert.deepEqual(rulesOf({ 'tools/a.ts': 'enum A {}\n' }), ['no-enum']);
  assert.deepEqual(rulesOf({ 'tools/a.ts': 'export namespace A {}\n' }), ['no-namespace']);
  assert.deepEqual(rulesOf({ 'tools/a.ts': 'class A {\n  constructor(private readonly b: B) {}\n}\n' }), [
    'no-parameter-property',
  ]);
  assert.deepEqual(rulesOf({ 'tools/a.ts': 'class A {\n  private b = 1;\n}\n' }), ['no-private']);
  assert.deepEqual(rulesOf({ 'tools/a.ts': "const text = 'enum A';\n" }), []);
});

test('an export without a doc comment is refused; overloads and tables of constants share one', () => {
  assert.deepEqual(rulesOf({ 'src/base/base.ts': '/** B. */\n\nexport function a(): void {}\n' }), [
    'export-doc',
  ]);
  const shared = '/** Octets. */\nexport const A = 1;\nexport const B = 2;\n';
  assert.deepEqual(rulesOf({ 'src/base/base.ts': shared }), []);
});

test('barrels and default exports are refused, except in src/index.ts', () => {
  const barrel = "/** B. */\nexport {\n  a,\n} from './ip.ts';\n";
  assert.deepEqual(rulesOf({ 'src/base/base.ts': barrel }), ['no-barrel']);
  assert.deepEqual(rulesOf({ 'src/base/base.ts': "/** B. */\nexport * from './ip.ts';\n" }), ['no-barrel']);
  assert.deepEqual(rulesOf({ 'src/index.ts': barrel }), []);
  assert.deepEqual(rulesOf({ 'src/base/base.ts': '/** B. */\nexport default 1;\n' }), ['no-default-export']);
});

test('every folder of src has its front file, which opens with a doc comment', () => {
  assert.deepEqual(rulesOf({ 'src/base/ip.ts': '/** I. */\n' }), ['front-file']);
  const findings = checkFrontComments(treeOf({ 'src/base/base.ts': 'export {};\n' }));
  assert.equal(findings[0]?.rule, 'front-file');
});

test('names: kebab-case, and no folder that names no subject', () => {
  assert.deepEqual(rulesOf({ 'tools/aFile.ts': '' }), ['file-name']);
  assert.deepEqual(rulesOf({ 'tools/utils/a.ts': '' }), ['folder-name']);
});

test('a test stands beside the code that it tests', () => {
  const base = { 'src/base/base.ts': '/** B. */\n' };
  assert.deepEqual(rulesOf({ ...base, 'src/base/more.test.ts': "import { a } from './base.ts';\n" }), []);
  assert.deepEqual(rulesOf({ ...base, 'src/base/other.test.ts': "import { a } from '#io/io.ts';\n" }), [
    'test-place',
  ]);
});

test('long lines and long files are refused, rather long files are named', () => {
  assert.deepEqual(rulesOf({ 'tools/a.ts': `// ${'x'.repeat(LINE_LENGTH_MAX)}\n` }), ['line-length']);
  assert.equal(findingsOf({ 'tools/a.ts': '\n'.repeat(700) })[0]?.severity, 'warning');
  assert.equal(findingsOf({ 'tools/a.ts': '\n'.repeat(1100) })[0]?.severity, 'error');
});

test('a mark of unfinished work is refused in a comment and free in a string', () => {
  const mark = 'TO'.concat('DO');
  assert.deepEqual(rulesOf({ 'tools/a.ts': `// ${mark}: finish\n` }), ['unfinished']);
  assert.deepEqual(rulesOf({ 'tools/a.ts': `const a = '${mark}';\n` }), []);
});

test('a rule is broken on purpose where a comment gives a reason', () => {
  const text = '// tidy: allow no-enum: a table of a foreign program has this form\nenum A {}\nenum B {}\n';
  const findings = findingsOf({ 'tools/a.ts': text });
  assert.deepEqual(
    findings.map(({ line }) => line),
    [3],
  );
  assert.deepEqual(rulesOf({ 'tools/a.ts': 'enum A {} // tidy: allow no-enum:\n' }), ['no-enum']);
});

test('a page may name only files that exist', () => {
  const page = 'See [the style](STYLE.md), `src/base/none.ts` and `tools/a.ts`.\n```\n`src/none.ts`\n```\n';
  assert.deepEqual(rulesOf({ 'README.md': page, 'tools/a.ts': '' }), ['dead-link', 'dead-path']);
});

test('versions are exact', () => {
  const manifest = '{\n  "dependencies": {\n    "a": "1.2.3",\n    "b": "^1.2.3"\n  }\n}\n';
  const [finding, ...more] = findingsOf({ 'package.json': manifest });
  assert.equal(finding?.rule, 'exact-version');
  assert.equal(finding?.line, 4);
  assert.equal(more.length, 0);
});

test('the layer of a file is the longest folder that holds it', () => {
  assert.equal(layerOf('src/proxy/hooks/hooks.ts')?.folder, 'proxy/hooks');
  assert.equal(layerOf('src/proxy/proxy.ts')?.folder, 'proxy');
  assert.equal(layerOf('src/control/server/server.ts')?.folder, 'control/server');
  assert.equal(layerOf('src/control/store/store.ts')?.folder, 'control/store');
  assert.equal(layerOf('src/control/store/store.ts'), layerOf('src/control/store/other.ts'));
  assert.equal(layerOf('src/elsewhere/x.ts'), null);
});

test('every layer says why', () => {
  for (const layer of LAYERS) assert.ok(layer.reason.length > 20, layer.folder);
});

function treeOf(files: Record<string, string>): Tree {
  return {
    files: Object.keys(files).sort(),
    read: (file) => files[file] ?? '',
    exists: (file) => file in files,
  };
}

function findingsOf(files: Record<string, string>): Finding[] {
  return tidy(treeOf(files));
}

function rulesOf(files: Record<string, string>): string[] {
  return findingsOf(files).map(({ rule }) => rule);
}
