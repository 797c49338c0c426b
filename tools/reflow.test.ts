import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { reflow } from './reflow.ts';
import { LINE_LENGTH_MAX } from './tidy.ts';

const WORDS = 'word '.repeat(30).trim();

test('a text with short lines stays as it is', () => {
  const text = '/** Short. */\nexport const a = 1; // one\n';
  assert.equal(reflow(text), text);
});

test('a long one-line doc comment becomes a block', () => {
  const lines = reflow(`  /** ${WORDS} */\n  a(): void;\n`).split('\n');
  assert.equal(lines[0], '  /**');
  assert.match(lines[1] as string, /^ {3}\* word/);
  assert.equal(lines.at(-3), '   */');
});

test('words move into the next line of the paragraph, not into a list', () => {
  const moved = reflow(`// ${WORDS}\n// next\n`).split('\n');
  assert.match(moved[1] as string, /word next$/);
  const list = reflow(`/**\n * ${WORDS}\n * - item\n */\n`).split('\n');
  assert.equal(list[3], ' * - item');
});

test('a comment behind long code goes above it', () => {
  const code = `const value = f(${'a, '.repeat(30)}b);`;
  assert.equal(reflow(`${code} // why\n`), `// why\n${code}\n`);
});

test('quoted code is not torn apart', () => {
  const lines = reflow(`// ${'x'.repeat(98)} see \`arena.address + offset\` there\n`).split('\n');
  assert.ok(lines.some((line) => line.includes('`arena.address + offset`')));
});

test('no word is lost, no line is long, and a second pass changes nothing', () => {
  const word = fc.stringMatching(/^[a-z]{1,12}[.,]?$/);
  fc.assert(
    fc.property(fc.array(word, { minLength: 1, maxLength: 120 }), (words) => {
      const result = reflow(`/**\n * ${words.join(' ')}\n */\n`);
      assert.deepEqual(result.match(/[a-z]+[.,]?/g), words);
      for (const line of result.split('\n')) assert.ok(line.length <= LINE_LENGTH_MAX);
      assert.equal(reflow(result), result);
    }),
  );
});
