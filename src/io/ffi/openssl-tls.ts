/**
 * TLS sessions of the OpenSSL inside Node, on memory alone: bytes that came are shown to a session where they
 * lie, bytes to send are written where the caller wants them. Contexts (certificates, trust, options) are
 * made in `openssl-tls-context.ts`.
 *
 * A session's two BIOs are memory BIOs whose buffer is replaced before each use by `BIO_set_mem_buf`, so
 * OpenSSL reads from and writes into the arena and nothing is copied beside its own work. A BIO that writes
 * grows its buffer by realloc(3) when it is full, which memory of ours would not survive: `room` must hold
 * what one call can write, and `TLS_OUTPUT_BYTES` is more than a flight of a handshake can have.
 *
 * Like `libc.ts`: all functions have two to six pointer arguments and an int result where they are hot.
 * Callbacks run inside `sslHandshake` only; what they need is set for the one call (`HandshakeNeeds`).
 */
import { getInt8, setUint8, setUint64, toArrayBuffer, toBuffer, toString as cString } from 'node:ffi';
import { randomFillSync } from 'node:crypto';

import { big, nativeFunction, nativePointerFunction, processLibrary, reserveMemory } from './libc.ts';

/** A pointer to an object of OpenSSL. */
export type Handle = bigint;

const sslNew = nativePointerFunction('SSL_new', 2);
const sslFree = nativeFunction('SSL_free', 2);
const sslSetBio = nativeFunction('SSL_set_bio', 3);
const sslSetAcceptState = nativeFunction('SSL_set_accept_state', 2);
const sslSetConnectState = nativeFunction('SSL_set_connect_state', 2);
const sslDoHandshake = nativeFunction('SSL_do_handshake', 2);
const sslReadCall = nativeFunction('SSL_read', 3);
const sslWriteCall = nativeFunction('SSL_write', 3);
const sslShutdownCall = nativeFunction('SSL_shutdown', 2);
const sslGetError = nativeFunction('SSL_get_error', 2);
const sslHasPending = nativeFunction('SSL_has_pending', 2);
const sslCtrl = nativeFunction('SSL_ctrl', 4);
const sslVersion = nativeFunction('SSL_version', 2);
const sslSessionReused = nativeFunction('SSL_session_reused', 2);
const sslGetVerifyResult = nativeFunction('SSL_get_verify_result', 2);
const sslSet1Host = nativeFunction('SSL_set1_host', 2);
const sslGet0Param = nativePointerFunction('SSL_get0_param', 2);
const sslSetAlpnProtos = nativeFunction('SSL_set_alpn_protos', 3);
const sslGet0AlpnSelected = nativeFunction('SSL_get0_alpn_selected', 3);
const sslGetCurrentCipher = nativePointerFunction('SSL_get_current_cipher', 2);
const sslCipherGetName = nativePointerFunction('SSL_CIPHER_get_name', 2);
const sslGet1PeerCertificate = nativePointerFunction('SSL_get1_peer_certificate', 2);
const sslGetPeerCertChain = nativePointerFunction('SSL_get_peer_cert_chain', 2);
const sslGet1Session = nativePointerFunction('SSL_get1_session', 2);
const sslSetSession = nativeFunction('SSL_set_session', 2);
const sslSessionFree = nativeFunction('SSL_SESSION_free', 2);
const sslSessionIsResumable = nativeFunction('SSL_SESSION_is_resumable', 2);
const verifyParamSet1Ip = nativeFunction('X509_VERIFY_PARAM_set1_ip_asc', 2);
const verifyErrorString = nativePointerFunction('X509_verify_cert_error_string', 2);
const i2dX509 = nativeFunction('i2d_X509', 2);
const x509Free = nativeFunction('X509_free', 2);
const stackCount = nativeFunction('OPENSSL_sk_num', 2);
const stackValue = nativePointerFunction('OPENSSL_sk_value', 2);
const bioNew = nativePointerFunction('BIO_new', 2);
const bioMemory = nativePointerFunction('BIO_s_mem', 2);
const bioCtrl = nativeFunction('BIO_ctrl', 4);
const errClear = nativeFunction('ERR_clear_error', 2);
const errGet = nativePointerFunction('ERR_get_error', 2);
const errReason = nativePointerFunction('ERR_reason_error_string', 2);
const cryptoMalloc = nativePointerFunction('CRYPTO_malloc', 3);
const cryptoFree = nativeFunction('CRYPTO_free', 3);
const evpAes256Cbc = nativePointerFunction('EVP_aes_256_cbc', 2);
const evpEncryptInit = nativeFunction('EVP_EncryptInit_ex', 5);
const evpDecryptInit = nativeFunction('EVP_DecryptInit_ex', 5);
const evpMacSetParams = nativeFunction('EVP_MAC_CTX_set_params', 2);

