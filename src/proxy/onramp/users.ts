import { createHmac, randomBytes, scrypt, timingSafeEqual } from 'node:crypto';

import type { PasswordHash, UserConfig } from '#config/users.ts';
import type { Context } from '#contract/context.ts';

/** Block size and parallelism of scrypt, as RFC 7914 recommends. */
const BLOCK_SIZE = 8;
const PARALLELISM = 1;
/** Verifications at once: each holds 16 MiB at the usual cost, and anybody can ask for one. */
const PENDING_MAX = 16;

/** Verifies names and passwords. A wrong name costs as much time as a wrong password. */
export class Users {
  readonly #users: ReadonlyMap<string, UserConfig>;
  /**
   * Passwords that were right, under a key of this process: the next request of the same client costs a
   * microsecond.
   */
  readonly #known = new Map<string, Uint8Array>();
  readonly #key = randomBytes(32);
  readonly #nobody: PasswordHash;
  #pending = 0;

  constructor(users: readonly UserConfig[]) {
    this.#users = new Map(users.map((user) => [user.name, user]));
    const cost = users[0]?.hash.cost ?? 14;
    this.#nobody = { cost, salt: randomBytes(16), hash: randomBytes(32) };
  }

  /**
   * The user, or null when name or password is wrong or too many are being verified. Answers at once where it
   * can.
   */
  verify(name: string, password: string): UserConfig | null | Promise<UserConfig | null> {
    const user = this.#users.get(name);
    const digest = createHmac('sha256', this.#key).update(`${name}\0${password}`).digest();
    const known = this.#known.get(name);
    if (user !== undefined && known !== undefined && timingSafeEqual(known, digest)) return user;
    if (this.#pending >= PENDING_MAX) return null;
    this.#pending++;
    return verifyPassword(password, user?.hash ?? this.#nobody).then(
      (right) => {
        this.#pending--;
        if (!right || user === undefined) return null;
        this.#known.set(name, digest);
        return user;
      },
      () => {
        this.#pending--;
        return null;
      },
    );
  }
}

/** What is known of a user's traffic: the on-ramp's context with the user in the place of its identity. */
export function userContext(base: Context, user: UserConfig): Context {
  let known = CONTEXTS.get(base);
  if (known === undefined) {
    known = new WeakMap();
    CONTEXTS.set(base, known);
  }
  let context = known.get(user);
  if (context === undefined) {
    const identity = Object.freeze({
      ...base.identity,
      user: user.name,
      groups: Object.freeze([...user.groups]),
    });
    context = { ...base, identity };
    known.set(user, context);
  }
  return context;
}

/** One context per on-ramp and user. */
const CONTEXTS = new WeakMap<Context, WeakMap<UserConfig, Context>>();

function verifyPassword(password: string, { cost, salt, hash }: PasswordHash): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const options = { N: 2 ** cost, r: BLOCK_SIZE, p: PARALLELISM, maxmem: 2 ** cost * BLOCK_SIZE * 160 };
    scrypt(password, salt, hash.length, options, (error, key) => {
      if (error !== null) reject(error);
      else resolve(timingSafeEqual(key, hash));
    });
  });
}
