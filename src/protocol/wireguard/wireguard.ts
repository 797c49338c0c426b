/**
 * `protocol/wireguard` is WireGuard as its whitepaper has it, pure: datagrams, packets and the time come in,
 * datagrams, packets and events come out. No socket, no clock, no chance of its own.
 *
 * | file | what |
 * |---|---|
 * | `interface.ts` | `WireguardInterface`: the whole protocol for one private key and its peers |
 * | `interface-types.ts` | what goes into it and comes out |
 * | `session-table.ts` | indices → sessions and unanswered initiations |
 * | `peer.ts` | `Peer`: sessions, endpoint and timers of one peer |
 * | `session.ts` | transport keys, counters, replay window of one session |
 * | `handshake.ts` | Noise IKpsk2, one type per awaited message |
 * | `message.ts` | the four messages on the wire |
 * | `cookie.ts` | MAC1, MAC2, cookies |
 * | `drop.ts` | why something was dropped |
 * | `load-guard.ts` | when load counts as too much, and token buckets by source |
 * | `allowed-ips.ts` | longest prefix → peer |
 * | `replay-window.ts` | which counters have been seen |
 * | `deadline-heap.ts` | which peer's timer is next |
 * | `endpoint.ts` | addresses of peers as the kernel has them |
 * | `timestamp.ts` | TAI64N |
 * | `inner-packet.ts` | versions, lengths and addresses of the packets inside |
 * | `chance.ts`, `queue.ts` | chance in small pieces; a queue with a limit |
 * | `test-wire.ts` | interfaces on a virtual wire with virtual time, for tests |
 * | `specification.ts`, `limits.ts` | numbers of the whitepaper; numbers of this implementation |
 *
 * This file is the folder's front: it says what belongs here. Import the file that you need, not this one.
 * How it works and what holds: docs/internals/wireguard.md.
 */
export {};
