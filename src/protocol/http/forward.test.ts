import assert from 'node:assert/strict';
import { test } from 'node:test';

import { HttpDate } from './date.ts';
import { FieldEdits } from './edits.ts';
import {
  forwardedLines,
  hasViaPseudonym,
  newRequestForward,
  newResponseForward,
  type RequestForward,
  type ResponseForward,
  viaLine,
  writeRequestHead,
  writeResponseHead,
} from './forward.ts';
import { parseRequestHead, parseResponseHead } from './head.ts';
import { type HeadOptions, MessageHead, STRICT_HEAD_OPTIONS } from './message-head.ts';
import { latin1Bytes, latin1Text } from './octets.ts';
import { CONTINUE_RESPONSE, refusalBody, writeOwnResponse } from './response.ts';

function request(text: string, options: Partial<HeadOptions> = {}): MessageHead {
  const bytes = latin1Bytes(`xx${text}`);
  const head = new MessageHead({ ...STRICT_HEAD_OPTIONS, ...options });
  assert.equal(parseRequestHead(bytes, 2, bytes.length, head), text.length);
  return head;
}

function response(text: string, options: Partial<HeadOptions> = {}): MessageHead {
  const bytes = latin1Bytes(text);
  const head = new MessageHead({ ...STRICT_HEAD_OPTIONS, ...options });
  assert.equal(parseResponseHead(bytes, 0, bytes.length, head), text.length);
  return head;
}

function sent(head: MessageHead, how: Partial<RequestForward> = {}): string {
  const out = new Uint8Array(40_000);
  const end = writeRequestHead(out, 7, out.length, head, { ...newRequestForward(), ...how });
  assert.ok(end > 0);
  return latin1Text(out, 7, end);
}

function answered(head: MessageHead, how: Partial<ResponseForward> = {}): string {
  const out = new Uint8Array(40_000);
  const end = writeResponseHead(out, 7, out.length, head, { ...newResponseForward(), ...how });
  assert.ok(end > 0);
  return latin1Text(out, 7, end);
}

const lines = (text: string) => text.split('\r\n');

test('a request is forwarded as it came, with Via and X-Forwarded-* added', () => {
  const head = request('GET /a?b HTTP/1.1\r\nHost: h:1\r\nAccept: x\r\n\r\n');
  assert.equal(
    sent(head, { via: latin1Bytes('edge'), clientAddress: latin1Bytes('10.0.0.1') }),
    'GET /a?b HTTP/1.1\r\nHost: h:1\r\nAccept: x\r\nX-Forwarded-For: ' +
      '10.0.0.1\r\nX-Forwarded-Proto: http\r\n' +
      'X-Forwarded-Host: h:1\r\nVia: 1.1 edge\r\n\r\n',
  );
  assert.equal(sent(head), 'GET /a?b HTTP/1.1\r\nHost: h:1\r\nAccept: x\r\n\r\n');
});

test('lines that were made once say the same as those put together', () => {
  const via = latin1Bytes('edge');
  const clientAddress = latin1Bytes('10.0.0.1');
  const protocol = latin1Bytes('https');
  const made = { viaLine: viaLine(via), forwardedLines: forwardedLines(clientAddress, protocol) };
  for (const trustForwarded of [false, true]) {
    for (const text of [
      'GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n',
      'GET / HTTP/1.1\r\nHost: h\r\n\r\n',
      'GET / HTTP/1.0\r\nHost: h\r\n\r\n',
    ]) {
      const how = { via, clientAddress, protocol, trustForwarded };
      assert.equal(sent(request(text), { ...how, ...made }), sent(request(text), how));
    }
  }
});

test('row 11, RFC 9110 7.6.1: fields of one hop are left out, wherever they stand', () => {
  const head = request(
    'GET / HTTP/1.1\r\nKeep-Alive: 5\r\nHost: h\r\nConnection: X-Private, ' +
      'close, te\r\nX-PRIVATE: 1\r\nA: 1\r\n' +
      'Proxy-Connection: x\r\nProxy-Authorization: y\r\nUpgrade: z\r\n' +
      'Transfer-Encoding: chunked\r\nB: 2\r\n' +
      'HTTP2-Settings: q\r\n\r\n',
  );
  assert.equal(
    sent(head, { chunked: true }),
    'GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\nTransfer-Encoding: chunked\r\n\r\n',
  );
});

