/**
 * What the guide shows works: its configs are right, its hooks compile to hooks, its transcripts are what
 * comes out.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { runCommandLine } from '#cli/cli.ts';
import { loadHooks } from '#proxy/hooks/load.ts';

const GUIDE = join(import.meta.dirname, '../../docs/guide');

/** The fenced blocks of a page in one language. */
function blocks(page: string, language: string): string[] {
  const text = readFileSync(join(GUIDE, page), 'utf8');
  const found = text.matchAll(/^```([a-z]*)\n([\s\S]*?)^```$/gm);
  return [...found].flatMap(([, name, body]) => (name === language ? [body as string] : []));
}

async function run(arguments_: readonly string[]): Promise<string> {
  let output = '';
  const write = (text: string): void => {
    output += text;
  };
  const quiet = { colour: false, interactive: false, columns: () => 100, rows: () => 24 };
  await runCommandLine(arguments_, { out: write, error: write, ...quiet });
  return output;
}

for (const page of readdirSync(GUIDE).filter((file) => file.endsWith('.md'))) {
  test(`configs and hooks of ${page} are right, and explanations come out as shown`, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'rampart-guide-'));
    try {
      const file = join(folder, 'rampart.yaml');
      for (const [index, hooks] of blocks(page, 'ts').entries()) {
        const path = join(folder, index === 0 ? 'hooks.ts' : `hooks-${index}.ts`);
        writeFileSync(path, hooks);
        assert.ok(await loadHooks(path));
      }
      for (const config of blocks(page, 'yaml')) {
        if (!config.includes('on_ramps:')) continue;
        writeFileSync(file, config);
        assert.match(await run(['check', file]), /^ok /);
      }
      // Commands stand in shell blocks, what they print in the block without a language that follows.
      const command = blocks(page, 'sh').find((text) => text.startsWith('rampart explain'));
      const shown = blocks(page, '').find((text) => / to \S+ port /.test(text));
      if (command === undefined) return;
      const words = command.trim().split(' ').slice(1);
      assert.equal(await run(words.map((word) => (word === 'rampart.yaml' ? file : word))), shown);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}
