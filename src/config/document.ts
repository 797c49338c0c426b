import { isAlias, isMap, isScalar, isSeq, LineCounter, Document, type Node, parseDocument } from 'yaml';

import type { Mistake } from './mistake.ts';

/** Keys and indexes from the root of the document to a value. */
export type Path = readonly (string | number)[];

/**
 * A YAML file as plain values, with the place of each of them, and the list of what is wrong so far. The
 * parts of the config read their values from here and report here, so that a user sees all mistakes at once.
 */
export class ConfigDocument {
  /** The file as the user named it. */
  readonly file: string;
  /** Plain value of the whole document; undefined when the YAML itself is broken. */
  readonly value: unknown;
  readonly #mistakes: Mistake[] = [];
  readonly #warnings: Mistake[] = [];
  readonly #lines = new LineCounter();
  readonly #document: Document;

  /** Parses `text`; mistakes of YAML itself are in `mistakes` afterwards. Never throws. */
  constructor(file: string, text: string) {
    this.file = file;
    this.#document = this.#parse(text);
    for (const error of this.#document.errors) {
      // Only the first line: the rest can quote the file, which may hold a secret.
      this.#push(this.#mistakes, error.pos[0], '', `not valid YAML: ${firstLine(error.message)}`);
    }
    this.value = this.#mistakes.length > 0 ? undefined : this.#plain();
  }

  /** What is wrong, in the order of the file. */
  get mistakes(): readonly Mistake[] {
    return this.#mistakes.toSorted(byPlace);
  }

  /** What is doubtful and stops nothing, in the order of the file. */
  get warnings(): readonly Mistake[] {
    return this.#warnings.toSorted(byPlace);
  }

  /** Reports a mistake at the value of `path`, or at the nearest part of it that exists. */
  mistake(path: Path, text: string): void {
    this.#push(this.#mistakes, this.#offsetOf(path, false), formatPath(path), text);
  }

  /** Reports a mistake at the key that `path` ends with. */
  mistakeAtKey(path: Path, text: string): void {
    this.#push(this.#mistakes, this.#offsetOf(path, true), formatPath(path), text);
  }

  /** Reports something doubtful at the value of `path`. */
  warning(path: Path, text: string): void {
    this.#push(this.#warnings, this.#offsetOf(path, false), formatPath(path), text);
  }

  /** Line of the value at `path`, counted from 1. */
  lineOf(path: Path): number {
    return this.#lines.linePos(this.#offsetOf(path, false)).line;
  }

  #parse(text: string): Document {
    try {
      return parseDocument(text, { lineCounter: this.#lines, prettyErrors: false, uniqueKeys: true });
    } catch {
      // The composer recurses: a document nested tens of thousands deep exhausts the stack.
      this.#push(this.#mistakes, 0, '', 'not valid YAML: nested too deeply; expected a Rampart config');
      return new Document();
    }
  }

  #plain(): unknown {
    try {
      // An alias bomb ends here: yaml counts what aliases expand to.
      return this.#document.toJS({ maxAliasCount: 100 });
    } catch (error) {
      this.#push(this.#mistakes, 0, '', `not valid YAML: ${firstLine((error as Error).message)}`);
      return undefined;
    }
  }

  #push(list: Mistake[], offset: number, path: string, text: string): void {
    const place = this.#lines.linePos(offset);
    list.push({ file: this.file, line: Math.max(1, place.line), column: Math.max(1, place.col), path, text });
  }

  #offsetOf(path: Path, key: boolean): number {
    let node = this.#resolve(this.#document.contents);
    let offset = node?.range?.[0] ?? 0;
    for (const [depth, step] of path.entries()) {
      const next = childOf(node, step);
      if (next === null) break;
      const atKey = key && depth === path.length - 1;
      offset = (atKey ? next.key : next.value)?.range?.[0] ?? next.key?.range?.[0] ?? offset;
      node = this.#resolve(next.value);
    }
    return offset;
  }

  #resolve(node: unknown): Node | null {
    if (isAlias(node)) return node.resolve(this.#document) ?? null;
    return (node as Node | null) ?? null;
  }
}

/** `on_ramps[0].listen` of its steps. */
export function formatPath(path: Path): string {
  let text = '';
  for (const step of path) {
    if (typeof step === 'number') text += `[${step}]`;
    else text += text === '' ? step : `.${step}`;
  }
  return text;
}

/** The name that people give a value's kind, for messages. */
export function kindOf(value: unknown): string {
  if (value === null) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a mapping';
  if (typeof value === 'string') return 'a text';
  return `a ${typeof value}`;
}

function childOf(node: Node | null, step: string | number): { key: Node | null; value: Node | null } | null {
  if (isSeq(node) && typeof step === 'number') {
    const item = node.items[step] as Node | undefined;
    return item === undefined ? null : { key: item, value: item };
  }
  if (!isMap(node)) return null;
  for (const { key, value } of node.items) {
    if (isScalar(key) && String(key.value) === String(step)) return { key, value: value as Node | null };
  }
  return null;
}

function byPlace(a: Mistake, b: Mistake): number {
  return a.line - b.line || a.column - b.column;
}

function firstLine(text: string): string {
  const line = text.split('\n', 1)[0] as string;
  return line.charAt(0).toLowerCase() + line.slice(1);
}
