import { RampartError } from '#base/error.ts';
import type { Log } from '#base/log.ts';
import type { Config } from '#config/config.ts';
import type { Context } from '#contract/context.ts';

import type { AccessLog } from './access-log/access-log.ts';
import type { Networks } from './flow/networks.ts';
import type { Routes } from './flow/routes.ts';
import { isContextRefusal, makeContext } from './hooks/context.ts';
import type { HookRunner } from './hooks/runner.ts';
import type { Worker } from './proxy-contract.ts';
import type { OffRampTable } from './ways-out.ts';

/** What the parts of a data plane are made of. */
export interface Assembly {
  readonly config: Config;
  readonly log: Log;
  readonly worker: Worker;
  readonly hooks: HookRunner;
  readonly networks: Networks;
  readonly routes: Routes;
  readonly ways: OffRampTable;
  /** Null when the config asks for no access log and no trace contexts. */
  readonly access: AccessLog | null;
}

/** The context of traffic that the config describes. @throws RampartError RAMP_CONFIG */
export function configContext(spec: unknown, onRamp: string): Context {
  const context = makeContext(spec, onRamp);
  if (isContextRefusal(context)) {
    throw new RampartError('RAMP_CONFIG', `${onRamp}: ${context.reason}`, { side: 'config' });
  }
  return context;
}
