/** The application behind the firewall: says what it was asked. Port 9000, or the one given. */
import { createServer } from 'node:http';

const server = createServer((request, response) => {
  response.setHeader('X-Powered-By', 'a framework that need not be known');
  response.setHeader('Content-Type', 'text/plain');
  if (request.url !== '/orders') {
    response.end(`you asked for ${request.method} ${request.url}\n`);
    return;
  }
  // In two pieces, as a slow application sends them: the number is cut.
  response.write('paid by 4111 1111 ');
  setImmediate(() => response.end('1111 1234, thank you\n'));
});
server.listen(Number(process.argv[2] ?? 9000), '127.0.0.1', () => console.log('ready'));
