import { defineHooks } from 'rampart';

const READING = ['GET', 'HEAD', 'OPTIONS'];

export default defineHooks({
  // Rules at layer 7 know who sent the packets at layer 3: the context goes along all the way.
  request({ context, method, authority, path, fields }) {
    const groups = context.identity?.groups ?? [];
    if (!READING.includes(method) && !groups.includes('writers')) {
      return { action: 'block', reason: `${method} is for the group writers` };
    }
    if (authority === 'payroll.example') return { action: 'block', reason: 'payroll is for the office only' };
    if (path.startsWith('/latest')) return { action: 'redirect', location: '/v2/', status: 302 };
    fields.set('X-User', context.identity?.user ?? 'nobody');
    return undefined;
  },

  // Before anything leaves: the target as it is, not as the client named it.
  egress({ target }) {
    if (target.port < 1024 && target.port !== 80) return { action: 'block', reason: 'no other ports' };
    return undefined;
  },
});
