import { join } from 'node:path';

/** What the default path depends on. */
export interface SocketPathOptions {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly uid: number;
}

/**
 * Where the control socket lies when the config names none: in the user's own runtime folder, for root in
 * /run/rampart, for a user without such a folder in /tmp.
 */
export function defaultSocketPath(options: SocketPathOptions): string {
  const runtime = options.environment.XDG_RUNTIME_DIR;
  if (options.uid === 0) return '/run/rampart/rampart.sock';
  if (runtime?.startsWith('/')) return join(runtime, 'rampart', 'rampart.sock');
  return `/tmp/rampart-${options.uid}/rampart.sock`;
}

/** The default path of this process. */
export function ownSocketPath(): string {
  return defaultSocketPath({ environment: process.env, uid: process.getuid?.() ?? 0 });
}
