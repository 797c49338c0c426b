import { writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';

import { benchFlowTable } from './flow-table.ts';
import {
  type Benchmark,
  type BenchOptions,
  type BenchResult,
  compare,
  cpuSeconds,
  freePort,
  residentBytes,
  type Running,
  waitForPort,
} from './harness.ts';
import { ready } from './ip.ts';
import type { Host } from './netns.ts';
import { haproxyHttp, nginxHttp, origin, rampart, scratch } from './peers.ts';
import { kernelWay, passtWay, rampartWay, slirpWay, type Way } from './upgrade.ts';

/** Connections that wrk keeps opening at one time. */
const PARALLEL = 32;

/** Idle connections whose memory is measured. */
const IDLE = 4000;

export const benchmark: Benchmark = {
  name: 'flows',
  about: 'new TCP flows per second through IP, TCP and a socket; memory of what is idle; flow-table lookups',
  needs: ['ip', 'nft', 'iperf3', 'nginx', 'haproxy', 'wrk', 'slirp4netns', 'pasta', 'taskset'],
  needsRoot: true,
  async run(options) {
    return [await newFlows(options), await idleFlows(options), await idleHttp(options), ...(await table())];
  },
};

/** One request per connection: each is a flow, a handshake in the stack, a socket, and their ends. */
async function newFlows(options: BenchOptions): Promise<BenchResult> {
  const ways: Record<string, Way> = {};
  const servers: Running[] = [];
  try {
    ways.rampart = await rampartWay(1500);
    ways['kernel masquerade'] = kernelWay(1500);
    ways.slirp4netns = await slirpWay(1500);
    ways.passt = await passtWay(1500);
    for (const way of Object.values(ways)) servers.push(webServer(way.outside));
    return await compare(options, {
      name: 'new flows',
      unit: 'flows/s',
      conditions:
        `one HTTP request per connection, ${PARALLEL} at a time, ${options.seconds} s, ` +
        `median of ${options.rounds}`,
      throughputUnit: 'µs CPU/flow of the process',
      higherIsBetter: true,
      contenders: Object.fromEntries(
        Object.entries(ways).map(([name, way]) => [
          name,
          async () => {
            const cpu = (): number => way.programs.reduce((sum, { pid }) => sum + cpuSeconds(pid), 0);
            const before = cpu();
            const requests = await openAndClose(way, options.seconds);
            return { value: requests / options.seconds, throughput: ((cpu() - before) * 1e6) / requests };
          },
        ]),
      ),
    });
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    for (const way of Object.values(ways)) await way.close();
  }
}

async function openAndClose(way: Way, seconds: number): Promise<number> {
  const args = ['-t1', `-c${PARALLEL}`, `-d${seconds}s`, '-H', 'Connection: close', `http://${way.to}:8080/`];
  const text = await way.client.run('wrk', args, { timeoutMs: (seconds + 20) * 1000 });
  return Number(/(\d+) requests in/.exec(text)?.[1]);
}

function webServer(host: Host): Running {
  const folder = scratch();
  const file = join(folder, 'web.conf');
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${folder}/web.pid; user root;
    events { worker_connections 4000; }
    http { access_log off; keepalive_timeout 0; server { listen 8080; location / { return 200 "hello"; } } }`,
  );
  return host.start('nginx', ['-c', file, '-e', join(folder, 'web.err')]);
}

/**
 * Memory of a flow that is upgraded, connected and idle: its table entry, NAT, stream, and both sockets'
 * bookkeeping.
 */
async function idleFlows(options: BenchOptions): Promise<BenchResult> {
  const way = await rampartWay(1500);
  const sink = way.outside.start(process.execPath, ['-e', SINK]);
  try {
    const client = (): Running =>
      way.client.start(process.execPath, ['-e', HOLD, way.to, '8081', String(IDLE)]);
    const { pid } = way.programs[0] as Running;
    // The first round makes pools and code: what it leaves behind is not per flow.
    await holdAndDrop(client());
    const before = residentBytes(pid);
    const holder = client();
    await said(holder, 'all open');
    const bytes = (residentBytes(pid) - before) / IDLE;
    await holder.stop();
    options.say(`  idle flows: ${Math.round(bytes)} bytes each`);
    return result('idle flow', bytes, `${IDLE} upgraded, connected, idle flows; resident set of the process`);
  } finally {
    await sink.stop();
    await way.close();
  }
}

/** Memory of an idle keep-alive client connection at an HTTP proxy. */
async function idleHttp(options: BenchOptions): Promise<BenchResult> {
  const folder = scratch();
  const [up, a, b, c] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
  const source = origin(folder, up);
  const config = `
on_ramps:
  - { name: web, type: tcp, listen: "127.0.0.1:${a}", context: { account: bench }, upgrade: http }
off_ramps:
  - { name: origin, type: http, origins: ["127.0.0.1:${up}"] }
routes:
  - { on_ramp: web, via: origin }
telemetry: { control: "unix:${folder}/control.sock" }
`;
  const programs: Record<string, [Running, number]> = {
    rampart: [rampart(folder, config), a],
    nginx: [nginxHttp(folder, b, up), b],
    haproxy: [haproxyHttp(folder, c, up), c],
  };
  try {
    await waitForPort(up);
    await ready((programs.rampart as [Running, number])[0]);
    const contenders = Object.entries(programs).map(([name, [program, port]]) => [
      name,
      async () => {
        await waitForPort(port);
        for (const socket of await idleConnections(port)) socket.destroy();
        const before = residentBytes(program.pid);
        const sockets = await idleConnections(port);
        const bytes = (residentBytes(program.pid) - before) / IDLE;
        for (const socket of sockets) socket.destroy();
        return { value: bytes, throughput: 0 };
      },
    ]);
    return await compare(
      { ...options, rounds: 1 },
      {
        name: 'idle HTTP connection',
        unit: 'bytes',
        conditions: `${IDLE} keep-alive connections after one request each; resident set of the process`,
        contenders: Object.fromEntries(contenders),
      },
    );
  } finally {
    await Promise.all([source.stop(), ...Object.values(programs).map(([program]) => program.stop())]);
  }
}

async function idleConnections(port: number): Promise<Socket[]> {
  const sockets: Socket[] = [];
  for (let i = 0; i < IDLE; i += 100) {
    const batch = Array.from({ length: 100 }, () => oneRequest(port));
    sockets.push(...(await Promise.all(batch)));
  }
  return sockets;
}

function oneRequest(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n'));
    socket.once('data', () => resolve(socket));
    socket.once('error', reject);
  });
}

async function table(): Promise<BenchResult[]> {
  const measured = await benchFlowTable();
  return measured.flatMap(({ flows, lookupsPerSecond, bytesPerFlow }) => [
    result(`lookup of ${flows} flows`, lookupsPerSecond, 'random live IPv4 flows', 'lookups/s'),
    result(`table of ${flows} flows`, bytesPerFlow, 'resident memory by flow', 'bytes/flow'),
  ]);
}

function result(name: string, value: number, conditions: string, unit = 'bytes'): BenchResult {
  return { name, unit, conditions, rampart: value, peers: {}, ratio: {} };
}

async function holdAndDrop(holder: Running): Promise<void> {
  await said(holder, 'all open');
  await holder.stop();
}

async function said(program: Running, words: string): Promise<void> {
  const until = Date.now() + 30_000;
  while (!program.output().includes(words)) {
    if (Date.now() > until || program.child.exitCode !== null) {
      throw new Error(`expected "${words}", got: ${program.output()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  // What is under way settles.
  await new Promise((resolve) => setTimeout(resolve, 1000));
}

const SINK = `require('node:net').createServer((s) => s.on('error', () => {})).listen(8081, '0.0.0.0', 8192)`;
const HOLD = `
const { connect } = require('node:net');
const [host, port, count] = process.argv.slice(1);
let open = 0, started = 0;
function next() {
  if (started++ >= Number(count)) return;
  const s = connect(Number(port), host, () => {
    if (++open === Number(count)) console.log('all open');
    next();
  });
  s.on('error', (error) => { console.error(error.message); process.exit(1); });
}
for (let i = 0; i < 64; i++) next();
`;
