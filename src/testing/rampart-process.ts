import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { AgentClient } from '#agent/client.ts';
import type { AgentStats, FlowSummary } from '#contract/agent.ts';
import type { TraceEvent } from '#contract/trace.ts';

import type { Hosts } from './hosts.ts';
import { NODE_FLAGS, Program, type ProgramResult, ROOT } from './program.ts';
import { Hopeless, until } from './until.ts';

/** What a Rampart under test is started with. */
export interface RampartOptions {
  /**
   * The config's text, or with `file` the path of one. Relative paths in a text start from its own new
   * folder.
   */
  readonly config?: string;
  readonly file?: string;
  /** Further files beside a config given as text, by name: hooks. */
  readonly files?: Readonly<Record<string, string>>;
  /** Hosts that `namespace:` in the config names. */
  readonly hosts?: Hosts;
  /** Runs Rampart itself on this one of the hosts. Default: where the test runs. */
  readonly on?: string;
  /** Default: what RAMPART_IO says, or the best. */
  readonly io?: 'uring' | 'epoll' | undefined;
  /** Most descriptors of the process (`ulimit -n`). */
  readonly descriptorsMax?: number;
  readonly env?: Readonly<Record<string, string>>;
}

/** A Rampart process of its own, and its control socket. */
export class RampartProcess {
  /** Folder of the config, when that was given as text, and of the control socket. Goes with `stop`. */
  readonly folder: string;
  readonly socket: string;
  readonly program: Program;
  #agent: AgentClient | null = null;

  private constructor(folder: string, program: Program) {
    this.folder = folder;
    this.socket = join(folder, 'control.sock');
    this.program = program;
  }

  /**
   * Starts it and waits until all its ways in are open. @throws Error with its log when it does not come up.
   */
  static async start(options: RampartOptions): Promise<RampartProcess> {
    const rampart = RampartProcess.launch(options);
    try {
      await rampart.#ready();
    } catch (error) {
      await rampart.program.stop('SIGKILL');
      rmSync(rampart.folder, { recursive: true, force: true });
      throw error;
    }
    return rampart;
  }

  /** Starts it without waiting: for those that are expected not to come up. */
  static launch(options: RampartOptions): RampartProcess {
    const folder = mkdtempSync(join(tmpdir(), 'rampart-test-'));
    for (const [name, text] of Object.entries(options.files ?? {})) writeFileSync(join(folder, name), text);
    const file = options.file ?? join(folder, 'rampart.yaml');
    if (options.config !== undefined) writeFileSync(file, options.config);
    const main = join(ROOT, 'src/cli/main.ts');
    const run = [main, 'run', '-c', file, '--socket', join(folder, 'control.sock')];
    const line = [process.execPath, ...NODE_FLAGS, ...run];
    // A shell sets the limit and becomes Node, so the process id stays the same.
    const limit = `ulimit -n ${options.descriptorsMax} && exec "$@"`;
    const words = options.descriptorsMax === undefined ? line : ['sh', '-c', limit, 'sh', ...line];
    const env = {
      ...options.env,
      ...(options.hosts === undefined ? {} : { RAMPART_NETNS_DIR: options.hosts.netns }),
      ...(options.io === undefined ? {} : { RAMPART_IO: options.io }),
    };
    const [command, ...args] = words as [string, ...string[]];
    const program =
      options.hosts !== undefined && options.on !== undefined
        ? options.hosts.start(options.on, command, args, { env })
        : new Program(command, args, { env });
    return new RampartProcess(folder, program);
  }

  /** Everything that it wrote so far. */
  get log(): string {
    return this.program.output + this.program.errors;
  }

  /** The connection to its control socket. */
  async agent(): Promise<AgentClient> {
    this.#agent ??= await AgentClient.connect(this.socket);
    return this.#agent;
  }

  /** Its counters. */
  async stats(): Promise<AgentStats> {
    return (await this.agent()).ask('stats');
  }

  /** How often something was dropped for a reason, by the reason's name. */
  async drops(reason: string): Promise<number> {
    return (await this.stats()).drops[reason] ?? 0;
  }

  /** Where an on-ramp listens, as its status says: the port is the kernel's choice when the config says 0. */
  async where(onRamp: string): Promise<string> {
    const status = await (await this.agent()).ask('status');
    const found = status.onRamps.find((ramp) => ramp.name === onRamp);
    if (found === undefined) throw new Error(`there is no on-ramp ${onRamp}`);
    return found.where;
  }

  /** The port of an on-ramp that listens on one. */
  async port(onRamp: string): Promise<number> {
    const where = await this.where(onRamp);
    const port = Number(/:(\d+)\b/.exec(where.replace(/^.*\]/, ''))?.[1]);
    if (!(port > 0)) throw new Error(`${onRamp} names no port: ${where}`);
    return port;
  }

  /** Its live flows. */
  async flows(): Promise<readonly FlowSummary[]> {
    return (await this.agent()).ask('flows', { limit: 100_000 });
  }

  /** Collects the live trace from here on; the list grows. */
  async trace(): Promise<readonly TraceEvent[]> {
    const events: TraceEvent[] = [];
    const agent = await AgentClient.connect(this.socket);
    await agent.watch({ filter: {}, events: true, packets: false }, (batch) => {
      events.push(...batch.events);
    });
    return events;
  }

  /** Descriptors that the process has open. */
  get descriptors(): number {
    return readdirSync(`/proc/${this.program.pid}/fd`).length;
  }

  /**
   * Waits until the process has no more descriptors than `before`, plus what it may keep: idle upstream
   * connections, sockets and pipes in stock. @throws Error with what is open.
   */
  async descriptorsBackTo(before: number, kept = 0): Promise<void> {
    try {
      await until('descriptors are given back', () => this.descriptors <= before + kept);
    } catch (cause) {
      const flows = await this.flows();
      const text = `${this.descriptors} descriptors are open, ${before} were before; ${flows.length} flows`;
      throw new Error(text, { cause });
    }
  }

  /**
   * Ends it as a service manager does. @throws Error with its log unless it ends by itself with exit code 0.
   */
  async stop(): Promise<ProgramResult> {
    this.#agent?.close();
    const wasRunning = this.program.isRunning;
    const result = await this.program.stop('SIGTERM');
    rmSync(this.folder, { recursive: true, force: true });
    if (!wasRunning || result.code !== 0) {
      const how = wasRunning ? `ended with ${result.code}` : `had ended before with ${result.code}`;
      throw new Error(`Rampart ${how}:\n${this.log.slice(-10_000)}`);
    }
    return result;
  }

  async #ready(): Promise<void> {
    try {
      await until('Rampart is ready', () => {
        if (!this.program.isRunning) throw new Hopeless('it has ended');
        return /\bready\b/.test(this.log);
      });
    } catch (cause) {
      throw new Error(`Rampart did not become ready:\n${this.log.slice(-10_000)}`, { cause });
    }
  }
}
