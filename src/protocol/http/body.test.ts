import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';

import { BodyFraming, BodyReader, requestFraming, responseFraming } from './body.ts';
import {
  CHUNKED_OPTIONS,
  ChunkedDecoder,
  lastChunkBytesMax,
  writeChunkHeader,
  writeLastChunk,
} from './chunked.ts';
import { HttpFault, httpFaultFact } from './fault.ts';
import { mayBeTrailer } from './field-kind.ts';
import { parseRequestHead, parseResponseHead } from './head.ts';
import { Method } from './http.ts';
import { MessageHead } from './message-head.ts';
import { latin1Bytes, latin1Text } from './octets.ts';

interface Decoded {
  readonly outcome: string;
  readonly data: string;
  readonly consumed: number;
  readonly decoder: ChunkedDecoder;
}

/** Decodes `text` given in pieces of `step` bytes; `outcome` is done, more, or the name of a fault. */
function decode(text: string, step = text.length, options = CHUNKED_OPTIONS): Decoded {
  const bytes = latin1Bytes(text);
  const decoder = new ChunkedDecoder(options);
  let data = '';
  let at = 0;
  for (let end = Math.min(step, bytes.length); ; end = Math.min(end + step, bytes.length)) {
    while (at < end && !decoder.done) {
      const next = decoder.next(bytes, at, end);
      if (next < 0) return { outcome: httpFaultFact(next).name, data, consumed: at, decoder };
      data += latin1Text(bytes, decoder.dataStart, decoder.dataStart + decoder.dataLength);
      at = next;
    }
    if (decoder.done || end === bytes.length) break;
  }
  return { outcome: decoder.done ? 'done' : 'more', data, consumed: at, decoder };
}

/** The simple twin: whole text, regular expressions, no extensions or trailers. */
function decodeSimply(text: string): string | null {
  let rest = text;
  let data = '';
  for (;;) {
    const size = /^([0-9a-fA-F]{1,8})\r\n/.exec(rest);
    if (size === null) return null;
    rest = rest.slice(size[0].length);
    const length = Number.parseInt(size[1] as string, 16);
    if (length === 0) return rest.startsWith('\r\n') ? data : null;
    if (rest.slice(length, length + 2) !== '\r\n') return null;
    data += rest.slice(0, length);
    rest = rest.slice(length + 2);
  }
}

function encode(parts: readonly string[]): string {
  return `${parts.map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join('')}0\r\n\r\n`;
}

test('chunks are taken apart at every split as when they come whole', () => {
  const text = `${encode(['hello ', 'world', '\r\n0\r\n\r\n'])}GET`;
  for (let step = 1; step <= text.length; step++) {
    const { outcome, data, consumed } = decode(text, step);
    assert.deepEqual([outcome, data, consumed], ['done', 'hello world\r\n0\r\n\r\n', text.length - 3]);
  }
});

test('the decoder agrees with its simple twin on well-formed and on mutilated bodies', () => {
  const parts = fc.array(fc.string({ minLength: 1, maxLength: 20, unit: 'binary-ascii' }), { maxLength: 5 });
  const mutation = fc.option(fc.tuple(fc.nat(60), fc.constantFrom('\r', '\n', '0', 'g', ' ', '')));
  fc.assert(
    fc.property(parts, mutation, fc.integer({ min: 1, max: 9 }), (list, change, step) => {
      let text = encode(list);
      if (change !== null) text = text.slice(0, change[0]) + change[1] + text.slice(change[0] + 1);
      const twin = decodeSimply(text);
      const { outcome, data } = decode(text, step);
      if (twin !== null) assert.deepEqual([outcome, data], ['done', twin], JSON.stringify(text));
      // The twin knows no trailers: a text that only has some is the one thing that the decoder may take
      // alone.
      else if (outcome === 'done') assert.match(text, /0\r\n[^\r]+:/, JSON.stringify(text));
    }),
    { numRuns: 2000 },
  );
});

