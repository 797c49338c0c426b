/**
 * `tunnel` holds the IP tunnels: two-way streams of IP packets with a context. A tunnel is both on-ramp and
 * off-ramp, so it has a folder of its own below both (see docs/adr/0005-tunnel-folder.md). What belongs
 * here: moving whole IP packets between a descriptor and the `PacketSink`, and making a context of a
 * tunnel's first message or of a datagram's private data. What does not: flows, routes, verdicts, checksums
 * and segmentation (`flow`).
 *
 * ```
 *   device-tunnel.ts     TUN or packet socket      one per device, context from the config
 *   seqpacket-tunnel.ts  Unix SEQPACKET            one per connection, context in message 0
 *   seqpacket-listener.ts  accepts those, and reads and judges their context
 *   gue-tunnel.ts        GUE over UDP (RFC draft)  one per (remote, context), context in every datagram
 *   read-loop.ts         how all three read: wait once, then take packets until there are none
 *   device-port.ts       frames of a device ⇄ packets in slots; the stack's own device is moved by it too
 *   admission.ts         context blob → context, by JSON or by the application's `tunnel` hook
 *   context-cache.ts     (remote, blob) → tunnel, without allocation on a hit
 *   tunnel-host.ts       what every tunnel is given
 *   tunnel-registry.ts   tunnel indexes, the figures of each tunnel, and what a new process adopts
 * ```
 */
export {};
