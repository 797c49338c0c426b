import { type ChildProcess, spawn } from 'node:child_process';
import { release } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { AgentClient } from '#agent/client.ts';
import { RampartError } from '#base/error.ts';
import type { TraceEvent } from '#contract/trace.ts';

import { hasProgram, mayUnshare, type ProgramResult, World } from './world.ts';
import { WorldReport } from './world-report.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const CONFIG = 'examples/world/rampart.yaml';

/** Set in the process that runs inside the user namespace, so that it is entered once only. */
const INSIDE = 'RAMPART_WORLD_INSIDE';

/** How long Rampart may take until it says that it is ready. */
const READY_MS = 15_000;

/** How long after a program's end events of its flow may still come. */
const SETTLE_MS = 250;

/** One thing that the laptop does, and what is expected to come of it. */
interface Step {
  readonly about: string;
  readonly vnet: 'production' | 'staging';
  readonly command: readonly [string, ...string[]];
  readonly input?: string;
  /** Null when the result is as expected, else what is wrong with it. */
  check(result: ProgramResult): string | null;
  /** What a person learns from it. */
  readonly lesson: string;
}

/**
 * `npm start`: brings up a small world of namespaces with real programs in it and a Rampart in the middle,
 * sends live requests, shows each one's way through the layers, and keeps running. With `once` it ends after
 * the requests.
 *
 * @returns the exit code: 0 when everything went as expected.
 */
export async function start(options: { readonly once: boolean }): Promise<number> {
  const report = new WorldReport((text) => process.stdout.write(text), wantsColour());
  const lack = whatIsMissing();
  if (lack !== null) {
    report.line(lack);
    return 1;
  }
  if (process.env[INSIDE] === undefined && !mayUnshare()) return insideUserNamespace(options);
  const world = await World.open();
  let rampart: Rampart | null = null;
  try {
    rampart = await Rampart.start(world);
    await introduce(report, rampart);
    const failures = await runSteps(report, world, rampart);
    report.line();
    report.title(
      failures === 0 ? 'Everything went as it should.' : `${failures} of ${STEPS.length} steps failed.`,
    );
    if (options.once) return failures === 0 ? 0 : 1;
    whatNext(report, world);
    await untilStopped(rampart);
    return 0;
  } catch (error) {
    report.line();
    report.line(`npm start failed: ${(error as Error).message}`);
    return 1;
  } finally {
    await rampart?.stop();
    await world.close();
  }
}

/** The programs that stand for a person at the laptop; null when all are there. */
function whatIsMissing(): string | null {
  const packages: Readonly<Record<string, string>> = {
    curl: 'curl',
    ping: 'iputils-ping',
    unshare: 'util-linux',
  };
  const missing = Object.keys(packages).filter((program) => !hasProgram(program));
  if (missing.length === 0) return null;
  const wanted = missing.map((program) => packages[program]).join(' ');
  return (
    `npm start shows live traffic by ${missing.join(' and ')}, which is not installed; ` +
    `on Debian: apt-get install ${wanted}`
  );
}

function wantsColour(): boolean {
  return process.stdout.isTTY === true && (process.env.NO_COLOR ?? '') === '';
}

/** An ordinary user becomes root of a user namespace, where the whole world then lives. */
function insideUserNamespace(options: { readonly once: boolean }): Promise<number> {
  const args = ['--user', '--map-root-user', '--net', process.execPath, ...process.execArgv];
  const main = join(ROOT, 'src/cli/main.ts');
  const child = spawn('unshare', [...args, main, 'start', ...(options.once ? ['--once'] : [])], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: '1' },
  });
  const forward = (signal: NodeJS.Signals): void => {
    child.kill(signal);
  };
  process.on('SIGINT', () => {});
  process.on('SIGTERM', forward);
  return new Promise((resolve) => {
    child.once('error', () => resolve(1));
    child.once('close', (code) => {
      if (code !== 0 && code !== null) process.exitCode = code;
      resolve(code ?? 1);
    });
  });
}

/**
 * The Rampart in the middle: a process of its own, watched through its control socket as `rampart trace`
 * does.
 */
class Rampart {
  readonly process: ChildProcess;
  readonly agent: AgentClient;
  readonly #events: TraceEvent[] = [];
  #output: string;

