import { DropReason } from '#base/drop-reason.ts';
import type { Context, Endpoint, FlowProtocol } from '#contract/context.ts';
import { CloseReason } from '#contract/record.ts';
import { addressLength, formatAddressAt } from '#packet/address.ts';
import { IpProtocol, type ParsedPacket } from '#packet/parse.ts';
import type { EgressInfo, EgressVerdict, FlowInfo, FlowVerdict, RejectWith } from '#proxy/hooks/hooks.ts';
import type { IpTunnel } from '#proxy/proxy-contract.ts';

import { FlowAction } from './flow-table.ts';
import type { FlowPlan, UpgradeWish, WayOut, WaysOut } from './packet-upgrade.ts';
import type { Route, Routes } from './routes.ts';

/** The packet-level hooks; `HookRunner` has them. Each throws when the application's function fails. */
export interface FlowHooks {
  readonly flow: ((info: FlowInfo) => FlowVerdict | undefined) | null;
  readonly egressNow: ((info: EgressInfo) => EgressVerdict | undefined) | null;
}

/** What becomes of a new flow. One object is reused: it is valid until the next decision. */
export interface Decision {
  action: FlowAction;
  /** Why its packets are dropped, of refused flows. */
  reason: DropReason;
  /** How a reject is answered. */
  rejectWith: RejectWith;
  /** Where its packets leave, of forwarded flows. */
  out: IpTunnel | null;
  /** Number of the route that took it, 0 for none. */
  route: number;
  plan: FlowPlan;
}

const NO_CONTEXT = null as unknown as Context;

/**
 * Decides about the first packet of a flow, after the spoof check and before anything is sent anywhere:
 *
 * ```
 *   route (longest prefix) ─► hook `flow` ─┬─ drop, reject ───────────────────────────► refused
 *                                          ├─ upgrade, or the route's wish ───────────► upgrade
 *                                          └─ forward ─► way out ─┬─ a tunnel ─► hook `egress` ─► forward
 *                                                                 ├─ sockets ────────► upgrade
 *                                                                 └─ reject, none ───► refused
 * ```
 * A hook that fails refuses its flow; nobody else's.
 */
