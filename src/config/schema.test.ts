import assert from 'node:assert/strict';
import { test } from 'node:test';

import { parseConfig } from './config.ts';
import { formatLimit, LIMITS, limitKey } from './limits.ts';
import { configReference } from './reference.ts';
import { configJsonSchema } from './schema.ts';

test('the JSON Schema is a plain draft 2020-12 schema that refuses unknown keys everywhere', () => {
  const schema = configJsonSchema() as Record<string, unknown>;
  assert.equal(schema.$schema, 'https://json-schema.org/draft/2020-12/schema');
  assert.deepEqual(JSON.parse(JSON.stringify(schema)), schema);
  const walk = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    const { type, properties, additionalProperties } = value as Record<string, unknown>;
    if (type === 'object' && properties !== undefined) assert.equal(additionalProperties, false);
    for (const member of Object.values(value)) walk(member);
  };
  walk(schema);
});

test('every key of the schema says what it means', () => {
  const silent: string[] = [];
  const walk = (value: Record<string, unknown>, path: string): void => {
    for (const [key, member] of Object.entries(
      (value.properties ?? {}) as Record<string, Record<string, unknown>>,
    )) {
      if (member.description === undefined && member.const === undefined) silent.push(`${path}.${key}`);
      walk(member, `${path}.${key}`);
    }
    const items = value.items as Record<string, unknown> | undefined;
    if (items !== undefined) walk(items, `${path}[]`);
    for (const option of (value.oneOf ?? []) as Record<string, unknown>[]) walk(option, path);
  };
  walk(configJsonSchema(), '');
  assert.deepEqual(silent, []);
});

test('every limit has a default within its bounds, and can be written and read back', () => {
  for (const [limit, definition] of Object.entries(LIMITS)) {
    assert.ok(definition.min <= definition.default && definition.default <= definition.max, limit);
    for (const value of [definition.min, definition.default, definition.max]) {
      const text =
        'on_ramps: [{ name: w, type: tcp, listen: ":1" }]\nlimits: { ' +
        `${limitKey(limit)}: ${formatLimit(definition, value)} }`;
      const { config } = parseConfig('x.yaml', text);
      assert.equal(config.limits[limit as keyof typeof config.limits], value, limit);
    }
  }
});

test('the reference page names every limit and every type', () => {
  const page = configReference();
  for (const limit of Object.keys(LIMITS)) assert.ok(page.includes(`\`${limitKey(limit)}\``), limit);
  for (const type of ['tun', 'ip-tunnel', 'gue', 'tcp', 'udp'])
    assert.ok(page.includes(`### on_ramps: ${type}\n`));
  for (const type of ['sockets', 'http', 'reject', 'on-ramp'])
    assert.ok(page.includes(`### off_ramps: ${type}\n`));
});
