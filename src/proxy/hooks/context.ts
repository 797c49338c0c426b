import { DropReason } from '#base/drop-reason.ts';
import { type IpPrefix, parsePrefix } from '#base/ip.ts';
import { isName } from '#config/scalars.ts';
import type { Context, Identity } from '#contract/context.ts';

import type { ContextSpec } from './hooks.ts';

/**
 * Longest user, device, group, label and label value, characters: what a directory or a certificate holds.
 */
const TEXT_LENGTH_MAX = 255;

/** Groups of one identity: directories with more send the few that matter. */
const GROUPS_MAX = 1000;

/** Labels of one tunnel. */
const LABELS_MAX = 64;

/** Prefixes that one tunnel may send from; an office has some tens. */
const SOURCES_MAX = 1024;

/** Why a context was not accepted. */
export interface ContextRefusal {
  readonly refused: true;
  readonly drop: typeof DropReason.BadContext | typeof DropReason.ContextTooLong;
  /** What was wrong and what was expected. */
  readonly reason: string;
}

/** True for the other outcome of `makeContext` and `parseContextBlob`. */
export function isContextRefusal(value: object): value is ContextRefusal {
  return 'refused' in value;
}

/**
 * The context of a tunnel, a listener or a datagram's sender. `spec` is a `ContextSpec` of the config or the
 * `tunnel` hook, or JSON from a peer: every member is checked, members of other names are ignored.
 */
export function makeContext(spec: unknown, onRamp: string): Context | ContextRefusal {
  if (typeof spec !== 'object' || spec === null || Array.isArray(spec)) {
    return refusal('the context is not an object; expected account, vnet and what is known beside them');
  }
  const members = spec as { readonly [Key in keyof ContextSpec]?: unknown };
  for (const key of ['account', 'vnet'] as const) {
    const value = members[key];
    if (value === undefined) return refusal(`the context has no ${key}; expected one`);
    if (typeof value !== 'string' || !isName(value)) {
      return refusal(
        `the context's ${key} is not a name; expected at most 63 letters, digits, ".", "_" or "-"`,
      );
    }
  }
  const identity = makeIdentity(members);
  if (typeof identity === 'string') return refusal(identity);
  const labels = makeLabels(members.labels);
  if (typeof labels === 'string') return refusal(labels);
  const sources = makeSources(members.sources);
  if (typeof sources === 'string') return refusal(sources);
  const context: Context = {
    account: members.account as string,
    vnet: members.vnet as string,
    identity,
    onRamp,
    labels,
    sources,
    extension: members.extension,
  };
  // All but the application's own part is fixed for the life of the tunnel.
  for (const key of Object.keys(context)) {
    if (key !== 'extension') Object.defineProperty(context, key, { writable: false });
  }
  return Object.seal(context);
}

/**
 * Reads a context blob as JSON in UTF-8. `limit` is `limits.contextBytesMax`. Answers undefined in `json` for
 * what is not JSON: the `tunnel` hook may know the format; without one `makeContext` refuses it.
 */
export function parseContextBlob(
  blob: Uint8Array,
  limit: number,
): { readonly json: unknown } | ContextRefusal {
  if (blob.length > limit) {
    const reason =
      `the context has ${blob.length} bytes; ` + `expected at most ${limit} (limits.context_bytes_max)`;
    return Object.freeze({ refused: true, drop: DropReason.ContextTooLong, reason });
  }
  try {
    return { json: JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(blob)) };
  } catch {
    return { json: undefined };
  }
}

/** Why a blob that no hook took is refused: says truncated where the JSON ends too early. */
export function unreadableContext(blob: Uint8Array): ContextRefusal {
  if (blob.length === 0) return refusal('the context is empty; expected a JSON object with account and vnet');
  const first = blob[0];
  const last = blob[blob.length - 1];
  const truncated = first === 0x7b && last !== 0x7d;
  const state = truncated ? 'is truncated' : 'is not JSON';
  return refusal(
    `the context ${state}; expected a JSON object with account and vnet, or a tunnel hook that reads it`,
  );
}

function makeIdentity(members: { readonly [Key in keyof ContextSpec]?: unknown }): Identity | null | string {
  const { user, device, groups } = members;
  for (const [key, value] of Object.entries({ user, device })) {
    if (value !== undefined && !isText(value)) {
      return `the context's ${key} is not a text of 1 to ${TEXT_LENGTH_MAX} characters`;
    }
  }
  if (groups !== undefined) {
    if (!Array.isArray(groups) || groups.length > GROUPS_MAX || !groups.every(isText)) {
      return `the context's groups are not a list of at most ${GROUPS_MAX} texts`;
    }
  }
  const list = (groups as readonly string[] | undefined) ?? [];
  if (user === undefined && device === undefined && list.length === 0) return null;
  return Object.freeze({
    ...(user === undefined ? {} : { user: user as string }),
    ...(device === undefined ? {} : { device: device as string }),
    groups: Object.freeze([...list]),
  });
}

function makeLabels(value: unknown): Readonly<Record<string, string>> | string {
  if (value === undefined) return Object.freeze({});
  const wrong = `the context's labels are not at most ${LABELS_MAX} names with texts`;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return wrong;
  const entries = Object.entries(value);
  if (entries.length > LABELS_MAX) return wrong;
  const labels: Record<string, string> = Object.create(null);
  for (const [key, text] of entries) {
    if (!isText(key) || typeof text !== 'string' || text.length > TEXT_LENGTH_MAX || CONTROL.test(text))
      return wrong;
    labels[key] = text;
  }
  return Object.freeze(labels);
}

function makeSources(value: unknown): readonly IpPrefix[] | string {
  if (value === undefined) return Object.freeze([]);
  if (!Array.isArray(value) || value.length > SOURCES_MAX) {
    return `the context's sources are not a list of at most ${SOURCES_MAX} prefixes`;
  }
  const sources: IpPrefix[] = [];
  for (const [index, text] of value.entries()) {
    const prefix = typeof text === 'string' ? parsePrefix(text) : null;
    if (prefix === null)
      return `the context's source ${index} is not a prefix; expected one such as 100.64.0.7/32`;
    sources.push(prefix);
  }
  return Object.freeze(sources);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const CONTROL = /[\0-\x1f\x7f]/;

/** Without control characters, which could forge lines in a log. */
function isText(value: unknown): value is string {
  return (
    typeof value === 'string' && value.length > 0 && value.length <= TEXT_LENGTH_MAX && !CONTROL.test(value)
  );
}

function refusal(reason: string): ContextRefusal {
  return Object.freeze({ refused: true, drop: DropReason.BadContext, reason });
}
