import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Hopeless, PATIENCE_MS, until } from './until.ts';

/** The folder that holds package.json. */
export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Flags of every Node process that a test starts. */
export const NODE_FLAGS: readonly string[] = ['--disable-warning=ExperimentalWarning'];

/** Most that is kept of what a program writes, characters. */
const OUTPUT_MAX = 4 * 1024 * 1024;

/** How a program ended. */
export interface ProgramResult {
  /** Null when a signal ended it or it could not be started. */
  readonly code: number | null;
  /** Standard output. */
  readonly output: string;
  /** Standard error. */
  readonly errors: string;
}

/** What a program is started with. */
export interface ProgramOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Written to standard input, which is then closed. */
  readonly input?: string | Uint8Array;
  /** Starts the child; default `child_process.spawn`. */
  readonly spawn?: (command: string, args: readonly string[], options: SpawnOptions) => ChildProcess;
  readonly uid?: number;
  readonly gid?: number;
}

/** All programs that run, so that none outlives the test process. */
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A program that runs. */
export class Program {
  readonly child: ChildProcess;
  /** Settles when it has ended and its output is complete. Never rejects. */
  readonly ended: Promise<ProgramResult>;
  readonly #name: string;
  #output = '';
  #errors = '';

  constructor(command: string, args: readonly string[], options: ProgramOptions = {}) {
    this.#name = [command, ...args].join(' ');
    const start = options.spawn ?? spawn;
    const child = start(command, [...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.uid === undefined ? {} : { uid: options.uid }),
      ...(options.gid === undefined ? {} : { gid: options.gid }),
    });
    this.child = child;
    running.add(child);
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#output = (this.#output + text).slice(-OUTPUT_MAX);
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(-OUTPUT_MAX);
    });
    child.stdin?.on('error', () => {});
    child.stdin?.end(options.input);
    this.ended = new Promise((resolve) => {
      child.once('error', (error) => {
        running.delete(child);
        resolve({ code: null, output: this.#output, errors: `${this.#errors}${error.message}` });
      });
      child.once('close', (code) => {
        running.delete(child);
        resolve({ code, output: this.#output, errors: this.#errors });
      });
    });
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** What it wrote to standard output so far. */
  get output(): string {
    return this.#output;
  }

  /** What it wrote to standard error so far. */
  get errors(): string {
    return this.#errors;
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /**
   * Waits until standard output has `pattern`. @throws Error with what it wrote, when it ends or takes too
   * long.
   */
  async says(pattern: RegExp): Promise<RegExpMatchArray> {
    try {
      return await until(`${this.#name} writes ${pattern}`, () => {
        const match = this.#output.match(pattern);
        if (match === null && !this.isRunning) throw new Hopeless('it has ended');
        return match;
      });
    } catch (cause) {
      throw new Error(`${this.#name}\n${this.#output}${this.#errors}`, { cause });
    }
  }

  /** Asks it to end, and makes it when it does not. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', patienceMs = PATIENCE_MS): Promise<ProgramResult> {
    this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), patienceMs);
    const result = await this.ended;
    clearTimeout(timer);
    return result;
  }
}

/** Runs a program to its end; it is killed after `patienceMs`, and then has no code. */
export async function runProgram(
  command: string,
  args: readonly string[],
  options: ProgramOptions & { readonly patienceMs?: number } = {},
): Promise<ProgramResult> {
  const program = new Program(command, args, options);
  const timer = setTimeout(() => program.child.kill('SIGKILL'), options.patienceMs ?? PATIENCE_MS);
  const result = await program.ended;
  clearTimeout(timer);
  return result;
}

/** False when all programs are installed; else why a test that needs them skips. */
export function lacksPrograms(...names: readonly string[]): string | false {
  const missing = names.filter((name) => !isInstalled(name));
  return missing.length === 0 ? false : `needs ${missing.join(', ')}, which is not installed`;
}

function isInstalled(name: string): boolean {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
  return folders.some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return folder !== '';
    } catch {
      return false;
    }
  });
}
