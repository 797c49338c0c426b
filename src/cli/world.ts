import { type ChildProcess, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { RampartError } from '#base/error.ts';
import { openPrivateNamespace, type PrivateNamespace } from '#io/namespace.ts';

/** Hosts of the world, each a network namespace. */
export const HOSTS = Object.freeze(['laptop', 'production', 'staging'] as const);

/** One of the hosts. */
export type Host = (typeof HOSTS)[number];

/** What a program of the world wrote, and how it ended. */
export interface ProgramResult {
  readonly code: number | null;
  readonly output: string;
}

/** How long a program of the world may take to start or to answer. */
const PROGRAM_MS = 10_000;

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** A small world of namespaces with real programs in it. Everything goes with `close`. */
export class World {
  /** Folder with `netns/HOST` (links to the namespaces) and the control socket. */
  readonly folder: string;
  readonly #hosts: ReadonlyMap<Host, PrivateNamespace>;
  readonly #programs = new Set<ChildProcess>();

  private constructor(folder: string, hosts: ReadonlyMap<Host, PrivateNamespace>) {
    this.folder = folder;
    this.#hosts = hosts;
  }

  /** Makes the hosts and starts the private networks' services. @throws RampartError */
  static async open(): Promise<World> {
    const folder = mkdtempSync(join(tmpdir(), 'rampart-world-'));
    mkdirSync(join(folder, 'netns'));
    const hosts = new Map<Host, PrivateNamespace>();
    for (const host of HOSTS) {
      const namespace = await openPrivateNamespace({ stock: {} });
      hosts.set(host, namespace);
      // What `path` names is reached through this process, so it is there for as long as the world is.
      symlinkSync(
        namespace.path.replace('/proc/self/', `/proc/${process.pid}/`),
        join(folder, 'netns', host),
      );
    }
    const world = new World(folder, hosts);
    try {
      await Promise.all([world.#service('production'), world.#service('staging')]);
    } catch (error) {
      await world.close();
      throw error;
    }
    return world;
  }

  /** Runs a program on a host to its end. */
  run(host: Host, command: string, args: readonly string[], input = ''): Promise<ProgramResult> {
    const child = this.#start(host, command, args, ['pipe', 'pipe', 'pipe']);
    let output = '';
    const take = (chunk: Buffer): void => {
      output += chunk.toString('utf8');
    };
    child.stdout?.on('data', take);
    child.stderr?.on('data', take);
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
    const timer = setTimeout(() => child.kill('SIGKILL'), PROGRAM_MS);
    return new Promise((resolve) => {
      child.once('error', (error) => resolve({ code: null, output: error.message }));
      child.once('close', (code) => {
        clearTimeout(timer);
        resolve({ code, output });
      });
    });
  }

  /** Ends all programs and takes the namespaces away. */
  async close(): Promise<void> {
    const ends = [...this.#programs].map(
      (child) => new Promise<void>((resolve) => child.once('close', () => resolve())),
    );
    for (const child of this.#programs) child.kill('SIGTERM');
    await Promise.race([Promise.all(ends), new Promise((resolve) => setTimeout(resolve, 2000))]);
    for (const namespace of this.#hosts.values()) await namespace.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  #start(host: Host, command: string, args: readonly string[], stdio: 'pipe'[]): ChildProcess {
    const namespace = this.#hosts.get(host) as PrivateNamespace;
    const child = namespace.spawn(command, args, { stdio });
    this.#programs.add(child);
    child.once('close', () => this.#programs.delete(child));
    child.once('error', () => this.#programs.delete(child));
    return child;
  }

  /** Starts a network's web server and echo service and waits until they listen. */
  #service(host: Host): Promise<void> {
    const program = join(ROOT, 'examples/world/service.ts');
    const args = ['--disable-warning=ExperimentalWarning', program, host];
    const child = this.#start(host, process.execPath, args, ['pipe', 'pipe', 'pipe']);
    return new Promise((resolve, reject) => {
      let text = '';
      const fail = (why: string): void => {
        reject(new RampartError('RAMP_INTERNAL', `the services of ${host} did not start: ${why} ${text}`));
      };
      const timer = setTimeout(() => fail('timed out'), PROGRAM_MS);
      child.stderr?.on('data', (chunk: Buffer) => {
        text += chunk.toString('utf8');
      });
      child.once('close', () => fail('ended'));
      child.stdout?.on('data', (chunk: Buffer) => {
        if (!chunk.toString('utf8').includes('ready')) return;
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

/** True when the program is on the PATH or where administrators' programs are. */
export function hasProgram(name: string): boolean {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
  return folders.some((folder) => folder !== '' && existsSync(join(folder, name)));
}

/** True when this process may make namespaces without a user namespace of its own. */
export function mayUnshare(): boolean {
  return spawnSync('unshare', ['--net', 'true'], { stdio: 'ignore' }).status === 0;
}
