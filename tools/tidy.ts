/**
 * Checks the rules of STYLE.md that a program can check, over every file that git knows or would add. Prints
 * `file:line: rule: what to do` for each finding and exits with 1 when one is an error.
 *
 * Any rule may be broken where a comment says why the normal way is not enough: `tidy: allow RULE: the
 * reason` on the line itself or the one above it, or anywhere in the file for a rule about the whole file.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

import {
  BANNED_NAMES,
  FORBIDDEN_FOLDERS,
  LAYERS,
  layerOf,
  NAMED_EDGES,
  type Layer,
  type NameBan,
} from './layers.ts';
import { blankOut, type Source } from './source.ts';

/** One broken rule. */
export interface Finding {
  readonly file: string;
  /** 1-based; 1 for a rule about the whole file. */
  readonly line: number;
  readonly rule: string;
  /** What to do, in one sentence. */
  readonly advice: string;
  readonly severity: 'error' | 'warning';
}

/** The files of a tree: what `tidy` needs of a disk, so that tests can give it a few strings. */
export interface Tree {
  /** Paths relative to the root, with `/`. */
  readonly files: readonly string[];
  read(file: string): string;
  exists(file: string): boolean;
}

/** Longest line, characters; the formatter's own limit, which it does not apply to comments. */
export const LINE_LENGTH_MAX = 110;
/** A file this long should be thought about; one of `FILE_LINES_MAX` is refused. */
const FILE_LINES_WARN = 600;
const FILE_LINES_MAX = 1000;

/** Folders whose TypeScript is checked. */
const CODE = /^(src|tools|bench|fuzz|tests|examples|bin)\//;
/** What several tests of one folder share, beside them. */
const TEST_HELPER = /[/-]test-[a-z0-9-]+\.ts$/;
const KEBAB = /^[a-z0-9]+(-[a-z0-9]+)*$/;

/** Every finding in the tree, in the order of files and lines. */
export function tidy(tree: Tree): Finding[] {
  const findings: Finding[] = [];
  const code = tree.files.filter((file) => CODE.test(file) && /\.(ts|mjs)$/.test(file));
  for (const file of code) checkCode(tree, file, findings);
  checkFronts(code, findings);
  for (const file of tree.files.filter((name) => name.endsWith('.md'))) checkDocument(tree, file, findings);
  if (tree.files.includes('package.json')) checkManifest(tree, findings);
  return findings.sort((a, b) => a.file.localeCompare(b.file) || a.line - b.line);
}

function checkCode(tree: Tree, file: string, findings: Finding[]): void {
  const text = tree.read(file);
  const source = blankOut(text);
  const found: Finding[] = [];
  const add = (line: number, rule: string, advice: string, severity: Finding['severity'] = 'error') =>
    found.push({ file, line, rule, advice, severity });
  checkName(file, add);
  checkSize(source, add);
  if (file.endsWith('.ts')) {
    checkSyntax(file, source, add);
    checkImports(file, source, add);
    checkBannedNames(file, source, add);
    if (file.startsWith('src/')) {
      checkExports(file, source, add);
      if (file.endsWith('.test.ts')) checkPlaceOfTest(source, add);
    }
  }
  checkUnfinished(source, add);
  findings.push(...found.filter((finding) => !isAllowed(source, finding)));
}

type Add = (line: number, rule: string, advice: string, severity?: Finding['severity']) => unknown;

function isAllowed(source: Source, finding: Finding): boolean {
  const wholeFile = new RegExp(`tidy: allow-file ${finding.rule}: \\S`);
  if (source.comments.some((comment) => wholeFile.test(comment))) return true;
  const pattern = new RegExp(`tidy: allow ${finding.rule}: \\S`);
  const here = source.comments[finding.line - 1] ?? '';
  const above = source.comments[finding.line - 2] ?? '';
  return pattern.test(here) || pattern.test(above);
}

function checkName(file: string, add: Add): void {
  const parts = file.split('/');
  const base = (parts.pop() ?? '').replace(/(\.test)?\.(ts|mjs)$/, '');
  if (!KEBAB.test(base)) add(1, 'file-name', 'name the file in kebab-case');
  for (const folder of parts) {
    const reason = FORBIDDEN_FOLDERS.get(folder);
    if (reason !== undefined) add(1, 'folder-name', `no folder is called "${folder}": ${reason}`);
    else if (!KEBAB.test(folder)) add(1, 'folder-name', `name the folder "${folder}" in kebab-case`);
  }
}

