/**
 * Whether what a hook returned is a verdict of its closed union: the types say so at compile time, this at
 * run time.
 */
import { didYouMean } from '#base/nearest.ts';

/** Names that a verdict's `via` may have; null: any (there is no config to compare with). */
export type KnownOffRamps = ReadonlySet<string> | null;

/** What is wrong with a verdict, as the end of a sentence; null when nothing is. */
export type VerdictCheck = (
  verdict: Readonly<Record<string, unknown>>,
  offRamps: KnownOffRamps,
) => string | null;

/** The verdicts of one hook by action. */
export type VerdictTable = Readonly<Record<string, VerdictCheck>>;

// RFC 9110 section 5.6.2 (token), RFC 3986 without fragment; visible ASCII and obs-text only.
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const PATH = /^(\/[\x21\x22\x24-\x7e\x80-\xff]*|\*)$/;
const AUTHORITY = /^[A-Za-z0-9._~%!$&'()*+,;=:[\]-]+$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const CONTROL = /[\0-\x08\x0a-\x1f\x7f]/;
// One byte a character: a wider one, cut to a byte on its way out, could become a line end.
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const HOST = /^[A-Za-z0-9._:-]{1,255}$/;

const reasonOnly: VerdictCheck = (verdict) => optional(verdict, 'reason', isLine, 'a text of one line');

const throughOffRamp: VerdictCheck = (verdict, offRamps) =>
  checkVia(verdict, offRamps) ?? checkTarget(verdict);

/** Verdicts of the `tunnel` hook; its context is checked by `makeContext`. */
export const TUNNEL_VERDICTS: VerdictTable = Object.freeze({
  accept: (verdict) =>
    typeof verdict.context === 'object' && verdict.context !== null ? null : 'has no context; expected one',
  refuse: (verdict) => required(verdict, 'reason', isLine, 'a text of one line'),
});

/** Verdicts of the `flow` hook. */
export const FLOW_VERDICTS: VerdictTable = Object.freeze({
  drop: reasonOnly,
  reject: (verdict) =>
    optional(verdict, 'with', isRejectWith, 'reset, prohibited or unreachable') ?? reasonOnly(verdict, null),
  forward: checkVia,
  upgrade: (verdict) => optional(verdict, 'to', isUpgrade, 'stream or http'),
});

/** Verdicts of the `stream` hook. */
export const STREAM_VERDICTS: VerdictTable = Object.freeze({
  reject: reasonOnly,
  splice: throughOffRamp,
  http: () => null,
  sniff: throughOffRamp,
});

const tlsInside: VerdictCheck = (verdict, offRamps) =>
  throughOffRamp(verdict, offRamps) ?? optional(verdict, 'upgrade', isInside, 'stream, http or sniff');

/** Verdicts of the `tls` hook. */
export const TLS_VERDICTS: VerdictTable = Object.freeze({
  reject: reasonOnly,
  pass: throughOffRamp,
  terminate: tlsInside,
  inspect: tlsInside,
});

/** Verdicts of the `session` hook. */
export const SESSION_VERDICTS: VerdictTable = Object.freeze({ reject: reasonOnly, relay: throughOffRamp });

/** Verdicts of the `request` hook. */
export const REQUEST_VERDICTS: VerdictTable = Object.freeze({
  forward: (verdict, offRamps) =>
    throughOffRamp(verdict, offRamps) ??
    optional(verdict, 'method', (value) => matches(TOKEN, value), 'a method name') ??
    optional(
      verdict,
      'path',
      (value) => matches(PATH, value),
      'a path that begins with "/", without spaces',
    ) ??
    optional(verdict, 'authority', (value) => matches(AUTHORITY, value), 'a host and optional port') ??
    checkTransform(verdict),
  answer: checkAnswer,
  redirect: (verdict) =>
    required(verdict, 'location', isFieldValue, 'a URI in one line') ??
    optional(verdict, 'status', isRedirect, '301, 302, 303, 307 or 308'),
  block: checkBlock,
});

/** Verdicts of the `response` hook. */
export const RESPONSE_VERDICTS: VerdictTable = Object.freeze({
  forward: (verdict) =>
    optional(verdict, 'status', (value) => isStatus(value, 200, 599), 'a status 200 to 599') ??
    checkTransform(verdict),
  block: checkBlock,
});

/** Verdicts of the `egress` hook. */
export const EGRESS_VERDICTS: VerdictTable = Object.freeze({
  direct: (verdict, offRamps) =>
    throughOffRamp(verdict, offRamps) ??
    optional(verdict, 'source', (value) => matches(HOST, value), 'an IP address'),
  block: (verdict) => required(verdict, 'reason', isLine, 'a text of one line'),
});

/** What is wrong with what a hook returned; null when it is a verdict of the table. */
export function verdictMistake(value: unknown, table: VerdictTable, offRamps: KnownOffRamps): string | null {
  if (typeof value !== 'object' || value === null) {
    return `is ${value === null ? 'null' : `a ${typeof value}`}; expected a verdict or undefined`;
  }
  const verdict = value as Readonly<Record<string, unknown>>;
  const action = verdict.action;
  if (typeof action === 'string' && Object.hasOwn(table, action)) {
    return (table[action] as VerdictCheck)(verdict, offRamps);
  }
  const known = Object.keys(table);
  if (typeof action !== 'string') return `has no action; expected one of ${known.join(', ')}`;
  const hint = didYouMean(action, known);
  return `has the action ${JSON.stringify(action.slice(0, 40))}; expected one of ${known.join(', ')}${hint}`;
}

function checkVia(verdict: Readonly<Record<string, unknown>>, offRamps: KnownOffRamps): string | null {
  const { via } = verdict;
  if (via === undefined) return null;
  if (typeof via !== 'string') return `has a via that is a ${typeof via}; expected the name of an off-ramp`;
  if (offRamps === null || offRamps.has(via)) return null;
  return `names the off-ramp ${JSON.stringify(via)}, which the config has not${didYouMean(via, offRamps)}`;
}

function checkTarget(verdict: Readonly<Record<string, unknown>>): string | null {
  const { to } = verdict;
  if (to === undefined) return null;
  const { host, port } = (to ?? {}) as { readonly host?: unknown; readonly port?: unknown };
  if (!matches(HOST, host)) return 'has a target without a usable host; expected to: { host, port }';
  const usable = Number.isInteger(port) && (port as number) > 0 && (port as number) < 65536;
  return usable ? null : 'has a target without a usable port; expected 1 to 65535';
}

function checkTransform(verdict: Readonly<Record<string, unknown>>): string | null {
  return optional(verdict, 'transformBody', (value) => typeof value === 'function', 'a function');
}

function checkBlock(verdict: Readonly<Record<string, unknown>>): string | null {
  return (
    required(verdict, 'reason', isLine, 'a text of one line') ??
    optional(verdict, 'status', (value) => isStatus(value, 400, 599), 'a status 400 to 599')
  );
}

function checkAnswer(verdict: Readonly<Record<string, unknown>>): string | null {
  const { fields, body } = verdict;
  if (!isStatus(verdict.status, 200, 599)) return 'has no usable status; expected 200 to 599';
  if (body !== undefined && typeof body !== 'string' && !(body instanceof Uint8Array)) {
    return `has a body that is a ${typeof body}; expected a text or a Uint8Array`;
  }
  if (fields === undefined) return null;
  if (typeof fields !== 'object' || fields === null) return 'has fields that are not an object of texts';
  for (const [name, value] of Object.entries(fields)) {
    if (!TOKEN.test(name))
      return `has the field ${JSON.stringify(name)}; expected a name of RFC 9110 section 5.1`;
    if (!isFieldValue(value)) return `has a value of the field ${name} that RFC 9110 section 5.5 forbids`;
  }
  return null;
}

function optional(
  verdict: Readonly<Record<string, unknown>>,
  ...[key, check, expected]: [key: string, check: (value: unknown) => boolean, expected: string]
): string | null {
  const value = verdict[key];
  return value === undefined || check(value) ? null : `has a ${key} that does not fit; expected ${expected}`;
}

function required(
  verdict: Readonly<Record<string, unknown>>,
  ...[key, check, expected]: [key: string, check: (value: unknown) => boolean, expected: string]
): string | null {
  if (verdict[key] === undefined) return `has no ${key}; expected ${expected}`;
  return optional(verdict, key, check, expected);
}

function matches(pattern: RegExp, value: unknown): boolean {
  return typeof value === 'string' && pattern.test(value);
}

/** Without line ends: a reason stands in logs and in an answer's head. */
function isLine(value: unknown): boolean {
  return typeof value === 'string' && !CONTROL.test(value);
}

function isFieldValue(value: unknown): boolean {
  return matches(FIELD_VALUE, value);
}

function isStatus(value: unknown, min: number, max: number): boolean {
  return Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
}

function isRedirect(value: unknown): boolean {
  return value === 301 || value === 302 || value === 303 || value === 307 || value === 308;
}

function isRejectWith(value: unknown): boolean {
  return value === 'reset' || value === 'prohibited' || value === 'unreachable';
}

function isInside(value: unknown): boolean {
  return value === 'stream' || value === 'http' || value === 'sniff';
}

function isUpgrade(value: unknown): boolean {
  return value === 'stream' || value === 'http';
}
