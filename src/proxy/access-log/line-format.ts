import { ACCESS_FIELDS, type AccessField } from '#config/access-log.ts';
import { copyOctets, latin1Bytes, writeDecimal } from '#protocol/http/octets.ts';

import {
  type AccessEntry,
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

/** The form of a line: constant texts with fields between them. */
export class LineFormat {
  /** Text before field `i`; the last one is behind all fields and ends the line. */
  readonly #literals: readonly Uint8Array[];
  readonly #fields: readonly AccessField[];
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
    this.#literals = literals;
    this.#fields = fields;
    this.#none = latin1Bytes(absent.none);
    this.#empty = latin1Bytes(absent.empty);
  }

  /** Writes one line with its end at `at`, where `LINE_BYTES_MAX` bytes are free; gives the offset behind. */
  write(out: Uint8Array, at: number, entry: AccessEntry): number {
    const literals = this.#literals;
    const fields = this.#fields;
    let position = at;
    for (let i = 0; i < fields.length; i++) {
      position = put(out, position, literals[i] as Uint8Array);
      position = this.#field(fields[i] as AccessField, out, position, entry);
    }
    return put(out, position, literals[fields.length] as Uint8Array);
  }

  // Four arguments, because an object for each field of each line would cost more than the line.
  #field(field: AccessField, out: Uint8Array, at: number, entry: AccessEntry): number {
    const { client } = entry;
    switch (field) {
      case 'time':
        return this.#time(out, at, entry.startedAt);
      case 'kind':
        return put(out, at, KIND_TEXTS[entry.kind] as Uint8Array);
      case 'flow':
        return writeDecimal(out, at, client.flow);
      case 'account':
        return this.#text(out, at, client.account);
      case 'vnet':
        return this.#text(out, at, client.vnet);
      case 'user':
        return this.#text(out, at, client.user);
      case 'on_ramp':
        return this.#text(out, at, client.onRamp);
      case 'off_ramp':
        return this.#text(out, at, known(entry.offRamp));
      case 'source':
        return put(out, at, client.source);
      case 'destination':
        return put(out, at, client.destination);
      case 'method':
        return this.#octets(out, at, entry.method, entry.methodLength);
      case 'authority':
        return this.#octets(out, at, entry.authority, entry.authorityLength);
      case 'path':
        return this.#octets(out, at, entry.path, entry.pathLength);
      case 'version':
        return this.#text(out, at, VERSION_TEXTS[entry.version + 1] as Uint8Array);
      case 'status':
        return this.#number(out, at, entry.status === 0 ? -1 : entry.status);
      case 'bytes_up':
        return this.#number(out, at, entry.bytesUp);
      case 'bytes_down':
        return this.#number(out, at, entry.bytesDown);
      case 'request_ms':
        return this.#number(out, at, entry.requestMs);
      case 'queue_ms':
        return this.#number(out, at, entry.queueMs);
      case 'connect_ms':
        return this.#number(out, at, entry.connectMs);
      case 'response_ms':
        return this.#number(out, at, entry.responseMs);
      case 'total_ms':
        return this.#number(out, at, entry.totalMs);
      case 'end':
        return this.#text(out, at, known(entry.end));
      case 'trace':
        return entry.hasTrace ? put(out, at, entry.traceId) : put(out, at, this.#empty);
      default:
        return field satisfies never;
    }
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
    return value < 0 ? put(out, at, this.#none) : writeDecimal(out, at, Math.round(value));
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

function put(out: Uint8Array, at: number, bytes: Uint8Array): number {
  return copyOctets(out, at, bytes, 0, bytes.length);
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
