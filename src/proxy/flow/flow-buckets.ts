import { assert } from '#base/assert.ts';

/**
 * The index of the flow table: open addressing with linear probing over pairs (hash, flow + 1), at most half
 * full. A hash stands beside its entry, so a probe touches a flow's own memory only when all 32 bits agree.
 * Removal moves later entries of the run back, so there are no tombstones and lookups do not get slower with
 * age.
 *
 * The lookup loops are in `FlowTable`, which compares keys; they read `pairs` from `hash & mask` on until an
 * entry is 0.
 */
export class FlowBuckets {
  readonly pairs: Int32Array;
  /** Number of buckets less one. */
  readonly mask: number;

  constructor(flowsMax: number) {
    let buckets = 16;
    while (buckets < flowsMax * 2) buckets *= 2;
    this.pairs = new Int32Array(buckets * 2);
    this.mask = buckets - 1;
  }

  add(hash: number, flow: number): void {
    const { pairs, mask } = this;
    let bucket = hash & mask;
    while (pairs[bucket * 2 + 1] !== 0) bucket = (bucket + 1) & mask;
    pairs[bucket * 2] = hash;
    pairs[bucket * 2 + 1] = flow + 1;
  }

  remove(hash: number, flow: number): void {
    const { pairs, mask } = this;
    let gap = hash & mask;
    while (pairs[gap * 2 + 1] !== flow + 1) {
      assert(pairs[gap * 2 + 1] !== 0, 'flow is not in the table');
      gap = (gap + 1) & mask;
    }
    for (let bucket = (gap + 1) & mask; pairs[bucket * 2 + 1] !== 0; bucket = (bucket + 1) & mask) {
      const home = (pairs[bucket * 2] as number) & mask;
      // An entry whose home is behind the gap would be cut off from it.
      if (((bucket - home) & mask) < ((bucket - gap) & mask)) continue;
      pairs[gap * 2] = pairs[bucket * 2] as number;
      pairs[gap * 2 + 1] = pairs[bucket * 2 + 1] as number;
      gap = bucket;
    }
    pairs[gap * 2 + 1] = 0;
  }
}
