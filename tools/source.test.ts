import assert from 'node:assert/strict';
import { test } from 'node:test';

import { blankOut } from './source.ts';

test('comments and the insides of strings are blank in the code', () => {
  const { code, comments } = blankOut("const a = 'x // y'; // note\n");
  assert.deepEqual(code, ["const a = '      ';        "]);
  assert.equal((comments[0] as string).trim(), '// note');
});

test('a block comment keeps its lines', () => {
  const { lines, code, comments } = blankOut('/**\n * text\n */\nlet a = 1;\n');
  assert.equal(lines.length, 4);
  assert.deepEqual(
    code.map((line) => line.trim()),
    ['', '', '', 'let a = 1;'],
  );
  assert.equal(comments[1], ' * text');
});

test('code inside a template is code, also when templates nest', () => {
  const hole = (inside: string) => ['`a $', `{ ${inside} } enum`, '`'].join('');
  const { code } = blankOut(`f(${hole(`g({ b: ${hole('c')} })`)});\nh();\n`);
  assert.match(code[0] as string, /g\(\{ b: /);
  assert.doesNotMatch(code[0] as string, /enum/);
  assert.equal(code[1], 'h();');
});

test('a regular expression with quotes is no string, a division is no regular expression', () => {
  const { code } = blankOut("const a = /['/]x\\//.test(b);\nconst c = d / e / f; // 'g\nconst h = 1;\n");
  assert.match(code[0] as string, /\.test\(b\);/);
  assert.match(code[1] as string, /d \/ e \/ f;/);
  assert.equal(code[2], 'const h = 1;');
});

test('imports are found in all forms, with their lines', () => {
  const text = [
    "import './a.ts';",
    "import type { B } from '#b/b.ts';",
    'import {',
    '  c,',
    "} from './c.ts';",
    "export { d } from './d.ts';",
    "const e = await import('./e.ts');",
    "// import './no.ts';",
    'const text = "import \'./no.ts\'";',
  ].join('\n');
  assert.deepEqual(blankOut(text).imports, [
    { line: 1, specifier: './a.ts' },
    { line: 2, specifier: '#b/b.ts' },
    { line: 5, specifier: './c.ts' },
    { line: 6, specifier: './d.ts' },
    { line: 7, specifier: './e.ts' },
  ]);
});
