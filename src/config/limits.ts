import * as z from 'zod';

import { formatDuration } from '#base/duration.ts';
import { formatSize } from '#base/size.ts';

import { duration, size } from './scalars.ts';

/** One limit: its unit, bounds, default, why that is the default, and what happens when it is reached. */
export interface LimitDefinition {
  readonly unit: 'count' | 'duration' | 'size';
  /** In counts, milliseconds or bytes. */
  readonly default: number;
  readonly min: number;
  readonly max: number;
  readonly limits: string;
  readonly reason: string;
  readonly reached: string;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const KIB = 1024;
const MIB = 1024 * KIB;

function count(
  bounds: readonly [number, number, number],
  words: readonly [string, string, string],
): LimitDefinition {
  return define('count', bounds, words);
}

function time(
  bounds: readonly [number, number, number],
  words: readonly [string, string, string],
): LimitDefinition {
  return define('duration', bounds, words);
}

function bytes(
  bounds: readonly [number, number, number],
  words: readonly [string, string, string],
): LimitDefinition {
  return define('size', bounds, words);
}

function define(
  unit: LimitDefinition['unit'],
  [min, byDefault, max]: readonly [number, number, number],
  [limits, reason, reached]: readonly [string, string, string],
): LimitDefinition {
  return Object.freeze({ unit, min, default: byDefault, max, limits, reason, reached });
}

/**
 * Every limit of the data plane. The name in the code has the unit at its end (`tcpIdleMs`), the key in the
 * file has none (`tcp_idle: 2h`): see `limitKey`. Bounds and default stand as [smallest, default, largest].
 */
export const LIMITS = Object.freeze({
  flowsMax: count(
    [16, 262_144, 16_777_216],
    [
      'flows at once in one worker',
      'a flow costs well under 512 bytes, so this is about 100 MiB',
      'the flow longest idle of the account with most flows is evicted (counter flows_evicted)',
    ],
  ),
  flowsPerAccountMax: count(
    [16, 131_072, 16_777_216],
    [
      'flows at once of one account in one worker',
      'half of all: no account alone can fill the table',
      "the account's own flow longest idle is evicted; drop reason account_flow_limit where none may be",
    ],
  ),
  tcpHandshakeMs: time(
    [SECOND, 30 * SECOND, 10 * MINUTE],
    [
      'from the first SYN of a flow to its established state',
      'RFC 9293 clients give up later, SYN floods must not hold entries',
      'the flow is forgotten',
    ],
  ),
  tcpIdleMs: time(
    [10 * SECOND, 2 * HOUR + 4 * MINUTE, 7 * DAY],
    [
      'silence of an established TCP flow',
      'RFC 5382 REQ-5 asks for at least 2 hours 4 minutes',
      'the flow is forgotten; its record says client_idle',
    ],
  ),
  tcpClosingMs: time(
    [SECOND, 4 * MINUTE, HOUR],
    ['a TCP flow after FIN or RST', 'RFC 5382 REQ-5 asks for at least 4 minutes', 'the flow is forgotten'],
  ),
  udpIdleMs: time(
    [SECOND, 5 * MINUTE, DAY],
    [
      'silence of a UDP flow or session',
      'RFC 4787 REQ-5 asks for at least 2 minutes and recommends 5',
      'the flow or session ends with client_idle',
    ],
  ),
  icmpIdleMs: time(
    [SECOND, MINUTE, HOUR],
    ['silence of an ICMP query flow', 'RFC 5508 REQ-2 asks for at least 60 seconds', 'the flow is forgotten'],
  ),
  otherIdleMs: time(
    [SECOND, 10 * MINUTE, DAY],
    [
      'silence of a flow of another protocol',
      'nothing shows when such a flow is over',
      'the flow is forgotten',
    ],
  ),
  introductionMs: time(
    [100, 10 * SECOND, 10 * MINUTE],
    [
      'from accepting a connection to the end of what comes before its stream: PROXY header, SOCKS greeting',
      'a few round trips over the worst of networks; what waits there costs a descriptor',
      'the connection is closed (counter client_timeouts)',
    ],
  ),
  tlsHandshakeMs: time(
    [100, 10 * SECOND, 10 * MINUTE],
    [
      'a TLS handshake, from its first byte or the connect to its end',
      'a few round trips over the worst of networks; what waits there costs memory and a descriptor',
      'the stream ends with client_tls_error or origin_tls_error, a request is answered 502',
    ],
  ),
  connectMs: time(
    [10, 10 * SECOND, 10 * MINUTE],
    [
      'connecting to a target, name resolution and all addresses included',
      'three lost SYNs (1 s + 2 s + 4 s) still connect',
      'the stream ends with origin_unreachable, a request is answered 504',
    ],
  ),
  sniffMs: time(
    [1, 250, MINUTE],
    [
      'waiting for the first bytes of a stream that is sniffed or peeked at',
      'a client that speaks first does so within a round trip; servers that speak first must not wait long',
      'the stream is spliced as it is',
    ],
  ),
  hookMs: time(
    [1, 5 * SECOND, 10 * MINUTE],
    [
      'one call of a hook that answers with a promise',
      'enough for a question to another service',
      'the flow ends as refused (drop reason hook_failed, counter hook_timeouts)',
    ],
  ),
  streamIdleMs: time(
    [SECOND, 2 * HOUR + 4 * MINUTE, 7 * DAY],
    [
      'silence of a spliced stream in both directions',
      'the same as tcp_idle',
      'both sides are closed; the record says client_idle',
    ],
  ),
  headMs: time(
    [100, 30 * SECOND, HOUR],
    [
      'from the first byte of a request to the end of its head',
      'slow heads are the cheapest attack on a proxy (RFC 9112 section 9.5)',
      'answered 408 and closed (counter client_timeouts)',
    ],
  ),
  bodyIdleMs: time(
    [100, 60 * SECOND, HOUR],
    [
      'silence inside a body',
      'a mobile client may lose its network for a while',
      'both sides are closed; a request whose response has not begun is answered 408',
    ],
  ),
  keepAliveMs: time(
    [0, 75 * SECOND, DAY],
    [
      'an idle client connection between two requests',
      'longer than the 60 s after which common load balancers close theirs',
      'the connection is closed',
    ],
  ),
  responseMs: time(
    [100, 60 * SECOND, DAY],
    [
      'from the end of a request to the head of its response',
      'as long as common proxies wait',
      'answered 504 (counter upstream_timeouts)',
    ],
  ),
  continueMs: time(
    [0, SECOND, MINUTE],
    [
      'waiting for 100 (Continue) before a body is sent',
      'RFC 9110 section 10.1.1: a client must not wait indefinitely',
      'the body is sent',
    ],
  ),
  headBytesMax: bytes(
    [1 * KIB, 16 * KIB, 28 * KIB],
    [
      'a message head, start line included',
      'twice what common origins accept; it has to fit into a stream buffer of 32 KiB with room ' +
        'for added fields',
      'a request is answered 431 (414 where the target alone is too long), a response is answered 502',
    ],
  ),
  headFieldsMax: count(
    [8, 128, 1000],
    ['fields of one message head, and of one trailer section', 'browsers send about 20', 'as head_bytes_max'],
  ),
  upstreamIdleMs: time(
    [0, 55 * SECOND, HOUR],
    [
      'an idle upstream connection in the pool',
      'shorter than the 60 s of common origins, so that the pool closes first',
      'the connection is closed',
    ],
  ),
  upstreamIdleMax: count(
    [0, 256, 65_536],
    [
      'idle upstream connections per target',
      'enough for steady load; more only hold descriptors',
      'the connection longest idle is closed',
    ],
  ),
  packetSlots: count(
    [64, 1024, 65_536],
    [
      'packet buffers of one worker',
      'a slot holds the largest packet with its headers (about 68 KiB), so this maps about 68 ' +
        'MiB, used as needed',
      'packets are dropped with no_buffer',
    ],
  ),
  streamSlots: count(
    [64, 4096, 262_144],
    [
      'stream buffers of one worker, 32 KiB each',
      'idle connections hold none; this maps 128 MiB, used as needed',
      'reading pauses until one is free; new streams are refused with limit',
    ],
  ),
  reassemblyBytesMax: bytes(
    [64 * KIB, 4 * MIB, 1024 * MIB],
    [
      'fragments that wait for their packet',
      'fragments are rare; what waits is what an attacker can pin (RFC 8900 section 3.7)',
      'fragments are dropped with reassembly_full',
    ],
  ),
  contextBytesMax: bytes(
    [64, 4 * KIB, 60 * KIB],
    [
      'the context of an IP tunnel, as it comes in',
      'names, groups and labels need a few hundred bytes; a GUE context is limited to 124 bytes ' +
        'by its header',
      'the tunnel is refused with context_too_long',
    ],
  ),
} as const);

/** Name of a limit in the code. */
export type LimitName = keyof typeof LIMITS;

/** The limits as the data plane takes them: counts, milliseconds, bytes. */
export type LimitsConfig = { readonly [Name in LimitName]: number };

/** The key in the file: `tcpIdleMs` is `tcp_idle`, `headBytesMax` is `head_bytes_max`. */
export function limitKey(limit: string): string {
  return limit.replace(/Ms$/, '').replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** A limit's value as people write it. */
export function formatLimit(definition: LimitDefinition, value: number): string {
  if (definition.unit === 'duration') return formatDuration(value);
  return definition.unit === 'size' ? formatSize(value) : String(value);
}

/** The `limits` key. */
export const limitsSchema = z
  .strictObject(
    Object.fromEntries(
      Object.entries(LIMITS).map(([limit, definition]) => [limitKey(limit), valueSchema(definition)]),
    ),
  )
  .describe('Limits of time, number and size. Each has a default that suits most.');

/** The limits of one worker: what the file says over the defaults. */
export function limitsConfig(input: Readonly<Record<string, number | undefined>>): LimitsConfig {
  const limits: Record<string, number> = {};
  for (const [limit, definition] of Object.entries(LIMITS)) {
    limits[limit] = input[limitKey(limit)] ?? definition.default;
  }
  return limits as LimitsConfig;
}

function valueSchema(definition: LimitDefinition): z.ZodType<number | undefined> {
  const { min, max } = definition;
  const range = `between ${formatLimit(definition, min)} and ${formatLimit(definition, max)}`;
  const byDefault = formatLimit(definition, definition.default);
  const words =
    `Limits ${definition.limits}. Default ${byDefault}: ${definition.reason}. ` +
    `Reached: ${definition.reached}.`;
  const schema =
    definition.unit === 'duration'
      ? duration(definition, `a duration ${range}, such as "${byDefault}"`)
      : definition.unit === 'size'
        ? size(definition, `a size ${range}, such as "${byDefault}"`)
        : z.int().min(min).max(max);
  return schema.describe(words).optional() as z.ZodType<number | undefined>;
}
