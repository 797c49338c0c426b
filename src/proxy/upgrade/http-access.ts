/** What an exchange tells the access log: the beginning and the end of a request's line. */
import type { AccessEntry } from '#proxy/access-log/access-entry.ts';
import type { AccessLog } from '#proxy/access-log/access-log.ts';
import { CloseReason } from '#contract/record.ts';

import type { BodyPump } from './http-body-pump.ts';
import type { HttpConnection } from './http-connection.ts';

/** The first bytes of a request are here, at `now` in monotonic milliseconds. */
export function beginEntry(entry: AccessEntry, connection: HttpConnection, now: number): void {
  const log = connection.engine.options.accessLog as AccessLog;
  connection.clientText ??= log.client(connection.stream);
  entry.begin(connection.clientText, Date.now(), now);
}

/** This node answers: what an upstream said before does not reach the client. */
export function answerEntry(entry: AccessEntry, status: number): void {
  entry.status = status;
  entry.end = 'answered';
}

/** Writes the line, before the pumps and the connection of the exchange are forgotten. */
export function endEntry(
  entry: AccessEntry,
  connection: HttpConnection,
  pumps: readonly [BodyPump, BodyPump],
): void {
  const { io, options } = connection.engine;
  if (!entry.finish(io.now())) return;
  if (entry.end === '') entry.end = CloseReason.Shutdown;
  entry.offRamp = connection.offRamp ?? '';
  // The pumps of a request that never came so far still have the figures of another one.
  entry.bytesUp = entry.connectMs < 0 ? 0 : pumps[0].contentBytes;
  entry.bytesDown = entry.status === 0 ? 0 : pumps[1].contentBytes;
  options.accessLog?.write(entry);
}