/** Chunked bodies that must be refused: RFC section, input, fault. */
const REFUSED: readonly [section: string, text: string, fault: keyof typeof HttpFault][] = [
  ['7.1', '0x5\r\nhello\r\n0\r\n\r\n', 'ChunkSizeInvalid'],
  ['7.1', '+5\r\nhello\r\n', 'ChunkSizeInvalid'],
  ['7.1', '-5\r\nhello\r\n', 'ChunkSizeInvalid'],
  ['7.1', ' 5\r\nhello\r\n', 'ChunkSizeInvalid'],
  ['7.1', '5 \r\nhello\r\n', 'ChunkSizeInvalid'],
  ['7.1', '5_0\r\nhello\r\n', 'ChunkSizeInvalid'],
  ['7.1', '\r\nhello\r\n', 'ChunkSizeInvalid'],
  ['7.1', 'g\r\n', 'ChunkSizeInvalid'],
  ['7.1', '5\nhello\r\n', 'ChunkSizeInvalid'],
  ['7.1', '5\rhello\r\n', 'ChunkSizeInvalid'],
  ['7.1', '5\r\r\nhello\r\n', 'ChunkSizeInvalid'],
  ['7.1', '123456789\r\n', 'ChunkSizeTooLarge'],
  ['7.1', '000000005\r\nhello\r\n', 'ChunkSizeTooLarge'],
  ['7.1', 'fffffffffffffffff\r\n', 'ChunkSizeTooLarge'],
  ['7.1', '5\r\nhelloX\r\n', 'ChunkEndInvalid'],
  ['7.1', '5\r\nhello\n0\r\n\r\n', 'ChunkEndInvalid'],
  ['7.1', '5\r\nhello\rX', 'ChunkEndInvalid'],
  ['7.1.1', '5;a\nhello\r\n', 'ChunkExtensionInvalid'],
  ['7.1.1', '5;a=\x00\r\nhello\r\n', 'ChunkExtensionInvalid'],
  ['7.1.1', '5;a\rhello\r\n', 'ChunkSizeInvalid'],
  ['7.1.1', `5;${'a'.repeat(300)}\r\nhello\r\n`, 'ChunkExtensionTooLong'],
  ['7.1.1', `${`1;${'a'.repeat(250)}\r\nx\r\n`.repeat(70)}0\r\n\r\n`, 'ChunkExtensionTooLong'],
  ['7.1.2', '0\r\nX : a\r\n\r\n', 'TrailerInvalid'],
  ['7.1.2', '0\r\nX: a\rb\r\n\r\n', 'TrailerInvalid'],
  ['7.1.2', '0\r\nX: a\nb\r\n\r\n', 'TrailerInvalid'],
  ['7.1.2', '0\r\n X: a\r\n\r\n', 'TrailerInvalid'],
  ['7.1.2', '0\r\nX: a\r\n b\r\n\r\n', 'TrailerInvalid'],
  ['7.1.2', '0\r\n\rX', 'TrailerInvalid'],
  ['7.1.2', `0\r\nX: ${'a'.repeat(5000)}\r\n\r\n`, 'TrailersTooLong'],
  ['7.1.2', `0\r\n${'X: a\r\n'.repeat(40)}\r\n`, 'TrailerInvalid'],
];

for (const [section, text, fault] of REFUSED) {
  test(
    `row 7, RFC 9112 ${section}: chunked ${JSON.stringify(text).slice(0, 60)} ` + `is refused as ${fault}`,
    () => {
      assert.equal(decode(text).outcome, fault);
      assert.equal(decode(text, 1).outcome, fault);
    },
  );
}

test('row 7, RFC 9112 7.1.1: extensions are read over', () => {
  const { outcome, data } = decode('5;a=b;c="d;e"\r\nhello\r\n0;last\r\n\r\n');
  assert.deepEqual([outcome, data], ['done', 'hello']);
});

test('row 8, RFC 9110 6.5.1: trailers are kept apart, and only harmless ones are written on', () => {
  const section =
    'X-Sum: 1\r\nContent-Length: 5\r\nAuthorization: x\r\nHost: evil\r\n' +
    'Transfer-Encoding: chunked\r\nX-Last:  2\r\n';
  for (const step of [1, 7, 1000]) {
    const { outcome, decoder } = decode(`3\r\nabc\r\n0\r\n${section}\r\n`, step);
    assert.equal(outcome, 'done');
    assert.equal(decoder.trailers?.field('x-sum'), '1');
    assert.equal(decoder.trailers?.field('content-length'), '5');
    const out = new Uint8Array(lastChunkBytesMax(decoder.trailers));
    const end = writeLastChunk(out, 0, decoder.trailers);
    assert.equal(latin1Text(out, 0, end), '0\r\nX-Sum: 1\r\nX-Last:  2\r\n\r\n');
    decoder.reset();
    assert.equal(decoder.trailers, null);
  }
  for (const name of ['set-cookie', 'x-forwarded-for', 'proxy-authorization', 'via', 'connection', 'te']) {
    assert.equal(mayBeTrailer(name), false, name);
  }
});

