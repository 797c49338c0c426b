/**
 * Makes a context of a blob: the first message of a connected tunnel, the private data of an unconnected one's
 * datagrams, or the config. The application's `tunnel` hook reads any format; without it, or where it returns
 * nothing, the blob is JSON:
 *
 * ```
 * {"account": "acme", "vnet": "production", "user": "ann@acme.example", "device": "laptop-7",
 *  "groups": ["staff"], "labels": {"site": "kiel"}, "sources": ["100.64.0.7/32", "fd00::7"]}
 * ```
 * `account` and `vnet` are compulsory. A member that is not known is refused: a mistyped one must not be overlooked.
 * Without `sources` the on-ramp's own apply; if it has none, the tunnel can send nothing.
 */
import { DropReason } from '#base/drop-reason.ts';
import { formatPrefix, type IpPrefix, parsePrefix } from '#base/ip.ts';
import type { Context, Identity } from '#contract/context.ts';
import type { ContextSpec, TunnelInfo, TunnelVerdict } from '#proxy/hooks/hooks.ts';
import type { NetworkId } from '#proxy/proxy-contract.ts';

/** Calls the application's `tunnel` hook within its budget. */
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

/** Longest account, vnet, user, group or label. A limit, so that no log line and no key grows with what outside sends. Characters. */
export const CONTEXT_NAME_MAX = 256;

/** Most groups, labels or sources of one context: what a packet's source check walks through stays short. */
export const CONTEXT_LIST_MAX = 64;

/** Decides who may open a tunnel. */
export class Admission {
  readonly #hook: TunnelFunction | null;
  readonly #networkOf: NetworkFunction;

  constructor(options: { hook: TunnelFunction | null; networkOf: NetworkFunction }) {
    this.#hook = options.hook;
    this.#networkOf = options.networkOf;
  }

  /**
   * Asks about a new tunnel of on-ramp `onRamp`. Answers at once unless the hook returned a promise; never throws
   * and never rejects: a hook that does is a refusal. `blob` is read during the call only.
   */
  admit(blob: Uint8Array, onRamp: OnRampDefaults): Admitted | Refusal | Promise<Admitted | Refusal> {
    const json = parseJson(blob);
    if (this.#hook === null) return this.#byJson(json, onRamp);
    let verdict: TunnelVerdict | undefined | Promise<TunnelVerdict | undefined>;
    try {
      verdict = this.#hook({ onRamp: onRamp.name, blob, json });
    } catch (error) {
      return hookFailed(error);
    }
    if (verdict instanceof Promise) {
      return verdict.then((late) => this.#byVerdict(late, json, onRamp), hookFailed);
    }
    return this.#byVerdict(verdict, json, onRamp);
  }

  #byVerdict(verdict: TunnelVerdict | undefined, json: unknown, onRamp: OnRampDefaults): Admitted | Refusal {
    if (verdict === undefined) return this.#byJson(json, onRamp);
    // Typed, but what a hook returns at run time need not be.
    if (typeof verdict !== 'object' || verdict === null)
      return hookFailed(new Error('it returned no verdict'));
    switch (verdict.action) {
      case 'accept':
        return this.ofSpec(verdict.context, onRamp);
      case 'refuse':
        return { refused: `the tunnel hook refused: ${verdict.reason}`, drop: DropReason.HookRejected };
      default:
        return hookFailed(new Error('it returned a verdict with an action that is not known'));
    }
  }

  #byJson(json: unknown, onRamp: OnRampDefaults): Admitted | Refusal {
    if (json === undefined) return badContext('the context is not JSON in UTF-8');
    const fault = contextFault(json, JSON_MEMBERS);
    return fault === null ? this.ofSpec(json as ContextSpec, onRamp) : badContext(fault);
  }

