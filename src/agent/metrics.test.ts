/** The metrics page against a strict parser of its own, and the server over a real socket. */
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { test } from 'node:test';

import { DropReason } from '#base/drop-reason.ts';
import { RampartError } from '#base/error.ts';
import type { MetricsSnapshot, NetworkFigures } from '#contract/metrics.ts';
import { Counter, createStats } from '#proxy/stats.ts';

import { type Figures, METRICS, metricsPage, NETWORKS_MAX, OTHER } from './metrics-page.ts';
import { MetricsServer } from './metrics-server.ts';

const PROCESS: Figures['process'] = {
  cpuSeconds: 1.25,
  residentBytes: 1e8,
  heapBytes: 1e7,
  startedAt: 1.7e9,
  loopLagMean: 0.001,
  loopLagP99: 0.002,
  loopLagMax: 0.003,
};

function snapshot(networks: readonly NetworkFigures[] = []): MetricsSnapshot {
  return {
    ...createStats(),
    networks,
    live: { flows: 3, tunnels: 1, streams: 2, sessions: 4, httpConnections: 5, requests: 6 },
    buffers: [{ pool: 'packets', inUse: 1, count: 1024 }],
    status: {
      protocol: 1,
      version: '0.1.0',
      pid: 7,
      config: '/etc/rampart.yaml',
      io: 'epoll',
      workers: 1,
      startedAt: 1,
      draining: false,
      onRamps: [{ name: 'web', type: 'tcp', where: '', trouble: '' }],
      offRamps: [{ name: 'far', type: 'gue', where: '', trouble: 'no "route"\nto it' }],
    },
  };
}

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const LABEL = '[a-z_]+="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';
/** A line with a value: name, labels with commas between them, value. */
const SAMPLE = new RegExp(`^(${NAME})(\\{(?:${LABEL}(?:,(?=[a-z])|(?=\\})))+\\})? (\\S+)$`);

/** Reads the text format strictly: any line out of place is an error. */
function parse(page: string): Map<string, { type: string; samples: Map<string, number> }> {
  const families = new Map<string, { type: string; samples: Map<string, number> }>();
  assert.ok(page.endsWith('\n'), 'the last line ends');
  let current = '';
  let helped = '';
  for (const line of page.slice(0, -1).split('\n')) {
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) \S.*$/.exec(line);
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge)$/.exec(line);
    if (help !== null) {
      helped = help[1] as string;
      assert.ok(!families.has(helped), `${helped} comes once`);
    } else if (type !== null) {
      current = type[1] as string;
      assert.equal(current, helped, 'HELP stands before TYPE of the same metric');
      assert.equal(current.endsWith('_total'), type[2] === 'counter', `${current}: counters end in _total`);
      families.set(current, { type: type[2] as string, samples: new Map() });
    } else {
      const sample = SAMPLE.exec(line);
      assert.ok(sample, `no line of the format: ${line}`);
      assert.equal(sample[1], current, 'samples stand below their TYPE');
      const { samples } = families.get(current) as { samples: Map<string, number> };
      const labels = sample[2] ?? '';
      assert.ok(!samples.has(labels), `${current}${labels} comes once`);
      const value = Number(sample[3]);
      assert.ok(Number.isFinite(value), line);
      samples.set(labels, value);
    }
  }
  return families;
}

test('the page holds to the text format and has every metric with its value', () => {
  const figures = { ...snapshot(), process: PROCESS };
  figures.counters[Counter.PacketsIn] = 7;
  figures.drops[1] = 9;
  const families = parse(metricsPage(figures));
  assert.deepEqual(
    [...families.keys()],
    METRICS.map(({ name }) => name),
  );
  assert.equal(families.get('rampart_packets_in_total')?.samples.get(''), 7);
  assert.equal(families.get('rampart_drops_total')?.samples.size, Object.keys(DropReason).length - 1);
  assert.deepEqual([...(families.get('rampart_drops_total')?.samples.values() ?? [])][0], 9);
  assert.equal(families.get('rampart_flows')?.samples.get(''), 3);
  assert.equal(families.get('process_cpu_seconds_total')?.samples.get(''), 1.25);
  const ramps = families.get('rampart_ramp_up')?.samples;
  assert.equal(ramps?.get('{direction="in",name="web",type="tcp"}'), 1);
  assert.equal(ramps?.get('{direction="out",name="far",type="gue"}'), 0);
});

test('networks beyond the limit are one series together, and no byte is lost', () => {
  const networks = Array.from({ length: NETWORKS_MAX + 10 }, (_, index) => ({
    account: `a${index}`,
    vnet: 'v',
    packets: 1,
    bytes: 100,
  }));
  const samples = parse(metricsPage({ ...snapshot(networks), process: PROCESS })).get(
    'rampart_network_bytes_total',
  )?.samples as Map<string, number>;
  assert.equal(samples.size, NETWORKS_MAX + 1);
  assert.equal(samples.get('{account="a0",vnet="v"}'), 100);
  assert.equal(samples.get(`{account="${OTHER}",vnet="${OTHER}"}`), 1000);
});

test('label values are escaped', () => {
  const networks = [{ account: 'a"b\\c\nd', vnet: 'v', packets: 1, bytes: 1 }];
  const page = metricsPage({ ...snapshot(networks), process: PROCESS });
  const families = parse(page);
  assert.ok(families.get('rampart_network_bytes_total')?.samples.has('{account="a\\"b\\\\c\\nd",vnet="v"}'));
});

test('the server answers /metrics, and nothing else', async () => {
  const server = await MetricsServer.listen({ address: '127.0.0.1', port: 0 }, { metrics: snapshot });
  try {
    const page = await ask(server, 'GET', '/metrics?x=1');
    assert.equal(page.status, 200);
    assert.equal(page.type, 'text/plain; version=0.0.4; charset=utf-8');
    const families = parse(page.body);
    assert.ok((families.get('process_resident_memory_bytes')?.samples.get('') ?? 0) > 1e6);
    assert.ok((families.get('rampart_event_loop_lag_max_seconds')?.samples.get('') ?? -1) >= 0);
    assert.equal((await ask(server, 'HEAD', '/metrics')).body, '');
    assert.equal((await ask(server, 'POST', '/metrics')).status, 405);
    assert.equal((await ask(server, 'GET', '/')).status, 404);
  } finally {
    await server.close();
  }
});

test('an address that is taken is a failure with its code', async () => {
  const server = await MetricsServer.listen({ address: '127.0.0.1', port: 0 }, { metrics: snapshot });
  try {
    const port = Number(server.where.split(':')[1]);
    await assert.rejects(
      MetricsServer.listen({ address: '127.0.0.1', port }, { metrics: snapshot }),
      (error) => error instanceof RampartError && error.code === 'RAMP_LISTEN',
    );
  } finally {
    await server.close();
  }
});

function ask(
  server: MetricsServer,
  method: string,
  path: string,
): Promise<{ status: number; type: string | undefined; body: string }> {
  return new Promise((resolve, reject) => {
    const asked = request(`http://${server.where}${path}`, { method, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => {
        body += text;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, type: response.headers['content-type'], body }),
      );
    });
    asked.on('error', reject);
    asked.end();
  });
}
