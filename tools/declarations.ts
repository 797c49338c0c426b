/** Takes the exported declarations of a TypeScript file with their doc comments, for reference pages. */
import { blankOut } from './source.ts';

/** One exported declaration. */
export interface Declaration {
  readonly name: string;
  /** The doc comment's text without its stars; empty when there is none. */
  readonly comment: string;
  /** The declaration as it stands in the file; of a function, its head only. */
  readonly code: string;
}

const HEAD = /^export\s+(?:async\s+)?(function|class|const|interface|type)\s+([\w$]+)/;

/** All exported declarations, in the order of the file. */
export function declarationsOf(text: string): Declaration[] {
  const { lines, code } = blankOut(text);
  const found: Declaration[] = [];
  code.forEach((line, index) => {
    const match = HEAD.exec(line);
    if (match === null) return;
    const isFunction = match[1] === 'function';
    const end = endOf(code, index, isFunction);
    const body = lines.slice(index, end + 1).join('\n');
    const shown = isFunction ? body.replace(/\s*\{\s*$/, ';') : body;
    found.push({ name: match[2] as string, comment: commentAbove(lines, index), code: shown });
  });
  return found;
}

/** The comment that opens a file, as text. */
export function frontComment(text: string): string {
  const lines = text.split('\n');
  const end = lines.findIndex((line) => line.includes('*/'));
  return text.startsWith('/**') && end >= 0 ? plain(lines.slice(0, end + 1)) : '';
}

/** Last line of a declaration: where its brackets are closed and the statement ends. */
function endOf(code: readonly string[], start: number, headOnly: boolean): number {
  let depth = 0;
  for (let at = start; at < code.length; at++) {
    const line = (code[at] as string).trimEnd();
    if (headOnly && depth + balance(line) === 1 && line.endsWith('{')) return at;
    depth += balance(line);
    if (depth > 0) continue;
    // A union that goes on in the next line has no end yet.
    const next = (code.slice(at + 1).find((later) => later.trim() !== '') ?? '').trim();
    if (!/[=|&,]$/.test(line) && !/^[|&]/.test(next)) return at;
  }
  return code.length - 1;
}

function balance(line: string): number {
  return (line.match(/[{([]/g)?.length ?? 0) - (line.match(/[})\]]/g)?.length ?? 0);
}

function commentAbove(lines: readonly string[], index: number): string {
  if (!(lines[index - 1] ?? '').trimEnd().endsWith('*/')) return '';
  let start = index - 1;
  while (start > 0 && !(lines[start] as string).includes('/**')) start--;
  return plain(lines.slice(start, index));
}

function plain(lines: readonly string[]): string {
  return lines
    .map((line) =>
      line
        .replace(/^\s*\/\*\* ?/, '')
        .replace(/\s*\*\/\s*$/, '')
        .replace(/^\s*\* ?/, ''),
    )
    .join('\n')
    .trim();
}
