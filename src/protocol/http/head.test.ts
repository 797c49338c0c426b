import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';

import { HTTP_FAULT_FACTS, HttpFault, httpFaultFact } from './fault.ts';
import { parseRequestHead, parseResponseHead } from './head.ts';
import { Method, TargetForm } from './http.ts';
import { HeadFlag, type HeadOptions, MessageHead, STRICT_HEAD_OPTIONS } from './message-head.ts';
import { latin1Bytes } from './octets.ts';

type Parse = typeof parseRequestHead;

interface Parsed {
  readonly result: number;
  readonly head: MessageHead;
}

function parse(text: string, options: Partial<HeadOptions> = {}, how: Parse = parseRequestHead): Parsed {
  const bytes = latin1Bytes(`....${text}`);
  const head = new MessageHead({ ...STRICT_HEAD_OPTIONS, ...options });
  return { result: how(bytes, 4, bytes.length, head), head };
}

function faultName(result: number): string {
  return result < 0 ? httpFaultFact(result).name : result === 0 ? 'more' : 'accepted';
}

const GET = 'GET / HTTP/1.1\r\nHost: a.example\r\n';

test('a plain request is taken apart into offsets, and strings are made only when asked for', () => {
  const text = 'GET /p?q=1 HTTP/1.1\r\nHost: a.example:8080\r\nX-One:  two words \t\r\nEmpty:\r\n\r\n';
  const { result, head } = parse(`${text}rest`);
  assert.equal(result, text.length);
  assert.equal(head.method, Method.Get);
  assert.equal(head.methodText, 'GET');
  assert.equal(head.target, '/p?q=1');
  assert.equal(head.path, '/p?q=1');
  assert.equal(head.authority, 'a.example:8080');
  assert.equal(head.minorVersion, 1);
  assert.equal(head.contentLength, -1);
  assert.equal(head.persistent, true);
  assert.equal(head.field('x-ONE'), 'two words');
  assert.equal(head.field('empty'), '');
  assert.equal(head.field('absent'), null);
  assert.deepEqual(head.fields.entries(), [
    ['host', 'a.example:8080'],
    ['x-one', 'two words'],
    ['empty', ''],
  ]);
});

test('a plain response is taken apart', () => {
  const { result, head } = parse(
    'HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\n',
    {},
    parseResponseHead,
  );
  assert.ok(result > 0);
  assert.equal(head.status, 404);
  assert.equal(head.reason, 'Not Found');
  assert.equal(head.contentLength, 12);
  assert.deepEqual(head.fields.values('Set-Cookie'), ['a', 'b']);
});

test('every method code is known by its exact name, and other tokens are Other', () => {
  for (const [name, code] of Object.entries(Method)) {
    if (code === Method.Other || code === Method.Connect) continue;
    const text = name.toUpperCase();
    assert.equal(parse(`${text} / HTTP/1.1\r\nHost: a\r\n\r\n`).head.method, code, text);
  }
  assert.equal(parse('get / HTTP/1.1\r\nHost: a\r\n\r\n').head.method, Method.Other);
  assert.equal(parse('M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n').head.method, Method.Other);
});

