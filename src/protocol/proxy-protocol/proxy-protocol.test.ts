import assert from 'node:assert/strict';
import { test } from 'node:test';

import { crc32c } from './crc32c.ts';
import { PROXY_HEADER_BYTES_MAX, ProxyFault, type ProxyHeader, ProxyTlv } from './header.ts';
import { parseProxyHeader } from './proxy-protocol.ts';
import { writeProxyV1, writeProxyV2 } from './write.ts';

const SOURCE = { address: '192.0.2.1', port: 51234 };
const DESTINATION = { address: '198.51.100.1', port: 443 };
const SIGNATURE = '0d0a0d0a000d0a515549540a';

function parse(bytes: Uint8Array): ProxyHeader | ProxyFault {
  return parseProxyHeader(bytes, 0, bytes.length);
}

function read(bytes: Uint8Array): ProxyHeader {
  const header = parse(bytes);
  assert.ok(typeof header !== 'number', `fault ${header}`);
  return header;
}

function text(line: string): Uint8Array {
  return Buffer.from(line, 'latin1');
}

/** A header of version 2 from its bytes behind the signature; the length is counted. */
function v2(command: string, rest: string): Uint8Array {
  const size = (rest.length / 2).toString(16).padStart(4, '0');
  return Buffer.from(`${SIGNATURE}${command}${size}${rest}`, 'hex');
}

const ADDRESSES = 'c0000201c6336401c82201bb';

test('reads the lines of version 1', () => {
  const four = read(text('PROXY TCP4 192.0.2.1 198.51.100.1 51234 443\r\nGET /'));
  assert.deepEqual(
    [four.version, four.length, four.transport, four.source, four.destination],
    [1, 45, 'tcp', SOURCE, DESTINATION],
  );
  const six = read(text('PROXY TCP6 2001:db8::1 ::1 1 65535\r\n'));
  assert.deepEqual(six.source, { address: '2001:db8::1', port: 1 });
  const longest = `PROXY UNKNOWN ${'f'.repeat(91)}\r\n`;
  assert.deepEqual([read(text(longest)).length, read(text(longest)).transport], [107, 'unknown']);
});

test('refuses lines that are not exactly of the form', () => {
  for (const line of [
    'PROXY TCP4 192.0.2.1 198.51.100.1 51234\r\n',
    'PROXY TCP4 192.0.2.1 198.51.100.1 51234 443 \r\n',
    'PROXY TCP4  192.0.2.1 198.51.100.1 51234 443\r\n',
    'PROXY TCP4 192.0.2.1 198.51.100.1 51234 0443\r\n',
    'PROXY TCP4 192.0.2.1 198.51.100.1 51234 65536\r\n',
    'PROXY TCP4 192.0.2.1 198.51.100.1 51234 443\n',
    'PROXY TCP4 192.0.2.1 198.51.100.1 51234 443\rX',
    'PROXY TCP4 192.0.2.01 198.51.100.1 51234 443\r\n',
    'PROXY TCP4 ::1 ::1 1 1\r\n',
    'PROXY TCP6 192.0.2.1 198.51.100.1 51234 443\r\n',
    'PROXY UDP4 192.0.2.1 198.51.100.1 51234 443\r\n',
    'PROXY \r\n',
  ]) {
    assert.equal(parse(text(line)), ProxyFault.Malformed, JSON.stringify(line));
  }
  assert.equal(parse(text(`PROXY UNKNOWN ${'f'.repeat(92)}\r\n`)), ProxyFault.TooLong);
  assert.equal(parse(text('PROXZ')), ProxyFault.NotProxy);
  assert.equal(parse(text('GET / HTTP/1.1\r\n')), ProxyFault.NotProxy);
});

test('reads version 2 byte by byte', () => {
  const header = read(v2('2111', ADDRESSES));
  assert.deepEqual(
    [header.version, header.length, header.command, header.transport],
    [2, 28, 'proxy', 'tcp'],
  );
  assert.deepEqual([header.source, header.destination], [SOURCE, DESTINATION]);
  assert.equal(read(v2('2112', ADDRESSES)).transport, 'udp');
});

test('every beginning of a header is incomplete', () => {
  for (const whole of [
    text('PROXY TCP4 192.0.2.1 198.51.100.1 51234 443\r\n'),
    v2('2111', ADDRESSES),
    v2('2000', ''),
    writeProxyV2({ source: SOURCE, destination: DESTINATION, authority: 'a.test' }),
  ]) {
    for (let length = 0; length < whole.length; length++) {
      assert.equal(parseProxyHeader(whole, 0, length), ProxyFault.Incomplete, `${length}`);
    }
    assert.equal(read(whole).length, whole.length);
  }
});

test('LOCAL is accepted whatever stands in it, and tells no endpoints', () => {
  for (const rest of ['', ADDRESSES, 'ffffff']) {
    const header = read(v2('2011', rest));
    assert.deepEqual([header.command, header.source, header.length], ['local', null, 16 + rest.length / 2]);
  }
});

