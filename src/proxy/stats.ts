import { DROP_REASON_COUNT } from '#base/drop-reason.ts';

import type { Stats } from './proxy-contract.ts';

/** Slots of `Stats.counters`. Names become metric names; docs/reference/metrics.md lists them. */
export const Counter = Object.freeze({
  PacketsIn: 0,
  BytesIn: 1,
  PacketsOut: 2,
  BytesOut: 3,
  FlowsOpened: 4,
  FlowsClosed: 5,
  FlowsEvicted: 6,
  FlowHits: 7,
  FlowMisses: 8,
  TunnelsOpened: 9,
  TunnelsClosed: 10,
  TunnelsRefused: 11,
  StreamsOpened: 12,
  StreamsClosed: 13,
  StreamBytesUp: 14,
  StreamBytesDown: 15,
  SessionsOpened: 16,
  SessionsClosed: 17,
  RequestsIn: 18,
  RequestsAnswered: 19,
  RequestsRefused: 20,
  RequestsMalformed: 21,
  ResponsesMalformed: 22,
  UpstreamConnects: 23,
  UpstreamConnectErrors: 24,
  UpstreamReused: 25,
  UpstreamRetries: 26,
  HookCalls: 27,
  HookErrors: 28,
  HookTimeouts: 29,
  IcmpErrorsSent: 30,
  IcmpErrorsTranslated: 31,
  RejectsSent: 32,
  AcceptErrors: 33,
  ClientTimeouts: 34,
  UpstreamTimeouts: 35,
  ClientAborts: 36,
  UpstreamAborts: 37,
  TraceDropped: 38,
  StreamsRefused: 39,
  TlsAccepted: 40,
  TlsAcceptErrors: 41,
  TlsPassed: 42,
  TlsInspected: 43,
  TlsConnected: 44,
  TlsConnectErrors: 45,
  AccessLogLines: 46,
  AccessLogDropped: 47,
} as const);

/** Number of slots in `Stats.counters`, with room to grow. */
export const COUNTER_COUNT = 64;

/** Fresh counters of one worker, all zero. */
export function createStats(): Stats {
  return { drops: new Float64Array(DROP_REASON_COUNT), counters: new Float64Array(COUNTER_COUNT) };
}
