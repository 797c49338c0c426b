import { defineHooks } from 'rampart';

/** Decides about what the routes cannot say: here, that clients without TLS 1.3 stay out. */
export default defineHooks({
  tls({ hello, serverName }) {
    if (hello.versions.includes(0x0304)) return undefined;
    return { action: 'reject', reason: `${serverName ?? 'a client'} has no TLS 1.3` };
  },
});
