import { defineHooks } from 'rampart';

/** Ports that `bad-input.test.ts` asks for to see what becomes of bad hooks. */
const THROWING_PORT = 666;
const DROPPED_PORT = 667;
const SILENT_PORT = 668;
const REFUSED_PORT = 669;

export default defineHooks({
  tunnel({ json }) {
    const { vnet } = (json ?? {}) as { vnet?: string };
    if (vnet === 'throws') throw new Error('the tunnel hook is broken');
    return undefined;
  },

  flow({ destination }) {
    if (destination.port === THROWING_PORT) throw new Error('the flow hook is broken');
    if (destination.port === DROPPED_PORT) return { action: 'drop', reason: 'nobody goes there' };
    return undefined;
  },

  session({ destination }) {
    return destination.port === REFUSED_PORT ? { action: 'reject', reason: 'no such sessions' } : undefined;
  },

  // Never answers: its time budget ends it.
  request({ path }) {
    return path === `/${SILENT_PORT}` ? new Promise(() => {}) : undefined;
  },
});
