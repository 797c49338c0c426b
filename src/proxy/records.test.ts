import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { FlowRecord } from '#contract/record.ts';
import type { TraceEvent } from '#contract/trace.ts';

import { Records } from './records.ts';

const RECORD: FlowRecord = {
  flow: 7,
  account: 'acme',
  vnet: 'production',
  identity: null,
  onRamp: 'in',
  offRamp: 'out',
  layer: 'tcp',
  protocol: 'tcp',
  source: { address: '10.0.0.1', port: 4000 },
  destination: { address: '10.0.0.2', port: 80 },
  rule: 'any',
  reason: 'client_closed',
  startedAt: 1000,
  endedAt: 1250,
  bytesUp: 10,
  bytesDown: 20,
  packetsUp: 1,
  packetsDown: 2,
};

function watched(enabled: boolean) {
  const events: TraceEvent[] = [];
  const tracer = { enabled, emit: (event: TraceEvent) => void events.push(event), packet: () => {} };
  const ended: FlowRecord[] = [];
  const records = new Records({ tracer, now: () => 5, end: (record) => void ended.push(record), log: null });
  return { events, ended, records };
}

test('a record reaches the end hook and the totals of its own network only', () => {
  const { records, ended, events } = watched(false);
  records.record(RECORD);
  records.record({ ...RECORD, vnet: 'staging', bytesUp: 1 });
  records.record(RECORD);
  assert.equal(ended.length, 3);
  assert.deepEqual(events, []);
  assert.deepEqual(
    [...records.totals],
    [
      { account: 'acme', vnet: 'production', packets: 6, bytes: 60 },
      { account: 'acme', vnet: 'staging', packets: 3, bytes: 21 },
    ],
  );
});

test('the trace says how a flow ended, when somebody watches', () => {
  const { records, events } = watched(true);
  records.record(RECORD);
  assert.equal(events[0]?.tuple, '10.0.0.1:4000 > 10.0.0.2:80 tcp');
  assert.match(events[0]?.text ?? '', /client_closed.*10 bytes up, 20 down in 250 ms/);
});

test('flow numbers are never given twice', () => {
  const { records } = watched(false);
  const numbers = Array.from({ length: 100 }, () => records.nextFlowNumber());
  assert.equal(new Set(numbers).size, 100);
  assert.equal(records.nextFlow, 101);
});
