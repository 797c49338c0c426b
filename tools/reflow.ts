/**
 * Breaks the lines of comments that are longer than the style allows; the formatter leaves comments alone.
 * Words move to the next line of the same paragraph. Lists, tables, drawings and `@tags` begin a paragraph
 * and stay as they are.
 *
 *     tools/reflow.ts PATH…      rewrites the files below the paths that git knows
 */
import { writeFileSync } from 'node:fs';
import { join, normalize } from 'node:path';

import { LINE_LENGTH_MAX, treeOnDisk } from './tidy.ts';

const BLOCK_LINE = /^(\s*\* )(\S.*)$/;
const BLOCK_ALONE = /^(\s*)\/\*\* (.*) \*\/$/;
const BLOCK_OPENING = /^(\s*)\/\*\* (?!.*\*\/)(\S.*)$/;
const SLASHES = /^(\s*\/\/ )(\S.*)$/;
const TRAILING = /^(\s*)(\S.*?)\s+(\/\/ .*)$/;
/** What begins a paragraph of its own. */
const PARAGRAPH = /^([-*•|@]|\d+[.)] |```| {2,})/;

/** The text with every comment line at most `LINE_LENGTH_MAX` characters long, where a space allows it. */
export function reflow(text: string): string {
  const lines = text.split('\n');
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] as string;
    if (line.length > LINE_LENGTH_MAX) lines.splice(at, consumed(lines, at), ...broken(lines, at));
  }
  return lines.join('\n');
}

/** Lines that `broken` replaces: the long one, and the next where it continues the paragraph. */
function consumed(lines: readonly string[], at: number): number {
  if (/-{10,}$/.test(lines[at] as string)) return 1;
  return continuation(lines, at) === null ? 1 : 2;
}

function broken(lines: readonly string[], at: number): string[] {
  const line = lines[at] as string;
  const alone = BLOCK_ALONE.exec(line);
  if (alone !== null) return [`${alone[1]}/**`, `${alone[1]} * ${alone[2]}`, `${alone[1]} */`];
  const opening = BLOCK_OPENING.exec(line);
  if (opening !== null) return [`${opening[1]}/**`, `${opening[1]} * ${opening[2]}`];
  const comment = BLOCK_LINE.exec(line) ?? SLASHES.exec(line);
  if (comment === null) return unmixed(line);
  const prefix = comment[1] as string;
  if (/-{10,}$/.test(line)) return [line.slice(0, LINE_LENGTH_MAX)];
  const cut = placeToBreak(line);
  const next = continuation(lines, at);
  // A word longer than the line, or a table: nothing to be done here.
  if (cut < prefix.length || /^\|/.test(comment[2] as string))
    return next === null ? [line] : [line, prefix + next];
  const rest = line.slice(cut + 1);
  // The end of a block stands on a line of its own, so it is never carried along.
  return [line.slice(0, cut), prefix + (next === null ? rest : `${rest} ${next}`)];
}

/** The last space that fits and is not inside a quotation of code. */
function placeToBreak(line: string): number {
  let cut = line.lastIndexOf(' ', LINE_LENGTH_MAX);
  const isQuoted = (at: number) => line.slice(0, at).split('`').length % 2 === 0;
  while (cut > 0 && isQuoted(cut)) cut = line.lastIndexOf(' ', cut - 1);
  return cut > 0 ? cut : line.lastIndexOf(' ', LINE_LENGTH_MAX);
}

/** The words of the next line when it goes on with the same paragraph. */
function continuation(lines: readonly string[], at: number): string | null {
  const pattern = BLOCK_LINE.test(lines[at] as string) ? BLOCK_LINE : SLASHES;
  const here = pattern.exec(lines[at] as string);
  const next = pattern.exec(lines[at + 1] ?? '');
  if (here === null || next === null || next[1] !== here[1]) return null;
  return PARAGRAPH.test(next[2] as string) ? null : (next[2] as string);
}

/** A comment behind code goes above it. */
function unmixed(line: string): string[] {
  const match = TRAILING.exec(line);
  if (match === null || /['"`].*\/\/.*['"`]/.test(line)) return [line];
  return [`${match[1]}${match[3]}`, `${match[1]}${match[2]}`];
}

function main(): void {
  const root = normalize(join(import.meta.dirname, '..'));
  const tree = treeOnDisk(root);
  const paths = process.argv.slice(2).map((path) => normalize(path).replace(/\/$/, ''));
  for (const file of tree.files) {
    if (!/\.(ts|mjs)$/.test(file)) continue;
    if (!paths.some((path) => path === '.' || file === path || file.startsWith(`${path}/`))) continue;
    const before = tree.read(file);
    const after = reflow(before);
    if (after !== before) writeFileSync(join(root, file), after);
  }
}

if (import.meta.main) main();
