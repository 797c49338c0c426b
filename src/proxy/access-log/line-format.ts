import { ACCESS_FIELDS, type AccessField } from '#config/access-log.ts';
import { latin1Bytes, writeDecimal } from '#protocol/http/octets.ts';

import {
  type AccessEntry,
  type ClientText,
  AUTHORITY_BYTES_MAX,
  METHOD_BYTES_MAX,
  PATH_BYTES_MAX,
  QUOTED_BYTES_MAX,
  quotable,
} from './access-entry.ts';

/** Longest constant text of a template, characters; the config holds to it. */
const LITERAL_LENGTH_MAX = 1024;

/** Longest digits of all numbers and the time together, with room to spare. */
const NUMBER_BYTES_MAX = 512;

/**
 * Room that a line may need: the texts of a template, and every field once at its longest, with every byte
 * escaped as six (`\u00e9`).
 */
export const LINE_BYTES_MAX =
  6 * (METHOD_BYTES_MAX + AUTHORITY_BYTES_MAX + PATH_BYTES_MAX + LITERAL_LENGTH_MAX) +
  8 * QUOTED_BYTES_MAX +
  NUMBER_BYTES_MAX;

/** The fields that name the client: `ClientText` has their bytes. */
type ClientField = 'flow' | 'account' | 'vnet' | 'user' | 'on_ramp' | 'source' | 'destination';
type RunPart = Uint8Array | ClientField;

/** What is written one after the other; fields as numbers, because a switch over numbers is a jump. */
const Step = Object.freeze({
  Time: 0,
  Kind: 1,
  OffRamp: 2,
  Method: 3,
  Authority: 4,
  Path: 5,
  Version: 6,
  Status: 7,
  BytesUp: 8,
  BytesDown: 9,
  RequestMs: 10,
  QueueMs: 11,
  ConnectMs: 12,
  ResponseMs: 13,
  TotalMs: 14,
  End: 15,
  Trace: 16,
} as const);

/** Steps from here on are runs of fields that name the client. */
const FIRST_RUN = 32;

const STEPS: Readonly<
  Record<Exclude<AccessField, ClientField>, number> & { [Field in ClientField]?: never }
> = Object.freeze({
  time: Step.Time,
  kind: Step.Kind,
  off_ramp: Step.OffRamp,
  method: Step.Method,
  authority: Step.Authority,
  path: Step.Path,
  version: Step.Version,
  status: Step.Status,
  bytes_up: Step.BytesUp,
  bytes_down: Step.BytesDown,
  request_ms: Step.RequestMs,
  queue_ms: Step.QueueMs,
  connect_ms: Step.ConnectMs,
  response_ms: Step.ResponseMs,
  total_ms: Step.TotalMs,
  end: Step.End,
  trace: Step.Trace,
});

/** The form of a line: constant texts with fields between them. */
export class LineFormat {
  /** Text before step `i`; the last one is behind all fields and ends the line. */
  readonly #literals: readonly Uint8Array[];
  /** `Step`, or `FIRST_RUN` and the index of a run. */
  readonly #steps: Uint8Array;
  /** Neighbouring fields that name the client, with the constant texts between them. */
  readonly #runs: readonly (readonly RunPart[])[];
  /** What stands for a number that there is none of. */
  readonly #none: Uint8Array;
  /** What stands for an empty text. */
  readonly #empty: Uint8Array;
  /** Begin of a second as text, and which second it is. */
  #second = 0;
  #secondText: Uint8Array = new Uint8Array(0);

  /** One JSON object with every field. */
  static json(): LineFormat {
    const literals: Uint8Array[] = [];
    let before = '{';
    for (const field of ACCESS_FIELDS) {
      const quote = NUMBERS.has(field) ? '' : '"';
      literals.push(latin1Bytes(`${before}"${field}":${quote}`));
      before = `${quote},`;
    }
    literals.push(latin1Bytes(`${before.slice(0, -1)}}\n`));
    return new LineFormat(literals, ACCESS_FIELDS, { none: 'null', empty: '' });
  }

