import { defineHooks } from 'rampart';

/** Where the servers of `many-networks.test.ts` listen, and how its networks are numbered. */
interface Settings {
  readonly port: number;
  readonly vnets: number;
}

let settings: Settings;

export default defineHooks<unknown, Settings>({
  start(given) {
    settings = given;
  },

  // Every network has a server of its own, at an address of loopback that only its context leads to.
  stream({ context }) {
    const number = Number(context.account.slice(1)) * settings.vnets + Number(context.vnet.slice(1));
    const host = `127.1.${number >> 8}.${number & 255}`;
    return { action: 'splice', to: { host, port: settings.port } };
  },
});
