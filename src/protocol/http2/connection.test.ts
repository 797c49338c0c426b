import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Http2Fault } from './fault.ts';
import { ErrorCode, FrameFlag, FrameType, PREFACE, Setting } from './http2.ts';
import type { Http2Stream } from './stream.ts';
import { StreamState } from './stream-state.ts';
import { frame, frames, headers, join, literalBlock, Pair, Peer, requestFields } from './test-peer.ts';

const SETTINGS = frame(FrameType.Settings, 0, 0);
const NO_END = FrameFlag.EndHeaders;

/** A server that has been greeted by hand; what it wrote so far is taken away. */
function server(
  options: { streamsMax?: number; streamWindow?: number; connectionWindow?: number } = {},
): Peer {
  const peer = new Peer({ isServer: true, ...options });
  assert.equal(peer.feed(join(PREFACE, SETTINGS)), 0);
  peer.take();
  return peer;
}

/** The first RST_STREAM that the peer wrote: `stream:code`, or GOAWAY as `goaway:code`. */
function verdict(peer: Peer): string {
  for (const { type, streamId, payload } of frames(peer.take())) {
    const word = (at: number) => new DataView(payload.buffer, payload.byteOffset).getUint32(at);
    if (type === FrameType.RstStream) return `${streamId}:${word(0)}`;
    if (type === FrameType.Goaway) return `goaway:${word(4)}`;
  }
  return 'nothing';
}

function setting(parameter: number, value: number): Uint8Array {
  return frame(
    FrameType.Settings,
    0,
    0,
    Uint8Array.of(parameter >> 8, parameter, value >>> 24, value >> 16, value >> 8, value),
  );
}