  /** `{time} {source} {status}`: the config has checked it. */
  static template(template: string): LineFormat {
    const parts = `${template}\n`.split(/\{([a-z_]+)\}/);
    const literals = parts
      .filter((_part, index) => index % 2 === 0)
      .map((part) => new TextEncoder().encode(part));
    const fields = parts.filter((_part, index) => index % 2 === 1) as AccessField[];
    return new LineFormat(literals, fields, { none: '-', empty: '-' });
  }

  private constructor(
    literals: readonly Uint8Array[],
    fields: readonly AccessField[],
    absent: { readonly none: string; readonly empty: string },
  ) {
    this.#none = latin1Bytes(absent.none);
    this.#empty = latin1Bytes(absent.empty);
    const steps: number[] = [];
    const between: Uint8Array[] = [];
    const runs: RunPart[][] = [];
    fields.forEach((field, index) => {
      const literal = literals[index] as Uint8Array;
      const step = STEPS[field];
      const last = steps.at(-1);
      if (step === undefined && last !== undefined && last >= FIRST_RUN) {
        runs.at(-1)?.push(literal, field as ClientField);
        return;
      }
      between.push(literal);
      if (step === undefined) runs.push([field as ClientField]);
      steps.push(step ?? FIRST_RUN + runs.length - 1);
    });
    this.#literals = [...between, literals[fields.length] as Uint8Array];
    this.#steps = Uint8Array.from(steps);
    this.#runs = runs;
  }

  /** Writes one line with its end at `at`, where `LINE_BYTES_MAX` bytes are free; gives the offset behind. */
  write(out: Uint8Array, at: number, entry: AccessEntry): number {
    const literals = this.#literals;
    const steps = this.#steps;
    let position = at;
    for (let i = 0; i < steps.length; i++) {
      position = put(out, position, literals[i] as Uint8Array);
      position = this.#step(steps[i] as number, out, position, entry);
    }
    return put(out, position, literals[steps.length] as Uint8Array);
  }

  // Four arguments, because an object for each step of each line would cost more than the line.
  #step(step: number, out: Uint8Array, at: number, entry: AccessEntry): number {
    switch (step) {
      case Step.Time:
        return this.#time(out, at, entry.startedAt);
      case Step.Kind:
        return put(out, at, KIND_TEXTS[entry.kind] as Uint8Array);
      case Step.OffRamp:
        return this.#text(out, at, known(entry.offRamp));
      case Step.Method:
        return this.#octets(out, at, entry.method, entry.methodLength);
      case Step.Authority:
        return this.#octets(out, at, entry.authority, entry.authorityLength);
      case Step.Path:
        return this.#octets(out, at, entry.path, entry.pathLength);
      case Step.Version:
        return this.#text(out, at, VERSION_TEXTS[entry.version + 1] as Uint8Array);
      case Step.Status:
        return this.#number(out, at, entry.status === 0 ? -1 : entry.status);
      case Step.BytesUp:
        return this.#number(out, at, entry.bytesUp);
      case Step.BytesDown:
        return this.#number(out, at, entry.bytesDown);
      case Step.RequestMs:
        return this.#number(out, at, entry.requestMs);
      case Step.QueueMs:
        return this.#number(out, at, entry.queueMs);
      case Step.ConnectMs:
        return this.#number(out, at, entry.connectMs);
      case Step.ResponseMs:
        return this.#number(out, at, entry.responseMs);
      case Step.TotalMs:
        return this.#number(out, at, entry.totalMs);
      case Step.End:
        return this.#text(out, at, known(entry.end));
      case Step.Trace:
        return put(out, at, entry.hasTrace ? entry.traceId : this.#empty);
      default:
        return put(out, at, this.#clientRun(step - FIRST_RUN, entry.client));
    }
  }

  /** The fields of one run, which stay the same for a connection: put together for its first line. */
  #clientRun(run: number, client: ClientText): Uint8Array {
    if (client.runsOf !== this) {
      client.runsOf = this;
      client.runs = this.#runs.map((parts) => concat(parts, client, this.#empty));
    }
    return client.runs[run] as Uint8Array;
  }

