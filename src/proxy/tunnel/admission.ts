/**
 * Makes a context of a blob: the first message of a connected tunnel, or the private data of an unconnected
 * one's datagrams. The application's `tunnel` hook reads any format; without it, or where it returns
 * nothing, the blob is JSON:
 *
 * ```
 * {"account": "acme", "vnet": "production", "user": "ann@acme.example", "device": "laptop-7",
 *  "groups": ["staff"], "labels": {"site": "kiel"}, "sources": ["100.64.0.7/32", "fd00::7"]}
 * ```
 * `account` and `vnet` are compulsory. Without `sources` the on-ramp's own apply; if it has none, the
 * tunnel can send nothing. What each member may be is checked by `hooks/context.ts`.
 */
import { DropReason } from '#base/drop-reason.ts';
import { formatPrefix, type IpPrefix } from '#base/ip.ts';
import type { Context } from '#contract/context.ts';
import { isContextRefusal, makeContext, parseContextBlob, unreadableContext } from '#proxy/hooks/context.ts';
import type { ContextSpec, TunnelInfo, TunnelVerdict } from '#proxy/hooks/hooks.ts';
import type { NetworkId } from '#proxy/proxy-contract.ts';

/**
 * Calls the application's `tunnel` hook within its budget; `HookRunner.tunnel` is one. It may throw or
 * reject.
 */
export type TunnelFunction = (
  info: TunnelInfo,
) => TunnelVerdict | undefined | Promise<TunnelVerdict | undefined>;

/** The number of the pair (account, vnet); 0 when this node does not serve it. */
export type NetworkFunction = (account: string, vnet: string) => NetworkId;

/** What a tunnel's on-ramp adds to its context. */
export interface OnRampDefaults {
  /** Name in the config. */
  readonly name: string;
  /** Apply where the context names no sources. */
  readonly sources: readonly IpPrefix[];
}

/** A tunnel that may open. */
export interface Admitted {
  readonly context: Context;
  readonly network: NetworkId;
}

/** A tunnel that may not. */
export interface Refusal {
  /** For the log: what was wrong and what was expected. */
  readonly refused: string;
  /** What its packets are counted as. */
  readonly drop: DropReason;
}

/** Decides who may open a tunnel. */
export class Admission {
  readonly #hook: TunnelFunction | null;
  readonly #networkOf: NetworkFunction;
  readonly #contextBytesMax: number;

  constructor(options: {
    readonly hook: TunnelFunction | null;
    readonly networkOf: NetworkFunction;
    /** `limits.contextBytesMax`. */
    readonly contextBytesMax: number;
  }) {
    this.#hook = options.hook;
    this.#networkOf = options.networkOf;
    this.#contextBytesMax = options.contextBytesMax;
  }

  /**
   * Asks about a new tunnel. Answers at once unless the hook returned a promise; never throws and never
   * rejects: a hook that does is a refusal. `blob` is read during the call only.
   */
  admit(blob: Uint8Array, onRamp: OnRampDefaults): Admitted | Refusal | Promise<Admitted | Refusal> {
    const parsed = parseContextBlob(blob, this.#contextBytesMax);
    if (isContextRefusal(parsed)) return { refused: parsed.reason, drop: parsed.drop };
    const { json } = parsed;
    // Copied, because the hook's answer may come after the blob is gone.
    const unread = json === undefined ? unreadableContext(blob).reason : null;
    if (this.#hook === null) return this.#byJson(json, unread, onRamp);
    let verdict: TunnelVerdict | undefined | Promise<TunnelVerdict | undefined>;
    try {
      verdict = this.#hook({ onRamp: onRamp.name, blob, json });
    } catch (error) {
      return hookFailed(error);
    }
    if (!(verdict instanceof Promise)) return this.#byVerdict(verdict, { json, unread }, onRamp);
    return verdict.then((late) => this.#byVerdict(late, { json, unread }, onRamp)).catch(hookFailed);
  }

  /** Makes the context of a tunnel that the config, the hook or a previous process names. */
  ofSpec(spec: unknown, onRamp: OnRampDefaults): Admitted | Refusal {
    let context = makeContext(spec, onRamp.name);
    if (!isContextRefusal(context) && (spec as ContextSpec).sources === undefined) {
      const sources = onRamp.sources.map(formatPrefix);
      context = makeContext({ ...(spec as ContextSpec), sources }, onRamp.name);
    }
    if (isContextRefusal(context)) return { refused: context.reason, drop: context.drop };
    const network = this.#networkOf(context.account, context.vnet);
    if (network > 0) return { context, network };
    const refused = `there is no network ${context.vnet} of account ${context.account} here`;
    return { refused, drop: DropReason.NetworkUnknown };
  }

  #byVerdict(
    verdict: TunnelVerdict | undefined,
    read: { readonly json: unknown; readonly unread: string | null },
    onRamp: OnRampDefaults,
  ): Admitted | Refusal {
    if (verdict === undefined) return this.#byJson(read.json, read.unread, onRamp);
    switch (verdict.action) {
      case 'accept':
        return this.ofSpec(verdict.context, onRamp);
      case 'refuse':
        return { refused: `the tunnel hook refused: ${verdict.reason}`, drop: DropReason.HookRejected };
      default:
        return hookFailed(new Error(`it returned ${JSON.stringify(verdict satisfies never)}`));
    }
  }

  #byJson(json: unknown, unread: string | null, onRamp: OnRampDefaults): Admitted | Refusal {
    if (unread !== null) return { refused: unread, drop: DropReason.BadContext };
    // The application's own part is the application's to write, not the peer's.
    const spec = typeof json === 'object' && json !== null ? { ...json, extension: undefined } : json;
    return this.ofSpec(Array.isArray(json) ? json : spec, onRamp);
  }
}

/** True when the tunnel may not open. */
export function isRefusal(answer: Admitted | Refusal): answer is Refusal {
  return 'refused' in answer;
}

/** What `Admission.ofSpec` makes an equal context of again; for hand-over. */
export function specOf(context: Context): ContextSpec {
  const { identity } = context;
  return {
    account: context.account,
    vnet: context.vnet,
    ...(identity?.user === undefined ? {} : { user: identity.user }),
    ...(identity?.device === undefined ? {} : { device: identity.device }),
    ...(identity === null ? {} : { groups: identity.groups }),
    labels: context.labels,
    sources: context.sources.map(formatPrefix),
    ...(context.extension === undefined ? {} : { extension: context.extension }),
  };
}

function hookFailed(error: unknown): Refusal {
  const text = error instanceof Error ? error.message : String(error);
  return { refused: `the tunnel hook failed: ${text.slice(0, 256)}`, drop: DropReason.HookFailed };
}
