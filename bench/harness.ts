/**
 * What every benchmark needs: start a program, read the CPU time of all its threads from /proc, run
 * contenders in turn, take medians, print a table or one JSON object.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { cpus, release, totalmem } from 'node:os';

/** What a benchmark yields: CPU per unit of work, lower is better, unless `higherIsBetter`. */
export interface BenchResult {
  readonly name: string;
  readonly unit: string;
  readonly conditions: string;
  readonly rampart: number;
  readonly peers: Readonly<Record<string, number>>;
  /** rampart / peer. */
  readonly ratio: Readonly<Record<string, number>>;
  /** Throughput beside it, per contender, with its unit. */
  readonly throughput?: { readonly unit: string; readonly values: Readonly<Record<string, number>> };
  readonly higherIsBetter?: boolean;
}

/** One round of one contender. */
export interface Sample {
  /** The measured value, in the benchmark's unit. */
  readonly value: number;
  readonly throughput: number;
}

/** A benchmark: says what it needs and lacks, then runs. */
export interface Benchmark {
  readonly name: string;
  /** One line for a person. */
  readonly about: string;
  /** Programs that must be on the PATH. */
  readonly needs: readonly string[];
  readonly needsRoot?: boolean;
  run(options: BenchOptions): Promise<readonly BenchResult[]>;
}

export interface BenchOptions {
  readonly rounds: number;
  /** Seconds of load per round and contender. */
  readonly seconds: number;
  /** Progress lines; nothing with --json. */
  readonly say: (line: string) => void;
}

/** USER_HZ of every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** CPU seconds used so far by a process, all its threads, and by its living and reaped children. */
export function cpuSeconds(pid: number): number {
  let total = 0;
  for (const each of processTree(pid)) {
    try {
      const stat = readFileSync(`/proc/${each}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      total += Number(fields[11]) + Number(fields[12]) + Number(fields[13]) + Number(fields[14]);
    } catch {
      // Gone meanwhile: what it used is in its parent's count of reaped children.
    }
  }
  return total / TICKS_PER_SECOND;
}

/** Resident set of a process and its children, bytes. */
export function residentBytes(pid: number): number {
  let total = 0;
  for (const each of processTree(pid)) {
    const match = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${each}/status`, 'utf8'));
    total += Number(match?.[1] ?? 0) * 1024;
  }
  return total;
}

function processTree(pid: number): number[] {
  const found = [pid];
  for (let i = 0; i < found.length; i++) {
    try {
      for (const task of readdirSync(`/proc/${found[i]}/task`)) {
        const children = readFileSync(`/proc/${found[i]}/task/${task}/children`, 'utf8');
        for (const child of children.split(' ')) if (child !== '') found.push(Number(child));
      }
    } catch {
      // A process that ended meanwhile has no children.
    }
  }
  return found;
}

/** A program under measurement or a helper of it. */
export interface Running {
  readonly pid: number;
  readonly child: ChildProcess;
  /** What it wrote so far, both streams. */
  output(): string;
  stop(): Promise<void>;
}