test('row 11: Connection cannot name away what the next hop decides by', () => {
  const head = request(
    'GET / HTTP/1.1\r\nHost: h\r\nConnection: Host, Authorization, ' +
      'Cookie, X-Forwarded-For, Via, Content-Length\r\n' +
      'Authorization: a\r\nCookie: c\r\nX-Forwarded-For: 9.9.9.9\r\n' +
      'Via: 1.1 first\r\nContent-Length: 3\r\n\r\n',
  );
  const text = sent(head, {
    via: latin1Bytes('edge'),
    clientAddress: latin1Bytes('10.0.0.1'),
    trustForwarded: true,
    contentLength: 3,
  });
  for (const line of [
    'Host: h',
    'Authorization: a',
    'Cookie: c',
    'X-Forwarded-For: 9.9.9.9, 10.0.0.1',
    'Via: 1.1 first',
    'Via: 1.1 edge',
    'Content-Length: 3',
  ]) {
    assert.ok(lines(text).includes(line), line);
  }
});

test('row 32: X-Forwarded-*, Forwarded and X-Real-IP of a client that is not trusted are replaced', () => {
  const text =
    'GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: ' +
    '2.2.2.2\r\nX-Forwarded-Proto: https\r\n' +
    'X-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nForwarded: for=x\r\nX-Real-IP: 3.3.3.3\r\n\r\n';
  const clientAddress = latin1Bytes('10.0.0.1');
  assert.equal(
    sent(request(text), { clientAddress }),
    'GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.0.0.1\r\n' +
      'X-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n\r\n',
  );
  assert.equal(
    sent(request(text), { clientAddress, trustForwarded: true }),
    'GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n' +
      'X-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n' +
      'Forwarded: for=x\r\nX-Real-IP: 3.3.3.3\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1\r\n\r\n',
  );
});

test('row 1: framing is written afresh and never copied', () => {
  const head = request('POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0005\r\n\r\n');
  assert.ok(sent(head, { contentLength: 5 }).includes('\r\nContent-Length: 5\r\n'));
  assert.ok(!sent(head, { chunked: true }).includes('Content-Length'));
  assert.ok(sent(head, { contentLength: 0 }).includes('\r\nContent-Length: 0\r\n'));
  assert.ok(!sent(head).toLowerCase().includes('content-length'));
});

test('row 9, RFC 9112 3.2.2: an absolute target becomes the origin form and its authority the Host', () => {
  const target = (line: string) => lines(sent(request(`${line} HTTP/1.1\r\nHost: other\r\nA: b\r\n\r\n`)));
  assert.deepEqual(target('GET http://one:81/p?q').slice(0, 3), [
    'GET /p?q HTTP/1.1',
    'Host: one:81',
    'A: b',
  ]);
  assert.equal(target('GET http://one')[0], 'GET / HTTP/1.1');
  assert.equal(target('GET http://one?q')[0], 'GET /?q HTTP/1.1');
  assert.equal(target('OPTIONS http://one')[0], 'OPTIONS * HTTP/1.1');
  assert.equal(target('OPTIONS *')[0], 'OPTIONS * HTTP/1.1');
  assert.ok(!target('GET http://one/').includes('Host: other'));
});

test('an HTTP/1.0 request goes on as HTTP/1.1 and Via tells how it came', () => {
  const head = request('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n');
  assert.equal(
    sent(head, { via: latin1Bytes('edge'), authority: latin1Bytes('origin') }),
    'GET / HTTP/1.1\r\nHost: origin\r\nVia: 1.0 edge\r\n\r\n',
  );
});

test('method, target and host of a hook replace those of the client', () => {
  const head = request('GET /a HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n');
  const text = sent(head, {
    method: latin1Bytes('PUT'),
    target: latin1Bytes('/z'),
    authority: latin1Bytes('other'),
  });
  assert.equal(text, 'PUT /z HTTP/1.1\r\nHost: other\r\nA: b\r\n\r\n');
});

