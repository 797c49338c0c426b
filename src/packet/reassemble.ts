/**
 * Puts fragments together again (RFC 791, RFC 8200 section 4.5), so that everything behind sees whole packets
 * only.
 *
 * What an attacker can do with fragments is bounded: memory in total and per network (the fullest network
 * pays, by its oldest datagram), fragments per datagram, time. Fragments that overlap condemn their datagram
 * (RFC 5722, RFC 3128): there is no choice between two versions of the same bytes. Keys hold the network:
 * equal addresses and identifications of two networks never meet.
 */
import { assert } from '#base/assert.ts';
import { DROP_REASON_COUNT, DropReason } from '#base/drop-reason.ts';

import { addressesEqual } from './address.ts';
import { writeIpv4Checksum } from './checksum.ts';
import { bytesOf } from './copy.ts';
import { FragmentKind, type ParsedPacket } from './parse.ts';
import { clearVirtioHeader } from './virtio-header.ts';

/** Limits of a `Reassembler`. */
export interface ReassemblerLimits {
  /** Bytes of all datagrams under way, with overhead. Default 4 MiB. */
  readonly bytesMax?: number;
  /** Bytes that one network may hold. Default a quarter of `bytesMax`. */
  readonly networkBytesMax?: number;
  /** Datagrams under way. Default 1024. */
  readonly datagramsMax?: number;
  /** Fragments of one datagram: enough for 64 KiB over a link of 576 bytes. Default 128. */
  readonly fragmentsMax?: number;
  /** How long a datagram may stay incomplete. Default 30 000 (RFC 8200 allows up to 60 s). */
  readonly timeoutMs?: number;
}

/** What a kept fragment costs beside its bytes, and a datagram beside its fragments: their objects. Bytes. */
const FRAGMENT_OVERHEAD = 128;
const DATAGRAM_OVERHEAD = 256;

interface Fragment {
  readonly start: number;
  readonly bytes: Uint8Array;
}

interface Network {
  bytes: number;
  /** Oldest first. */
  readonly datagrams: Set<Datagram>;
}

interface Datagram {
  readonly network: number;
  readonly version: number;
  readonly id: number;
  /** IPv4 only, where it is part of the key; 0 for IPv6. */
  readonly protocol: number;
  /** Source and destination. */
  readonly addresses: DataView;
  readonly hash: number;
  /** The next with an equal hash. */
  next: Datagram | null;
  readonly expiresAt: number;
  /** Sorted by start, without overlap. Empty once condemned. */
  fragments: Fragment[];
  /** The headers of the first fragment as the whole packet has them; null until it came. */
  header: Uint8Array | null;
  received: number;
  /** Length of all data, −1 until the last fragment came. */
  dataLength: number;
  /** Accounted bytes. */
  cost: number;
  isCondemned: boolean;
  /** ECN fields seen, one bit each (RFC 3168 section 5.3). */
  ecnSeen: number;
}

/** Datagrams under way of all networks of one worker. */
export class Reassembler {
  readonly #bytesMax: number;
  readonly #networkBytesMax: number;
  readonly #datagramsMax: number;
  readonly #fragmentsMax: number;
  readonly #timeoutMs: number;
  readonly #byHash = new Map<number, Datagram>();
  readonly #networks = new Map<number, Network>();
  /** Oldest first; the timeout is the same for all, so this is the order of expiry too. */
  readonly #order = new Set<Datagram>();
  #bytes = 0;
  /**
   * Fragments that were kept and then dropped, by `DropReason`: timed out, evicted (`ReassemblyFull`),
   * condemned. The fragment that `add` refuses is not among them: its reason is returned.
   */
  readonly droppedFragments: Float64Array = new Float64Array(DROP_REASON_COUNT);

