import { defineHooks, type Target } from 'rampart';

/** Where the services of a network live. */
const SERVER = '10.10.0.10';

/** Plain listeners say in their labels which service they lead to. */
function wanted(labels: Readonly<Record<string, string>>): Target | null {
  if (labels.port === undefined || labels.way === 'sockets' || labels.way === 'http') return null;
  return { host: SERVER, port: Number(labels.port) };
}

export default defineHooks({
  tunnel({ json }) {
    const { account, vnet } = json as { account: string; vnet: string };
    return { action: 'accept', context: { account, vnet, sources: ['100.64.0.0/24'] } };
  },

  stream({ context }) {
    const to = wanted(context.labels);
    return to === null || context.onRamp.startsWith('http') ? undefined : { action: 'splice', to };
  },

  request({ context }) {
    const to = wanted(context.labels);
    return to === null ? undefined : { action: 'forward', to };
  },

  // A client of a plain listener has no address in its network, and packets have to come from one.
  egress({ context, layer }) {
    const needsSource = layer !== 'ip' && wanted(context.labels) !== null;
    return needsSource ? { action: 'direct', source: '100.64.0.9' } : undefined;
  },
});