test('edits of a hook remove, replace and add fields', () => {
  const edits = new FieldEdits();
  edits.set('Accept', 'new');
  edits.append('X-One', '1');
  edits.append('X-One', '2');
  edits.append('X-Gone', '3');
  edits.remove('x-gone');
  const head = request('GET / HTTP/1.1\r\nHost: h\r\naccept: old\r\nX-Gone: 0\r\nX-One: 0\r\n\r\n');
  assert.equal(
    sent(head, { edits }),
    'GET / HTTP/1.1\r\nHost: h\r\nX-One: 0\r\nAccept: new\r\nX-One: 1\r\nX-One: 2\r\n\r\n',
  );
  edits.clear();
  assert.ok(edits.isEmpty);
  assert.equal(edits.addedBytes, 0);
});

test('row 12: edits cannot end a line, forge framing or take the connection over', () => {
  const edits = new FieldEdits();
  for (const [name, value] of [
    ['A', 'a\r\nB: c'],
    ['A', 'a\0'],
    ['A', '\u{1f600}'],
    ['A B', 'x'],
    ['A:', 'x'],
    ['', 'x'],
    ['Content-Length', '5'],
    ['transfer-encoding', 'chunked'],
    ['Connection', 'close'],
    ['Upgrade', 'h2c'],
    ['Host', 'evil'],
  ] as const) {
    assert.throws(() => edits.set(name, value), { code: 'RAMP_HOOK_FAILED' }, name);
  }
  assert.throws(() => edits.remove('Content-Length'), { code: 'RAMP_HOOK_FAILED' });
  assert.ok(edits.added.length === 0);
});

test('row 15, RFC 9113 3.1: an upgrade is forwarded only when asked for, and h2c is not', () => {
  const text =
    'GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n' +
    'Upgrade: websocket\r\nHTTP2-Settings: x\r\n\r\n';
  assert.equal(
    sent(request(text), { upgrade: true }),
    'GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
  );
  assert.equal(sent(request(text)), 'GET / HTTP/1.1\r\nHost: h\r\n\r\n');
  assert.throws(() => sent(request(text.replace('websocket', 'h2c')), { upgrade: true }));
});

test('TE: trailers is passed on with its connection option', () => {
  const head = request('GET / HTTP/1.1\r\nHost: h\r\nTE: trailers, deflate\r\nConnection: TE\r\n\r\n');
  assert.equal(sent(head), 'GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n\r\n');
  assert.ok(sent(head, { close: true }).includes('\r\nConnection: TE, close\r\n'));
});

test('row 33, RFC 9110 7.6.2: Max-Forwards counts down for OPTIONS and TRACE only', () => {
  assert.ok(
    sent(request('OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 10\r\n\r\n')).includes(
      'Max-Forwards: 9\r\n',
    ),
  );
  assert.ok(
    sent(request('GET / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 10\r\n\r\n')).includes('Max-Forwards: 10\r\n'),
  );
});

test('row 33, RFC 9110 7.6.3: a pseudonym in Via is found as a whole word in any case', () => {
  const via = latin1Bytes('edge-1');
  const looped = (value: string) =>
    hasViaPseudonym(request(`GET / HTTP/1.1\r\nHost: h\r\nVia: ${value}\r\n\r\n`), via);
  assert.ok(looped('1.1 edge-1'));
  assert.ok(looped('1.0 first, 1.1 EDGE-1 (comment)'));
  assert.ok(!looped('1.1 edge-12'));
  assert.ok(!looped('1.1 my.edge-1'));
  assert.ok(!hasViaPseudonym(request('GET / HTTP/1.1\r\nHost: h\r\n\r\n'), via));
});

test('rows 5 and 6: lines that a leniency let in are written in the one right form', () => {
  const folded = request('GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n', { allowObsoleteFold: true });
  assert.match(sent(folded), /\r\nX: a +b\r\n\r\n$/);
  const bare = request('GET / HTTP/1.1\nHost: h\nX:  a \n\n', { allowBareLineFeed: true });
  assert.equal(sent(bare), 'GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\r\n');
  const spaced = response('HTTP/1.1 200 OK\r\nX : a\r\nY: b\r\n\r\n');
  assert.equal(answered(spaced), 'HTTP/1.1 200 OK\r\nX: a\r\nY: b\r\n\r\n');
});

