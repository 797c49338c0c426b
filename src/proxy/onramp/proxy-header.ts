import { type IpPrefix, parseIp, prefixContains } from '#base/ip.ts';
import type { Endpoint } from '#contract/context.ts';
import type { Fd } from '#io/io.ts';
import { type ProxyHeader, ProxyFault } from '#protocol/proxy-protocol/header.ts';
import { describeProxyFault, parseProxyHeader } from '#protocol/proxy-protocol/proxy-protocol.ts';
import type { Worker } from '#proxy/proxy-contract.ts';

import { Introduction, type IntroductionLoss } from './introduction.ts';

/** Takes the connections whose header was read, and hears of the others. */
export interface ProxyHeaderOwner {
  /** The header, and the connection that begins behind it, with the bytes that are here already. */
  onProxyHeader(client: ProxyClient, header: ProxyHeader, prefixOffset: number, prefixLength: number): void;
  /** No header came; the connection is closed. `why` is a sentence's end. */
  onProxyHeaderLost(client: ProxyClient, why: string): void;
}

/** A connection of a proxy in front. */
export interface ProxyClient {
  readonly fd: Fd;
  /** The proxy's own end. */
  readonly peer: Endpoint;
}

/**
 * True when what `peer` says of others is believed. A peer on a Unix socket has passed the socket file's
 * permissions.
 */
export function isTrusted(trust: readonly IpPrefix[], peer: Endpoint): boolean {
  if (peer.address === 'unix') return true;
  const address = parseIp(peer.address);
  return address !== null && trust.some((prefix) => prefixContains(prefix, address));
}

/** Reads the PROXY header of one connection. */
export class ProxyHeaderReader extends Introduction {
  readonly #owner: ProxyHeaderOwner;
  readonly #client: ProxyClient;
  #fault: ProxyFault = ProxyFault.Incomplete;

  constructor(worker: Worker, client: ProxyClient, owner: ProxyHeaderOwner) {
    super(worker, client.fd, -1, 0);
    this.#owner = owner;
    this.#client = client;
  }

  protected override onBytes(): void {
    const header = parseProxyHeader(this.worker.io.arena.bytes, this.at, this.length);
    if (header === ProxyFault.Incomplete) this.more();
    else if (typeof header === 'number') {
      this.#fault = header;
      this.lose('refused');
    } else {
      this.consume(header.length);
      const { prefixOffset, prefixLength } = this.handOn();
      this.#owner.onProxyHeader(this.#client, header, prefixOffset, prefixLength);
    }
  }

  protected override onLost(loss: IntroductionLoss): void {
    const why =
      loss === 'refused'
        ? describeProxyFault(this.#fault)
        : loss === 'timeout'
          ? 'did not come in time'
          : 'is missing';
    this.#owner.onProxyHeaderLost(this.#client, `the PROXY header ${why}`);
  }
}
