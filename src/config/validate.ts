import type * as z from 'zod';

import { didYouMean } from '#base/nearest.ts';

import { type ConfigDocument, kindOf, type Path } from './document.ts';

type Issue = z.core.$ZodIssue;

/**
 * Parses one value of the document by its schema. Undefined when it has mistakes; they are then reported in
 * people's words at their line and column. A value is quoted only where the schema knows the possible values:
 * nothing that could be a secret is ever printed.
 */
export function validate<Schema extends z.ZodType>(
  document: ConfigDocument,
  path: Path,
  value: unknown,
  schema: Schema,
): z.output<Schema> | undefined {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  for (const issue of result.error.issues) reportIssue(document, path, issue, schema, value);
  return undefined;
}

function reportIssue(
  document: ConfigDocument,
  base: Path,
  issue: Issue,
  schema: z.ZodType,
  root: unknown,
): void {
  const path = [...base, ...(issue.path as (string | number)[])];
  if (issue.code === 'unrecognized_keys') {
    const known = keysOf(schema, issue.path as (string | number)[], root);
    for (const key of issue.keys) {
      const hint =
        didYouMean(key, known) || (known.length > 0 ? `; expected one of ${known.join(', ')}` : '');
      document.mistakeAtKey([...path, key], `unknown key${hint}`);
    }
    return;
  }
  if (issue.input === undefined && issue.code !== 'custom') {
    document.mistake(path, `missing; expected ${expectation(issue)}`);
    return;
  }
  document.mistake(path, wrongValue(issue));
}

function wrongValue(issue: Issue): string {
  switch (issue.code) {
    case 'custom':
      return issue.message;
    case 'invalid_value': {
      const names = issue.values.map(String);
      const got = typeof issue.input === 'string' ? `"${issue.input}"` : kindOf(issue.input);
      const hint = typeof issue.input === 'string' ? didYouMean(issue.input, names) : '';
      return `${got} is not known; expected ${expectation(issue)}${hint}`;
    }
    case 'invalid_union': {
      if (issue.discriminator === undefined) {
        return `${kindOf(issue.input)} does not fit; expected ${expectation(issue)}`;
      }
      const names = unionNames(issue);
      const got = (issue.input as Record<string, unknown> | undefined)?.[issue.discriminator];
      if (got === undefined) return `missing; expected one of ${names.join(', ')}`;
      const text = typeof got === 'string' ? `"${got}"` : kindOf(got);
      const hint = typeof got === 'string' ? didYouMean(got, names) : '';
      return `${text} is not known; expected one of ${names.join(', ')}${hint}`;
    }
    case 'invalid_type':
      return `is ${kindOf(issue.input)}; expected ${expectation(issue)}`;
    default:
      return `does not fit; expected ${expectation(issue)}`;
  }
}

function unionNames(issue: Issue): string[] {
  return ((issue as { options?: readonly unknown[] }).options ?? []).map(String);
}

/** What would have been right, as the end of a sentence. */
function expectation(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type':
      return TYPE_WORDS[issue.expected] ?? `a ${issue.expected}`;
    case 'invalid_value':
      return issue.values.length === 1 ? String(issue.values[0]) : `one of ${issue.values.join(', ')}`;
    case 'too_small':
      return issue.origin === 'array' ? `at least ${issue.minimum} of them` : `at least ${issue.minimum}`;
    case 'too_big':
      return issue.origin === 'array' ? `at most ${issue.maximum} of them` : `at most ${issue.maximum}`;
    case 'invalid_union': {
      if (issue.discriminator !== undefined) return `one of ${unionNames(issue).join(', ')}`;
      const parts = issue.errors.map((errors) => (errors[0] ? expectation(errors[0]) : ''));
      return [...new Set(parts)].filter(Boolean).join(', or ');
    }
    case 'custom':
      return issue.message;
    default:
      return issue.message;
  }
}

const TYPE_WORDS: Readonly<Record<string, string>> = Object.freeze({
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  null: 'nothing',
  boolean: 'true or false',
  object: 'a mapping of keys',
  record: 'a mapping of keys',
  array: 'a list',
});

/** Keys that the object schema at `path` knows, for the nearest-name hint. Empty where none are known. */
function keysOf(schema: z.ZodType, path: Path, root: unknown): string[] {
  let current: z.core.$ZodType = schema;
  let value = root;
  for (const step of path) {
    const shape = shapeOf(current, value);
    const next = shape?.[String(step)] ?? elementOf(current);
    if (next === undefined) return [];
    current = next;
    value = (value as Record<string | number, unknown> | undefined)?.[step];
  }
  return Object.keys(shapeOf(current, value) ?? {});
}

type Def = {
  readonly type: string;
  readonly innerType?: z.core.$ZodType;
  readonly in?: z.core.$ZodType;
  readonly element?: z.core.$ZodType;
  readonly shape?: Readonly<Record<string, z.core.$ZodType>>;
  readonly options?: readonly z.core.$ZodType[];
  readonly discriminator?: string;
};

function unwrap(schema: z.core.$ZodType): Def {
  let def = schema._zod.def as unknown as Def;
  for (let depth = 0; depth < 8 && (def.innerType ?? def.in) !== undefined; depth++) {
    def = (def.innerType ?? def.in)?._zod.def as unknown as Def;
  }
  return def;
}

function elementOf(schema: z.core.$ZodType): z.core.$ZodType | undefined {
  return unwrap(schema).element;
}

function shapeOf(
  schema: z.core.$ZodType,
  value: unknown,
): Readonly<Record<string, z.core.$ZodType>> | undefined {
  const def = unwrap(schema);
  if (def.type === 'object') return def.shape;
  if (def.type !== 'union' || def.discriminator === undefined) return undefined;
  const tag = (value as Record<string, unknown> | undefined)?.[def.discriminator];
  for (const option of def.options ?? []) {
    const shape = shapeOf(option, value);
    const literal = shape?.[def.discriminator];
    const values = (literal?._zod.def as { values?: readonly unknown[] } | undefined)?.values;
    if (values?.includes(tag)) return shape;
  }
  return undefined;
}
