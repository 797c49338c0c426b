/**
 * HTTP/2 as bytes and rules: RFC 9113 (frames, streams, flow control), RFC 7541 (field compression) and RFC
 * 8441 (WebSocket and other protocols in a stream). Pure: no sockets, clocks, timers or randomness; input
 * comes as `bytes` with offsets, output is written where the caller says, time is an argument.
 *
 * How a request goes through this folder, in order:
 *
 *   connection.ts       bytes → frames → streams; flow control, limits, GOAWAY; control frames out
 *   frame.ts            the nine octets of a frame header, and writers for every type
 *   stream-state.ts     RFC 9113 section 5.1 as a table
 *   stream.ts           what is kept for one stream
 *   hpack-decoder.ts    a field block → `name: value` lines and the marks of their fields
 *   head-reader.ts      those lines → the `MessageHead` that HTTP/1.1 fills too: one message for both
 *   head-writer.ts      a `MessageHead` and what is to be changed in it → a field block
 *   hpack-encoder.ts    fields → a field block
 *   hpack-table.ts      the dynamic table, hpack-static.ts the static one, hpack-huffman.ts the code
 *   abuse-score.ts      what a peer may do oddly before the connection ends
 *   fault.ts            why a stream or a connection is ended, and the error code that says so
 *
 * Both roles are here: a server takes requests, a client sends them. A message is a `MessageHead` with
 * `minorVersion` `HTTP2_VERSION`, content, and trailers; framing is this connection's own and is never passed
 * on.
 */

/** Frame types of RFC 9113 section 6. Others are ignored (section 4.1). */
export const FrameType = Object.freeze({
  Data: 0,
  Headers: 1,
  Priority: 2,
  RstStream: 3,
  Settings: 4,
  PushPromise: 5,
  Ping: 6,
  Goaway: 7,
  WindowUpdate: 8,
  Continuation: 9,
} as const);
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

/** Flags of frames, RFC 9113 section 6. `Ack` and `EndStream` are the same bit in different types. */
export const FrameFlag = Object.freeze({
  EndStream: 1,
  Ack: 1,
  EndHeaders: 4,
  Padded: 8,
  Priority: 32,
} as const);

/** Parameters of SETTINGS: RFC 9113 section 6.5.2, RFC 8441 section 3, RFC 9218 section 2.1. */
export const Setting = Object.freeze({
  HeaderTableSize: 1,
  EnablePush: 2,
  MaxConcurrentStreams: 3,
  InitialWindowSize: 4,
  MaxFrameSize: 5,
  MaxHeaderListSize: 6,
  EnableConnectProtocol: 8,
  NoPriorities: 9,
} as const);

/** Error codes of RST_STREAM and GOAWAY, RFC 9113 section 7. */
export const ErrorCode = Object.freeze({
  NoError: 0,
  ProtocolError: 1,
  InternalError: 2,
  FlowControlError: 3,
  SettingsTimeout: 4,
  StreamClosed: 5,
  FrameSizeError: 6,
  RefusedStream: 7,
  Cancel: 8,
  CompressionError: 9,
  ConnectError: 10,
  EnhanceYourCalm: 11,
  InadequateSecurity: 12,
  Http11Required: 13,
} as const);
export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode];

const ERROR_NAMES = Object.keys(ErrorCode);

/** The name of an error code as RFC 9113 writes it; `unknown` for one that it does not have. */
export function errorCodeName(code: number): string {
  const name = ERROR_NAMES[code];
  if (name === undefined) return 'unknown';
  return name.replace(/(?<=[a-z])[A-Z0-9]/g, (letter) => `_${letter}`).toUpperCase();
}

/** Octets of a frame header, RFC 9113 section 4.1. */
export const FRAME_HEADER_BYTES = 9;
/** Every peer takes frames of this size, RFC 9113 section 4.2; larger ones gain nothing here. */
export const FRAME_BYTES_MIN = 16_384;
/** The largest SETTINGS_MAX_FRAME_SIZE. */
export const FRAME_BYTES_MAX = 16_777_215;
/** Initial window of connections, and of streams unless SETTINGS say otherwise, RFC 9113 section 6.9.2. */
export const WINDOW_DEFAULT = 65_535;
/** The largest window, RFC 9113 section 6.9.1. */
export const WINDOW_MAX = 0x7fff_ffff;
/** Table size of both sides before SETTINGS, RFC 9113 section 6.5.2. */
export const TABLE_BYTES_DEFAULT = 4096;
/** `MessageHead.minorVersion` of a head that came in HTTP/2. */
export const HTTP2_VERSION = 2;

/** What a client sends first, RFC 9113 section 3.4. */
export const PREFACE: Uint8Array = Uint8Array.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', (char) =>
  char.charCodeAt(0),
);
