/**
 * Two accounts with two vnets each, all with the same addresses and ports on both sides, under load at once
 * through every on-ramp, every upgrade and every off-ramp: nothing ever reaches a network that it is not of.
 *
 *   tun-client0…3 ──tun──────────────────────────────── ┌────────┐ ──tun───────────────────────── server0…3
 *   seqpacket-client0…3 ──tun── near ──SEQPACKET─────── │ middle │ ──SEQPACKET─── far ──tun────── far0…3
 *   gue-client0…3 ────────tun── near ──GUE───────────── │        │ ──GUE───────── far ──tun────── far0…3
 *   test ──TCP and UDP listeners of loopback─────────── └────────┘ ──sockets, HTTP─── origins on loopback
 *
 * In each network the clients are 100.64.0.2 to .4 and the server is 10.10.0.10. A server answers with the
 * name of its network, and notices a request that is for another one; a client counts answers that are not of
 * its own.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Hosts, lacksHosts } from '#testing/hosts.ts';
import { joinReports, type LoadReport, type LoadTarget, runLoad } from '#testing/load.ts';
import { Origin, type ServicePort } from '#testing/origins.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll, until } from '#testing/until.ts';

import {
  CLIENT_WAYS,
  farConfig,
  LISTENER_SERVICES,
  listenerName,
  middleConfig,
  NETWORKS,
  nearConfig,
  SERVER,
  SERVICES,
  type Service,
  type TestNetwork,
} from './isolation-world.ts';

const PARALLEL = 4;
const ROUNDS = 4;

const skip = lacksHosts();
let folder: string;
let hosts: Hosts;
let near: RampartProcess | undefined;
let middle: RampartProcess;
let far: RampartProcess | undefined;
let origins: Origin[] = [];
let descriptors: number;

/** The ports of the services that a server has to have. */
function portsOf(offRamps: readonly string[]): ServicePort[] {
  return SERVICES.filter(({ offRamp }) => offRamps.includes(offRamp)).map(
    ({ protocol, port }): ServicePort => `${protocol === 'tcp' ? 'http' : 'datagrams'}@${port}`,
  );
}

before(async () => {
  if (skip) return;
  folder = mkdtempSync(join(tmpdir(), 'rampart-isolation-'));
  hosts = await Hosts.open(
    NETWORKS.flatMap((_, i) => [
      ...Object.keys(CLIENT_WAYS).map((way) => `${way}-client${i}`),
      `server${i}`,
      `far${i}`,
    ]),
  );
  const starting = NETWORKS.map(async ({ name }, i) => {
    await Origin.start(name, portsOf(['tun']), { hosts, on: `server${i}` });
    await Origin.start(name, portsOf(['seqpacket', 'gue']), { hosts, on: `far${i}` });
    return Origin.start(name, ['http@0', 'datagrams@0']);
  });
  origins = await Promise.all(starting);
  const farSeqpacket = join(folder, 'far.sock');
  const seqpacket = join(folder, 'middle.sock');
  far = await RampartProcess.start({ config: farConfig(farSeqpacket), hosts });
  const farGuePort = await far.port('by-gue');
  const config = middleConfig({ seqpacket, farSeqpacket, farGuePort, origins });
  middle = await RampartProcess.start({ config, hosts });
  const guePort = await middle.port('by-gue');
  near = await RampartProcess.start({ config: nearConfig({ seqpacket, guePort }), hosts });
  descriptors = middle.descriptors;
});

after(async () => {
  if (skip) return;
  await closeAll(near, middle, far, ...origins, hosts, () =>
    rmSync(folder, { recursive: true, force: true }),
  );
});

function targetsOfClient(network: TestNetwork, way: string): LoadTarget[] {
  return SERVICES.map((service) => ({
    ...targetOf(network, way, service),
    address: SERVER,
    port: service.port,
  }));
}

function targetOf(network: TestNetwork, onRamp: string, service: Service) {
  const label = `${onRamp} > ${service.protocol} ${service.upgrade} > ${service.offRamp}`;
  const protocol = service.protocol === 'tcp' ? ('http' as const) : ('udp' as const);
  return { label, protocol, expect: network.name };
}

async function targetsOfListeners(): Promise<LoadTarget[]> {
  const targets: LoadTarget[] = [];
  for (const [i, network] of NETWORKS.entries()) {
    for (const service of LISTENER_SERVICES) {
      const port = await middle.port(listenerName(i, service));
      targets.push({ ...targetOf(network, 'listener', service), address: '127.0.0.1', port });
    }
  }
  return targets;
}

test('four networks with equal addresses never mix, by any way in, up and out', { skip }, async () => {
  const loads: Promise<LoadReport>[] = NETWORKS.flatMap((network, i) =>
    Object.keys(CLIENT_WAYS).map((way) =>
      runLoad(
        { targets: targetsOfClient(network, way), parallel: PARALLEL, rounds: ROUNDS },
        { place: { hosts, on: `${way}-client${i}` } },
      ),
    ),
  );
  const targets = await targetsOfListeners();
  loads.push(runLoad({ targets, parallel: PARALLEL, rounds: ROUNDS }));
  const report = joinReports(await Promise.all(loads));
  const wrong = report.wrong.join('\n');
  assert.equal(report.foreign, 0, wrong);
  assert.equal(report.failed, 0, wrong);
  // Every way was used by every network, every time.
  const each = NETWORKS.length * PARALLEL * ROUNDS;
  for (const [label, right] of Object.entries(report.byLabel)) assert.equal(right, each, label);
  const ways = Object.keys(CLIENT_WAYS).length * SERVICES.length + LISTENER_SERVICES.length;
  assert.equal(Object.keys(report.byLabel).length, ways);
});

test('nothing is left of the load', { skip }, async () => {
  await until('no flow is left', async () => (await middle.flows()).length === 0);
  // The stack keeps some sockets in stock.
  await middle.descriptorsBackTo(descriptors, 64);
});
