import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';

import { BodyReader, requestFraming } from './body.ts';
import { parseRequestHead } from './head.ts';
import { MessageHead } from './message-head.ts';
import { latin1Bytes, latin1Text } from './octets.ts';

/**
 * A second opinion: what is accepted here, Node's own parser (llhttp, strict) must accept too and read in the
 * same way. A message that two parsers read differently is how requests are smuggled.
 */
interface Reading {
  readonly method: string;
  readonly target: string;
  readonly fields: readonly string[];
  readonly body: string;
}

interface Message {
  readonly reading: Reading;
  /** The bytes of the message alone: where it ends is part of what must be agreed on. */
  readonly text: string;
}

/** What this parser makes of `text`, or null when it refuses or wants more. */
function readHere(text: string): Message | null {
  const bytes = latin1Bytes(text);
  const head = new MessageHead();
  let at = parseRequestHead(bytes, 0, bytes.length, head);
  if (at <= 0) return null;
  const reader = new BodyReader();
  reader.begin(requestFraming(head), head.contentLength);
  let body = '';
  while (!reader.done) {
    if (at === bytes.length) return null;
    at = reader.next(bytes, at, bytes.length);
    if (at < 0) return null;
    body += latin1Text(bytes, reader.dataStart, reader.dataStart + reader.dataLength);
  }
  const fields = head.fields.entries().flat();
  return { reading: { method: head.methodText, target: head.target, fields, body }, text: text.slice(0, at) };
}

/** What Node's server makes of it: the first request, or null when it answers 400. */
function readByNode(text: string): Promise<Reading | null> {
  return new Promise((resolve) => {
    const server = createServer({ insecureHTTPParser: false, requireHostHeader: false });
    const answer = (request: IncomingMessage, response: ServerResponse | null) => {
      const parts: Buffer[] = [];
      const finish = (body: string) => {
        const fields = request.rawHeaders.map((text, i) => (i % 2 === 0 ? text.toLowerCase() : text));
        resolve({ method: request.method ?? '', target: request.url ?? '', fields, body });
        near.destroy();
      };
      if (response === null) return finish('');
      request.on('data', (chunk: Buffer) => parts.push(chunk));
      request.on('end', () => finish(Buffer.concat(parts).toString('latin1')));
    };
    server.on('request', answer);
    server.on('checkContinue', answer);
    server.on('checkExpectation', answer);
    server.on('upgrade', (request) => answer(request, null));
    server.on('connect', (request) => answer(request, null));
    server.on('clientError', () => {
      resolve(null);
      near.destroy();
    });
    const [near, far] = duplexPair();
    near.on('error', () => {});
    far.on('error', () => {});
    server.emit('connection', far);
    near.end(Buffer.from(text, 'latin1'));
  });
}

const NAMES = ['Accept', 'X-One', 'Content-Length', 'Transfer-Encoding', 'Connection', 'Expect', 'Cookie'];
const VALUES = [
  '',
  'a',
  ' a b ',
  '5',
  'chunked',
  'close',
  '\xe4',
  '100-continue',
  'gzip, chunked',
  '0',
  'x\ty',
];

const field = fc
  .tuple(fc.constantFrom(...NAMES), fc.constantFrom(':', ': ', ' :', ':\t'), fc.constantFrom(...VALUES))
  .map((parts) => parts.join(''));

const message = fc
  .tuple(
    fc.constantFrom('GET', 'POST', 'OPTIONS', 'PUT', 'DELETE', 'PATCH'),
    fc.constantFrom('/', '/a?b=c', '*', 'http://a/b', '/%00', '/;a=|'),
    fc.constantFrom('HTTP/1.1', 'HTTP/1.0'),
    fc.array(field, { maxLength: 5 }),
    fc.constantFrom('\r\n', '\r\n', '\r\n', '\n', '\r'),
    fc.constantFrom(
      '',
      'hello',
      '5\r\nhello\r\n0\r\n\r\n',
      '0\r\nX: y\r\n\r\n',
      '5;a=b\r\nhello\r\n0\r\n\r\n',
    ),
  )
  .map(([method, target, version, fields, end, body]) =>
    [`${method} ${target} ${version}`, 'Host: a', ...fields, '', body].join(end),
  );

test('what is accepted here is accepted by llhttp and read in the same way', async () => {
  let accepted = 0;
  await fc.assert(
    fc.asyncProperty(message, async (text) => {
      const here = readHere(text);
      if (here === null) return;
      accepted++;
      assert.deepEqual(await readByNode(here.text), here.reading, JSON.stringify(text));
    }),
    { numRuns: 600 },
  );
  assert.ok(accepted > 30, 'the generator makes messages that are accepted');
});
