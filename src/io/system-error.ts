/** Errors of system calls, in words. */
import { getSystemErrorMessage, getSystemErrorName } from 'node:util';

import { RampartError, type ErrorCode } from '#base/error.ts';

import { Errno } from './io.ts';

/**
 * A failed system call: what was tried, why it failed, what to do.
 *
 * @param code EMFILE and ENFILE always become RAMP_NO_DESCRIPTORS.
 * @param what such as `opening a route socket`.
 * @param result the negative errno. @param detail the kernel's own words, where it has any.
 */
export function systemError(code: ErrorCode, what: string, result: number, detail = ''): RampartError {
  const reason = `${getSystemErrorMessage(result)} (${getSystemErrorName(result)})`;
  const full = detail === '' ? reason : `${reason}: ${detail}`;
  const errno = -result;
  if (errno === Errno.EMFILE || errno === Errno.ENFILE) {
    const text = `${what} failed: ${full}; raise the limit of open files (ulimit -n)`;
    return new RampartError('RAMP_NO_DESCRIPTORS', text, { errno });
  }
  const advice =
    errno === Errno.EPERM || errno === Errno.EACCES
      ? '; run as root, grant CAP_NET_ADMIN and CAP_SYS_ADMIN, or allow unprivileged user namespaces'
      : '';
  return new RampartError(code, `${what} failed: ${full}${advice}`, { errno });
}
