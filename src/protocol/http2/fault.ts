import { ErrorCode } from './http2.ts';

/**
 * Why a stream or a connection is ended by this side. Numbers are permanent: they stand in logs and metrics.
 * Parsers return them negated, so that a result below zero is a fault and nothing is thrown for data from
 * outside.
 */
export const Http2Fault = Object.freeze({
  None: 0,
  // Frames.
  PrefaceInvalid: 1,
  SettingsExpected: 2,
  FrameTooLong: 3,
  FrameSizeInvalid: 4,
  StreamIdInvalid: 5,
  PaddingInvalid: 6,
  ContinuationExpected: 7,
  ContinuationUnexpected: 8,
  SettingInvalid: 9,
  PushUnexpected: 10,
  SettingsTimeout: 11,
  // Streams.
  StreamIdle: 20,
  StreamClosed: 21,
  StreamRefused: 22,
  StreamDependsOnItself: 23,
  // Flow control.
  WindowExceeded: 30,
  WindowOverflow: 31,
  WindowIncrementZero: 32,
  // Field blocks.
  CompressionInvalid: 40,
  BlockTooLong: 41,
  // Messages.
  FieldNameInvalid: 50,
  FieldValueInvalid: 51,
  ConnectionField: 52,
  PseudoInvalid: 53,
  PseudoMissing: 54,
  AuthorityDiffers: 55,
  ContentLengthInvalid: 56,
  ContentLengthDiffers: 57,
  TrailersInvalid: 58,
  TargetInvalid: 59,
  StatusInvalid: 60,
  HeadUnexpected: 61,
  // Well formed, and not to be served.
  HeadTooLong: 70,
  TooManyFields: 71,
  ExpectationUnknown: 72,
  FieldRefused: 73,
  // Behaviour.
  Abuse: 80,
} as const);
export type Http2Fault = (typeof Http2Fault)[keyof typeof Http2Fault];

/** What is known about a fault. */
export interface Http2FaultFact {
  readonly name: keyof typeof Http2Fault;
  /** Goes into RST_STREAM or GOAWAY. */
  readonly errorCode: ErrorCode;
  /** Lower case: what is wrong, for logs. */
  readonly text: string;
}

const { ProtocolError, FrameSizeError, StreamClosed, FlowControlError, CompressionError } = ErrorCode;

const FACTS: Readonly<Record<keyof typeof Http2Fault, readonly [code: ErrorCode, text: string]>> = {
  None: [ErrorCode.NoError, 'no fault'],
  PrefaceInvalid: [ProtocolError, 'the connection does not begin with the preface'],
  SettingsExpected: [ProtocolError, 'the first frame is not SETTINGS'],
  FrameTooLong: [FrameSizeError, 'a frame is longer than the size announced'],
  FrameSizeInvalid: [FrameSizeError, 'a frame has not the length of its type'],
  StreamIdInvalid: [ProtocolError, 'a frame names a stream that its type or its sender may not name'],
  PaddingInvalid: [ProtocolError, 'padding is as long as its frame or longer'],
  ContinuationExpected: [ProtocolError, 'another frame came in the middle of a field block'],
  ContinuationUnexpected: [ProtocolError, 'CONTINUATION without a field block to continue'],
  SettingInvalid: [ProtocolError, 'a setting has a value that it may not have'],
  PushUnexpected: [ProtocolError, 'PUSH_PROMISE, which was not allowed'],
  SettingsTimeout: [ErrorCode.SettingsTimeout, 'SETTINGS were not acknowledged in time'],
  StreamIdle: [ProtocolError, 'a frame for a stream that was never opened'],
  StreamClosed: [StreamClosed, 'a frame for a stream whose sender had ended it'],
  StreamRefused: [ErrorCode.RefusedStream, 'more streams than are allowed at once'],
  StreamDependsOnItself: [ProtocolError, 'a stream depends on itself'],
  WindowExceeded: [FlowControlError, 'more content than the window allowed'],
  WindowOverflow: [FlowControlError, 'a window grew beyond 2^31-1'],
  WindowIncrementZero: [ProtocolError, 'WINDOW_UPDATE with an increment of 0'],
  CompressionInvalid: [CompressionError, 'a field block cannot be decoded'],
  BlockTooLong: [ErrorCode.EnhanceYourCalm, 'a field block is longer than the limit'],
  FieldNameInvalid: [ProtocolError, 'a field name is not a lower-case token'],
  FieldValueInvalid: [ProtocolError, 'a field value holds a control character or begins or ends in space'],
  ConnectionField: [ProtocolError, 'a field that belongs to HTTP/1.1 connections'],
  PseudoInvalid: [ProtocolError, 'a pseudo-field that is unknown, repeated or behind a field'],
  PseudoMissing: [ProtocolError, 'a pseudo-field is missing'],
  AuthorityDiffers: [ProtocolError, 'Host and :authority differ'],
  ContentLengthInvalid: [ProtocolError, 'Content-Length is not one decimal number'],
  ContentLengthDiffers: [ProtocolError, 'the content has not the length that Content-Length says'],
  TrailersInvalid: [ProtocolError, 'trailers do not end the stream, or hold what trailers may not hold'],
  TargetInvalid: [ProtocolError, 'the path or authority is not valid for the method'],
  StatusInvalid: [ProtocolError, 'the status is not three digits, or 101'],
  HeadUnexpected: [ProtocolError, 'a head came where none may come'],
  HeadTooLong: [ErrorCode.EnhanceYourCalm, 'the fields are longer than the limit'],
  TooManyFields: [ErrorCode.EnhanceYourCalm, 'there are more fields than the limit'],
  ExpectationUnknown: [ProtocolError, 'Expect asks for something other than 100-continue'],
  FieldRefused: [ProtocolError, 'a field has a value that is not understood'],
  Abuse: [ErrorCode.EnhanceYourCalm, 'the peer resets streams, or sends frames without use, too often'],
};

/** Facts by fault number; holes are undefined. */
export const HTTP2_FAULT_FACTS: readonly (Http2FaultFact | undefined)[] = Object.freeze(
  (Object.keys(FACTS) as (keyof typeof Http2Fault)[]).reduce<Http2FaultFact[]>((list, name) => {
    const [errorCode, text] = FACTS[name];
    list[Http2Fault[name]] = Object.freeze({ name, errorCode, text });
    return list;
  }, []),
);

/** The fact of a fault given as a parser returned it (negated) or as it is named. */
export function http2FaultFact(fault: number): Http2FaultFact {
  return HTTP2_FAULT_FACTS[Math.abs(fault)] as Http2FaultFact;
}
