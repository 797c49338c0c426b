import {
  type Benchmark,
  compare,
  cpuSeconds,
  freePort,
  type Running,
  runToEnd,
  waitForPort,
} from './harness.ts';
import { haproxyHttp, LOAD_CPU, nginxHttp, origin, rampart, scratch } from './peers.ts';

const CONNECTIONS = 64;

export const benchmark: Benchmark = {
  name: 'http1',
  about: `HTTP/1.1 reverse proxy, ${CONNECTIONS} keep-alive connections, small body, CPU per request`,
  needs: ['nginx', 'haproxy', 'wrk', 'taskset'],
  async run(options) {
    const folder = scratch();
    const [up, a, b, c] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
    const programs: Record<string, [Running, number]> = {
      rampart: [rampart(folder, config(a, up)), a],
      nginx: [nginxHttp(folder, b, up), b],
      haproxy: [haproxyHttp(folder, c, up), c],
    };
    const source = origin(folder, up);
    try {
      await waitForPort(up);
      for (const [program, port] of Object.values(programs)) {
        await waitForPort(port).catch((error) => {
          throw new Error(`${error.message}: ${program.output()}`);
        });
        await wrk(port, 1);
      }
      const result = await compare(options, {
        name: 'http1',
        unit: 'µs CPU/request',
        conditions: `${CONNECTIONS} kept connections, ${options.seconds} s, median of ${options.rounds}`,
        throughputUnit: 'requests/s',
        contenders: Object.fromEntries(
          Object.entries(programs).map(([name, [program, port]]) => [
            name,
            async () => {
              const before = cpuSeconds(program.pid);
              const requests = await wrk(port, options.seconds);
              const used = cpuSeconds(program.pid) - before;
              return { value: (used * 1e6) / requests, throughput: requests / options.seconds };
            },
          ]),
        ),
      });
      return [result];
    } finally {
      await Promise.all([source.stop(), ...Object.values(programs).map(([program]) => program.stop())]);
    }
  },
};

/** Runs wrk and gives the number of requests; errors fail the benchmark. */
async function wrk(port: number, seconds: number): Promise<number> {
  const args = ['-t1', `-c${CONNECTIONS}`, `-d${seconds}s`, `http://127.0.0.1:${port}/`];
  const text = await runToEnd('wrk', args, { cpu: LOAD_CPU, timeoutMs: (seconds + 20) * 1000 });
  if (/Socket errors|Non-2xx/.test(text)) throw new Error(`wrk saw errors:\n${text}`);
  return Number(/(\d+) requests in/.exec(text)?.[1]);
}

function config(port: number, to: number): string {
  return `
on_ramps:
  - name: web
    type: tcp
    listen: 127.0.0.1:${port}
    context: { account: bench, vnet: default }
    upgrade: http
off_ramps:
  - name: origin
    type: http
    origins: [127.0.0.1:${to}]
routes:
  - on_ramp: web
    via: origin
`;
}