function checkSize(source: Source, add: Add): void {
  const count = source.lines.length;
  if (count > FILE_LINES_MAX)
    add(1, 'file-length', `split the file: ${count} lines, at most ${FILE_LINES_MAX}`);
  else if (count > FILE_LINES_WARN) {
    add(1, 'file-length', `think about splitting the file: ${count} lines, best under 300`, 'warning');
  }
  source.lines.forEach((line, index) => {
    // A row of a table in a comment has no place to be broken.
    if (line.length > LINE_LENGTH_MAX && !/^\s*(\*|\/\/) \|/.test(line)) {
      add(index + 1, 'line-length', `break the line: ${line.length} characters, at most ${LINE_LENGTH_MAX}`);
    }
  });
}

const SYNTAX: readonly { readonly rule: string; readonly pattern: RegExp; readonly advice: string }[] = [
  {
    rule: 'no-enum',
    pattern: /^\s*(export\s+)?(declare\s+)?(const\s+)?enum\s+\w/,
    advice: 'write a frozen `as const` object with a type of the same name',
  },
  {
    rule: 'no-namespace',
    pattern: /^\s*(export\s+)?(declare\s+)?namespace\s+\w/,
    advice: 'write a file: a module is the only namespace',
  },
  {
    rule: 'no-parameter-property',
    // Those in other places are found by tsc (erasableSyntaxOnly).
    pattern: /\bconstructor\s*\(\s*(public|private|protected|readonly)\s/,
    advice: 'declare a #private field and assign it in the constructor',
  },
  {
    rule: 'no-private',
    pattern: /^\s*(private|public)\s+(?!constructor)\w.*[;{]$/,
    advice: 'write #name: the keyword is gone at run time, and public is what a member is anyway',
  },
  {
    rule: 'no-decorator',
    pattern: /^\s*@[A-Za-z]\w*/,
    advice: 'call a function: decorators are not erasable',
  },
];

function checkSyntax(file: string, source: Source, add: Add): void {
  source.code.forEach((line, index) => {
    for (const { rule, pattern, advice } of SYNTAX) if (pattern.test(line)) add(index + 1, rule, advice);
    if (!file.startsWith('src/') || file === 'src/index.ts') return;
    if (/^export\s+default\b/.test(line)) add(index + 1, 'no-default-export', 'export it by name');
    if (/^\s*(export\s+(type\s+)?(\*|\{[^}]*\})|\}\s*)\s*from\s/.test(line) && isReExport(source, index)) {
      add(
        index + 1,
        'no-barrel',
        'import from the file that declares it: only src/index.ts passes exports on',
      );
    }
  });
}

/** True when the statement that ends on this line began with `export`. */
function isReExport(source: Source, index: number): boolean {
  for (let at = index; at >= 0; at--) {
    const line = source.code[at] as string;
    if (/^export\b/.test(line)) return true;
    if (/^import\b/.test(line)) return false;
  }
  return false;
}

