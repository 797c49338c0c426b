import assert from 'node:assert/strict';
import { test } from 'node:test';

import { loadConfig, parseConfig } from './config.ts';
import { ConfigError } from './mistake.ts';

const SMALL = `
on_ramps:
  - { name: web, type: tcp, listen: "127.0.0.1:0" }
off_ramps:
  - { name: origin, type: http, origins: [127.0.0.1:9000] }
routes:
  - { on_ramp: web, via: origin }
`;

function mistakesOf(text: string): string[] {
  try {
    parseConfig('x.yaml', text);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.mistakes.map(({ line, column, path }) => `${line}:${column} ${path}`);
  }
  return [];
}

test('the smallest config is complete with defaults', () => {
  const { config, warnings } = parseConfig('/etc/rampart/x.yaml', SMALL);
  assert.deepEqual(warnings, []);
  assert.equal(config.file, '/etc/rampart/x.yaml');
  assert.equal(config.io, 'auto');
  assert.equal(config.hooks, null);
  assert.equal(config.limits.connectMs, 10_000);
  assert.deepEqual(config.telemetry, {
    control: undefined,
    log: 'text',
    records: false,
    trace: false,
    metrics: null,
    accessLog: null,
    traceContext: false,
  });
  const [web] = config.onRamps;
  assert.ok(web?.type === 'tcp');
  assert.equal(`${web.context.account}/${web.context.vnet}`, 'default/default');
  assert.equal(config.routes[0]?.upgrade, 'http');
});

test('the config is frozen all the way down, but for the settings of the application', () => {
  const { config } = parseConfig('x.yaml', `${SMALL}\napp: { list: [1] }`);
  assert.throws(() => (config.onRamps as unknown[]).push(1), TypeError);
  assert.throws(() => {
    (config.limits as { connectMs: number }).connectMs = 1;
  }, TypeError);
  assert.throws(() => {
    (config as { app: unknown }).app = 1;
  }, TypeError);
  (config.app as { list: number[] }).list.push(2);
  assert.deepEqual(config.app, { list: [1, 2] });
});

test('the hooks file is found from the place of the config', () => {
  const { config } = parseConfig('/etc/rampart/x.yaml', `${SMALL}\nhooks: ./app/hooks.ts`);
  assert.equal(config.hooks, '/etc/rampart/app/hooks.ts');
});

test('a mistake inside an alias points to where the value was written', () => {
  const text = `
on_ramps:
  - name: a
    type: tcp
    listen: ":80"
    context: &net
      account: acme
      vnet: no good
  - { name: b, type: tcp, listen: ":81", context: *net }
`;
  assert.deepEqual(mistakesOf(text), ['8:13 on_ramps[0].context.vnet', '8:13 on_ramps[1].context.vnet']);
});

test('an empty, a scalar and a hostile document are mistakes of their own', () => {
  assert.deepEqual(mistakesOf(''), ['1:1 ']);
  assert.deepEqual(mistakesOf('7'), ['1:1 ']);
  assert.deepEqual(
    mistakesOf('__proto__: { x: 1 }\non_ramps: [{ name: w, type: tcp, listen: ":1" }]').length,
    1,
  );
  for (const depth of [2000, 20_000]) {
    assert.ok(mistakesOf(`on_ramps: ${'['.repeat(depth)}${']'.repeat(depth)}`).length > 0);
  }
});