  private constructor(child: ChildProcess, agent: AgentClient, output: string) {
    this.process = child;
    this.agent = agent;
    this.#output = output;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#output = (this.#output + chunk.toString('utf8')).slice(-10_000);
    });
  }

  /** Starts `rampart run` with the world's config and waits until it is ready. */
  static async start(world: World): Promise<Rampart> {
    const socket = join(world.folder, 'control.sock');
    const main = join(ROOT, 'src/cli/main.ts');
    const child = spawn(
      process.execPath,
      [...process.execArgv, main, 'run', '-c', join(ROOT, CONFIG), '--socket', socket],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, RAMPART_NETNS_DIR: join(world.folder, 'netns') },
      },
    );
    let output = '';
    const take = (chunk: Buffer): void => {
      output += chunk.toString('utf8');
    };
    child.stdout?.on('data', take);
    child.stderr?.on('data', take);
    const until = Date.now() + READY_MS;
    while (!/\bready\b/.test(output)) {
      if (child.exitCode !== null || Date.now() > until) {
        child.kill('SIGKILL');
        throw new RampartError('RAMP_INTERNAL', `Rampart did not become ready:\n${output.trim()}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    child.stderr?.off('data', take);
    const agent = await AgentClient.connect(socket);
    const rampart = new Rampart(child, agent, output);
    await agent.watch({ filter: {}, events: true, packets: false }, (batch) => {
      rampart.#events.push(...batch.events);
    });
    return rampart;
  }

  /** The events since the last call, in order. */
  takeEvents(): TraceEvent[] {
    return this.#events.splice(0);
  }

  async stop(): Promise<void> {
    this.agent.close();
    if (this.process.exitCode !== null) return;
    const ended = new Promise<void>((resolve) => this.process.once('close', () => resolve()));
    this.process.kill('SIGTERM');
    const timer = setTimeout(() => this.process.kill('SIGKILL'), 3000);
    await ended;
    clearTimeout(timer);
  }
}

async function introduce(report: WorldReport, rampart: Rampart): Promise<void> {
  const status = await rampart.agent.ask('status');
  const who = process.env[INSIDE] === undefined ? 'root' : 'an ordinary user, in a user namespace';
  report.title(`Rampart ${status.version}`);
  report.line(`   io engine ${status.io}, Linux ${release()}, Node ${process.version}, as ${who}`);
  report.line();
  report.line(
    '   Everything below happens in network namespaces of its own; nothing else on this machine is touched.',
  );
  report.line();
  report.line('               ┌─ production ─┐               ┌─ vnet production   10.10.0.10  web, echo');
  report.line('      laptop ──┤              ├── rampart ────┤');
  report.line('               └─ staging ────┘               └─ vnet staging      10.10.0.10  web, echo');
  report.line();
  report.line(`   config ${CONFIG}, hooks examples/world/hooks.ts`);
}

async function runSteps(report: WorldReport, world: World, rampart: Rampart): Promise<number> {
  let failures = 0;
  rampart.takeEvents();
  for (const [index, step] of STEPS.entries()) {
    const [command, ...args] = step.command;
    report.command(index + 1, step.about, quote(step.command));
    const result = await world.run('laptop', command, args, step.input);
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    const wrong = step.check(result);
    if (wrong !== null) failures++;
    report.outcome(result.output, { ok: wrong === null, text: wrong ?? step.lesson });
    const events = rampart.takeEvents().filter((event) => event.vnet === step.vnet);
    report.trace(mainFlow(events));
  }
  return failures;
}

/** The events of the flow that a step was about: the first that came in. */
function mainFlow(events: readonly TraceEvent[]): readonly TraceEvent[] {
  const first = events.find((event) => event.flow !== 0)?.flow;
  return events.filter((event) => event.flow === first || event.flow === 0);
}

function quote(words: readonly string[]): string {
  return words.map((word) => (/^[\w./:@=%-]+$/.test(word) ? word : `'${word}'`)).join(' ');
}

const WEB = 'http://10.10.0.10';
const CURL = ['curl', '-sS', '-m', '5'] as const;

function expectOutput(text: string): (result: ProgramResult) => string | null {
  return ({ output }) => (output.includes(text) ? null : `expected "${text}"`);
}

const STEPS: readonly Step[] = [
  {
    about: 'A page of the web server at 10.10.0.10, in the network production',
    vnet: 'production',
    command: [...CURL, '--interface', 'production', `${WEB}/`],
    check: expectOutput('this is production: hello ada'),
    lesson: 'packets became a TCP stream, the stream became HTTP, and left as packets again',
  },
  {
    about: 'The very same address, in the network staging',
    vnet: 'staging',
    command: [...CURL, '--interface', 'staging', `${WEB}/`],
    check: expectOutput('this is staging: hello ada'),
    lesson: 'another network, another server: an address alone is never a key',
  },
  {
    about: 'A page that the hook `request` blocks by its path',
    vnet: 'production',
    command: [...CURL, '-w', 'HTTP %{http_code}\\n', '--interface', 'production', `${WEB}/admin/users`],
    check: expectOutput('HTTP 403'),
    lesson: 'refused at layer 7, with the reason that the log has too',
  },
  {
    about: 'A port that the hook `flow` refuses',
    vnet: 'production',
    command: [...CURL, '--interface', 'production', 'telnet://10.10.0.10:5432'],
    check: ({ output }) =>
      /refused|Failed to connect/i.test(output) ? null : 'expected a refused connection',
    lesson: 'refused at layer 4 on the first packet: the server has seen nothing, not even a SYN',
  },
  {
    about: 'An ICMP echo',
    vnet: 'staging',
    command: ['ping', '-c', '1', '-W', '3', '-I', 'staging', '10.10.0.10'],
    check: expectOutput('1 received'),
    lesson: 'stays at layer 3: forwarded from tunnel to tunnel',
  },
  {
    about: 'The echo service, which does not speak HTTP',
    vnet: 'staging',
    command: ['curl', '-s', '-m', '1', '--interface', 'staging', 'telnet://10.10.0.10:7'],
    input: 'hello, echo\n',
    check: expectOutput('hello, echo'),
    lesson: 'a TCP stream, spliced as it is',
  },
];

function whatNext(report: WorldReport, world: World): void {
  const socket = join(world.folder, 'control.sock');
  const enter = `nsenter --net=${join(world.folder, 'netns/laptop')}`;
  report.line();
  report.title('It keeps running. In another terminal:');
  report.line(`   bin/rampart.mjs trace --socket ${socket}`);
  report.line(`   bin/rampart.mjs top --socket ${socket}`);
  report.line(`   bin/rampart.mjs explain -c ${CONFIG} 100.64.0.1 10.10.0.10:5432`);
  if (process.env[INSIDE] === undefined) report.line(`   ${enter} curl --interface staging ${WEB}/`);
  report.line();
  report.line(`   Change examples/world/hooks.ts or ${CONFIG} and start again. Ctrl-C ends it.`);
}

function untilStopped(rampart: Rampart): Promise<void> {
  return new Promise((resolve) => {
    process.once('SIGINT', () => resolve());
    process.once('SIGTERM', () => resolve());
    rampart.process.once('close', () => resolve());
  });
}