test('a head that might not fit is not begun', () => {
  const head = request('GET / HTTP/1.1\r\nHost: h\r\n\r\n');
  assert.equal(writeRequestHead(new Uint8Array(100), 0, 100, head, newRequestForward()), -1);
});

test('a response is forwarded without what belongs to the upstream hop', () => {
  const head = response(
    'HTTP/1.1 200 Fine\r\nServer: s\r\nDate: d\r\nContent-Length: 5\r\n' +
      'Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\n' +
      'Keep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nETag: "e"\r\n\r\n',
  );
  assert.equal(
    answered(head, { via: latin1Bytes('edge'), contentLength: 5, date: latin1Bytes('unused') }),
    'HTTP/1.1 200 Fine\r\nServer: s\r\nDate: d\r\nETag: "e"\r\nVia: 1.1 edge\r\nContent-Length: 5\r\n\r\n',
  );
});

test(
  'a response of HTTP/1.0 gets this version, a Date and what ' + 'the client needs to know of the connection',
  () => {
    const head = response('HTTP/1.0 200 OK\r\nA: b\r\n\r\n');
    const date = new HttpDate().at(0);
    assert.equal(
      answered(head, { date, close: true }),
      'HTTP/1.1 200 OK\r\nA: b\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: close\r\n\r\n',
    );
    assert.ok(answered(head, { keepAlive: true }).includes('Connection: keep-alive\r\n'));
    assert.ok(answered(head, { chunked: true }).includes('Transfer-Encoding: chunked\r\n'));
  },
);

test('a status of a hook replaces code and reason', () => {
  assert.ok(answered(response('HTTP/1.1 200 OK\r\n\r\n'), { status: 404 }).startsWith('HTTP/1.1 404 \r\n'));
  assert.ok(answered(response('HTTP/1.1 200\r\n\r\n')).startsWith('HTTP/1.1 200 \r\n'));
});

test('row 14: 101 goes on with its Upgrade', () => {
  const head = response(
    'HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\nS: a\r\n\r\n',
  );
  assert.equal(
    answered(head, { upgrade: true }),
    'HTTP/1.1 101 Switching\r\nS: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
  );
});

test('Trailer is announced only where trailers can follow', () => {
  const head = response('HTTP/1.1 200 OK\r\nTrailer: X\r\n\r\n');
  assert.ok(answered(head, { chunked: true }).includes('Trailer: X'));
  assert.ok(!answered(head, { contentLength: 1 }).includes('Trailer'));
});

test('own responses have length, date, reason, and no body for HEAD, 204 and 304', () => {
  const out = new Uint8Array(1000);
  const date = new HttpDate().at(1_700_000_000_999);
  const fields = new FieldEdits();
  fields.set('Rampart-Reason', 'policy');
  const make = (status: number, omitBody = false) => {
    const body = refusalBody(status, 'policy');
    const end = writeOwnResponse(out, 0, out.length, {
      status,
      date,
      fields,
      body,
      omitBody,
      close: true,
      keepAlive: false,
    });
    return latin1Text(out, 0, end);
  };
  assert.equal(
    make(403),
    'HTTP/1.1 403 Forbidden\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n' +
      'Content-Length: 22\r\nConnection: close\r\n' +
      'Rampart-Reason: policy\r\n\r\n403 Forbidden: policy\n',
  );
  assert.ok(make(403, true).endsWith('policy\r\n\r\n'));
  assert.ok(make(403, true).includes('Content-Length: 22'));
  assert.ok(!make(304).includes('Content-Length'));
  assert.equal(latin1Text(CONTINUE_RESPONSE, 0, CONTINUE_RESPONSE.length), 'HTTP/1.1 100 Continue\r\n\r\n');
  assert.equal(
    writeOwnResponse(out, 0, 50, {
      status: 403,
      date,
      fields,
      body: date,
      omitBody: false,
      close: true,
      keepAlive: false,
    }),
    -1,
  );
});
