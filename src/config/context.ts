import * as z from 'zod';

import { formatPrefix } from '#base/ip.ts';

import { name, prefix } from './scalars.ts';

/** Account and vnet of traffic that a plain listener takes in when its config names none. */
export const DEFAULT_NETWORK = 'default';

/**
 * What the config says about the traffic of one on-ramp or off-ramp. A `ContextSpec` of the hooks is made
 * like it.
 */
export interface ContextConfig {
  readonly account: string;
  readonly vnet: string;
  readonly user?: string;
  readonly device?: string;
  readonly groups: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** Prefixes that packets may come from, as text. Empty: none, so nothing comes in. */
  readonly sources: readonly string[];
}

/** The `context` key. */
export const contextSchema = z
  .strictObject({
    account: name.describe('Tenant. Nothing ever crosses from one account into another.'),
    vnet: name
      .default(DEFAULT_NETWORK)
      .describe(`Virtual network inside the account. Default: ${DEFAULT_NETWORK}.`),
    user: z.string().min(1).max(255).optional().describe('Who sends, for hooks and records.'),
    device: z.string().min(1).max(255).optional().describe('Device that sends, for hooks and records.'),
    groups: z.array(z.string().min(1).max(255)).max(1000).default([]).describe('Groups of the user.'),
    labels: z.record(z.string(), z.string()).default({}).describe('Free labels, for hooks and records.'),
  })
  .describe('What is known about the traffic: account, vnet, identity, labels.');

/** The `sources` key. */
export const sourcesSchema = z
  .array(prefix)
  .describe('Prefixes that packets may come from; a packet from elsewhere is dropped as spoofed.');

type ContextInput = z.output<typeof contextSchema>;

/** The frozen value of `context` with its `sources`. */
export function contextConfig(input: ContextInput, sources: z.output<typeof sourcesSchema>): ContextConfig {
  return {
    account: input.account,
    vnet: input.vnet,
    ...(input.user === undefined ? {} : { user: input.user }),
    ...(input.device === undefined ? {} : { device: input.device }),
    groups: input.groups,
    labels: input.labels,
    sources: sources.map(formatPrefix),
  };
}
