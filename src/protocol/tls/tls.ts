/**
 * `protocol/tls` is what can be said of TLS from its bytes: `client-hello.ts` reads what a client sends
 * first.
 *
 * This file is the folder's front: it says what belongs here. Import the file that you need, not this one.
 */
export {};
