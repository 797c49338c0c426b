import { assert } from '#base/assert.ts';
import type { Fd } from '#io/io.ts';

import { HttpSocket, type SocketWorld } from './http-socket.ts';

/** What an exchange hears from its upstream connection. */
export interface UpstreamUser {
  onUpstreamInput(): void;
  /** `errno` 0: the upstream ended its side. */
  onUpstreamEnd(errno: number): void;
  onUpstreamSent(errno: number): void;
}

/** What an upstream connection tells its surroundings. */
export interface UpstreamWorld extends SocketWorld {
  /** The connection is closed. */
  onUpstreamClosed(fd: Fd): void;
}

/** One connection to an upstream: used by one exchange at a time, or idle in its group. */
export class UpstreamConnection extends HttpSocket {
  readonly group: UpstreamGroup;
  user: UpstreamUser | null = null;
  /** Requests that it has carried. */
  requests = 0;
  idleSince = 0;
  idle = false;
  readonly #world: UpstreamWorld;

  constructor(world: UpstreamWorld, fd: Fd, group: UpstreamGroup) {
    super(world, fd);
    this.#world = world;
    this.group = group;
  }

  override close(): void {
    const wasOpen = !this.closed;
    super.close();
    if (wasOpen) this.#world.onUpstreamClosed(this.fd);
  }

  protected override onInput(): void {
    if (this.user !== null) this.user.onUpstreamInput();
    else this.discard();
  }

  protected override onEnd(errno: number): void {
    if (this.user !== null) this.user.onUpstreamEnd(errno);
    else this.discard();
  }

  protected override onSent(errno: number): void {
    this.user?.onUpstreamSent(errno);
  }

  /**
   * Closes it for good. An idle connection on which anything comes, be it bytes or the end, is never used
   * again: a response before its request belongs to nobody (RFC 9112 section 9.2).
   */
  discard(): void {
    this.user = null;
    if (this.idle) this.group.forget(this);
    this.close();
  }
}

/**
 * Idle connections that may serve each other's requests: equal account, vnet, off-ramp, target and source.
 */
export class UpstreamGroup {
  readonly key: string;
  /** Dropped from its pool: whoever still holds it looks the key up again. */
  dropped = false;
  usedAt = 0;
  readonly #idleMax: number;
  readonly #idle: UpstreamConnection[] = [];

  constructor(key: string, idleMax: number) {
    this.key = key;
    this.#idleMax = idleMax;
  }

  /** Idle connections. */
  get idleCount(): number {
    return this.#idle.length;
  }

  /** The connection that was used last, or null. The caller owns it. */
  take(): UpstreamConnection | null {
    const connection = this.#idle.pop();
    if (connection === undefined) return null;
    connection.idle = false;
    return connection;
  }

  /** Takes a connection back on which both messages ended cleanly and nothing is left to read. */
  give(connection: UpstreamConnection, now: number): void {
    assert(!connection.idle && !connection.closed && !connection.sending && connection.inSlot < 0);
    connection.user = null;
    if (this.#idleMax === 0 || this.dropped) {
      connection.close();
      return;
    }
    if (this.#idle.length >= this.#idleMax) (this.#idle[0] as UpstreamConnection).discard();
    connection.idle = true;
    connection.idleSince = now;
    this.#idle.push(connection);
    // Listening while idle finds out at once when the upstream closes, or says what nobody asked for.
    connection.receive();
  }

  /** Removes an idle connection without closing it. */
  forget(connection: UpstreamConnection): void {
    const index = this.#idle.indexOf(connection);
    assert(index >= 0);
    this.#idle.splice(index, 1);
    connection.idle = false;
  }

  /** Closes those that have been idle since before `limit`. They are sorted: the oldest first. */
  expire(limit: number): void {
    while (this.#idle.length > 0 && (this.#idle[0] as UpstreamConnection).idleSince < limit) {
      (this.#idle[0] as UpstreamConnection).discard();
    }
  }
}

/** All groups of one worker. */
export class UpstreamPool {
  readonly #groups = new Map<string, UpstreamGroup>();
  readonly #idleMax: number;

  constructor(idleMax: number) {
    this.#idleMax = idleMax;
  }

  /** The group of a plan's key. */
  group(key: string): UpstreamGroup {
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = new UpstreamGroup(key, this.#idleMax);
      this.#groups.set(key, group);
    }
    return group;
  }

  /** Idle connections of all groups. */
  get idleCount(): number {
    let count = 0;
    for (const group of this.#groups.values()) count += group.idleCount;
    return count;
  }

  /**
   * Closes connections idle since before `limit`, and drops groups that are empty and were last used before
   * it.
   */
  expire(limit: number): void {
    for (const [key, group] of this.#groups) {
      group.expire(limit);
      if (group.idleCount > 0 || group.usedAt >= limit) continue;
      group.dropped = true;
      this.#groups.delete(key);
    }
  }

  /** Closes all idle connections; those in use are closed when they come back. */
  close(): void {
    for (const group of this.#groups.values()) {
      group.expire(Number.POSITIVE_INFINITY);
      group.dropped = true;
    }
    this.#groups.clear();
  }
}