  constructor(limits: ReassemblerLimits = {}) {
    this.#bytesMax = limits.bytesMax ?? 4 << 20;
    this.#networkBytesMax = limits.networkBytesMax ?? this.#bytesMax >>> 2;
    this.#datagramsMax = limits.datagramsMax ?? 1024;
    this.#fragmentsMax = limits.fragmentsMax ?? 128;
    this.#timeoutMs = limits.timeoutMs ?? 30_000;
    assert(this.#bytesMax > 0 && this.#datagramsMax > 0 && this.#timeoutMs > 0);
  }

  /** Accounted bytes held now; never more than `bytesMax`. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Datagrams under way, never more than `datagramsMax`. */
  get datagrams(): number {
    return this.#order.size;
  }

  /**
   * Takes one fragment, copying what it needs. When it completes its datagram, the whole packet is written at
   * `to` (a slot for `PACKET_LENGTH_MAX` bytes, which may be the fragment's own) with a clear virtio header;
   * parse it again.
   *
   * @param network number of the (account, vnet) pair.
   * @param now milliseconds, of the same clock as in `expire`.
   * @returns the length of the whole packet; 0 when more fragments are awaited; a negative `DropReason` when
   * the
   *   fragment was refused.
   */
  add(view: DataView, parsed: ParsedPacket, network: number, now: number, to: number): number {
    assert(parsed.fragmentKind !== FragmentKind.None);
    this.expire(now);
    const hash = hashKey(view, parsed, network);
    let datagram = this.#find(view, parsed, network, hash);
    const length = parsed.offset + parsed.totalLength - dataOffset(parsed);
    if (datagram?.isCondemned === true) return -DropReason.FragmentOverlap;
    if (datagram !== null && isDuplicate(datagram, parsed.fragmentOffset, length)) return 0;
    const fresh = datagram === null ? DATAGRAM_OVERHEAD : 0;
    const cost = FRAGMENT_OVERHEAD + length + fresh + (parsed.fragmentOffset === 0 ? parsed.headerLength : 0);
    if (!this.#makeRoom(network, cost, datagram)) return -DropReason.ReassemblyFull;
    if (datagram === null) datagram = this.#create(view, parsed, network, now, hash);
    this.#account(datagram, cost);
    const reason = this.#insert(view, datagram, parsed, length);
    if (reason !== DropReason.None) {
      this.#condemn(datagram, reason);
      return -reason;
    }
    if (datagram.header === null || datagram.received !== datagram.dataLength) return 0;
    const result = writeDatagram(view, datagram, to);
    if (result < 0) {
      this.#condemn(datagram, -result as DropReason);
      return result;
    }
    this.#remove(datagram);
    return result;
  }

  /** Drops what is older than the timeout. @returns how many datagrams that were. */
  expire(now: number): number {
    let count = 0;
    for (const datagram of this.#order) {
      if (datagram.expiresAt > now) break;
      this.#drop(datagram, DropReason.ReassemblyTimeout);
      count++;
    }
    return count;
  }

  /** Drops everything of a network that exists no longer. */
  forgetNetwork(network: number): void {
    for (const datagram of this.#networks.get(network)?.datagrams ?? []) {
      this.#drop(datagram, DropReason.NetworkUnknown);
    }
  }

  #find(view: DataView, parsed: ParsedPacket, network: number, hash: number): Datagram | null {
    let datagram = this.#byHash.get(hash) ?? null;
    while (datagram !== null && !isKeyOf(datagram, view, parsed, network)) datagram = datagram.next;
    return datagram;
  }

  #create(view: DataView, parsed: ParsedPacket, network: number, now: number, hash: number): Datagram {
    const addresses = new Uint8Array(parsed.version === 4 ? 8 : 32);
    for (let i = 0; i < addresses.length; i++) addresses[i] = view.getUint8(parsed.addressOffset + i);
    const datagram: Datagram = {
      network,
      version: parsed.version,
      id: parsed.fragmentId,
      protocol: parsed.version === 4 ? parsed.protocol : 0,
      addresses: new DataView(addresses.buffer),
      hash,
      next: this.#byHash.get(hash) ?? null,
      expiresAt: now + this.#timeoutMs,
      fragments: [],
      header: null,
      received: 0,
      dataLength: -1,
      cost: 0,
      isCondemned: false,
      ecnSeen: 0,
    };
    this.#byHash.set(hash, datagram);
    this.#order.add(datagram);
    let use = this.#networks.get(network);
    if (use === undefined) {
      use = { bytes: 0, datagrams: new Set() };
      this.#networks.set(network, use);
    }
    use.datagrams.add(datagram);
    return datagram;
  }

