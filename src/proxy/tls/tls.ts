/**
 * `proxy/tls` puts TLS sessions upon descriptors: `tls-hub.ts` is what those of one worker share,
 * `tls-stream.ts` one connection, whose plaintext everything else uses through a descriptor of the
 * `LayeredIo` and takes for any other stream. On-ramps, upgrades and off-ramps all may have TLS, so it lies
 * below them.
 *
 * ```
 *   peer ◄── raw descriptor ──► TlsStream ◄── layered descriptor ──► HTTP, relay, sniffing …
 *              ciphertext        TlsSession         plaintext
 * ```
 * `certificate-files.ts` reads certificates and reads them again when they change; `inspector.ts` mints them.
 *
 * This file is the folder's front: it says what belongs here. Import the file that you need, not this one.
 */
export {};