function word(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

test('a request and its response cross between two peers, however the bytes are cut', () => {
  for (const step of [1, 2, 3, 7, 10, 64, 100_000]) {
    const pair = new Pair({ onRequest: (stream) => answer(pair, stream) });
    pair.step = step;
    pair.run();
    for (let i = 0; i < 3; i++)
      pair.client.request({ Accept: '*/*', 'X-Number': `${i}` }, { path: `/${i}?q` });
    pair.run();
    for (const id of [1, 3, 5]) {
      assert.equal(pair.server.message(id).line, `GET example.org/${(id - 1) / 2}?q`);
      assert.equal(pair.server.message(id).head.field('x-number'), `${(id - 1) / 2}`);
      assert.equal(pair.client.message(id).line, '200');
      assert.equal(pair.client.message(id).text, `hello ${id}`);
      assert.ok(pair.client.message(id).complete);
    }
    assert.equal(pair.client.connection.streams.size, 0);
    assert.equal(pair.server.connection.streams.size, 0);
  }
});

function answer(pair: Pair, stream: Http2Stream): void {
  pair.server.respond(stream, 103);
  pair.server.respond(stream, 200);
  pair.server.send(stream, `hello ${stream.id}`, true);
}

test('interim responses, content in both directions and trailers arrive', () => {
  const pair = new Pair();
  const stream = pair.run().client.request({ TE: 'trailers' }, { method: 'POST', ends: false });
  pair.client.send(stream, 'up');
  pair.client.trailers(stream, { 'X-Sum': '1', 'Content-Length': '5' });
  pair.run();
  const asked = pair.server.message(1);
  assert.equal(asked.text, 'up');
  assert.deepEqual(asked.trailers.fields.entries(), [['x-sum', '1']]);
  const reply = pair.server.connection.streams.get(1) as Http2Stream;
  pair.server.respond(reply, 100);
  pair.server.respond(reply, 200);
  pair.server.send(reply, 'down');
  pair.server.trailers(reply, { 'Grpc-Status': '0' });
  pair.run();
  const got = pair.client.message(1);
  assert.deepEqual(got.interims, [100]);
  assert.equal(got.text, 'down');
  assert.equal(got.trailers.field('grpc-status'), '0');
  assert.ok(got.complete && got.hasTrailers);
});

test('a head longer than a frame goes out as CONTINUATION and arrives', () => {
  const pair = new Pair({}, { blockBytesMax: 32 * 1024 });
  pair.run();
  const more = Object.fromEntries(
    Array.from({ length: 60 }, (_, i) => [`x-${i}`, String.fromCharCode(0xe0 + (i % 8)).repeat(300)]),
  );
  const stream = pair.client.request(more);
  const bytes = pair.client.take();
  const written = frames(bytes);
  assert.deepEqual(
    written.map(({ type }) => type),
    [FrameType.Headers, FrameType.Continuation],
  );
  assert.equal(stream.state, StreamState.HalfClosedLocal);
  assert.equal(pair.server.feed(bytes, 1000), 0);
  assert.deepEqual(pair.server.message(1).head.field('x-59'), more['x-59']);
});

test('flow control holds back what the peer has no room for, and goes on when it has (bug 29)', () => {
  const pair = new Pair({}, { streamWindow: 65_535, connectionWindow: 100_000 });
  pair.server.consumes = false;
  pair.run();
  const one = pair.client.request({}, { method: 'POST', ends: false });
  const two = pair.client.request({}, { method: 'POST', ends: false });
  assert.equal(pair.client.send(one, 'a'.repeat(80_000)), 65_535, 'the window of the stream');
  assert.equal(pair.client.send(two, 'b'.repeat(80_000)), 100_000 - 65_535, 'the window of the connection');
  pair.run();
  assert.equal(pair.client.send(one, 'a'), 0);
  const kept = pair.server.connection.streams.get(1) as Http2Stream;
  pair.server.connection.consumed(kept, 65_535);
  pair.run();
  assert.equal(pair.client.connection.sendable(one), 65_535);
  assert.ok(pair.client.windows.includes(1) && pair.client.windows.includes(null));
});

test('the window of the connection comes back for content that nobody reads (bug 29)', () => {
  const pair = new Pair({}, { connectionWindow: 65_535 });
  pair.server.consumes = false;
  pair.run();
  for (let round = 0; round < 20; round++) {
    const stream = pair.client.request({}, { method: 'POST', ends: false });
    pair.client.send(stream, 'x'.repeat(20_000));
    pair.run();
    const kept = pair.server.connection.streams.get(stream.id) as Http2Stream;
    pair.server.connection.release(kept);
    pair.run();
    assert.equal(pair.client.message(stream.id).reset, ErrorCode.Cancel);
  }
  assert.ok(pair.client.connection.sendWindow > 0);
});

test('content for a stream that was reset, padding included, goes back to the connection (bug 29)', () => {
  const peer = server({ connectionWindow: 65_535 });
  peer.consumes = false;
  peer.feed(headers(1, requestFields([':method', 'POST']).slice(1), NO_END));
  const stream = peer.connection.streams.get(1) as Http2Stream;
  peer.connection.release(stream);
  assert.equal(verdict(peer), '1:8');
  const padded = join(Uint8Array.of(200), new Uint8Array(9799), new Uint8Array(200));
  for (let i = 0; i < 4; i++) assert.equal(peer.feed(frame(FrameType.Data, FrameFlag.Padded, 1, padded)), 0);
  const updates = frames(peer.take()).filter(({ type }) => type === FrameType.WindowUpdate);
  assert.equal(updates.length, 1);
});

test('a peer that sends beyond a window is told so (RFC 9113 section 6.9.1)', () => {
  const peer = server();
  peer.consumes = false;
  peer.feed(headers(1, requestFields(), NO_END));
  for (let i = 0; i < 4; i++) peer.feed(frame(FrameType.Data, 0, 1, new Uint8Array(16_384)));
  assert.equal(verdict(peer), `1:${ErrorCode.FlowControlError}`);
  const other = server({ connectionWindow: 65_535 });
  other.consumes = false;
  other.feed(join(headers(1, requestFields(), NO_END), headers(3, requestFields(), NO_END)));
  for (let i = 0; i < 3; i++) other.feed(frame(FrameType.Data, 0, 1, new Uint8Array(16_384)));
  assert.equal(other.feed(frame(FrameType.Data, 0, 3, new Uint8Array(16_384))), -Http2Fault.WindowExceeded);
  assert.equal(verdict(other), `goaway:${ErrorCode.FlowControlError}`);
});

test('malformed requests reset their stream and reach nobody (bugs 10 and 12)', () => {
  const cases: readonly (readonly (readonly [string, string])[])[] = [
    requestFields([':authority', 'x']),
    requestFields(['host', 'other.example']),
    requestFields(['Upper', 'x']),
    requestFields(['a b', 'x']),
    requestFields(['a:b', 'x']),
    requestFields(['', 'x']),
    requestFields(['a', 'x\r\ny: z']),
    requestFields(['a', 'x\ny']),
    requestFields(['a', 'x\0']),
    requestFields(['a', ' x']),
    requestFields(['a', 'x\t']),
    requestFields(['connection', 'close']),
    requestFields(['keep-alive', '1']),
    requestFields(['proxy-connection', 'close']),
    requestFields(['transfer-encoding', 'chunked']),
    requestFields(['upgrade', 'h2c']),
    requestFields(['te', 'gzip']),
    requestFields([':path', '/']),
    requestFields([':status', '200']),
    requestFields([':unknown', 'x']),
    requestFields(['a', 'b'], [':method', 'GET']),
    requestFields(['content-length', '1, 1']),
    requestFields(['content-length', '0'], ['content-length', '0']),
    requestFields(['content-length', '+1']),
    requestFields(['content-length', '5']),
    requestFields([':protocol', 'websocket']),
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/'],
    ],
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':authority', 'a'],
    ],
    [
      [':method', 'GET'],
      [':path', '/'],
      [':authority', 'a'],
    ],
    [
      [':scheme', 'http'],
      [':path', '/'],
      [':authority', 'a'],
    ],
    [
      [':method', 'G T'],
      [':scheme', 'http'],
      [':path', '/'],
      [':authority', 'a'],
    ],
    [
      [':method', 'GET / HTTP/1.1\r\nx: y'],
      [':scheme', 'http'],
      [':path', '/'],
      [':authority', 'a'],
    ],
    [
      [':method', 'GET'],
      [':scheme', 'ftp'],
      [':path', '/'],
      [':authority', 'a'],
    ],
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', ''],
      [':authority', 'a'],
    ],
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '*'],
      [':authority', 'a'],
    ],
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', 'a'],
      [':authority', 'a'],
    ],
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/ HTTP/1.1'],
      [':authority', 'a'],
    ],
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/#f'],
      [':authority', 'a'],
    ],
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/'],
      [':authority', 'user@a'],
    ],
    [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/'],
      [':authority', 'a/b'],
    ],
    [
      [':method', 'CONNECT'],
      [':scheme', 'http'],
      [':authority', 'a:1'],
    ],
    [
      [':method', 'CONNECT'],
      [':authority', 'a'],
    ],
    [
      [':method', 'CONNECT'],
      [':protocol', 'websocket'],
      [':authority', 'a:1'],
    ],
  ];
  for (const fields of cases) {
    const peer = server();
    assert.equal(peer.feed(headers(1, fields)), 0, JSON.stringify(fields));
    assert.equal(verdict(peer), `1:${ErrorCode.ProtocolError}`, JSON.stringify(fields));
    assert.equal(peer.connection.streams.size, 0);
    assert.notEqual(peer.message(1).reset, -1);
  }
});

