import { CloseReason } from '#contract/record.ts';
import type { InboundStream, Worker } from '#proxy/proxy-contract.ts';

import type { IntroductionLoss } from './introduction.ts';

/** Writes the record of a stream that ended before it had a target: every stream has exactly one. */
export function recordUnopened(
  worker: Worker,
  stream: InboundStream,
  ended: { readonly rule: string; readonly reason: CloseReason; readonly startedAt: number },
): void {
  const { flow, context, source, destination } = stream;
  worker.records.record({
    flow,
    account: context.account,
    vnet: context.vnet,
    identity: context.identity,
    onRamp: context.onRamp,
    offRamp: null,
    layer: 'tcp',
    protocol: 'tcp',
    source,
    destination,
    rule: ended.rule,
    reason: ended.reason,
    startedAt: ended.startedAt,
    endedAt: Date.now(),
    bytesUp: 0,
    bytesDown: 0,
    packetsUp: 0,
    packetsDown: 0,
  });
}

/** The reason that a record has for a lost introduction. */
export function reasonOfLoss(loss: IntroductionLoss): CloseReason {
  switch (loss) {
    case 'closed':
      return CloseReason.ClientClosed;
    case 'timeout':
      return CloseReason.ClientIdle;
    case 'error':
      return CloseReason.ClientError;
    case 'refused':
      return CloseReason.Policy;
    default:
      return CloseReason.Limit;
  }
}
