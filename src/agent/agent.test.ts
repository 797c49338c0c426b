/** The control socket end to end: the real server and the real client over a Unix socket. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test, type TestContext } from 'node:test';

import { RampartError } from '#base/error.ts';
import type {
  AgentSource,
  AgentStatus,
  CapturedPacket,
  ExplainQuery,
  FlowFilter,
  TraceWatcher,
} from '#contract/agent.ts';
import { AGENT_PROTOCOL } from '#contract/agent.ts';
import type { TraceEvent } from '#contract/trace.ts';

import { AgentClient } from './client.ts';
import { EventFilter } from './filter.ts';
import type { WatchBatch } from './messages.ts';
import { AgentServer } from './server.ts';
import { defaultSocketPath } from './socket-path.ts';

const folder = mkdtempSync(join(tmpdir(), 'rampart-agent-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let sockets = 0;

const STATUS: AgentStatus = {
  protocol: AGENT_PROTOCOL,
  version: '0.1.0',
  pid: 7,
  config: '/etc/rampart.yaml',
  io: 'epoll',
  workers: 1,
  startedAt: 1,
  draining: false,
  onRamps: [{ name: 'web', type: 'tcp', where: '127.0.0.1:80', trouble: '' }],
  offRamps: [],
};

const EVENT: TraceEvent = {
  at: 12.5,
  flow: 3,
  stage: 'flow',
  account: 'acme',
  vnet: 'production',
  tuple: '10.0.0.1:4000 > 10.10.0.10:80 tcp',
  text: 'new flow',
};

/** A process of which only the numbers are made up. */
class Source implements AgentSource {
  readonly watchers = new Set<TraceWatcher>();
  readonly resumed: number[] = [];
  asked: FlowFilter | null = null;

  status(): AgentStatus {
    return STATUS;
  }

  stats() {
    return { at: 5, counters: { packets_in: 9 }, drops: {}, networks: [] };
  }

  flows(filter: FlowFilter) {
    this.asked = filter;
    return [];
  }

  async explain(query: ExplainQuery): Promise<never> {
    throw new RampartError('RAMP_USAGE', `${query.source} may come in by two on-ramps`);
  }

  watch(watcher: TraceWatcher) {
    this.watchers.add(watcher);
    return { resume: () => this.resumed.push(1), stop: () => this.watchers.delete(watcher) };
  }

  /** What the watchers answered. */
  tell(events: readonly TraceEvent[], packets: readonly CapturedPacket[] = [], lost = 0): boolean[] {
    return [...this.watchers].map((watcher) => watcher.take(events, packets, lost));
  }
}

/** A served socket; it goes with the test. */
async function world(t: TestContext) {
  const path = join(folder, `${sockets++}`, 'rampart.sock');
  const source = new Source();
  const server = await AgentServer.listen(path, source);
  t.after(() => server.close());
  return { path, source, server };
}

test('status, stats and flows come back as the process says them', async (t) => {
  const { path, source, server } = await world(t);
  const client = await AgentClient.connect(path);
  assert.deepEqual(await client.ask('status'), STATUS);
  assert.equal((await client.ask('stats')).counters.packets_in, 9);
  assert.deepEqual(await client.ask('flows', { vnet: 'staging', limit: 5 }), []);
  assert.deepEqual(source.asked, { vnet: 'staging', limit: 5 });
  client.close();
  await server.close();
});

test('a failure comes back with its permanent code', async (t) => {
  const { path, server } = await world(t);
  const client = await AgentClient.connect(path);
  const query: ExplainQuery = { source: '10.0.0.1', destination: '10.0.0.2', port: 80, protocol: 'tcp' };
  await assert.rejects(client.ask('explain', query), { code: 'RAMP_USAGE', message: /two on-ramps/ });
  client.close();
  await server.close();
});

test('only this user may open the socket, and it is gone after the end', async (t) => {
  const { path, server } = await world(t);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  await server.close();
  assert.throws(() => statSync(path), { code: 'ENOENT' });
});

test('a socket left by a dead process is replaced, one of a live process is not', async (t) => {
  const { path, server, source } = await world(t);
  await assert.rejects(AgentServer.listen(path, source), { code: 'RAMP_LISTEN', message: /another process/ });
  await server.close();
  // What a killed process leaves: a socket that nobody listens at.
  const left = `${path}.left`;
  const program =
    `require('node:net').createServer().listen(${JSON.stringify(left)}, () => ` +
    `process.kill(process.pid, 'SIGKILL'))`;
  assert.equal(spawnSync(process.execPath, ['-e', program]).signal, 'SIGKILL');
  assert.ok(statSync(left).isSocket());
  const server2 = await AgentServer.listen(left, source);
  await server2.close();
});

test('a file that is no socket is left alone', async () => {
  const file = join(folder, 'notes.txt');
  writeFileSync(file, 'precious');
  await assert.rejects(AgentServer.listen(file, new Source()), {
    code: 'RAMP_LISTEN',
    message: /is no socket/,
  });
  assert.equal(readFileSync(file, 'utf8'), 'precious');
});

