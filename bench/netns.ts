/**
 * Hosts for benchmarks: network namespaces with devices between them, gone when the process ends. Needs root.
 */
import { spawnSync } from 'node:child_process';

import { type Running, runToEnd, start } from './harness.ts';

let counter = 0;
const made: string[] = [];
process.on('exit', () => {
  for (const name of made) spawnSync('ip', ['netns', 'delete', name]);
});

/** Runs one `ip`, `sysctl` or `nft` command line; throws with its output when it fails. */
export function sh(line: string, input?: string): string {
  const [command, ...args] = line.split(' ') as [string, ...string[]];
  const result = spawnSync(command, args, { encoding: 'utf8', ...(input === undefined ? {} : { input }) });
  if (result.status !== 0) throw new Error(`${line}: ${result.stderr}${result.stdout}`);
  return result.stdout;
}

/** One host. */
export class Host {
  /** Name below /run/netns. */
  readonly name: string;

  constructor(role: string) {
    this.name = `rb-${process.pid}-${counter++}-${role}`;
    sh(`ip netns add ${this.name}`);
    made.push(this.name);
    this.sh('ip link set lo up');
  }

  sh(line: string, input?: string): string {
    return sh(`ip netns exec ${this.name} ${line}`, input);
  }

  start(
    command: string,
    args: readonly string[],
    options: { cpu?: number; env?: Record<string, string> } = {},
  ): Running {
    return start('ip', ['netns', 'exec', this.name, command, ...args], options);
  }

  run(command: string, args: readonly string[], options: { cpu?: number; timeoutMs?: number } = {}) {
    return runToEnd('ip', ['netns', 'exec', this.name, command, ...args], options);
  }

  close(): void {
    spawnSync('ip', ['netns', 'delete', this.name]);
    made.splice(made.indexOf(this.name), 1);
  }
}

/** A wire between two hosts: `device` on either side, with the addresses given (CIDR). */
export function wire(
  a: Host,
  b: Host,
  options: { deviceA: string; deviceB: string; addressA: string; addressB: string; mtu: number },
): void {
  const { deviceA, deviceB, addressA, addressB, mtu } = options;
  const peer = `type veth peer name ${deviceB} netns ${b.name} mtu ${mtu}`;
  sh(`ip link add ${deviceA} netns ${a.name} mtu ${mtu} ${peer}`);
  a.sh(`ip addr add ${addressA} dev ${deviceA}`);
  b.sh(`ip addr add ${addressB} dev ${deviceB}`);
  a.sh(`ip link set ${deviceA} up`);
  b.sh(`ip link set ${deviceB} up`);
}

/** Result of one iperf3 run. */
export interface Iperf {
  readonly gbps: number;
  readonly bytes: number;
  /** Datagrams that arrived per second, for UDP. */
  readonly packetsPerSecond: number;
}

/** Runs an iperf3 client on `host` against an address; `args` such as `-R` or `-u`. */
export async function iperf(
  host: Host,
  options: { to: string; port: number; seconds: number; args?: readonly string[]; cpu?: number },
): Promise<Iperf> {
  const { to, port, seconds, args = [] } = options;
  const line = ['-c', to, '-p', String(port), '-t', String(seconds), '-J', ...args];
  const end = await iperfEnd(host, line, { seconds, cpu: options.cpu });
  const received = end.sum_received ?? end.sum;
  const datagrams = end.sum?.packets === undefined ? 0 : end.sum.packets - end.sum.lost_packets;
  return {
    gbps: received.bits_per_second / 1e9,
    bytes: received.bytes,
    packetsPerSecond: datagrams / seconds,
  };
}

/**
 * The server takes one client at a time and may still be busy with the last one: then the client tries again.
 */
async function iperfEnd(
  host: Host,
  line: readonly string[],
  options: { seconds: number; cpu: number | undefined },
  // biome-ignore lint/suspicious/noExplicitAny: iperf3's own JSON
): Promise<any> {
  for (let attempt = 1; ; attempt++) {
    try {
      const text = await host.run('iperf3', line, {
        timeoutMs: (options.seconds + 20) * 1000,
        ...(options.cpu === undefined ? {} : { cpu: options.cpu }),
      });
      const parsed = JSON.parse(text);
      if (parsed.error === undefined) return parsed.end;
      throw new Error(parsed.error);
    } catch (error) {
      if (attempt === 4) throw error;
      await new Promise((resolve) => setTimeout(resolve, 300 * attempt));
    }
  }
}