test(
  'listeners overlap by wildcard addresses, not across protocols, nor where the kernel picks ' + 'the port',
  () => {
    const ramps = (one: string, two: string) => mistakesOf(`on_ramps:\n  - ${one}\n  - ${two}\n`);
    const tcp = (name: string, listen: string) => `{ name: ${name}, type: tcp, listen: "${listen}" }`;
    const udp = (name: string, listen: string) => `{ name: ${name}, type: udp, listen: "${listen}" }`;
    assert.equal(ramps(tcp('a', ':80'), tcp('b', '10.0.0.1:80')).length, 1);
    assert.equal(ramps(tcp('a', '0.0.0.0:80'), tcp('b', '10.0.0.1:80')).length, 1);
    assert.equal(ramps(tcp('a', '0.0.0.0:80'), tcp('b', '[fd00::1]:80')).length, 0);
    assert.equal(ramps(tcp('a', '10.0.0.1:80'), tcp('b', '10.0.0.2:80')).length, 0);
    assert.equal(ramps(tcp('a', ':80'), udp('b', ':80')).length, 0);
    assert.equal(ramps(tcp('a', '127.0.0.1:0'), tcp('b', '127.0.0.1:0')).length, 0);
    assert.equal(ramps(tcp('a', 'unix:/x'), tcp('b', 'unix:/x')).length, 1);
  },
);

test('the same prefix may stand in any number of vnets, and nested in one, yet not twice', () => {
  const config = (routes: string) => `
on_ramps: [{ name: t, type: ip-tunnel, listen: "unix:/x" }]
off_ramps: [{ name: s, type: sockets }]
routes:
${routes}`;
  const route = (vnet: string, to: string, more = '') =>
    `  - { account: a, vnet: ${vnet}, to: ${to}, via: s${more} }\n`;
  assert.deepEqual(mistakesOf(config(route('p', '10.0.0.0/8') + route('q', '10.0.0.0/8'))), []);
  assert.deepEqual(mistakesOf(config(route('p', '10.0.0.0/8') + route('p', '10.1.0.0/16'))), []);
  assert.deepEqual(mistakesOf(config(route('p', '0.0.0.0/0') + route('p', '10.0.0.0/8'))), []);
  assert.deepEqual(
    mistakesOf(config(route('p', '10.0.0.0/8') + route('p', '10.0.0.0/8', ', protocol: tcp'))),
    [],
  );
  assert.deepEqual(mistakesOf(config(route('p', '10.0.0.0/8') + route('p', '10.0.0.0/8'))), [
    '6:32 routes[1].to',
  ]);
  const twice = route('p', '10.0.0.0/8', ', ports: [80, 443]') + route('p', '10.0.0.0/8', ', ports: [443]');
  assert.deepEqual(mistakesOf(config(twice)), ['6:32 routes[1].to']);
});

test('a thousand vnets with one prefix are read quickly and are no duplicates', () => {
  const routes = Array.from(
    { length: 1000 },
    (_, n) => `  - { account: a, vnet: v${n}, to: 10.0.0.0/24, via: s }`,
  );
  const text =
    'on_ramps: [{ name: t, type: gue, listen: ":6080" }]\noff_ramps: [{ name: s, type: ' +
    `sockets }]\nroutes:\n${routes.join('\n')}`;
  assert.equal(parseConfig('x.yaml', text).config.routes.length, 1000);
});

test('an off-ramp of one network takes it from its routes or its own context', () => {
  const text = (own: string) => `
on_ramps: [{ name: t, type: ip-tunnel, listen: "unix:/x" }]
off_ramps: [{ name: out, type: tun, device: tun9, sources: [10.9.0.0/16]${own} }]
routes: [{ account: a, vnet: p, to: 10.0.0.0/8, via: out }]`;
  const [derived] = parseConfig('x.yaml', text('')).config.offRamps;
  assert.ok(derived?.type === 'tun');
  assert.equal(`${derived.context.account}/${derived.context.vnet}`, 'a/p');
  assert.deepEqual(derived.context.sources, ['10.9.0.0/16']);
  const [own] = parseConfig('x.yaml', text(', context: { account: a, vnet: p, labels: { site: x } }')).config
    .offRamps;
  assert.ok(own?.type === 'tun');
  assert.equal(own.context.labels.site, 'x');
});

test('a file that cannot be read is a mistake of the config', () => {
  assert.throws(() => loadConfig('/nonexistent/rampart.yaml'), {
    code: 'RAMP_CONFIG',
    message: /no such file/,
  });
  assert.throws(() => loadConfig('/'), { code: 'RAMP_CONFIG', message: /cannot be read \(EISDIR\)/ });
});
