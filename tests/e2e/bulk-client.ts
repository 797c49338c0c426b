/**
 * `node bulk-client.ts up|down ADDRESS PORT BYTES` moves bytes to a `sink` or from a `source` and prints the
 * hash of what arrived at the far end; with a URL as the address, it does so over HTTP.
 */
import { createHash } from 'node:crypto';
import { request } from 'node:http';
import { connect } from 'node:net';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';

import { bulkBytes } from '#testing/bulk-bytes.ts';

const [direction, address = '', port, length = '0'] = process.argv.slice(2);
const body = (): Readable => Readable.from(bulkBytes(Number(length)));

if (address.startsWith('http:')) console.log(await overHttp());
else if (direction === 'up') console.log(await up());
else console.log(await down());

async function up(): Promise<string> {
  const socket = connect({ host: address, port: Number(port), allowHalfOpen: true });
  const answer = text(socket);
  await pipeline(body(), socket, { end: true }).catch(fail);
  return (await answer).trim();
}

async function down(): Promise<string> {
  const socket = connect({ host: address, port: Number(port), allowHalfOpen: true });
  socket.write(`${length}\n`);
  const hash = createHash('sha256');
  for await (const chunk of socket) hash.update(chunk as Buffer);
  socket.end();
  return hash.digest('hex');
}

function overHttp(): Promise<string> {
  return new Promise((resolve) => {
    const asking = request(address, { method: direction === 'up' ? 'POST' : 'GET' }, async (response) => {
      if (response.statusCode !== 200) fail(new Error(`status ${response.statusCode}`));
      if (direction === 'up') {
        resolve((await text(response)).trim());
        return;
      }
      const hash = createHash('sha256');
      for await (const chunk of response) hash.update(chunk as Buffer);
      resolve(hash.digest('hex'));
    });
    asking.on('error', fail);
    if (direction === 'up') pipeline(body(), asking).catch(fail);
    else asking.end();
  });
}

function fail(error: Error): void {
  console.error(error);
  process.exit(1);
}
