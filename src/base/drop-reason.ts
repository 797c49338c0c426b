/**
 * Why a packet was dropped. A reason is returned as a number and counted, never thrown; 0 means "not
 * dropped". Numbers are permanent: they stand in traces and metrics. Documented in
 * docs/reference/drop-reasons.md.
 */
export const DropReason = Object.freeze({
  None: 0,
  // The packet cannot be parsed (packet/parse.ts).
  Truncated: 1,
  BadVersion: 2,
  BadHeaderLength: 3,
  LengthMismatch: 4,
  BadHeaderChecksum: 5,
  BadTransportChecksum: 6,
  BadTransportHeader: 7,
  BadExtensionHeader: 8,
  TooManyExtensionHeaders: 9,
  BadFragment: 10,
  FragmentOverlap: 11,
  ReassemblyTimeout: 12,
  ReassemblyFull: 13,
  SourceRoute: 14,
  BadSegmentation: 15,
  PacketTooLong: 16,
  // The packet is well formed and unwanted.
  SpoofedSource: 20,
  MartianSource: 21,
  MartianDestination: 22,
  UnknownProtocol: 23,
  NoRoute: 24,
  Policy: 25,
  HookRejected: 26,
  HookFailed: 27,
  TtlExceeded: 28,
  TooBig: 29,
  NotFlowStart: 30,
  IcmpUnrelated: 31,
  IcmpUnsupported: 32,
  LinkScope: 33,
  // A limit was reached.
  FlowTableFull: 40,
  AccountFlowLimit: 41,
  NatFull: 42,
  NoBuffer: 43,
  QueueFull: 44,
  RateLimit: 45,
  // The tunnel is at fault.
  BadEncapsulation: 60,
  BadContext: 61,
  ContextTooLong: 62,
  TunnelClosed: 63,
  NetworkUnknown: 64,
  SendFailed: 65,
  StackDown: 66,
} as const);

/** One of the numbers of `DropReason`. */
export type DropReason = (typeof DropReason)[keyof typeof DropReason];

/** Highest reason number plus one: the length of an array of counters indexed by reason. */
export const DROP_REASON_COUNT = 80;

const NAMES: readonly string[] = (() => {
  const names = new Array<string>(DROP_REASON_COUNT).fill('unknown');
  for (const [name, number] of Object.entries(DropReason)) {
    names[number] = name.replace(/[A-Z]/g, (letter, at: number) => (at ? '_' : '') + letter.toLowerCase());
  }
  return names;
})();

/** The reason's name as it stands in metrics and traces, such as `spoofed_source`. */
export function dropReasonName(reason: number): string {
  return NAMES[reason] ?? 'unknown';
}

/**
 * What each reason means, for people: what was seen and what to look at. Printed in
 * docs/reference/drop-reasons.md.
 */
export const DROP_REASON_TEXT: Readonly<Record<Exclude<keyof typeof DropReason, 'None'>, string>> =
  Object.freeze({
    Truncated: 'the packet ends before a header that it announces',
    BadVersion: 'the version is neither 4 nor 6, or not what the device said',
    BadHeaderLength: 'the IPv4 header length is below 20 bytes or beyond the packet',
    LengthMismatch: 'the length in the IP header is longer than what arrived',
    BadHeaderChecksum: 'the IPv4 header checksum is wrong',
    BadTransportChecksum: 'the TCP, UDP or ICMP checksum is wrong where it had to be checked',
    BadTransportHeader: 'the TCP, UDP or ICMP header contradicts itself, such as a data offset below 5',
    BadExtensionHeader: 'an IPv6 extension header has a wrong length or stands where it must not',
    TooManyExtensionHeaders: 'the IPv6 extension headers are more than the parser follows',
    BadFragment:
      'a fragment has an impossible offset or length, or is too small to hold its transport header',
    FragmentOverlap: 'fragments of one packet overlap; the whole packet is given up (RFC 5722)',
    ReassemblyTimeout: 'fragments of one packet did not all come within the time limit',
    ReassemblyFull: 'the memory for incomplete packets is in use; raise the limit or look for a flood',
    SourceRoute: 'the packet carries a source route, which is refused (RFC 7126, RFC 5095)',
    BadSegmentation: 'the virtio header of an offloaded packet contradicts the packet',
    PacketTooLong: 'the packet is longer than a packet slot',

    SpoofedSource: 'the source is not one that the context of the tunnel allows',
    MartianSource: 'no host may send from this source: unspecified, loopback, multicast or broadcast',
    MartianDestination: 'no flow may go to this destination: unspecified, loopback, multicast or broadcast',
    UnknownProtocol: 'the transport protocol has no way out that can carry it',
    NoRoute: 'no route of the network holds the destination, and no hook gave a way out',
    Policy: 'a policy rule denies it; the record names the rule',
    HookRejected: 'the flow hook answered drop or reject; the record has its reason',
    HookFailed: 'the flow hook threw, overran its time or returned something that is not a verdict',
    TtlExceeded: 'the TTL or hop limit ended here; the sender was told by ICMP',
    TooBig: 'the packet is longer than the way out allows and may not be cut; the sender was told by ICMP',
    NotFlowStart: 'a TCP packet without SYN belongs to no known flow',
    IcmpUnrelated: 'an ICMP error quotes a packet that belongs to no known flow',
    IcmpUnsupported: 'the ICMP type is not carried',
    LinkScope: 'the packet is for its own link only: link-local, or neighbour discovery',

    FlowTableFull: 'the flow table is full and nothing could be evicted fairly',
    AccountFlowLimit: 'the account has as many flows as it may have',
    NatFull: 'no address and port of the stack is free for one more flow',
    NoBuffer: 'no packet slot was free: the process is overloaded',
    QueueFull: 'the queue of the way out is full; the sender slows down as for any loss',
    RateLimit: 'a limit of packets or new flows in time was reached',

    BadEncapsulation:
      'the datagram is not GUE as this on-ramp takes it, or the frame is not a bare IP packet',
    BadContext: 'the context is not understood, or the tunnel hook refused it',
    ContextTooLong: 'the context is longer than the limit',
    TunnelClosed: 'the tunnel that the packet had to leave by is closed',
    NetworkUnknown: 'the context names an account or virtual network that is not configured',
    SendFailed: 'the kernel refused to send the packet',
    StackDown: 'the private network namespace that upgrades flows is not up',
  });
