/** Stands in for a PostgreSQL: lets everybody in and sends back what comes. Port 5432, or the one given. */
import { createServer } from 'node:net';

const AUTHENTICATION_OK = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0]);
const READY_FOR_QUERY = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);

const server = createServer((socket) => {
  socket.on('error', () => socket.destroy());
  socket.once('data', () => {
    socket.write(Buffer.concat([AUTHENTICATION_OK, READY_FOR_QUERY]));
    socket.pipe(socket);
  });
});
server.listen(Number(process.argv[2] ?? 5432), '127.0.0.1', () => console.log('ready'));
