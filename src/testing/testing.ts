/**
 * `testing` holds what tests of whole programs share; nothing that ships imports it. A test with it reads:
 * make hosts, start origins in them, start a Rampart from a config, run real programs, look at what came of
 * it.
 *
 * Everything that is made here ends with the process that made it, however that ends: programs are killed,
 * and a namespace goes when its last program and descriptor are gone. Nothing waits for a time to pass: what
 * a test waits for is a condition with a deadline (`until`).
 *
 * Files: `until.ts` (conditions with a deadline), `program.ts` (child processes), `hosts.ts` (namespaces as
 * hosts), `rampart-process.ts` (a Rampart under test), `origins.ts` with `origin-program.ts` (servers that
 * say who they are), `load.ts` with `load-program.ts` (clients that count foreign answers), `packets.ts`
 * (packets by hand), `packet-peer.ts` (SEQPACKET and GUE tunnels by hand), `tiny-tcp.ts` (TCP by hand).
 */
export {};
