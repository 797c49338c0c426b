import {
  type Benchmark,
  compare,
  cpuSeconds,
  freePort,
  type Running,
  runToEnd,
  waitForPort,
} from './harness.ts';
import { LOAD_CPU, rampart, scratch } from './peers.ts';
import { bigOrigin, certificate, haproxyTls, nginxTls, rampartTls } from './tls-peers.ts';

const BODY_BYTES = 20_000_000;
const CONNECTIONS = 4;

export const benchmark: Benchmark = {
  name: 'tls-bulk',
  about: `HTTPS reverse proxy, bodies of ${BODY_BYTES / 1e6} MB, ${CONNECTIONS} connections, CPU per GB`,
  needs: ['nginx', 'haproxy', 'wrk', 'openssl', 'taskset'],
  async run(options) {
    const folder = scratch();
    const of = certificate(folder);
    const [up, a, b, c] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
    const programs: Record<string, [Running, number]> = {
      rampart: [rampart(folder, rampartTls({ at: a, to: up }, of)), a],
      nginx: [nginxTls(folder, { at: b, to: up }, of), b],
      haproxy: [haproxyTls(folder, { at: c, to: up }, of), c],
    };
    const source = bigOrigin(folder, up, BODY_BYTES);
    try {
      for (const [program, port] of Object.values(programs)) {
        await waitForPort(port).catch((error) => {
          throw new Error(`${error.message}: ${program.output()}`);
        });
        await download(port, 1);
      }
      const result = await compare(options, {
        name: 'tls-bulk',
        unit: 'CPU s/GB',
        conditions: `${CONNECTIONS} connections, ${options.seconds} s, median of ${options.rounds}`,
        throughputUnit: 'Gb/s',
        contenders: Object.fromEntries(
          Object.entries(programs).map(([name, [program, port]]) => [
            name,
            async () => {
              const before = cpuSeconds(program.pid);
              const bytes = await download(port, options.seconds);
              const used = cpuSeconds(program.pid) - before;
              return { value: used / (bytes / 1e9), throughput: (bytes * 8) / options.seconds / 1e9 };
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

const UNITS: Readonly<Record<string, number>> = { B: 1, KB: 2 ** 10, MB: 2 ** 20, GB: 2 ** 30 };

/** Downloads for some seconds and gives the bytes that came; errors fail the benchmark. */
async function download(port: number, seconds: number): Promise<number> {
  const args = ['-t1', `-c${CONNECTIONS}`, `-d${seconds}s`, `https://127.0.0.1:${port}/big`];
  const text = await runToEnd('wrk', args, { cpu: LOAD_CPU, timeoutMs: (seconds + 20) * 1000 });
  if (/Non-2xx/.test(text)) throw new Error(`wrk saw errors:\n${text}`);
  const [, amount, unit] = /requests in [\d.]+s, ([\d.]+)([KMG]?B) read/.exec(text) ?? [];
  return Number(amount) * (UNITS[unit ?? ''] ?? Number.NaN);
}
