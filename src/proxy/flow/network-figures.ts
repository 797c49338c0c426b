import type { NetworkStats } from '#contract/agent.ts';
import type { NetworkId } from '#proxy/proxy-contract.ts';

import type { FlowIndex, FlowTable } from './flow-table.ts';
import type { Networks } from './networks.ts';

/** Packets and bytes of each network: kept of flows that ended, counted of those that live. */
export class NetworkFigures {
  readonly #networks: Networks;
  /** Per network: packets, bytes. */
  #ended = new Float64Array(2 * 64);

  constructor(networks: Networks) {
    this.#networks = networks;
  }

  /** Keeps the figures of a flow that ends. */
  add(table: FlowTable<unknown>, flow: FlowIndex): void {
    const network = table.network(flow);
    if (network * 2 >= this.#ended.length) {
      const larger = new Float64Array(Math.max(network * 2 + 2, this.#ended.length * 2));
      larger.set(this.#ended);
      this.#ended = larger;
    }
    addFlow(this.#ended, network, table, flow);
  }

  /** All networks that ever were, by number. */
  stats(table: FlowTable<unknown>): readonly NetworkStats[] {
    const networks = this.#networks;
    const totals = new Float64Array(2 * (networks.count + 1));
    totals.set(this.#ended.subarray(0, Math.min(totals.length, this.#ended.length)));
    const flows = new Float64Array(networks.count + 1);
    for (let flow = 0; flow < table.slots; flow++) {
      if (!table.isLive(flow)) continue;
      const network = table.network(flow);
      flows[network] = (flows[network] as number) + 1;
      addFlow(totals, network, table, flow);
    }
    return Array.from({ length: networks.count }, (_, at) => ({
      account: networks.accountName(networks.accountOf(at + 1)),
      vnet: networks.vnetName(at + 1),
      flows: flows[at + 1] as number,
      packets: totals[2 * at + 2] as number,
      bytes: totals[2 * at + 3] as number,
    }));
  }
}

function addFlow(totals: Float64Array, network: NetworkId, table: FlowTable<unknown>, flow: FlowIndex): void {
  const { counters } = table;
  const at = flow * 4;
  totals[network * 2] =
    (totals[network * 2] as number) + (counters[at] as number) + (counters[at + 2] as number);
  totals[network * 2 + 1] =
    (totals[network * 2 + 1] as number) + (counters[at + 1] as number) + (counters[at + 3] as number);
}