export class Decider {
  readonly #view: DataView;
  readonly #routes: Routes;
  readonly #ways: WaysOut;
  readonly #hooks: FlowHooks;
  /** The last plan of each tunnel by config alone: most flows of a tunnel share theirs. */
  readonly #plans: FlowPlan[] = [];
  readonly #decision: Decision = {
    action: FlowAction.Drop,
    reason: DropReason.None,
    rejectWith: 'unreachable',
    out: null,
    route: 0,
    plan: { context: NO_CONTEXT, via: null, wish: 'sniff', rule: '', closeReason: null },
  };

  constructor(
    view: DataView,
    parts: { readonly routes: Routes; readonly ways: WaysOut; readonly hooks: FlowHooks },
  ) {
    this.#view = view;
    this.#routes = parts.routes;
    this.#ways = parts.ways;
    this.#hooks = parts.hooks;
  }

  /**
   * Decides about the flow that `packet` opens. The decision is this object's; read it before the next call.
   */
  decide(tunnel: IpTunnel, packet: ParsedPacket): Decision {
    const route = this.#routes.find(tunnel.network, tunnel.context.onRamp, this.#view, packet);
    this.#decision.route = route?.number ?? 0;
    this.#decision.out = null;
    const { flow } = this.#hooks;
    if (flow === null) return this.#byRoute(tunnel, packet, route);
    let verdict: FlowVerdict | undefined;
    try {
      verdict = flow(this.#flowInfo(tunnel, packet, route));
    } catch (error) {
      return this.#hookFailed(tunnel, route, 'flow', error);
    }
    return verdict === undefined
      ? this.#byRoute(tunnel, packet, route)
      : this.#byVerdict(tunnel, packet, route, verdict);
  }

  #byRoute(tunnel: IpTunnel, packet: ParsedPacket, route: Route | null): Decision {
    if (route === null) return this.#noRoute(tunnel, null, 'no route');
    const { via, upgrade, rule } = route.config;
    const plan = this.#sharedPlan(tunnel, via, upgrade === 'none' ? 'sniff' : upgrade, rule);
    return this.#leave(tunnel, packet, plan, upgrade === 'none' ? 'packets' : 'upgrade if it can');
  }

  #byVerdict(tunnel: IpTunnel, packet: ParsedPacket, route: Route | null, verdict: FlowVerdict): Decision {
    const because = (reason: string | undefined): string =>
      `flow hook: ${verdict.action}${reason === undefined ? '' : ` (${reason})`}`;
    const routeVia = route?.config.via ?? null;
    const routeWish = route === null || route.config.upgrade === 'none' ? 'sniff' : route.config.upgrade;
    switch (verdict.action) {
      case 'drop':
      case 'reject': {
        const plan = this.#plan(tunnel, routeVia, 'sniff', because(verdict.reason), CloseReason.Policy);
        if (verdict.action === 'drop') return this.#refuse(plan, DropReason.HookRejected, null);
        return this.#refuse(plan, DropReason.HookRejected, verdict.with ?? 'prohibited');
      }
      case 'forward': {
        const via = verdict.via ?? routeVia;
        if (via === null) return this.#noRoute(tunnel, null, `${because(undefined)}, no route`);
        return this.#leave(
          tunnel,
          packet,
          this.#plan(tunnel, via, routeWish, because(undefined), null),
          'packets',
        );
      }
      case 'upgrade': {
        const wish = verdict.to ?? routeWish;
        const plan = this.#plan(tunnel, routeVia, wish, because(verdict.to), null);
        return this.#leave(tunnel, packet, plan, 'upgrade');
      }
      default:
        return verdict satisfies never;
    }
  }

  /** Finds the way out that the plan names, and with it whether the flow stays packets. */
  #leave(
    tunnel: IpTunnel,
    packet: ParsedPacket,
    plan: FlowPlan,
    wanted: 'packets' | 'upgrade if it can' | 'upgrade',
  ): Decision {
    const way = plan.via === null ? null : this.#ways.find(plan.via, tunnel.network, this.#view, packet);
    if (way?.kind === 'reject') {
      const refused = this.#plan(tunnel, plan.via, plan.wish, plan.rule, CloseReason.Policy);
      return this.#refuse(refused, DropReason.Policy, way.with);
    }
    const isTcp = packet.protocol === IpProtocol.Tcp;
    if (wanted === 'upgrade' || (wanted === 'upgrade if it can' && (isTcp || way?.kind !== 'tunnel'))) {
      return this.#upgrade(tunnel, packet, plan);
    }
    if (way === null)
      return this.#noRoute(tunnel, plan.via, `${plan.rule}, off-ramp ${plan.via} is not there`);
    if (way.kind === 'upgrade') return this.#upgrade(tunnel, packet, plan);
    return this.#forward(tunnel, packet, plan, way);
  }

  #upgrade(tunnel: IpTunnel, packet: ParsedPacket, plan: FlowPlan): Decision {
    if (!isUpgradable(packet.protocol)) {
      const rule = `${plan.rule}, protocol ${packet.protocol} cannot leave by ${plan.via ?? 'a socket'}`;
      const refused = this.#plan(tunnel, plan.via, plan.wish, rule, CloseReason.OriginUnroutable);
      return this.#refuse(refused, DropReason.UnknownProtocol, 'unreachable');
    }
    return this.#decided(FlowAction.Upgrade, plan);
  }

  #forward(
    tunnel: IpTunnel,
    packet: ParsedPacket,
    plan: FlowPlan,
    way: WayOut & { readonly kind: 'tunnel' },
  ): Decision {
    const { egressNow } = this.#hooks;
    let leaving = way;
    let chosen = plan;
    if (egressNow !== null) {
      const via = plan.via as string;
      const target = this.#destination(packet);
      const info: EgressInfo = {
        context: tunnel.context,
        layer: 'ip',
        target: { host: target.address, port: target.port },
        via,
      };
      let verdict: EgressVerdict | undefined;
      try {
        verdict = egressNow(info);
        if (verdict?.action === 'direct') refuseRewrite(verdict, target);
      } catch (error) {
        return this.#hookFailed(tunnel, null, 'egress', error);
      }
      if (verdict?.action === 'block') {
        const rule = `egress hook: block (${verdict.reason})`;
        const blocked = this.#plan(tunnel, plan.via, plan.wish, rule, CloseReason.Policy);
        return this.#refuse(blocked, DropReason.Policy, 'prohibited');
      }
      if (verdict?.via !== undefined && verdict.via !== via) {
        const found = this.#ways.find(verdict.via, tunnel.network, this.#view, packet);
        const rule = `${plan.rule}, egress hook: by ${verdict.via}`;
        if (found?.kind !== 'tunnel')
          return this.#noRoute(tunnel, verdict.via, `${rule}, which carries no packets`);
        leaving = found;
        chosen = this.#plan(tunnel, verdict.via, plan.wish, rule, null);
      }
    }
    // Whatever names were configured: packets of one network never enter a tunnel of another.
    if (leaving.tunnel.network !== tunnel.network) {
      return this.#noRoute(
        tunnel,
        chosen.via,
        `${chosen.rule}, ${leaving.tunnel.name} is of another network`,
      );
    }
    this.#decision.out = leaving.tunnel;
    return this.#decided(FlowAction.Forward, chosen);
  }

  #noRoute(tunnel: IpTunnel, via: string | null, rule: string): Decision {
    const plan = this.#sharedPlan(tunnel, via, 'sniff', rule, CloseReason.OriginUnroutable);
    return this.#refuse(plan, DropReason.NoRoute, 'unreachable');
  }

  #hookFailed(tunnel: IpTunnel, route: Route | null, hook: string, error: unknown): Decision {
    const text = error instanceof Error ? error.message : 'it threw something that is no error';
    const rule = `${hook} hook failed: ${text.slice(0, 200)}`;
    const plan = this.#plan(tunnel, route?.config.via ?? null, 'sniff', rule, CloseReason.Policy);
    return this.#refuse(plan, DropReason.HookFailed, 'prohibited');
  }

  #refuse(plan: FlowPlan, reason: DropReason, answer: RejectWith | null): Decision {
    this.#decision.rejectWith = answer ?? 'unreachable';
    return this.#decided(answer === null ? FlowAction.Drop : FlowAction.Reject, plan, reason);
  }

  #decided(action: FlowAction, plan: FlowPlan, reason: DropReason = DropReason.None): Decision {
    this.#decision.action = action;
    this.#decision.plan = plan;
    this.#decision.reason = reason;
    return this.#decision;
  }

  #plan(
    tunnel: IpTunnel,
    via: string | null,
    wish: UpgradeWish,
    rule: string,
    closeReason: CloseReason | null,
  ): FlowPlan {
    return { context: tunnel.context, via, wish, rule, closeReason };
  }

  /** The plan that the tunnel's last flow had, when it is the same. */
  #sharedPlan(
    tunnel: IpTunnel,
    via: string | null,
    wish: UpgradeWish,
    rule: string,
    closeReason: CloseReason | null = null,
  ): FlowPlan {
    const last = this.#plans[tunnel.index];
    if (
      last !== undefined &&
      last.context === tunnel.context &&
      last.via === via &&
      last.wish === wish &&
      last.rule === rule &&
      last.closeReason === closeReason
    ) {
      return last;
    }
    const plan = this.#plan(tunnel, via, wish, rule, closeReason);
    this.#plans[tunnel.index] = plan;
    return plan;
  }

  #flowInfo(tunnel: IpTunnel, packet: ParsedPacket, route: Route | null): FlowInfo {
    return {
      context: tunnel.context,
      protocol: flowProtocol(packet.protocol),
      source: endpointAt(this.#view, packet.addressOffset, packet.version, packet.sourcePort),
      destination: this.#destination(packet),
      route: route?.config.via ?? null,
    };
  }

  #destination(packet: ParsedPacket): Endpoint {
    const at = packet.addressOffset + addressLength(packet.version);
    return endpointAt(this.#view, at, packet.version, packet.destinationPort);
  }
}

/** The protocol by its name, where it has one. */
export function flowProtocol(protocol: number): FlowProtocol {
  if (protocol === IpProtocol.Tcp) return 'tcp';
  if (protocol === IpProtocol.Udp) return 'udp';
  return protocol === IpProtocol.Icmp4 || protocol === IpProtocol.Icmp6 ? 'icmp' : protocol;
}

function endpointAt(view: DataView, offset: number, version: number, port: number): Endpoint {
  return { address: formatAddressAt(view, offset, version), port };
}

function isUpgradable(protocol: number): boolean {
  const named = protocol === IpProtocol.Tcp || protocol === IpProtocol.Udp;
  return named || protocol === IpProtocol.Icmp4 || protocol === IpProtocol.Icmp6;
}

/** Addresses of forwarded packets stay as they are: to change them, a flow has to be upgraded. */
function refuseRewrite(verdict: EgressVerdict & { readonly action: 'direct' }, target: Endpoint): void {
  const { to, source } = verdict;
  const isSame = to === undefined || (to.host === target.address && to.port === target.port);
  if (isSame && source === undefined) return;
  throw new Error(
    'it wants other addresses for packets; expected no to and source at layer ip, or an upgrade',
  );
}
