import { assert } from '#base/assert.ts';

/**
 * What can be made to fail: the operations, the calls that answer at once, and the synchronous calls that
 * throw.
 */
export type FaultKind =
  | 'accept'
  | 'connect'
  | 'recv'
  | 'recvPooled'
  | 'send'
  | 'read'
  | 'write'
  | 'readv'
  | 'writev'
  | 'recvmsg'
  | 'sendmsg'
  | 'splice'
  | 'poll'
  | 'try'
  | 'listen'
  | 'socket'
  | 'bind'
  | 'socketPair'
  | 'pipe'
  | 'setOption'
  | 'duplicate'
  | 'sendDescriptors'
  | 'recvDescriptors';

/**
 * Which operations of a memory engine fail. Every start of an operation, every connection that is accepted
 * and every synchronous call counts as one point, in order, so that "fail the n-th" can be tried for every n
 * of a run.
 */
export class FaultPlan {
  #count = 0;
  readonly #at = new Map<number, number>();
  readonly #next: { readonly kind: FaultKind; readonly errno: number }[] = [];

  /** Points passed so far. */
  get count(): number {
    return this.#count;
  }

  /** The `n`-th point from the beginning (the first is 1) fails with `errno`, a positive number. */
  failAt(n: number, errno: number): void {
    assert(n > this.#count && errno > 0, 'a point that lies ahead fails with a positive errno');
    this.#at.set(n, errno);
  }

  /** The next point of `kind` fails. Several calls make several fail, in order. */
  failNext(kind: FaultKind, errno: number): void {
    assert(errno > 0);
    this.#next.push({ kind, errno });
  }

  /** Passes a point: the positive errno with which it fails, or 0. */
  pass(kind: FaultKind): number {
    const errno = this.#at.get(++this.#count);
    if (errno !== undefined) {
      this.#at.delete(this.#count);
      return errno;
    }
    const index = this.#next.findIndex((fault) => fault.kind === kind);
    return index < 0 ? 0 : (this.#next.splice(index, 1)[0]?.errno ?? 0);
  }
}
