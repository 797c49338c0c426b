import { RampartError } from '#base/error.ts';
import { formatDuration } from '#base/duration.ts';
import type { FlowRecord } from '#contract/record.ts';
import type { Limits, Stats } from '#proxy/proxy-contract.ts';
import { Counter } from '#proxy/stats.ts';

import type {
  Awaitable,
  EgressInfo,
  EgressVerdict,
  FlowInfo,
  FlowVerdict,
  Hooks,
  RequestInfo,
  RequestVerdict,
  ResponseInfo,
  ResponseVerdict,
  SessionInfo,
  SessionVerdict,
  StreamInfo,
  StreamVerdict,
  TlsInfo,
  TlsVerdict,
  TunnelInfo,
  TunnelVerdict,
} from './hooks.ts';
import type { HookName } from './load.ts';
import {
  EGRESS_VERDICTS,
  FLOW_VERDICTS,
  type KnownOffRamps,
  REQUEST_VERDICTS,
  RESPONSE_VERDICTS,
  SESSION_VERDICTS,
  STREAM_VERDICTS,
  TLS_VERDICTS,
  TUNNEL_VERDICTS,
  type VerdictTable,
  verdictMistake,
} from './verdict.ts';

/** What a runner needs beside the hooks. */
export interface HookRunnerOptions {
  readonly stats: Stats;
  readonly limits: Pick<Limits, 'hookMs'>;
  /** Names that `via` may have; null: any. */
  readonly offRamps: KnownOffRamps;
  /** Hears of every failure once, before the caller does: for the log. Must not throw. */
  readonly onFailure?: (hook: HookName, error: RampartError) => void;
}

/** A hook that answers now or later. */
export type AsyncHook<Info, Verdict> = (info: Info) => Awaitable<Verdict | undefined>;

/** A hook that must answer at once. */
export type SyncHook<Info, Verdict> = (info: Info) => Verdict | undefined;

/**
 * Calls the hooks of an application. Each member is null where the application has no such hook, so an absent
 * one costs a comparison. A call throws (or rejects with) `RampartError` RAMP_HOOK_FAILED when the hook
 * throws, overruns `limits.hookMs`, answers with a promise where it must not, or returns what is not a
 * verdict: the caller then ends this one flow as refused. A promise is passed on only when the hook returned
 * one; a verdict at once stays at once.
 */
export class HookRunner {
  readonly tunnel: AsyncHook<TunnelInfo, TunnelVerdict> | null;
  readonly flow: SyncHook<FlowInfo, FlowVerdict> | null;
  readonly stream: AsyncHook<StreamInfo, StreamVerdict> | null;
  readonly tls: AsyncHook<TlsInfo, TlsVerdict> | null;
  readonly session: SyncHook<SessionInfo, SessionVerdict> | null;
  readonly request: AsyncHook<RequestInfo, RequestVerdict> | null;
  readonly response: AsyncHook<ResponseInfo, ResponseVerdict> | null;
  /** For layer `ip` use `egressNow`. */
  readonly egress: AsyncHook<EgressInfo, EgressVerdict> | null;
  readonly egressNow: SyncHook<EgressInfo, EgressVerdict> | null;
  /** Never throws: a failure is counted and reported. */
  readonly end: ((record: FlowRecord) => void) | null;
  readonly #hooks: Hooks;
  readonly #options: HookRunnerOptions;
  readonly #counters: Float64Array;

  constructor(hooks: Hooks, options: HookRunnerOptions) {
    this.#hooks = hooks;
    this.#options = options;
    this.#counters = options.stats.counters;
    this.tunnel = this.#later('tunnel', TUNNEL_VERDICTS);
    this.flow = this.#atOnce('flow', FLOW_VERDICTS);
    this.stream = this.#later('stream', STREAM_VERDICTS);
    this.tls = this.#later('tls', TLS_VERDICTS);
    this.session = this.#atOnce('session', SESSION_VERDICTS);
    this.request = this.#later('request', REQUEST_VERDICTS);
    this.response = this.#later('response', RESPONSE_VERDICTS);
    this.egress = this.#later('egress', EGRESS_VERDICTS);
    this.egressNow = this.#atOnce('egress', EGRESS_VERDICTS);
    this.end = hooks.end === undefined ? null : (record) => this.#callEnd(record);
  }

