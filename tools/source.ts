/**
 * Reads TypeScript just far enough to tell code, comments and strings apart. Not a parser: it needs no types
 * and reads the whole repository in well under a second.
 */

/** A file taken apart; all three lists have one entry per line. */
export interface Source {
  readonly lines: readonly string[];
  /** The lines with comments, and the insides of strings and regular expressions, replaced by spaces. */
  readonly code: readonly string[];
  /** The comments alone. */
  readonly comments: readonly string[];
  /** Static and dynamic imports and re-exports with a literal specifier. */
  readonly imports: readonly { readonly line: number; readonly specifier: string }[];
}

type State = 'code' | 'line-comment' | 'block-comment' | 'single' | 'double' | 'template' | 'regexp';

/** Takes a file apart. */
export function blankOut(text: string): Source {
  const { code, comments } = separate(text);
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  const codeLines = code.split('\n').slice(0, lines.length);
  return {
    lines,
    code: codeLines,
    comments: comments.split('\n').slice(0, lines.length),
    imports: imports(code, text),
  };
}

function separate(text: string): { code: string; comments: string } {
  const scanner = new Scanner(text);
  while (!scanner.done) scanner.step();
  return { code: scanner.code.join(''), comments: scanner.comments.join('') };
}

/** Walks over the text one character or token at a time; `${` inside a template leads back to code. */
class Scanner {
  readonly code: string[] = [];
  readonly comments: string[] = [];
  readonly #text: string;
  #at = 0;
  #state: State = 'code';
  /** Depth of braces at which each open template goes on. */
  readonly #templates: number[] = [];
  #depth = 0;
  #inClass = false;
  /** The last character of code that is not a space: tells a division from a regular expression. */
  #last = '';

  constructor(text: string) {
    this.#text = text;
  }

  get done(): boolean {
    return this.#at >= this.#text.length;
  }

  step(): void {
    if (this.#state === 'code') this.#stepCode();
    else if (this.#state === 'line-comment' || this.#state === 'block-comment') this.#stepComment();
    else this.#stepString();
  }

  #take(count: number, kind: 'code' | 'comment' | 'blank'): void {
    const piece = this.#text.slice(this.#at, this.#at + count);
    const blank = piece.replace(/[^\n]/g, ' ');
    this.code.push(kind === 'code' ? piece : blank);
    this.comments.push(kind === 'comment' ? piece : blank);
    this.#at += count;
  }

  #stepCode(): void {
    const one = this.#text[this.#at] as string;
    const two = this.#text.slice(this.#at, this.#at + 2);
    if (two === '//' || two === '/*') {
      this.#state = two === '//' ? 'line-comment' : 'block-comment';
      this.#take(2, 'comment');
      return;
    }
    this.#enter(one);
    if (one.trim() !== '') this.#last = one;
    this.#take(1, 'code');
  }

  #enter(one: string): void {
    if (one === "'") this.#state = 'single';
    else if (one === '"') this.#state = 'double';
    else if (one === '`') this.#state = 'template';
    else if (one === '/' && this.#regexpMayStart()) {
      this.#state = 'regexp';
      this.#inClass = false;
    } else if (one === '{') this.#depth++;
    else if (one === '}' && this.#templates.at(-1) === this.#depth) {
      this.#templates.pop();
      this.#state = 'template';
    } else if (one === '}') this.#depth--;
  }

  #regexpMayStart(): boolean {
    if ('(,=:[!&|?{};+-*%<>~^'.includes(this.#last) || this.#last === '') return true;
    return /(^|[^\w$.])(return|typeof|case|in|of|throw|await|yield)\s*$/.test(
      this.#text.slice(this.#at - 12, this.#at),
    );
  }

  #stepComment(): void {
    if (this.#state === 'line-comment') {
      const end = this.#text.indexOf('\n', this.#at);
      this.#take((end < 0 ? this.#text.length : end) - this.#at, 'comment');
    } else {
      const end = this.#text.indexOf('*/', this.#at);
      this.#take((end < 0 ? this.#text.length : end + 2) - this.#at, 'comment');
    }
    this.#state = 'code';
  }

  #stepString(): void {
    const one = this.#text[this.#at] as string;
    if (one === '\\') this.#take(2, 'blank');
    else if (this.#state === 'template') this.#stepTemplate(one);
    else if (this.#state === 'regexp') this.#stepRegexp(one);
    else this.#close(one, this.#state === 'single' ? "'" : '"');
  }

  #stepTemplate(one: string): void {
    if (one !== '$' || this.#text[this.#at + 1] !== '{') {
      this.#close(one, '`');
      return;
    }
    this.#templates.push(this.#depth);
    this.#state = 'code';
    this.#last = '{';
    this.#take(2, 'blank');
  }

  #stepRegexp(one: string): void {
    if (one === '[') this.#inClass = true;
    if (one === ']') this.#inClass = false;
    if (this.#inClass) this.#take(1, 'blank');
    else this.#close(one, '/');
  }

  #close(one: string, quote: string): void {
    // A quoted string or a regular expression never crosses a line: a stray quote costs one line, not the
    // file.
    if (one !== quote && !(one === '\n' && quote !== '`')) {
      this.#take(1, 'blank');
      return;
    }
    this.#state = 'code';
    this.#last = quote;
    this.#take(1, 'code');
  }
}

const IMPORT = /(?:^|\n)[ \t]*(?:import|export)\b(?:[^'"`;()]*?\bfrom)?\s*(['"])|\bimport\(\s*(['"])/g;

/** The specifiers stand in the text at the places where the code has quotes with blanks between. */
function imports(code: string, text: string): { line: number; specifier: string }[] {
  const found: { line: number; specifier: string }[] = [];
  for (const match of code.matchAll(IMPORT)) {
    const start = match.index + match[0].length;
    const end = code.indexOf((match[1] ?? match[2]) as string, start);
    if (end < 0) continue;
    found.push({ line: code.slice(0, start).split('\n').length, specifier: text.slice(start, end) });
  }
  return found;
}