test('good requests of every form are taken as they are meant', () => {
  const peer = server();
  peer.releases = false;
  const line = (id: number, fields: readonly (readonly [string, string])[]) => {
    assert.equal(peer.feed(headers(id, fields)), 0);
    return peer.message(id).line;
  };
  assert.equal(line(1, requestFields(['host', 'Example.ORG'])), 'GET example.org/');
  assert.equal(
    line(3, [
      [':method', 'OPTIONS'],
      [':scheme', 'https'],
      [':path', '*'],
      ['host', 'h:1'],
    ]),
    'OPTIONS h:1*',
  );
  assert.ok(peer.message(3).head.targetIsSecure);
  assert.equal(
    line(5, [
      [':method', 'CONNECT'],
      [':authority', 'a.b:443'],
    ]),
    'CONNECT a.b:443/',
  );
  const fields = [
    [':method', 'CONNECT'],
    [':protocol', 'websocket'],
    [':scheme', 'http'],
    [':path', '/chat'],
  ] as const;
  assert.equal(line(7, [...fields, [':authority', 'a']]), 'CONNECT a/chat');
  assert.equal(peer.connection.streams.get(7)?.protocol, 'websocket');
  assert.equal(line(9, requestFields(['te', 'trailers'], ['x-empty', ''])), 'GET example.org/');
});

