/**
 * TLS contexts of the OpenSSL inside Node: what sessions have in common. The cold path: every function either
 * does what it says or throws a plain Error with OpenSSL's words, which the caller gives a code and a place.
 */
import { big, nativeFunction, nativePointerFunction, reserveMemory } from './libc.ts';
import { type Handle, oldestError, tlsCallbacks } from './openssl-tls.ts';

const serverMethod = nativePointerFunction('TLS_server_method', 2);
const clientMethod = nativePointerFunction('TLS_client_method', 2);
const contextNew = nativePointerFunction('SSL_CTX_new', 2);
const contextFree = nativeFunction('SSL_CTX_free', 2);
const contextCtrl = nativeFunction('SSL_CTX_ctrl', 4);
const contextCallbackCtrl = nativeFunction('SSL_CTX_callback_ctrl', 3);
const contextSetOptions = nativeFunction('SSL_CTX_set_options', 2);
const contextUseCertificate = nativeFunction('SSL_CTX_use_certificate', 2);
const contextUseKey = nativeFunction('SSL_CTX_use_PrivateKey', 2);
const contextCheckKey = nativeFunction('SSL_CTX_check_private_key', 2);
const contextSetVerify = nativeFunction('SSL_CTX_set_verify', 3);
const contextSetStore = nativeFunction('SSL_CTX_set1_cert_store', 2);
const contextAddClientCa = nativeFunction('SSL_CTX_add_client_CA', 2);
const contextSetAlpnSelect = nativeFunction('SSL_CTX_set_alpn_select_cb', 3);
const contextSetTicketKey = nativeFunction('SSL_CTX_set_tlsext_ticket_key_evp_cb', 2);
const contextSetSessionId = nativeFunction('SSL_CTX_set_session_id_context', 3);
const contextSetTicketCount = nativeFunction('SSL_CTX_set_num_tickets', 2);
const contextSetCipherList = nativeFunction('SSL_CTX_set_cipher_list', 2);
const bioNewMemory = nativePointerFunction('BIO_new_mem_buf', 2);
const bioFree = nativeFunction('BIO_free', 2);
const pemCertificate = nativePointerFunction('PEM_read_bio_X509', 4);
const pemKey = nativePointerFunction('PEM_read_bio_PrivateKey', 4);
const x509Free = nativeFunction('X509_free', 2);
const keyFree = nativeFunction('EVP_PKEY_free', 2);
const storeNew = nativePointerFunction('X509_STORE_new', 2);
const storeFree = nativeFunction('X509_STORE_free', 2);
const storeAdd = nativeFunction('X509_STORE_add_cert', 2);
const storeSetFlags = nativeFunction('X509_STORE_set_flags', 2);

/** Numbers of `ssl.h` and `x509_vfy.h`, which are part of OpenSSL's ABI. */
const SSL_CTRL_MODE = 33n;
const SSL_CTRL_SET_SESSION_CACHE_MODE = 44n;
const SSL_CTRL_SET_STATUS_REQUEST_CALLBACK = 63n;
const SSL_CTRL_CHAIN_CERT = 89n;
const SSL_CTRL_SET_MIN_PROTO_VERSION = 123n;
const SSL_CTRL_SET_MAX_PROTO_VERSION = 124n;
/** ACCEPT_MOVING_WRITE_BUFFER, AUTO_RETRY, RELEASE_BUFFERS: an idle connection holds no 34 KiB of buffers. */
const MODES = 0x2n | 0x4n | 0x10n;
/**
 * CIPHER_SERVER_PREFERENCE, PRIORITIZE_CHACHA, NO_RENEGOTIATION: a client may not make a server begin anew.
 */
const OPTIONS = (1n << 22n) | (1n << 21n) | (1n << 30n);
const OPTION_NO_TICKET = 1n << 14n;
const VERIFY_PEER = 1n;
const VERIFY_REQUIRE = 3n;
const X509_V_FLAG_PARTIAL_CHAIN = 0x80000n;

/**
 * Suites of TLS 1.2 with forward secrecy and AEAD only (RFC 9325 section 4.2); those of TLS 1.3 are all fine.
 */
const CIPHERS_TLS12 = 'ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!PSK';

const TEXT_BYTES_MAX = 8 * 1024 * 1024;
const text = reserveMemory(TEXT_BYTES_MAX);
const textBytes = new Uint8Array(text.memory);

let contextCount = 0;

/** Contexts whose holder has not freed them, for leak checks. */
export function openTlsContexts(): number {
  return contextCount;
}

/** An empty context; freed by `freeTlsContext`. @throws Error when OpenSSL has no memory. */
export function newTlsContext(isServer: boolean): Handle {
  const context = contextNew(isServer ? serverMethod(0n, 0n) : clientMethod(0n, 0n), 0n);
  if (context === 0n) throw new Error(oldestError());
  contextCtrl(context, SSL_CTRL_MODE, MODES, 0n);
  contextSetOptions(context, OPTIONS);
  contextCtrl(context, SSL_CTRL_SET_SESSION_CACHE_MODE, 0n, 0n);
  contextSetCipherList(context, textPointer(CIPHERS_TLS12));
  contextCount++;
  return context;
}

/** Sessions that use it keep it until they end. */
export function freeTlsContext(context: Handle): void {
  contextCount--;
  contextFree(context, 0n);
}

