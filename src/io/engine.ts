import { RampartError } from '#base/error.ts';

import { EpollEngine } from './epoll.ts';
import { epollCreate } from './ffi/libc.ts';
import { Ring } from './ffi/ring.ts';
import { type EngineKind, Errno, type Io } from './io.ts';
import type { NativeEngineOptions } from './native-engine.ts';
import { systemError } from './system-error.ts';
import { UringEngine } from './uring.ts';

/** Which engine to open, and how. */
export interface EngineOptions extends NativeEngineOptions {
  /**
   * Overrides the choice; default is the environment's RAMPART_IO, and without that the best one that works.
   */
  readonly kind?: 'uring' | 'epoll';
  /** Submissions that one batch holds; a power of two. Default 4096. */
  readonly ringEntries?: number;
  /** Told which engine was chosen and why, in one line. */
  readonly log?: (line: string) => void;
}

const RING_ENTRIES_DEFAULT = 4096;

/**
 * Opens the engine that moves the bytes: `uring` where the kernel allows it, else `epoll`. `RAMPART_IO=uring`
 * or `epoll` overrides the choice.
 *
 * @throws RAMP_IO_UNSUPPORTED when an engine that was asked for cannot run here.
 */
export function openEngine(options: EngineOptions = {}): Io {
  const wanted = options.kind ?? wantedByEnvironment();
  if (wanted === 'epoll') {
    options.log?.('io engine epoll, as asked for');
    return openEpoll(options);
  }
  const ring = Ring.open(options.ringEntries ?? RING_ENTRIES_DEFAULT);
  if (typeof ring !== 'number') {
    options.log?.(`io engine uring${wanted === 'uring' ? ', as asked for' : ''}`);
    return new UringEngine(ring, options);
  }
  const reason = refusal(ring);
  if (wanted === 'uring') {
    const text = `the io engine uring was asked for, but ${reason}; allow it or use RAMPART_IO=epoll`;
    throw new RampartError('RAMP_IO_UNSUPPORTED', text, { errno: -ring });
  }
  options.log?.(`io engine epoll: ${reason}`);
  return openEpoll(options);
}

/** Why the `uring` engine cannot run here, in words; null where it can. For diagnosis and tests. */
export function ringRefusal(): string | null {
  const ring = Ring.open(2);
  if (typeof ring === 'number') return refusal(ring);
  ring.close();
  return null;
}

function openEpoll(options: EngineOptions): Io {
  const epoll = epollCreate();
  if (epoll < 0) throw systemError('RAMP_IO_UNSUPPORTED', 'making an epoll descriptor', epoll);
  return new EpollEngine(epoll, options);
}

function wantedByEnvironment(): EngineKind | undefined {
  const value = process.env.RAMPART_IO;
  if (value === undefined || value === '') return undefined;
  if (value === 'uring' || value === 'epoll') return value;
  throw new RampartError(
    'RAMP_IO_UNSUPPORTED',
    `RAMPART_IO is ${value}; expected uring or epoll; unset it to let the best one be chosen`,
  );
}

function refusal(result: number): string {
  if (result === -Errno.EPERM) return 'io_uring is forbidden here (EPERM), as in default container profiles';
  if (result === -Errno.EINVAL) return 'the kernel is older than Linux 5.19, which io_uring needs here';
  return `io_uring cannot be set up (errno ${-result})`;
}
