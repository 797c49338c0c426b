/** Names of the alerts of TLS (RFC 8446 section 6; IANA: TLS Alerts). */
const NAMES: Readonly<Record<number, string>> = Object.freeze({
  0: 'close_notify',
  10: 'unexpected_message',
  20: 'bad_record_mac',
  22: 'record_overflow',
  40: 'handshake_failure',
  42: 'bad_certificate',
  43: 'unsupported_certificate',
  44: 'certificate_revoked',
  45: 'certificate_expired',
  46: 'certificate_unknown',
  47: 'illegal_parameter',
  48: 'unknown_ca',
  49: 'access_denied',
  50: 'decode_error',
  51: 'decrypt_error',
  70: 'protocol_version',
  71: 'insufficient_security',
  80: 'internal_error',
  86: 'inappropriate_fallback',
  90: 'user_canceled',
  100: 'no_renegotiation',
  109: 'missing_extension',
  110: 'unsupported_extension',
  112: 'unrecognized_name',
  113: 'bad_certificate_status_response',
  115: 'unknown_psk_identity',
  116: 'certificate_required',
  120: 'no_application_protocol',
});

/** The name of an alert as the RFC has it, or `alert N` for one without. */
export function alertName(description: number): string {
  return NAMES[description] ?? `alert ${description}`;
}

/** The alert by which a server says that it serves no such name (RFC 6066 section 3). */
export const UNRECOGNIZED_NAME = 112;
/** The alert by which a server says that the client may not come in. */
export const ACCESS_DENIED = 49;

/** A fatal alert as it stands on the wire before anything is encrypted (RFC 8446 section 6). */
export function plainAlert(description: number): Uint8Array {
  return Uint8Array.of(21, 3, 3, 0, 2, 2, description);
}

/** The description of a plain alert record that ends `bytes`, −1 when there is none. */
export function readPlainAlert(bytes: Uint8Array, length: number): number {
  const at = length - 7;
  if (at < 0 || bytes[at] !== 21 || bytes[at + 1] !== 3) return -1;
  return bytes[at + 3] === 0 && bytes[at + 4] === 2 ? (bytes[at + 6] as number) : -1;
}
