import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CloseReason } from '#contract/record.ts';
import { TcpFlag } from '#packet/parse.ts';

import { isTcpOver, midStreamState, nextTcpState, tcpCloseReason, tcpStateName } from './tcp-state.ts';

const { Syn, Ack, Fin, Rst } = TcpFlag;

function after(...segments: readonly (readonly ['up' | 'down', number])[]): number {
  return segments.reduce((state, [way, flags]) => nextTcpState(state, way === 'up' ? 0 : 1, flags), 0);
}

const HANDSHAKE = [
  ['up', Syn],
  ['down', Syn | Ack],
  ['up', Ack],
] as const;

test('a connection goes from handshake to established only when both have spoken', () => {
  assert.equal(tcpStateName(after(['up', Syn])), 'handshake');
  assert.equal(tcpStateName(after(['up', Syn], ['up', Syn], ['up', Ack])), 'handshake');
  assert.equal(tcpStateName(after(['up', Syn], ['down', Syn | Ack])), 'handshake');
  assert.equal(tcpStateName(after(...HANDSHAKE)), 'established');
});

test('it is over after both ends said FIN, or after one reset', () => {
  const half = after(...HANDSHAKE, ['up', Fin | Ack], ['down', Ack]);
  assert.equal(tcpStateName(half), 'half-closed');
  assert.equal(isTcpOver(half), false);
  assert.equal(isTcpOver(nextTcpState(half, 1, Fin | Ack)), true);
  assert.equal(isTcpOver(after(...HANDSHAKE, ['down', Rst])), true);
});

test('the end has the reason of who ended it', () => {
  const end = (...segments: readonly (readonly ['up' | 'down', number])[]) =>
    tcpCloseReason(after(...HANDSHAKE, ...segments));
  assert.equal(end(), CloseReason.ClientIdle);
  assert.equal(end(['up', Fin | Ack]), CloseReason.ClientIdle);
  assert.equal(end(['up', Fin | Ack], ['down', Fin | Ack]), CloseReason.ClientClosed);
  assert.equal(end(['down', Fin | Ack], ['up', Fin | Ack]), CloseReason.OriginClosed);
  assert.equal(end(['up', Rst]), CloseReason.ClientError);
  assert.equal(end(['down', Rst]), CloseReason.OriginError);
  assert.equal(end(['down', Fin | Ack], ['up', Rst]), CloseReason.OriginClosed);
  assert.equal(tcpCloseReason(after(['up', Syn], ['down', Rst | Ack])), CloseReason.OriginUnreachable);
});

test('a connection that is met in its middle counts as established', () => {
  assert.equal(tcpStateName(midStreamState(Ack)), 'established');
  assert.equal(tcpStateName(midStreamState(Fin | Ack)), 'half-closed');
  assert.equal(tcpStateName(midStreamState(Rst)), 'reset');
});
