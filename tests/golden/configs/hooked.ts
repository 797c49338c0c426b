import { defineHooks } from '#proxy/hooks/hooks.ts';

const closed = new Set<number>();

/** An application that meets every step of an explanation. */
export default defineHooks<undefined, { readonly closed: readonly number[] }>({
  start(settings) {
    for (const port of settings.closed) closed.add(port);
  },

  flow({ destination, protocol }) {
    if (protocol === 'tcp' && closed.has(destination.port)) {
      return { action: 'reject', with: 'reset', reason: 'telnet is closed' };
    }
    if (destination.port === 666) throw new Error('the list could not be read');
    if (destination.port === 5432) return { action: 'forward', via: 'net' };
    return undefined;
  },

  async stream({ destination, peek }) {
    if (destination.port === 25) {
      await peek(4);
      return { action: 'reject', reason: 'no mail from here' };
    }
    if (destination.port === 8443) return { action: 'splice', to: { host: '10.10.0.77', port: 443 } };
    return destination.port === 80 ? { action: 'http' } : undefined;
  },

  session({ destination }) {
    return destination.port === 53 ? { action: 'relay', to: { host: '10.10.0.53', port: 53 } } : undefined;
  },

  request: () => undefined,

  egress({ target }) {
    return target.host === '10.10.0.66' ? { action: 'block', reason: 'quarantined' } : undefined;
  },
});