test('a cookie that was cut into fields is one field again (RFC 9113 section 8.2.3)', () => {
  const peer = server();
  const crumbs = requestFields(
    ['cookie', 'a=1'],
    ['cookie', 'b=2'],
    ['x', 'y'],
    ['cookie', 'c=3'],
    ['z', 'w'],
  );
  assert.equal(peer.feed(headers(1, crumbs)), 0);
  assert.deepEqual(peer.message(1).head.fields.entries(), [
    ['cookie', 'a=1; b=2; c=3'],
    ['x', 'y'],
    ['z', 'w'],
  ]);
});

test('content that differs from content-length resets the stream (bug 13)', () => {
  for (const [length, content, flags] of [
    ['3', 'abcd', 0],
    ['3', 'ab', 1],
    ['3', '', 1],
    ['0', 'a', 0],
  ] as const) {
    const peer = server();
    peer.feed(headers(1, requestFields(['content-length', length]), NO_END));
    assert.equal(peer.feed(frame(FrameType.Data, flags, 1, content)), 0);
    assert.equal(peer.message(1).resetFault, Http2Fault.ContentLengthDiffers);
    assert.equal(verdict(peer), `1:${ErrorCode.ProtocolError}`);
  }
  const trailed = server();
  trailed.feed(headers(1, requestFields(['content-length', '3']), NO_END));
  trailed.feed(join(frame(FrameType.Data, 0, 1, 'ab'), headers(1, [['x', 'y']])));
  assert.equal(trailed.message(1).resetFault, Http2Fault.ContentLengthDiffers);
});

test('a response without content may tell a length: to HEAD, and 304', () => {
  const pair = new Pair({
    onRequest: (stream, { line }) => pair.server.respond(stream, line.endsWith('/304') ? 304 : 200, true, 9),
  });
  pair.run().client.request({}, { method: 'HEAD' });
  pair.client.request({}, { path: '/304' });
  pair.client.request({}, { path: '/wrong' });
  pair.run();
  assert.ok(pair.client.message(1).complete);
  assert.ok(pair.client.message(3).complete);
  assert.equal(pair.client.message(5).resetFault, Http2Fault.ContentLengthDiffers);
});

test('responses are judged too: status, interim ends, connection fields', () => {
  for (const fields of [
    [[':status', '101']],
    [[':status', '20']],
    [[':status', '2000']],
    [[':status', '100']],
    [['x', 'y']],
    [
      [':status', '200'],
      ['connection', 'close'],
    ],
    [
      [':status', '200'],
      [':path', '/'],
    ],
  ] as const) {
    const client = new Peer({ isServer: false });
    client.feed(SETTINGS);
    client.request();
    assert.equal(client.feed(headers(1, fields)), 0);
    assert.notEqual(client.message(1).reset, -1, JSON.stringify(fields));
  }
});

test('trailers end their stream and hold no pseudo-field (bug 8)', () => {
  for (const bytes of [headers(1, [['x', 'y']], NO_END), headers(1, [[':path', '/']])]) {
    const peer = server();
    peer.feed(join(headers(1, requestFields(), NO_END), bytes));
    assert.equal(peer.message(1).resetFault, Http2Fault.TrailersInvalid);
  }
});

test('a head beyond the limits is told to the owner, for 431, and not reset', () => {
  const peer = server();
  const many = requestFields(...Array.from({ length: 120 }, (_, i) => [`x-${i}`, 'y'] as const));
  peer.feed(headers(1, many, NO_END));
  assert.equal(peer.message(1).fault, -Http2Fault.TooManyFields);
  const other = server();
  const bomb = Uint8Array.from([
    ...literalBlock(requestFields()),
    0x40,
    1,
    0x61,
    127,
    0x80,
    0x1e,
    ...new Uint8Array(3967).fill(0x61),
    ...new Uint8Array(2000).fill(0xbe),
  ]);
  assert.equal(other.feed(frame(FrameType.Headers, 5, 1, bomb)), 0);
  assert.equal(other.message(1).fault, -Http2Fault.HeadTooLong);
  assert.equal(other.feed(headers(3, requestFields(['expect', 'wonders']))), 0);
  assert.equal(other.message(3).fault, -Http2Fault.ExpectationUnknown);
});

