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

export const benchmark: Benchmark = {
  name: 'tls-handshake',
  about: 'full TLS 1.3 handshakes, ECDSA P-256, one client after the other, CPU per handshake',
  needs: ['nginx', 'haproxy', 'openssl', 'taskset'],
  async run(options) {
    const folder = scratch();
    const of = certificate(folder);
    const [up, a, b, c] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
    const programs: Record<string, [Running, number]> = {
      rampart: [rampart(folder, rampartTls({ at: a, to: up }, of)), a],
      nginx: [nginxTls(folder, { at: b, to: up }, of), b],
      haproxy: [haproxyTls(folder, { at: c, to: up }, of), c],
    };
    const source = bigOrigin(folder, up, 1024);
    try {
      for (const [program, port] of Object.values(programs)) {
        await waitForPort(port).catch((error) => {
          throw new Error(`${error.message}: ${program.output()}`);
        });
        await handshakes(port, 1);
      }
      const result = await compare(options, {
        name: 'tls-handshake',
        unit: 'µs CPU/handshake',
        conditions: `TLS 1.3, ECDSA P-256, ${options.seconds} s, median of ${options.rounds}`,
        throughputUnit: 'handshakes/s',
        contenders: Object.fromEntries(
          Object.entries(programs).map(([name, [program, port]]) => [
            name,
            async () => {
              const before = cpuSeconds(program.pid);
              const count = await handshakes(port, options.seconds);
              const used = cpuSeconds(program.pid) - before;
              return { value: (used * 1e6) / count, throughput: count / options.seconds };
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

/** Makes full handshakes for some seconds and gives their number. */
async function handshakes(port: number, seconds: number): Promise<number> {
  const args = ['s_time', '-connect', `127.0.0.1:${port}`, '-new', '-tls1_3', '-time', String(seconds)];
  const text = await runToEnd('openssl', args, { cpu: LOAD_CPU, timeoutMs: (seconds + 20) * 1000 });
  const count = Number(/^(\d+) connections in \d+ real seconds/m.exec(text)?.[1]);
  if (!(count > 0)) throw new Error(`openssl s_time made no connection:\n${text}`);
  return count;
}
