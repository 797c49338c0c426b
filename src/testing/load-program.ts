/** A client: reads a `LoadPlan` from standard input, carries it out, and writes a `LoadReport`. */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';

import type { LoadPlan, LoadTarget } from './load.ts';

/** How long one answer may take; a datagram is sent again in between, as its senders do. */
const ANSWER_MS = 10_000;
const REPEAT_MS = 1000;

/** After so many failures the rest is not asked: the report says enough, and a test ends in time. */
const FAILURES_MAX = 50;

/** Things that went wrong which are told in words. */
const WRONG_MAX = 60;

const plan = JSON.parse(await text(process.stdin)) as LoadPlan;
const report = {
  right: 0,
  foreign: 0,
  failed: 0,
  byLabel: {} as Record<string, number>,
  wrong: [] as string[],
};
const loops: Promise<void>[] = [];
for (let number = 0; number < plan.parallel; number++) loops.push(loop(number));
await Promise.all(loops);
console.log(JSON.stringify(report));
process.exit(0);

async function loop(number: number): Promise<void> {
  for (let round = 0; round < plan.rounds; round++) {
    for (let i = 0; i < plan.targets.length; i++) {
      // Each loop begins elsewhere, so that different ways are in use at the same time.
      const target = plan.targets[(i + number) % plan.targets.length] as LoadTarget;
      if (report.failed >= FAILURES_MAX) return;
      const nonce = `${number}-${round}-${i}`;
      try {
        judge(
          target,
          nonce,
          target.protocol === 'http' ? await askHttp(target, nonce) : await askUdp(target, nonce),
        );
      } catch (error) {
        report.failed++;
        tell(`${target.label}: ${(error as Error).message}`);
      }
    }
  }
}

function judge(target: LoadTarget, nonce: string, answer: string): void {
  const isOwn = answer.includes(`${target.expect} `) && answer.includes(nonce) && !answer.includes('FOREIGN');
  if (isOwn) {
    report.right++;
    report.byLabel[target.label] = (report.byLabel[target.label] ?? 0) + 1;
    return;
  }
  const names = answer.includes('FOREIGN') || / (GET|heard)/.test(answer);
  if (names) report.foreign++;
  else report.failed++;
  tell(`${target.label}: ${answer.slice(0, 200)}`);
}

function tell(what: string): void {
  if (report.wrong.length < WRONG_MAX) report.wrong.push(what);
}

function askHttp(target: LoadTarget, nonce: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: target.address, port: target.port });
    let answer = '';
    socket.setTimeout(ANSWER_MS, () => socket.destroy(new Error('no answer in time')));
    socket.setEncoding('latin1');
    socket.on('connect', () => {
      const host = target.address.includes(':') ? `[${target.address}]` : target.address;
      socket.write(
        `GET /${nonce} HTTP/1.1\r\nHost: ${host}\r\nX-Expect: ${target.expect}\r\nConnection: close\r\n\r\n`,
      );
    });
    socket.on('data', (chunk: string) => {
      answer += chunk;
    });
    socket.on('error', reject);
    socket.on('close', () =>
      answer === '' ? reject(new Error('closed without an answer')) : resolve(answer),
    );
  });
}

function askUdp(target: LoadTarget, nonce: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(target.address.includes(':') ? 'udp6' : 'udp4');
    const message = `expect ${target.expect} ${nonce}`;
    const send = (): void => socket.send(message, target.port, target.address, () => {});
    const again = setInterval(send, REPEAT_MS);
    const end = setTimeout(() => finish(() => reject(new Error('no answer in time'))), ANSWER_MS);
    function finish(settle: () => void): void {
      clearInterval(again);
      clearTimeout(end);
      socket.close();
      settle();
    }
    socket.once('error', (error) => finish(() => reject(error)));
    socket.once('message', (answer) => finish(() => resolve(answer.toString('latin1'))));
    send();
  });
}
