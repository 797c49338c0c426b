import {
  type Benchmark,
  compare,
  cpuSeconds,
  freePort,
  type Running,
  runToEnd,
  start,
  waitForPort,
} from './harness.ts';
import { haproxyTcp, LOAD_CPU, nginxTcp, rampart, scratch } from './peers.ts';

export const benchmark: Benchmark = {
  name: 'tcp',
  about: 'TCP proxy, bulk by iperf3, one stream, CPU per GB',
  needs: ['nginx', 'haproxy', 'iperf3', 'taskset'],
  async run(options) {
    const folder = scratch();
    const [up, a, b, c] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
    const programs: Record<string, [Running, number]> = {
      rampart: [rampart(folder, config(a, up)), a],
      'nginx stream': [nginxTcp(folder, b, up), b],
      'haproxy splice': [haproxyTcp(folder, c, up), c],
    };
    const server = start('iperf3', ['-s', '-p', String(up)], { cpu: LOAD_CPU });
    try {
      for (const port of [a, b, c]) await waitForPort(port);
      const result = await compare(options, {
        name: 'tcp',
        unit: 'CPU s/GB',
        conditions: `one stream, ${options.seconds} s, median of ${options.rounds}`,
        throughputUnit: 'Gb/s',
        contenders: Object.fromEntries(
          Object.entries(programs).map(([name, [program, port]]) => [
            name,
            async () => {
              const before = cpuSeconds(program.pid);
              const { bytes, seconds } = await iperf(port, options.seconds);
              const used = cpuSeconds(program.pid) - before;
              return { value: used / (bytes / 1e9), throughput: (bytes * 8) / seconds / 1e9 };
            },
          ]),
        ),
      });
      return [result];
    } finally {
      await Promise.all([server.stop(), ...Object.values(programs).map(([program]) => program.stop())]);
    }
  },
};

async function iperf(port: number, seconds: number): Promise<{ bytes: number; seconds: number }> {
  const args = ['-c', '127.0.0.1', '-p', String(port), '-t', String(seconds), '-J'];
  const text = await runToEnd('iperf3', args, { cpu: LOAD_CPU, timeoutMs: (seconds + 20) * 1000 });
  const { sum_received: sum } = JSON.parse(text).end;
  return { bytes: sum.bytes, seconds: sum.seconds };
}

function config(port: number, to: number): string {
  return `
on_ramps:
  - name: in
    type: tcp
    listen: 127.0.0.1:${port}
    context: { account: bench, vnet: default }
    upgrade: none
off_ramps:
  - name: out
    type: sockets
    target: 127.0.0.1:${to}
routes:
  - on_ramp: in
    via: out
`;
}
