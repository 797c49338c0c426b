/** What the looking commands print, from made-up numbers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { AgentStats, AgentStatus } from '#contract/agent.ts';
import type { TraceEvent } from '#contract/trace.ts';

import { formatStatus } from './status.ts';
import { paint, printable, shortNumber, table } from './terminal.ts';
import { formatTop } from './top.ts';
import { TraceLines } from './trace-lines.ts';

const PLAIN = { colour: false };

test('numbers keep three digits and their unit', () => {
  const cases: readonly [number, string][] = [
    [0, '0'],
    [999, '999'],
    [12.34, '12.3'],
    [1000, '1.00 k'],
    [12_345, '12.3 k'],
    [4_500_000, '4.50 M'],
    [9_876_543_210, '9.88 G'],
  ];
  for (const [value, text] of cases) assert.equal(shortNumber(value), text);
});

test('a table is aligned, numbers to the right, without trailing blanks', () => {
  const text = table(
    PLAIN,
    [{ title: 'name' }, { title: 'count', align: 'right' }, { title: 'note' }],
    [
      ['web', '7', ''],
      ['a-long-name', '12345', 'x'],
    ],
  );
  assert.equal(text, 'name         count  note\nweb              7\na-long-name  12345  x\n');
});

test('colours only where they are wanted', () => {
  assert.equal(paint(PLAIN, 'red', 'x'), 'x');
  assert.equal(paint({ colour: true }, 'red', 'x'), '\x1b[31mx\x1b[39m');
});

test('what came over a wire cannot move the cursor', () => {
  assert.equal(printable('GET /\x1b[2J\r\nx\x9b'), 'GET /\ufffd[2J\ufffd\ufffdx\ufffd');
});

test('a trace is grouped by flow, with the time since its start', () => {
  const base: TraceEvent = {
    at: 100,
    flow: 1,
    stage: 'flow',
    account: 'acme',
    vnet: 'production',
    tuple: '10.0.0.1:4000 > 10.10.0.10:80 tcp',
    text: 'new flow',
  };
  let text = '';
  const lines = new TraceLines({
    colour: false,
    out: (part) => {
      text += part;
    },
  });
  lines.write([
    base,
    { ...base, at: 100.5, flow: 2, vnet: 'staging' },
    { ...base, at: 100.25, stage: 'hook', text: 'upgrade' },
    { ...base, at: 101, flow: 0, stage: 'drop', text: 'spoofed_source \x1b[31m' },
  ]);
  lines.write([{ ...base, at: 112, stage: 'end', text: 'client_closed' }]);
  lines.write([{ ...base, at: 113, stage: 'end', text: 'its packets too' }]);
  assert.equal(
    text,
    `flow 1 acme/production 10.0.0.1:4000 > 10.10.0.10:80 tcp
     +0.000 ms  flow      new flow
     +0.250 ms  hook      upgrade
flow 2 acme/staging 10.0.0.1:4000 > 10.10.0.10:80 tcp
     +0.000 ms  flow      new flow
acme/production 10.0.0.1:4000 > 10.10.0.10:80 tcp  drop      spoofed_source \ufffd[31m
flow 1 acme/production 10.0.0.1:4000 > 10.10.0.10:80 tcp
    +12.000 ms  end       client_closed
    +13.000 ms  end       its packets too
`,
  );
});

test('top shows rates between two looks, the busiest network first, and drops by reason', () => {
  const before: AgentStats = {
    at: 1000,
    counters: { packets_in: 100, bytes_in: 10_000, flows_opened: 5, requests_in: 0, streams_opened: 0 },
    drops: { no_route: 1 },
    networks: [{ account: 'acme', vnet: 'production', flows: 1, packets: 100, bytes: 10_000 }],
  };
  const now: AgentStats = {
    at: 3000,
    counters: { packets_in: 2100, bytes_in: 2_010_000, flows_opened: 9, requests_in: 10, streams_opened: 2 },
    drops: { no_route: 5, spoofed_source: 40 },
    networks: [
      { account: 'acme', vnet: 'production', flows: 3, packets: 1100, bytes: 1_010_000 },
      { account: 'acme', vnet: 'staging', flows: 1, packets: 1000, bytes: 2_000_000 },
    ],
  };
  assert.equal(
    formatTop(PLAIN, { before, now, flows: [] }),
    `4 flows   2 new flows/s   1 new streams/s   1.00 k packets/s   8.00 Mbit/s   5 requests/s   22 drops/s

network          flows  packets/s  bytes/s
acme/staging         1        500   1.00 M
acme/production      3        500    500 k

dropped because  total  per second
spoofed_source      40          20
no_route             5           2
`,
  );
});

test('top lists the flows that moved most', () => {
  const stats: AgentStats = { at: 1, counters: {}, drops: {}, networks: [] };
  const flow = {
    flow: 7,
    account: 'acme',
    vnet: 'production',
    onRamp: 'laptop',
    offRamp: null,
    layer: 'ip',
    protocol: 'icmp',
    source: { address: 'fd00::1', port: 0 },
    destination: { address: 'fd00::2', port: 443 },
    state: 'open',
    rule: 'r',
    packets: 1,
    bytes: 1500,
    ageMs: 61_000,
    idleMs: 0,
  } as const;
  const text = formatTop(PLAIN, { before: stats, now: stats, flows: [{ ...flow, flow: 8, bytes: 1 }, flow] });
  const [, , , first, second] = text.split('\n');
  assert.match(
    first as string,
    /^ +7 {2}acme\/production {2}fd00::1 {2}\[fd00::2\]:443 {2}icmp {2}- +1\.50 k {2}61s$/,
  );
  assert.match(second as string, /^ +8 /);
});

test('status never says that a ramp works when it does not', () => {
  const status: AgentStatus = {
    protocol: 1,
    version: '0.1.0',
    pid: 42,
    config: '/etc/rampart.yaml',
    io: 'uring',
    workers: 1,
    startedAt: 0,
    draining: false,
    onRamps: [{ name: 'web', type: 'tcp', where: '127.0.0.1:8080', trouble: '' }],
    offRamps: [{ name: 'far', type: 'ip-tunnel', where: 'unix:/x', trouble: 'not connected: ECONNREFUSED' }],
  };
  assert.equal(
    formatStatus(PLAIN, status, 3_600_400),
    `rampart 0.1.0 is running since 1h, process 42, uring, 1 worker
config /etc/rampart.yaml

ramp  name  type       where           state
on    web   tcp        127.0.0.1:8080  works
off   far   ip-tunnel  unix:/x         not connected: ECONNREFUSED
`,
  );
});