/** Programs started and not yet stopped, ended when the benchmark process ends for whatever reason. */
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts a program, optionally pinned to one CPU. */
export function start(
  command: string,
  args: readonly string[],
  options: { cpu?: number; env?: Record<string, string>; cwd?: string } = {},
): Running {
  const pin = options.cpu === undefined ? [] : ['taskset', '-c', String(options.cpu)];
  const line = [...pin, command, ...args];
  const child = spawn(line[0] as string, line.slice(1), {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  running.add(child);
  let text = '';
  const take = (chunk: Buffer): void => {
    text = (text + chunk.toString('utf8')).slice(-100_000);
  };
  child.stdout.on('data', take);
  child.stderr.on('data', take);
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => {
      running.delete(child);
      resolve();
    });
    child.once('error', () => resolve());
  });
  return {
    pid: child.pid as number,
    child,
    output: () => text,
    async stop() {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 3000);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** Runs a program to its end and gives its output; throws with the output when it fails. */
export async function runToEnd(
  command: string,
  args: readonly string[],
  options: { cpu?: number; timeoutMs?: number } = {},
): Promise<string> {
  const program = start(command, args, options);
  const timer = setTimeout(() => program.child.kill('SIGKILL'), options.timeoutMs ?? 60_000);
  const code = await new Promise<number | null>((resolve) => program.child.once('close', resolve));
  clearTimeout(timer);
  if (code !== 0) throw new Error(`${command} ended with ${code}:\n${program.output().slice(-2000)}`);
  return program.output();
}

/** Waits until something accepts at the port; throws after ten seconds. */
export async function waitForPort(port: number, host = '127.0.0.1'): Promise<void> {
  const until = Date.now() + 10_000;
  for (;;) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = createConnection({ port, host });
      socket.once('connect', () => {
        socket.destroy();
        resolve(true);
      });
      socket.once('error', () => resolve(false));
    });
    if (open) return;
    if (Date.now() > until) throw new Error(`nothing listens at ${host}:${port} after ten seconds`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A TCP port that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

/** What a benchmark lacks on this machine, as one line; null when it can run. */
export function lacking(benchmark: Benchmark): string | null {
  const missing = benchmark.needs.filter((program) => !onPath(program));
  if (missing.length > 0)
    return `${benchmark.name}: needs ${missing.join(', ')} (Debian packages of that name)`;
  if (benchmark.needsRoot === true && process.getuid?.() !== 0) return `${benchmark.name}: needs root`;
  return null;
}

function onPath(program: string): boolean {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
  return folders.some((folder) => existsSync(`${folder}/${program}`));
}

/** The middle of the sorted values. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] as number)) / 2;
}

/** Runs the contenders in turn for each round and puts the medians together. `rampart` must be among them. */
export async function compare(
  options: BenchOptions,
  spec: {
    name: string;
    unit: string;
    conditions: string;
    throughputUnit?: string;
    higherIsBetter?: boolean;
    contenders: Readonly<Record<string, () => Promise<Sample>>>;
  },
): Promise<BenchResult> {
  const samples = new Map<string, Sample[]>();
  for (let round = 0; round < options.rounds; round++) {
    for (const [contender, measure] of Object.entries(spec.contenders)) {
      const sample = await measure();
      const list = samples.get(contender) ?? [];
      list.push(sample);
      samples.set(contender, list);
      options.say(
        `  ${spec.name} round ${round + 1} ${contender}: ${sample.value.toPrecision(4)} ${spec.unit}` +
          (spec.throughputUnit === undefined
            ? ''
            : ` at ${sample.throughput.toPrecision(4)} ${spec.throughputUnit}`),
      );
    }
  }
  const value = (who: string): number => median((samples.get(who) as Sample[]).map((sample) => sample.value));
  const names = Object.keys(spec.contenders);
  const peers = names.filter((who) => who !== 'rampart');
  const rampart = value('rampart');
  return {
    name: spec.name,
    unit: spec.unit,
    conditions: spec.conditions,
    rampart,
    peers: Object.fromEntries(peers.map((peer) => [peer, value(peer)])),
    ratio: Object.fromEntries(peers.map((peer) => [peer, rampart / value(peer)])),
    ...(spec.throughputUnit === undefined
      ? {}
      : {
          throughput: {
            unit: spec.throughputUnit,
            values: Object.fromEntries(
              names.map((who) => [
                who,
                median((samples.get(who) as Sample[]).map((sample) => sample.throughput)),
              ]),
            ),
          },
        }),
    ...(spec.higherIsBetter === true ? { higherIsBetter: true } : {}),
  };
}

/** The machine in one line, for results. */
export function machine(): string {
  const cpu = cpus();
  const processor = `${cpu.length} × ${cpu[0]?.model.trim()}`;
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
  return `${processor}, ${memory}, Linux ${release()}, Node ${process.version}`;
}

/** First line of what `command --version` (or `args`) prints. */
export function versionOf(command: string, args: readonly string[] = ['--version']): string {
  const result = spawnSync(command, args, { encoding: 'utf8' });
  return `${result.stdout ?? ''}${result.stderr ?? ''}`.split('\n')[0]?.trim() ?? 'unknown';
}
