import { FieldKind, fieldKindOf } from '#protocol/http/field-kind.ts';
import { latin1Bytes, OCTET_CLASS, SPACE, TAB, TOKEN, VALUE } from '#protocol/http/octets.ts';

/** Pseudo-fields of RFC 9113 section 8.3 and RFC 8441 section 4. */
export const PseudoField = Object.freeze({
  Unknown: 0,
  Method: 1,
  Scheme: 2,
  Authority: 3,
  Path: 4,
  Status: 5,
  Protocol: 6,
} as const);
export type PseudoField = (typeof PseudoField)[keyof typeof PseudoField];

/**
 * What is known of a field from its octets alone, as bits. Kept with the entries of compression tables, so
 * that a field which comes again is not looked at again.
 */
export const Mark = Object.freeze({
  /** The lower six bits are the `FieldKind`, or with `Pseudo` the `PseudoField`. */
  KindMask: 0x3f,
  Pseudo: 0x40,
  /** Not a lower-case token. */
  NameInvalid: 0x80,
  /** Holds what RFC 9113 section 8.2.1 forbids. */
  ValueInvalid: 0x100,
  /** A field of HTTP/1.1 connections, RFC 9113 section 8.2.2. */
  Connection: 0x200,
} as const);

const PSEUDO_FIELDS: readonly (readonly [name: Uint8Array, field: PseudoField])[] = [
  [latin1Bytes(':method'), PseudoField.Method],
  [latin1Bytes(':scheme'), PseudoField.Scheme],
  [latin1Bytes(':authority'), PseudoField.Authority],
  [latin1Bytes(':path'), PseudoField.Path],
  [latin1Bytes(':status'), PseudoField.Status],
  [latin1Bytes(':protocol'), PseudoField.Protocol],
];
const COLON = 0x3a;
const TRAILERS = latin1Bytes('trailers');

const CONNECTION_KINDS: ReadonlySet<number> = new Set([
  FieldKind.Connection,
  FieldKind.KeepAlive,
  FieldKind.ProxyConnection,
  FieldKind.TransferEncoding,
  FieldKind.Upgrade,
]);

/** Marks of a name. */
export function markOfName(bytes: Uint8Array, start: number, end: number): number {
  if (start === end) return Mark.NameInvalid;
  if (bytes[start] === COLON) {
    for (const [name, field] of PSEUDO_FIELDS)
      if (isText(bytes, start, end, name)) return Mark.Pseudo | field;
    return Mark.Pseudo | PseudoField.Unknown;
  }
  for (let i = start; i < end; i++) {
    const octet = bytes[i] as number;
    const isUpperCase = octet >= 0x41 && octet <= 0x5a;
    if (((OCTET_CLASS[octet] as number) & TOKEN) === 0 || isUpperCase) return Mark.NameInvalid;
  }
  const kind = fieldKindOf(bytes, start, end);
  return CONNECTION_KINDS.has(kind) ? kind | Mark.Connection : kind;
}

/** Marks of a value under a name with `nameMark`, together with that mark. */
export function markOfValue(bytes: Uint8Array, start: number, end: number, nameMark: number): number {
  const isTe = (nameMark & (Mark.Pseudo | Mark.KindMask)) === FieldKind.Te;
  if (isTe && !isText(bytes, start, end, TRAILERS)) return nameMark | Mark.Connection;
  if (start === end) return nameMark;
  if (isBlank(bytes[start] as number) || isBlank(bytes[end - 1] as number))
    return nameMark | Mark.ValueInvalid;
  for (let i = start; i < end; i++) {
    if (((OCTET_CLASS[bytes[i] as number] as number) & VALUE) === 0) return nameMark | Mark.ValueInvalid;
  }
  return nameMark;
}

function isBlank(octet: number): boolean {
  return octet === SPACE || octet === TAB;
}

function isText(bytes: Uint8Array, start: number, end: number, text: Uint8Array): boolean {
  if (end - start !== text.length) return false;
  for (let i = 0; i < text.length; i++) if (bytes[start + i] !== text[i]) return false;
  return true;
}
