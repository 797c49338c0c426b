/**
 * `io/ffi` is the edge to native code: the only folder that imports `node:ffi`, so that an experimental
 * module can be replaced in one place. `libc.ts` has the system calls, `libuv.ts` the handles that join
 * Node's event loop, `ring.ts` the memory layout of an io_uring, the files named `openssl-` the OpenSSL
 * inside Node. Nothing here knows what the calls are used for; results are plain numbers, and a negative one
 * is −errno.
 *
 * This file is the folder's front: it says what belongs here. Import the file that you need, not this one.
 */
export {};