/** Numbers of `bio.h`, `ssl.h` and `tls1.h`, which are part of OpenSSL's ABI. */
const BIO_CTRL_PENDING = 10n;
const BIO_C_SET_BUF_MEM = 114n;
const SSL_CTRL_SET_TLSEXT_HOSTNAME = 55n;
const SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP = 71n;
const SSL_ERROR_SSL = 1;
const SSL_ERROR_WANT_READ = 2;
const SSL_ERROR_ZERO_RETURN = 6;

/** What a call on a session came to when it brought no bytes. */
export const TlsOutcome = Object.freeze({
  /** More bytes of the peer are needed. */
  WantsInput: -1,
  /** The peer has ended its side properly (close_notify). */
  Ended: -2,
  /** The session is broken; `takeTlsError` says why. Nothing but `sslFreeSession` may follow. */
  Failed: -3,
} as const);

// --- memory of one thread ----------------------------------------------------------------------------------

/**
 * Room for what one call may write: a certificate chain and a list of accepted authorities (each below 64 KiB
 * and checked when a context is made), tickets, alerts.
 */
export const TLS_OUTPUT_BYTES = 512 * 1024;

const BUF_MEM_BYTES = 32;
const INPUT_BUF = 0;
const OUTPUT_BUF = BUF_MEM_BYTES;
const SMALL = 256;
const SMALL_BYTES = 4096;
const OUTPUT = 8192;
const memory = reserveMemory(OUTPUT + TLS_OUTPUT_BYTES);
const view = new DataView(memory.memory);
const bytes = new Uint8Array(memory.memory);
const inputBuf = big(memory.address + INPUT_BUF);
const outputBuf = big(memory.address + OUTPUT_BUF);

/**
 * Where handshakes, reads and shutdowns write what is to be sent: `tlsOutputLength` bytes from its beginning,
 * valid until the next call on any session.
 */
export const tlsOutput: Uint8Array = new Uint8Array(memory.memory, OUTPUT, TLS_OUTPUT_BYTES);
const outputAddress = memory.address + OUTPUT;

/** Bytes that the last call has to send. */
export function tlsOutputLength(): number {
  return view.getUint32(OUTPUT_BUF, true);
}

function setBuffer(at: number, address: number, length: number, room: number): void {
  view.setUint32(at, length, true);
  view.setUint32(at + 4, 0, true);
  view.setUint32(at + 8, address >>> 0, true);
  view.setUint32(at + 12, Math.floor(address / 4294967296), true);
  view.setUint32(at + 16, room, true);
  view.setUint32(at + 20, 0, true);
}

// --- sessions ----------------------------------------------------------------------------------------------

let sessionCount = 0;

/** Sessions that are not freed, for leak checks. */
export function openTlsSessions(): number {
  return sessionCount;
}

/** The handles of one session. */
export interface SslSession {
  readonly ssl: Handle;
  readonly input: Handle;
  readonly output: Handle;
}

