/**
 * `rampart run` as a process of its own, looked into by the other commands. No root needed: plain listeners
 * only.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { AgentClient } from '#agent/client.ts';
import type { AgentStatus, Explanation } from '#contract/agent.ts';
import type { TraceEvent } from '#contract/trace.ts';

import { runCommandLine } from './cli.ts';

const MAIN = join(import.meta.dirname, 'main.ts');
const folder = mkdtempSync(join(tmpdir(), 'rampart-run-'));
const socket = join(folder, 'rampart.sock');
const config = join(folder, 'rampart.yaml');
let origin: Server;
let rampart: Program;

/** A child process with what it has written so far. */
class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  output = '';

  constructor(arguments_: readonly string[]) {
    this.child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...arguments_], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
      });
    }
    this.ended = new Promise((resolve) => this.child.once('close', resolve));
  }

  /** Waits until `pattern` was written. Fails when the program ends before. */
  async wrote(pattern: RegExp): Promise<void> {
    const over = this.ended.then(() => true);
    while (!pattern.test(this.output)) {
      const chunk = new Promise<false>((resolve) => this.child.stderr?.once('data', () => resolve(false)));
      const isOver = await Promise.race([over, chunk]);
      if (isOver) assert.match(this.output, pattern);
    }
  }
}

/** Runs a command in this process. */
async function command(...arguments_: string[]): Promise<{ readonly output: string; readonly code: number }> {
  let output = '';
  const write = (text: string): void => {
    output += text;
  };
  const quiet = { colour: false, interactive: false, columns: () => 100, rows: () => 24 };
  const code = await runCommandLine(arguments_, { out: write, error: write, ...quiet });
  return { output, code };
}

before(async () => {
  origin = createServer((_request, response) => response.end('hello from the origin'));
  await new Promise<void>((resolve) => origin.listen(0, '127.0.0.1', resolve));
  const { port } = origin.address() as AddressInfo;
  writeFileSync(
    config,
    `on_ramps:
  - { name: web, type: tcp, listen: "127.0.0.1:0", context: { account: acme, vnet: production } }
off_ramps:
  - { name: origin, type: http, origins: ["127.0.0.1:${port}"] }
routes:
  - { on_ramp: web, via: origin }
telemetry: { control: "unix:${socket}", records: true }
`,
  );
  rampart = new Program(['run', '-c', config]);
  await rampart.wrote(/is ready/);
});

after(async () => {
  rampart.child.kill('SIGKILL');
  await rampart.ended;
  await new Promise((resolve) => origin.close(resolve));
  rmSync(folder, { recursive: true });
});

async function listener(): Promise<{ readonly host: string; readonly port: number }> {
  const { output } = await command('status', '-s', socket, '-o', 'json');
  const where = (JSON.parse(output) as AgentStatus).onRamps[0]?.where ?? '';
  const [, host, port] = /^(.*):(\d+)$/.exec(where) ?? [];
  return { host: host as string, port: Number(port) };
}

/** One request over a connection of its own; the whole answer. */
async function request(): Promise<string> {
  const client = connect(await listener());
  client.setEncoding('utf8').end('GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n');
  let answer = '';
  for await (const text of client) answer += text;
  return answer;
}

test('status says what runs and where it listens', async () => {
  const { output, code } = await command('status', '-s', socket);
  assert.equal(code, 0);
  assert.match(
    output,
    /^rampart \d+\.\d+\.\d+ is running since \d+s, process \d+, (uring|epoll), 1 worker\n/,
  );
  assert.match(output, /on +web +tcp +127\.0\.0\.1:[1-9]\d* +works/);
});

test('explain asks the running process', async () => {
  const flow = ['192.0.2.1', '127.0.0.1:80', '--on-ramp', 'web'];
  const { output, code } = await command('explain', '-s', socket, ...flow, '-o', 'json');
  assert.equal(code, 0);
  const explanation = JSON.parse(output) as Explanation;
  assert.equal(explanation.result, 'leaves');
  assert.equal(explanation.steps.at(-1)?.step, 'off-ramp');
  const wrong = await command('explain', '-s', socket, '192.0.2.1', '127.0.0.1:80', '--on-ramp', 'wbe');
  assert.equal(wrong.code, 2);
  assert.match(wrong.output, /there is no on-ramp wbe/);
});

test('trace shows a request on its way, and its record is logged', async () => {
  const trace = new Program(['trace', '-s', socket, '--vnet', 'production', '-o', 'json']);
  // Watching begins at some moment after the start: requests go on until one of them was seen whole.
  let events: TraceEvent[] = [];
  while (!events.some(({ stage }) => stage === 'end')) {
    assert.match(await request(), /hello from the origin/);
    const lines = trace.output.split('\n').slice(0, -1);
    events = lines.map((line) => JSON.parse(line) as TraceEvent);
  }
  trace.child.kill('SIGINT');
  assert.equal(await trace.ended, 0);
  const end = events.find(({ stage }) => stage === 'end') as TraceEvent;
  const stages = events.filter(({ flow }) => flow === end.flow).map(({ stage }) => stage);
  assert.ok(stages.length > 1, `only ${stages.join(', ')}`);
  await rampart.wrote(/ended .*account=acme/);
});

test('a watcher of another vnet sees nothing of it', async () => {
  const seen = { production: 0, staging: 0 };
  const clients = new Map<string, AgentClient>();
  for (const vnet of ['production', 'staging'] as const) {
    const client = await AgentClient.connect(socket);
    clients.set(vnet, client);
    await client.watch({ filter: { vnet }, events: true, packets: false }, ({ events }) => {
      seen[vnet] += events.length;
    });
  }
  await request();
  // Answers come in the order of what was sent: after this one, everything of the request has come.
  for (const client of clients.values()) await client.ask('status');
  assert.ok(seen.production > 0);
  assert.equal(seen.staging, 0);
  for (const client of clients.values()) client.close();
});

test('top counts what has passed', async () => {
  await request();
  const { output, code } = await command('top', '--once', '--interval', '100ms', '-s', socket, '-o', 'json');
  assert.equal(code, 0);
  const { counters } = JSON.parse(output) as { counters: Record<string, number> };
  assert.ok((counters.requests_in as number) > 0);
});

test('a second process cannot take the same control socket', async () => {
  const second = new Program(['run', '-c', config]);
  assert.equal(await second.ended, 1);
  assert.match(second.output, /another process has the control socket/);
  assert.equal((await command('status', '-s', socket)).code, 0);
});

test('a config with mistakes starts nothing', async () => {
  const broken = join(folder, 'broken.yaml');
  writeFileSync(broken, 'on_ramps: [{ name: web, type: tcp, listn: ":0" }]\n');
  const program = new Program(['run', '-c', broken]);
  assert.equal(await program.ended, 2);
  assert.match(
    program.output,
    /broken\.yaml:1:36: on_ramps\[0\]\.listn: unknown key; did you mean "listen"\?/,
  );
  assert.doesNotMatch(program.output, /ready/);
});

test('SIGTERM ends it with 0 and takes the control socket away', async () => {
  rampart.child.kill('SIGTERM');
  assert.equal(await rampart.ended, 0);
  assert.match(rampart.output, /SIGTERM: draining/);
  assert.match(rampart.output, /stopped\n$/);
  assert.equal(existsSync(socket), false);
});