  /**
   * Calls the `start` hook, once and before any on-ramp opens. Without a time limit: an application may load
   * what it needs.
   *
   * @throws RampartError RAMP_HOOKS when it fails: then nothing is started.
   */
  async start(settings: unknown, parent: unknown): Promise<void> {
    if (this.#hooks.start === undefined) return;
    this.#count(Counter.HookCalls);
    try {
      await this.#hooks.start(settings, parent);
    } catch (cause) {
      const message = `the start hook failed: ${describe(cause)}; nothing was started`;
      throw new RampartError('RAMP_HOOKS', message, { side: 'config', cause });
    }
  }

  #later<Info, Verdict>(name: HookName, table: VerdictTable): AsyncHook<Info, Verdict> | null {
    const hook = this.#hook<Info>(name);
    if (hook === null) return null;
    return (info) => {
      const answer = this.#call(name, hook, info);
      if (isPromise(answer)) return this.#within(name, answer, table) as Promise<Verdict | undefined>;
      return this.#checked<Verdict>(name, answer, table);
    };
  }

  #atOnce<Info, Verdict>(name: HookName, table: VerdictTable): SyncHook<Info, Verdict> | null {
    const hook = this.#hook<Info>(name);
    if (hook === null) return null;
    return (info) => {
      const answer = this.#call(name, hook, info);
      if (!isPromise(answer)) return this.#checked<Verdict>(name, answer, table);
      // Nobody waits for it: a later rejection must not end the process.
      answer.then(undefined, () => {});
      throw this.#failed(name, `the ${name} hook answered with a promise; expected a verdict at once`);
    };
  }

  #hook<Info>(name: HookName): ((info: Info) => unknown) | null {
    const hook = this.#hooks[name] as ((info: Info) => unknown) | undefined;
    return hook === undefined ? null : hook.bind(this.#hooks);
  }

  #call<Info>(name: HookName, hook: (info: Info) => unknown, info: Info): unknown {
    this.#count(Counter.HookCalls);
    try {
      return hook(info);
    } catch (cause) {
      throw this.#failed(name, `the ${name} hook threw: ${describe(cause)}`, cause);
    }
  }

  #checked<Verdict>(name: HookName, answer: unknown, table: VerdictTable): Verdict | undefined {
    if (answer === undefined) return undefined;
    const mistake = verdictMistake(answer, table, this.#options.offRamps);
    if (mistake !== null) throw this.#failed(name, `the ${name} hook's verdict ${mistake}`);
    return answer as Verdict;
  }

  #within(name: HookName, answer: PromiseLike<unknown>, table: VerdictTable): Promise<unknown> {
    const { hookMs } = this.#options.limits;
    return new Promise((resolve, reject) => {
      let over = false;
      const timer = setTimeout(() => {
        over = true;
        this.#count(Counter.HookTimeouts);
        const budget = formatDuration(hookMs);
        reject(this.#failed(name, `the ${name} hook did not answer within ${budget} (limits.hook)`));
      }, hookMs);
      answer.then(
        (verdict) => {
          if (over) return;
          clearTimeout(timer);
          try {
            resolve(this.#checked(name, verdict, table));
          } catch (error) {
            reject(error);
          }
        },
        (cause: unknown) => {
          if (over) return;
          clearTimeout(timer);
          reject(this.#failed(name, `the ${name} hook threw: ${describe(cause)}`, cause));
        },
      );
    });
  }

  #callEnd(record: FlowRecord): void {
    this.#count(Counter.HookCalls);
    try {
      this.#hooks.end?.(record);
    } catch (cause) {
      this.#failed('end', `the end hook threw: ${describe(cause)}`, cause);
    }
  }

  /** Counts and reports a failure; the caller throws what it returns. */
  #failed(name: HookName, message: string, cause?: unknown): RampartError {
    this.#count(Counter.HookErrors);
    const error = new RampartError('RAMP_HOOK_FAILED', message, cause === undefined ? {} : { cause });
    this.#options.onFailure?.(name, error);
    return error;
  }

  #count(counter: number): void {
    this.#counters[counter] = (this.#counters[counter] as number) + 1;
  }
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return (
    typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
  );
}

function describe(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
