import { assert } from '#base/assert.ts';
import type { SendProxyHeader } from '#config/off-ramps.ts';
import type { Target } from '#contract/context.ts';
import type { Fd } from '#io/io.ts';
import type { DialPlan, SecureUpgrade, Worker } from '#proxy/proxy-contract.ts';

import type { StreamOffRamp } from './offramp.ts';
import { type Resolver, SocketOffRamp } from './socket-off-ramp.ts';

/**
 * Streams leave to the origins of one service, in turn. An origin that cannot be reached is passed over: the
 * next one is tried until each had its chance.
 */
export class OriginOffRamp implements StreamOffRamp {
  readonly name: string;
  readonly origin: Target;
  readonly keepsSource = false;
  readonly proxyHeader: SendProxyHeader | null;
  readonly secure: SecureUpgrade | null;
  readonly #sockets: SocketOffRamp;
  readonly #origins: readonly Target[];
  #next = 0;

  constructor(
    worker: Worker,
    options: {
      name: string;
      origins: readonly Target[];
      resolver?: Resolver;
      proxyHeader?: SendProxyHeader | null;
      secure?: SecureUpgrade | null;
    },
  ) {
    assert(options.origins.length > 0);
    this.name = options.name;
    this.proxyHeader = options.proxyHeader ?? null;
    this.secure = options.secure ?? null;
    this.origin = options.origins[0] as Target;
    this.#origins = options.origins;
    this.#sockets = new SocketOffRamp(worker, options);
  }

  async connect(plan: DialPlan): Promise<Fd> {
    // A hook that names a target of its own means that one.
    if (plan.target !== this.origin) return await this.#sockets.connect(plan);
    let last: unknown = null;
    for (let attempt = 0; attempt < this.#origins.length; attempt++) {
      const target = this.#origins[this.#next++ % this.#origins.length] as Target;
      try {
        return await this.#sockets.connect({ ...plan, target });
      } catch (error) {
        last = error;
      }
    }
    throw last;
  }
}