/** Lowest and highest version as on the wire: 0x0303 is TLS 1.2, 0x0304 TLS 1.3. */
export function setTlsVersions(context: Handle, min: number, max: number): void {
  contextCtrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, big(min), 0n);
  contextCtrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, big(max), 0n);
}

/**
 * The certificate that is shown, its chain behind it, and its key, in PEM. @throws Error when they do not
 * fit.
 */
export function useTlsCertificate(
  context: Handle,
  pem: { readonly chain: string; readonly key: string },
): void {
  const chain = readCertificates(pem.chain);
  try {
    const own = chain[0];
    if (own === undefined) throw new Error('there is no certificate in the file');
    if (contextUseCertificate(context, own) !== 1) throw new Error(oldestError());
    for (const issuer of chain.splice(1)) {
      if (contextCtrl(context, SSL_CTRL_CHAIN_CERT, 0n, issuer) !== 1) throw new Error(oldestError());
    }
  } finally {
    for (const certificate of chain) x509Free(certificate, 0n);
  }
  const key = readKey(pem.key);
  const used = contextUseKey(context, key);
  keyFree(key, 0n);
  if (used !== 1 || contextCheckKey(context, 0n) !== 1) throw new Error(oldestError());
}

/** Certificates that are trusted; freed by `freeTrustStore`. @throws Error when one cannot be read. */
export function newTrustStore(pem: readonly string[]): Handle {
  const store = storeNew(0n, 0n);
  // What the operator trusts is trusted, be it a root or not.
  storeSetFlags(store, X509_V_FLAG_PARTIAL_CHAIN);
  try {
    for (const part of pem) {
      for (const certificate of readCertificates(part)) {
        storeAdd(store, certificate);
        x509Free(certificate, 0n);
      }
    }
  } catch (error) {
    storeFree(store, 0n);
    throw error;
  }
  // A certificate that stands twice left an error that is none.
  oldestError();
  return store;
}

/** Contexts that use it keep it. */
export function freeTrustStore(store: Handle): void {
  storeFree(store, 0n);
}

/** Whose certificates are accepted, and whether the peer must show one (a server always must). */
export function setTlsTrust(
  context: Handle,
  trust: { readonly store: Handle; readonly required: boolean },
): void {
  contextSetStore(context, trust.store);
  contextSetVerify(context, trust.required ? VERIFY_REQUIRE : VERIFY_PEER, 0n);
}

/** Names to clients the authorities whose certificates are accepted (RFC 8446 section 4.2.4). */
export function announceAuthorities(context: Handle, pem: string): void {
  for (const certificate of readCertificates(pem)) {
    contextAddClientCa(context, certificate);
    x509Free(certificate, 0n);
  }
}

/** Lets a server choose by ALPN and staple OCSP responses, as `HandshakeNeeds` says. */
export function answerTlsExtensions(context: Handle): void {
  const { selectAlpn, stapleOcsp } = tlsCallbacks();
  contextSetAlpnSelect(context, selectAlpn, 0n);
  contextCallbackCtrl(context, SSL_CTRL_SET_STATUS_REQUEST_CALLBACK, stapleOcsp);
}

/**
 * Sessions are shortened by tickets that are sealed as `HandshakeNeeds` says. `id` (at most 32 bytes) keeps
 * apart what must not be shortened by each other's tickets.
 */
export function useTickets(context: Handle, id: Uint8Array): void {
  textBytes.set(id);
  contextSetSessionId(context, big(text.address), big(id.length));
  contextSetTicketKey(context, tlsCallbacks().ticketKey);
  // Sealing one costs a tenth of a handshake, and a client that comes back gets a new one.
  contextSetTicketCount(context, 1n);
}

/** Sessions are never shortened. */
export function refuseTickets(context: Handle): void {
  contextSetOptions(context, OPTION_NO_TICKET);
}

function readCertificates(pem: string): Handle[] {
  const bio = memoryBio(pem);
  const certificates: Handle[] = [];
  try {
    for (;;) {
      const certificate = pemCertificate(bio, 0n, 0n, 0n);
      if (certificate === 0n) break;
      certificates.push(certificate);
    }
  } finally {
    bioFree(bio, 0n);
  }
  // The last read found no further one, and says so.
  const why = oldestError();
  if (certificates.length === 0) throw new Error(why);
  return certificates;
}

function readKey(pem: string): Handle {
  const bio = memoryBio(pem);
  // An empty passphrase; without any, OpenSSL would ask at the terminal for that of an encrypted key.
  textBytes[TEXT_BYTES_MAX - 1] = 0;
  const key = pemKey(bio, 0n, 0n, big(text.address + TEXT_BYTES_MAX - 1));
  bioFree(bio, 0n);
  if (key === 0n) throw new Error(oldestError());
  return key;
}

function memoryBio(pem: string): Handle {
  const { read, written } = new TextEncoder().encodeInto(pem, textBytes.subarray(0, TEXT_BYTES_MAX - 2));
  if (read < pem.length) throw new Error(`the file is longer than ${TEXT_BYTES_MAX} bytes`);
  return bioNewMemory(big(text.address), big(written));
}

function textPointer(value: string): bigint {
  const { written } = new TextEncoder().encodeInto(value, textBytes.subarray(0, TEXT_BYTES_MAX - 2));
  textBytes[written] = 0;
  return big(text.address);
}
