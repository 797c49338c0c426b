import {
  type BenchOptions,
  type Benchmark,
  type BenchResult,
  compare,
  cpuSeconds,
  type Running,
} from './harness.ts';
import { ready } from './ip.ts';
import { Host, iperf, wire } from './netns.ts';
import { rampart, scratch } from './peers.ts';

const PORT = 5201;

export const benchmark: Benchmark = {
  name: 'upgrade',
  about:
    'IP packets to kernel TCP streams, bulk up and down, against NAT in the kernel, slirp4netns and passt',
  needs: ['ip', 'nft', 'iperf3', 'slirp4netns', 'pasta', 'taskset'],
  needsRoot: true,
  async run(options) {
    const results: BenchResult[] = [];
    for (const mtu of [1500, 65520]) {
      const ways: Record<string, Way> = {};
      try {
        ways.rampart = await rampartWay(mtu);
        ways['kernel masquerade'] = kernelWay(mtu);
        ways.slirp4netns = await slirpWay(mtu);
        ways.passt = await passtWay(mtu);
        results.push(await measure(options, { mtu, direction: 'up', ways }));
        results.push(await measure(options, { mtu, direction: 'down', ways }));
      } finally {
        for (const way of Object.values(ways)) await way.close();
      }
    }
    return results;
  },
};

/** A client host whose packets become streams to a server outside. */
export interface Way {
  readonly client: Host;
  /** Where the server runs. */
  readonly outside: Host;
  readonly to: string;
  readonly programs: readonly Running[];
  close(): Promise<void>;
}

function measure(
  options: BenchOptions,
  spec: { mtu: number; direction: 'up' | 'down'; ways: Record<string, Way> },
): Promise<BenchResult> {
  const args = spec.direction === 'down' ? ['-R'] : [];
  return compare(options, {
    name: `upgrade ${spec.direction} MTU ${spec.mtu}`,
    unit: 'Gb/s',
    conditions: `TCP bulk, one stream, ${options.seconds} s, median of ${options.rounds}`,
    throughputUnit: 'CPU s/GB of the process',
    higherIsBetter: true,
    contenders: Object.fromEntries(
      Object.entries(spec.ways).map(([name, way]) => [
        name,
        async () => {
          const cpu = (): number => way.programs.reduce((sum, program) => sum + cpuSeconds(program.pid), 0);
          const before = cpu();
          const run = await iperf(way.client, { to: way.to, port: PORT, seconds: options.seconds, args });
          return { value: run.gbps, throughput: (cpu() - before) / (run.bytes / 1e9) };
        },
      ]),
    ),
  });
}

/** A host outside with a server and a default route, as a machine has it. */
function outside(): { host: Host; server: Running } {
  const host = new Host('outside');
  host.sh('ip link add world type veth peer name far');
  host.sh('ip addr add 192.0.2.1/24 dev world');
  host.sh('ip link set world up');
  host.sh('ip link set far up');
  host.sh('ip route add default via 192.0.2.254 dev world');
  const server = host.start('iperf3', ['-s', '-p', String(PORT)]);
  return { host, server };
}

/** A way through one contender. */
export async function rampartWay(mtu: number): Promise<Way> {
  const client = new Host('client');
  const { host, server } = outside();
  const folder = scratch();
  const config = `
on_ramps:
  - name: in
    type: tun
    namespace: ${client.name}
    device: rampart
    mtu: ${mtu}
    addresses: [10.1.0.2/24]
    device_routes: [0.0.0.0/0]
    context: { account: bench, vnet: default }
    sources: [10.1.0.2/32]
off_ramps:
  - name: out
    type: sockets
routes:
  - { account: bench, to: 192.0.2.0/24, protocol: tcp, via: out, upgrade: stream }
telemetry: { control: "unix:${folder}/control.sock" }
`;
  const program = rampart(folder, config, { cpu: null, within: ['ip', 'netns', 'exec', host.name] });
  await ready(program);
  return {
    client,
    outside: host,
    to: '192.0.2.1',
    programs: [program],
    async close() {
      await Promise.all([program.stop(), server.stop()]);
      client.close();
      host.close();
    },
  };
}

/** A way through one contender. */
export function kernelWay(mtu: number): Way {
  const client = new Host('client');
  const router = new Host('router');
  const server = new Host('server');
  wire(client, router, {
    deviceA: 'lan0',
    deviceB: 'lan1',
    addressA: '10.1.0.2/24',
    addressB: '10.1.0.1/24',
    mtu,
  });
  wire(server, router, {
    deviceA: 'lan0',
    deviceB: 'world',
    addressA: '192.0.2.1/24',
    addressB: '192.0.2.2/24',
    mtu: 65520,
  });
  client.sh('ip route add default via 10.1.0.1');
  router.sh('sysctl -qw net.ipv4.ip_forward=1');
  router.sh(
    'nft -f -',
    'table ip nat { chain post { ' +
      'type nat hook postrouting priority srcnat; oifname "world" masquerade; }; }\n',
  );
  const sink = server.start('iperf3', ['-s', '-p', String(PORT)]);
  return {
    client,
    outside: server,
    to: '192.0.2.1',
    programs: [],
    async close() {
      await sink.stop();
      for (const host of [client, router, server]) host.close();
    },
  };
}

/** A process that lives in the client host, for programs that attach to a process's namespace. */
function resident(client: Host): Running {
  return client.start('sleep', ['3600']);
}

/** A way through one contender. */
export async function slirpWay(mtu: number): Promise<Way> {
  const client = new Host('client');
  const { host, server } = outside();
  const program = host.start('slirp4netns', [
    '--configure',
    `--mtu=${mtu}`,
    '--netns-type=path',
    `/run/netns/${client.name}`,
    'tap0',
  ]);
  await hasDevice(client, 'tap0', program);
  return {
    client,
    outside: host,
    to: '192.0.2.1',
    programs: [program],
    async close() {
      await Promise.all([program.stop(), server.stop()]);
      client.close();
      host.close();
    },
  };
}

/** A way through one contender. */
export async function passtWay(mtu: number): Promise<Way> {
  const client = new Host('client');
  const { host, server } = outside();
  const sleeper = resident(client);
  const program = host.start('pasta', [
    '--foreground',
    '--config-net',
    '--quiet',
    '--runas',
    '0',
    '--netns-only',
    '-4',
    '-m',
    String(mtu),
    '-a',
    '10.1.0.2',
    '-n',
    '24',
    '-g',
    '10.1.0.1',
    '--netns',
    `/run/netns/${client.name}`,
  ]);
  await hasDevice(client, 'world', program);
  return {
    client,
    outside: host,
    to: '192.0.2.1',
    programs: [program],
    async close() {
      await Promise.all([program.stop(), server.stop(), sleeper.stop()]);
      client.close();
      host.close();
    },
  };
}

async function hasDevice(host: Host, device: string, program: Running): Promise<void> {
  const until = Date.now() + 10_000;
  for (;;) {
    if (host.sh('cat /proc/net/dev').includes(`${device}:`) && host.sh('ip -4 addr').includes(device)) return;
    if (Date.now() > until) throw new Error(`${device} did not appear: ${program.output()}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
