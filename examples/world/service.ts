/** A private network's programs: a web server at port 80 and a TCP and UDP echo service at port 7. */
import { createSocket } from 'node:dgram';
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';

const vnet = process.argv[2] ?? 'nowhere';

const web = createServer((request, response) => {
  const user = request.headers['x-rampart-user'] ?? 'somebody';
  response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  response.end(`this is ${vnet}: hello ${user}, you asked for ${request.url}\n`);
});
const echo = createTcpServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', () => socket.destroy());
  socket.pipe(socket);
});
const datagrams = createSocket('udp6', (message, remote) => {
  datagrams.send(`${vnet} heard: ${message}`, remote.port, remote.address);
});

let waiting = 3;
const ready = (): void => {
  if (--waiting === 0) console.log('ready');
};
web.listen(80, '::', ready);
echo.listen(7, '::', ready);
datagrams.bind(7, '::', ready);
process.on('disconnect', () => process.exit(0));
