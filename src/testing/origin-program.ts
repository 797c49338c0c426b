/**
 * A server that says who it is: `node origin-program.ts NAME SERVICE@PORT …`. It prints `ready` with its
 * ports, and ends when its parent is gone.
 *
 * | service | what it does |
 * |---|---|
 * | `http` | `NAME METHOD PATH`; `/fields` its request's fields as JSON; `/bytes/N` bytes; `/sha256` the hash of the body; `/echo` the body; `/status/N` |
 * | `echo` | TCP: sends back what comes |
 * | `datagrams` | UDP: `NAME heard: ` and what came |
 * | `greeting` | TCP: `NAME` and the client's address, then the end |
 * | `sink` | TCP: reads to the end, then the SHA-256 of it |
 * | `source` | TCP: reads a number in a line, then sends so many bytes |
 *
 * A request with the field `X-Expect` for another name than NAME, or a datagram that begins with
 * `expect OTHER `, is answered `FOREIGN`: so both ends notice when something went to the wrong network.
 */
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { bulkBytes } from './bulk-bytes.ts';

const [name = 'nobody', ...services] = process.argv.slice(2);
const ports: Record<string, number> = {};

for (const service of services) {
  const [kind = '', port = '0'] = service.split('@');
  ports[kind] = await open(kind, Number(port));
}
console.log(`ready ${JSON.stringify(ports)}`);
// The parent holds the other end of standard output; when it is gone, so is the reason to serve.
const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent) process.exit(0);
}, 1000);

function open(kind: string, port: number): Promise<number> {
  switch (kind) {
    case 'http':
      return listen(
        createServer({ keepAlive: true }, (request, response) => void answer(request, response)),
        port,
      );
    case 'echo':
      return listen(
        tcp((socket) => socket.pipe(socket)),
        port,
      );
    case 'greeting':
      return listen(
        tcp((socket) => socket.end(`${name} greets ${socket.remoteAddress}\n`)),
        port,
      );
    case 'sink':
      return listen(tcp(sink), port);
    case 'source':
      return listen(tcp(source), port);
    case 'datagrams':
      return datagrams(port);
    default:
      throw new Error(`there is no service ${kind}`);
  }
}

function listen(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, host: '::', backlog: 4096 }, () => resolve((server.address() as AddressInfo).port));
  });
}

function tcp(serve: (socket: Socket) => void): Server {
  return createTcpServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    serve(socket);
  });
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { url = '', method = '', headers } = request;
  const path = url.split('?', 1)[0] as string;
  request.on('error', () => {});
  response.setHeader('X-Origin', name);
  const expected = headers['x-expect'];
  if (expected !== undefined && expected !== name) {
    response.end(`FOREIGN ${name} got what is for ${expected}\n`);
    return;
  }
  const [, word = '', argument = ''] = path.split('/');
  if (word === 'fields') response.end(JSON.stringify(headers));
  else if (word === 'bytes') await sendBytes(response, Number(argument));
  else if (word === 'status') response.writeHead(Number(argument)).end();
  else if (word === 'echo') await pipeline(request, response).catch(() => response.destroy());
  else if (word === 'sha256') response.end(`${await hashOf(request)}\n`);
  else {
    request.resume();
    response.setHeader('Content-Type', 'text/plain');
    response.end(`${name} ${method} ${url}\n`);
  }
}

async function sendBytes(response: ServerResponse, length: number): Promise<void> {
  response.setHeader('Content-Length', length);
  await pipeline(Readable.from(bulkBytes(length)), response).catch(() => response.destroy());
}

async function hashOf(body: AsyncIterable<Buffer>): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of body) hash.update(chunk);
  return hash.digest('hex');
}

function sink(socket: Socket): void {
  const hash = createHash('sha256');
  socket.on('data', (chunk) => hash.update(chunk));
  socket.on('end', () => socket.end(`${hash.digest('hex')}\n`));
}

function source(socket: Socket): void {
  let line = '';
  const take = (chunk: Buffer): void => {
    line += chunk.toString('latin1');
    if (!line.includes('\n')) return;
    socket.off('data', take);
    pipeline(Readable.from(bulkBytes(Number(line))), socket).catch(() => socket.destroy());
  };
  socket.on('data', take);
}

function datagrams(port: number): Promise<number> {
  const socket = createSocket({ type: 'udp6', recvBufferSize: 4 << 20 }, (message, remote) => {
    const text = message.toString('latin1');
    const expected = /^expect (\S+) /.exec(text)?.[1];
    const reply = expected === undefined || expected === name ? `${name} heard: ${text}` : `FOREIGN ${name}`;
    socket.send(Buffer.from(reply, 'latin1'), remote.port, remote.address);
  });
  socket.on('error', () => {});
  return new Promise((resolve) => socket.bind(port, '::', () => resolve(socket.address().port)));
}
