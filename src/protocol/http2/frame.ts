import { FRAME_HEADER_BYTES, FrameFlag, FrameType } from './http2.ts';

/** Payload length of the frame whose header begins at `at`. */
export function frameLength(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 16) | ((bytes[at + 1] as number) << 8) | (bytes[at + 2] as number);
}

/** Type of the frame whose header begins at `at`; any octet. */
export function frameType(bytes: Uint8Array, at: number): number {
  return bytes[at + 3] as number;
}

/** Flags of the frame whose header begins at `at`. */
export function frameFlags(bytes: Uint8Array, at: number): number {
  return bytes[at + 4] as number;
}

/** Stream of the frame whose header begins at `at`; the reserved bit is ignored (RFC 9113 section 4.1). */
export function frameStreamId(bytes: Uint8Array, at: number): number {
  return readUint31(bytes, at + 5);
}

/** 31 bits, big-endian; the highest bit is ignored. */
export function readUint31(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) & 0x7f) << 24) |
    ((bytes[at + 1] as number) << 16) |
    ((bytes[at + 2] as number) << 8) |
    (bytes[at + 3] as number)
  );
}

/** 32 bits, big-endian, unsigned. */
export function readUint32(bytes: Uint8Array, at: number): number {
  return (readUint31(bytes, at) | ((bytes[at] as number) & 0x80 ? 0x8000_0000 : 0)) >>> 0;
}

/** Writes 32 bits, big-endian; the offset behind them. */
export function writeUint32(out: Uint8Array, at: number, value: number): number {
  out[at] = value >>> 24;
  out[at + 1] = value >>> 16;
  out[at + 2] = value >>> 8;
  out[at + 3] = value;
  return at + 4;
}

/** Writes a frame header; the offset behind it, where the payload begins. */
export function writeFrameHeader(
  out: Uint8Array,
  at: number,
  length: number,
  type: FrameType,
  flags: number,
  streamId: number,
): number {
  out[at] = length >>> 16;
  out[at + 1] = length >>> 8;
  out[at + 2] = length;
  out[at + 3] = type;
  out[at + 4] = flags;
  return writeUint32(out, at + 5, streamId);
}

/** Length of a whole RST_STREAM, and of a whole WINDOW_UPDATE. */
export const SHORT_FRAME_BYTES: number = FRAME_HEADER_BYTES + 4;
/** Length of a whole PING. */
export const PING_FRAME_BYTES: number = FRAME_HEADER_BYTES + 8;
/** Length of a whole GOAWAY without debug data. */
export const GOAWAY_FRAME_BYTES: number = FRAME_HEADER_BYTES + 8;

/** RST_STREAM, RFC 9113 section 6.4. */
export function writeRstStream(out: Uint8Array, at: number, streamId: number, errorCode: number): number {
  return writeUint32(out, writeFrameHeader(out, at, 4, FrameType.RstStream, 0, streamId), errorCode);
}

/** WINDOW_UPDATE, RFC 9113 section 6.9; stream 0 is the connection. */
export function writeWindowUpdate(out: Uint8Array, at: number, streamId: number, increment: number): number {
  return writeUint32(out, writeFrameHeader(out, at, 4, FrameType.WindowUpdate, 0, streamId), increment);
}

/** PING with the eight octets at `opaque[from…]`, RFC 9113 section 6.7. */
export function writePing(
  out: Uint8Array,
  at: number,
  opaque: Uint8Array,
  from: number,
  isAck: boolean,
): number {
  const payload = writeFrameHeader(out, at, 8, FrameType.Ping, isAck ? FrameFlag.Ack : 0, 0);
  for (let i = 0; i < 8; i++) out[payload + i] = opaque[from + i] as number;
  return payload + 8;
}

/** GOAWAY without debug data, RFC 9113 section 6.8. */
export function writeGoaway(out: Uint8Array, at: number, lastStreamId: number, errorCode: number): number {
  const payload = writeFrameHeader(out, at, 8, FrameType.Goaway, 0, 0);
  return writeUint32(out, writeUint32(out, payload, lastStreamId), errorCode);
}

/** SETTINGS with pairs of parameter and value, RFC 9113 section 6.5. */
export function writeSettings(
  out: Uint8Array,
  at: number,
  pairs: readonly (readonly [number, number])[],
): number {
  let position = writeFrameHeader(out, at, 6 * pairs.length, FrameType.Settings, 0, 0);
  for (const [parameter, value] of pairs) {
    out[position] = parameter >>> 8;
    out[position + 1] = parameter;
    position = writeUint32(out, position + 2, value);
  }
  return position;
}

/** SETTINGS with ACK. */
export function writeSettingsAck(out: Uint8Array, at: number): number {
  return writeFrameHeader(out, at, 0, FrameType.Settings, FrameFlag.Ack, 0);
}