  /** ISO 8601 with milliseconds; all but those is made once a second. */
  #time(out: Uint8Array, at: number, unixMs: number): number {
    const second = Math.floor(unixMs / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#secondText = latin1Bytes(new Date(second * 1000).toISOString().slice(0, 20));
    }
    const ms = Math.floor(unixMs) - second * 1000;
    let position = put(out, at, this.#secondText);
    out[position++] = 0x30 + Math.floor(ms / 100);
    out[position++] = 0x30 + (Math.floor(ms / 10) % 10);
    out[position++] = 0x30 + (ms % 10);
    out[position++] = 0x5a;
    return position;
  }

  #text(out: Uint8Array, at: number, text: Uint8Array): number {
    return put(out, at, text.length === 0 ? this.#empty : text);
  }

  /** Whole numbers from 0; anything below is none. */
  #number(out: Uint8Array, at: number, value: number): number {
    if (value < 0) return put(out, at, this.#none);
    const whole = Math.round(value);
    if (whole > 9) return writeDecimal(out, at, whole);
    out[at] = 0x30 + whole;
    return at + 1;
  }

  /**
   * Octets that a client sent, one character for each, so that nothing in them can end the string or the
   * line.
   */
  #octets(out: Uint8Array, at: number, octets: Uint8Array, length: number): number {
    if (length === 0) return put(out, at, this.#empty);
    let position = at;
    for (let i = 0; i < length; i++) {
      const octet = octets[i] as number;
      if (octet >= 0x20 && octet < 0x7f && octet !== 0x22 && octet !== 0x5c) out[position++] = octet;
      else position = escapeOctet(out, position, octet);
    }
    return position;
  }
}

const NUMBERS: ReadonlySet<AccessField> = new Set<AccessField>([
  'flow',
  'status',
  'bytes_up',
  'bytes_down',
  'request_ms',
  'queue_ms',
  'connect_ms',
  'response_ms',
  'total_ms',
]);
const KIND_TEXTS = ['request', 'stream', 'session', 'flow'].map(latin1Bytes);
/** At `version + 1`: none, HTTP/1.0, HTTP/1.1, HTTP/2. */
const VERSION_TEXTS = ['', '1.0', '1.1', '2'].map(latin1Bytes);
const DIGITS = latin1Bytes('0123456789abcdef');

/** A loop for short texts; `set` is faster from some 48 bytes on. */
function put(out: Uint8Array, at: number, bytes: Uint8Array): number {
  const { length } = bytes;
  if (length > 48) out.set(bytes, at);
  else for (let i = 0; i < length; i++) out[at + i] = bytes[i] as number;
  return at + length;
}

/** The bytes of one run for one client. */
function concat(parts: readonly RunPart[], client: ClientText, empty: Uint8Array): Uint8Array {
  const bytes = parts.map((part) => {
    if (typeof part !== 'string') return part;
    const text = clientField(part, client);
    return text.length === 0 ? empty : text;
  });
  return Uint8Array.from(Buffer.concat(bytes));
}

function clientField(field: ClientField, client: ClientText): Uint8Array {
  switch (field) {
    case 'flow':
      return latin1Bytes(String(client.flow));
    case 'on_ramp':
      return client.onRamp;
    case 'account':
    case 'vnet':
    case 'user':
    case 'source':
    case 'destination':
      return client[field];
    default:
      return field satisfies never;
  }
}

/** `\u00` and two hex digits. */
function escapeOctet(out: Uint8Array, at: number, octet: number): number {
  out[at] = 0x5c;
  out[at + 1] = 0x75;
  out[at + 2] = 0x30;
  out[at + 3] = 0x30;
  out[at + 4] = DIGITS[octet >>> 4] as number;
  out[at + 5] = DIGITS[octet & 15] as number;
  return at + 6;
}

/** Names of off-ramps and ends are few, so each is turned into bytes once. */
const KNOWN = new Map<string, Uint8Array>();
const KNOWN_MAX = 4096;

function known(text: string): Uint8Array {
  let bytes = KNOWN.get(text);
  if (bytes === undefined) {
    bytes = quotable(text);
    if (KNOWN.size >= KNOWN_MAX) KNOWN.clear();
    KNOWN.set(text, bytes);
  }
  return bytes;
}
