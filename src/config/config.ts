/**
 * `config` turns one YAML file into a frozen, typed `Config`, or into the list of all its mistakes with file,
 * line and column. Nothing here opens, starts or resolves anything.
 *
 * Files: `document.ts` (YAML with places), `validate.ts` (schema issues in people's words), `scalars.ts`
 * (addresses, durations, sizes), one file per part (`on-ramps.ts`, `off-ramps.ts`, `routes.ts`, `limits.ts`,
 * `telemetry.ts`, `context.ts`, `tls.ts`), `relations.ts` (what the parts must be to each other),
 * `route-table.ts` (which route takes a flow), `schema.ts` (JSON Schema), `reference.ts` (the reference
 * page).
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

import { didYouMean } from '#base/nearest.ts';

import { ConfigDocument, kindOf } from './document.ts';
import { type LimitsConfig, limitsConfig, limitsSchema } from './limits.ts';
import { ConfigError, type Mistake } from './mistake.ts';
import { type OffRampConfig, offRampConfig, offRampSchema } from './off-ramps.ts';
import { type OnRampConfig, onRampConfig, onRampSchema } from './on-ramps.ts';
import { checkRelations, networkOfOffRamp, type Parts } from './relations.ts';
import { isHelloRoute, type RouteConfig, routeConfig, routeSchema } from './routes.ts';
import { CONFIG_PARTS, hooksSchema, ioSchema } from './schema.ts';
import { type TelemetryConfig, telemetryConfig, telemetrySchema } from './telemetry.ts';
import { validate } from './validate.ts';

/** A whole configuration: checked, complete with defaults, deeply frozen but for `app`. */
export interface Config {
  /** Absolute path of the file. */
  readonly file: string;
  readonly io: 'auto' | 'uring' | 'epoll';
  readonly onRamps: readonly OnRampConfig[];
  readonly offRamps: readonly OffRampConfig[];
  /** In the order of the file; `RouteTable` decides between them. */
  readonly routes: readonly RouteConfig[];
  /** Routes by what TLS clients ask for, in the order of the file. They are not among `routes`. */
  readonly helloRoutes: readonly RouteConfig[];
  /** Absolute path of the hooks file, null when there is none. */
  readonly hooks: string | null;
  readonly limits: LimitsConfig;
  readonly telemetry: TelemetryConfig;
  /** The application's own settings as they stand in the file; undefined when absent. */
  readonly app: unknown;
}

/** A config and what is doubtful about it. */
export interface ParsedConfig {
  readonly config: Config;
  /** In the order of the file. */
  readonly warnings: readonly Mistake[];
}

/**
 * Reads and checks a file.
 *
 * @throws ConfigError with every mistake, or when the file cannot be read.
 */
export function loadConfig(file: string): ParsedConfig {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unreadable';
    const reason = code === 'ENOENT' ? 'there is no such file' : `the file cannot be read (${code})`;
    throw new ConfigError(
      [{ file, line: 1, column: 1, path: '', text: `${reason}; expected a Rampart config in YAML` }],
      { cause: error },
    );
  }
  return parseConfig(file, text);
}

/**
 * Checks the text of a file; `file` is how the user named it, relative paths in it start from its directory.
 *
 * @throws ConfigError with every mistake.
 */
export function parseConfig(file: string, text: string): ParsedConfig {
  const document = new ConfigDocument(file, text);
  const config = document.value === undefined ? null : readDocument(document);
  if (document.mistakes.length > 0 || config === null) throw new ConfigError(document.mistakes);
  return { config, warnings: document.warnings };
}

/** The config of a parsed document; null, or not to be used, when the document has mistakes afterwards. */
function readDocument(document: ConfigDocument): Config | null {
  const root = document.value;
  if (typeof root !== 'object' || root === null || Array.isArray(root)) {
    document.mistake([], `the file is ${kindOf(root)}; expected a mapping with the key on_ramps`);
    return null;
  }
  const values = root as Readonly<Record<string, unknown>>;
  const known = Object.keys(CONFIG_PARTS);
  for (const key of Object.keys(values)) {
    if (known.includes(key)) continue;
    const hint = didYouMean(key, known) || `; expected one of ${known.join(', ')}`;
    document.mistakeAtKey([key], `unknown key${hint}`);
  }
  const parts = readParts(document, values);
  checkRelations(document, parts);
  const io = validate(document, ['io'], values.io, ioSchema);
  const limits = validate(document, ['limits'], values.limits ?? {}, limitsSchema);
  const telemetry = validate(document, ['telemetry'], values.telemetry ?? {}, telemetrySchema);
  const hooks = validate(document, ['hooks'], values.hooks ?? undefined, hooksSchema);
  if (document.mistakes.length > 0 || io === undefined || limits === undefined || telemetry === undefined) {
    return null;
  }
  const path = resolve(document.file);
  const config: Config = {
    file: path,
    io,
    ...composeParts(parts),
    hooks: hooks === undefined ? null : resolve(dirname(path), hooks),
    limits: limitsConfig(limits as Readonly<Record<string, number | undefined>>),
    telemetry: telemetryConfig(telemetry),
    app: undefined,
  };
  return Object.freeze({ ...deepFreeze(config), app: values.app });
}

function readParts(document: ConfigDocument, values: Readonly<Record<string, unknown>>): Parts {
  return {
    onRamps: readList(document, 'on_ramps', values, (path, value) =>
      validate(document, path, value, onRampSchema),
    ),
    offRamps: readList(document, 'off_ramps', values, (path, value) =>
      validate(document, path, value, offRampSchema),
    ),
    routes: readList(document, 'routes', values, (path, value) =>
      validate(document, path, value, routeSchema),
    ),
    hasHooks: typeof values.hooks === 'string',
  };
}

/** Parses each element by itself, so that a mistake in one hides none in the others. */
function readList<T>(
  document: ConfigDocument,
  key: string,
  values: Readonly<Record<string, unknown>>,
  read: (path: readonly [string, number], value: unknown) => T | undefined,
): (T | undefined)[] {
  const list = values[key];
  if (list === undefined || list === null) {
    if (key === 'on_ramps') document.mistake([key], 'missing; expected a list of at least one on-ramp');
    return [];
  }
  if (!Array.isArray(list)) {
    document.mistake([key], `is ${kindOf(list)}; expected a list, each element beginning with "- "`);
    return [];
  }
  if (key === 'on_ramps' && list.length === 0)
    document.mistake([key], 'is empty; expected at least one on-ramp');
  return list.map((value, index) => read([key, index], value));
}

function composeParts(parts: Parts): Pick<Config, 'onRamps' | 'offRamps' | 'routes' | 'helloRoutes'> {
  const onRamps = parts.onRamps.filter((input) => input !== undefined);
  const offRamps = parts.offRamps.filter((input) => input !== undefined);
  const routes = parts.routes.flatMap((input, index) =>
    input === undefined
      ? []
      : [routeConfig(input, index, offRamps.find((offRamp) => offRamp.name === input.via)?.type)],
  );
  return {
    onRamps: onRamps.map(onRampConfig),
    offRamps: offRamps.map((input) => offRampConfig(input, networkOfOffRamp(input.name, parts))),
    routes: routes.filter((route) => !isHelloRoute(route)),
    helloRoutes: routes.filter(isHelloRoute),
  };
}

function deepFreeze<T>(value: T): T {
  // The elements of typed arrays (bytes of prefixes) cannot be frozen.
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value;
  for (const member of Object.values(value)) deepFreeze(member);
  return Object.freeze(value);
}
