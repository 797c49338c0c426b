import assert from 'node:assert/strict';
import { test } from 'node:test';

import { formatIp, formatPrefix, type IpPrefix, parsePrefix, prefixContains } from '#base/ip.ts';

import { AllowedIps } from './allowed-ips.ts';

interface Owner {
  readonly name: string;
}

/** The simple twin: a list that is searched whole. */
class Twin {
  readonly owners = new Map<string, { prefix: IpPrefix; owner: Owner }>();

  set(prefix: IpPrefix, owner: Owner): Owner | null {
    const before = this.owners.get(formatPrefix(prefix))?.owner ?? null;
    this.owners.set(formatPrefix(prefix), { prefix, owner });
    return before;
  }

  delete(prefix: IpPrefix, owner: Owner): boolean {
    if (this.owners.get(formatPrefix(prefix))?.owner !== owner) return false;
    return this.owners.delete(formatPrefix(prefix));
  }

  find(address: Uint8Array): Owner | null {
    let best: { prefix: IpPrefix; owner: Owner } | null = null;
    for (const entry of this.owners.values()) {
      if (prefixContains(entry.prefix, address) && entry.prefix.length >= (best?.prefix.length ?? 0)) {
        best = entry;
      }
    }
    return best?.owner ?? null;
  }
}

function find(ips: AllowedIps<Owner>, address: Uint8Array): Owner | null {
  const view = new DataView(address.buffer);
  return address.length === 4 ? ips.find4(view.getInt32(0)) : ips.find6(view, 0);
}

test('the trie answers as a list does through any number of changes', () => {
  let state = 12345;
  const below = (limit: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % limit;
  };
  // Few bits differ, so prefixes nest and part at all depths.
  const address = (): Uint8Array => {
    const bytes = new Uint8Array(below(2) === 0 ? 4 : 16);
    bytes[0] = below(2) * 0x80;
    bytes[bytes.length / 2] = below(4) << 6;
    bytes[bytes.length - 1] = below(8);
    return bytes;
  };
  const prefix = (): IpPrefix => {
    const bytes = address();
    const bits = bytes.length * 8;
    const length = [0, 1, bits / 2 + 1, bits - 2, bits][below(5)] as number;
    return parsePrefix(`${formatIp(bytes)}/${length}`) as IpPrefix;
  };
  const owners = Array.from({ length: 4 }, (_, index) => ({ name: `peer ${index}` }));
  const ips = new AllowedIps<Owner>();
  const twin = new Twin();
  for (let step = 0; step < 20_000; step++) {
    const owner = owners[below(4)] as Owner;
    const changed = prefix();
    if (below(2) === 0) assert.equal(ips.set(changed, owner), twin.set(changed, owner));
    else assert.equal(ips.delete(changed, owner), twin.delete(changed, owner));
    assert.equal(ips.size, twin.owners.size);
    const asked = address();
    assert.equal(find(ips, asked), twin.find(asked), `step ${step}`);
  }
  for (const { prefix, owner } of [...twin.owners.values()]) assert.ok(ips.delete(prefix, owner));
  assert.equal(ips.size, 0);
  assert.equal(find(ips, new Uint8Array(4)), null);
});

test('the longest prefix wins and a prefix has one owner', () => {
  const ips = new AllowedIps<Owner>();
  const [all, one, other] = [{ name: 'all' }, { name: 'one' }, { name: 'other' }];
  const set = (text: string, owner: Owner): Owner | null => ips.set(parsePrefix(text) as IpPrefix, owner);
  set('0.0.0.0/0', all);
  set('::/0', all);
  set('10.1.0.0/16', one);
  assert.equal(set('10.1.2.3/32', other), null);
  assert.equal(ips.find4(0x0a010203), other);
  assert.equal(ips.find4(0x0a010204), one);
  assert.equal(ips.find4(0xc0000201 | 0), all);
  assert.equal(set('10.1.2.3/32', one), other);
  assert.equal(ips.find4(0x0a010203), one);
  assert.equal(ips.delete(parsePrefix('10.1.2.3/32') as IpPrefix, other), false);
});
