import { dropReasonName } from '#base/drop-reason.ts';
import { RampartError } from '#base/error.ts';
import { formatIp, parseIp } from '#base/ip.ts';
import { CloseReason } from '#contract/record.ts';
import { type Completion, Errno, type Fd, type Io, type OperationId, type TimerId } from '#io/io.ts';
import type { PrivateNamespace } from '#io/namespace.ts';
import type { FlowIndex } from '#proxy/flow/flow-table.ts';
import { writePeerAddress } from '#proxy/flow/nat.ts';
import type { FlowHost, OutboundSpec } from '#proxy/flow/packet-upgrade.ts';
import type { Worker } from '#proxy/proxy-contract.ts';

import type { Stack } from './stack.ts';

/** A stream that leaves as IP packets; TCP, so the protocol is not asked. */
export type StackConnectSpec = Omit<OutboundSpec, 'protocol'>;

const IPPROTO_TCP = 6;

/**
 * Opens TCP streams through IP-tunnel off-ramps: a socket of the stack's namespace connects to an address
 * that stands for the flow, and its packets leave by the tunnel with the real ones.
 */
export class StackConnector {
  readonly #worker: Worker;
  readonly #stack: Stack;
  readonly #host: FlowHost;
  readonly #namespace: PrivateNamespace;

  constructor(
    worker: Worker,
    options: { readonly stack: Stack; readonly host: FlowHost; readonly namespace: PrivateNamespace },
  ) {
    this.#worker = worker;
    this.#stack = options.stack;
    this.#host = options.host;
    this.#namespace = options.namespace;
  }

  /**
   * Connects within `limits.connectMs`; the caller owns the descriptor. Rejects with `RampartError`, side
   * `upstream`: RAMP_CONNECT (refused, unreachable, no such tunnel), RAMP_TIMEOUT, RAMP_LIMIT (no port, no
   * room for a flow) or RAMP_NO_DESCRIPTORS.
   */
  async connect(spec: StackConnectSpec): Promise<Fd> {
    const version = parseIp(spec.target.address)?.length === 4 ? 4 : 6;
    const fd = await this.#openSocket(version);
    const flow = this.#host.openOutbound({ ...spec, protocol: IPPROTO_TCP });
    if (flow < 0) {
      this.#worker.io.close(fd);
      throw refusal(spec, -flow);
    }
    const n = this.#stack.openTarget(flow);
    if (n < 0) {
      this.#worker.io.close(fd);
      this.#host.endFlow(flow, CloseReason.Limit);
      throw refusal(spec, -n);
    }
    this.#host.setHandle(flow, n);
    const result = await this.#connect(fd, { version, n, port: spec.target.port });
    if (result >= 0) return fd;
    this.#worker.io.close(fd);
    this.#endIfOurs(flow, n);
    throw failure(spec, -result);
  }

  async #openSocket(version: 4 | 6): Promise<Fd> {
    const kind = version === 4 ? 'tcp4' : 'tcp6';
    const fd = this.#namespace.openSocketNow(kind);
    return fd >= 0 ? fd : ((await this.#namespace.openSockets(kind, 1))[0] as Fd);
  }

  #connect(fd: Fd, to: { version: 4 | 6; n: number; port: number }): Promise<number> {
    const { io, limits } = this.#worker;
    const { version, n, port } = to;
    const bytes = new Uint8Array(version === 4 ? 4 : 16);
    writePeerAddress(new DataView(bytes.buffer), 0, { version, peer: 'target', n });
    io.setOption(fd, 'no-delay', 1);
    return new Promise((resolve) => {
      const attempt = new ConnectAttempt(io, resolve);
      attempt.start(fd, { family: version, address: formatIp(bytes), port }, limits.connectMs);
    });
  }

  /** The flow may have ended by itself meanwhile, and its place may be another's. */
  #endIfOurs(flow: FlowIndex, n: number): void {
    const { table } = this.#host;
    if (table.isLive(flow) && table.handle(flow) === n && this.#stack.isTarget(n, flow)) {
      this.#host.endFlow(flow, CloseReason.OriginUnreachable);
    }
  }
}

const TAG_CONNECTED = 0;
const TAG_LATE = 1;

/** One connect under way with its time limit; resolves with 0 or a negative errno. */
class ConnectAttempt implements Completion {
  readonly #io: Io;
  readonly #resolve: (result: number) => void;
  #operation: OperationId = 0;
  #timer: TimerId = 0;
  #isLate = false;

  constructor(io: Io, resolve: (result: number) => void) {
    this.#io = io;
    this.#resolve = resolve;
  }

  start(fd: Fd, address: { family: 4 | 6; address: string; port: number }, timeoutMs: number): void {
    this.#timer = this.#io.timer(timeoutMs, this, TAG_LATE);
    this.#operation = this.#io.connect(fd, address, this, TAG_CONNECTED);
  }

  onCompletion(tag: number, result: number): void {
    if (tag === TAG_LATE) {
      this.#isLate = true;
      this.#io.cancel(this.#operation);
      return;
    }
    if (!this.#isLate) this.#io.cancelTimer(this.#timer);
    this.#resolve(result < 0 && this.#isLate ? -Errno.ETIMEDOUT : result);
  }
}

function refusal(spec: StackConnectSpec, reason: number): RampartError {
  const { address, port } = spec.target;
  const isLimit = dropReasonName(reason) !== 'no_route';
  const text = `no flow to ${address} port ${port} by ${spec.via} could be opened: ${dropReasonName(reason)}`;
  return new RampartError(isLimit ? 'RAMP_LIMIT' : 'RAMP_CONNECT', text, { side: 'upstream', retry: 'no' });
}

function failure(spec: StackConnectSpec, errno: number): RampartError {
  const { address, port } = spec.target;
  const isLate = errno === Errno.ETIMEDOUT;
  const text = `connecting to ${address} port ${port} by ${spec.via} failed with errno ${errno}`;
  return new RampartError(isLate ? 'RAMP_TIMEOUT' : 'RAMP_CONNECT', text, {
    side: 'upstream',
    retry: 'yes',
    errno,
  });
}
