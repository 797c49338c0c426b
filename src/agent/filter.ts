import type { CapturedPacket, TraceFilter } from '#contract/agent.ts';
import type { TraceEvent } from '#contract/trace.ts';
import { FragmentKind, IpProtocol, ParsedPacket, parsePacket } from '#packet/parse.ts';
import { DropReason } from '#base/drop-reason.ts';
import { formatIp } from '#base/ip.ts';

/** True when the event is one that the filter wants. */
export function wantsEvent(filter: TraceFilter, event: TraceEvent): boolean {
  if (filter.account !== undefined && filter.account !== event.account) return false;
  if (filter.vnet !== undefined && filter.vnet !== event.vnet) return false;
  if (filter.flow !== undefined && filter.flow !== event.flow) return false;
  if (filter.stages !== undefined && !filter.stages.includes(event.stage)) return false;
  if (filter.host === undefined && filter.port === undefined) return true;
  const ends = endsOf(event.tuple);
  if (filter.host !== undefined && !ends.some(({ address }) => address === filter.host)) return false;
  return filter.port === undefined || ends.some(({ port }) => port === filter.port);
}

/** True when the packet is one that the filter wants. Stages and flows are no matter of packets. */
export function wantsPacket(filter: TraceFilter, packet: CapturedPacket): boolean {
  if (filter.account !== undefined && filter.account !== packet.account) return false;
  if (filter.vnet !== undefined && filter.vnet !== packet.vnet) return false;
  if (filter.host === undefined && filter.port === undefined) return true;
  const ends = packetEnds(packet);
  if (ends === null) return false;
  if (filter.host !== undefined && !ends.some(({ address }) => address === filter.host)) return false;
  return filter.port === undefined || ends.some(({ port }) => port === filter.port);
}

interface End {
  readonly address: string;
  readonly port: number;
}

/** Both ends of `10.0.0.1:4000 > 10.10.0.10:80 tcp`, `[fd00::1]:1 > …` or `10.0.0.1 > 10.0.0.2 icmp`. */
function endsOf(tuple: string): End[] {
  const [left = '', , right = ''] = tuple.split(' ');
  return [left, right].map((text) => {
    const match = /^(?:\[([^\]]+)\]|([^:]+)):([0-9]+)$/.exec(text);
    if (match === null) return { address: text, port: 0 };
    return { address: (match[1] ?? match[2]) as string, port: Number(match[3]) };
  });
}

/** Null for what is no well-formed packet. */
function packetEnds(packet: CapturedPacket): End[] | null {
  // The parser wants the whole packet; of a cut one the headers are there, and only they matter here.
  const bytes = new Uint8Array(packet.length);
  bytes.set(packet.bytes);
  const view = new DataView(bytes.buffer);
  const parsed = new ParsedPacket();
  if (parsePacket(view, 0, bytes.length, parsed) !== DropReason.None) return null;
  const size = parsed.version === 4 ? 4 : 16;
  const hasPorts =
    (parsed.protocol === IpProtocol.Tcp || parsed.protocol === IpProtocol.Udp) &&
    parsed.fragmentKind !== FragmentKind.Later;
  return [0, 1].map((end) => {
    const start = parsed.addressOffset + end * size;
    return {
      address: formatIp(bytes.slice(start, start + size)),
      port: hasPorts ? view.getUint16(parsed.transportOffset + 2 * end) : 0,
    };
  });
}
