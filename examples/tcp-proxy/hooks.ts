import { defineHooks } from 'rampart';

/** The part of rampart.yaml under `app`. */
interface Settings {
  readonly users: readonly string[];
}

/** Version 3.0 of PostgreSQL's protocol, as its startup message has it. */
const VERSION_3 = 196_608;

let users: readonly string[] = [];

/** The user that a startup message names; null when the message is another one. */
function userOf(bytes: Uint8Array): string | null {
  const message = Buffer.from(bytes);
  if (message.length < 8 || message.readInt32BE(4) !== VERSION_3) return null;
  // Names and values in turn, each ended by a zero byte.
  const words = message.toString('utf8', 8, message.readInt32BE(0)).split('\0');
  const at = words.findIndex((word, index) => index % 2 === 0 && word === 'user');
  return at < 0 ? null : (words[at + 1] ?? null);
}

export default defineHooks<unknown, Settings>({
  start(settings) {
    users = settings.users;
  },

  // Once per connection. What is peeked at is not consumed: the database gets it too.
  async stream({ peek }) {
    const user = userOf(await peek(1024));
    if (user === null) return { action: 'reject', reason: 'no plain startup message: use sslmode=disable' };
    if (!users.includes(user)) return { action: 'reject', reason: `${user} may not use this database` };
    return { action: 'splice' };
  },
});
