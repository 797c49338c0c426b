import { assert } from '#base/assert.ts';
import { RampartError } from '#base/error.ts';
import type { IpPrefix } from '#base/ip.ts';
import { AEAD_TAG_LENGTH, PacketCipher } from '#crypto/aead.ts';
import { type KeyPair, keyPairOf } from '#crypto/x25519.ts';

import { AllowedIps } from './allowed-ips.ts';
import { Chance } from './chance.ts';
import { CookieJar } from './cookie.ts';
import { DeadlineHeap } from './deadline-heap.ts';
import { WIREGUARD_DROP_COUNT, WireguardDrop } from './drop.ts';
import { copyEndpoint, ENDPOINT_BYTES, endpointLength } from './endpoint.ts';
import { initiate, readInitiation } from './handshake.ts';
import { DESTINATION4, DESTINATION6, innerLength, innerVersion, SOURCE4, SOURCE6 } from './inner-packet.ts';
import {
  EVENT_QUEUE_MAX,
  INITIATION_INTERVAL_MIN,
  REJECT_AFTER_MESSAGES,
  REKEY_AFTER_MESSAGES,
  TRANSMIT_QUEUE_MAX,
} from './limits.ts';
import type {
  CarriedBytes,
  InterfaceOptions,
  PeerOptions,
  Transmit,
  WireguardEvent,
} from './interface-types.ts';
import { LoadGuard } from './load-guard.ts';
import {
  checkMessage,
  COOKIE_RECEIVER,
  RESPONSE_RECEIVER,
  transportCounter,
  transportReceiver,
  writeTransportHeader,
} from './message.ts';
import { Peer } from './peer.ts';
import { RECEIVE_KEY, SEND_KEY, type Session } from './session.ts';
import { SessionTable } from './session-table.ts';
import {
  KEEPALIVE_TIMEOUT,
  MessageType,
  PADDING_MULTIPLE,
  REJECT_AFTER_TIME,
  REKEY_AFTER_TIME,
  REKEY_ATTEMPT_TIME,
  REKEY_JITTER_MAX,
  REKEY_TIMEOUT,
  TRANSPORT_HEADER_LENGTH,
  TRANSPORT_LENGTH_MIN,
} from './specification.ts';
import { BoundedQueue } from './queue.ts';
import { isLater, timestampOf } from './timestamp.ts';

const ATTEMPTS_MAX = REKEY_ATTEMPT_TIME / REKEY_TIMEOUT;
const MTU_DEFAULT = 1420;
const NEVER = Number.POSITIVE_INFINITY;

/**
 * WireGuard for one private key: any number of peers over any number of sockets. It holds no packet: what
 * waits for a session waits with the caller.
 *
 * After each call the caller empties `pollTransmit` and `pollEvent`, and calls `handleTimeout` at
 * `pollTimeout`. `now` is a monotonic clock in ms that never goes back.
 */
export class WireguardInterface {
  readonly publicKey: Uint8Array;
  /** What `handleDatagram` found inside. */
  readonly inner: CarriedBytes = { at: 0, length: 0, peer: null };
  /** What `handlePacket` made. */
  readonly outer: CarriedBytes = { at: 0, length: 0, peer: null };
  /** How often each `WireguardDrop` was returned. */
  readonly drops = new Float64Array(WIREGUARD_DROP_COUNT);
  /** Handshakes completed, either side. */
  handshakes = 0;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #cipher: PacketCipher;
  readonly #own: KeyPair;
  readonly #jar: CookieJar;
  readonly #guard: LoadGuard;
  readonly #unixAtZero: number;
  readonly #mtu: number;
  readonly #peers = new Map<string, Peer>();
  readonly #allowed = new AllowedIps<Peer>();
  readonly #table: SessionTable;
  readonly #chance: Chance;
  readonly #deadlines = new DeadlineHeap<Peer>();
  readonly #transmits = new BoundedQueue<Transmit>(TRANSMIT_QUEUE_MAX);
  readonly #events = new BoundedQueue<WireguardEvent>(EVENT_QUEUE_MAX);

