import { StreamState } from './stream-state.ts';

/** How far the heads of the peer's message have come. */
export const HeadStep = Object.freeze({
  /** The request, or the final response, has not come. */
  Awaited: 0,
  /** It has: content may come. */
  Content: 1,
} as const);
export type HeadStep = (typeof HeadStep)[keyof typeof HeadStep];

/** What is kept for one stream. Reused: `user` is what its owner knows it by. */
export class Http2Stream {
  id = 0;
  state: StreamState = StreamState.Idle;
  /** The owner's object for this stream. */
  user: unknown = null;
  /**
   * Octets of content that may still be sent, by the stream's own window; below 0 after a SETTINGS that took
   * some.
   */
  sendWindow = 0;
  /** Octets that the peer may still send. */
  receiveWindow = 0;
  /** Octets of content that came and that the owner has not consumed. */
  unconsumed = 0;
  /** Octets consumed and not yet given back to the peer by WINDOW_UPDATE. */
  returnable = 0;
  /** Stands in the list of streams whose window is to be given back. */
  returning = false;
  headStep: HeadStep = HeadStep.Awaited;
  /** What Content-Length announced, −1 for nothing; and what has come. */
  expectedLength = -1;
  receivedLength = 0;
  /** A response without content, whatever its Content-Length says: to HEAD. Set by the client. */
  expectsNoContent = false;
  /** Extended CONNECT: its protocol (RFC 8441 section 4); empty else. */
  protocol = '';
  /** The owner has let go of it. */
  released = false;

  /** Begins anew as stream `id`. */
  begin(id: number, sendWindow: number, receiveWindow: number): void {
    this.id = id;
    this.state = StreamState.Idle;
    this.user = null;
    this.sendWindow = sendWindow;
    this.receiveWindow = receiveWindow;
    this.unconsumed = 0;
    this.returnable = 0;
    this.returning = false;
    this.headStep = HeadStep.Awaited;
    this.expectedLength = -1;
    this.receivedLength = 0;
    this.expectsNoContent = false;
    this.protocol = '';
    this.released = false;
  }
}