/** Requests that must be refused: row of the table of classic bugs, RFC section, input, fault. */
const REFUSED: readonly [row: string, section: string, text: string, fault: keyof typeof HttpFault][] = [
  [
    'row 1',
    '9112 6.1',
    `${GET}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n`,
    'ContentLengthWithTransferEncoding',
  ],
  [
    'row 1',
    '9112 6.1',
    `${GET}Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n`,
    'ContentLengthWithTransferEncoding',
  ],
  ['row 2', '9112 6.3', `${GET}Content-Length: 5\r\nContent-Length: 6\r\n\r\n`, 'ContentLengthDuplicate'],
  ['row 2', '9112 6.3', `${GET}Content-Length: 5\r\nContent-Length: 5\r\n\r\n`, 'ContentLengthDuplicate'],
  ['row 2', '9110 8.6', `${GET}Content-Length: 5, 5\r\n\r\n`, 'ContentLengthInvalid'],
  ['row 2', '9110 8.6', `${GET}Content-Length: 1000,1000\r\n\r\n`, 'ContentLengthInvalid'],
  ['row 2', '9110 8.6', `${GET}Content-Length: +5\r\n\r\n`, 'ContentLengthInvalid'],
  ['row 2', '9110 8.6', `${GET}Content-Length: -5\r\n\r\n`, 'ContentLengthInvalid'],
  ['row 2', '9110 8.6', `${GET}Content-Length: 0x5\r\n\r\n`, 'ContentLengthInvalid'],
  ['row 2', '9110 8.6', `${GET}Content-Length: 5 5\r\n\r\n`, 'ContentLengthInvalid'],
  ['row 2', '9110 8.6', `${GET}Content-Length:\r\n\r\n`, 'ContentLengthInvalid'],
  ['row 2', '9110 8.6', `${GET}Content-Length: 18446744073709551617\r\n\r\n`, 'ContentLengthInvalid'],
  ['row 2', '9110 8.6', `${GET}Content-Length: \xb25\r\n\r\n`, 'ContentLengthInvalid'],
  ['row 3', '9112 6.3', `${GET}Transfer-Encoding: gzip\r\n\r\n`, 'TransferEncodingInvalid'],
  ['row 3', '9112 6.1', `${GET}Transfer-Encoding: gzip, chunked\r\n\r\n`, 'TransferEncodingUnknown'],
  ['row 3', '9112 6.1', `${GET}Transfer-Encoding: gzip;q=1, chunked\r\n\r\n`, 'TransferEncodingUnknown'],
  ['row 3', '9112 6.1', `${GET}Transfer-Encoding: chunked, gzip\r\n\r\n`, 'TransferEncodingInvalid'],
  ['row 3', '9112 6.1', `${GET}Transfer-Encoding: chunked, chunked\r\n\r\n`, 'TransferEncodingInvalid'],
  [
    'row 3',
    '9112 6.1',
    `${GET}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n`,
    'TransferEncodingInvalid',
  ],
  ['row 3', '9112 7', `${GET}Transfer-Encoding: chunked;a=b\r\n\r\n`, 'TransferEncodingInvalid'],
  ['row 3', '9112 7', `${GET}Transfer-Encoding: "chunked"\r\n\r\n`, 'TransferEncodingInvalid'],
  ['row 3', '9112 7', `${GET}Transfer-Encoding: xchunked\r\n\r\n`, 'TransferEncodingInvalid'],
  ['row 3', '9112 7', `${GET}Transfer-Encoding: \x0bchunked\r\n\r\n`, 'FieldValueInvalid'],
  ['row 3', '9112 7', `${GET}Transfer-Encoding:\r\n\r\n`, 'TransferEncodingInvalid'],
  ['row 3', '9112 7', `${GET}Transfer-Encoding: chunked,\r\n\r\n`, 'TransferEncodingInvalid'],
  ['row 3', '9112 7', `${GET}Transfer-Encoding: identity\r\n\r\n`, 'TransferEncodingInvalid'],
  [
    'row 3',
    '9112 6.1',
    'POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n',
    'TransferEncodingOnOldVersion',
  ],
  ['row 4', '9112 2.2', 'GET / HTTP/1.1\rHost: a\r\n\r\n', 'BareCarriageReturn'],
  ['row 4', '9112 2.2', 'GET / HTTP/1.1\nHost: a\n\n', 'BareLineFeed'],
  ['row 4', '9112 2.2', `${GET}X: a\rb\r\n\r\n`, 'BareCarriageReturn'],
  ['row 4', '9112 2.2', `${GET}X: a\nY: b\r\n\r\n`, 'BareLineFeed'],
  ['row 4', '9112 2.2', `${GET}\n`, 'BareLineFeed'],
  ['row 4', '9112 2.2', `${GET}\r\r\n`, 'BareCarriageReturn'],
  ['row 5', '9112 5.1', `${GET}X : a\r\n\r\n`, 'SpaceBeforeColon'],
  ['row 5', '9112 5.1', `${GET}Transfer-Encoding\t: chunked\r\n\r\n`, 'SpaceBeforeColon'],
  ['row 5', '9112 2.2', 'GET / HTTP/1.1\r\n Host: a\r\n\r\n', 'LeadingWhitespace'],
  ['row 5', '9112 2.2', 'GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n', 'LeadingWhitespace'],
  ['row 6', '9112 5.2', `${GET}X: a\r\n b\r\n\r\n`, 'ObsoleteFold'],
  ['row 6', '9112 5.2', `${GET}X: a\r\n\tb\r\n\r\n`, 'ObsoleteFold'],
  ['row 9', '9112 3.2', 'GET / HTTP/1.1\r\n\r\n', 'HostMissing'],
  ['row 9', '9112 3.2', 'GET http://a/ HTTP/1.1\r\n\r\n', 'HostMissing'],
  ['row 9', '9112 3.2', `${GET}Host: a.example\r\n\r\n`, 'HostDuplicate'],
  ['row 9', '9112 3.2', `${GET}host: b\r\n\r\n`, 'HostDuplicate'],
  ['row 9', '9112 3.2', 'GET http://a/ HTTP/1.1\r\nHost: b c\r\n\r\n', 'HostInvalid'],
  ...[
    'a b',
    'a/b',
    'a@b',
    'a,b',
    'a:b',
    'a:80:90',
    'a:65536',
    'a:-1',
    '[::1',
    '[gg]',
    '[]',
    ':80',
    'a%00',
    'a\xff',
  ].map((host): (typeof REFUSED)[number] => [
    'row 9',
    '9110 7.2',
    `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
    'HostInvalid',
  ]),
  ['row 9', '9110 7.2', 'GET / HTTP/1.1\r\nHost:\r\n\r\n', 'HostInvalid'],
  ['row 11', '9110 7.6.1', `${GET}Connection: close, a b\r\n\r\n`, 'ConnectionInvalid'],
  ['row 11', '9110 7.6.1', `${GET}Connection: "close"\r\n\r\n`, 'ConnectionInvalid'],
  ['row 12', '9110 5.5', `${GET}X: a\0b\r\n\r\n`, 'FieldValueInvalid'],
  ['row 12', '9110 5.5', `${GET}X: a\x7fb\r\n\r\n`, 'FieldValueInvalid'],
  ['row 12', '9110 5.5', `${GET}X: a\x01\r\n\r\n`, 'FieldValueInvalid'],
  ['row 12', '9110 5.1', `${GET}X\0: a\r\n\r\n`, 'FieldNameInvalid'],
  ['row 12', '9110 5.1', `${GET}X(Y: a\r\n\r\n`, 'FieldNameInvalid'],
  ['row 12', '9110 5.1', `${GET}: a\r\n\r\n`, 'FieldNameInvalid'],
  ['row 12', '9110 5.1', `${GET}novalue\r\n\r\n`, 'FieldNameInvalid'],
  ['row 12', '9110 5.1', `${GET}X\xe4: a\r\n\r\n`, 'FieldNameInvalid'],
  ['row 18', '9110 10.1.1', `${GET}Expect: 200-ok\r\n\r\n`, 'ExpectationUnknown'],
  ['row 18', '9110 10.1.1', `${GET}Expect: 100-continue, x\r\n\r\n`, 'ExpectationUnknown'],
  ['row 33', '9110 7.6.2', `${GET}Max-Forwards: x\r\n\r\n`, 'MaxForwardsInvalid'],
  ['row 33', '9110 7.6.2', `${GET}Max-Forwards: 9999999999\r\n\r\n`, 'MaxForwardsInvalid'],
  ['row 34', '9112 3.2', 'GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9112 3.2', 'GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9112 3.2', 'GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9112 3.2', 'GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9112 3.2', 'GET /\t HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9112 3', 'GET / a HTTP/1.1\r\nHost: a\r\n\r\n', 'VersionInvalid'],
  ['row 34', '9112 3', 'GET  / HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9112 3', 'GET /  HTTP/1.1\r\nHost: a\r\n\r\n', 'VersionInvalid'],
  ['row 34', '9112 3', 'GET / HTTP/1.1 \r\nHost: a\r\n\r\n', 'VersionInvalid'],
  ['row 34', '9112 3.2', 'GET a HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9112 3.2', 'GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9112 3.2', 'GET * HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9112 3.2.2', 'GET http:// HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9112 3.2.2', 'GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9110 4.2.4', 'GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 34', '9112 3.2.2', 'GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 16', '9110 9.3.6', 'CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 16', '9110 9.3.6', 'CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['row 16', '9110 9.3.6', 'CONNECT http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n', 'TargetInvalid'],
  ['start line', '9112 3', ' GET / HTTP/1.1\r\nHost: a\r\n\r\n', 'MethodInvalid'],
  ['start line', '9112 3', 'GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n', 'MethodInvalid'],
  ['start line', '9112 3', 'G@T / HTTP/1.1\r\nHost: a\r\n\r\n', 'MethodInvalid'],
  ['start line', '9112 3', '\x16\x03\x01\x02\x00\x01', 'MethodInvalid'],
  ['start line', '9110 15.6.2', `${'A'.repeat(33)} / HTTP/1.1\r\nHost: a\r\n\r\n`, 'MethodTooLong'],
  ['start line', '9112 2.2', `\r\n\r\n${GET}\r\n`, 'LeadingBytes'],
  ['start line', '9112 2.3', 'GET / HTTP/2.0\r\nHost: a\r\n\r\n', 'VersionUnsupported'],
  ['start line', '9112 2.3', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'VersionUnsupported'],
  ['start line', '9112 2.3', 'GET / HTTP/1.2\r\nHost: a\r\n\r\n', 'VersionUnsupported'],
  ['start line', '9112 2.3', 'GET / HTTP/0.9\r\nHost: a\r\n\r\n', 'VersionUnsupported'],
  ['start line', '9112 2.3', 'GET / http/1.1\r\nHost: a\r\n\r\n', 'VersionInvalid'],
  ['start line', '9112 2.3', 'GET / HTTP/1.10\r\nHost: a\r\n\r\n', 'VersionInvalid'],
  ['start line', '9112 2.3', 'GET /\r\n', 'TargetInvalid'],
  ['row 31', '9110 5.4', `${GET}X: ${'a'.repeat(17_000)}\r\n\r\n`, 'HeadTooLong'],
  ['row 31', '9110 15.5.15', `GET /${'a'.repeat(9000)} HTTP/1.1\r\nHost: a\r\n\r\n`, 'TargetTooLong'],
  ['row 31', '9110 5.4', `${GET}${'X: a\r\n'.repeat(100)}\r\n`, 'TooManyFields'],
];

for (const [row, section, text, fault] of REFUSED) {
  test(`${row}, RFC ${section}: ${JSON.stringify(text).slice(0, 90)} is refused as ${fault}`, () => {
    assert.equal(faultName(parse(text).result), fault);
  });
}

/** Requests that must be taken: reason and input. */
const ACCEPTED: readonly [why: string, text: string][] = [
  ['one empty line before the start line (RFC 9112 section 2.2)', `\r\n${GET}\r\n`],
  ['HTTP/1.0 without Host', 'GET / HTTP/1.0\r\n\r\n'],
  ['an unknown method', 'BREW / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['an empty field value', `${GET}X:\r\n\r\n`],
  ['opaque bytes in a value (RFC 9110 section 5.5)', `${GET}X: \xe4\xff\r\n\r\n`],
  ['tabs inside a value', `${GET}X: a\tb\r\n\r\n`],
  ['an IPv6 literal with port', 'GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n'],
  ['chunked in any case', `${GET}Transfer-Encoding: ChUnKeD\r\n\r\n`],
  ['whitespace around chunked', `${GET}Transfer-Encoding: \t chunked \r\n\r\n`],
  ['leading zeros of a length', `${GET}Content-Length: 0005\r\n\r\n`],
  ['empty members of Connection (RFC 9110 section 5.6.1)', `${GET}Connection: ,close, ,\r\n\r\n`],
  ['characters that browsers send raw in queries', 'GET /?a=|^`{}[]\\ HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['the asterisk form', 'OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['the authority form', 'CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n'],
  ['exactly as many fields as the limit', `${GET}${'X: a\r\n'.repeat(99)}\r\n`],
];

for (const [why, text] of ACCEPTED) {
  test(`accepted: ${why}`, () => assert.equal(faultName(parse(text).result), 'accepted'));
}

test('row 9, RFC 9112 3.2.2: an absolute target wins over Host', () => {
  const { head } = parse('GET http://one.example:81/p?q HTTP/1.1\r\nHost: two.example\r\n\r\n');
  assert.equal(head.targetForm, TargetForm.Absolute);
  assert.equal(head.authority, 'one.example:81');
  assert.equal(head.path, '/p?q');
});

test('an absolute target without a path asks for the root, and https is noticed', () => {
  const { head } = parse('GET HTTPS://one.example HTTP/1.1\r\nHost: one.example\r\n\r\n');
  assert.equal(head.targetIsSecure, true);
  assert.equal(head.path, '/');
});

test('persistence follows version and Connection (RFC 9112 section 9.3)', () => {
  const persistent = (version: string, connection: string) =>
    parse(`GET / HTTP/${version}\r\nHost: a\r\n${connection}\r\n`).head.persistent;
  assert.equal(persistent('1.1', ''), true);
  assert.equal(persistent('1.1', 'Connection: close\r\n'), false);
  assert.equal(persistent('1.1', 'Connection: x\r\nConnection: CLOSE\r\n'), false);
  assert.equal(persistent('1.1', 'Connection: keep-alive, close\r\n'), false);
  assert.equal(persistent('1.0', ''), false);
  assert.equal(persistent('1.0', 'Connection: Keep-Alive\r\n'), true);
  assert.equal(persistent('1.0', 'Connection: close, keep-alive\r\n'), false);
});

test('row 15, RFC 9113 3.1: only one protocol that is not HTTP in disguise is a forwardable upgrade', () => {
  const flags = (fields: string, version = '1.1') =>
    parse(`GET / HTTP/${version}\r\nHost: a\r\n${fields}\r\n`).head;
  const websocket = 'Connection: Upgrade\r\nUpgrade: websocket\r\n';
  assert.ok(flags(websocket).has(HeadFlag.Upgrade | HeadFlag.UpgradeForwardable));
  assert.ok(flags('Connection: upgrade\r\nUpgrade: SPDY/3.1\r\n').has(HeadFlag.UpgradeForwardable));
  for (const value of [
    'h2c',
    'H2C',
    'h2c, websocket',
    'websocket, h2c',
    'HTTP/2.0',
    'TLS/1.0',
    '',
    'a b',
    'a/',
  ]) {
    const head = flags(`Connection: Upgrade\r\nUpgrade: ${value}\r\n`);
    assert.equal(head.has(HeadFlag.UpgradeForwardable), value === 'a/', value);
  }
  assert.ok(!flags('Upgrade: websocket\r\n').has(HeadFlag.Upgrade), 'without Connection: upgrade');
  assert.ok(
    !flags(`${websocket}Upgrade: websocket\r\n`).has(HeadFlag.UpgradeForwardable),
    'two Upgrade fields',
  );
  assert.ok(!flags(websocket, '1.0').has(HeadFlag.Upgrade), 'RFC 9110 7.8: not in HTTP/1.0');
});

test('row 18, RFC 9110 10.1.1: Expect counts in HTTP/1.1 only', () => {
  assert.ok(parse(`${GET}Expect: 100-Continue\r\n\r\n`).head.has(HeadFlag.ExpectContinue));
  assert.ok(!parse('GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n').head.has(HeadFlag.ExpectContinue));
});

test('TE: trailers is noticed as a member of the list', () => {
  assert.ok(parse(`${GET}TE: gzip;q=0.5, trailers\r\n\r\n`).head.has(HeadFlag.TeTrailers));
  assert.ok(!parse(`${GET}TE: trailersx\r\n\r\n`).head.has(HeadFlag.TeTrailers));
});

/** Each leniency off and on. */
test('allowBareLineFeed takes lone line feeds as line ends, and is off by default', () => {
  const text = 'GET / HTTP/1.1\nHost: a\nX: b\r\n\n';
  assert.equal(faultName(parse(text).result), 'BareLineFeed');
  const { result, head } = parse(text, { allowBareLineFeed: true });
  assert.equal(result, text.length);
  assert.equal(head.field('host'), 'a');
  assert.equal(
    faultName(parse(`${GET}X: a\rb\r\n\r\n`, { allowBareLineFeed: true }).result),
    'BareCarriageReturn',
  );
});

test('allowObsoleteFold replaces folds by spaces, and is off by default', () => {
  const text = `${GET}X: a\r\n\t b\r\n  c\r\nY:\r\n d\r\n\r\n`;
  assert.equal(faultName(parse(text).result), 'ObsoleteFold');
  const { head } = parse(text, { allowObsoleteFold: true });
  assert.match(head.field('x') as string, /^a[ \t]+b[ \t]+c$/);
  assert.equal(head.field('y'), 'd');
  assert.equal(
    faultName(parse('GET / HTTP/1.1\r\n Host: a\r\n\r\n', { allowObsoleteFold: true }).result),
    'LeadingWhitespace',
  );
});

test('mergeIdenticalContentLength takes repetitions of one value only, and is off by default', () => {
  const options = { mergeIdenticalContentLength: true };
  for (const fields of ['Content-Length: 5, 5\r\n', 'Content-Length: 5\r\ncontent-length: 5\r\n']) {
    assert.ok(parse(`${GET}${fields}\r\n`).result < 0);
    assert.equal(parse(`${GET}${fields}\r\n`, options).head.contentLength, 5);
  }
  for (const fields of ['Content-Length: 5, 6\r\n', 'Content-Length: 5\r\nContent-Length: 6\r\n']) {
    assert.equal(faultName(parse(`${GET}${fields}\r\n`, options).result), 'ContentLengthDuplicate');
  }
  assert.equal(faultName(parse(`${GET}Content-Length: 5,\r\n\r\n`, options).result), 'ContentLengthInvalid');
});

test('preferTransferEncoding drops Content-Length and ends the connection, and is off by default', () => {
  const text = `${GET}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n`;
  const { head } = parse(text, { preferTransferEncoding: true });
  assert.equal(head.contentLength, -1);
  assert.ok(head.has(HeadFlag.Chunked | HeadFlag.FramingRepaired));
  assert.equal(head.persistent, false);
});

test('allowRawTarget takes bytes above 0x7F in a target, and is off by default', () => {
  const text = 'GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n';
  assert.equal(faultName(parse(text, { allowRawTarget: true }).result), 'accepted');
  assert.equal(
    faultName(parse('GET /#\xe4 HTTP/1.1\r\nHost: a\r\n\r\n', { allowRawTarget: true }).result),
    'TargetInvalid',
  );
});

/** Responses. */
const RESPONSES: readonly [why: string, text: string, outcome: string][] = [
  [
    'row 5, RFC 9112 5.1: whitespace before the colon is stripped',
    'HTTP/1.1 200 OK\r\nX : a\r\n\r\n',
    'accepted',
  ],
  ['a status line that ends behind the code', 'HTTP/1.1 200\r\n\r\n', 'accepted'],
  ['an empty reason phrase', 'HTTP/1.1 200 \r\n\r\n', 'accepted'],
  ['opaque bytes in the reason phrase', 'HTTP/1.1 200 \xc4h\r\n\r\n', 'accepted'],
  ['a code of two digits', 'HTTP/1.1 20 OK\r\n\r\n', 'StatusLineInvalid'],
  ['a code below 100', 'HTTP/1.1 099 OK\r\n\r\n', 'StatusLineInvalid'],
  ['a code of four digits', 'HTTP/1.1 2000\r\n\r\n', 'StatusLineInvalid'],
  ['two spaces before the code', 'HTTP/1.1  200 OK\r\n\r\n', 'StatusLineInvalid'],
  ['another version', 'HTTP/2.0 200 OK\r\n\r\n', 'VersionUnsupported'],
  ['another protocol', 'ICY 200 OK\r\n\r\n', 'VersionInvalid'],
  ['a control character in the reason phrase', 'HTTP/1.1 200 a\0b\r\n\r\n', 'StatusLineInvalid'],
  [
    'row 1: both framings',
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
    'ContentLengthWithTransferEncoding',
  ],
  [
    'row 2: two lengths',
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n',
    'ContentLengthDuplicate',
  ],
  [
    'row 3: a coding that is not chunked',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n',
    'TransferEncodingInvalid',
  ],
  [
    'row 3: a coding in HTTP/1.0',
    'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
    'TransferEncodingOnOldVersion',
  ],
  ['row 6: a fold', 'HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n', 'ObsoleteFold'],
];

for (const [why, text, outcome] of RESPONSES) {
  test(`response, ${why}: ${outcome}`, () => {
    assert.equal(faultName(parse(text, {}, parseResponseHead).result), outcome);
  });
}

const SAMPLES = [
  ...REFUSED.filter(([, , text]) => text.length < 2000).map(([, , text]) => text),
  ...ACCEPTED.filter(([, text]) => text.length < 2000).map(([, text]) => text),
  'GET http://a:1/b?c HTTP/1.1\r\nHost: a\r\nConnection: x, keep-alive\r\n' +
    'X: y\r\nContent-Length: 3\r\n\r\nabc',
];

function facts({ result, head }: Parsed): unknown {
  if (result <= 0) return result;
  return [
    result,
    head.methodText,
    head.target,
    head.path,
    head.authority,
    head.flags,
    head.contentLength,
    head.minorVersion,
    head.fields.entries(),
    [...head.fields.kinds.subarray(0, head.fields.count)],
  ];
}

for (const options of [
  {},
  { allowBareLineFeed: true, allowObsoleteFold: true, mergeIdenticalContentLength: true },
]) {
  test(`a head is parsed byte by byte as when it comes whole, with ${JSON.stringify(options)}`, () => {
    for (const text of SAMPLES) {
      const whole = facts(parse(text, options));
      const bytes = latin1Bytes(text);
      const head = new MessageHead({ ...STRICT_HEAD_OPTIONS, ...options });
      let result = 0;
      for (let end = 0; end <= bytes.length && result === 0; end++) {
        // Bytes behind `end` must not matter: they are other bytes than the ones that come later.
        const part = bytes.slice();
        part.fill(0x21, end);
        result = parseRequestHead(part, 0, end, head);
      }
      assert.deepEqual(facts({ result, head }), whole, JSON.stringify(text));
    }
  });
}

test('parsing goes on at the first incomplete line when the same bytes grow', () => {
  fc.assert(
    fc.property(fc.constantFrom(...SAMPLES), fc.array(fc.nat(40), { maxLength: 30 }), (text, steps) => {
      const bytes = latin1Bytes(text);
      const head = new MessageHead();
      let result = 0;
      let end = 0;
      for (const step of [...steps, text.length]) {
        end = Math.min(text.length, end + step);
        result = parseRequestHead(bytes, 0, end, head);
        if (result !== 0) break;
      }
      assert.deepEqual(facts({ result, head }), facts(parse(text)));
    }),
    { numRuns: 300 },
  );
});

test('every fault has facts, a status of an answer, and a number of its own', () => {
  const numbers = Object.values(HttpFault);
  assert.equal(new Set(numbers).size, numbers.length);
  for (const [name, number] of Object.entries(HttpFault)) {
    const fact = HTTP_FAULT_FACTS[number];
    assert.equal(fact?.name, name);
    if (number !== 0) assert.ok((fact?.status as number) >= 400 && (fact?.status as number) < 600);
    assert.match(fact?.text as string, /^[a-zA-Z]/);
  }
});
