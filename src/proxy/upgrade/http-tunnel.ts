import { CloseReason } from '#contract/record.ts';
import type { Fd } from '#io/io.ts';
import type { Relay, RelayHub, RelayOwner, RelaySide } from '#io/relay.ts';

import type { HttpConnection } from './http-connection.ts';
import type { UpstreamConnection } from './http-upstream-pool.ts';

/**
 * What is left of a client connection after 101: raw bytes both ways, and one record at the end. Neither
 * descriptor ever carries HTTP again (RFC 9110 section 15.2.2).
 */
export class HttpTunnel implements RelayOwner {
  readonly #connection: HttpConnection;
  readonly #relay: Relay;
  readonly #upstream: Fd;

  /**
   * Takes both descriptors over. Nothing may be under way on them; input of the client goes to the upstream
   * first.
   */
  constructor(hub: RelayHub, connection: HttpConnection, upstream: UpstreamConnection) {
    const { engine, inAt: offset, available: length } = connection;
    this.#connection = connection;
    const options = length > 0 ? { fromA: { pool: engine.streams, offset, length } } : {};
    if (length > 0) connection.takeInput();
    upstream.user = null;
    engine.forget(connection);
    engine.tunnels.add(this);
    this.#upstream = upstream.detach();
    this.#relay = hub.start(connection.detach(), this.#upstream, this, options);
  }

  onRelayEnd(_relay: Relay, side: RelaySide, errno: number): void {
    if (errno === 0) this.#end(side === 0 ? CloseReason.ClientClosed : CloseReason.OriginClosed);
    else this.#end(side === 0 ? CloseReason.ClientError : CloseReason.OriginError);
  }

  /** Ends both sides at once. */
  abort(reason: CloseReason): void {
    if (this.#end(reason)) this.#relay.close();
  }

  /** Ends it when nothing has moved for `idleMs`. */
  sweep(now: number, idleMs: number): void {
    if (now - this.#relay.lastActivity >= idleMs) this.abort(CloseReason.ClientIdle);
  }

  #end(reason: CloseReason): boolean {
    const connection = this.#connection;
    if (!connection.engine.tunnels.delete(this)) return false;
    connection.engine.onUpstreamClosed(this.#upstream);
    connection.bytesUp = this.#relay.bytesForth;
    connection.bytesDown = this.#relay.bytesBack;
    connection.record(reason);
    return true;
  }
}
