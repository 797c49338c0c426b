/**
 * The child process of an unprivileged namespace: started inside it (by unshare(1) or nsenter(1)), it does
 * what the parent asks for and hands descriptors over. One request is one line of JSON on stdin, one reply
 * one line on stdout; descriptors of a reply have gone out over the SEQPACKET socket, descriptor 3, before
 * its line. It ends when stdin ends: when the parent closes the namespace, or is gone.
 */
import { createInterface } from 'node:readline';

import { RampartError } from '#base/error.ts';

import { closeDescriptor, DESCRIPTORS_PER_MESSAGE_MAX, sendDescriptors } from './ffi/namespace.ts';
import type { Fd } from './io.ts';
import type { HelperReply, HelperRequest } from './namespace-broker.ts';
import { bringLoopbackUp, configureHere, openListenerHere, openSocketsHere } from './namespace-work.ts';
import { systemError } from './system-error.ts';
import { openPacketDevice, closePacketDevice } from './packet-device.ts';

const DESCRIPTOR_SOCKET = 3;

// Signals from a terminal or a service manager are for the parent, which still needs this process to drain.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => {});

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line) as HelperRequest;
  process.stdout.write(`${JSON.stringify(answer(request))}\n`);
}
process.exit(0);

function answer(request: HelperRequest): HelperReply {
  const opened: Fd[] = [];
  try {
    const value = work(request, opened);
    handOver(opened);
    return { id: request.id, descriptors: opened.length, value };
  } catch (error) {
    const { message } = error as Error;
    const failure =
      error instanceof RampartError
        ? { code: error.code, message, errno: error.errno }
        : { code: 'RAMP_NAMESPACE' as const, message, errno: 0 };
    return { id: request.id, descriptors: 0, failure };
  } finally {
    for (const fd of opened) closeDescriptor(fd);
  }
}

function work(request: HelperRequest, opened: Fd[]): unknown {
  switch (request.kind) {
    case 'start':
      if (request.fresh) bringLoopbackUp();
      return undefined;
    case 'device': {
      const device = openPacketDevice(request.options);
      opened.push(...device.queues);
      return device;
    }
    case 'close-device':
      // The parent has closed its descriptors; this process keeps none.
      closePacketDevice({ ...request.device, queues: [] });
      return undefined;
    case 'configure':
      configureHere(request.config);
      return undefined;
    case 'sockets':
      opened.push(...openSocketsHere(request.socketKind, request.count));
      return undefined;
    case 'listener':
      opened.push(openListenerHere(request.options));
      return undefined;
    default:
      throw new RampartError('RAMP_NAMESPACE', `unknown request ${JSON.stringify(request satisfies never)}`);
  }
}

function handOver(descriptors: readonly Fd[]): void {
  for (let at = 0; at < descriptors.length; at += DESCRIPTORS_PER_MESSAGE_MAX) {
    const batch = descriptors.slice(at, at + DESCRIPTORS_PER_MESSAGE_MAX);
    const sent = sendDescriptors(DESCRIPTOR_SOCKET, Uint8Array.of(batch.length), batch);
    if (sent < 0) throw systemError('RAMP_NAMESPACE', 'handing descriptors over', sent);
  }
}
