import { defineHooks } from 'rampart';

const TELNET = 23;
const GAMES = 27_015;

export default defineHooks({
  // Programs may only say that they are of this network, whatever context they bring.
  tunnel({ json }) {
    const { account, vnet } = (json ?? {}) as { account?: unknown; vnet?: unknown };
    if (account !== 'acme' || vnet !== 'office')
      return { action: 'refuse', reason: 'only acme/office is routed here' };
    return undefined;
  },

  // Once per flow; the verdict is kept, so the packets that follow cost no call.
  flow({ protocol, destination }) {
    if (protocol === 'tcp' && destination.port === TELNET) {
      return { action: 'reject', with: 'reset', reason: 'telnet is not encrypted' };
    }
    if (protocol === 'udp' && destination.port === GAMES) {
      return { action: 'reject', with: 'prohibited', reason: 'not during working hours' };
    }
    return { action: 'forward' };
  },
});
