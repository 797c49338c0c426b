/**
 * `protocol/tls` is TLS as bytes in and bytes out. `client-hello.ts` reads what a client sends first, without
 * a key; `alert.ts` names alerts; `names.ts` matches server names; `tls-context.ts` is what sessions of one
 * certificate have in common, `tls-session.ts` one session. Handshakes, records and cryptography are
 * OpenSSL's (the copy inside Node): nothing of it is written here. Nothing here touches a descriptor.
 *
 * This file is the folder's front: it says what belongs here. Import the file that you need, not this one.
 */
export {};
