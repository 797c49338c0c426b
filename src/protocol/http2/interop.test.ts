import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { type Duplex, duplexPair } from 'node:stream';
import { test } from 'node:test';
import { text } from 'node:stream/consumers';

import type { Http2Stream } from './stream.ts';
import { type Message, Peer } from './test-peer.ts';

/**
 * Joins a peer of ours to one end of a pipe. What it wants to say goes out behind every input, and when told.
 */
function attach(peer: Peer, pipe: Duplex): () => void {
  const flush = () => {
    const bytes = peer.take();
    if (bytes.length > 0) pipe.write(bytes);
  };
  pipe.on('data', (chunk: Buffer) => {
    const outcome = peer.feed(chunk);
    flush();
    assert.equal(outcome, 0);
  });
  pipe.on('error', () => {});
  flush();
  return flush;
}

/** A client of Node on our server. */
function nodeClient(onRequest: (peer: Peer, stream: Http2Stream, message: Message) => void) {
  const [near, far] = duplexPair();
  const peer: Peer = new Peer(
    { isServer: true },
    { onRequest: (stream, message) => onRequest(peer, stream, message) },
  );
  const flush = attach(peer, far);
  const session = connect('http://example.org', { createConnection: () => near });
  return { peer, flush, session };
}

test('a client of Node gets responses, with interim ones and trailers', async () => {
  const { session } = nodeClient((peer, stream, { head }) => {
    peer.respond(stream, 103);
    peer.respond(stream, 200);
    peer.send(stream, `you asked for ${head.path} with ${head.field('x-a')}`);
    peer.trailers(stream, { 'x-end': 'yes' });
  });
  for (let i = 0; i < 20; i++) {
    const stream = session.request({ ':path': `/${i}`, 'x-a': `value ${i}` });
    const interim: number[] = [];
    let trailers: IncomingHttpHeaders = {};
    stream.on('headers', (fields) => interim.push(fields[':status'] as number));
    stream.on('trailers', (fields: IncomingHttpHeaders) => {
      trailers = fields;
    });
    const body = text(stream);
    const [fields] = await once(stream, 'response');
    assert.equal(fields[':status'], 200);
    assert.equal(await body, `you asked for /${i} with value ${i}`);
    assert.deepEqual(interim, [103]);
    assert.equal(trailers['x-end'], 'yes');
  }
  session.destroy();
});

test('a client of Node uploads much, by the windows that we give back', async () => {
  const { peer, session } = nodeClient(() => {});
  const stream = session.request({ ':method': 'POST', ':path': '/' });
  const content = 'z'.repeat(700_000);
  stream.end(content);
  await once(stream, 'finish');
  await untilTrue(() => peer.messages.get(1)?.complete === true);
  assert.equal(peer.message(1).text, content);
  session.destroy();
});

test('a server of Node answers our client, on many streams at once', async () => {
  const server = createServer();
  server.on('stream', (stream: ServerHttp2Stream, fields) => {
    stream.respond({ ':status': 200, 'x-path': fields[':path'] }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '1' }));
    stream.pipe(stream);
  });
  const [near, far] = duplexPair();
  server.emit('connection', far);
  const client = new Peer({ isServer: false });
  const flush = attach(client, near);
  await untilTrue(() => client.connection.peerSettled);
  for (let i = 0; i < 10; i++) {
    const stream = client.request({ 'Content-Length': '5' }, { method: 'POST', path: `/${i}`, ends: false });
    client.send(stream, `body${i}`, true);
  }
  flush();
  await untilTrue(() => [...client.messages.values()].filter(({ complete }) => complete).length === 10);
  for (let i = 0; i < 10; i++) {
    const message = client.message(2 * i + 1);
    assert.equal(message.head.field('x-path'), `/${i}`);
    assert.equal(message.text, `body${i}`);
    assert.equal(message.trailers.field('x-sum'), '1');
  }
});

/** Waits through turns of the event loop; the runner's own limit ends a wait that is for nothing. */
async function untilTrue(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise(setImmediate);
}
