import * as z from 'zod';

import { size } from './scalars.ts';

/** What a line of the access log can tell, in the order of the JSON object. Names are permanent. */
export const ACCESS_FIELDS = Object.freeze([
  'time',
  'kind',
  'flow',
  'account',
  'vnet',
  'user',
  'on_ramp',
  'source',
  'destination',
  'off_ramp',
  'method',
  'authority',
  'path',
  'version',
  'status',
  'bytes_up',
  'bytes_down',
  'request_ms',
  'queue_ms',
  'connect_ms',
  'response_ms',
  'total_ms',
  'end',
  'trace',
] as const);

/** One of the fields. */
export type AccessField = (typeof ACCESS_FIELDS)[number];

/** The access log. */
export interface AccessLogConfig {
  /** Path of the file; relative to the working directory of the process. */
  readonly file: string;
  /** A template, or null for JSON. */
  readonly template: string | null;
  /** A file of this many bytes is put aside; null: never. */
  readonly rotateBytes: number | null;
  /** Files put aside that are kept. */
  readonly keep: number;
}

/** Longest template, characters; a line has room for its constant text. */
const TEMPLATE_LENGTH_MAX = 1024;
const KIB = 1024;
const ROTATE_MIN = 64 * KIB;
const ROTATE_MAX = 1024 * 1024 * 1024 * KIB;

const format = z
  .string()
  .max(TEMPLATE_LENGTH_MAX)
  .transform((value, context) => {
    if (value === 'json') return null;
    const message = templateMistake(value);
    if (message === null) return value;
    context.issues.push({ code: 'custom', message, input: value });
    return z.NEVER;
  });

/** `telemetry.access_log`. */
export const accessLogSchema = z
  .strictObject({
    file: z
      .string()
      .min(1)
      .max(4096)
      .describe('Path of the file; it is appended to, and made when it is absent.'),
    format: format
      .default(null as never)
      .describe(
        `json, or a template of which each {name} becomes a value: ${ACCESS_FIELDS.join(', ')}. ` +
          'Default: json.',
      ),
    rotate: z
      .strictObject({
        size: size(
          { min: ROTATE_MIN, max: ROTATE_MAX },
          'a size between 64KiB and 1TiB, such as "100MiB"',
        ).describe('A file of this size is put aside as FILE.1, and the older ones move up.'),
        keep: z.int().min(0).max(1000).default(5).describe('Files put aside that are kept. Default: 5.'),
      })
      .optional()
      .describe('Default: the file grows; when another program renames it, it is opened anew.'),
  })
  .describe(
    'One line for each HTTP request, and for each stream, session and flow that ended. Traffic never waits ' +
      'for it: when the disk is too slow, lines are dropped and counted (access_log_dropped).',
  );

/** The typed value. */
export function accessLogConfig(input: z.output<typeof accessLogSchema>): AccessLogConfig {
  const { file, format: template, rotate } = input;
  return { file, template, rotateBytes: rotate?.size ?? null, keep: rotate?.keep ?? 0 };
}

/** What is wrong with a template, or null. Each field may stand once: that bounds the length of a line. */
function templateMistake(template: string): string | null {
  const seen = new Set<string>();
  for (const [, name] of template.matchAll(/\{([^{}]*)\}/g)) {
    if (!(ACCESS_FIELDS as readonly string[]).includes(name as string)) {
      return `has the unknown field {${name}}; expected ${ACCESS_FIELDS.join(', ')}`;
    }
    if (seen.has(name as string)) return `has {${name}} twice; expected each field once`;
    seen.add(name as string);
  }
  if (/[{}]/.test(template.replace(/\{[^{}]*\}/g, ''))) return 'has a brace without its other one';
  if (/\p{Cc}/u.test(template)) return 'has a control character; a line ends by itself';
  return seen.size === 0 ? 'has no field; expected "json", or a template such as "{time} {status}"' : null;
}
