/** Which side of the proxy an operation failed on. */
export type ErrorSide = 'downstream' | 'upstream' | 'internal' | 'config';

/**
 * Whether the same operation may be tried again: never, always, or only on a connection that was used before.
 */
export type ErrorRetry = 'no' | 'yes' | 'if-reused';

/**
 * The permanent error codes. A code is never renamed or reused; the text is its documentation and is
 * printed in docs/reference/errors.md.
 */
export const ERROR_CODES = Object.freeze({
  RAMP_INTERNAL: 'an operation failed for a reason that has no code of its own; the cause says more',
  RAMP_CONFIG: 'the configuration file has a mistake; line and column say where',
  RAMP_HOOKS: 'the hooks file could not be loaded or does not export what the config expects',
  RAMP_SYSCALL: 'a system call failed; errno says why',
  RAMP_IO_UNSUPPORTED: 'the kernel or the container profile forbids what the chosen io engine needs',
  RAMP_NO_DESCRIPTORS: 'the process has no free descriptors (EMFILE or ENFILE)',
  RAMP_NO_MEMORY: 'the arena or a buffer pool is exhausted',
  RAMP_NAMESPACE: 'a private network namespace could not be made',
  RAMP_DEVICE: 'a TUN or packet device could not be opened or configured',
  RAMP_LISTEN: 'an address could not be bound',
  RAMP_CONNECT: 'the upstream refused, timed out or could not be reached',
  RAMP_TIMEOUT: 'a limit of time was reached',
  RAMP_LIMIT: 'a configured limit was reached',
  RAMP_CONTEXT: 'an IP tunnel sent a context that is truncated, too large or not understood',
  RAMP_HOOK_FAILED: 'a hook threw or returned something that is not a verdict',
  RAMP_HTTP_MALFORMED: 'an HTTP message breaks RFC 9112',
  RAMP_TLS: 'a TLS handshake or session failed; the text has the alert or what did not verify',
  RAMP_CERTIFICATE: 'a certificate, key or OCSP response cannot be read or does not fit',
  RAMP_USAGE: 'the command line is not understood',
} as const);

/** One of the permanent codes. */
export type ErrorCode = keyof typeof ERROR_CODES;

/** What a `RampartError` carries beside its text. */
export interface ErrorDetails {
  /** Default `internal`. */
  readonly side?: ErrorSide;
  /** Default `no`. */
  readonly retry?: ErrorRetry;
  /** The positive errno where a system call failed. */
  readonly errno?: number;
  readonly cause?: unknown;
}

/** A failed operation. Its text is lower case: what happened, what was expected, what to do. */
export class RampartError extends Error {
  readonly code: ErrorCode;
  readonly side: ErrorSide;
  readonly retry: ErrorRetry;
  /** Positive errno, or 0 where no system call was involved. */
  readonly errno: number;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'RampartError';
    this.code = code;
    this.side = details.side ?? 'internal';
    this.retry = details.retry ?? 'no';
    this.errno = details.errno ?? 0;
  }
}
