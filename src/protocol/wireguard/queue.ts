/** First in, first out, with a limit: what comes beyond it is refused. */
export class BoundedQueue<T> {
  readonly #limit: number;
  #items: T[] = [];
  /** Items before this one have been taken. */
  #head = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** False when the queue is full. */
  push(item: T): boolean {
    if (this.#items.length - this.#head >= this.#limit) return false;
    this.#items.push(item);
    return true;
  }

  /** The oldest item, or null. */
  take(): T | null {
    if (this.#head === this.#items.length) {
      if (this.#head > 0) {
        this.#items = [];
        this.#head = 0;
      }
      return null;
    }
    return this.#items[this.#head++] as T;
  }
}