  constructor(options: InterfaceOptions) {
    this.#view = options.memory;
    this.#bytes = new Uint8Array(options.memory.buffer, options.memory.byteOffset, options.memory.byteLength);
    this.#cipher = new PacketCipher(options.memory);
    this.#own = keyPairOf(options.privateKey);
    this.publicKey = this.#own.publicKey;
    this.#jar = new CookieJar(this.publicKey, options.random);
    this.#unixAtZero = options.unixAtZero;
    this.#mtu = options.mtu ?? MTU_DEFAULT;
    this.#chance = new Chance(options.random);
    this.#table = new SessionTable(this.#chance, options.indexMark ?? { bits: 0, value: 0 });
    this.#guard = new LoadGuard(this.#chance.word());
  }

  // --- peers -----------------------------------------------------------------------------------------------

  /** All peers. */
  get peers(): Iterable<Peer> {
    return this.#peers.values();
  }

  /** Number of peers. */
  get peerCount(): number {
    return this.#peers.size;
  }

  /** The peer with a public key, or null. */
  findPeer(publicKey: Uint8Array): Peer | null {
    return this.#peers.get(publicKey.toHex()) ?? null;
  }

  /**
   * Adds a peer.
   *
   * @throws RAMP_CONFIG when a key has not 32 bytes, is this interface's own, or is there already.
   */
  addPeer(options: PeerOptions, now: number): Peer {
    const { publicKey, presharedKey = new Uint8Array(32) } = options;
    if (publicKey.length !== 32 || presharedKey.length !== 32) {
      throw new RampartError('RAMP_CONFIG', 'a WireGuard key has 32 bytes; give it in full');
    }
    const name = publicKey.toHex();
    if (name === this.publicKey.toHex()) {
      throw new RampartError('RAMP_CONFIG', "a peer has the interface's own public key; give it another");
    }
    if (this.#peers.has(name)) {
      throw new RampartError('RAMP_CONFIG', 'a peer with this public key is there already; change that one');
    }
    const peer = new Peer({
      own: this.#own,
      publicKey: publicKey.slice(),
      presharedKey: presharedKey.slice(),
      persistentKeepalive: options.persistentKeepalive ?? 0,
      tag: options.tag,
    });
    this.#peers.set(name, peer);
    if (options.lastTimestamp !== undefined) peer.lastTimestamp.set(options.lastTimestamp);
    this.setAllowedIps(peer, options.allowedIps);
    if (options.endpoint !== undefined) this.setEndpoint(peer, options.endpoint);
    this.setPersistentKeepalive(peer, peer.persistentKeepalive, now);
    return peer;
  }

  /** Removes a peer with its sessions and keys. What comes from it later is unknown. */
  removePeer(peer: Peer): void {
    assert(!peer.isRemoved);
    this.#peers.delete(peer.publicKey.toHex());
    this.setAllowedIps(peer, []);
    this.#table.forget(peer);
    peer.stopTimers();
    peer.presharedKey.fill(0);
    this.#deadlines.remove(peer);
    peer.isRemoved = true;
  }

  /** Replaces a peer's allowed IPs; each prefix is taken from whoever has it. */
  setAllowedIps(peer: Peer, prefixes: readonly IpPrefix[]): void {
    for (const prefix of peer.allowedIps) this.#allowed.delete(prefix, peer);
    for (const prefix of prefixes) this.#allowed.set(prefix, peer);
    peer.allowedIps = prefixes;
  }

  /** Says where a peer is: a socket address of 16 or 28 bytes. */
  setEndpoint(peer: Peer, endpoint: Uint8Array): void {
    const view = new DataView(endpoint.buffer, endpoint.byteOffset, endpoint.length);
    assert(endpoint.length >= 16 && endpointLength(view, 0) === endpoint.length, 'no socket address');
    const padded = new DataView(new ArrayBuffer(ENDPOINT_BYTES));
    for (let i = 0; i < endpoint.length; i++) padded.setUint8(i, endpoint[i] as number);
    peer.moveTo(padded, 0);
  }

  /** Sets the interval of keepalives in ms, 0 for none; the first goes out at once. */
  setPersistentKeepalive(peer: Peer, interval: number, now: number): void {
    peer.persistentKeepalive = interval;
    peer.persistentAt = interval > 0 ? now : NEVER;
    this.#arm(peer);
  }

  /** Replaces the pre-shared key, for handshakes to come. 32 bytes; copied. */
  setPresharedKey(peer: Peer, presharedKey: Uint8Array): void {
    assert(presharedKey.length === 32);
    peer.presharedKey = presharedKey.slice();
  }

