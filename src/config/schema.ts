import * as z from 'zod';

import { limitsSchema } from './limits.ts';
import { offRampSchema } from './off-ramps.ts';
import { onRampSchema } from './on-ramps.ts';
import { routeSchema } from './routes.ts';
import { telemetrySchema } from './telemetry.ts';

/** Which io engine moves the bytes. */
export const ioSchema = z
  .enum(['auto', 'uring', 'epoll'])
  .default('auto')
  .describe(
    'Engine that moves the bytes. auto: io_uring where the kernel allows it, else epoll. ' +
      'RAMPART_IO wins over it.',
  );

/** Path of the application. */
export const hooksSchema = z
  .string()
  .min(1)
  .optional()
  .describe(
    'TypeScript file whose default export is the application: its hooks. Relative to the config file.',
  );

/** The application's own settings. */
export const appSchema = z
  .unknown()
  .optional()
  .describe(
    "The application's own settings, given to its start hook. Rampart neither reads nor prints them.",
  );

/** The parts of the file, by key, in the order of the reference. */
export const CONFIG_PARTS = Object.freeze({
  io: ioSchema,
  on_ramps: z.array(onRampSchema).describe('Where traffic comes in.'),
  off_ramps: z.array(offRampSchema).default([]).describe('Where traffic leaves.'),
  routes: z.array(routeSchema).default([]).describe('Which flows leave by which off-ramp.'),
  hooks: hooksSchema,
  limits: limitsSchema.optional(),
  telemetry: telemetrySchema.optional(),
  app: appSchema,
});

/** The whole file. Its parts are parsed one by one (see config.ts); this is for the JSON Schema. */
export const configSchema = z.strictObject(CONFIG_PARTS).describe('Configuration of Rampart.');

/** JSON Schema (draft 2020-12) of the file, for editors. Docs and package carry it as config.schema.json. */
export function configJsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' });
  return { $id: 'https://rampart.example/config.schema.json', title: 'Rampart', ...schema };
}