/** A session of a context; null when OpenSSL has no memory. Freed by `sslFreeSession`. */
export function sslNewSession(context: Handle, isServer: boolean): SslSession | null {
  const ssl = sslNew(context, 0n);
  if (ssl === 0n) return null;
  const method = bioMemory(0n, 0n);
  const input = bioNew(method, 0n);
  const output = bioNew(method, 0n);
  if (isServer) sslSetAcceptState(ssl, 0n);
  else sslSetConnectState(ssl, 0n);
  sslSetBio(ssl, input, output);
  sslFeed({ ssl, input, output }, outputAddress, 0);
  sessionCount++;
  return { ssl, input, output };
}

/** Frees a session with its BIOs, which is its end. */
export function sslFreeSession(session: SslSession): void {
  sessionCount--;
  sslFree(session.ssl, 0n);
}

/** Shows `length` bytes that the peer sent; they stay where they are until `sslUnread` is 0. */
export function sslFeed(session: SslSession, address: number, length: number): void {
  setBuffer(INPUT_BUF, address, length, length);
  bioCtrl(session.input, BIO_C_SET_BUF_MEM, 0n, inputBuf);
}

/** Bytes shown that the session has not taken. */
export function sslUnread(session: SslSession): number {
  return bioCtrl(session.input, BIO_CTRL_PENDING, 0n, 0n);
}

/** Whether records lie inside the session that were not read out. */
export function sslHasRecords(session: SslSession): boolean {
  return sslHasPending(session.ssl, 0n) === 1;
}

function pointOutput(session: SslSession, address: number, room: number): void {
  setBuffer(OUTPUT_BUF, address, 0, room);
  bioCtrl(session.output, BIO_C_SET_BUF_MEM, 0n, outputBuf);
}

/**
 * Goes on with the handshake: 0 when it is over, else a `TlsOutcome`. What is to be sent, an alert after a
 * failure too, lies in `tlsOutput`.
 */
export function sslHandshake(session: SslSession, needs: HandshakeNeeds): number {
  errClear(0n, 0n);
  pointOutput(session, outputAddress, TLS_OUTPUT_BYTES);
  current = needs;
  const result = sslDoHandshake(session.ssl, 0n);
  current = NO_NEEDS;
  if (result === 1) return 0;
  return outcome(session, result);
}

/** Decrypts at most `length` bytes to `address`: their number, or a `TlsOutcome`. It may write output. */
export function sslRead(session: SslSession, address: number, length: number): number {
  errClear(0n, 0n);
  pointOutput(session, outputAddress, TLS_OUTPUT_BYTES);
  const result = sslReadCall(session.ssl, big(address), big(length));
  return result > 0 ? result : outcome(session, result);
}

/**
 * Encrypts `length` bytes from `from` to `to`: the number of bytes written there, or `Failed`. `room` at `to`
 * holds the payload and `TLS_RECORD_OVERHEAD_MAX` for each 16 KiB begun.
 */
export function sslWrite(
  session: SslSession,
  from: number,
  length: number,
  to: { readonly address: number; readonly room: number },
): number {
  errClear(0n, 0n);
  pointOutput(session, to.address, to.room);
  const result = sslWriteCall(session.ssl, big(from), big(length));
  if (result === length) return tlsOutputLength();
  return result > 0 ? TlsOutcome.Failed : outcome(session, result);
}

/**
 * What a record adds at most: header, explicit nonce or IV, MAC, padding, type (RFC 5246 section 6.2.3 allows
 * more than any suite in use has).
 */
export const TLS_RECORD_OVERHEAD_MAX = 320;

/** Says that nothing more will be sent (close_notify); it lies in `tlsOutput`. */
export function sslShutdown(session: SslSession): void {
  errClear(0n, 0n);
  pointOutput(session, outputAddress, TLS_OUTPUT_BYTES);
  sslShutdownCall(session.ssl, 0n);
}