test('rapid reset ends the connection (bug 27)', () => {
  const peer = server();
  let outcome = 0;
  let streams = 0;
  for (let id = 1; outcome === 0 && id < 4000; id += 2, streams++) {
    outcome = peer.feed(join(headers(id, requestFields()), frame(FrameType.RstStream, 0, id, word(8))));
  }
  assert.equal(outcome, -Http2Fault.Abuse);
  assert.ok(streams < 300, `${streams}`);
  assert.equal(verdict(peer), `goaway:${ErrorCode.EnhanceYourCalm}`);
});

test('making this side reset streams ends the connection as well (bug 27)', () => {
  const tricks: readonly ((id: number) => Uint8Array)[] = [
    (id) => frame(FrameType.WindowUpdate, 0, id, word(0)),
    (id) => frame(FrameType.Priority, 0, id, new Uint8Array(4)),
    (id) => join(frame(FrameType.WindowUpdate, 0, id, word(0x7fffffff))),
    (id) => frame(FrameType.Data, 0, id, 'behind the end'),
    (id) => headers(id, [['x', 'y']]),
  ];
  for (const trick of tricks) {
    const peer = server();
    let outcome = 0;
    for (let id = 1; outcome === 0 && id < 4000; id += 2)
      outcome = peer.feed(join(headers(id, requestFields()), trick(id)));
    assert.equal(outcome, -Http2Fault.Abuse);
  }
});

test('a stream counts until its work has ended, whoever reset it (bug 27)', () => {
  const peer = server({ streamsMax: 2 });
  peer.releases = false;
  const cancel = (id: number) => frame(FrameType.RstStream, 0, id, word(8));
  peer.feed(join(headers(1, requestFields()), cancel(1), headers(3, requestFields()), cancel(3)));
  peer.feed(headers(5, requestFields()));
  assert.equal(verdict(peer), `5:${ErrorCode.RefusedStream}`);
  peer.connection.release(peer.connection.streams.get(1) as Http2Stream);
  assert.equal(peer.feed(headers(7, requestFields())), 0);
  assert.equal(peer.message(7).line, 'GET example.org/');
});

test('floods of frames without use end the connection (bug 27)', () => {
  const floods: Readonly<Record<string, Uint8Array>> = {
    ping: frame(FrameType.Ping, 0, 0, new Uint8Array(8)),
    settings: SETTINGS,
    priority: frame(FrameType.Priority, 0, 9, Uint8Array.of(0, 0, 0, 1, 0)),
    'empty data': frame(FrameType.Data, 0, 1),
    'window update': frame(FrameType.WindowUpdate, 0, 0, word(1)),
    unknown: frame(77, 0, 0, 'x'),
  };
  for (const [name, flood] of Object.entries(floods)) {
    const peer = server();
    peer.feed(headers(1, requestFields(), NO_END));
    let outcome = 0;
    for (let i = 0; outcome === 0 && i < 3000; i++) {
      outcome = peer.feed(flood);
      peer.take();
    }
    assert.equal(outcome, -Http2Fault.Abuse, name);
  }
});

test('a peer that pings and does not read is ended before answers pile up', () => {
  const peer = server();
  let outcome = 0;
  for (let i = 0; outcome === 0 && i < 20; i++)
    outcome = peer.feed(frame(FrameType.Ping, 0, 0, new Uint8Array(8)));
  assert.equal(outcome, -Http2Fault.Abuse);
});

test('what is spent comes back with time', () => {
  const peer = server();
  for (let i = 0; i < 2000; i++) {
    peer.now += 25;
    const bytes = join(
      headers(2 * i + 1, requestFields()),
      frame(FrameType.RstStream, 0, 2 * i + 1, word(8)),
    );
    assert.equal(peer.feed(bytes), 0);
    peer.take();
  }
});

test('CONTINUATION floods are cut off: by frames, by octets, and by time (bug 27)', () => {
  const open = frame(FrameType.Headers, 0, 1, literalBlock(requestFields()));
  const tiny = server();
  tiny.feed(open);
  let outcome = 0;
  let count = 0;
  for (; outcome === 0 && count < 100; count++)
    outcome = tiny.feed(frame(FrameType.Continuation, 0, 1, Uint8Array.of(0x82)));
  assert.equal(outcome, -Http2Fault.BlockTooLong);
  assert.ok(count <= 17);
  const large = server();
  large.feed(open);
  assert.equal(
    large.feed(frame(FrameType.Continuation, 0, 1, new Uint8Array(16_384))),
    -Http2Fault.BlockTooLong,
  );
  const slow = server();
  slow.now = 100;
  slow.feed(frame(FrameType.Settings, FrameFlag.Ack, 0));
  slow.feed(open);
  assert.equal(slow.connection.handleTimeout(5000), 0);
  assert.ok(slow.connection.pollTimeout() <= 10_100);
  assert.equal(slow.connection.handleTimeout(10_100), -Http2Fault.Abuse);
});

