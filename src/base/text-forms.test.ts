/** Durations, sizes, nearest names and log lines: the forms in which people read and write values. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { formatDuration, parseDuration } from './duration.ts';
import { createLog } from './log.ts';
import { didYouMean, nearestName } from './nearest.ts';
import { formatSize, parseSize } from './size.ts';

test('durations are read in all their units', () => {
  const cases = {
    '250ms': 250,
    '30s': 30_000,
    '5m': 300_000,
    '1h30m': 5_400_000,
    '2d': 172_800_000,
    '1.5s': 1500,
  };
  for (const [text, milliseconds] of Object.entries(cases))
    assert.equal(parseDuration(text), milliseconds, text);
});

test('what is no duration is refused', () => {
  for (const text of [
    '',
    '30',
    's',
    '-1s',
    '1 s',
    '1y',
    '1h-30m',
    'NaNs',
    '1e3s',
    '1..5s',
    '٣s',
    '99999999999999d',
  ]) {
    assert.equal(parseDuration(text), null, text);
  }
});

test('every duration is read back as it was written', () => {
  fc.assert(
    fc.property(fc.nat(2 ** 40), (ms) => parseDuration(formatDuration(ms)) === ms),
    { numRuns: 500 },
  );
});

test('sizes are read in all their units', () => {
  const cases = { '512': 512, '512B': 512, '64KiB': 65_536, '1.5MiB': 1_572_864, '2 GiB': 2 ** 31 };
  for (const [text, bytes] of Object.entries(cases)) assert.equal(parseSize(text), bytes, text);
});

test('what is no size is refused: also the ambiguous KB', () => {
  for (const text of ['', '-1', '1KB', '1K', '0.3B', 'KiB', '1e3', '9999999999999999GiB']) {
    assert.equal(parseSize(text), null, text);
  }
});

test('every size is read back as it was written', () => {
  fc.assert(
    fc.property(fc.nat(2 ** 40), (bytes) => parseSize(formatSize(bytes)) === bytes),
    { numRuns: 500 },
  );
});

test('the nearest name is found over swaps, misses, case and dashes', () => {
  const names = ['on_ramps', 'off_ramps', 'routes', 'listen', 'limits'];
  assert.equal(nearestName('on-ramps', names), 'on_ramps');
  assert.equal(nearestName('onramp', names), 'on_ramps');
  assert.equal(nearestName('lsiten', names), 'listen');
  assert.equal(nearestName('Listen', names), 'listen');
  assert.equal(nearestName('route', names), 'routes');
  assert.equal(nearestName('zebra', names), null);
  assert.equal(nearestName('', names), null);
  assert.equal(nearestName('x'.repeat(10_000), names), null);
  assert.equal(didYouMean('limit', names), '; did you mean "limits"?');
  assert.equal(didYouMean('zebra', names), '');
});

test('a log line has its time, level and fields, for a person or as JSON', () => {
  const lines: string[] = [];
  const options = { write: (line: string) => void lines.push(line), now: () => 3_723_004 };
  createLog({ format: 'text', ...options }).info('on-ramp open', { name: 'web', where: 'a b' });
  createLog({ format: 'text', ...options }).warning('slow');
  createLog({ format: 'json', ...options }).error('lost', { count: 3 });
  assert.equal(lines[0], '01:02:03.004 on-ramp open name=web where="a b"\n');
  assert.equal(lines[1], '01:02:03.004 warning: slow\n');
  assert.deepEqual(JSON.parse(lines[2] as string), {
    at: '1970-01-01T01:02:03.004Z',
    level: 'error',
    text: 'lost',
    count: 3,
  });
});

test('nobody forges a log line, nor moves the cursor', () => {
  const lines: string[] = [];
  const log = createLog({ format: 'text', write: (line) => void lines.push(line), now: () => 0 });
  log.info('refused \x1b[2J', { reason: 'a\n00:00:00.000 all is well' });
  assert.equal(lines.length, 1);
  assert.ok(!lines[0]?.includes('\x1b'));
  assert.equal(lines[0]?.trimEnd().split('\n').length, 1);
});
