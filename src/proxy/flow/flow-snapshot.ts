/**
 * All flows of a worker in a form that another process can take over: JSON and bytes. Descriptors and what
 * upgrades keep are not in it. In the new process, in this order: `Networks.adopt`, `Routes.adopt`,
 * `Routes.replace`, the tunnels with the indexes that they had, the upgrades, `FlowPipeline.restore`, and
 * then packets.
 */
import { formatPrefix, type IpPrefix, parsePrefix } from '#base/ip.ts';
import { RampartError } from '#base/error.ts';
import type { Context } from '#contract/context.ts';

import type { FlowTable, FlowTableHeader } from './flow-table.ts';
import type { Networks, NetworksState } from './networks.ts';
import type { FlowPlan } from './packet-upgrade.ts';
import type { Routes } from './routes.ts';

/** A context as JSON; the application's `extension` must be JSON too, or it is lost. */
type StoredContext = Omit<Context, 'sources'> & { readonly sources: readonly string[] };

/** A plan as JSON, its context by number. */
type StoredPlan = Omit<FlowPlan, 'context'> & { readonly context: number };

/** The JSON part. */
export interface FlowStateHeader {
  readonly format: 1;
  readonly networks: NetworksState;
  readonly routes: ReturnType<Routes['describe']>;
  readonly table: FlowTableHeader;
  readonly contexts: readonly StoredContext[];
  readonly plans: readonly StoredPlan[];
}

/** Everything; the last buffer has the plan's number (Int32) of each slot, those before are the table's. */
export interface FlowState {
  readonly header: FlowStateHeader;
  readonly buffers: readonly Uint8Array[];
}

/** The state of all flows now. Buffers are views of the live table. */
export function snapshotFlows(
  table: FlowTable<FlowPlan>,
  parts: { readonly networks: Networks; readonly routes: Routes },
  now: number,
): FlowState {
  const { header, buffers } = table.snapshot(now);
  const contexts = new Map<Context, number>();
  const plans = new Map<FlowPlan, number>();
  const planOf = new Int32Array(table.slots);
  for (let flow = 0; flow < table.slots; flow++) {
    const plan = table.cold[flow];
    if (plan === null || plan === undefined) continue;
    if (!contexts.has(plan.context)) contexts.set(plan.context, contexts.size);
    if (!plans.has(plan)) plans.set(plan, plans.size);
    planOf[flow] = plans.get(plan) as number;
  }
  return {
    header: {
      format: 1,
      networks: parts.networks.describe(),
      routes: parts.routes.describe(),
      table: header,
      contexts: [...contexts.keys()].map(storeContext),
      plans: [...plans.keys()].map((plan) => ({ ...plan, context: contexts.get(plan.context) as number })),
    },
    buffers: [...buffers, new Uint8Array(planOf.buffer)],
  };
}

/**
 * Fills a new table.
 *
 * @throws RampartError RAMP_INTERNAL when the state is of another format.
 */
export function restoreFlows(table: FlowTable<FlowPlan>, state: FlowState, now: number): void {
  const { header, buffers } = state;
  if (header.format !== 1 || header.table.format !== 1) {
    throw new RampartError(
      'RAMP_INTERNAL',
      'the flows of the old process have a format that is not known here',
    );
  }
  table.restore({ header: header.table, buffers: buffers.slice(0, -1) }, now);
  const contexts = header.contexts.map(reviveContext);
  const plans = header.plans.map((plan) => ({ ...plan, context: contexts[plan.context] as Context }));
  const planOf = new Int32Array((buffers.at(-1) as Uint8Array).slice().buffer);
  for (let flow = 0; flow < table.slots; flow++) {
    if (table.isLive(flow)) table.cold[flow] = plans[planOf[flow] as number] as FlowPlan;
  }
}

function storeContext(context: Context): StoredContext {
  return { ...context, sources: context.sources.map(formatPrefix) };
}

function reviveContext(stored: StoredContext): Context {
  const sources = stored.sources.map((source) => parsePrefix(source) as IpPrefix);
  return { ...stored, sources };
}
