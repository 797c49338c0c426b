import { assert } from '#base/assert.ts';

import type { FieldEdits } from './edits.ts';
import { latin1Bytes } from './octets.ts';
import { reasonPhrase } from './status.ts';

/** A response that this node makes itself. */
export interface OwnResponse {
  readonly status: number;
  /** Value of Date; see `HttpDate`. */
  readonly date: Uint8Array;
  /** Fields beside Date, framing and Connection; already checked. */
  readonly fields: FieldEdits | null;
  /** The whole body; empty for none. With `omitBody` only its length is told. */
  readonly body: Uint8Array;
  /** The request was HEAD: the head is the same, the body is left out (RFC 9110 section 9.3.2). */
  readonly omitBody: boolean;
  /** Announce that the connection ends. */
  readonly close: boolean;
  /** An HTTP/1.0 client asked to stay connected. */
  readonly keepAlive: boolean;
}

/** Writes a whole response at `at`; the offset behind it, or −1 when it might not fit before `limit`. */
export function writeOwnResponse(out: Uint8Array, at: number, limit: number, response: OwnResponse): number {
  const { status, fields, body } = response;
  assert(status >= 200 && status <= 999);
  const hasNoBody = status === 204 || status === 304;
  let text = `HTTP/1.1 ${status} ${reasonPhrase(status)}\r\nDate: `;
  for (const octet of response.date) text += String.fromCharCode(octet);
  text += '\r\n';
  if (!hasNoBody) text += `Content-Length: ${body.length}\r\n`;
  if (response.close) text += 'Connection: close\r\n';
  else if (response.keepAlive) text += 'Connection: keep-alive\r\n';
  const added = fields === null ? 0 : fields.addedBytes;
  const bodyLength = hasNoBody || response.omitBody ? 0 : body.length;
  if (text.length + added + 2 + bodyLength > limit - at) return -1;
  let position = put(out, at, latin1Bytes(text));
  for (const field of fields === null ? [] : fields.added) {
    position = put(out, position, field.name);
    position = put(out, position, COLON_SPACE);
    position = put(out, position, field.value);
    position = put(out, position, END_OF_LINE);
  }
  position = put(out, position, END_OF_LINE);
  return bodyLength === 0 ? position : put(out, position, body);
}

/** The field that carries the reason code of a refusal, the same code that logs have. */
export const REASON_FIELD = 'Rampart-Reason';

/** Body of a refusal: one line of plain text with the status and the reason code. */
export function refusalBody(status: number, reason: string): Uint8Array {
  return latin1Bytes(`${status} ${reasonPhrase(status)}: ${reason}\n`);
}

/** `HTTP/1.1 100 Continue`, for a client that waits and an upstream that does not say so in time. */
export const CONTINUE_RESPONSE: Uint8Array = latin1Bytes('HTTP/1.1 100 Continue\r\n\r\n');

const COLON_SPACE = latin1Bytes(': ');
const END_OF_LINE = latin1Bytes('\r\n');

function put(out: Uint8Array, at: number, text: Uint8Array): number {
  out.set(text, at);
  return at + text.length;
}
