/**
 * Why a packet was dropped. A reason is returned as a number and counted, never thrown; 0 means "not dropped".
 * Numbers are permanent: they stand in traces and metrics. Documented in docs/reference/drop-reasons.md.
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