  /** The peer that packets to an address of four or sixteen bytes go to, or null. */
  route(address: Uint8Array): Peer | null {
    const view = new DataView(address.buffer, address.byteOffset, address.length);
    return address.length === 4 ? this.#allowed.find4(view.getInt32(0)) : this.#allowed.find6(view, 0);
  }

  // --- datagrams in, in packet order -----------------------------------------------------------------------

  /**
   * Takes a datagram of `length` bytes at `at`, which came from the socket address at `from` in the same
   * memory. It is opened in place; the caller keeps the memory.
   *
   * @returns 0 when it was taken: `inner` then has the packet, or a length of 0 when the datagram carried
   * none. Otherwise why it was dropped.
   */
  handleDatagram(at: number, length: number, from: number, now: number): WireguardDrop {
    this.inner.length = 0;
    this.inner.peer = null;
    const drop = this.#handleMessage(at, length, from, now);
    if (drop !== WireguardDrop.None) this.drops[drop] = (this.drops[drop] as number) + 1;
    return drop;
  }

  #handleMessage(at: number, length: number, from: number, now: number): WireguardDrop {
    const drop = checkMessage(this.#view, at, length);
    if (drop !== WireguardDrop.None) return drop;
    const type = this.#view.getUint8(at);
    if (type === MessageType.Transport) return this.#handleTransport(at, length, from, now);
    if (type === MessageType.CookieReply) return this.#handleCookieReply(at, length, now);
    const guarded = this.#guardHandshake(at, length, from, now);
    if (guarded !== WireguardDrop.None) return guarded;
    const message = this.#bytes.slice(at, at + length);
    return type === MessageType.Initiation
      ? this.#handleInitiation(message, from, now)
      : this.#handleResponse(message, from, now);
  }