function outcome(session: SslSession, result: number): number {
  const error = sslGetError(session.ssl, big(result));
  if (error === SSL_ERROR_WANT_READ) return TlsOutcome.WantsInput;
  if (error === SSL_ERROR_ZERO_RETURN) return TlsOutcome.Ended;
  lastError = error === SSL_ERROR_SSL ? oldestError() : 'the connection is not usable any more';
  return TlsOutcome.Failed;
}

// --- errors ------------------------------------------------------------------------------------------------

let lastError = '';
let lastReason = 0;

/** Why the last call failed: OpenSSL's words, and its reason (1000 and more is an alert that came). */
export function takeTlsError(): { readonly text: string; readonly reason: number } {
  const text = lastError;
  const reason = lastReason;
  lastError = '';
  lastReason = 0;
  return { text, reason };
}

/** The first of OpenSSL's errors, which is the cause of the others, in its words. Empties the queue. */
export function oldestError(): string {
  const code = errGet(0n, 0n);
  errClear(0n, 0n);
  lastReason = Number(code & 0x7fffffn);
  if (code === 0n) return 'no reason is known';
  const text = errReason(code, 0n);
  return text === 0n ? `error ${code.toString(16)}` : (cString(text) as string);
}

// --- what a client asks for --------------------------------------------------------------------------------

/** Names the server to it (SNI); `name` is a host name, never an address (RFC 6066 section 3). */
export function sslSetServerName(session: SslSession, name: string): boolean {
  return sslCtrl(session.ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, 0n, smallString(name)) === 1;
}

/** The name or address that the server's certificate must be for. */
export function sslSetExpectedPeer(session: SslSession, peer: { host?: string; ip?: string }): boolean {
  if (peer.ip !== undefined) {
    return verifyParamSet1Ip(sslGet0Param(session.ssl, 0n), smallString(peer.ip)) === 1;
  }
  return sslSet1Host(session.ssl, smallString(peer.host ?? '')) === 1;
}

/** Offers protocols by ALPN, in the form of RFC 7301 section 3.1: each name behind its length. */
export function sslOfferAlpn(session: SslSession, list: Uint8Array): boolean {
  bytes.set(list, SMALL);
  // Unlike its siblings it returns 0 for success.
  return sslSetAlpnProtos(session.ssl, big(memory.address + SMALL), big(list.length)) === 0;
}

function smallString(text: string): bigint {
  const { written } = new TextEncoder().encodeInto(text, bytes.subarray(SMALL, SMALL + SMALL_BYTES - 1));
  bytes[SMALL + written] = 0;
  return big(memory.address + SMALL);
}

// --- what came of a handshake ------------------------------------------------------------------------------

/** The version on the wire: 0x0304 is TLS 1.3. */
export function sslProtocolVersion(session: SslSession): number {
  return sslVersion(session.ssl, 0n);
}

/** Name of the cipher suite; empty before it is chosen. */
export function sslCipherName(session: SslSession): string {
  const cipher = sslGetCurrentCipher(session.ssl, 0n);
  return cipher === 0n ? '' : (cString(sslCipherGetName(cipher, 0n)) ?? '');
}

/** The protocol chosen by ALPN, a byte a character; empty when none was. */
export function sslAlpn(session: SslSession): string {
  const at = memory.address + SMALL;
  view.setBigUint64(SMALL, 0n, true);
  view.setUint32(SMALL + 8, 0, true);
  sslGet0AlpnSelected(session.ssl, big(at), big(at + 8));
  const length = view.getUint32(SMALL + 8, true);
  return length === 0 ? '' : toBuffer(view.getBigUint64(SMALL, true), length).toString('latin1');
}

/** The handshake was shortened by an earlier session. */
export function sslIsResumed(session: SslSession): boolean {
  return sslSessionReused(session.ssl, 0n) === 1;
}

/** Why the peer's certificate was not accepted, in words; null when it was, or when none was asked for. */
export function sslVerifyFault(session: SslSession): string | null {
  const result = sslGetVerifyResult(session.ssl, 0n);
  return result === 0 ? null : cString(verifyErrorString(big(result), 0n));
}