function checkImports(file: string, source: Source, add: Add): void {
  const inSource = file.startsWith('src/');
  const isTest = file.endsWith('.test.ts');
  for (const { line, specifier } of source.imports) {
    if (inSource && specifier.startsWith('../')) {
      add(
        line,
        'import-form',
        `write #${inRoot(file, specifier).slice('src/'.length)}: "../" hides a crossing`,
      );
    } else if (!inSource && /^\.\.?\/(.*\/)?src\//.test(specifier)) {
      add(
        line,
        'import-form',
        `write #${inRoot(file, specifier).slice('src/'.length)}: src is reached by "#"`,
      );
    } else if (
      specifier.startsWith('#') &&
      inSource &&
      dirname(file) === dirname(`src/${specifier.slice(1)}`)
    ) {
      add(line, 'import-form', 'write "./": the file is in the same folder');
    }
    if (/^[.#]/.test(specifier) && !/\.(ts|mjs|json)$/.test(specifier)) {
      add(line, 'import-form', 'write the whole file name with its ending: Node looks for nothing');
    }
    if (!/^[.#]/.test(specifier)) continue;
    const target = specifier.startsWith('#') ? `src/${specifier.slice(1)}` : inRoot(file, specifier);
    if (target.startsWith('src/testing/')) checkTestingImport(file, line, isTest, add);
    else if (inSource && !isTest && target.startsWith('src/')) checkLayer(file, target, line, add);
  }
}

function inRoot(file: string, specifier: string): string {
  return normalize(join(dirname(file), specifier));
}

function checkTestingImport(file: string, line: number, isTest: boolean, add: Add): void {
  if (isTest || TEST_HELPER.test(file) || /^(src\/testing|tests|fuzz|bench|examples)\//.test(file)) return;
  add(line, 'layer', 'testing is for tests, fuzzers and benches only: nothing that ships may lean on it');
}

function checkLayer(file: string, target: string, line: number, add: Add): void {
  const from = layerOf(file);
  const to = layerOf(target);
  if (from === null || from.free) return;
  if (to === null) {
    add(line, 'layer', `${target} is in no layer: give its folder a rank in tools/layers.ts`);
    return;
  }
  if (from === to || to.rank < from.rank) return;
  if (NAMED_EDGES.some((edge) => edge.from === from.folder && edge.to === target)) return;
  add(line, 'layer', layerAdvice(from, to));
}

function layerAdvice(from: Layer, to: Layer): string {
  const relation = to.rank === from.rank ? 'its sibling' : `above it (rank ${to.rank} over ${from.rank})`;
  return `${from.folder} must not import ${to.folder}, ${relation}: ${to.reason}`;
}

function checkBannedNames(file: string, source: Source, add: Add): void {
  const bans = BANNED_NAMES.filter((ban) => applies(ban, file));
  if (bans.length === 0) return;
  for (const ban of bans) {
    for (const { line, specifier } of source.imports) {
      if (ban.modules?.includes(specifier))
        add(line, 'banned', `${specifier} has no place here: ${ban.reason}`);
    }
    if (ban.code === undefined) continue;
    source.code.forEach((text, index) => {
      const match = ban.code?.exec(text);
      if (match) add(index + 1, 'banned', `${match[0]} has no place here: ${ban.reason}`);
    });
  }
}

function applies(ban: NameBan, file: string): boolean {
  if (ban.testsToo !== true && file.endsWith('.test.ts')) return false;
  if (!ban.folders.some((folder) => file.startsWith(folder))) return false;
  return !(ban.except ?? []).some((folder) => file.startsWith(folder));
}

const EXPORTED =
  /^export\s+(declare\s+)?(async\s+)?(abstract\s+)?(function\*?|class|const|let|interface|type)\s+([\w$]+)/;

function checkExports(file: string, source: Source, add: Add): void {
  if (file.endsWith('.test.ts')) return;
  const seen = new Set<string>();
  source.code.forEach((line, index) => {
    const match = EXPORTED.exec(line);
    if (match === null) return;
    const name = match[5] as string;
    // The further signatures of an overload share the first one's comment.
    if (!seen.has(name) && !isDocumented(source, index, match[4] === 'const')) {
      add(index + 1, 'export-doc', `write a doc comment: what ${name} is, units, owner, what it throws`);
    }
    seen.add(name);
  });
}

/** A table of constants shares one comment, which an empty line may set apart. */
function isDocumented(source: Source, index: number, isConstant: boolean): boolean {
  const above = (at: number) => (source.lines[at] ?? '').trimEnd();
  if (above(index - 1).endsWith('*/')) return true;
  if (!isConstant) return false;
  return (
    /^export const .*;/.test(above(index - 1)) || (above(index - 1) === '' && above(index - 2).endsWith('*/'))
  );
}

function checkPlaceOfTest(source: Source, add: Add): void {
  if (source.imports.some(({ specifier }) => specifier.startsWith('./'))) return;
  add(1, 'test-place', 'stand beside the code: the test imports nothing of its own folder');
}

// Put together from halves: nobody who searches the repository for the marks finds this line.
const UNFINISHED = new RegExp(
  `\\b(${['TO', 'FIX', 'XX'].map((head, at) => head + ['DO', 'ME', 'X'][at]).join('|')})\\b`,
);

function checkUnfinished(source: Source, add: Add): void {
  source.comments.forEach((comment, index) => {
    const match = UNFINISHED.exec(comment);
    if (match)
      add(
        index + 1,
        'unfinished',
        `finish it or write an issue: ${match[0]} marks work that nobody will find`,
      );
  });
}

function checkFronts(code: readonly string[], findings: Finding[]): void {
  const inSource = code.filter((file) => file.startsWith('src/') && !file.endsWith('.test.ts'));
  const folders = new Set(inSource.map((file) => dirname(file)).filter((folder) => folder !== 'src'));
  for (const folder of folders) {
    const front = `${folder}/${folder.slice(folder.lastIndexOf('/') + 1)}.ts`;
    if (inSource.includes(front)) continue;
    const advice = `write ${front} with a doc comment that says what belongs in the folder`;
    findings.push({ file: front, line: 1, rule: 'front-file', advice, severity: 'error' });
  }
}

/** The first line of a front file is a doc comment; checked apart because it needs the text. */
export function checkFrontComments(tree: Tree): Finding[] {
  const findings: Finding[] = [];
  for (const file of tree.files) {
    const parts = file.split('/');
    if (parts[0] !== 'src' || parts.length < 3 || parts.at(-1) !== `${parts.at(-2)}.ts`) continue;
    if (/^\s*\/\*\*/.test(tree.read(file))) continue;
    const advice = 'open the front file with a doc comment that says what belongs in the folder';
    findings.push({ file, line: 1, rule: 'front-file', advice, severity: 'error' });
  }
  return findings;
}

/** Links and paths in a page lead to something. */
function checkDocument(tree: Tree, file: string, findings: Finding[]): void {
  const lines = tree.read(file).split('\n');
  let fenced = false;
  lines.forEach((line, index) => {
    if (/^\s*```/.test(line)) fenced = !fenced;
    if (fenced) return;
    const add = (rule: string, advice: string) =>
      findings.push({ file, line: index + 1, rule, advice, severity: 'error' });
    for (const [, target = ''] of line.matchAll(/\]\(([^)\s#]+)(?:#[^)]*)?\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const path = normalize(join(dirname(file), target));
      if (!tree.exists(path)) add('dead-link', `${target} leads nowhere: correct or remove the link`);
    }
    for (const [, path = ''] of line.matchAll(
      /`((?:src|bin|tools|bench|fuzz|tests|examples|docs)\/[\w./-]*\w\/?)`/g,
    )) {
      if (!tree.exists(path)) add('dead-path', `${path} does not exist: name what is there`);
    }
  });
}

function checkManifest(tree: Tree, findings: Finding[]): void {
  const text = tree.read('package.json');
  const manifest = JSON.parse(text) as Record<string, unknown>;
  for (const group of ['dependencies', 'devDependencies', 'optionalDependencies']) {
    for (const [name, version] of Object.entries((manifest[group] ?? {}) as Record<string, string>)) {
      if (/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)) continue;
      const line = text.split('\n').findIndex((entry) => entry.includes(`"${name}"`)) + 1;
      const advice = `pin ${name} to one exact version, not "${version}"`;
      findings.push({ file: 'package.json', line, rule: 'exact-version', advice, severity: 'error' });
    }
  }
}

/** The tree on disk: what git tracks, and what it would add. */
export function treeOnDisk(root: string): Tree {
  const options = { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 } as const;
  const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '-z'], options);
  const files = [...new Set(listed.split('\0'))].filter(
    (file) => file !== '' && existsSync(join(root, file)),
  );
  return {
    files: files.sort(),
    read: (file) => readFileSync(join(root, file), 'utf8'),
    exists: (file) => existsSync(join(root, file)),
  };
}

function main(): void {
  const root = dirname(import.meta.dirname);
  const tree = treeOnDisk(root);
  const only = process.argv.slice(2);
  const findings = [...tidy(tree), ...checkFrontComments(tree)].filter(
    ({ file }) => only.length === 0 || only.some((prefix) => file.startsWith(prefix)),
  );
  for (const { file, line, rule, advice, severity } of findings) {
    process.stdout.write(`${file}:${line}: ${severity === 'warning' ? 'warning: ' : ''}${rule}: ${advice}\n`);
  }
  const errors = findings.filter((finding) => finding.severity === 'error').length;
  if (errors > 0) process.stdout.write(`tidy: ${errors} to repair in ${LAYERS.length} layers\n`);
  process.exitCode = errors > 0 ? 1 : 0;
}

if (import.meta.main) main();