test('SETTINGS that are not acknowledged end the connection', () => {
  const peer = new Peer({ isServer: true });
  peer.take();
  peer.feed(join(PREFACE, SETTINGS));
  assert.equal(peer.connection.handleTimeout(10_000), -Http2Fault.SettingsTimeout);
});

test('connection errors have the code of their section', () => {
  const { FrameSizeError, ProtocolError, FlowControlError, StreamClosed, CompressionError } = ErrorCode;
  const cases: readonly [Uint8Array, number][] = [
    [frame(FrameType.Data, 0, 0, 'x'), ProtocolError],
    [frame(FrameType.Data, 0, 1, 'x'), ProtocolError],
    [frame(FrameType.Data, FrameFlag.Padded, 1, ''), FrameSizeError],
    [headers(0, requestFields()), ProtocolError],
    [headers(2, requestFields()), ProtocolError],
    [frame(FrameType.Headers, 5 | FrameFlag.Padded, 1, Uint8Array.of(9, 0x82)), ProtocolError],
    [frame(FrameType.Headers, 5, 1, Uint8Array.of(0x80)), CompressionError],
    [join(headers(3, requestFields()), headers(1, requestFields())), StreamClosed],
    [frame(FrameType.RstStream, 0, 0, word(8)), ProtocolError],
    [frame(FrameType.RstStream, 0, 1, word(8)), ProtocolError],
    [frame(FrameType.RstStream, 0, 1, 'xxx'), FrameSizeError],
    [frame(FrameType.Settings, FrameFlag.Ack, 0, 'xxxxxx'), FrameSizeError],
    [frame(FrameType.Settings, 0, 1), ProtocolError],
    [frame(FrameType.Settings, 0, 0, 'xxx'), FrameSizeError],
    [setting(Setting.EnablePush, 2), ProtocolError],
    [setting(Setting.InitialWindowSize, 0x8000_0000), FlowControlError],
    [setting(Setting.MaxFrameSize, 16_383), ProtocolError],
    [setting(Setting.MaxFrameSize, 16_777_216), ProtocolError],
    [frame(FrameType.PushPromise, 4, 1, 'xxxx'), ProtocolError],
    [frame(FrameType.Ping, 0, 1, 'xxxxxxxx'), ProtocolError],
    [frame(FrameType.Ping, 0, 0, 'xxx'), FrameSizeError],
    [frame(FrameType.Goaway, 0, 1, 'xxxxxxxx'), ProtocolError],
    [frame(FrameType.WindowUpdate, 0, 0, word(0)), ProtocolError],
    [frame(FrameType.WindowUpdate, 0, 0, word(0x7fff_ffff)), FlowControlError],
    [frame(FrameType.WindowUpdate, 0, 1, word(1)), ProtocolError],
    [frame(FrameType.Continuation, 4, 1), ProtocolError],
    [join(frame(FrameType.Headers, 0, 1, literalBlock(requestFields())), SETTINGS), ProtocolError],
    [frame(FrameType.Data, 0, 1, new Uint8Array(16_385)), FrameSizeError],
  ];
  for (const [bytes, code] of cases) {
    const peer = server();
    assert.ok(peer.feed(bytes) < 0, `${frames(bytes)[0]?.type} ${code}`);
    assert.equal(verdict(peer), `goaway:${code}`);
    assert.ok(peer.connection.isFinished);
  }
});

test('anything but the preface, and anything but SETTINGS behind it, is refused', () => {
  const wrong = new Peer({ isServer: true });
  assert.equal(wrong.feed(Uint8Array.from(Buffer.from('GET / HTTP/1.1\r\n'))), -Http2Fault.PrefaceInvalid);
  const early = new Peer({ isServer: true });
  assert.equal(early.feed(join(PREFACE, headers(1, requestFields()))), -Http2Fault.SettingsExpected);
});