/** The peer's certificate in DER, a copy; null when it showed none. */
export function sslPeerCertificate(session: SslSession): Uint8Array | null {
  const certificate = sslGet1PeerCertificate(session.ssl, 0n);
  if (certificate === 0n) return null;
  const der = certificateBytes(certificate);
  x509Free(certificate, 0n);
  return der;
}

/** The certificates that the peer showed, in DER; without the peer's own where this side is the server. */
export function sslPeerChain(session: SslSession): readonly Uint8Array[] {
  const chain = sslGetPeerCertChain(session.ssl, 0n);
  if (chain === 0n) return [];
  const count = stackCount(chain, 0n);
  return Array.from({ length: count }, (_, index) => certificateBytes(stackValue(chain, big(index))));
}

function certificateBytes(certificate: Handle): Uint8Array {
  view.setBigUint64(SMALL, 0n, true);
  const length = i2dX509(certificate, big(memory.address + SMALL));
  if (length <= 0) return new Uint8Array(0);
  const pointer = view.getBigUint64(SMALL, true);
  const der = new Uint8Array(toArrayBuffer(pointer, length));
  cryptoFree(pointer, 0n, 0n);
  return der;
}

/** The session's state, to shorten a later handshake; null when the server gave none. Freed by its holder. */
export function sslResumption(session: SslSession): Handle | null {
  const state = sslGet1Session(session.ssl, 0n);
  if (state === 0n) return null;
  if (sslSessionIsResumable(state, 0n) === 1) return state;
  sslSessionFree(state, 0n);
  return null;
}

/** Offers an earlier session; the state stays the caller's. */
export function sslResume(session: SslSession, state: Handle): void {
  sslSetSession(session.ssl, state);
}

/** Frees what `sslResumption` gave. */
export function freeResumption(state: Handle): void {
  sslSessionFree(state, 0n);
}

// --- callbacks ---------------------------------------------------------------------------------------------

/** What the callbacks of one handshake answer with. */
export interface HandshakeNeeds {
  /**
   * Protocol that the server answers ALPN with; empty: it does not answer; null: none of the client's is
   * spoken here, which ends the handshake (RFC 7301 section 3.2).
   */
  readonly alpn: string | null;
  /** OCSP response in DER that the server staples; null: none. */
  readonly ocsp: Uint8Array | null;
  /** Keys of session tickets; null: those that OpenSSL makes for the context. */
  readonly tickets: TicketKeyring | null;
}

const NO_NEEDS: HandshakeNeeds = Object.freeze({ alpn: '', ocsp: null, tickets: null });
let current: HandshakeNeeds = NO_NEEDS;

const SSL_TLSEXT_ERR_OK = 0;
const SSL_TLSEXT_ERR_ALERT_FATAL = 2;
const SSL_TLSEXT_ERR_NOACK = 3;
const ALPN_AT = SMALL + SMALL_BYTES;

