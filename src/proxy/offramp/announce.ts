import { RampartError } from '#base/error.ts';
import type { SendProxyHeader } from '#config/off-ramps.ts';
import { Errno, type Fd } from '#io/io.ts';
import { writeProxyV1, writeProxyV2 } from '#protocol/proxy-protocol/write.ts';
import type { Announcement, Worker } from '#proxy/proxy-contract.ts';

/**
 * Sends the PROXY header on a connection that was just opened, before anything else is. Closes the connection
 * when that fails.
 *
 * @throws RampartError RAMP_CONNECT, side `upstream`.
 */
export function announce(worker: Worker, fd: Fd, form: SendProxyHeader, client: Announcement): void {
  const { serverName, ...rest } = client;
  const said = { ...rest, ...(serverName === undefined ? {} : { authority: serverName }) };
  const bytes = form.version === 1 ? writeProxyV1(said) : writeProxyV2(said);
  const { io, streams } = worker;
  const slot = streams.acquire();
  let sent: number = -Errno.ENOBUFS;
  if (slot >= 0) {
    io.arena.bytes.set(bytes, slot);
    // The send buffer of a fresh socket holds more than the longest header.
    sent = io.trySend(fd, slot, bytes.length);
    streams.release(slot);
  }
  if (sent === bytes.length) return;
  io.close(fd);
  throw new RampartError('RAMP_CONNECT', 'the PROXY header could not be sent; the connection was closed', {
    side: 'upstream',
    retry: 'yes',
    errno: sent < 0 ? -sent : Errno.EPIPE,
  });
}
