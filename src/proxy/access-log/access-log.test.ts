import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { RampartError } from '#base/error.ts';
import { ACCESS_FIELDS } from '#config/access-log.ts';
import { CloseReason, type FlowRecord } from '#contract/record.ts';
import { parseRequestHead } from '#protocol/http/head.ts';
import { MessageHead } from '#protocol/http/message-head.ts';
import { latin1Bytes } from '#protocol/http/octets.ts';
import { Counter, createStats } from '#proxy/stats.ts';

import { AccessEntry, clientText } from './access-entry.ts';
import { AccessLog } from './access-log.ts';
import { LINE_BYTES_MAX, LineFormat } from './line-format.ts';
import { type FileOperations, HOST_FILES, LogFile } from './log-file.ts';
import { TRACE_ID_LENGTH, TRACE_LINE_LENGTH, TraceIds, traceIdOffset } from './trace-context.ts';

const folder = mkdtempSync(join(tmpdir(), 'rampart-access-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const freshPath = (): string => join(folder, `${files++}.log`);

const neverLost = (_lines: number, error: Error): never => assert.fail(error);

const RECORD: FlowRecord = {
  flow: 7,
  account: 'acme',
  vnet: 'production',
  identity: { user: 'zoë "z"', groups: [] } as unknown as FlowRecord['identity'],
  onRamp: 'in',
  offRamp: 'out',
  layer: 'tcp',
  protocol: 'tcp',
  source: { address: 'fd00::1', port: 4000 },
  destination: { address: '10.0.0.1', port: 80 },
  rule: 'r',
  reason: CloseReason.ClientClosed,
  startedAt: 1_700_000_000_123,
  endedAt: 1_700_000_001_123,
  bytesUp: 10,
  bytesDown: 20,
  packetsUp: 0,
  packetsDown: 0,
};

function requestHead(text: string): MessageHead {
  const head = new MessageHead();
  const bytes = latin1Bytes(text);
  assert.equal(parseRequestHead(bytes, 0, bytes.length, head), bytes.length);
  return head;
}

function lineOf(format: LineFormat, entry: AccessEntry): string {
  const out = new Uint8Array(LINE_BYTES_MAX);
  return Buffer.from(out.subarray(0, format.write(out, 0, entry))).toString('utf8');
}

function served(head = requestHead('GET /a?b HTTP/1.1\r\nHost: app.example\r\n\r\n')): AccessEntry {
  const entry = new AccessEntry(null);
  entry.begin(clientText(RECORD, RECORD), RECORD.startedAt, 1000);
  entry.onHead(head, 1002);
  entry.onDial(1003);
  entry.onForward(1007);
  entry.onResponse(200, 1015);
  assert.ok(entry.finish(1031));
  entry.end = 'ok';
  entry.offRamp = 'out';
  entry.bytesDown = 5;
  return entry;
}

test('a request becomes one JSON object with every field in order', () => {
  const line = lineOf(LineFormat.json(), served());
  const parsed = JSON.parse(line) as Record<string, unknown>;
  assert.deepEqual(Object.keys(parsed), [...ACCESS_FIELDS]);
  assert.deepEqual(parsed, {
    time: '2023-11-14T22:13:20.123Z',
    kind: 'request',
    flow: 7,
    account: 'acme',
    vnet: 'production',
    user: 'zoë "z"',
    on_ramp: 'in',
    source: '[fd00::1]:4000',
    destination: '10.0.0.1:80',
    off_ramp: 'out',
    method: 'GET',
    authority: 'app.example',
    path: '/a?b',
    version: '1.1',
    status: 200,
    bytes_up: 0,
    bytes_down: 5,
    request_ms: 2,
    queue_ms: 1,
    connect_ms: 4,
    response_ms: 8,
    total_ms: 31,
    end: 'ok',
    trace: '',
  });
});

test('a kept connection costs no connect time, and what did not come to pass is null', () => {
  const entry = new AccessEntry(null);
  entry.begin(clientText(RECORD, RECORD), RECORD.startedAt, 1000);
  entry.onHead(requestHead('GET / HTTP/1.1\r\nHost: a\r\n\r\n'), 1000);
  entry.onForward(1004);
  entry.finish(1010);
  const parsed = JSON.parse(lineOf(LineFormat.json(), entry)) as Record<string, unknown>;
  assert.deepEqual(
    [parsed.queue_ms, parsed.connect_ms, parsed.response_ms, parsed.status],
    [4, 0, null, null],
  );
});

test('a template has each value in its place, and a dash for what is absent', () => {
  const format = LineFormat.template('{source} "{method} {path}" {status} {trace} – {end}');
  assert.equal(lineOf(format, served()), '[fd00::1]:4000 "GET /a?b" 200 - – ok\n');
});

test('octets of a client end neither the string nor the line', () => {
  const entry = served();
  const octets = latin1Bytes('/"\\\n\r\u0000\u007f\u00e9');
  entry.path.set(octets);
  entry.pathLength = octets.length;
  const line = lineOf(LineFormat.json(), entry);
  assert.equal(line.split('\n').length, 2);
  assert.equal((JSON.parse(line) as { path: string }).path, '/"\\\n\r\u0000\u007f\u00e9');
});

test('the longest possible line fits the room that is reserved for it', () => {
  const entry = served();
  entry.methodLength = entry.method.fill(0xff).length;
  entry.authorityLength = entry.authority.fill(0xff).length;
  entry.pathLength = entry.path.fill(0xff).length;
  const long = 'ÿ'.repeat(1000);
  const record = { ...RECORD, account: long, vnet: long, onRamp: long, identity: { user: long } };
  entry.client = clientText(RECORD, record as unknown as FlowRecord);
  entry.offRamp = long;
  entry.end = `${long}.`;
  const line = lineOf(LineFormat.json(), entry);
  assert.ok(line.length < LINE_BYTES_MAX);
  JSON.parse(line);
});

test('a trace that came stands in the line, and one that is none does not', () => {
  const id = '4bf92f3577b34da6a3ce929d0e0e4736';
  const value = (text: string) => requestHead(`GET / HTTP/1.1\r\nHost: a\r\nTraceParent: ${text}\r\n\r\n`);
  const entry = served(value(`00-${id}-00f067aa0ba902b7-01`));
  assert.equal((JSON.parse(lineOf(LineFormat.json(), entry)) as { trace: string }).trace, id);
  const invalid = [
    `ff-${id}-00f067aa0ba902b7-01`,
    `00-${'0'.repeat(32)}-00f067aa0ba902b7-01`,
    `00-${id}-${'0'.repeat(16)}-01`,
    `00-${id.toUpperCase()}-00f067aa0ba902b7-01`,
    `00-${id}-00f067aa0ba902b7-01-x`,
    `00-${id}-00f067aa0ba902b7`,
    `cc-${id}-00f067aa0ba902b7-01x`,
  ];
  for (const text of invalid) assert.equal(served(value(text)).hasTrace, false, text);
  assert.equal(served(value(`cc-${id}-00f067aa0ba902b7-01-later`)).hasTrace, true);
});

test('a request without a trace gets one that is valid and its own', () => {
  const entry = new AccessEntry(new TraceIds(Uint32Array.of(1, 2, 3, 4)));
  const seen = new Set<string>();
  for (let i = 0; i < 1000; i++) {
    entry.begin(clientText(RECORD, RECORD), 0, 0);
    entry.onHead(requestHead('GET / HTTP/1.1\r\nHost: a\r\n\r\n'), 0);
    const line = Buffer.from(entry.added as Uint8Array).toString('latin1');
    assert.match(line, /^traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-01\r\n$/);
    const id = Buffer.from(entry.traceId).toString('latin1');
    assert.equal(line.slice(16, 48), id);
    seen.add(id);
  }
  assert.equal(seen.size, 1000);
  const line = new Uint8Array(TRACE_LINE_LENGTH);
  new TraceIds(new Uint32Array(4)).next(line, new Uint8Array(TRACE_ID_LENGTH));
  assert.ok(traceIdOffset(line, 13, TRACE_LINE_LENGTH - 2) > 0, 'a seed of zeros gives a valid trace too');
});

test('what ended is one line in the file, also behind a file that was there before', async () => {
  const path = freshPath();
  const stats = createStats();
  for (let run = 0; run < 2; run++) {
    const file = LogFile.open({ path, rotateBytes: null, keep: 0, onLost: neverLost });
    const log = new AccessLog({ file, format: LineFormat.json(), createTrace: false, stats });
    log.ended(RECORD);
    await log.close();
  }
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  assert.equal(lines.length, 2);
  const { kind, end, total_ms } = JSON.parse(lines[1] as string) as Record<string, unknown>;
  assert.deepEqual([kind, end, total_ms], ['stream', 'client_closed', 1000]);
  assert.equal(stats.counters[Counter.AccessLogLines], 2);
});

test('a full file is put aside, older ones move up, and the oldest goes', async () => {
  const path = freshPath();
  const file = LogFile.open({ path, rotateBytes: 10, keep: 2, onLost: neverLost });
  for (const text of ['first one\n', 'second one\n', 'third one\n', 'fourth one\n']) {
    assert.ok(file.reserve(text.length));
    file.chunk.set(latin1Bytes(text), file.at);
    file.commit(file.at + text.length);
    await file.flush();
  }
  await file.close();
  const read = (name: string): string => readFileSync(name, 'utf8');
  assert.deepEqual(
    [read(path), read(`${path}.1`), read(`${path}.2`)],
    ['fourth one\n', 'third one\n', 'second one\n'],
  );
  assert.equal(readdirSync(folder).filter((name) => join(folder, name).startsWith(path)).length, 3);
});

test('a file that another program has moved is opened anew', async () => {
  const path = freshPath();
  const file = LogFile.open({ path, rotateBytes: null, keep: 0, onLost: neverLost });
  renameSync(path, `${path}.moved`);
  file.chunk[0] = 0x0a;
  file.commit(1);
  await file.flush();
  await file.close();
  assert.deepEqual([readFileSync(path, 'utf8'), readFileSync(`${path}.moved`, 'utf8')], ['\n', '']);
});

test('while the disk hangs lines are dropped and counted, and go on when it is back', async () => {
  const gate = Promise.withResolvers<void>();
  let written = 0;
  const slow: FileOperations = {
    ...HOST_FILES,
    async write(_fd, _bytes, _offset, length) {
      await gate.promise;
      written += length;
      return length;
    },
    close: async () => {},
  };
  const path = freshPath();
  const file = new LogFile({ path, rotateBytes: null, keep: 0, onLost: neverLost, files: slow }, -1, 0);
  const stats = createStats();
  const log = new AccessLog({ file, format: LineFormat.json(), createTrace: false, stats });
  const { counters } = stats;
  let asked = 0;
  for (; counters[Counter.AccessLogDropped] === 0; asked++) {
    assert.ok(asked < 1e6, 'memory is bounded');
    log.ended(RECORD);
  }
  gate.resolve();
  await file.flush();
  log.ended(RECORD);
  await log.close();
  assert.equal(counters[Counter.AccessLogDropped], 1);
  assert.equal(counters[Counter.AccessLogLines], asked);
  assert.ok(written > asked * 100);
});

test('a disk that fails loses the lines of that write, and says how many', async () => {
  const lost: number[] = [];
  const full: FileOperations = {
    ...HOST_FILES,
    write: () => Promise.reject(new Error('ENOSPC')),
    close: async () => {},
  };
  const path = freshPath();
  const onLost = (lines: number): void => void lost.push(lines);
  const file = new LogFile({ path, rotateBytes: null, keep: 0, onLost, files: full }, -1, 0);
  file.commit(1);
  file.commit(2);
  await file.flush();
  await file.close();
  assert.deepEqual(lost, [2]);
});

test('a file that cannot be opened is a mistake in the config', () => {
  assert.throws(
    () => LogFile.open({ path: join(folder, 'no/where'), rotateBytes: null, keep: 0, onLost: neverLost }),
    (error) => error instanceof RampartError && error.code === 'RAMP_CONFIG',
  );
});
