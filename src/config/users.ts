import * as z from 'zod';

/** A user of a proxy on-ramp. */
export interface UserConfig {
  readonly name: string;
  readonly hash: PasswordHash;
  readonly groups: readonly string[];
}

/** A password's hash by scrypt (RFC 7914) with block size 8 and parallelism 1. */
export interface PasswordHash {
  /** log2 of the cost N. */
  readonly cost: number;
  readonly salt: Uint8Array;
  readonly hash: Uint8Array;
}

const COST_MIN = 10;
/** 256 MiB for each verification: more serves attackers. */
const COST_MAX = 18;

/** Parses `scrypt:14:SALT:HASH`, both in base64; null when malformed. */
export function parsePasswordHash(text: string): PasswordHash | null {
  const match = /^scrypt:([0-9]{2}):([A-Za-z0-9+/]{8,128}={0,2}):([A-Za-z0-9+/]{22,128}={0,2})$/.exec(text);
  if (match === null) return null;
  const cost = Number(match[1]);
  if (cost < COST_MIN || cost > COST_MAX) return null;
  const salt = Uint8Array.from(Buffer.from(match[2] as string, 'base64'));
  return { cost, salt, hash: Uint8Array.from(Buffer.from(match[3] as string, 'base64')) };
}

const passwordHash = z.string().transform((value, context) => {
  const parsed = parsePasswordHash(value);
  if (parsed !== null) return parsed;
  // The value itself is never shown: it may be a password that somebody took for its hash.
  const message = 'does not fit; expected scrypt:COST:SALT:HASH, with a cost of 10 to 18 and base64';
  context.issues.push({ code: 'custom', message, input: value });
  return z.NEVER;
});

/** The `users` key of a proxy on-ramp. */
export const usersSchema = z
  .array(
    z.strictObject({
      name: z
        .string()
        .regex(/^[^:\p{Cc}]{1,255}$/u)
        .describe('Name that the client gives; no colon.'),
      password_hash: passwordHash.describe(
        'Hash of the password: scrypt:COST:SALT:HASH. The guide page on forward proxies makes one.',
      ),
      groups: z.array(z.string().min(1).max(255)).max(1000).default([]).describe('Groups of the user.'),
    }),
  )
  .max(100_000)
  .describe('Who may use it, by name and password. Default: everybody who reaches it.');

/** The typed values of `users`. */
export function usersConfig(input: z.output<typeof usersSchema> | undefined): readonly UserConfig[] | null {
  if (input === undefined) return null;
  return input.map(({ name, password_hash, groups }) => ({ name, hash: password_hash, groups }));
}
