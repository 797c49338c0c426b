/**
 * The Date field's value in the fixed form of RFC 9110 section 5.6.7, as bytes that are formatted at most
 * once a second.
 */
export class HttpDate {
  /** `Mon, 23 Nov 2026 23:00:00 GMT`: 29 bytes. Always the same array. */
  readonly bytes = new Uint8Array(29);
  #second = -1;

  /** Brings `bytes` up to `epochMs`, milliseconds since 1970, and returns them. */
  at(epochMs: number): Uint8Array {
    const second = Math.floor(epochMs / 1000);
    if (second !== this.#second) {
      this.#second = second;
      const text = new Date(second * 1000).toUTCString();
      for (let i = 0; i < 29; i++) this.bytes[i] = text.charCodeAt(i);
    }
    return this.bytes;
  }
}
