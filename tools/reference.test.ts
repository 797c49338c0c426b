import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DROP_REASON_TEXT, DropReason, dropReasonName } from '#base/drop-reason.ts';
import { ERROR_CODES } from '#base/error.ts';

import { PAGES, render } from './reference.ts';

const pageOf = async (file: string) => {
  const page = PAGES.find((entry) => entry.file === file);
  assert.ok(page);
  return render(page);
};

test('every page in Markdown says where it comes from and has a title', async () => {
  for (const page of PAGES) {
    if (!page.file.endsWith('.md')) continue;
    const text = await render(page);
    assert.ok(text.startsWith(`<!-- Generated from \`${page.source}\``), page.file);
    assert.match(text, /^# /m);
    assert.doesNotMatch(text, /\| undefined \|/);
  }
});

test('every error code stands in its page', async () => {
  const text = await pageOf('errors.md');
  for (const code of Object.keys(ERROR_CODES)) assert.ok(text.includes(`\`${code}\``), code);
});

test('every drop reason stands in its page exactly once, with its number', async () => {
  const text = await pageOf('drop-reasons.md');
  for (const [name, number] of Object.entries(DropReason)) {
    if (name === 'None') continue;
    const row = `| ${number} | \`${dropReasonName(number)}\` | `;
    assert.equal(text.split(row).length, 2, name);
  }
  assert.equal(Object.keys(DROP_REASON_TEXT).length, Object.keys(DropReason).length - 1);
});
