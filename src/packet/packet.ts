/**
 * `packet` knows the bytes that two or more protocols use: IPv4, IPv6, TCP, UDP, ICMP, checksums,
 * segmentation. Every function is pure: it works on `(view: DataView, offset, length)`, where the view is the
 * arena's and offsets are absolute in it; no descriptors, clocks or randomness (`now` and seeds come in). Bad
 * packets are `DropReason` numbers.
 *
 * A packet lies in one slot: `[headroom][virtio header, 10 bytes][IP packet]`, see `virtio-header.ts`. Who
 * reads a packet from somewhere without virtio header calls `clearVirtioHeader` first; who reads one with it
 * calls `checkVirtioHeader` after parsing; who sends to somewhere without it calls `finishChecksum`, and
 * segments first when `gsoType` is not 0.
 *
 * | file | exports |
 * |---|---|
 * | `parse.ts` | `parsePacket(view, offset, length, into): DropReason`, `ParsedPacket`, `IpProtocol`, `TcpFlag`, `FragmentKind` |
 * | `parse-extension.ts` | IPv6 extension headers, `EXTENSION_HEADERS_MAX`, `EXTENSION_BYTES_MAX` |
 * | `virtio-header.ts` | `PACKET_HEADROOM`, `PACKET_SLOT_BYTES`, `PACKET_LENGTH_MAX`, `clearVirtioHeader(view, offset)`, `checkVirtioHeader(view, parsed): DropReason`, `needsChecksum`, `isChecksumTrusted`, `gsoType`, `gsoSize`, `setGso`, `setNeedsChecksum` |
 * | `checksum.ts` | `sumBytes(view, offset, length)`, `sumPseudoHeader`, `delta16`, `delta32`, `updateChecksum(checksum, delta)`, `finishChecksum(view, offset, length)`, `verifyTransportChecksum(view, parsed): boolean`, `writeTransportChecksum(view, parsed)` |
 * | `address.ts` | `checkSource(view, parsed): DropReason`, `checkDestination`, `addressScope`, `addressesEqual`, `copyAddress`, `formatAddressAt(view, offset, version)` |
 * | `tuple.ts` | `hashTuple(view, parsed, network, seed)`, `hashReplyTuple` |
 * | `rewrite.ts` | `rewriteSource(view, parsed, from, fromOffset, port)`, `rewriteDestination`, `decrementTtl(view, parsed): boolean`, `setTos`, `clampMss(view, parsed, mssMax): boolean`, `mssForMtu` |
 * | `build.ts` | `PacketEndpoints`, `writeUdpHeaders(view, to, payloadLength, endpoints): number`, `writeIpHeader`, `writeTcpReset(view, parsed, to): number`, `writeIcmpError(view, parsed, to, error, options): number`, `writeEchoReply(view, parsed, to): number` |
 * | `segment.ts` | `segmentSize(view, parsed, mtu): number`, `segmentCount(parsed, size): number`, `writeSegment(view, parsed, index, size, to): number` |
 * | `coalesce.ts` | `tryAppend(view, head, next, lengthMax?): boolean`, `Coalescer(view, sink, {lengthMax, udp})` with `push(parsed, tag): boolean`, `flush()`; `CoalescerSink.onPacket(offset, length, tag)` |
 * | `fragment.ts` | `fragmentCount(parsed, mtu): number`, `writeFragment(view, parsed, index, mtu, to): number` |
 * | `reassemble.ts` | `Reassembler(limits)` with `add(view, parsed, network, now, to): number`, `expire(now): number`, `forgetNetwork(network)`, `droppedFragments` |
 * | `icmp.ts` | `icmpKind(parsed): IcmpKind`, `isErrorKind(kind)`, `icmpMtu(view, parsed)`, `parseQuoted(view, outer, into): DropReason`, `rewriteQuotedSource(view, outer, quoted, from, fromOffset, port)`, `rewriteQuotedDestination` |
 * | `copy.ts` | `copyBytes(view, from, to, length)` |
 * | `twin.ts` | the simple twin: slow, obvious packets and checksums for tests and fuzzers |
 */
export {};
