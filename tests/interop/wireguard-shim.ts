/**
 * A host with one WireGuard peer, for `wireguard.test.ts`: the core over a socket of `node:dgram`. Inside it
 * is 10.77.0.2 and fd77::2 and answers echo requests. With `--ask` it begins by itself and asks 10.77.0.1
 * until it is answered; with `--load` it counts as under load. Says on its output what happens.
 */
import { randomFillSync } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { parseArgs } from 'node:util';

import { formatSocketAddress, type IpPrefix, parsePrefix, parseSocketAddress } from '#base/ip.ts';
import { readSocketAddress, writeSocketAddress } from '#io/socket-address.ts';
import { foldSum, sumBytes } from '#packet/checksum.ts';
import { WireguardDrop } from '#protocol/wireguard/drop.ts';
import { WireguardInterface } from '#protocol/wireguard/interface.ts';

const { values } = parseArgs({
  options: {
    key: { type: 'string', default: '' },
    peer: { type: 'string', default: '' },
    psk: { type: 'string' },
    listen: { type: 'string', default: '' },
    endpoint: { type: 'string' },
    keepalive: { type: 'string', default: '0' },
    ask: { type: 'boolean', default: false },
    load: { type: 'boolean', default: false },
  },
});

const AT = 1024;
const FROM = 128;
const ASK_EVERY_MS = 200;
const memory = new DataView(new ArrayBuffer(1 << 17));
const bytes = new Uint8Array(memory.buffer);
const say = (line: string): boolean => process.stdout.write(`${line}\n`);
const wireguard = new WireguardInterface({
  memory,
  privateKey: Uint8Array.fromBase64(values.key),
  random: (into) => void randomFillSync(into),
  unixAtZero: performance.timeOrigin,
});

function addressBytes(text: string): Uint8Array {
  const address = parseSocketAddress(text);
  if (address === null) throw new Error(`not an address: ${text}`);
  const length = writeSocketAddress(memory, FROM, address);
  return bytes.slice(FROM, FROM + length);
}

wireguard.addPeer(
  {
    publicKey: Uint8Array.fromBase64(values.peer),
    presharedKey: values.psk === undefined ? undefined : Uint8Array.fromBase64(values.psk),
    allowedIps: [parsePrefix('10.77.0.1/32'), parsePrefix('fd77::1/128')] as IpPrefix[],
    endpoint: values.endpoint === undefined ? undefined : addressBytes(values.endpoint),
    persistentKeepalive: Number(values.keepalive) * 1000,
  },
  performance.now(),
);

const listen = parseSocketAddress(values.listen);
if (listen === null || listen.family === 'unix') throw new Error('--listen needs an address');
const socket = createSocket(listen.family === 4 ? 'udp4' : 'udp6');

function sendTo(endpoint: Uint8Array, datagram: Uint8Array): void {
  const view = new DataView(endpoint.buffer, endpoint.byteOffset, endpoint.length);
  const to = readSocketAddress(view, 0, endpoint.length);
  if (to.family !== 'unix') socket.send(datagram, to.port, to.address);
}

let timer: NodeJS.Timeout | undefined;

/** Does what the core wants after each call. */
function serve(): void {
  for (let sent = wireguard.pollTransmit(); sent !== null; sent = wireguard.pollTransmit()) {
    sendTo(sent.endpoint, sent.bytes);
  }
  for (let event = wireguard.pollEvent(); event !== null; event = wireguard.pollEvent()) say(event.kind);
  clearTimeout(timer);
  const wait = wireguard.pollTimeout() - performance.now();
  if (wait === Number.POSITIVE_INFINITY) return;
  timer = setTimeout(
    () => {
      wireguard.handleTimeout(performance.now());
      serve();
    },
    Math.max(1, wait),
  );
}

/** Sends the packet of `length` bytes at `AT`. */
function sendPacket(length: number): void {
  const drop = wireguard.handlePacket(AT, length, performance.now());
  const { at, peer, length: outerLength } = wireguard.outer;
  const endpoint = drop === WireguardDrop.None ? peer?.endpointBytes() : null;
  if (endpoint) sendTo(endpoint, bytes.slice(at, at + outerLength));
  serve();
}

/** Swaps two fields of the packet at `at`. */
function swap(at: number, first: number, second: number, length: number): void {
  const kept = bytes.slice(at + first, at + first + length);
  bytes.copyWithin(at + first, at + second, at + second + length);
  bytes.set(kept, at + second);
}

/** Turns an echo request into its answer, and sends it; notes answers. */
function handleInner(at: number, length: number): void {
  bytes.copyWithin(AT, at, at + length);
  const isV4 = (bytes[AT] as number) >>> 4 === 4;
  const icmp = AT + (isV4 ? 20 : 40);
  const type = bytes[icmp];
  if (type === 0 || type === 129) say('answered');
  if (type !== 8 && type !== 128) return;
  swap(AT, isV4 ? 12 : 8, isV4 ? 16 : 24, isV4 ? 4 : 16);
  bytes[icmp] = isV4 ? 0 : 129;
  // The type is the only byte that changes in the checksum's sum, by 8 · 256 down or 256 up.
  const sum = memory.getUint16(icmp + 2) + (isV4 ? 8 * 256 : 0xffff - 256);
  memory.setUint16(icmp + 2, (sum & 0xffff) + (sum >>> 16));
  sendPacket(length);
}

function checksum(at: number, length: number): number {
  return ~foldSum(sumBytes(memory, at, length)) & 0xffff;
}

function ask(): void {
  const request = Uint8Array.fromHex(
    '4500001c000040004001 0000 0a4d0002 0a4d0001 08000000 00010001'.replaceAll(' ', ''),
  );
  bytes.set(request, AT);
  memory.setUint16(AT + 10, checksum(AT, 20));
  memory.setUint16(AT + 22, checksum(AT + 20, 8));
  sendPacket(request.length);
}

socket.on('message', (datagram, from) => {
  const fromBytes = addressBytes(
    formatSocketAddress({ family: from.family === 'IPv4' ? 4 : 6, address: from.address, port: from.port }),
  );
  bytes.set(fromBytes, FROM);
  bytes.set(datagram, AT);
  if (values.load) wireguard.declareLoad(performance.now());
  const drop = wireguard.handleDatagram(AT, datagram.length, FROM, performance.now());
  if (drop !== WireguardDrop.None) say(`dropped ${drop}`);
  const { at, length } = wireguard.inner;
  if (length > 0) handleInner(at, length);
  serve();
});

socket.bind(listen.port, listen.address, () => {
  say(`listening ${socket.address().port}`);
  serve();
  if (values.ask) setInterval(ask, ASK_EVERY_MS);
});
