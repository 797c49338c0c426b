/**
 * Live state moves from one process to another: flows, tunnels and streams go on where they were, and those
 * at their ends notice nothing.
 *
 *   test 10.0.0.5 ──SEQPACKET──┐      ┌──SEQPACKET── test 10.0.1.80
 *                              old ► new
 *   test ──TCP─────────────────┘      └──TCP──────── echo
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { Origin } from '#testing/origins.ts';
import { PeerEngine, type SeqpacketPeer } from '#testing/packet-peer.ts';
import { reversed, seen, udpPacket } from '#testing/packets.ts';
import { NODE_FLAGS, Program } from '#testing/program.ts';
import { closeAll, until, within } from '#testing/until.ts';

const NODE = join(import.meta.dirname, 'hand-over-node.ts');
const PATH = { source: '10.0.0.5', destination: '10.0.1.80', sourcePort: 4000, destinationPort: 53 };

function start(...args: readonly string[]): Program {
  return new Program(process.execPath, [...NODE_FLAGS, NODE, ...args]);
}

/** Waits for a datagram with this text; earlier ones may have been repeated. */
async function hears(peer: SeqpacketPeer, text: string): Promise<void> {
  await until(`"${text}" arrives`, () => {
    const packet = peer.received.shift();
    return packet !== undefined && Buffer.from(seen(packet).payload).toString() === text;
  });
}

/** A stream through the old process, with what has come back by it. */
async function openStream(
  port: number,
): Promise<{ say(text: string): Promise<void>; end(): Promise<unknown> }> {
  const socket = connect({ host: '127.0.0.1', port });
  let heard = '';
  let expected = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    heard += text;
  });
  await once(socket, 'connect');
  return {
    async say(text) {
      socket.write(text);
      expected += text;
      await until(`the echo of "${text}" comes`, () => heard === expected);
    },
    end() {
      const closed = once(socket, 'close');
      socket.end();
      return within('the end of the stream', closed);
    },
  };
}

test('flows, tunnels and streams go on in another process', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'rampart-hand-over-'));
  const tunnels = join(folder, 'tunnels.sock');
  const handOver = join(folder, 'hand-over.sock');
  const echo = await Origin.start('echo', ['echo@0']);
  const engine = new PeerEngine();
  const next = start('new', handOver);
  const old = start('old', tunnels, handOver, String(echo.ports.echo));
  try {
    await next.says(/ready/);
    const [, port] = await old.says(/ready (\d+)/);
    const client = await engine.connect(tunnels, { account: 'acme', vnet: 'prod', sources: ['10.0.0.5/32'] });
    const server = await engine.connect(tunnels, {
      account: 'acme',
      vnet: 'prod',
      sources: ['10.0.1.80/32'],
    });
    const stream = await openStream(Number(port));
    await stream.say('before');
    await until('both tunnels are open', () => {
      client.send(udpPacket(PATH, 'one'));
      return server.received.length > 0;
    });
    server.received.length = 0;

    old.child.kill('SIGUSR2');
    const ended = await within('the old process ends', old.ended);
    assert.equal(ended.code, 0, ended.errors);
    await next.says(/took over 1 flows, 2 tunnels, 1 streams/);

    // The same flow, both ways: its verdict came along, for the new process would refuse it.
    client.send(udpPacket(PATH, 'two'));
    await hears(server, 'two');
    server.send(udpPacket(reversed(PATH), 'three'));
    await hears(client, 'three');
    await stream.say(' and after');
    await stream.end();
    // Another flow is a new one there.
    client.send(udpPacket({ ...PATH, sourcePort: 4001 }, 'nobody hears this'));
    const report = await until('the new flow is refused', async () => {
      next.child.kill('SIGUSR2');
      const [text] = next.output.match(/\{.*\}\n$/) ?? [];
      const parsed = JSON.parse(text ?? '{}') as { flows: unknown[]; refused: number; opened: number };
      return parsed.refused === 1 ? parsed : null;
    });
    assert.equal(report.opened, 1);
    assert.equal(report.flows.length, 2);
    assert.equal(client.isClosed || server.isClosed, false);
    assert.equal(server.received.length, 0);
  } finally {
    engine.stop();
    await closeAll(
      () => old.stop('SIGKILL'),
      () => next.stop('SIGKILL'),
      echo,
    );
    rmSync(folder, { recursive: true, force: true });
  }
});