test('row 24: a body that stops short is never done', () => {
  const text = encode(['hello', 'world']);
  for (let length = 0; length < text.length; length++) {
    assert.equal(decode(text.slice(0, length)).outcome, 'more');
  }
});

test('chunk headers are written in the shortest form and read back', () => {
  const out = new Uint8Array(16);
  for (const length of [1, 15, 16, 255, 256, 65535, 0x12345678, 0xffff_ffff]) {
    const end = writeChunkHeader(out, 0, length);
    assert.equal(latin1Text(out, 0, end), `${length.toString(16)}\r\n`);
  }
});

function requestHead(fields: string): MessageHead {
  const bytes = latin1Bytes(`POST / HTTP/1.1\r\nHost: a\r\n${fields}\r\n`);
  const head = new MessageHead();
  assert.equal(parseRequestHead(bytes, 0, bytes.length, head), bytes.length);
  return head;
}

function responseHead(status: number, fields: string): MessageHead {
  const bytes = latin1Bytes(`HTTP/1.1 ${status} X\r\n${fields}\r\n`);
  const head = new MessageHead();
  assert.equal(parseResponseHead(bytes, 0, bytes.length, head), bytes.length);
  return head;
}

test('RFC 9112 6.3: a request body is chunked, counted, or absent', () => {
  assert.equal(requestFraming(requestHead('Transfer-Encoding: chunked\r\n')), BodyFraming.Chunked);
  assert.equal(requestFraming(requestHead('Content-Length: 3\r\n')), BodyFraming.Length);
  assert.equal(requestFraming(requestHead('Content-Length: 0\r\n')), BodyFraming.None);
  assert.equal(requestFraming(requestHead('')), BodyFraming.None);
});

test('row 19, RFC 9112 6.3: HEAD, 1xx, 204 and 304 have no body whatever the fields say', () => {
  const length = 'Content-Length: 9\r\n';
  const chunked = 'Transfer-Encoding: chunked\r\n';
  for (const fields of [length, chunked, '']) {
    assert.equal(responseFraming(responseHead(200, fields), Method.Head), BodyFraming.None);
    for (const status of [100, 103, 204, 304]) {
      assert.equal(responseFraming(responseHead(status, fields), Method.Get), BodyFraming.None);
    }
  }
});

test('row 16, RFC 9110 9.3.6: a 2xx to CONNECT starts the tunnel and its framing is ignored', () => {
  assert.equal(
    responseFraming(responseHead(200, 'Content-Length: 9\r\n'), Method.Connect),
    BodyFraming.Tunnel,
  );
  assert.equal(
    responseFraming(responseHead(403, 'Content-Length: 9\r\n'), Method.Connect),
    BodyFraming.Length,
  );
  assert.equal(responseFraming(responseHead(101, ''), Method.Get), BodyFraming.Tunnel);
});

test('a response without framing fields runs until the connection ends', () => {
  assert.equal(responseFraming(responseHead(200, ''), Method.Get), BodyFraming.UntilClose);
  assert.equal(responseFraming(responseHead(200, 'Content-Length: 0\r\n'), Method.Get), BodyFraming.None);
});

test('a reader of counted bytes stops at the count and leaves what follows', () => {
  const bytes = latin1Bytes('helloGET');
  const reader = new BodyReader();
  reader.begin(BodyFraming.Length, 5);
  assert.equal(reader.next(bytes, 0, 2), 2);
  assert.equal(reader.endOfStream(), -HttpFault.BodyTruncated);
  assert.equal(reader.next(bytes, 2, 8), 5);
  assert.deepEqual([reader.dataStart, reader.dataLength, reader.done], [2, 3, true]);
  assert.equal(reader.endOfStream(), 0);
});

test('row 24: the end of the connection ends only a body that runs until then', () => {
  const reader = new BodyReader();
  reader.begin(BodyFraming.UntilClose, 0);
  reader.next(latin1Bytes('abc'), 0, 3);
  assert.equal(reader.done, false);
  assert.equal(reader.endOfStream(), 0);
  assert.equal(reader.done, true);
  reader.begin(BodyFraming.Chunked, 0);
  assert.equal(reader.endOfStream(), -HttpFault.BodyTruncated);
});
