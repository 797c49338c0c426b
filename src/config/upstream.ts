import * as z from 'zod';

import { duration } from './scalars.ts';

/** How connections are spread over the origins of an off-ramp. Times in milliseconds. */
export interface UpstreamConfig {
  readonly balance: 'round-robin' | 'least-loaded' | 'source-hash';
  readonly failuresMax: number;
  readonly ejectMs: number;
  readonly slowStartMs: number;
  /** Open connections of one origin. */
  readonly connectionsMax: number;
  /** Connections being opened, to all origins together. */
  readonly pendingMax: number;
  readonly check: HealthCheckConfig | null;
}

/** Asks each origin whether it works. */
export interface HealthCheckConfig {
  /** Path of a GET that is answered below 400; null: a TCP connect is enough. */
  readonly path: string | null;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Answers in a row after which a down origin is up, and failures after which an up one is down. */
  readonly rise: number;
  readonly fall: number;
}

/** What an off-ramp without these keys has. */
export const DEFAULT_UPSTREAM: UpstreamConfig = Object.freeze({
  balance: 'round-robin',
  failuresMax: 5,
  ejectMs: 10_000,
  slowStartMs: 0,
  connectionsMax: 65_536,
  pendingMax: 1024,
  check: null,
});

const SECOND = 1000;
const HOUR = 3600 * SECOND;
const time = (min: number, words: string) => duration({ min, max: HOUR }, words);

const check = z
  .strictObject({
    path: z
      .string()
      .regex(/^\/[!-~]*$/, 'is no path; expected one such as "/healthz"')
      .max(1000)
      .optional()
      .describe(
        'Path of a GET that must be answered with a status below 400. Default: a TCP connect; with tls it ' +
          'is always a TLS handshake.',
      ),
    interval: time(100, 'a duration between 100ms and 1h, such as "5s"')
      .default(5 * SECOND)
      .describe('Time between two checks of an origin. Default: 5s.'),
    timeout: time(10, 'a duration between 10ms and 1h, such as "2s"')
      .default(2 * SECOND)
      .describe('How long a check may take. Default: 2s.'),
    rise: z.int().min(1).max(100).default(2).describe('Successes in a row that bring it back. Default: 2.'),
    fall: z.int().min(1).max(100).default(3).describe('Failures in a row that take it out. Default: 3.'),
  })
  .describe('Asks each origin regularly whether it works. Default: no checks.');

/** The keys of an off-ramp with several origins. */
export const upstreamKeys = {
  balance: z
    .enum(['round-robin', 'least-loaded', 'source-hash'])
    .default(DEFAULT_UPSTREAM.balance)
    .describe(
      'Which origin a connection goes to: each in turn; the one of two drawn by chance that has fewer ' +
        'connections; or always the same one for a client address. Default: round-robin.',
    ),
  failures_max: z
    .int()
    .min(1)
    .max(1000)
    .default(DEFAULT_UPSTREAM.failuresMax)
    .describe('Failed connects, or answers of 500 and above, in a row that eject an origin. Default: 5.'),
  eject: time(10, 'a duration between 10ms and 1h, such as "10s"')
    .default(DEFAULT_UPSTREAM.ejectMs)
    .describe('How long it is out the first time; then twice as long, up to 32 times. Default: 10s.'),
  slow_start: time(0, 'a duration up to 1h, such as "30s"')
    .default(DEFAULT_UPSTREAM.slowStartMs)
    .describe('How long an origin that came back takes to its full share. Default: 0s.'),
  connections_max: z
    .int()
    .min(1)
    .max(1_000_000)
    .default(DEFAULT_UPSTREAM.connectionsMax)
    .describe('Open connections of one origin at most; beyond, others are chosen. Default: 65536.'),
  pending_max: z
    .int()
    .min(1)
    .max(1_000_000)
    .default(DEFAULT_UPSTREAM.pendingMax)
    .describe('Connections being opened at most; beyond, requests fail at once. Default: 1024.'),
  check: check.optional(),
};

/** The typed value. */
export function upstreamConfig(input: z.output<z.ZodObject<typeof upstreamKeys>>): UpstreamConfig {
  const { check: checked } = input;
  return {
    balance: input.balance,
    failuresMax: input.failures_max,
    ejectMs: input.eject,
    slowStartMs: input.slow_start,
    connectionsMax: input.connections_max,
    pendingMax: input.pending_max,
    check:
      checked === undefined
        ? null
        : {
            path: checked.path ?? null,
            intervalMs: checked.interval,
            timeoutMs: checked.timeout,
            rise: checked.rise,
            fall: checked.fall,
          },
  };
}