test('SETTINGS change the windows of open streams, below zero too (RFC 9113 section 6.9.2)', () => {
  const peer = server();
  peer.feed(headers(1, requestFields()));
  const stream = peer.connection.streams.get(1) as Http2Stream;
  peer.respond(stream, 200);
  assert.equal(peer.send(stream, 'x'.repeat(30_000)), 30_000);
  peer.feed(setting(Setting.InitialWindowSize, 10_000));
  assert.equal(stream.sendWindow, 10_000 - 30_000);
  assert.equal(peer.send(stream, 'x'), 0);
  peer.feed(setting(Setting.InitialWindowSize, 40_000));
  assert.equal(peer.send(stream, 'x'.repeat(20_000)), 10_000);
});

test('a drain lets what is under way end, and takes what comes within a round trip (bug 30)', () => {
  const pair = new Pair();
  pair.run();
  pair.client.request();
  pair.run();
  pair.server.connection.drain();
  const first = pair.server.take();
  pair.client.request();
  assert.equal(pair.server.feed(pair.client.take()), 0);
  pair.client.feed(first);
  assert.ok(pair.client.connection.peerGoingAway && !pair.client.connection.canOpen);
  pair.run();
  assert.ok(!pair.server.connection.isFinished);
  for (const id of [1, 3]) {
    const stream = pair.server.connection.streams.get(id) as Http2Stream;
    pair.server.respond(stream, 204, true);
  }
  pair.run();
  assert.ok(pair.server.connection.isFinished);
  assert.ok(pair.client.message(1).complete && pair.client.message(3).complete);
});

test('streams above the last one of GOAWAY, and refused ones, may be sent again (bug 21)', () => {
  const client = new Peer({ isServer: false });
  client.feed(SETTINGS);
  client.request();
  client.request();
  client.request();
  client.feed(
    join(
      frame(FrameType.RstStream, 0, 1, word(ErrorCode.RefusedStream)),
      frame(FrameType.Goaway, 0, 0, join(word(3), word(0))),
    ),
  );
  assert.ok(client.message(1).unprocessed);
  assert.equal(client.message(3).reset, -1);
  assert.ok(client.message(5).unprocessed);
});

test('frames that were under way when a stream was reset are ignored (RFC 9113 section 5.1)', () => {
  const peer = server();
  peer.feed(headers(1, requestFields(), NO_END));
  peer.connection.release(peer.connection.streams.get(1) as Http2Stream);
  peer.take();
  const late = join(
    frame(FrameType.Data, 0, 1, 'x'),
    frame(FrameType.WindowUpdate, 0, 1, word(5)),
    headers(1, [['x', 'y']]),
    frame(FrameType.RstStream, 0, 1, word(8)),
  );
  assert.equal(peer.feed(late), 0);
  assert.equal(verdict(peer), 'nothing');
  assert.equal(peer.feed(headers(3, requestFields())), 0);
  assert.equal(peer.message(3).line, 'GET example.org/');
});

test('a client opens as many streams as the server allows', () => {
  const pair = new Pair({}, { streamsMax: 2 });
  pair.run().client.request();
  pair.client.request();
  assert.ok(!pair.client.connection.canOpen);
  pair.run();
  pair.server.respond(pair.server.connection.streams.get(1) as Http2Stream, 204, true);
  pair.run();
  assert.ok(pair.client.connection.canOpen);
});

test('extended CONNECT carries both directions and is announced (bug 39)', () => {
  const pair = new Pair();
  pair.run();
  assert.ok(pair.client.connection.peerAllowsConnect);
  const stream = pair.client.request(
    {},
    { method: 'GET', protocol: 'websocket', path: '/chat', ends: false },
  );
  pair.run();
  const other = pair.server.connection.streams.get(1) as Http2Stream;
  assert.equal(other.protocol, 'websocket');
  assert.equal(pair.server.message(1).line, 'CONNECT example.org/chat');
  pair.server.respond(other, 200);
  pair.server.send(other, 'from the server');
  pair.client.send(stream, 'from the client', true);
  pair.run();
  assert.equal(pair.client.message(1).text, 'from the server');
  assert.equal(pair.server.message(1).text, 'from the client');
});