test('a watcher gets only what its filter wants', async (t) => {
  const { path, source, server } = await world(t);
  const client = await AgentClient.connect(path);
  const batches: WatchBatch[] = [];
  const got = Promise.withResolvers<void>();
  const filter = { vnet: 'production', host: '10.10.0.10', port: 80, stages: ['flow', 'end'] as const };
  await client.watch({ filter, events: true, packets: false }, (batch) => {
    batches.push(batch);
    if (batch.lost > 0) got.resolve();
  });
  source.tell([{ ...EVENT, vnet: 'staging' }]);
  source.tell([
    EVENT,
    { ...EVENT, flow: 4, tuple: '10.0.0.1:4000 > 10.10.0.11:80 tcp' },
    { ...EVENT, stage: 'hook' },
  ]);
  source.tell([], [], 17);
  await got.promise;
  assert.deepEqual(
    batches.flatMap(({ events }) => events),
    [EVENT],
  );
  assert.equal(batches.at(-1)?.lost, 17);
  client.close();
  await server.close();
});

test('a flow that named a wanted end once stays wanted, also where upper layers name none', () => {
  const filter = new EventFilter({ host: '10.10.0.10', stages: ['request', 'flow'] });
  assert.equal(filter.wants({ ...EVENT, stage: 'request', tuple: '' }), false);
  assert.equal(filter.wants({ ...EVENT, stage: 'packet' }), false);
  assert.equal(filter.wants({ ...EVENT, stage: 'request', tuple: '' }), true);
  assert.equal(filter.wants({ ...EVENT, stage: 'request', tuple: '', flow: 4 }), false);
  // What has no flow yet is judged by itself each time.
  assert.equal(filter.wants({ ...EVENT, flow: 0 }), true);
  assert.equal(filter.wants({ ...EVENT, flow: 0, tuple: '' }), false);
});

test('packets arrive byte by byte as they were, filtered by what is in them', async (t) => {
  const { path, source, server } = await world(t);
  const client = await AgentClient.connect(path);
  const got = Promise.withResolvers<WatchBatch>();
  const filter = { host: '10.10.0.10', port: 80 };
  await client.watch({ filter, events: false, packets: true }, (batch) => {
    if (batch.packets.length > 0) got.resolve(batch);
  });
  const bytes = udpPacket([10, 0, 0, 1], [10, 10, 0, 10], 80);
  const point = { at: 1, direction: 'in', tunnel: 'laptop', account: 'acme', vnet: 'production' } as const;
  const other = udpPacket([10, 0, 0, 1], [10, 10, 0, 11], 80);
  const cut = { ...point, bytes: bytes.slice(0, 28), length: bytes.length };
  source.tell(
    [],
    [{ ...point, bytes: other, length: other.length }, { ...point, bytes, length: bytes.length }, cut],
  );
  const { packets } = await got.promise;
  assert.equal(packets.length, 2);
  assert.deepEqual(packets[0]?.bytes, bytes);
  assert.equal(packets[1]?.length, bytes.length);
  client.close();
  await server.close();
});

test('a watcher that does not read is told so to the source, and holds up nobody', async (t) => {
  const { path, source, server } = await world(t);
  const socket = connect(path);
  await new Promise<void>((resolve) => socket.once('connect', () => resolve()));
  socket.write('{"id":1,"ask":"watch"}\n');
  await new Promise<void>((resolve) => socket.once('data', () => resolve()));
  socket.pause();
  const long = Array.from({ length: 1000 }, () => ({ ...EVENT, text: 'x'.repeat(1000) }));
  let rounds = 0;
  while (source.tell(long)[0] === true) assert.ok(++rounds < 100, 'it never said stop');
  socket.resume();
  while (source.resumed.length === 0) await new Promise(setImmediate);
  socket.destroy();
  await server.close();
});

test('what is no request is answered as such; a line without end ends the connection', async (t) => {
  const { path, server } = await world(t);
  const socket = connect(path);
  socket.setEncoding('utf8');
  let text = '';
  socket.on('data', (chunk: string) => {
    text += chunk;
  });
  socket.on('error', () => {});
  socket.write('hello\n{"id":"x"}\n{"id":5,"ask":"shutdown"}\n');
  while (text.split('\n').length < 4) await new Promise(setImmediate);
  assert.match(text, /not JSON/);
  assert.match(text, /"id":5,"error":\{"code":"RAMP_USAGE","text":"\\"shutdown\\" cannot be asked"/);
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  socket.write('x'.repeat(70_000));
  await closed;
  await server.close();
});

test('asking where nobody listens says what to do', async () => {
  await assert.rejects(AgentClient.connect(join(folder, 'none.sock')), {
    code: 'RAMP_CONNECT',
    message: /no Rampart answers at .*; start one/,
  });
});

test('a process that goes away ends its clients', async (t) => {
  const { path, server } = await world(t);
  const client = await AgentClient.connect(path);
  await client.ask('status');
  await server.close();
  await client.ended;
});

test("the default path lies in the user's runtime folder", () => {
  const path = (uid: number, XDG_RUNTIME_DIR?: string) =>
    defaultSocketPath({ uid, environment: { XDG_RUNTIME_DIR } });
  assert.equal(path(1000, '/run/user/1000'), '/run/user/1000/rampart/rampart.sock');
  assert.equal(path(1000), '/tmp/rampart-1000/rampart.sock');
  assert.equal(path(0, '/run/user/0'), '/run/rampart/rampart.sock');
});

/** A UDP packet with a right header checksum: what the parser accepts. */
function udpPacket(from: readonly number[], to: readonly number[], port: number): Uint8Array {
  const bytes = new Uint8Array(40);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 0x4500);
  view.setUint16(2, 40);
  view.setUint16(8, 0x4011);
  bytes.set(from, 12);
  bytes.set(to, 16);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += view.getUint16(at);
  view.setUint16(10, 0xffff - ((sum & 0xffff) + (sum >>> 16)));
  view.setUint16(20, 4000);
  view.setUint16(22, port);
  view.setUint16(24, 20);
  return bytes;
}
