import { assert } from '#base/assert.ts';
import type { NetworkId } from '#proxy/proxy-contract.ts';

/**
 * An account as the data plane names it: a small positive integer, 0 is never used. For limits and figures.
 */
export type AccountId = number;

/**
 * Networks that contexts from outside may bring into being in one process: a network is never forgotten, so
 * whoever may open tunnels could fill the memory with names.
 */
export const NETWORKS_ADMITTED_MAX = 1 << 16;

/** What a new process needs to give every network the number it had. */
export interface NetworksState {
  readonly accounts: readonly string[];
  /** Index of the account in `accounts`, and the vnet; network n stands at n − 1. */
  readonly networks: readonly (readonly [account: number, vnet: string])[];
}

/**
 * Interns (account, vnet): every pair gets one small integer for the life of the process, which is part of
 * every key. Numbers are never reused, so a stale one can never name somebody else's network. Cold path, but
 * for the two lookups by number.
 */
export class Networks {
  /** Two maps, not one over joined text: no name can be written so that it means another pair. */
  readonly #ids = new Map<string, Map<string, NetworkId>>();
  readonly #accountIds = new Map<string, AccountId>();
  readonly #accountNames: string[] = [''];
  readonly #vnetNames: string[] = [''];
  /** Account of each network, by number. */
  readonly #accounts: AccountId[] = [0];

  /** The number of the pair, given on first sight. */
  intern(account: string, vnet: string): NetworkId {
    assert(account.length > 0 && vnet.length > 0, 'a network needs an account and a vnet');
    let vnets = this.#ids.get(account);
    if (vnets === undefined) {
      vnets = new Map();
      this.#ids.set(account, vnets);
      this.#accountIds.set(account, this.#accountNames.length);
      this.#accountNames.push(account);
    }
    const known = vnets.get(vnet);
    if (known !== undefined) return known;
    const id = this.#accounts.length;
    vnets.set(vnet, id);
    this.#accounts.push(this.#accountIds.get(account) as AccountId);
    this.#vnetNames.push(vnet);
    return id;
  }

  /** The number of the pair, 0 when it was never seen. */
  find(account: string, vnet: string): NetworkId {
    return this.#ids.get(account)?.get(vnet) ?? 0;
  }

  /**
   * As `intern`, for names that come from outside: 0 for a network that is not known while there are
   * `NETWORKS_ADMITTED_MAX` already.
   */
  admit(account: string, vnet: string): NetworkId {
    const known = this.find(account, vnet);
    return known === 0 && this.count >= NETWORKS_ADMITTED_MAX ? 0 : this.intern(account, vnet);
  }

  /** The account that a network belongs to. The network must exist. */
  accountOf(network: NetworkId): AccountId {
    const account = this.#accounts[network];
    assert(account !== undefined && account > 0, 'network was never interned');
    return account;
  }

  accountName(account: AccountId): string {
    const name = this.#accountNames[account];
    assert(name !== undefined && account > 0, 'account was never interned');
    return name;
  }

  vnetName(network: NetworkId): string {
    const name = this.#vnetNames[network];
    assert(name !== undefined && network > 0, 'network was never interned');
    return name;
  }

  /** Networks so far; their numbers are 1 to `count`. */
  get count(): number {
    return this.#accounts.length - 1;
  }

  /** Accounts so far; their numbers are 1 to `accountCount`. */
  get accountCount(): number {
    return this.#accountNames.length - 1;
  }

  /** For a new process. */
  describe(): NetworksState {
    return {
      accounts: this.#accountNames.slice(1),
      networks: this.#accounts
        .slice(1)
        .map((account, at) => [account - 1, this.#vnetNames[at + 1] as string]),
    };
  }

  /** Gives every network the number it had in the old process. This table must be empty. */
  adopt(state: NetworksState): void {
    assert(this.count === 0, 'networks are adopted before any is interned');
    for (const [account, vnet] of state.networks) this.intern(state.accounts[account] as string, vnet);
  }
}
