import {
  type BenchOptions,
  type Benchmark,
  type BenchResult,
  compare,
  cpuSeconds,
  type Running,
} from './harness.ts';
import { Host, iperf, wire } from './netns.ts';
import { LOAD_CPU, PROXY_CPU, rampart, scratch } from './peers.ts';

const MTU = 1500;
const PORT = 5201;

export const benchmark: Benchmark = {
  name: 'ip',
  about: 'IP tunnel to IP tunnel at MTU 1500, against a plain kernel route between the same hosts',
  needs: ['ip', 'iperf3', 'taskset'],
  needsRoot: true,
  async run(options) {
    const route = kernelRoute();
    const direct = await rampartRoute('tun');
    const results: BenchResult[] = [];
    try {
      results.push(await bulk(options, 'ip', { rampart: direct, 'kernel route': route }));
      results.push(await small(options, { rampart: direct, 'kernel route': route }));
      for (const kind of ['seqpacket', 'gue'] as const) {
        const chain = await rampartRoute(kind);
        try {
          results.push(await bulk(options, `ip through ${kind}`, { rampart: chain, 'kernel route': route }));
        } finally {
          await chain.close();
        }
      }
      return results;
    } finally {
      await direct.close();
      await route.close();
    }
  },
};

/** A way from a client host to a server host. */
interface Way {
  readonly client: Host;
  readonly to: string;
  /** Programs whose CPU counts; none for the kernel. */
  readonly programs: readonly Running[];
  close(): Promise<void>;
}

function bulk(options: BenchOptions, name: string, ways: Record<string, Way>): Promise<BenchResult> {
  return compare(options, {
    name,
    unit: 'Gb/s',
    conditions: `TCP bulk, one stream, MTU ${MTU}, ${options.seconds} s, median of ${options.rounds}`,
    throughputUnit: 'CPU s/GB of the process',
    higherIsBetter: true,
    contenders: contenders(ways, async (way) => {
      const before = cpu(way);
      const { gbps, bytes } = await iperf(way.client, { to: way.to, port: PORT, seconds: options.seconds });
      return { value: gbps, throughput: (cpu(way) - before) / (bytes / 1e9) };
    }),
  });
}

function small(options: BenchOptions, ways: Record<string, Way>): Promise<BenchResult> {
  return compare(options, {
    name: 'ip 64-byte UDP',
    unit: 'packets/s',
    conditions: `UDP datagrams of 64 bytes that arrived, ${options.seconds} s, median of ${options.rounds}`,
    throughputUnit: 'µs CPU/packet of the process',
    higherIsBetter: true,
    contenders: contenders(ways, async (way) => {
      const before = cpu(way);
      const args = ['-u', '-b', '0', '-l', '64'];
      const { packetsPerSecond } = await iperf(way.client, {
        to: way.to,
        port: PORT,
        seconds: options.seconds,
        args,
      });
      const used = cpu(way) - before;
      return { value: packetsPerSecond, throughput: (used * 1e6) / (packetsPerSecond * options.seconds) };
    }),
  });
}

function contenders(
  ways: Record<string, Way>,
  measure: (way: Way) => Promise<{ value: number; throughput: number }>,
): Record<string, () => Promise<{ value: number; throughput: number }>> {
  return Object.fromEntries(Object.entries(ways).map(([name, way]) => [name, () => measure(way)]));
}

function cpu(way: Way): number {
  return way.programs.reduce((total, program) => total + cpuSeconds(program.pid), 0);
}

/** client — router — server over veth, the kernel forwards. */
function kernelRoute(): Way {
  const [client, router, server] = [new Host('client'), new Host('router'), new Host('server')];
  wire(client, router, {
    deviceA: 'lan0',
    deviceB: 'lan1',
    addressA: '10.1.0.2/24',
    addressB: '10.1.0.1/24',
    mtu: MTU,
  });
  wire(server, router, {
    deviceA: 'lan0',
    deviceB: 'lan2',
    addressA: '10.2.0.2/24',
    addressB: '10.2.0.1/24',
    mtu: MTU,
  });
  client.sh('ip route add default via 10.1.0.1');
  server.sh('ip route add default via 10.2.0.1');
  router.sh('sysctl -qw net.ipv4.ip_forward=1');
  const sink = server.start('iperf3', ['-s', '-p', String(PORT)], { cpu: LOAD_CPU });
  return {
    client,
    to: '10.2.0.2',
    programs: [],
    async close() {
      await sink.stop();
      for (const host of [client, router, server]) host.close();
    },
  };
}

/** client — TUN — Rampart (— tunnel — Rampart) — TUN — server. */
async function rampartRoute(kind: 'tun' | 'seqpacket' | 'gue'): Promise<Way> {
  const [client, server] = [new Host('client'), new Host('server')];
  const folder = scratch();
  const tunIn = `
  - name: in
    type: tun
    namespace: ${client.name}
    device: rampart
    mtu: ${MTU}
    addresses: [10.1.0.2/24]
    device_routes: [10.2.0.0/24]
    context: { account: bench, vnet: default }
    sources: [10.1.0.2/32]`;
  const tunOut = `
  - name: out
    type: tun
    namespace: ${server.name}
    device: rampart
    mtu: ${MTU}
    addresses: [10.2.0.2/24]
    device_routes: [10.1.0.0/24]`;
  const route = 'routes:\n  - { account: bench, to: 10.2.0.0/24, via: out }\n';
  const control = (n: number): string => `telemetry: { control: "unix:${folder}/control${n}.sock" }\n`;
  const programs: Running[] = [];
  if (kind === 'tun') {
    programs.push(rampart(folder, `on_ramps:${tunIn}\noff_ramps:${tunOut}\n${route}${control(0)}`));
  } else {
    const [listen, connect] =
      kind === 'seqpacket'
        ? [
            `type: ip-tunnel\n    listen: "unix:${folder}/t.sock"\n    sources: [10.1.0.0/24]`,
            `type: ip-tunnel\n    connect: "unix:${folder}/t.sock"\n    sources: [10.1.0.0/24]`,
          ]
        : [
            'type: gue\n    listen: 127.0.0.1:6080\n    mtu: 1500\n    sources: [10.1.0.0/24]',
            'type: gue\n    remote: 127.0.0.1:6080\n    mtu: 1500',
          ];
    const far = `on_ramps:\n  - name: far\n    ${listen}\noff_ramps:${tunOut}\n${route}${control(0)}`;
    programs.push(rampart(folder, far, { name: 'far', cpu: null }));
    await ready(programs[0] as Running);
    const near = `on_ramps:${tunIn}\noff_ramps:\n  - name: out\n    ${connect}\n${route}${control(1)}`;
    programs.push(rampart(folder, near, { name: 'near', cpu: PROXY_CPU }));
  }
  for (const program of programs) await ready(program);
  const sink = server.start('iperf3', ['-s', '-p', String(PORT)], { cpu: LOAD_CPU });
  return {
    client,
    to: '10.2.0.2',
    programs,
    async close() {
      await Promise.all([sink.stop(), ...programs.map((program) => program.stop())]);
      client.close();
      server.close();
    },
  };
}

/** Waits until Rampart says that it is ready. */
export async function ready(program: Running): Promise<void> {
  const until = Date.now() + 10_000;
  while (!/\bready\b/.test(program.output())) {
    if (Date.now() > until || program.child.exitCode !== null) {
      throw new Error(`rampart did not become ready:\n${program.output()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
