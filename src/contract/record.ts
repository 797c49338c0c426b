import type { Endpoint, FlowProtocol, Identity } from './context.ts';

/** Why a flow, stream or session ended. Names are permanent: they stand in logs. */
export const CloseReason = Object.freeze({
  ClientClosed: 'client_closed',
  ClientIdle: 'client_idle',
  ClientTlsError: 'client_tls_error',
  ClientError: 'client_error',
  OriginClosed: 'origin_closed',
  OriginTlsError: 'origin_tls_error',
  OriginError: 'origin_error',
  OriginUnreachable: 'origin_unreachable',
  OriginUnroutable: 'origin_unroutable',
  Policy: 'policy',
  Limit: 'limit',
  RouteRemoved: 'route_removed',
  Shutdown: 'shutdown',
} as const);

/** One of the reasons. */
export type CloseReason = (typeof CloseReason)[keyof typeof CloseReason];

/** Layer at which a flow was decided and carried. */
export type FlowLayer = 'ip' | 'tcp' | 'udp' | 'http';

/** The record of one flow, stream or session: given to the `end` hook and to the log, exactly once. */
export interface FlowRecord {
  /** Unique in this process's life. */
  readonly flow: number;
  readonly account: string;
  readonly vnet: string;
  readonly identity: Identity | null;
  readonly onRamp: string;
  /** Off-ramp that carried it; null when it never left. */
  readonly offRamp: string | null;
  readonly layer: FlowLayer;
  readonly protocol: FlowProtocol;
  readonly source: Endpoint;
  /** The inner target that the client asked for, before any rewrite. */
  readonly destination: Endpoint;
  /** What decided: a route, a hook's verdict or a limit, in words. */
  readonly rule: string;
  readonly reason: CloseReason;
  /** Unix milliseconds. */
  readonly startedAt: number;
  readonly endedAt: number;
  /** From the client towards the origin. Bytes of IP packets at layer `ip`, of payload above it. */
  readonly bytesUp: number;
  readonly bytesDown: number;
  readonly packetsUp: number;
  readonly packetsDown: number;
}
