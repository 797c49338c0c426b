/**
 * `onramp` is where streams and datagrams enter by plain listeners: `tcp-listener.ts` and `udp-listener.ts`.
 * IP tunnels enter by `tunnel`.
 *
 * This file is the folder's front: it says what belongs here. Import the file that you need, not this one.
 */
export {};