  /** Keeps the fragment, or says why its whole datagram is condemned. */
  #insert(view: DataView, datagram: Datagram, parsed: ParsedPacket, length: number): DropReason {
    const start = parsed.fragmentOffset;
    const end = start + length;
    const fragments = datagram.fragments;
    if (fragments.length >= this.#fragmentsMax) return DropReason.ReassemblyFull;
    if (parsed.moreFragments === 0) {
      if (datagram.dataLength >= 0 && datagram.dataLength !== end) return DropReason.FragmentOverlap;
      datagram.dataLength = end;
    }
    let index = fragments.length;
    while (index > 0 && (fragments[index - 1] as Fragment).start > start) index--;
    const before = fragments[index - 1];
    const after = fragments[index];
    if (before !== undefined && before.start + before.bytes.length > start) return DropReason.FragmentOverlap;
    if (after !== undefined && after.start < end) return DropReason.FragmentOverlap;
    const furthest = fragments.at(-1);
    const reached = Math.max(end, furthest === undefined ? 0 : furthest.start + furthest.bytes.length);
    if (datagram.dataLength >= 0 && reached > datagram.dataLength) return DropReason.FragmentOverlap;
    const from = dataOffset(parsed);
    fragments.splice(index, 0, { start, bytes: bytesOf(view).slice(from, from + length) });
    datagram.received += length;
    datagram.ecnSeen |= 1 << (parsed.tos & 3);
    if (start === 0) datagram.header = wholeHeader(view, parsed);
    return DropReason.None;
  }

  /**
   * Evicts until `cost` more bytes of `network` fit; `keep` is never evicted. False when that cannot be
   * reached.
   */
  #makeRoom(network: number, cost: number, keep: Datagram | null): boolean {
    const own = this.#networks.get(network);
    while (own !== undefined && own.bytes + cost > this.#networkBytesMax) {
      if (!this.#evictOldest(own, keep)) return false;
    }
    if (cost > this.#networkBytesMax) return false;
    while (this.#bytes + cost > this.#bytesMax || (keep === null && this.#order.size >= this.#datagramsMax)) {
      if (!this.#evictOldest(this.#fullest(keep), keep)) return false;
    }
    return true;
  }

  /** The network that holds most, not counting `keep`. */
  #fullest(keep: Datagram | null): Network | null {
    let most = 0;
    let fullest: Network | null = null;
    for (const [number, network] of this.#networks) {
      const bytes = network.bytes - (keep?.network === number ? keep.cost : 0);
      if (bytes > most) {
        most = bytes;
        fullest = network;
      }
    }
    return fullest;
  }

  #evictOldest(network: Network | null, keep: Datagram | null): boolean {
    for (const datagram of network?.datagrams ?? []) {
      if (datagram === keep) continue;
      this.#drop(datagram, DropReason.ReassemblyFull);
      return true;
    }
    return false;
  }

  /**
   * Frees the fragments but remembers the key until the timeout, so that fragments yet to come are refused
   * too.
   */
  #condemn(datagram: Datagram, reason: DropReason): void {
    this.#count(reason, datagram.fragments.length);
    datagram.fragments = [];
    datagram.header = null;
    datagram.isCondemned = true;
    this.#account(datagram, DATAGRAM_OVERHEAD - datagram.cost);
  }

  #drop(datagram: Datagram, reason: DropReason): void {
    this.#count(reason, datagram.fragments.length);
    this.#remove(datagram);
  }

  #count(reason: DropReason, fragments: number): void {
    this.droppedFragments[reason] = (this.droppedFragments[reason] as number) + fragments;
  }

  #account(datagram: Datagram, cost: number): void {
    datagram.cost += cost;
    this.#bytes += cost;
    (this.#networks.get(datagram.network) as Network).bytes += cost;
  }

  #remove(datagram: Datagram): void {
    this.#account(datagram, -datagram.cost);
    this.#order.delete(datagram);
    const network = this.#networks.get(datagram.network) as Network;
    network.datagrams.delete(datagram);
    if (network.datagrams.size === 0) this.#networks.delete(datagram.network);
    const first = this.#byHash.get(datagram.hash) as Datagram;
    if (first === datagram) {
      if (datagram.next === null) this.#byHash.delete(datagram.hash);
      else this.#byHash.set(datagram.hash, datagram.next);
      return;
    }
    let previous = first;
    while (previous.next !== datagram) previous = previous.next as Datagram;
    previous.next = datagram.next;
  }
}

