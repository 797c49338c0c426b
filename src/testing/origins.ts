import { fileURLToPath } from 'node:url';

import type { Hosts } from './hosts.ts';
import { NODE_FLAGS, Program } from './program.ts';

/** What an origin serves; `origin-program.ts` says what each does. */
export type OriginService = 'http' | 'echo' | 'datagrams' | 'greeting' | 'sink' | 'source';

/** A service and its port; 0 lets the kernel choose. */
export type ServicePort = `${OriginService}@${number}`;

/** A server program that tells its name in everything that it answers. */
export class Origin {
  readonly program: Program;
  /** By service: the ports that it listens on. */
  readonly ports: Readonly<Record<OriginService, number>>;

  private constructor(program: Program, ports: Readonly<Record<OriginService, number>>) {
    this.program = program;
    this.ports = ports;
  }

  /**
   * Starts it on a host, or where the test runs, and waits until it listens on all addresses of both
   * families.
   */
  static async start(
    name: string,
    services: readonly ServicePort[],
    place?: { readonly hosts: Hosts; readonly on: string },
  ): Promise<Origin> {
    const file = fileURLToPath(new URL('origin-program.ts', import.meta.url));
    const program =
      place === undefined
        ? new Program(process.execPath, [...NODE_FLAGS, file, name, ...services])
        : place.hosts.startScript(place.on, file, [name, ...services]);
    const [, ports] = await program.says(/^ready (.*)$/m);
    return new Origin(program, JSON.parse(ports as string) as Record<OriginService, number>);
  }

  async stop(): Promise<void> {
    await this.program.stop();
  }
}
