/**
 * The hash that the flow table is indexed by. Whoever sends packets chooses the keys, so the hash is keyed
 * with 64 random bits and is a pseudo-random function (the HalfSipHash design: words of 32 bits, one round
 * per word, three at the end): without the key nobody can find tuples that fall into one bucket.
 *
 * It is symmetric: both directions of a flow have the same hash, so a flow has one entry in the table.
 * Endpoints are put in order first, the smaller (address, port) leads. All numbers are signed 32-bit, which
 * V8 keeps unboxed.
 */

/**
 * Keyed state and the four words of SipHash's state. One instance per table; a call leaves nothing behind.
 */
export class FlowHash {
  readonly #key0: number;
  readonly #key1: number;

  /** Two random 32-bit numbers, the same for the life of the table. */
  constructor(key0: number, key1: number) {
    this.#key0 = key0 | 0;
    this.#key1 = key1 | 0;
  }

  /**
   * Hash of an IPv4 key. `ports` is source port × 65536 + destination port as a signed number. `tag` is
   * network × 256 + protocol.
   */
  hash4(tag: number, source: number, destination: number, ports: number): number {
    const swapped = source === destination ? ports >>> 16 > (ports & 0xffff) : source > destination;
    const low = swapped ? destination : source;
    const high = swapped ? source : destination;
    const lowPorts = swapped ? (ports << 16) | (ports >>> 16) : ports;

    let v0 = this.#key0;
    let v1 = this.#key1;
    let v2 = this.#key0 ^ 0x6c796765;
    let v3 = this.#key1 ^ 0x74656462;
    for (let word = 0; word < 4; word++) {
      const message = word === 0 ? tag : word === 1 ? low : word === 2 ? high : lowPorts;
      v3 ^= message;
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
      v0 ^= message;
    }
    return finish(v0, v1, v2, v3);
  }

  /** Hash of an IPv6 key; the two addresses of 16 bytes stand at `source` and `destination` of `view`. */
  hash6(tag: number, view: DataView, addresses: number, ports: number): number {
    const swapped = isSwapped6(view, addresses, ports);
    const low = swapped ? addresses + 16 : addresses;
    const high = swapped ? addresses : addresses + 16;
    const lowPorts = swapped ? (ports << 16) | (ports >>> 16) : ports;

    let v0 = this.#key0;
    let v1 = this.#key1;
    let v2 = this.#key0 ^ 0x6c796765;
    let v3 = this.#key1 ^ 0x74656462;
    for (let word = 0; word < 10; word++) {
      const message =
        word < 4
          ? view.getInt32(low + word * 4)
          : word < 8
            ? view.getInt32(high + (word - 4) * 4)
            : word === 8
              ? lowPorts
              : tag;
      v3 ^= message;
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
      v0 ^= message;
    }
    return finish(v0, v1, v2, v3);
  }
}

/** True when the destination is the smaller endpoint. */
function isSwapped6(view: DataView, addresses: number, ports: number): boolean {
  for (let i = 0; i < 16; i += 4) {
    const source = view.getInt32(addresses + i);
    const destination = view.getInt32(addresses + 16 + i);
    if (source !== destination) return source > destination;
  }
  return ports >>> 16 > (ports & 0xffff);
}

/** Three rounds without input. */
function finish(a: number, b: number, c: number, d: number): number {
  let v0 = a;
  let v1 = b;
  let v2 = c ^ 0xff;
  let v3 = d;
  for (let round = 0; round < 3; round++) {
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
  }
  return v1 ^ v3;
}