/** Where a fragment's data starts: in IPv6 it may hold extension headers before the transport header. */
function dataOffset(parsed: ParsedPacket): number {
  return parsed.version === 4 ? parsed.transportOffset : parsed.fragmentHeaderOffset + 8;
}

/** A fragment that came twice is not an overlap: the network may repeat packets. The first one counts. */
function isDuplicate(datagram: Datagram, start: number, length: number): boolean {
  return datagram.fragments.some((one) => one.start === start && one.bytes.length === length);
}

function hashKey(view: DataView, parsed: ParsedPacket, network: number): number {
  const end = parsed.addressOffset + (parsed.version === 4 ? 8 : 32);
  let hash = Math.imul(network ^ parsed.fragmentId, 0x2c1b3c6d);
  for (let at = parsed.addressOffset; at < end; at += 4) {
    hash = Math.imul(hash ^ (hash >>> 15) ^ view.getInt32(at), 0x297a2d39);
  }
  return hash ^ (hash >>> 16);
}

function isKeyOf(datagram: Datagram, view: DataView, parsed: ParsedPacket, network: number): boolean {
  if (datagram.network !== network || datagram.version !== parsed.version) return false;
  if (datagram.id !== parsed.fragmentId) return false;
  if (parsed.version === 4 && datagram.protocol !== parsed.protocol) return false;
  const step = parsed.version === 4 ? 4 : 16;
  return (
    addressesEqual(datagram.addresses, 0, view, parsed.addressOffset, parsed.version) &&
    addressesEqual(datagram.addresses, step, view, parsed.addressOffset + step, parsed.version)
  );
}

/** The first fragment's headers without what made it a fragment; lengths and checksum are set at the end. */
function wholeHeader(view: DataView, parsed: ParsedPacket): Uint8Array {
  const bytes = bytesOf(view);
  if (parsed.version === 4) {
    const header = bytes.slice(parsed.offset, parsed.transportOffset);
    header[6] = (header[6] as number) & 0x40;
    header[7] = 0;
    return header;
  }
  const header = bytes.slice(parsed.offset, parsed.fragmentHeaderOffset);
  header[parsed.fragmentNextHeaderOffset - parsed.offset] = view.getUint8(parsed.fragmentHeaderOffset);
  return header;
}

/** Writes the whole packet and returns its length, or a negative reason. */
function writeDatagram(view: DataView, datagram: Datagram, to: number): number {
  const header = datagram.header as Uint8Array;
  const total = header.length + datagram.dataLength;
  if (total - (datagram.version === 4 ? 0 : 40) > 0xffff) return -DropReason.PacketTooLong;
  const ecn = combineEcn(datagram.ecnSeen);
  if (ecn < 0) return -DropReason.BadFragment;
  const bytes = bytesOf(view);
  bytes.set(header, to);
  for (const fragment of datagram.fragments) bytes.set(fragment.bytes, to + header.length + fragment.start);
  clearVirtioHeader(view, to);
  if (datagram.version === 4) {
    view.setUint8(to + 1, ((header[1] as number) & 0xfc) | ecn);
    view.setUint16(to + 2, total);
    writeIpv4Checksum(view, to, header.length);
  } else {
    view.setUint8(to + 1, ((header[1] as number) & 0xcf) | (ecn << 4));
    view.setUint16(to + 4, total - 40);
  }
  return total;
}

/**
 * The ECN field of the whole from those of its fragments, given as one bit each: congestion seen by one was
 * seen by all, but marks beside fragments that cannot be marked are a lie (RFC 3168 section 5.3). −1 for
 * that.
 */
function combineEcn(seen: number): number {
  const NOT_CAPABLE = 0b0001;
  const MARKED = 0b1000;
  if ((seen & MARKED) !== 0) return (seen & NOT_CAPABLE) !== 0 ? -1 : 3;
  if ((seen & NOT_CAPABLE) !== 0) return 0;
  return seen === 0b0010 ? 1 : 2;
}