/** `SSL_CTX_alpn_select_cb_func`: the choice was made from the ClientHello already. */
function selectAlpn(_ssl: Handle, out: Handle, outLength: Handle): number {
  try {
    const { alpn } = current;
    if (alpn === null) return SSL_TLSEXT_ERR_ALERT_FATAL;
    if (alpn === '') return SSL_TLSEXT_ERR_NOACK;
    for (let i = 0; i < alpn.length; i++) bytes[ALPN_AT + i] = alpn.charCodeAt(i);
    setUint64(out, 0, big(memory.address + ALPN_AT));
    setUint8(outLength, 0, alpn.length);
    return SSL_TLSEXT_ERR_OK;
  } catch {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
}

/** The status callback of a server: OpenSSL frees the copy of the response. */
function stapleOcsp(ssl: Handle): number {
  try {
    const { ocsp } = current;
    if (ocsp === null) return SSL_TLSEXT_ERR_NOACK;
    const copy = cryptoMalloc(big(ocsp.length), 0n, 0n);
    if (copy === 0n) return SSL_TLSEXT_ERR_NOACK;
    new Uint8Array(toArrayBuffer(copy, ocsp.length, false)).set(ocsp);
    sslCtrl(ssl, SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP, big(ocsp.length), copy);
    return SSL_TLSEXT_ERR_OK;
  } catch {
    return SSL_TLSEXT_ERR_NOACK;
  }
}

/** `ticket key` callback: 1 encrypts or decrypts, 2 also renews, 0 is an unknown key, −1 an error. */
function ticketKey(
  _ssl: Handle,
  ...[name, iv, cipher, mac, encrypts]: readonly [Handle, Handle, Handle, Handle, number]
): number {
  try {
    const { tickets } = current;
    if (tickets === null) return encrypts === 1 ? -1 : 0;
    return encrypts === 1 ? tickets.seal(name, iv, cipher, mac) : tickets.open(name, iv, cipher, mac);
  } catch {
    return -1;
  }
}

/** Function pointers for contexts; made once for the thread, when the first context is. */
export interface TlsCallbacks {
  readonly selectAlpn: Handle;
  readonly stapleOcsp: Handle;
  readonly ticketKey: Handle;
}

let callbacks: TlsCallbacks | null = null;

/** The callbacks that a server's context is given. */
export function tlsCallbacks(): TlsCallbacks {
  if (callbacks !== null) return callbacks;
  const p = 'pointer';
  callbacks = {
    selectAlpn: processLibrary.registerCallback(
      { arguments: [p, p, p, p, 'u32', p], return: 'i32' },
      selectAlpn as never,
    ),
    stapleOcsp: processLibrary.registerCallback({ arguments: [p, p], return: 'i32' }, stapleOcsp as never),
    ticketKey: processLibrary.registerCallback(
      { arguments: [p, p, p, p, p, 'i32'], return: 'i32' },
      ticketKey as never,
    ),
  };
  // They live as long as the thread and must not keep it.
  for (const pointer of Object.values(callbacks)) processLibrary.refCallback(pointer);
  return callbacks;
}

// --- tickets -----------------------------------------------------------------------------------------------

const KEY_NAME_BYTES = 16;
const AES_KEY_BYTES = 32;
const MAC_KEY_BYTES = 32;
const IV_BYTES = 16;
/** Bytes of one key of session tickets: name, AES-256 key, HMAC-SHA-256 key. */
export const TICKET_KEY_BYTES = KEY_NAME_BYTES + AES_KEY_BYTES + MAC_KEY_BYTES;
const PARAM_BYTES = 40;
const OSSL_PARAM_UTF8_STRING = 4;
const OSSL_PARAM_OCTET_STRING = 5;
const PARAM_KEY_NAME = 3 * PARAM_BYTES;
const PARAM_DIGEST_NAME = PARAM_KEY_NAME + 8;
const PARAM_DIGEST = PARAM_DIGEST_NAME + 8;
const PARAMS_TOTAL = PARAM_DIGEST + 8;

/**
 * Keys by which session tickets are sealed (RFC 5077 section 4): the newest seals, the older ones still open,
 * so that a rotation ends no session early. Memory outside the heap, which a core dump's limits cover.
 */
export class TicketKeyring {
  readonly #address: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #params: number;
  readonly #capacity: number;
  #count = 0;

  /** @param capacity keys that are kept, the sealing one included. */
  constructor(capacity: number) {
    this.#capacity = capacity;
    this.#params = capacity * TICKET_KEY_BYTES;
    const mapping = reserveMemory(this.#params + PARAMS_TOTAL);
    this.#address = mapping.address;
    this.#bytes = new Uint8Array(mapping.memory);
    this.#view = new DataView(mapping.memory);
    this.#writeParams();
  }

  /** Keys that open tickets. */
  get count(): number {
    return this.#count;
  }

  /**
   * Makes `key` (`TICKET_KEY_BYTES`) the one that seals; the oldest is forgotten where there are too many.
   */
  rotate(key: Uint8Array): void {
    this.#bytes.copyWithin(TICKET_KEY_BYTES, 0, (this.#capacity - 1) * TICKET_KEY_BYTES);
    this.#bytes.set(key, 0);
    this.#count = Math.min(this.#count + 1, this.#capacity);
  }

  /** For the callback. */
  seal(name: Handle, iv: Handle, cipher: Handle, mac: Handle): number {
    if (this.#count === 0) return -1;
    const nameBytes = new Uint8Array(toArrayBuffer(name, KEY_NAME_BYTES, false));
    nameBytes.set(this.#bytes.subarray(0, KEY_NAME_BYTES));
    randomFillSync(new Uint8Array(toArrayBuffer(iv, IV_BYTES, false)));
    const key = big(this.#address + KEY_NAME_BYTES);
    if (evpEncryptInit(cipher, evpAes256Cbc(0n, 0n), 0n, key, iv) !== 1) return -1;
    return this.#setMac(mac, 0) ? 1 : -1;
  }

  /** For the callback. */
  open(name: Handle, iv: Handle, cipher: Handle, mac: Handle): number {
    const index = this.#find(name);
    if (index < 0) return 0;
    const key = big(this.#address + index * TICKET_KEY_BYTES + KEY_NAME_BYTES);
    if (evpDecryptInit(cipher, evpAes256Cbc(0n, 0n), 0n, key, iv) !== 1) return -1;
    if (!this.#setMac(mac, index)) return -1;
    return index === 0 ? 1 : 2;
  }

  #find(name: Handle): number {
    for (let index = 0; index < this.#count; index++) {
      let equal = true;
      for (let i = 0; i < KEY_NAME_BYTES && equal; i++) {
        equal = (getInt8(name, i) & 0xff) === this.#bytes[index * TICKET_KEY_BYTES + i];
      }
      if (equal) return index;
    }
    return -1;
  }

  #setMac(mac: Handle, index: number): boolean {
    const at = this.#address + index * TICKET_KEY_BYTES + KEY_NAME_BYTES + AES_KEY_BYTES;
    this.#view.setBigUint64(this.#params + 16, BigInt(at), true);
    return evpMacSetParams(mac, big(this.#address + this.#params)) === 1;
  }

  /** Two `OSSL_PARAM`, `key` and `digest`, and an empty one that ends the list. */
  #writeParams(): void {
    const text = new TextEncoder();
    this.#bytes.set(text.encode('key'), this.#params + PARAM_KEY_NAME);
    this.#bytes.set(text.encode('digest'), this.#params + PARAM_DIGEST_NAME);
    this.#bytes.set(text.encode('SHA256'), this.#params + PARAM_DIGEST);
    this.#writeParam(0, { name: PARAM_KEY_NAME, type: OSSL_PARAM_OCTET_STRING, length: MAC_KEY_BYTES });
    this.#writeParam(1, { name: PARAM_DIGEST_NAME, type: OSSL_PARAM_UTF8_STRING, length: 6 });
    const digest = this.#address + this.#params + PARAM_DIGEST;
    this.#view.setBigUint64(this.#params + PARAM_BYTES + 16, BigInt(digest), true);
  }

  #writeParam(index: number, { name, type, length }: { name: number; type: number; length: number }): void {
    const at = this.#params + index * PARAM_BYTES;
    this.#view.setBigUint64(at, BigInt(this.#address + this.#params + name), true);
    this.#view.setUint32(at + 8, type, true);
    this.#view.setBigUint64(at + 24, BigInt(length), true);
    // OSSL_PARAM_UNMODIFIED
    this.#view.setBigUint64(at + 32, 0xffff_ffff_ffff_ffffn, true);
  }
}
