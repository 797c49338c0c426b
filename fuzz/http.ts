/**
 * Fuzzes the HTTP/1.1 parsers: `node fuzz/http.ts [seed] [rounds]`. The seed is printed; the same seed does
 * the same. What must hold for any bytes: no exception, nothing read behind `end`, the same answer twice, the
 * same answer when the bytes come in pieces, and a forwarded head that parses again to the same fields and
 * framing.
 */
import { BodyReader, requestFraming } from '#protocol/http/body.ts';
import { newRequestForward, writeRequestHead } from '#protocol/http/forward.ts';
import { parseRequestHead, parseResponseHead } from '#protocol/http/head.ts';
import { MessageHead, STRICT_HEAD_OPTIONS } from '#protocol/http/message-head.ts';
import { latin1Bytes } from '#protocol/http/octets.ts';

const SEEDS = [
  'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
  'POST /a?b HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\nConnection: close, x\r\nX: y\r\n\r\nhello',
  'PUT http://a/b HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n' +
    '\r\n5;a=b\r\nhello\r\n0\r\nT: u\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
    'TE: trailers\r\nExpect: 100-continue\r\n\r\n',
  'CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n',
  'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: x\r\n\r\nok',
  'HTTP/1.0 304 \r\nConnection: keep-alive\r\nVia: 1.1 b\r\n\r\n',
].map(latin1Bytes);

const TOKENS = [
  '\r\n',
  '\n',
  '\r',
  ' ',
  '\t',
  ':',
  ',',
  ';',
  '\0',
  'chunked',
  'Content-Length: 7\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Host: x\r\n',
  'Connection: host, y\r\n',
  '0\r\n\r\n',
  'ffffffff\r\n',
  '\xff',
  'HTTP/1.1',
].map(latin1Bytes);

/** A small generator (mulberry32), so that a seed is one number. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function mutate(next: () => number): Uint8Array {
  let bytes = Array.from(SEEDS[Math.floor(next() * SEEDS.length)] as Uint8Array);
  const count = Math.floor(next() * 6);
  for (let i = 0; i < count; i++) {
    const at = Math.floor(next() * (bytes.length + 1));
    const kind = next();
    if (kind < 0.3) bytes[at] = Math.floor(next() * 256);
    else if (kind < 0.6) bytes.splice(at, Math.floor(next() * 8));
    else if (kind < 0.9) bytes.splice(at, 0, ...(TOKENS[Math.floor(next() * TOKENS.length)] as Uint8Array));
    else bytes = bytes.concat(Array.from(SEEDS[Math.floor(next() * SEEDS.length)] as Uint8Array));
  }
  return Uint8Array.from(bytes);
}

function check(condition: boolean, what: string, bytes: Uint8Array): void {
  if (!condition) throw new Error(`${what}: ${JSON.stringify(Buffer.from(bytes).toString('latin1'))}`);
}

function facts(head: MessageHead): string {
  return JSON.stringify([
    head.methodText,
    head.authority,
    head.flags,
    head.contentLength,
    head.status,
    head.fields.entries(),
  ]);
}

const OPTIONS = [
  STRICT_HEAD_OPTIONS,
  {
    ...STRICT_HEAD_OPTIONS,
    allowBareLineFeed: true,
    allowObsoleteFold: true,
    mergeIdenticalContentLength: true,
  },
  {
    ...STRICT_HEAD_OPTIONS,
    preferTransferEncoding: true,
    allowRawTarget: true,
    headBytesMax: 64,
    fieldsMax: 3,
  },
];

/** Runs `rounds` rounds. @throws Error with the input when something does not hold */
export function fuzzHttp(seed: number, rounds: number): { readonly accepted: number } {
  const next = random(seed);
  let accepted = 0;
  for (let round = 0; round < rounds; round++) {
    const input = mutate(next);
    const options = OPTIONS[round % OPTIONS.length] as typeof STRICT_HEAD_OPTIONS;
    const parse = round % 2 === 0 ? parseRequestHead : parseResponseHead;
    const head = new MessageHead(options);
    const whole = input.slice();
    const result = parse(whole, 0, whole.length, head);
    check(Number.isInteger(result) && result <= input.length, 'result out of range', input);

    // Other bytes behind the end must make no difference.
    const padded = new Uint8Array(input.length + 64).fill(0x0a);
    padded.set(input);
    const again = new MessageHead(options);
    check(parse(padded, 0, input.length, again) === result, 'read behind the end', input);

    const grown = new MessageHead(options);
    const pieces = input.slice();
    let pieceResult = 0;
    for (let end = 0; end <= pieces.length && pieceResult === 0; end += 1 + Math.floor(next() * 9)) {
      pieceResult = parse(pieces, 0, end, grown);
    }
    if (pieceResult === 0) pieceResult = parse(pieces, 0, pieces.length, grown);
    check(pieceResult === result, `pieces give ${pieceResult}, the whole ${result}`, input);
    if (result <= 0) continue;
    check(facts(grown) === facts(head) && facts(again) === facts(head), 'facts differ', input);
    accepted++;
    if (head.isRequest) forwardAndBody(whole, head, input);
  }
  return { accepted };
}

function forwardAndBody(whole: Uint8Array, head: MessageHead, input: Uint8Array): void {
  const out = new Uint8Array(4096);
  const forward = newRequestForward();
  forward.via = latin1Bytes('edge');
  forward.contentLength = head.contentLength;
  forward.chunked = requestFraming(head) === 2;
  forward.authority = head.authority === '' ? latin1Bytes('origin') : null;
  const end = writeRequestHead(out, 0, out.length, head, forward);
  if (end > 0) {
    const next = new MessageHead({ ...STRICT_HEAD_OPTIONS, allowRawTarget: head.options.allowRawTarget });
    check(parseRequestHead(out, 0, end, next) === end, 'a forwarded head is not strict', input);
    check(requestFraming(next) === requestFraming(head), 'framing changed', input);
    check(next.contentLength === head.contentLength, 'length changed', input);
  }
  const reader = new BodyReader();
  reader.begin(requestFraming(head), head.contentLength);
  let at = head.length;
  while (!reader.done && at < whole.length) {
    const after = reader.next(whole, at, whole.length);
    if (after < 0) return;
    check(after > at && after <= whole.length, 'the body reader stands still', input);
    check(
      reader.dataLength === 0 || reader.dataStart + reader.dataLength <= after,
      'span out of range',
      input,
    );
    at = after;
  }
}

if (import.meta.main) {
  const seed = Number(process.argv[2] ?? Date.now() % 2 ** 31);
  const rounds = Number(process.argv[3] ?? 200_000);
  console.log(`fuzz http: seed ${seed}, ${rounds} rounds`);
  const { accepted } = fuzzHttp(seed, rounds);
  console.log(`fuzz http: no finding, ${accepted} inputs were accepted`);
}