  /** Makes the context of a tunnel that the config, the hook or a previous process names. */
  ofSpec(spec: ContextSpec, onRamp: OnRampDefaults): Admitted | Refusal {
    const fault = contextFault(spec, SPEC_MEMBERS);
    if (fault !== null) return badContext(fault);
    const network = this.#networkOf(spec.account, spec.vnet);
    if (network === 0) {
      return {
        refused: `there is no network ${quote(spec.vnet)} in account ${quote(spec.account)} here`,
        drop: DropReason.NetworkUnknown,
      };
    }
    return { context: contextOf(spec, onRamp), network };
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
    sources: context.sources.map((prefix) => formatPrefix(prefix)),
    ...(context.extension === undefined ? {} : { extension: context.extension }),
  };
}

function contextOf(spec: ContextSpec, onRamp: OnRampDefaults): Context {
  const named = spec.user !== undefined || spec.device !== undefined || spec.groups !== undefined;
  const identity: Identity | null = named
    ? Object.freeze({
        ...(spec.user === undefined ? {} : { user: spec.user }),
        ...(spec.device === undefined ? {} : { device: spec.device }),
        groups: Object.freeze([...(spec.groups ?? [])]),
      })
    : null;
  const sources = spec.sources?.map((text) => parsePrefix(text) as IpPrefix) ?? onRamp.sources;
  // Not frozen as a whole: `extension` is the application's to write.
  return {
    account: spec.account,
    vnet: spec.vnet,
    identity,
    onRamp: onRamp.name,
    labels: Object.freeze({ ...spec.labels }),
    sources: Object.freeze([...sources]),
    extension: spec.extension,
  };
}

const JSON_MEMBERS: ReadonlySet<string> = new Set([
  'account',
  'vnet',
  'user',
  'device',
  'groups',
  'labels',
  'sources',
]);
const SPEC_MEMBERS: ReadonlySet<string> = new Set([...JSON_MEMBERS, 'extension']);

/** What is wrong with a context, or null. Checks every member: hooks are typed, but what they return at run time is not. */
function contextFault(value: unknown, members: ReadonlySet<string>): string | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return 'the context is not a JSON object';
  }
  for (const key of Object.keys(value)) {
    if (!members.has(key)) return `the context has a member ${quote(key)} that is not known`;
  }
  const spec = value as Record<string, unknown>;
  for (const key of ['account', 'vnet']) {
    if (spec[key] === undefined) return `the context has no ${key}`;
  }
  for (const key of ['account', 'vnet', 'user', 'device']) {
    if (spec[key] !== undefined && !isName(spec[key])) return `${key} of the context is not a short text`;
  }
  for (const key of ['groups', 'sources']) {
    if (spec[key] !== undefined && !isNameList(spec[key]))
      return `${key} of the context is not a list of texts`;
  }
  for (const source of (spec.sources as readonly string[] | undefined) ?? []) {
    if (parsePrefix(source) === null) return `${quote(source)} in sources of the context is no IP prefix`;
  }
  return spec.labels === undefined || isLabels(spec.labels) ? null : 'labels of the context are not texts';
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= CONTEXT_NAME_MAX;
}

function isNameList(value: unknown): boolean {
  return Array.isArray(value) && value.length <= CONTEXT_LIST_MAX && value.every(isName);
}

function isLabels(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const entries = Object.entries(value);
  return entries.length <= CONTEXT_LIST_MAX && entries.every(([key, text]) => isName(key) && isText(text));
}

function isText(value: unknown): boolean {
  return typeof value === 'string' && value.length <= CONTEXT_NAME_MAX;
}

const DECODER = new TextDecoder('utf-8', { fatal: true });

function parseJson(blob: Uint8Array): unknown {
  try {
    return JSON.parse(DECODER.decode(blob)) as unknown;
  } catch {
    return undefined;
  }
}

function badContext(refused: string): Refusal {
  return { refused, drop: DropReason.BadContext };
}

function hookFailed(error: unknown): Refusal {
  const text = error instanceof Error ? error.message : String(error);
  return {
    refused: `the tunnel hook failed: ${text.slice(0, CONTEXT_NAME_MAX)}`,
    drop: DropReason.HookFailed,
  };
}

/** Outside text for the log: shortened, control characters escaped. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text);
}