  #handleTransport(at: number, length: number, from: number, now: number): WireguardDrop {
    const session = this.#table.session(transportReceiver(this.#view, at));
    if (session === undefined) return WireguardDrop.UnknownIndex;
    if (session.isExpired(now)) return WireguardDrop.ExpiredSession;
    const counter = transportCounter(this.#view, at);
    if (counter >= REJECT_AFTER_MESSAGES) return WireguardDrop.CounterExhausted;
    if (session.window.has(counter)) return WireguardDrop.ReplayedCounter;
    const packetAt = at + TRANSPORT_HEADER_LENGTH;
    const packetLength = length - TRANSPORT_LENGTH_MIN;
    if (!this.#cipher.open(session.keys, RECEIVE_KEY, counter, packetAt, packetLength)) {
      return WireguardDrop.Unauthentic;
    }
    // Nothing before this line has changed anything; from here on the datagram is the peer's.
    session.window.add(counter);
    const peer = session.peer;
    if (session === peer.next) this.#confirm(peer, session, now);
    if (peer.moveTo(this.#view, from)) this.#tell('moved', peer);
    peer.receivedBytes += length;
    peer.receivedAnything(now);
    const drop =
      packetLength === 0 ? WireguardDrop.None : this.#handleInner(peer, packetAt, packetLength, now);
    if (session.isInitiator && session === peer.current && isNearEnd(session, now)) {
      this.#initiateOnce(peer, now);
    }
    this.#arm(peer);
    return drop;
  }

  #handleInner(peer: Peer, at: number, length: number, now: number): WireguardDrop {
    peer.receivedData(now);
    const own = innerLength(this.#view, at, length);
    if (own === 0) return WireguardDrop.BadInnerPacket;
    const isV4 = this.#view.getUint8(at) >>> 4 === 4;
    const owner = isV4
      ? this.#allowed.find4(this.#view.getInt32(at + SOURCE4))
      : this.#allowed.find6(this.#view, at + SOURCE6);
    if (owner !== peer) return WireguardDrop.SpoofedSource;
    this.inner.at = at;
    this.inner.length = own;
    this.inner.peer = peer;
    return WireguardDrop.None;
  }

  /** What stands before the costly part of a handshake: nothing is allocated before MAC1 is right. */
  #guardHandshake(at: number, length: number, from: number, now: number): WireguardDrop {
    if (!this.#jar.hasMac1(this.#bytes, at, length)) return WireguardDrop.BadMac1;
    if (!this.#guard.isLoaded(now)) return WireguardDrop.None;
    const place = { at, length, from, now };
    if (!this.#jar.hasMac2(this.#view, this.#bytes, place)) {
      const reply = this.#jar.reply(this.#view, this.#bytes, place);
      this.#transmit(endpointAt(this.#view, from), reply, null);
      return WireguardDrop.CookieDemanded;
    }
    return this.#guard.takeToken(this.#view, from, now) ? WireguardDrop.None : WireguardDrop.RateLimited;
  }

  #handleInitiation(message: Uint8Array, from: number, now: number): WireguardDrop {
    const claimed = readInitiation(this.#own, message);
    if (claimed === null) return WireguardDrop.Unauthentic;
    const peer = this.findPeer(claimed.publicKey);
    const known = peer?.known() ?? null;
    if (peer === null || known === null) return WireguardDrop.UnknownPeer;
    const verified = claimed.verify(known);
    if (verified === null) return WireguardDrop.Unauthentic;
    if (!isLater(verified.timestamp, peer.lastTimestamp)) return WireguardDrop.ReplayedInitiation;
    if (now - peer.lastInitiationReceivedAt < INITIATION_INTERVAL_MIN) return WireguardDrop.InitiationFlood;
    const localIndex = this.#table.newIndex();
    const answer = verified.respond({ sender: localIndex, ephemeralSecret: this.#chance.secret() });
    if (answer === null) return WireguardDrop.Unauthentic;
    peer.lastTimestamp.set(verified.timestamp);
    peer.lastInitiationReceivedAt = now;
    if (peer.moveTo(this.#view, from)) this.#tell('moved', peer);
    peer.receivedBytes += message.length;
    // A response that was never confirmed is overtaken, and so is what it would have replaced.
    this.#table.drop(peer.next);
    const origin = { peer, localIndex, isInitiator: false, createdAt: now };
    peer.next = this.#table.open(origin, answer.transport);
    peer.receivedAnything(now);
    peer.derivedKeys(now);
    peer.macs.write(answer.message, now);
    this.#send(peer, answer.message, now);
    this.#arm(peer);
    return WireguardDrop.None;
  }

  #handleResponse(message: Uint8Array, from: number, now: number): WireguardDrop {
    const view = new DataView(message.buffer);
    const pending = this.#table.pending(view.getInt32(RESPONSE_RECEIVER, true));
    if (pending === undefined) return WireguardDrop.UnknownIndex;
    const { peer, localIndex } = pending;
    const known = peer.known();
    const transport = known === null ? null : pending.expect.accept(this.#own, known, message);
    if (transport === null) return WireguardDrop.Unauthentic;
    this.#table.forgetPending(peer);
    if (peer.moveTo(this.#view, from)) this.#tell('moved', peer);
    peer.receivedBytes += message.length;
    const origin = { peer, localIndex, isInitiator: true, createdAt: now };
    const session = this.#table.open(origin, transport);
    // The peer may already use a session that it began itself at the same time: keep that one for receiving.
    if (peer.next === null) this.#table.retire(peer, peer.current);
    else {
      this.#table.drop(peer.current);
      this.#table.retire(peer, peer.next);
      peer.next = null;
    }
    peer.current = session;
    peer.receivedAnything(now);
    peer.derivedKeys(now);
    this.#completed(peer, now);
    // Confirms the keys to the responder, who may not send before.
    this.#sendKeepalive(peer, now);
    this.#arm(peer);
    return WireguardDrop.None;
  }

  #handleCookieReply(at: number, length: number, now: number): WireguardDrop {
    const index = this.#view.getInt32(at + COOKIE_RECEIVER, true);
    const peer = (this.#table.pending(index) ?? this.#table.session(index))?.peer;
    if (peer === undefined) return WireguardDrop.UnknownIndex;
    const taken = peer.macs.take(this.#bytes.slice(at, at + length), now);
    return taken ? WireguardDrop.None : WireguardDrop.BadCookieReply;
  }

  /** The first packet of a session that this side answered: it is used from here on. */
  #confirm(peer: Peer, session: Session, now: number): void {
    this.#table.retire(peer, peer.current);
    peer.current = session;
    peer.next = null;
    this.#completed(peer, now);
  }

  #completed(peer: Peer, now: number): void {
    peer.completedHandshake(now);
    this.handshakes++;
    this.#tell('session', peer);
  }

  // --- packets out -----------------------------------------------------------------------------------------

  /**
   * Takes an IP packet of `length` bytes at `at` and makes a datagram of it in place, for the peer that has
   * its destination. 16 bytes before it and 31 behind it are overwritten.
   *
   * @returns 0 and the datagram in `outer`; send it to `outer.peer.endpoint`. `AwaitsSession` leaves the
   * packet untouched: hand it in again after the event `session` of `outer.peer`, or drop it.
   */
  handlePacket(at: number, length: number, now: number): WireguardDrop {
    this.outer.length = 0;
    this.outer.peer = null;
    const version = innerVersion(this.#view, at, length);
    const peer =
      version === 4
        ? this.#allowed.find4(this.#view.getInt32(at + DESTINATION4))
        : version === 6
          ? this.#allowed.find6(this.#view, at + DESTINATION6)
          : null;
    const drop =
      version === 0
        ? WireguardDrop.BadInnerPacket
        : peer === null
          ? WireguardDrop.NoPeer
          : this.#seal(peer, at, length, now);
    if (drop !== WireguardDrop.None) this.drops[drop] = (this.drops[drop] as number) + 1;
    return drop;
  }

  #seal(peer: Peer, at: number, length: number, now: number): WireguardDrop {
    this.outer.peer = peer;
    if (!peer.hasEndpoint) return WireguardDrop.NoEndpoint;
    const session = peer.current;
    if (session === null || !session.canSend(now)) {
      this.#initiateOnce(peer, now);
      return WireguardDrop.AwaitsSession;
    }
    const padded = paddedLength(length, this.#mtu);
    assert(at >= TRANSPORT_HEADER_LENGTH && at + padded + AEAD_TAG_LENGTH <= this.#bytes.length);
    for (let i = length; i < padded; i++) this.#bytes[at + i] = 0;
    const counter = session.sendCounter++;
    this.#cipher.seal(session.keys, SEND_KEY, counter, at, padded);
    this.outer.at = at - TRANSPORT_HEADER_LENGTH;
    this.outer.length = padded + TRANSPORT_LENGTH_MIN;
    writeTransportHeader(this.#view, this.outer.at, session.remoteIndex, counter);
    peer.sentBytes += this.outer.length;
    peer.sentAnything(now);
    if (peer.silenceAt === NEVER) peer.sentData(now, this.#chance.below(REKEY_JITTER_MAX));
    this.#renewAfterSending(peer, session, now);
    this.#arm(peer);
    return WireguardDrop.None;
  }

  /** A session that is old or worn begins a new one (section 6.2). */
  #renewAfterSending(peer: Peer, session: Session, now: number): void {
    if (
      session.sendCounter >= REKEY_AFTER_MESSAGES ||
      (session.isInitiator && now - session.createdAt >= REKEY_AFTER_TIME)
    ) {
      this.#initiateOnce(peer, now);
    }
  }

  // --- timers ----------------------------------------------------------------------------------------------

  /** When `handleTimeout` is to be called, ms, or Infinity. */
  pollTimeout(): number {
    return this.#deadlines.next;
  }

  /** Does what is due. Too early or too often does no harm. */
  handleTimeout(now: number): void {
    for (let peer = this.#deadlines.take(now); peer !== null; peer = this.#deadlines.take(now)) {
      this.#handlePeerTimeout(peer, now);
      assert(peer.deadline > now, 'a timer that has fired is set anew or not at all');
      this.#arm(peer);
    }
  }

  #handlePeerTimeout(peer: Peer, now: number): void {
    if (peer.eraseKeysAt <= now) {
      peer.eraseKeysAt = NEVER;
      this.#table.forget(peer);
      peer.retransmitAt = NEVER;
    }
    if (peer.retransmitAt <= now) this.#retransmit(peer, now);
    if (peer.silenceAt <= now) {
      peer.silenceAt = NEVER;
      this.#initiateOnce(peer, now);
    }
    if (peer.keepaliveAt <= now) {
      const again = peer.keepaliveAgain;
      this.#sendKeepalive(peer, now);
      peer.keepaliveAt = again ? now + KEEPALIVE_TIMEOUT : NEVER;
      peer.keepaliveAgain = false;
    }
    if (peer.persistentAt <= now) {
      this.#sendKeepalive(peer, now);
      peer.persistentAt = now + peer.persistentKeepalive;
    }
  }

  #retransmit(peer: Peer, now: number): void {
    peer.retransmitAt = NEVER;
    if (peer.attempts < ATTEMPTS_MAX) {
      this.#initiate(peer, now);
      return;
    }
    this.#table.forgetPending(peer);
    peer.attempts = 0;
    peer.keepaliveAt = NEVER;
    this.#tell('failed', peer);
  }

  // --- handshakes and keepalives out -----------------------------------------------------------------------

  /** Begins a handshake unless one is under way or was begun less than `REKEY_TIMEOUT` ago. */
  #initiateOnce(peer: Peer, now: number): void {
    if (peer.retransmitAt !== NEVER || now - peer.lastInitiationSentAt < REKEY_TIMEOUT) return;
    if (!peer.hasEndpoint) return;
    peer.attempts = 0;
    this.#initiate(peer, now);
  }

  #initiate(peer: Peer, now: number): void {
    this.#table.forgetPending(peer);
    peer.lastInitiationSentAt = now;
    peer.attempts++;
    peer.retransmitAt = now + REKEY_TIMEOUT + this.#chance.below(REKEY_JITTER_MAX);
    this.#arm(peer);
    const known = peer.known();
    if (known === null) return;
    const localIndex = this.#table.newIndex();
    const timestamp = timestampOf(this.#unixAtZero + now);
    const chance = { sender: localIndex, ephemeralSecret: this.#chance.secret(), timestamp };
    const initiated = initiate(this.#own, known, chance);
    if (initiated === null) return;
    this.#table.await(peer, localIndex, initiated.expect);
    peer.macs.write(initiated.message, now);
    this.#send(peer, initiated.message, now);
  }

  /** Sends an empty packet, or begins a handshake where there is no session to send it in. */
  #sendKeepalive(peer: Peer, now: number): void {
    const session = peer.current;
    if (session === null || !session.canSend(now)) {
      this.#initiateOnce(peer, now);
      return;
    }
    const bytes = new Uint8Array(TRANSPORT_LENGTH_MIN);
    const view = new DataView(bytes.buffer);
    const counter = session.sendCounter++;
    writeTransportHeader(view, 0, session.remoteIndex, counter);
    new PacketCipher(view).seal(session.keys, SEND_KEY, counter, TRANSPORT_HEADER_LENGTH, 0);
    this.#send(peer, bytes, now);
    this.#renewAfterSending(peer, session, now);
  }

  #send(peer: Peer, bytes: Uint8Array, now: number): void {
    const endpoint = peer.endpointBytes();
    if (endpoint === null) return;
    peer.sentBytes += bytes.length;
    peer.sentAnything(now);
    this.#transmit(endpoint, bytes, peer);
  }

  #transmit(endpoint: Uint8Array, bytes: Uint8Array, peer: Peer | null): void {
    this.#transmits.push({ endpoint, bytes, peer });
  }

  /** The next datagram of the protocol's own to send, null when there is none. */
  pollTransmit(): Transmit | null {
    return this.#transmits.take();
  }

  /** The next event, or null. */
  pollEvent(): WireguardEvent | null {
    return this.#events.take();
  }

  #tell(kind: WireguardEvent['kind'], peer: Peer): void {
    this.#events.push({ kind, peer });
  }

  /** Counts as under load for a while: for who has more handshakes waiting than it can work off. */
  declareLoad(now: number): void {
    this.#guard.declareLoad(now);
  }

  /** Sessions and unanswered initiations that hold an index. */
  get indexCount(): number {
    return this.#table.size;
  }

  /** The heap wakes this interface no later than the peer's next timer. */
  #arm(peer: Peer): void {
    const deadline = peer.deadline;
    if (peer.heapIndex < 0 || deadline < peer.heapAt) this.#deadlines.schedule(peer, deadline);
  }
}

/** A session whose packets are received renews itself so late before its end (section 6.2). */
function isNearEnd(session: Session, now: number): boolean {
  return now - session.createdAt >= REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT;
}

/** Length with padding: the next multiple of 16, but not beyond the MTU. */
function paddedLength(length: number, mtu: number): number {
  const padded = (length + PADDING_MULTIPLE - 1) & -PADDING_MULTIPLE;
  return Math.max(length, Math.min(padded, mtu));
}

function endpointAt(view: DataView, from: number): Uint8Array {
  const copy = new DataView(new ArrayBuffer(ENDPOINT_BYTES));
  copyEndpoint(view, from, copy);
  return new Uint8Array(copy.buffer, 0, endpointLength(copy, 0));
}
