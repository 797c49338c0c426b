import assert from 'node:assert/strict';
import { test } from 'node:test';

import { declarationsOf, frontComment } from './declarations.ts';

const TEXT = `/**
 * Front of the file.
 * Second line.
 */
import type { X } from './x.ts';

/** A union. */
export type Verdict =
  | { readonly action: 'a' }
  /** Inside. */
  | { readonly action: 'b' };

const hidden = 1;

/**
 * An interface.
 * More.
 */
export interface Shape {
  /** Its size. */
  readonly size: number;
}

export function make<T>(
  of: T,
): Shape {
  return { size: hidden };
}
`;

test('the opening comment is found without its stars', () => {
  assert.equal(frontComment(TEXT), 'Front of the file.\nSecond line.');
  assert.equal(frontComment('export {};\n'), '');
});

test('declarations come with their comment and their whole text', () => {
  const [verdict, shape] = declarationsOf(TEXT);
  assert.equal(verdict?.name, 'Verdict');
  assert.equal(verdict?.comment, 'A union.');
  assert.match(verdict?.code ?? '', /action: 'b' };$/);
  assert.equal(shape?.comment, 'An interface.\nMore.');
  assert.match(shape?.code ?? '', /^export interface Shape \{[\s\S]*\n\}$/);
});

test('of a function only the head is shown', () => {
  const make = declarationsOf(TEXT)[2];
  assert.equal(make?.comment, '');
  assert.equal(make?.code, 'export function make<T>(\n  of: T,\n): Shape;');
});
