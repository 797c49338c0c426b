/**
 * `flow` is the packet pipeline: it knows which network a packet belongs to, which flow, and what was decided
 * for it. Nothing here opens a descriptor: packets come in through `PacketSink` and leave through
 * `IpTunnel.send`.
 *
 * In packet order:
 * - `networks.ts` (account, vnet) as one small integer, which is part of every key
 * - `flow-table.ts` the table of live flows, arrays only; `flow-hash.ts` its keyed hash
 * - `pipeline.ts` what happens to one packet: parse, look up, act
 * - `decide.ts` what happens to the first packet of a flow: spoof check, route, hooks
 * - `routes.ts` longest prefix match per network
 * - `transmit.ts` the way out: TTL, MTU, fragments, segments, checksums
 * - `answers.ts` what the proxy itself says: resets and ICMP errors, at a limited rate
 * - `icmp-errors.ts` errors of others, brought back to the flow they are about
 * - `nat.ts` the addresses that upgraded flows have inside the stack's private namespace
 *
 * Words, drawing and invariants: docs/internals/flow.md.
 */
export {};
