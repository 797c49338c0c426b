/** What is said about a flow to people and logs: its record, its summary. Cold path. */
import { formatIp } from '#base/ip.ts';
import type { FlowFilter, FlowSummary } from '#contract/agent.ts';
import type { CloseReason, FlowLayer, FlowRecord } from '#contract/record.ts';
import { addressLength, formatAddressAt } from '#packet/address.ts';
import { IpProtocol } from '#packet/parse.ts';

import { flowProtocol } from './decide.ts';
import { FlowAction, type FlowIndex, type FlowTable } from './flow-table.ts';
import type { ColdInfo, FlowPlan } from './packet-upgrade.ts';
import { tcpStateName } from './tcp-state.ts';

const scratch = new DataView(new ArrayBuffer(32));

/** Everything that is known of a live flow. */
export function coldInfoOf(table: FlowTable<FlowPlan>, flow: FlowIndex): ColdInfo {
  const plan = table.cold[flow] as FlowPlan;
  const version = table.version(flow);
  table.writeAddresses(flow, scratch, 0);
  const { counters } = table;
  return {
    ...plan,
    flow: table.numberOf(flow),
    network: table.network(flow),
    protocol: table.protocol(flow),
    source: { address: formatAddressAt(scratch, 0, version), port: table.sourcePort(flow) },
    destination: {
      address: formatAddressAt(scratch, addressLength(version), version),
      port: table.destinationPort(flow),
    },
    startedAt: table.createdAt(flow),
    packetsUp: counters[flow * 4] as number,
    bytesUp: counters[flow * 4 + 1] as number,
    packetsDown: counters[flow * 4 + 2] as number,
    bytesDown: counters[flow * 4 + 3] as number,
  };
}

/** The record of a flow that ends now. */
export function recordOf(
  table: FlowTable<FlowPlan>,
  flow: FlowIndex,
  end: { readonly reason: CloseReason; readonly at: number },
): FlowRecord {
  const info = coldInfoOf(table, flow);
  const { context } = info;
  const action = table.action(flow);
  const isRefused = action === FlowAction.Drop || action === FlowAction.Reject;
  return {
    flow: info.flow,
    account: context.account,
    vnet: context.vnet,
    identity: context.identity,
    onRamp: context.onRamp,
    offRamp: isRefused ? null : info.via,
    layer: action === FlowAction.Upgrade ? upgradedLayer(info.protocol) : 'ip',
    protocol: flowProtocol(info.protocol),
    source: info.source,
    destination: info.destination,
    rule: info.rule,
    reason: info.closeReason ?? end.reason,
    startedAt: info.startedAt,
    endedAt: end.at,
    bytesUp: info.bytesUp,
    bytesDown: info.bytesDown,
    packetsUp: info.packetsUp,
    packetsDown: info.packetsDown,
  };
}

/** The live flows that match, at most `filter.limit`. */
export function summarizeFlows(
  table: FlowTable<FlowPlan>,
  filter: FlowFilter,
  now: { readonly monotonic: number; readonly unix: number },
): readonly FlowSummary[] {
  const summaries: FlowSummary[] = [];
  const limit = filter.limit ?? 1000;
  for (let flow = 0; flow < table.slots && summaries.length < limit; flow++) {
    if (!table.isLive(flow) || !matchesFilter(table, flow, filter)) continue;
    const info = coldInfoOf(table, flow);
    if (
      filter.host !== undefined &&
      filter.host !== info.source.address &&
      filter.host !== info.destination.address
    ) {
      continue;
    }
    summaries.push(summaryOf(table, flow, info, now));
  }
  return summaries;
}

function matchesFilter(table: FlowTable<FlowPlan>, flow: FlowIndex, filter: FlowFilter): boolean {
  const { context } = table.cold[flow] as FlowPlan;
  if (filter.account !== undefined && filter.account !== context.account) return false;
  if (filter.vnet !== undefined && filter.vnet !== context.vnet) return false;
  return (
    filter.port === undefined ||
    filter.port === table.sourcePort(flow) ||
    filter.port === table.destinationPort(flow)
  );
}

function summaryOf(
  table: FlowTable<FlowPlan>,
  flow: FlowIndex,
  info: ColdInfo,
  now: { readonly monotonic: number; readonly unix: number },
): FlowSummary {
  return {
    flow: info.flow,
    account: info.context.account,
    vnet: info.context.vnet,
    onRamp: info.context.onRamp,
    offRamp: info.via,
    layer: table.action(flow) === FlowAction.Upgrade ? upgradedLayer(info.protocol) : 'ip',
    protocol: flowProtocol(info.protocol),
    source: info.source,
    destination: info.destination,
    state: stateName(table, flow),
    rule: info.rule,
    packets: info.packetsUp + info.packetsDown,
    bytes: info.bytesUp + info.bytesDown,
    ageMs: now.unix - info.startedAt,
    idleMs: table.idleMs(flow, now.monotonic),
  };
}

function stateName(table: FlowTable<FlowPlan>, flow: FlowIndex): string {
  const action = table.action(flow);
  if (action === FlowAction.Drop || action === FlowAction.Reject) return 'refused';
  return table.protocol(flow) === IpProtocol.Tcp ? tcpStateName(table.tcpState(flow)) : 'open';
}

function upgradedLayer(protocol: number): FlowLayer {
  if (protocol === IpProtocol.Tcp) return 'tcp';
  return protocol === IpProtocol.Udp ? 'udp' : 'ip';
}

/** `10.0.0.1:4000 > 10.10.0.10:80 tcp`, for traces. `view` holds both addresses at `offset`. */
export function formatTuple(
  view: DataView,
  tuple: {
    readonly addressOffset: number;
    readonly version: number;
    readonly protocol: number;
    readonly sourcePort: number;
    readonly destinationPort: number;
  },
): string {
  const length = addressLength(tuple.version);
  const end = (offset: number, port: number): string => {
    const bytes = new Uint8Array(view.buffer, view.byteOffset + offset, length);
    const address = formatIp(bytes);
    if (port === 0) return address;
    return tuple.version === 6 ? `[${address}]:${port}` : `${address}:${port}`;
  };
  const source = end(tuple.addressOffset, tuple.sourcePort);
  const destination = end(tuple.addressOffset + length, tuple.destinationPort);
  return `${source} > ${destination} ${flowProtocol(tuple.protocol)}`;
}
