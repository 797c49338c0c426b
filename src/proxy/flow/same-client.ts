import type { Context } from '#contract/context.ts';

/**
 * True when two tunnels certainly are of the same client: its flows may then move from one to the other, as
 * when a device changes its network and sends from another outer address. Without an identity nobody can
 * tell, so the answer is no.
 */
export function isSameClient(a: Context, b: Context): boolean {
  if (a === b) return true;
  if (a.account !== b.account || a.vnet !== b.vnet || a.onRamp !== b.onRamp) return false;
  if (a.identity === null || b.identity === null) return false;
  const { user, device } = a.identity;
  return device !== undefined && device === b.identity.device && user === b.identity.user;
}
