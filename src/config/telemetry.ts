import * as z from 'zod';

import { type AccessLogConfig, accessLogConfig, accessLogSchema } from './access-log.ts';
import { controlAddress, type IpSocketAddress, ipListenAddress } from './scalars.ts';

/** What Rampart tells about itself, and where. */
export interface TelemetryConfig {
  /** Path of the control socket; undefined: the one that the CLI looks at by itself; null: none. */
  readonly control: string | null | undefined;
  /** Form of the log on standard error. */
  readonly log: 'text' | 'json';
  /** A log line for every flow, stream and request that ended. */
  readonly records: boolean;
  /** The live trace goes to the log from the start. */
  readonly trace: boolean;
  /** Where metrics are served for Prometheus; null: nowhere. */
  readonly metrics: IpSocketAddress | null;
  readonly accessLog: AccessLogConfig | null;
  /** Requests without a W3C traceparent get one. */
  readonly traceContext: boolean;
}

/** The `telemetry` key. */
export const telemetrySchema = z
  .strictObject({
    control: controlAddress
      .optional()
      .describe(
        'Control socket of `rampart trace`, `top` and `explain`: unix:PATH, or off. ' +
          'Default: rampart.sock in $XDG_RUNTIME_DIR/rampart, or in /run/rampart.',
      ),
    log: z.enum(['text', 'json']).default('text').describe('Form of the log on standard error.'),
    records: z.boolean().default(false).describe('Log a line for every flow, stream and request that ended.'),
    trace: z.boolean().default(false).describe('Log the live trace from the start. Costs speed.'),
    metrics: ipListenAddress
      .optional()
      .describe(
        'Address and port where GET /metrics answers in the text format of Prometheus. It has no access ' +
          'control of its own, so give it an address that only the collector reaches. Default: none.',
      ),
    access_log: accessLogSchema.optional(),
    trace_context: z
      .boolean()
      .default(false)
      .describe(
        'Forwarded HTTP requests without a traceparent (W3C Trace Context) get one. One that came is ' +
          'always passed on, and its number stands in the access log.',
      ),
  })
  .describe('Log, records, trace, metrics and control socket.');

/** The typed value. */
export function telemetryConfig(input: z.output<typeof telemetrySchema>): TelemetryConfig {
  return {
    control: input.control?.path,
    log: input.log,
    records: input.records,
    trace: input.trace,
    metrics: input.metrics ?? null,
    accessLog: input.access_log === undefined ? null : accessLogConfig(input.access_log),
    traceContext: input.trace_context,
  };
}
