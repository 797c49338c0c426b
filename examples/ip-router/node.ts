/** Answers pings to 10.4.0.7 over GUE: the same network as `client.py` joins, over UDP. */
import { createSocket } from 'node:dgram';

const ADDRESS = '10.4.0.7';
const ICMP = 1;
const ECHO_REQUEST = 8;
const [host = '127.0.0.1', port = '6080'] = process.argv.slice(2);

// Behind 4 bytes: the form of the private data (1), the length of the context, the context, zeros to whole
// words.
const context = Buffer.from(JSON.stringify({ account: 'acme', vnet: 'office', sources: [`${ADDRESS}/32`] }));
const words = Math.ceil((2 + context.length) / 4);
const header = Buffer.alloc(4 + words * 4);
header.set([words, 4, 0, 0, 1, context.length, ...context]);

/** Turns an echo request into its reply; the checksum of the message grows by what its type loses. */
function reply(packet: Buffer): Buffer {
  const answer = Buffer.from(packet);
  packet.copy(answer, 12, 16, 20);
  packet.copy(answer, 16, 12, 16);
  answer[20] = 0;
  const sum = packet.readUInt16BE(22) + (ECHO_REQUEST << 8);
  answer.writeUInt16BE((sum & 0xffff) + (sum >>> 16), 22);
  return answer;
}

const socket = createSocket('udp4');
const send = (packet: Buffer): void => socket.send(Buffer.concat([header, packet]), Number(port), host);
socket.on('message', (datagram) => {
  const packet = datagram.subarray(4 + 4 * ((datagram[0] as number) & 31));
  if (packet[0] === 0x45 && packet[9] === ICMP && packet[20] === ECHO_REQUEST) send(reply(packet));
});
// There is nothing to open: a node is known by its first packet, here an echo request to 10.1.0.2.
send(Buffer.from('4500001c00004000' + '400126d40a0400070a010002' + '0800f7ff00000000', 'hex'));
socket.once('listening', () => console.log(`joined as ${ADDRESS}`));