test('UNSPEC and Unix sockets tell no endpoints; what does not exist is refused', () => {
  assert.deepEqual([read(v2('2100', '')).source, read(v2('2100', '')).transport], [null, 'unknown']);
  assert.equal(read(v2('2131', '00'.repeat(216))).transport, 'unix');
  for (const command of ['2211', '3111', '0111', '2141', '2113', '2101', '2110']) {
    assert.equal(parse(v2(command, '00'.repeat(216))), ProxyFault.Malformed, command);
  }
  assert.equal(parse(v2('2121', ADDRESSES)), ProxyFault.Malformed, 'a block that is too short');
});

test('TLVs must exactly fill the header', () => {
  assert.equal(read(v2('2111', `${ADDRESSES}0100026832`)).alpn, 'h2');
  for (const tlvs of ['01', '010002', '01000268', '010003683201', '0100026832ff', '040001', 'ee0001']) {
    assert.equal(parse(v2('2111', ADDRESSES + tlvs)), ProxyFault.BadTlv, tlvs);
  }
});

test('a TLV that stands twice, or is not in its form, is refused; unknown ones are skipped', () => {
  for (const tlvs of [
    '01000268320100026832', // ALPN twice
    '020001ff', // no UTF-8
    '020003610a62', // a line end
    '050000', // no unique id
    `050081${'00'.repeat(129)}`, // one that is too long
    '20000401000000', // TLS without all its fields
    '200007010000000021000a', // a TLV inside that does not fit
    'e70001', // a context without a form
    'e7000302607b7d', // of another form
    'e70003015b5d', // a list
    '0300030000',
  ]) {
    assert.equal(parse(v2('2111', ADDRESSES + tlvs)), ProxyFault.BadTlv, tlvs);
  }
  assert.equal(read(v2('2111', `${ADDRESSES}0400020000040000ee000100ee`.slice(0, -2))).alpn, null);
});

test('CRC32C is that of the whole header with itself as zero', () => {
  // The check value of the polynomial, for the nine digits.
  assert.equal(crc32c(text('123456789'), { start: 0, end: 9, hole: -1 }), 0xe3069283);
  const bytes = writeProxyV2({ source: SOURCE, destination: DESTINATION });
  assert.deepEqual(read(bytes).source, SOURCE);
  for (let at = 16; at < bytes.length; at++) {
    const broken = bytes.slice();
    broken[at] = (broken[at] as number) ^ 1;
    assert.equal(typeof parse(broken), 'number', `${at}`);
  }
});

test('what is written is read back, both families, all that can be told', () => {
  const tls = {
    encrypted: true,
    clientCertificate: 'connection',
    verified: true,
    version: 'TLSv1.3',
    commonName: 'ada',
    cipher: 'TLS_AES_128_GCM_SHA256',
    signatureAlgorithm: 'SHA256',
    keyAlgorithm: 'EC256',
  } as const;
  const facts = {
    alpn: 'h2',
    authority: 'www.example.test',
    uniqueId: Uint8Array.of(1, 2, 3),
    tls,
    context: { account: 'acme', vnet: 'production', user: 'ada' },
  };
  for (const source of [SOURCE, { address: '2001:db8::7', port: 9 }]) {
    const header = read(writeProxyV2({ source, destination: DESTINATION, ...facts }));
    const { alpn, authority, uniqueId, context } = header;
    assert.deepEqual({ alpn, authority, uniqueId, tls: header.tls, context }, facts);
    assert.deepEqual([header.source, header.destination], [source, DESTINATION]);
  }
  const line = writeProxyV1({ source: SOURCE, destination: DESTINATION });
  assert.equal(Buffer.from(line).toString(), 'PROXY TCP4 192.0.2.1 198.51.100.1 51234 443\r\n');
});

test('a destination that is a name is told as unknown', () => {
  const destination = { address: 'app.test', port: 80 };
  assert.equal(read(writeProxyV1({ source: SOURCE, destination })).transport, 'unknown');
  assert.equal(read(writeProxyV2({ source: SOURCE, destination })).transport, 'unknown');
});

test('nothing longer than the limit is read or written', () => {
  const context = { account: 'a', labels: { x: 'y'.repeat(PROXY_HEADER_BYTES_MAX) } };
  const written = writeProxyV2({ source: SOURCE, destination: DESTINATION, alpn: 'h2', context });
  const { alpn, context: none } = read(written);
  assert.deepEqual([alpn, none], ['h2', null]);
  assert.equal(parse(Buffer.from(`${SIGNATURE}2111ffff`, 'hex')), ProxyFault.TooLong);
  assert.equal(ProxyTlv.Context & 0xf0, 0xe0, 'in the range that is left to applications');
});
