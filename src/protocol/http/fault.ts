/**
 * Why an HTTP message is refused. Numbers are permanent (they stand in logs and metrics); parsers return them
 * negated, so that a result below zero is a fault and nothing is thrown for data from outside.
 */
export const HttpFault = Object.freeze({
  None: 0,
  // The start line.
  LeadingBytes: 1,
  MethodInvalid: 2,
  MethodTooLong: 3,
  TargetInvalid: 4,
  TargetTooLong: 5,
  VersionInvalid: 6,
  VersionUnsupported: 7,
  StatusLineInvalid: 8,
  // Lines and fields.
  BareCarriageReturn: 10,
  BareLineFeed: 11,
  LeadingWhitespace: 12,
  FieldNameInvalid: 13,
  SpaceBeforeColon: 14,
  FieldValueInvalid: 15,
  ObsoleteFold: 16,
  HeadTooLong: 17,
  TooManyFields: 18,
  // What fields mean.
  HostMissing: 20,
  HostDuplicate: 21,
  HostInvalid: 22,
  ContentLengthInvalid: 23,
  ContentLengthDuplicate: 24,
  TransferEncodingInvalid: 25,
  TransferEncodingUnknown: 26,
  TransferEncodingOnOldVersion: 27,
  ContentLengthWithTransferEncoding: 28,
  ConnectionInvalid: 29,
  ExpectationUnknown: 30,
  MaxForwardsInvalid: 31,
  // The body.
  ChunkSizeInvalid: 40,
  ChunkSizeTooLarge: 41,
  ChunkExtensionInvalid: 42,
  ChunkExtensionTooLong: 43,
  ChunkEndInvalid: 44,
  TrailersTooLong: 45,
  TrailerInvalid: 46,
  BodyTruncated: 47,
  BodyTooLong: 48,
  // Well formed and not to be served.
  ForwardingLoop: 60,
  MethodRefused: 61,
} as const);
export type HttpFault = (typeof HttpFault)[keyof typeof HttpFault];

/** What is known about a fault. */
export interface HttpFaultFact {
  readonly name: keyof typeof HttpFault;
  /** The status that answers a request with this fault. A response with any fault is answered 502. */
  readonly status: number;
  /** Lower case: what is wrong, for logs and for the body of the answer. */
  readonly text: string;
}

const FACTS: Readonly<Record<keyof typeof HttpFault, readonly [status: number, text: string]>> = {
  None: [200, 'no fault'],
  LeadingBytes: [400, 'more than one empty line before the start line'],
  MethodInvalid: [400, 'the method is not a token followed by one space'],
  MethodTooLong: [501, 'the method is longer than any that is implemented'],
  TargetInvalid: [400, 'the request target is not valid for its method'],
  TargetTooLong: [414, 'the request target is longer than the limit'],
  VersionInvalid: [400, 'the start line does not hold an HTTP version'],
  VersionUnsupported: [505, 'the version is not HTTP/1.0 or HTTP/1.1'],
  StatusLineInvalid: [502, 'the status line is malformed'],
  BareCarriageReturn: [400, 'a carriage return without a line feed'],
  BareLineFeed: [400, 'a line feed without a carriage return'],
  LeadingWhitespace: [400, 'whitespace between the start line and the first field'],
  FieldNameInvalid: [400, 'a field name is not a token'],
  SpaceBeforeColon: [400, 'whitespace between a field name and its colon'],
  FieldValueInvalid: [400, 'a field value holds a control character'],
  ObsoleteFold: [400, 'a field value is folded over lines'],
  HeadTooLong: [431, 'the head is longer than the limit'],
  TooManyFields: [431, 'the head has more fields than the limit'],
  HostMissing: [400, 'no Host field'],
  HostDuplicate: [400, 'more than one Host field'],
  HostInvalid: [400, 'the Host field is not a host with an optional port'],
  ContentLengthInvalid: [400, 'Content-Length is not a decimal number within limits'],
  ContentLengthDuplicate: [400, 'more than one Content-Length'],
  TransferEncodingInvalid: [400, 'Transfer-Encoding does not end in exactly one chunked'],
  TransferEncodingUnknown: [501, 'Transfer-Encoding names a coding that is not implemented'],
  TransferEncodingOnOldVersion: [400, 'Transfer-Encoding in an HTTP/1.0 message'],
  ContentLengthWithTransferEncoding: [400, 'Content-Length together with Transfer-Encoding'],
  ConnectionInvalid: [400, 'the Connection field is not a list of tokens'],
  ExpectationUnknown: [417, 'Expect asks for something other than 100-continue'],
  MaxForwardsInvalid: [400, 'Max-Forwards is not a decimal number'],
  ChunkSizeInvalid: [400, 'a chunk size is not hexadecimal digits'],
  ChunkSizeTooLarge: [413, 'a chunk size has more digits than the limit'],
  ChunkExtensionInvalid: [400, 'a chunk extension is malformed'],
  ChunkExtensionTooLong: [400, 'chunk extensions are longer than the limit'],
  ChunkEndInvalid: [400, 'a chunk does not end where its size says'],
  TrailersTooLong: [431, 'the trailers are longer than the limit'],
  TrailerInvalid: [400, 'a trailer field is malformed'],
  BodyTruncated: [400, 'the body ended before its framing said'],
  BodyTooLong: [413, 'the body is longer than the limit'],
  ForwardingLoop: [508, 'this node stands in Via already'],
  MethodRefused: [405, 'the method is not served here'],
};

/** Facts by fault number; holes are undefined. */
export const HTTP_FAULT_FACTS: readonly (HttpFaultFact | undefined)[] = Object.freeze(
  (Object.keys(FACTS) as (keyof typeof HttpFault)[]).reduce<HttpFaultFact[]>((list, name) => {
    const [status, text] = FACTS[name];
    list[HttpFault[name]] = Object.freeze({ name, status, text });
    return list;
  }, []),
);

/** The fact of a fault given as a parser returned it (negated) or as it is named. */
export function httpFaultFact(fault: number): HttpFaultFact {
  return HTTP_FAULT_FACTS[Math.abs(fault)] as HttpFaultFact;
}
