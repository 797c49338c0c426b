import assert from 'node:assert/strict';
import { test } from 'node:test';

import { speedTable } from './speed-table.ts';

test('without results the table says how to get them', () => {
  assert.match(speedTable([]), /npm run bench -- --save/);
});

test('a row has the figure, its direction and the ratio to each peer', () => {
  const result = {
    name: 'http1',
    unit: 'CPU µs/request',
    conditions: '64 connections',
    rampart: 14.256,
    peers: { nginx: 17.1, haproxy: 1234.5 },
    ratio: { nginx: 0.8337, haproxy: 0.01155 },
  };
  const text = speedTable([
    { machine: '2 × CPU', at: '2026-01-02', results: [result] },
    { machine: '2 × CPU', at: '2026-01-02', results: [{ ...result, name: 'ip', higherIsBetter: true }] },
  ]);
  assert.match(text, /\| \*\*http1\*\* 64 connections \| CPU µs\/request, lower is better \| 14\.3 \|/);
  assert.match(text, /nginx 17\.1 \(×0\.834\)<br>haproxy 1,235 \(×0\.0115\)/);
  assert.match(text, /\*\*ip\*\* .*higher is better/);
  assert.equal(text.split('Measured 2026-01-02: 2 × CPU.').length, 2, 'one line for two files of one run');
});
