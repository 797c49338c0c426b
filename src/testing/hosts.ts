import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { openPrivateNamespace, type PrivateNamespace } from '#io/namespace.ts';
import { threadModeError } from '#io/namespace-thread.ts';

import { NODE_FLAGS, Program, type ProgramOptions, type ProgramResult, runProgram } from './program.ts';

/**
 * False when this process may make hosts; else why a test that needs them skips. An ordinary user runs such
 * tests as root of a user namespace: `unshare -Urn npm test`.
 */
export function lacksHosts(): string | false {
  const error = threadModeError();
  return error === null ? false : `needs root or a user namespace (unshare -Urn): ${error.message}`;
}

/** Some hosts, each a network namespace of its own, reachable by a config's `namespace:` through `netns`. */
export class Hosts {
  /** Folder with a link per host: what RAMPART_NETNS_DIR is set to. */
  readonly netns: string;
  readonly #folder: string;
  readonly #namespaces: ReadonlyMap<string, PrivateNamespace>;
  readonly #programs = new Set<Program>();

  private constructor(folder: string, namespaces: ReadonlyMap<string, PrivateNamespace>) {
    this.#folder = folder;
    this.netns = join(folder, 'netns');
    this.#namespaces = namespaces;
  }

  /** Makes hosts by these names, each with its loopback up and nothing else. */
  static async open(names: readonly string[]): Promise<Hosts> {
    const folder = mkdtempSync(join(tmpdir(), 'rampart-hosts-'));
    mkdirSync(join(folder, 'netns'));
    const namespaces = new Map<string, PrivateNamespace>();
    for (const name of names) {
      const namespace = await openPrivateNamespace({ mode: 'thread', stock: {} });
      namespaces.set(name, namespace);
      symlinkSync(namespace.path, join(folder, 'netns', name));
    }
    return new Hosts(folder, namespaces);
  }

  /** Starts a program on a host. It ends with the hosts at the latest. */
  start(host: string, command: string, args: readonly string[], options: ProgramOptions = {}): Program {
    const program = new Program(command, args, { ...options, spawn: this.#spawnOn(host) });
    this.#programs.add(program);
    void program.ended.then(() => this.#programs.delete(program));
    return program;
  }

  /** Starts a TypeScript program on a host. */
  startScript(host: string, file: string, args: readonly string[], options: ProgramOptions = {}): Program {
    return this.start(host, process.execPath, [...NODE_FLAGS, file, ...args], options);
  }

  /** Runs a program on a host to its end. */
  run(
    host: string,
    command: string,
    args: readonly string[],
    options: ProgramOptions & { readonly patienceMs?: number } = {},
  ): Promise<ProgramResult> {
    return runProgram(command, args, { ...options, spawn: this.#spawnOn(host) });
  }

  /** Runs one line of `ip` or the like. @throws Error with its output when it fails. */
  async sh(host: string, line: string): Promise<string> {
    const [command, ...args] = line.split(' ') as [string, ...string[]];
    const result = await this.run(host, command, args);
    if (result.code !== 0) throw new Error(`${line} on ${host}: ${result.output}${result.errors}`);
    return result.output;
  }

  /** Does something synchronous on a host, such as opening a socket there. */
  within<T>(host: string, work: () => T): T {
    return this.#namespaceOf(host).run(work);
  }

  /** Ends all programs and takes the hosts away. */
  async close(): Promise<void> {
    await Promise.all([...this.#programs].map((program) => program.stop('SIGKILL')));
    for (const namespace of this.#namespaces.values()) await namespace.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #spawnOn(host: string): NonNullable<ProgramOptions['spawn']> {
    const namespace = this.#namespaceOf(host);
    return (command, args, options) => namespace.spawn(command, args, options);
  }

  #namespaceOf(host: string): PrivateNamespace {
    const namespace = this.#namespaces.get(host);
    if (namespace === undefined) throw new Error(`there is no host ${host}`);
    return namespace;
  }
}
