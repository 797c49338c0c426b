import type { CapturedPacket, TraceFilter } from '#contract/agent.ts';
import type { TraceEvent } from '#contract/trace.ts';
import { FragmentKind, IpProtocol, ParsedPacket, parsePacket } from '#packet/parse.ts';
import { DropReason } from '#base/drop-reason.ts';
import { formatIp } from '#base/ip.ts';

/** Flows remembered as wanted; the oldest is forgotten first. */
const FLOWS_REMEMBERED = 10_000;

/**
 * Says which events one watcher wants. A flow of which one event named a wanted end is wanted from there on:
 * upper layers speak of the same flow with other addresses, or with none.
 */
export class EventFilter {
  readonly #filter: TraceFilter;
  readonly #flows = new Set<number>();

  /** @param filter absent members match everything. */
  constructor(filter: TraceFilter) {
    this.#filter = filter;
  }

  /** True when the event is one that the watcher wants. */
  wants(event: TraceEvent): boolean {
    const { account, vnet, flow, stages } = this.#filter;
    if (account !== undefined && account !== event.account) return false;
    if (vnet !== undefined && vnet !== event.vnet) return false;
    if (flow !== undefined && flow !== event.flow) return false;
    if (!this.#wantsEnds(event)) return false;
    return stages === undefined || stages.includes(event.stage);
  }

  #wantsEnds(event: TraceEvent): boolean {
    const { host, port } = this.#filter;
    if (host === undefined && port === undefined) return true;
    if (this.#flows.has(event.flow)) return true;
    const ends = endsOf(event.tuple);
    if (host !== undefined && !ends.some(({ address }) => address === host)) return false;
    if (port !== undefined && !ends.some((end) => end.port === port)) return false;
    if (event.flow !== 0) this.#remember(event.flow);
    return true;
  }

  #remember(flow: number): void {
    const [oldest] = this.#flows;
    if (this.#flows.size >= FLOWS_REMEMBERED && oldest !== undefined) this.#flows.delete(oldest);
    this.#flows.add(flow);
  }
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
